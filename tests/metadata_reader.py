"""Reads TFLite metadata back: what an app sees of a file, independent of the code that wrote it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from flatbuffers import encode, number_types
from flatbuffers.table import Table

from tfq.export.flatbuffer import parse, text
from tfq.export.metadata import (
    AXIS_LABELS,
    COLOR_SPACES,
    IDENTIFIER,
    IMAGE,
    METADATA_BUFFER,
    NORMALIZATION,
    RECIPE_BUFFER,
    TABLES,
    ModelMetadata,
    TensorMetadata,
)


def read_metadata(model: bytes) -> ModelMetadata:
    """The metadata of a .tflite, from whatever tool wrote it; fields that tfq does not write are left out.

    Raises:
      ValueError: the file has no TFLite metadata.
    """
    parsed = parse(model)
    buffers = {text(m.name): bytes(parsed.buffers[m.buffer].data) for m in parsed.metadata or ()}
    content = buffers.get(METADATA_BUFFER)
    if content is None or content[4:8] != IDENTIFIER:
        raise ValueError(f"the file has no TFLite metadata; its metadata buffers are {sorted(buffers)}")
    values = _read(Table(content, encode.Get(number_types.UOffsetTFlags.packer_type, content, 0)), "ModelMetadata")
    subgraph = values.get("subgraph_metadata", [{}])[0]
    inputs, outputs = (
        tuple(_tensor_metadata(model, t) for t in subgraph.get(f"{side}_tensor_metadata", ()))
        for side in ("input", "output")
    )
    recipe = json.loads(buffers.get(RECIPE_BUFFER, b'{"tfq": "", "recipe": {}}'))
    return ModelMetadata(
        values.get("name", ""),
        values.get("description", ""),
        inputs,
        outputs,
        recipe["tfq"],
        json.dumps(recipe["recipe"], indent=1),
    )


def _tensor_metadata(model: bytes, values: Mapping[str, Any]) -> TensorMetadata:
    content, stats = values.get("content", {}), values.get("stats", {})
    is_image = content.get("content_properties_type") == IMAGE
    color = content.get("content_properties", {}).get("color_space", 0) if is_image else 0
    units = [u["options"] for u in values.get("process_units", ()) if u.get("options_type") == NORMALIZATION]
    normalization = units[0] if units else {}
    labels: tuple[str, ...] = ()
    for file in values.get("associated_files", ()):
        if file.get("type") == AXIS_LABELS:
            with zipfile.ZipFile(io.BytesIO(model)) as archive:
                labels = tuple(archive.read(file["name"]).decode().removesuffix("\n").split("\n"))
            break
    return TensorMetadata(
        values.get("name", ""),
        {number: name for name, number in COLOR_SPACES.items()}.get(color, ""),
        normalization.get("mean", ()),
        normalization.get("std", ()),
        stats.get("min", ()),
        stats.get("max", ()),
        labels,
    )


def _read(table: Table, name: str) -> dict[str, Any]:
    """The fields of a table that are present and known."""
    values: dict[str, Any] = {}
    for slot, field in enumerate(TABLES[name]):
        position = table.Offset(4 + 2 * slot)
        if field is None or not position:
            continue
        key, kind = field
        if isinstance(kind, dict):
            kind = kind.get(values.get(f"{key}_type"))
        if kind is not None:
            values[key] = _read_value(table, kind, position)
    return values


def _read_value(table: Table, kind: Any, position: int) -> Any:
    if kind == "byte":
        return table.Get(number_types.Int8Flags, table.Pos + position)
    if kind == "string":
        return table.String(table.Pos + position).decode()
    if kind == "floats":
        return tuple(float(v) for v in table.GetVectorAsNumpy(number_types.Float32Flags, position))
    if isinstance(kind, list):
        start = table.Vector(position)
        at = [start + 4 * k for k in range(table.VectorLen(position))]
        return [_read(Table(table.Bytes, table.Indirect(p)), kind[0]) for p in at]
    return _read(Table(table.Bytes, table.Indirect(table.Pos + position)), kind)
