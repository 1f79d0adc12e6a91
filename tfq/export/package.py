"""From the quantised model to the finished file: convert, apply the passes, say what it holds."""

from __future__ import annotations

from collections.abc import Sequence

from tfq import __version__
from tfq.data.preprocess import normalizations
from tfq.data.samples import InputSignature, Samples
from tfq.data.signatures import input_signatures
from tfq.execution.deflate import GZIP, deflated
from tfq.execution.progress import SILENT, Progress
from tfq.export.convert import RepresentativeDataset, convert_plain, convert_quantized
from tfq.export.metadata import ModelMetadata, TensorMetadata
from tfq.export.passes import finish
from tfq.models.graph import Graph
from tfq.models.load import LoadedModel
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe

# Time of a conversion for each node of the graph, for the progress display only.
_QUANTIZED_SECONDS, _PLAIN_SECONDS = 0.1, 0.04


def export_quantized(
    model: QuantizedModel, representative: RepresentativeDataset, *, progress: Progress = SILENT
) -> bytes:
    """The .tflite of the model, without metadata; arguments and errors as in `convert_quantized`."""
    expected = _QUANTIZED_SECONDS * len(model.nodes)
    with progress.task("convert to int8", 0, expected_seconds=expected):
        return finish(convert_quantized(model, representative), model)


def export_plain(
    graph: Graph, precision: str, representative: RepresentativeDataset, *, progress: Progress = SILENT
) -> bytes:
    """A whole-model export by TFLiteConverter's own means, with tensors called by their Keras layers."""
    expected = _PLAIN_SECONDS * len(graph.nodes)
    with progress.task(f"convert to {precision}", 0, expected_seconds=expected):
        return finish(convert_plain(graph, precision, representative), graph)


def metadata_of(
    *,
    loaded: LoadedModel,
    samples: Samples,
    labels: Sequence[str],
    recipe: Recipe,
) -> ModelMetadata:
    """What the files of a run say: input ranges and normalisation, class names, tfq's version and recipe.

    Args:
      loaded: the Keras model.
      samples: calibration samples, for the range of the inputs and, in a folder of images, the class names.
      labels: class names along the last axis of the first output; may be empty.
      recipe: what made the file.
    """
    signatures = input_signatures(loaded.graph)
    normalized = normalizations(signatures, recipe.preprocess)

    def input_metadata(signature: InputSignature) -> TensorMetadata:
        found = normalized.get(signature.name)
        channels = signature.shape[-1] if len(signature.shape) == 3 else 0
        if channels == 1 and found is None and not samples.names:
            channels = 0  # sound and tables have such shapes too
        is_float = samples.arrays[signature.name].dtype.kind == "f"
        low, high = samples.extremes(signature.name) if is_float else (0.0, 0.0)
        return TensorMetadata(
            signature.name,
            color_space={1: "GRAYSCALE", 3: "RGB"}.get(channels, ""),
            mean=() if found is None else found.mean,
            std=() if found is None else found.std,
            minimum=(low,) if is_float else (),
            maximum=(high,) if is_float else (),
        )

    first, *others = loaded.graph.output_names
    return ModelMetadata(
        name=loaded.name,
        description=f"{loaded.name} ({loaded.framework}), exported by tfq {__version__}",
        inputs=tuple(input_metadata(s) for s in signatures),
        outputs=(
            TensorMetadata(first, labels=tuple(labels or samples.class_names)),
            *(TensorMetadata(other) for other in others),
        ),
        tfq_version=__version__,
        recipe=recipe.shipped().to_json(),
    )


def gzipped(content: bytes) -> bytes:
    """`content` as a gzip file without a name or a time: the same bytes each time.

    Its length is the download size that `tfq.evaluation.size` measures and 12 bytes more: gzip frames the same
    deflated bytes with 18 bytes where zlib needs 6.
    """
    return deflated(content, frame=GZIP)
