"""Non-maximum suppression behind a detector, as TFLite's custom operator TFLite_Detection_PostProcess.

The operator reads codes [1, k, 4] of boxes, scores [1, k, classes] and anchors [k, 4] = (cy, cx, h, w), in float32:

    y = code_y / scale_y * h + cy      height = exp(code_h / scale_h) * h       x and width alike

and for each class takes, of those that score at least `score`, best first, the boxes that overlap none taken before by
more than `overlap`; of all classes it gives the best `most`. Its outputs are boxes [1, most, 4] (top, left, bottom,
right), classes [1, most], scores [1, most] and their number [1]; the batch is one image.

In front of it stand what makes codes of the model's outputs: a DEQUANTIZE where they are integers; a LOGISTIC where
class scores are logits; and where the model gives centre, width and height of boxes themselves, as a YOLO does,

    code = (cy, cx, log max(h, 1e-6), log max(w, 1e-6))     anchors (0, 0, 1, 1), scales 1

Source: tensorflow/lite/kernels/detection_postprocess.cc; its "regular" way (use_regular_nms), which is exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema

from tfq.export import flatbuffer

OPERATOR = "TFLite_Detection_PostProcess"
OUTPUTS = ("boxes", "classes", "scores", "count")
_LEAST_SIZE = 1e-6  # of a box, in shares of the image
_CODE = schema.BuiltinOperator


@dataclasses.dataclass(frozen=True, eq=False)
class Suppression:
    """What is appended.

    Attributes:
      outputs: names of the model's outputs that are read: codes and scores, or those that hold a YOLO's numbers.
      score, overlap, most: what is kept, see above.
      anchors: [k, 4] of an SSD, whose first class is the background; None for boxes of centre, width and height.
      scales: by which an SSD's codes (y, x, h, w) are divided.
      objectness: the fifth number of a box, by which its class scores are multiplied.
      logits: scores go through a sigmoid.
      pixels: (height, width) of the image, by which boxes are divided; None for boxes in shares of it.
    """

    outputs: tuple[str, ...]
    score: float
    overlap: float
    most: int
    anchors: np.ndarray | None = None
    scales: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    objectness: bool = False
    logits: bool = False
    pixels: tuple[int, int] | None = None


def append_nms(content: bytes, wanted: Suppression) -> bytes:
    """The .tflite with the operator behind it, whose outputs are OUTPUTS instead of the model's own.

    Raises ValueError where the model lacks an output that is read.
    """
    file = flatbuffer.parse(content)
    tape = _Tape(file)
    parts = [tape.real(index) for index in _named(file, wanted.outputs)]
    if wanted.anchors is None:
        codes, scores = _codes_of_boxes(tape, parts, wanted)
        anchors, background = np.tile((0.0, 0.0, 1.0, 1.0), (tape.shape(codes)[1], 1)), 0
    else:
        codes, scores = parts
        scores = tape.sigmoid(scores) if wanted.logits else scores
        anchors, background = wanted.anchors, 1
    classes = tape.shape(scores)[-1] - background
    made = tape.suppress(codes, scores, tape.constant(anchors, "float32"), _attributes(wanted, classes))
    _set_outputs(file, made)
    return flatbuffer.serialize(file)


def _codes_of_boxes(tape: _Tape, parts: Sequence[int], wanted: Suppression) -> tuple[int, int]:
    """(codes, scores) of cells that hold centre x, y, width, height, an objectness perhaps, and class scores."""
    rows = [tape.cells(part) for part in parts]
    cells = rows[0] if len(rows) == 1 else tape.join(rows)
    centre, size = tape.columns(cells, (1, 0)), tape.columns(cells, (3, 2))
    if wanted.pixels:
        shares = tape.constant([1 / side for side in wanted.pixels], "float32")
        centre, size = (tape.two(_CODE.MUL, schema.MulOptionsT(), found, shares) for found in (centre, size))
    least = tape.constant(_LEAST_SIZE, "float32")
    size = tape.one(_CODE.LOG, tape.two(_CODE.MAXIMUM, schema.MaximumMinimumOptionsT(), size, least))
    first = 5 if wanted.objectness else 4
    scores = tape.slice(cells, first, tape.shape(cells)[-1])
    scores = tape.sigmoid(scores) if wanted.logits else scores
    if wanted.objectness:
        objectness = tape.slice(cells, 4, 5)
        objectness = tape.sigmoid(objectness) if wanted.logits else objectness
        scores = tape.two(_CODE.MUL, schema.MulOptionsT(), scores, objectness)
    return tape.join([centre, size]), scores


def _attributes(wanted: Suppression, classes: int) -> bytes:
    """What the operator reads of its settings."""
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Int("max_detections", wanted.most)
        builder.Int("max_classes_per_detection", 1)  # more are of the fast way only
        builder.Int("detections_per_class", wanted.most)
        builder.Int("num_classes", classes)
        builder.Bool("use_regular_nms", True)
        builder.Float("nms_score_threshold", wanted.score)
        builder.Float("nms_iou_threshold", wanted.overlap)
        for name, scale in zip("yxhw", wanted.scales, strict=True):
            builder.Float(f"{name}_scale", scale)
    return bytes(builder.Finish())


def _named(file: Any, names: Sequence[str]) -> list[int]:
    """Tensors of the outputs with these names of the signature; all, in the file's order, for no names."""
    outputs = {flatbuffer.text(m.name): int(m.tensorIndex) for m in file.signatureDefs[0].outputs}
    if missing := [name for name in names if name not in outputs]:
        raise ValueError(f"the model has the outputs {sorted(outputs)}, not {missing}")
    return [outputs[name] for name in names] or [int(index) for index in file.subgraphs[0].outputs]


