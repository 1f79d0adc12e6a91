"""TFRecord files of `tf.train.Example`s.

The feature of an input is the one of its name, else for a model with one input the first found of
"x", "image", "image/encoded" and "image_raw"; the label is in "y", "label" or "image/class/label".
A bytes feature is an encoded image (resized to the input), a tensor written by
`tf.io.serialize_tensor`, or the bare bytes of a uint8 array of the input's shape; float and int64
features are reshaped to the input's shape.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import os
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfq.data.images import decode_image, require_preprocess, takes_images
from tfq.data.samples import InputSignature
from tfq.data.sources import RawSample, Source, selected, stacked
from tfq.errors import UserError

INPUT_FEATURES = ("x", "image", "image/encoded", "image_raw")
LABEL_FEATURES = ("y", "label", "image/class/label")
MOST_RECORD_BYTES = 256 << 20
_HEADER = struct.Struct("<QI")  # length and its checksum; the data and theirs follow
_CHECKSUM_BYTES = 4
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")


class TFRecordSource(Source):
    """Examples of one or several TFRecord files, in the order of the file names; plain or gzip."""

    label_hint = f"the label is the feature {', '.join(LABEL_FEATURES[:-1])} or {LABEL_FEATURES[-1]}"

    def __init__(self, paths: Sequence[Path], signatures: Sequence[InputSignature], preprocess: str):
        self._paths = paths
        self._preprocess = preprocess
        self._signatures = signatures

    def labels(self) -> np.ndarray | None:
        return stacked(itertools.starmap(self._label, self._examples()), str(self._paths[0]))

    def read(self, wanted: Collection[int] | None) -> Iterator[RawSample]:
        for index, (where, features) in selected(self._examples(), wanted):
            inputs = {s.name: self._input(s, where, features) for s in self._signatures}
            yield RawSample(index, dict.fromkeys(inputs, where), inputs, self._label(where, features))

    def _examples(self) -> Iterator[tuple[str, Any]]:
        import tensorflow as tf

        for path in self._paths:
            with path.open("rb") as file:
                compression = "GZIP" if file.read(2) == b"\x1f\x8b" else ""
            lengths = _lengths(path, packed=bool(compression))
            records = iter(tf.data.TFRecordDataset(str(path), compression_type=compression))
            for position in range(1 << 62):
                where = f"record {position} of {path}"
                if next(lengths, 0) > MOST_RECORD_BYTES:  # before the runtime makes room for it
                    raise UserError(
                        f"{where} claims over {MOST_RECORD_BYTES >> 20} MiB: {path} is damaged or not a TFRecord file"
                    )
                try:
                    record = next(records, None)
                except tf.errors.OpError as error:
                    raise UserError(f"{where} cannot be read: {path} is damaged or not a TFRecord file") from error
                if record is None:
                    break
                try:
                    example = tf.train.Example.FromString(record.numpy())
                except Exception as error:
                    raise UserError(f"{where} is not a tf.train.Example ({type(error).__name__})") from error
                yield where, example.features.feature

    def _label(self, where: str, features: Any) -> np.ndarray | None:
        taken = {self._feature_name(s, where, features) for s in self._signatures}
        name = next((k for k in LABEL_FEATURES if k in features and k not in taken), None)
        return None if name is None else _numbers(features[name], f"feature {name!r} of {where}")

    def _feature_name(self, signature: InputSignature, where: str, features: Any) -> str:
        candidates = [signature.name, *(INPUT_FEATURES if len(self._signatures) == 1 else ())]
        for name in candidates:
            if name in features:
                return name
        raise UserError(
            f"{where} has no feature {' or '.join(map(repr, candidates))} for input {signature.name!r};"
            f" it has: {', '.join(map(repr, sorted(features))) or 'none'}"
        )

    def _input(self, signature: InputSignature, where: str, features: Any) -> np.ndarray:
        name = self._feature_name(signature, where, features)
        where = f"feature {name!r} of {where}"
        feature = features[name]
        if feature.WhichOneof("kind") != "bytes_list":
            return _reshaped(_numbers(feature, where), signature, where)
        if len(feature.bytes_list.value) != 1:
            raise UserError(f"{where} holds {len(feature.bytes_list.value)} byte strings; expected one")
        return self._decoded(feature.bytes_list.value[0], signature, where)

    def _decoded(self, data: bytes, signature: InputSignature, where: str) -> np.ndarray:
        if data.startswith(_IMAGE_STARTS) and takes_images(signature):
            require_preprocess(where, signature, self._preprocess)
            return decode_image(io.BytesIO(data), where, signature)
        if len(data) == math.prod(signature.shape):
            return np.frombuffer(data, np.uint8).reshape(signature.shape)
        import tensorflow as tf
        from tensorflow.core.framework.tensor_pb2 import TensorProto

        try:
            return tf.make_ndarray(TensorProto.FromString(data))
        except Exception as error:
            raise UserError(
                f"{where} holds {len(data)} bytes that are no image, no serialised tensor and no uint8 array of shape"
                f" {signature.shape}"
            ) from error


def _lengths(path: Path, *, packed: bool) -> Iterator[int]:
    """What each record says is its length in bytes, as long as the file goes on."""
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        while True:
            try:
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    return
                (length,) = _HEADER.unpack(header)[:1]
                yield length
                file.seek(length + _CHECKSUM_BYTES, os.SEEK_CUR)
            except (OSError, EOFError, zlib.error, OverflowError, ValueError):
                return  # the runtime tells what is wrong


def _numbers(feature: Any, where: str) -> np.ndarray:
    kind = feature.WhichOneof("kind")
    if kind == "int64_list":
        return np.array(feature.int64_list.value, np.int64)
    if kind == "float_list":
        return np.array(feature.float_list.value, np.float32)
    raise UserError(f"{where} holds {kind or 'nothing'}; expected numbers")


def _reshaped(values: np.ndarray, signature: InputSignature, where: str) -> np.ndarray:
    if values.size != math.prod(signature.shape):
        raise UserError(
            f"{where} holds {values.size} numbers; input {signature.name!r} expects {math.prod(signature.shape)}"
            f" for its shape {signature.shape}"
        )
    return values.reshape(signature.shape)
