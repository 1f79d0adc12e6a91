"""The part of a SavedModel's keras_metadata.pb that describes the model, read without TensorFlow.

It is a `tf_keras.protobuf.saved_metadata_pb2.SavedMetadata`: field 1 repeats a `SavedObject`, whose field 3
is its place in the model, 4 the kind of object and 5 a text in JSON.
"""

from __future__ import annotations

from collections.abc import Iterator

_OBJECTS, _PLACE, _KIND, _TEXT = 1, 3, 4, 5
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5


def model_metadata(content: bytes) -> str:
    """The JSON text of the model itself.

    Raises:
      ValueError: the content is damaged, or describes no Keras model.
    """
    for field, value in _fields(content):
        if field == _OBJECTS and isinstance(value, bytes):
            found = {inner: part for inner, part in _fields(value) if isinstance(part, bytes)}
            kind = found.get(_KIND, b"")
            if found.get(_PLACE) == b"root" and kind.startswith(b"_tf_keras_") and _TEXT in found:
                return found[_TEXT].decode()
    raise ValueError("it describes no Keras model")


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of a message."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(content, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(content, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(content):
            raise ValueError("it is truncated")
        yield tag >> 3, content[at : at + size]
        at += size


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(content) and shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("it is truncated")