def _set_outputs(file: Any, indices: Sequence[int]) -> None:
    """These tensors are the outputs, by the names of OUTPUTS; an invocation takes one sample."""
    subgraph, maps = file.subgraphs[0], []
    for index in subgraph.inputs:
        subgraph.tensors[index].shapeSignature = None
    for name, index in zip(OUTPUTS, indices, strict=True):
        subgraph.tensors[index].name = name
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append(entry)
    subgraph.outputs, file.signatureDefs[0].outputs = np.asarray(indices, np.int32), maps


class _Tape:
    """Appends operations to a file, one after the other; each method gives the tensor that its operation writes."""

    def __init__(self, file: Any):
        self._file = file
        self._subgraph = file.subgraphs[0]

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(size) for size in self._subgraph.tensors[tensor].shape)

    def constant(self, values: Any, dtype: str = "int32") -> int:
        array = np.asarray(values, dtype)
        return flatbuffer.add_tensor(self._file, array.shape, dtype, array.tobytes())

    def real(self, tensor: int) -> int:
        """A tensor as float32."""
        if flatbuffer.type_name(self._subgraph.tensors[tensor]) == "float32":
            return tensor
        return self.one(_CODE.DEQUANTIZE, tensor)

    def sigmoid(self, tensor: int) -> int:
        return self.one(_CODE.LOGISTIC, tensor)

    def one(self, code: int, tensor: int) -> int:
        """An operation on every element, without options."""
        return self._add(code, [tensor], self.shape(tensor), version=2 if code == _CODE.DEQUANTIZE else 1)

    def two(self, code: int, options: Any, tensor: int, other: int) -> int:
        """An operation on every element of `tensor` and what is broadcast to it."""
        return self._add(code, [tensor, other], self.shape(tensor), options)

    def join(self, tensors: Sequence[int]) -> int:
        """Side by side, along the last of three axes."""
        options = schema.ConcatenationOptionsT()
        options.axis = 2
        first = self.shape(tensors[0])
        return self._add(_CODE.CONCATENATION, tensors, (*first[:2], sum(self.shape(t)[2] for t in tensors)), options)

    def columns(self, tensor: int, places: Sequence[int]) -> int:
        """These places of the last of three axes."""
        options = schema.GatherOptionsT()
        options.axis = 2
        shape = (*self.shape(tensor)[:2], len(places))
        return self._add(_CODE.GATHER, [tensor, self.constant(places)], shape, options)

    def slice(self, tensor: int, start: int, end: int) -> int:
        """From `start` to `end` of the last of three axes."""
        shape = self.shape(tensor)
        size = (*shape[:2], end - start)
        parts = [self.constant([0, 0, start]), self.constant(size)]
        return self._add(_CODE.SLICE, [tensor, *parts], size, schema.SliceOptionsT())

    def cells(self, tensor: int) -> int:
        """[1, h, w, n] or [1, n, cells] as [1, cells, n], where there are more cells than numbers of one."""
        shape = self.shape(tensor)
        if len(shape) == 4:
            target = (1, shape[1] * shape[2], shape[3])
            options = schema.ReshapeOptionsT()
            options.newShape = np.asarray(target, np.int32)
            return self._add(_CODE.RESHAPE, [tensor, self.constant(target)], target, options)
        if shape[1] < shape[2]:
            order = self.constant([0, 2, 1])
            target = (shape[0], shape[2], shape[1])
            return self._add(_CODE.TRANSPOSE, [tensor, order], target, schema.TransposeOptionsT())
        return tensor

    def suppress(self, codes: int, scores: int, anchors: int, attributes: bytes) -> list[int]:
        """The custom operator; its four outputs, whose sizes the runtime finds out."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = _CODE.CUSTOM
        code.customCode, code.version = OPERATOR, 1
        self._file.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self._file.operatorCodes) - 1
        operator.inputs = np.asarray([codes, scores, anchors], np.int32)
        operator.customOptions = np.frombuffer(attributes, np.uint8)
        most = flexbuffers.GetRoot(attributes).AsMap["max_detections"].AsInt
        sizes = ((1, most, 4), (1, most), (1, most), (1,))
        made = [flatbuffer.add_tensor(self._file, size, "float32") for size in sizes]
        operator.outputs = np.asarray(made, np.int32)
        self._subgraph.operators.append(operator)
        return made

    def _add(
        self, code: int, tensors: Sequence[int], shape: Sequence[int], options: Any = None, *, version: int = 1
    ) -> int:
        target = flatbuffer.add_tensor(self._file, shape, "float32")
        operator = schema.OperatorT()
        operator.opcodeIndex = flatbuffer.operator_code(self._file, code, version=version)
        operator.inputs, operator.outputs = np.asarray(tensors, np.int32), np.asarray([target], np.int32)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self._subgraph.operators.append(operator)
        return target
