"""A .tflite as an object tree, whole and in order before anything runs it.

The interpreter is native code that trusts the file: an index out of range makes it crash, a shape makes it take as much
memory as it says. So a file that is read is checked first; what the checks demand, every exporter's files keep.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq.errors import UserError
from tfq.execution.flatbuffer_bounds import check_bounds
from tfq.execution.inputs import read_regular

BITS = {
    code: 8 if name == "BOOL" else int(re.findall(r"\d+", name)[0])
    for name, code in vars(schema.TensorType).items()
    if name == "BOOL" or re.match("[A-Z]+[0-9]", name)
}
"""Bits of an element; texts, resources and variants have no size of their own."""
_WITHOUT_SIZE = (schema.TensorType.STRING, schema.TensorType.RESOURCE, schema.TensorType.VARIANT)
_LIMITS = {
    schema.TensorType.INT8: (-128, 127),
    schema.TensorType.UINT8: (0, 255),
    schema.TensorType.INT16: (-(2**15), 2**15 - 1),
    schema.TensorType.UINT16: (0, 2**16 - 1),
    schema.TensorType.INT4: (-8, 7),
}
_OPERATOR = schema.BuiltinOperator
_OPERATORS = {code for name, code in vars(_OPERATOR).items() if not name.startswith("_")}
_LSTM_OPTIONAL = frozenset({1, 5, 9, 10, 11, 12, 16, 17, 20, 21, 22, 23})
_OPTIONAL: dict[int, Collection[int]] = {
    **dict.fromkeys((_OPERATOR.FULLY_CONNECTED, _OPERATOR.CONV_2D, _OPERATOR.DEPTHWISE_CONV_2D), (2,)),
    _OPERATOR.CONV_3D: (2,),
    **dict.fromkeys((_OPERATOR.TRANSPOSE_CONV, _OPERATOR.CONV_3D_TRANSPOSE, _OPERATOR.SVDF), (3,)),
    **dict.fromkeys((_OPERATOR.LSTM, _OPERATOR.UNIDIRECTIONAL_SEQUENCE_LSTM), _LSTM_OPTIONAL),
    _OPERATOR.BIDIRECTIONAL_SEQUENCE_RNN: (9, 10, 11),
    _OPERATOR.BIDIRECTIONAL_SEQUENCE_LSTM: _LSTM_OPTIONAL - {20, 21, 23} | {18, 26, 27, 28, 29, 33, 34, *range(39, 48)},
}
"""Positions of the inputs that an operator can do without; kernels read the others unasked."""
_TOGETHER = {
    **dict.fromkeys((_OPERATOR.LSTM, _OPERATOR.UNIDIRECTIONAL_SEQUENCE_LSTM), ((1, 5, 12),)),
    _OPERATOR.BIDIRECTIONAL_SEQUENCE_LSTM: ((1, 5, 12), (18, 22, 29)),
}
"""Of these all or none: an input gate with its weights and its bias."""
_FREE_OPERATORS = (_OPERATOR.CUSTOM, _OPERATOR.DELEGATE, _OPERATOR.STABLEHLO_COMPOSITE, _OPERATOR.STABLEHLO_CUSTOM_CALL)
"""What they need is known to their own code alone."""
_ARENA_BYTES, _ARENA_SHARE = 1 << 30, 64
"""What a run may take: so many bytes, and so many times the file."""
_LARGEST_FILE = 2 << 30  # what offsets of 32 bits with a sign reach


def read_content(model: bytes | Path) -> bytes:
    """The bytes of a .tflite given as bytes or as a path. Raises UserError for a file that cannot be read."""
    if isinstance(model, bytes):
        return model
    return read_regular(Path(model), what=f"the model {model}", most=_LARGEST_FILE)


def parse_tflite(content: bytes, *, source: str = "the model") -> schema.ModelT:
    """The flatbuffer as an object tree, checked: no index, size or order in it can lead the interpreter astray.

    Raises UserError, with `source` as its subject, for anything that is not a whole .tflite.
    """
    if content[4:8] != b"TFL3":
        raise UserError(f"{source} is not a .tflite file: the identifier TFL3 is missing; give a TensorFlow Lite model")
    try:
        check_bounds(content)
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        graph = model.subgraphs[0] if model.subgraphs else None
        if graph is None or not graph.operators or not all(len(_all(ends)) for ends in (graph.inputs, graph.outputs)):
            raise UserError(f"{source} holds no graph that makes outputs of inputs; export it again")
        _check(model, content)
    except UserError:
        raise
    except Exception as error:  # the generated parser raises whatever the broken offset leads to
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise UserError(
            f"{source} is truncated or corrupt ({len(content)} bytes): {reason}; export or copy it again"
        ) from error
    return model


def signature_names(model: schema.ModelT) -> dict[int, str]:
    """Tensor index -> name in the first signature of the main subgraph."""
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            entries = [*_all(signature.inputs), *_all(signature.outputs)]
            return {entry.tensorIndex: entry.name.decode() for entry in entries}
    return {}


def arena_bytes(model: schema.ModelT) -> int:
    """Bytes of the activations that are needed at the same time, at the most over the operators, with 1 for "any"."""
    return max(map(_peak_bytes, _constants(model), model.subgraphs))


def check_arena(needed: int, file_bytes: int) -> None:
    """Raises ValueError, in words, where a run takes more memory than a file of this size may ask for."""
    most = _ARENA_BYTES + _ARENA_SHARE * file_bytes
    _require(needed <= most, f"a run would take {needed / 2**20:,.0f} MiB, expected at most {most / 2**20:,.0f}")


def _check(model: schema.ModelT, content: bytes) -> None:
    """Raises ValueError, in words, for what is not in order."""
    buffers = _all(model.buffers)
    for buffer in buffers:
        if buffer.offset > 1 and buffer.offset + buffer.size > len(content):
            raise ValueError("a constant lies beyond the end of the file")
    for entry in _all(model.metadata):
        _require(entry.buffer < len(buffers), f"there is no buffer {entry.buffer}")
    for code in _all(model.operatorCodes):
        (code.customCode or b"").decode()
        _require(_kind(code) in _OPERATORS, f"there is no operator of the kind {_kind(code)}")
    kinds = [_kind(code) for code in _all(model.operatorCodes)]
    for constants, graph in zip(_constants(model), model.subgraphs, strict=True):
        for tensor in _all(graph.tensors):
            _check_tensor(tensor, buffers)
        _check_operators(graph, constants, kinds, len(model.subgraphs))
    _check_calls(model)
    for signature in _all(model.signatureDefs):
        _require(signature.subgraphIndex < len(model.subgraphs), "a signature names a graph that is not there")
        count = len(_all(model.subgraphs[signature.subgraphIndex].tensors))
        for entry in (*_all(signature.inputs), *_all(signature.outputs)):
            _require(entry.tensorIndex < count, "a signature names a tensor that is not there")
            entry.name.decode()
    check_arena(arena_bytes(model), len(content))


def _check_tensor(tensor: schema.TensorT, buffers: Sequence[schema.BufferT]) -> None:
    name = repr((tensor.name or b"").decode())  # the interpreter's own bindings trip over names that are not text
    shape = integers(tensor.shape)
    _require(0 <= tensor.buffer < len(buffers), f"tensor {name} names a buffer that is not there")
    _require(tensor.type in BITS or tensor.type in _WITHOUT_SIZE, f"tensor {name} is of no known type")
    _require(all(size >= 0 for size in shape), f"tensor {name} has the shape {shape}")
    signature = integers(tensor.shapeSignature)
    fits = not signature or (
        len(signature) == len(shape) and all(told in (-1, size) for told, size in zip(signature, shape, strict=True))
    )
    _require(fits, f"tensor {name} has the shape {shape} and the signature {signature}")
    held, size = _held_bytes(buffers[tensor.buffer]), _size_bytes(tensor)
    wrong = held and size is not None and held != size and tensor.sparsity is None
    _require(not wrong, f"tensor {name} holds {held} bytes, and its shape takes {size}")
    if tensor.quantization is not None:
        _check_quantization(name, tensor, shape)


def _check_quantization(name: str, tensor: schema.TensorT, shape: Sequence[int]) -> None:
    found = tensor.quantization
    scales, zeros = np.asarray(_all(found.scale), np.float32), integers(found.zeroPoint)
    _require(bool(np.isfinite(scales).all() and (scales >= 0).all()), f"tensor {name} has scales that are no numbers")
    if found.details is None:
        _require(len(zeros) == len(scales), f"tensor {name} has {len(scales)} scales and {len(zeros)} zero-points")
        if len(scales) > 1:
            axis = found.quantizedDimension
            fits = 0 <= axis < len(shape) and shape[axis] == len(scales)
            _require(fits, f"tensor {name} of the shape {list(shape)} has {len(scales)} scales along axis {axis}")
    low, high = _LIMITS.get(tensor.type, (-(2**31), 2**31 - 1))
    _require(all(low <= zero <= high for zero in zeros), f"tensor {name} has a zero-point that its type does not hold")


def _kind(code: schema.OperatorCodeT) -> int:
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def _check_operators(graph: schema.SubGraphT, constants: Sequence[bool], kinds: Sequence[int], graphs: int) -> None:
    """Indices within range, every tensor made before it is read, and no constant made."""
    tensors = _all(graph.tensors)
    made = [constant or tensor.isVariable for constant, tensor in zip(constants, tensors, strict=True)]
    for index in _indices(graph.inputs, len(tensors)):
        made[index] = True
    for number, operator in enumerate(_all(graph.operators)):
        _require(0 <= operator.opcodeIndex < len(kinds), f"operator {number} is of no kind that the file names")
        kind = kinds[operator.opcodeIndex]
        missing = {place for place, index in enumerate(integers(operator.inputs)) if index == -1}
        needed = set() if kind in _FREE_OPERATORS else missing - set(_OPTIONAL.get(kind, ()))
        _require(not needed, f"operator {number} lacks its inputs {sorted(needed)}")
        for gate in _TOGETHER.get(kind, ()):
            _require(len(missing & {*gate}) in (0, len(gate)), f"operator {number} has a part of the inputs {gate}")
        outputs = list(_indices(operator.outputs, len(tensors), optional=True))
        _require(bool(outputs), f"operator {number} has no outputs")
        list(_indices(operator.intermediates, len(tensors), optional=True))
        for index in _indices(operator.inputs, len(tensors), optional=True):
            _require(made[index] or _size_bytes(tensors[index]) == 0, f"operator {number} reads what nothing has made")
        for index in outputs:
            _require(not constants[index], f"operator {number} writes into a constant")
            made[index] = True
        for body in _bodies(operator):
            _require(0 <= body < graphs, f"operator {number} calls a graph that is not there")
    for index in _indices(graph.outputs, len(tensors)):
        _require(made[index], "an output is made by nothing")


def _check_calls(model: schema.ModelT) -> None:
    """Graphs call graphs without end where one is reached from itself."""
    calls = [{body for operator in _all(graph.operators) for body in _bodies(operator)} for graph in model.subgraphs]
    for _ in calls:
        calls = [{further for body in own for further in calls[body]} for own in calls]
    _require(not any(calls), "its graphs call each other in a circle")


def _bodies(operator: schema.OperatorT) -> Iterator[int]:
    """The subgraphs that fields of its options name."""
    for options in (operator.builtinOptions, operator.builtinOptions2):
        fields = vars(options).items() if options else ()
        yield from (index for name, index in fields if name.lower().endswith(("subgraph", "subgraphindex")))


def _constants(model: schema.ModelT) -> list[list[bool]]:
    """Of every graph, which tensors the file holds."""
    buffers = _all(model.buffers)
    return [
        [_held_bytes(buffers[t.buffer]) > 0 if t.buffer < len(buffers) else False for t in _all(graph.tensors)]
        for graph in model.subgraphs
    ]


def _peak_bytes(constants: Sequence[bool], graph: schema.SubGraphT) -> int:
    tensors, operators = _all(graph.tensors), _all(graph.operators)
    last = dict.fromkeys(integers(graph.outputs), len(operators))
    for number, operator in reversed(list(enumerate(operators))):
        for index in (*integers(operator.inputs), *integers(operator.outputs)):
            last.setdefault(index, number)
    ends: dict[int, list[int]] = {}
    for index, number in last.items():
        ends.setdefault(number, []).append(index)
    sizes = [0 if constant else _size_bytes(t) or 0 for constant, t in zip(constants, tensors, strict=True)]
    living = set(integers(graph.inputs)) | {i for i, tensor in enumerate(tensors) if tensor.isVariable}
    now = peak = sum(sizes[index] for index in living)
    for number, operator in enumerate(operators):
        for index in integers(operator.outputs):
            if index >= 0 and index not in living:
                living.add(index)
                now += sizes[index]
        peak = max(peak, now)
        for index in ends.get(number, ()):
            if index in living and not tensors[index].isVariable:
                living.remove(index)
                now -= sizes[index]
    return peak


def _size_bytes(tensor: schema.TensorT) -> int | None:
    """Bytes of all elements; None where the type does not tell."""
    bits = BITS.get(tensor.type)
    return None if bits is None else (math.prod(integers(tensor.shape)) * bits + 7) // 8


def _held_bytes(buffer: schema.BufferT) -> int:
    """Bytes of a constant; those of a file over 2 GB lie behind the flatbuffer."""
    return len(_all(buffer.data)) or (buffer.size if buffer.offset > 1 else 0)


def _indices(values: Any, count: int, *, optional: bool = False) -> Iterator[int]:
    """Those of tensors; -1 stands for one that is left out."""
    for index in integers(values):
        _require(-1 <= index < count, f"there is no tensor {index}")
        _require(index >= 0 or optional, "a tensor is left out that must be there")
        if index >= 0:
            yield index


def integers(values: Any) -> list[int]:
    """A vector of the object tree; empty where the file leaves it out."""
    return [int(value) for value in _all(values)]


def _all(values: Any) -> Any:
    """A vector that the file leaves out holds nothing."""
    return () if values is None else values


def _require(holds: bool, told: str) -> None:
    if not holds:
        raise ValueError(told)
