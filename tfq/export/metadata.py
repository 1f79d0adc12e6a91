"""TFLite metadata: what Android's Task and Support libraries read, and what reproduces the file.

A .tflite carries named buffers. "TFLITE_METADATA" holds a second flatbuffer (file identifier "M001")
that describes the inputs and outputs; its schema is metadata_schema.fbs 1.1.0 of tflite-support, of
which `TABLES` lists the fields written here. Label files follow the model as an uncompressed zip
archive at the end of the file, where a flatbuffer reader never looks. "tfq_recipe" holds JSON:
{"tfq": version, "recipe": recipe}.

Same arguments, same bytes: the archive's entries carry a fixed time.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export.flatbuffer import parse, serialize, text

METADATA_BUFFER = "TFLITE_METADATA"
RECIPE_BUFFER = "tfq_recipe"
IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
_EPOCH = (1980, 1, 1, 0, 0, 0)

# Table -> its fields in the order of their numbers: (name, type), None for a field not used here. A
# type is "string", "byte", "floats", the name of a table, or [the name of a table] for a vector. A
# union takes two numbers: the number of its member (as "..._type"), then {number: table}.
TABLES: dict[str, tuple[tuple[str, Any] | None, ...]] = {
    "ModelMetadata": (
        ("name", "string"),
        ("description", "string"),
        ("version", "string"),
        ("subgraph_metadata", ["SubGraphMetadata"]),
        None,  # author
        None,  # license
        None,  # associated_files
        ("min_parser_version", "string"),
    ),
    "SubGraphMetadata": (
        ("name", "string"),
        ("description", "string"),
        ("input_tensor_metadata", ["TensorMetadata"]),
        ("output_tensor_metadata", ["TensorMetadata"]),
    ),
    "TensorMetadata": (
        ("name", "string"),
        ("description", "string"),
        None,  # dimension_names
        ("content", "Content"),
        ("process_units", ["ProcessUnit"]),
        ("stats", "Stats"),
        ("associated_files", ["AssociatedFile"]),
    ),
    "Content": (
        ("content_properties_type", "byte"),
        ("content_properties", {1: "FeatureProperties", 2: "ImageProperties"}),
    ),
    "FeatureProperties": (),
    "ImageProperties": (("color_space", "byte"),),
    "ProcessUnit": (("options_type", "byte"), ("options", {1: "NormalizationOptions"})),
    "NormalizationOptions": (("mean", "floats"), ("std", "floats")),
    "Stats": (("max", "floats"), ("min", "floats")),
    "AssociatedFile": (("name", "string"), ("description", "string"), ("type", "byte")),
}
FEATURE, IMAGE = 1, 2  # union ContentProperties
NORMALIZATION = 1  # union ProcessUnitOptions
COLOR_SPACES = {"RGB": 1, "GRAYSCALE": 2}
AXIS_LABELS = 2  # enum AssociatedFileType


@dataclasses.dataclass(frozen=True)
class TensorMetadata:
    """One input or output of the model.

    Attributes:
      name: the name the model's signature gives it.
      color_space: "RGB" or "GRAYSCALE" for an image, empty for anything else.
      mean, std: the float model takes (x - mean) / std, x as the caller has it (0..255 for an image);
        one value or one per channel; empty where the model takes x itself.
      minimum, maximum: of the values the float model takes or gives; one value or one per channel.
      labels: names of the classes along the last axis of an output.
    """

    name: str
    color_space: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.color_space and self.color_space not in COLOR_SPACES:
            raise ValueError(f"color_space (={self.color_space!r}) must be empty, RGB or GRAYSCALE")
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means for {len(self.std)} standard deviations")
        if any("\n" in label for label in self.labels):
            raise ValueError("a label cannot contain a line break: the label file has one label a line")
        for field in ("mean", "std", "minimum", "maximum"):
            # As float32, so that what is read back equals what was written.
            object.__setattr__(self, field, tuple(float(v) for v in np.array(getattr(self, field), np.float32)))


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a .tflite says about itself.

    Attributes:
      name, description: of the model, for people.
      inputs, outputs: one for each of the model's, in any order.
      tfq_version: version of tfq that wrote the file.
      recipe: the recipe that reproduces it, as JSON.
    """

    name: str
    description: str = ""
    inputs: tuple[TensorMetadata, ...] = ()
    outputs: tuple[TensorMetadata, ...] = ()
    tfq_version: str = ""
    recipe: str = "{}"


