"""HOWTO.md: what a file takes and gives, and the lines of Python, Kotlin and Swift that feed it.

    real = scale * (integer - zero_point)       integer = round(real / scale) + zero_point, ties to even, clipped
    real = (pixel - mean) / std                 where the samples were preprocessed

All numbers are those of the file. The lines take real values, or pixels 0..255, whatever the file's own types are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from tfq import __version__
from tfq.data.preprocess import Normalization
from tfq.execution.interpreter import TensorInfo, TfliteModel
from tfq.execution.terminal import one_line
from tfq.export.metadata import ModelMetadata, TensorMetadata
from tfq.report.words import Spelling, with_options

_MOST_NAMES = 20  # of classes that are listed; more stand in the file alone
_STEPS_OFF = 1  # so far an integer of an image may be from its pixel


@dataclasses.dataclass(frozen=True)
class _Kind:
    """How an element type is written: bytes, Kotlin's put of `v`, an Int or a Float, and its get, Swift's name."""

    size: int
    put: str
    get: str
    swift: str


_KINDS = {
    "int8": _Kind(1, "put(v.toByte())", "get().toInt()", "Int8"),
    "uint8": _Kind(1, "put(v.toByte())", "get().toInt().and(0xFF)", "UInt8"),
    "int16": _Kind(2, "putShort(v.toShort())", "getShort().toInt()", "Int16"),
    "int32": _Kind(4, "putInt(v)", "getInt()", "Int32"),
    "int64": _Kind(8, "putLong(v.toLong())", "getLong()", "Int64"),
    "float32": _Kind(4, "putFloat(v)", "getFloat()", "Float"),
}


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """One input or output: what the runtime says of it, and what the metadata do."""

    info: TensorInfo
    told: TensorMetadata

    @property
    def kind(self) -> _Kind:
        return _KINDS[self.info.dtype.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """For one sample."""
        return tuple(max(1, size) for size in self.info.shape)

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def is_pixels(self) -> bool:
        """Whether the integers are the pixels themselves."""
        return self.info.dtype == np.uint8 and bool(self.told.mean) and self._pixels_off() <= _STEPS_OFF

    def _pixels_off(self) -> float:
        pixels = np.arange(256, dtype=np.float32)[:, None]
        real = Normalization(self.told.mean, self.told.std)(pixels)
        return float(np.abs(self.info.to_raw(real).astype(np.float32) - pixels).max())

    @property
    def normalized(self) -> bool:
        """Whether the file takes something else than its pixels."""
        return not self.is_pixels and (any(self.told.mean) or any(value != 1 for value in self.told.std))

    @property
    def is_image(self) -> bool:
        return bool(self.told.mean or self.told.color_space)

    @property
    def element(self) -> str:
        """What one number of an input is called."""
        return "pixel" if self.is_image else "number"

    @property
    def unit(self) -> str:
        return ", pixels 0..255" if self.told.mean else ""

    @property
    def limits(self) -> tuple[int, int]:
        found = np.iinfo(self.info.dtype)
        return int(found.min), int(found.max)


def howto(content: bytes, metadata: ModelMetadata, spelled: Spelling = str) -> str:
    """The page, as Markdown, of a file that has these metadata; its options are written so."""
    model = TfliteModel(content)
    inputs, outputs = (
        [_Tensor(info, next(t for t in told if t.name == info.name)) for info in infos]
        for infos, told in ((model.inputs, metadata.inputs), (model.outputs, metadata.outputs))
    )
    parts = [
        f"# How to use model.tflite\n\n{metadata.name}, by tfq {__version__}. All numbers here are those of the file.",
        _table("Inputs", inputs, _given),
        _table("Outputs", outputs, _got),
        f"real = scale * (integer - zero point). {_what_to_give(inputs)}",
        f"## Python\n\n```python\n{_python(inputs, outputs)}\n```",
        f"## Kotlin (Android)\n\nEach input is a `FloatArray`, {_order(inputs)}. The variable file holds the model;"
        " tfq's docs/android.md says how to load it.\n\n"
        f"```kotlin\n{_kotlin(inputs, outputs)}\n```",
        "## Swift (iOS)\n\nEach input is a `[Float]` in the same order; the variable path names the model.\n\n"
        f"```swift\n{_swift(inputs, outputs)}\n```",
        with_options(_media_pipe(inputs, outputs), spelled),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what_to_give(inputs: Sequence[_Tensor]) -> str:
    if any(tensor.told.mean for tensor in inputs):
        return "The lines below do that, and the preprocessing: give them real values, or pixels."
    return "The lines below do that: give them the numbers that the float model takes."


def _order(inputs: Sequence[_Tensor]) -> str:
    if any(tensor.is_image for tensor in inputs):
        return "row by row, the channels of a pixel side by side"
    return "the numbers of its last axis side by side"


def _table(title: str, tensors: Sequence[_Tensor], last: Callable[[_Tensor], str]) -> str:
    rows = ["| | name | shape | type | scale | zero point | |", "|---:|---|---|---|---:|---:|---|"]
    for number, tensor in enumerate(tensors):
        info = tensor.info
        grid = (_number(info.scale[0]), str(info.zero_point[0])) if info.quantized else ("", "")
        shape = ", ".join("any" if size < 0 else str(size) for size in info.shape)
        name = one_line(info.name).replace("|", "\\|")
        rows.append(f"| {number} | `{name}` | {shape} | {info.dtype.name} | {grid[0]} | {grid[1]} | {last(tensor)} |")
    return "\n".join([f"## {title}", "", *rows])


def _given(tensor: _Tensor) -> str:
    told = tensor.told
    what = {"RGB": "image, RGB", "GRAYSCALE": "image, grey"}.get(told.color_space, "")
    if told.mean:
        scaled = "pixels 0..255 as they are"
        if tensor.normalized:
            scaled = f"pixels 0..255; real = (pixel - {_numbers(told.mean)}) / {_numbers(told.std)}"
    elif told.minimum:
        scaled = f"as the model takes it; calibration saw {told.minimum[0]:.4g} to {told.maximum[0]:.4g}"
    else:
        scaled = "whole numbers"
    return f"{what}; {scaled}" if what else scaled


def _got(tensor: _Tensor) -> str:
    names = tensor.told.labels
    if not names:
        return ""
    shown = ", ".join(names[:_MOST_NAMES]).replace("|", "\\|")
    more = f", ... ({len(names):,} in all)" if len(names) > _MOST_NAMES else ""
    return f"classes: {shown}{more}"


def _python(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> str:
    lines = [
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter  # pip install ai-edge-litert",
        "",
        'model = Interpreter("model.tflite")',
        "model.allocate_tensors()",
        "inputs, outputs = model.get_input_details(), model.get_output_details()",
    ]
    for k, tensor in enumerate(inputs):
        told, info = tensor.told, tensor.info
        lines += [
            f"# x{k}: {info.name!r}, {list(tensor.shape)}{tensor.unit}",
            f"x{k} = np.asarray(x{k}{', np.float32' if info.quantized or told.mean else ''})",
        ]
        if tensor.normalized:
            lines.append(f"x{k} = (x{k} - {_array(told.mean)}) / {_array(told.std)}")
        if info.quantized and not tensor.is_pixels:
            low, high = tensor.limits
            lines.append(
                f"x{k} = np.clip(np.round(x{k} / {_number(info.scale[0])}) {_plus(info.zero_point[0])}, {low}, {high})"
            )
        lines.append(f'model.set_tensor(inputs[{k}]["index"], x{k}.astype(np.{info.dtype.name}))')
    lines.append("model.invoke()")
    for k, tensor in enumerate(outputs):
        line = f'y{k} = model.get_tensor(outputs[{k}]["index"])'
        if tensor.info.quantized:
            grid = f"{_plus(-tensor.info.zero_point[0])}) * {_number(tensor.info.scale[0])}"
            line = line.replace(" = ", " = (") + f".astype(np.float32) {grid}"
        lines.append(line)
        names = tensor.told.labels
        if 1 < len(names) == tensor.shape[-1]:
            listed = f"{list(names)}" if len(names) <= _MOST_NAMES else _PACKED_NAMES
            lines += [f"names = {listed}", f"print(names[y{k}[0].argmax()])"]
    return "\n".join(lines)


_PACKED_NAMES = '__import__("zipfile").ZipFile("model.tflite").read("labels.txt").decode().splitlines()'


def _kotlin(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> str:
    lines = ["val model = Interpreter(file)"]
    for k, tensor in enumerate(inputs):
        kind = tensor.kind
        lines += [
            f"// x{k}: {one_line(tensor.info.name)}, {tensor.count:,} numbers{tensor.unit}",
            f"val in{k} = ByteBuffer.allocateDirect({kind.size * tensor.count}).order(ByteOrder.nativeOrder())",
            *_per_channel(tensor, k, "val {name} = floatArrayOf({values})", "f"),
        ]
        value = _real(tensor, k, "f")
        if tensor.info.quantized and not tensor.is_pixels:
            low, high = tensor.limits
            scaled = f"Math.rint(({value} / {_number(tensor.info.scale[0])}f).toDouble()).toInt()"
            value = f"({scaled} {_plus(tensor.info.zero_point[0])}).coerceIn({low}, {high})"
        elif tensor.info.dtype != np.float32:
            value = f"{value}.toInt()"
        lines += [
            f"x{k}.forEachIndexed {{ i, {tensor.element} ->",
            f"    val v = {value}",
            f"    in{k}.{kind.put}",
            "}",
        ]
    for k, tensor in enumerate(outputs):
        size = tensor.kind.size * tensor.count
        lines.append(f"val out{k} = ByteBuffer.allocateDirect({size}).order(ByteOrder.nativeOrder())")
    given = ", ".join(f"in{k}.rewind()" for k in range(len(inputs)))
    got = ", ".join(f"{k} to out{k}" for k in range(len(outputs)))
    lines.append(f"model.runForMultipleInputsOutputs(arrayOf<Any>({given}), mapOf<Int, Any>({got}))")
    for k, tensor in enumerate(outputs):
        lines.append(f"out{k}.rewind()")
        value = f"out{k}.{tensor.kind.get}"
        if tensor.info.quantized:
            value = f"({value} {_plus(-tensor.info.zero_point[0])}) * {_number(tensor.info.scale[0])}f"
        elif tensor.info.dtype != np.float32:
            value += ".toFloat()"
        lines.append(f"val y{k} = FloatArray({tensor.count}) {{ {value} }}")
    return "\n".join(lines)


def _swift(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> str:
    lines = ["let model = try Interpreter(modelPath: path)", "try model.allocateTensors()"]
    for k, tensor in enumerate(inputs):
        name = tensor.kind.swift
        lines.append(f"// x{k}: {one_line(tensor.info.name)}, {tensor.count:,} numbers{tensor.unit}")
        lines += _per_channel(tensor, k, "let {name}: [Float] = [{values}]", "")
        value = _real(tensor, k, "")
        if tensor.info.quantized and not tensor.is_pixels:
            low, high = tensor.limits
            scaled = f"({value} / {_number(tensor.info.scale[0])}).rounded(.toNearestOrEven)"
            value = f"min({high}, max({low}, {scaled} {_plus(tensor.info.zero_point[0])}))"
        lines += [
            f"let in{k} = x{k}.enumerated().map {{ (i, {tensor.element}) in",
            f"    {name}({value})",
            "}",
            f"try model.copy(in{k}.withUnsafeBufferPointer {{ Data(buffer: $0) }}, toInputAt: {k})",
        ]
    lines.append("try model.invoke()")
    for k, tensor in enumerate(outputs):
        name, info = tensor.kind.swift, tensor.info
        value = "Float($0)"
        if info.quantized:
            value = f"(Float($0) {_plus(-info.zero_point[0])}) * {_number(info.scale[0])}"
        lines += [
            f"let y{k} = try model.output(at: {k}).data.withUnsafeBytes {{",
            f"    $0.bindMemory(to: {name}.self).map {{ {value} }}",
            "}",
        ]
    return "\n".join(lines)


def _per_channel(tensor: _Tensor, k: int, form: str, suffix: str) -> list[str]:
    """The lines that name mean and deviation of each channel, where these differ."""
    if not tensor.normalized or len(tensor.told.mean) == 1:
        return []
    values = {f"mean{k}": tensor.told.mean, f"std{k}": tensor.told.std}
    return [
        form.format(name=name, values=", ".join(f"{_number(v)}{suffix}" for v in found))
        for name, found in values.items()
    ]


def _real(tensor: _Tensor, k: int, suffix: str) -> str:
    """The real value of the element at place `i`."""
    told = tensor.told
    if not tensor.normalized:
        return tensor.element
    if len(told.mean) == 1:
        return f"(pixel - {_number(told.mean[0])}{suffix}) / {_number(told.std[0])}{suffix}"
    return f"(pixel - mean{k}[i % {len(told.mean)}]) / std{k}[i % {len(told.std)}]"


def _media_pipe(inputs: Sequence[_Tensor], outputs: Sequence[_Tensor]) -> str:
    """Whether MediaPipe's ImageClassifier takes the file; nothing of a model that is no classifier of RGB images."""
    if len(inputs) != 1 or len(outputs) != 1 or inputs[0].told.color_space != "RGB" or len(outputs[0].shape) != 2:
        return ""
    image, scores, missing = inputs[0], outputs[0], []
    if not image.told.mean:
        missing.append("`preprocess`, which says how pixels become what the model takes")
    elif len(image.told.mean) > 1:
        missing.append("one mean and deviation for all channels, or of a model that scales by itself")
    elif image.info.dtype != np.float32 and not image.is_pixels:
        missing.append("`input_type='uint8'`")
    if scores.info.dtype == np.int8:
        missing.append("`output_type='uint8'`")
    if not scores.told.labels:
        missing.append("`labels`")
    if missing:
        return f"## MediaPipe\n\nIts ImageClassifier takes a file that is made with {', '.join(missing)}."
    return (
        "## MediaPipe\n\nIts ImageClassifier takes the file as it is: the metadata hold preprocessing and class names."
    )


def _number(value: float) -> str:
    """The shortest text that is this float32."""
    return str(np.float32(value))


def _plus(value: int) -> str:
    """The end of a sum."""
    return f"- {-value}" if value < 0 else f"+ {value}"


def _numbers(values: Sequence[float]) -> str:
    return _number(values[0]) if len(values) == 1 else f"({', '.join(map(_number, values))})"


def _array(values: Sequence[float]) -> str:
    return _number(values[0]) if len(values) == 1 else f"np.float32([{', '.join(map(_number, values))}])"
