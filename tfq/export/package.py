"""From the specification to the finished file: convert, apply the passes, add the metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfq import __version__
from tfq.data.preprocess import normalizations
from tfq.data.samples import InputSignature
from tfq.export.convert import RepresentativeDataset, convert_plain, convert_quantized
from tfq.export.metadata import ModelMetadata, TensorMetadata, add_metadata
from tfq.export.passes import finish
from tfq.models.graph import Graph
from tfq.spec import QuantizationSpec


def export_quantized(graph: Graph, spec: QuantizationSpec, representative_dataset: RepresentativeDataset) -> bytes:
    """The .tflite of the specification, without metadata."""
    return finish(convert_quantized(graph, spec, representative_dataset), graph, spec)


def export_plain(graph: Graph, precision: str, representative_dataset: RepresentativeDataset) -> bytes:
    """A whole-model export by TFLiteConverter's own means, with tensors called by their Keras layers."""
    return finish(convert_plain(graph, precision, representative_dataset), graph, None)


def describe(
    content: bytes,
    *,
    name: str,
    description: str,
    signatures: Sequence[InputSignature],
    outputs: Sequence[str],
    preprocess: str,
    ranges: Mapping[str, tuple[float, float]],
    labels: Sequence[str],
    recipe: str,
) -> bytes:
    """The file with TFLite metadata.

    Args:
      content: the finished .tflite.
      name, description: of the model, for people.
      signatures, outputs: the model's inputs and the names of its outputs.
      preprocess: what was done to the samples; becomes the input normalisation.
      ranges: smallest and largest value of inputs, where known.
      labels: class names along the last axis of the first output; may be empty.
      recipe: JSON.
    """
    normalized = normalizations(signatures, preprocess)

    def input_metadata(signature: InputSignature) -> TensorMetadata:
        channels = signature.shape[-1] if len(signature.shape) == 3 else 0
        found = normalized.get(signature.name)
        low, high = ranges.get(signature.name, (None, None))
        return TensorMetadata(
            signature.name,
            color_space={1: "GRAYSCALE", 3: "RGB"}.get(channels, ""),
            mean=() if found is None else tuple(np.atleast_1d(found.mean).tolist()),
            std=() if found is None else tuple(np.atleast_1d(found.std).tolist()),
            minimum=() if low is None else (low,),
            maximum=() if high is None else (high,),
        )

    return add_metadata(
        content,
        ModelMetadata(
            name=name,
            description=description,
            inputs=tuple(input_metadata(s) for s in signatures),
            outputs=tuple(TensorMetadata(o, labels=tuple(labels) if not i else ()) for i, o in enumerate(outputs)),
            tfq_version=__version__,
            recipe=recipe,
        ),
    )