def add_metadata(model: bytes, metadata: ModelMetadata) -> bytes:
    """The .tflite with this metadata; any that it had is replaced.

    Raises:
      ValueError: the metadata's inputs or outputs are not those of the model.
    """
    parsed = parse(model)
    input_names, output_names = _signature_names(parsed)
    inputs = _in_order(metadata.inputs, input_names, "inputs")
    outputs = _in_order(metadata.outputs, output_names, "outputs")
    files = _label_files(outputs)
    subgraph = {
        "input_tensor_metadata": [_tensor_values(t, "") for t in inputs],
        "output_tensor_metadata": [_tensor_values(t, files.get(k, "")) for k, t in enumerate(outputs)],
    }
    values = {
        "name": metadata.name,
        "description": metadata.description,
        "version": "",
        "subgraph_metadata": [subgraph],
        "min_parser_version": _PARSER_VERSION,
    }
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, "ModelMetadata", values), file_identifier=IDENTIFIER)
    recipe = {"tfq": metadata.tfq_version, "recipe": json.loads(metadata.recipe)}
    _set_buffer(parsed, METADATA_BUFFER, bytes(builder.Output()))
    _set_buffer(parsed, RECIPE_BUFFER, json.dumps(recipe, indent=1).encode())
    return _append_files(serialize(parsed), {files[k]: outputs[k].labels for k in files})


def _signature_names(parsed: Any) -> tuple[list[str], list[str]]:
    """Names of the inputs and outputs in the order of the subgraph: the signature's, else the tensors'."""
    subgraph = parsed.subgraphs[0]
    signatures = parsed.signatureDefs or ()
    sides = (
        (subgraph.inputs, [s.inputs for s in signatures[:1]]),
        (subgraph.outputs, [s.outputs for s in signatures[:1]]),
    )
    names = []
    for indices, maps in sides:
        named = {m.tensorIndex: text(m.name) for found in maps for m in found or ()}
        names.append([named.get(int(i), text(subgraph.tensors[i].name)) for i in indices])
    return names[0], names[1]


def _in_order(tensors: Sequence[TensorMetadata], names: Sequence[str], what: str) -> list[TensorMetadata]:
    by_name = {t.name: t for t in tensors}
    if sorted(by_name) != sorted(names) or len(by_name) != len(tensors):
        raise ValueError(f"the model's {what} are {list(names)}, the metadata describes {[t.name for t in tensors]}")
    return [by_name[name] for name in names]


def _label_files(outputs: Sequence[TensorMetadata]) -> dict[int, str]:
    """Position of each output with labels -> name of its label file."""
    labelled = [k for k, t in enumerate(outputs) if t.labels]
    return {k: "labels.txt" if len(labelled) == 1 else f"labels_{k}.txt" for k in labelled}


def _set_buffer(parsed: Any, name: str, content: bytes) -> None:
    data = np.frombuffer(content, np.uint8)
    for entry in parsed.metadata or ():
        if text(entry.name) == name:
            parsed.buffers[entry.buffer].data = data
            return
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data, entry.name, entry.buffer = data, name, len(parsed.buffers)
    parsed.buffers = [*parsed.buffers, buffer]
    parsed.metadata = [*(parsed.metadata or ()), entry]


def _append_files(model: bytes, files: Mapping[str, Sequence[str]]) -> bytes:
    """The model with a zip archive of text files behind it, stored, as the Java reader requires."""
    if not files:
        return model
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, lines in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, "".join(f"{line}\n" for line in lines))
    return stream.getvalue()


def _tensor_values(tensor: TensorMetadata, label_file: str) -> dict[str, Any]:
    content: dict[str, Any] = {"content_properties_type": FEATURE, "content_properties": {}}
    if tensor.color_space:
        properties = {"color_space": COLOR_SPACES[tensor.color_space]}
        content = {"content_properties_type": IMAGE, "content_properties": properties}
    values: dict[str, Any] = {"name": tensor.name, "description": "", "content": content}
    if tensor.mean:
        options = {"mean": tensor.mean, "std": tensor.std}
        values["process_units"] = [{"options_type": NORMALIZATION, "options": options}]
    if tensor.minimum or tensor.maximum:
        values["stats"] = {"max": tensor.maximum, "min": tensor.minimum}
    if label_file:
        description = "Names of the classes along the last axis, one a line."
        values["associated_files"] = [{"name": label_file, "description": description, "type": AXIS_LABELS}]
    return values


def _write(builder: flatbuffers.Builder, table: str, values: Mapping[str, Any]) -> int:
    """Offset of a table; whatever it refers to is written before it, as the format demands."""
    fields = [(slot, *field) for slot, field in enumerate(TABLES[table]) if field and field[0] in values]
    offsets = {
        slot: _write_value(builder, kind[values[f"{name}_type"]] if isinstance(kind, dict) else kind, values[name])
        for slot, name, kind in fields
        if kind != "byte"
    }
    builder.StartObject(len(TABLES[table]))
    for slot, name, kind in fields:
        if kind == "byte":
            builder.PrependInt8Slot(slot, values[name], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
    return builder.EndObject()


def _write_value(builder: flatbuffers.Builder, kind: Any, value: Any) -> int:
    if kind == "string":
        return builder.CreateString(value)
    if kind == "floats":
        return builder.CreateNumpyVector(np.array(value, np.float32))
    if isinstance(kind, list):
        offsets = [_write(builder, kind[0], element) for element in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    return _write(builder, kind, value)
