"""A float .tflite as a flat graph: the file's own operators, one rule each (`tfq.models.tflite_rules`).

The file is read as what it computes of one sample. What does not depend on its inputs (weights stored as float16 or
sparse, shapes) is taken from the interpreter, which has worked it out. Batch normalisations are folded already, and
nothing can tell them from the convolutions they are part of; layer normalisations are found again
(`tfq.models.layer_norms`), since each of their operators on a grid of its own would lose what they are there for.
"""

from __future__ import annotations

import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfq.errors import UserError
from tfq.execution.interpreter import TfliteModel
from tfq.execution.tflite import integers
from tfq.input_shapes import InputShapes
from tfq.models.flatten import Flattener
from tfq.models.graph import Graph
from tfq.models.layer_norms import recognise_layer_norms
from tfq.models.refusals import NoRuleError, independent, short_cause
from tfq.models.tflite_files import DTYPES, operator_name, packed, read_float_tflite, tensor_name
from tfq.models.tflite_rules import arithmetic, shapes, weighted
from tfq.models.tflite_rules.carried import carried, is_carried
from tfq.models.tflite_rules.operation import Operation, Rule, Value

RULES: Mapping[str, Rule] = {**weighted.RULES, **arithmetic.RULES, **shapes.RULES}
_TORCH = re.compile(r"(?:[A-Za-z0-9_]+\.)+([A-Z][A-Za-z0-9]*)(?:_(\w+))?")


class TfliteFrontend:
    """One file.

    Attributes:
      batch: samples that `predict` takes at a time.

    Raises UserError, as do its methods, for a file that cannot be read, run or taken.
    """

    batch = 1

    def __init__(self, path: pathlib.Path, input_shapes: InputShapes):
        self._file = read_float_tflite(path)
        self._main = self._file.subgraphs[0]
        self._kinds = [operator_name(code) for code in self._file.operatorCodes]
        self._interpreter = TfliteModel(path, delegate=False, preserve_all=True)
        input_shapes.check([info.name for info in self._interpreter.inputs])
        if input_shapes.by_name:
            for index, info in zip(integers(self._main.inputs), self._interpreter.inputs, strict=True):
                tensor = self._main.tensors[index]
                tensor.shape = [1, *input_shapes.of(info.name, _declared(tensor))]
                tensor.shapeSignature = None
            self._interpreter = TfliteModel(packed(self._file), delegate=False, preserve_all=True)
        names = [tensor_name(self._main.tensors[integers(o.outputs)[0]]) for o in self._main.operators]
        self._flattener = Flattener([_path(name) for name in names], batch=None, shapes=input_shapes)
        self._held: dict[int, np.ndarray] = {}
        self._shared: dict[tuple[Any, ...], object] = {}

    def predict(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """What the file itself gives for one sample, in order; arrays [1, ...] by the graph's names of the inputs."""
        given = {info.name: arrays[name] for info, name in zip(self._interpreter.inputs, self._inputs, strict=True)}
        outputs = self._interpreter.run(given)
        return [y.reshape(1, *shape) for y, shape in zip(outputs, self._samples, strict=True)]

    def graph(self) -> Graph:
        tensors, main = self._main.tensors, self._main
        values: dict[int, Value] = {}
        for index, info in zip(integers(main.inputs), self._interpreter.inputs, strict=True):
            tensor = tensors[index]
            found = self._flattener.input(info.name, (None, *_declared(tensor)), DTYPES[tensor.type])
            values[index] = Value(found, (1, *found.sample))
        inputs = [value.tensor for value in values.values()]
        readers = self._readers()
        for operator in main.operators:
            reads = [values.get(index) for index in integers(operator.inputs)]
            kind = self._kinds[operator.opcodeIndex]
            if kind == "SHAPE" or not any(reads):
                continue
            made = self._made(operator, kind, reads, readers)
            values.update(zip(integers(operator.outputs), made, strict=True))
        outputs = []
        for index, info in zip(integers(main.outputs), self._interpreter.outputs, strict=True):
            if index not in values:
                raise independent(info.name, any(other in values for other in integers(main.outputs)))
            outputs.append(values[index].tensor)
        self._inputs = [tensor.name for tensor in inputs]
        self._samples = [tensor.sample for tensor in outputs]
        names = [info.name for info in self._interpreter.outputs]
        return recognise_layer_norms(self._flattener.graph(inputs, outputs, names))

    def _readers(self) -> Mapping[int, Sequence[str]]:
        """TFLite's names of the operators that read a tensor."""
        found: dict[int, list[str]] = {}
        for operator in self._main.operators:
            for index in integers(operator.inputs):
                found.setdefault(index, []).append(self._kinds[operator.opcodeIndex])
        return found

    def _made(
        self, operator: schema.OperatorT, kind: str, reads: Sequence[Value | None], readers: Mapping[int, Sequence[str]]
    ) -> Sequence[Value]:
        """What an operator makes of values."""
        first = integers(operator.outputs)[0]
        call = self._flattener.call(_path(tensor_name(self._main.tensors[first])), self._layer(operator, kind, reads))
        try:
            inputs = [
                value if value is not None or index < 0 else self._constant(index)
                for index, value in zip(integers(operator.inputs), reads, strict=True)
            ]
            op = Operation(kind, call, inputs, operator.builtinOptions, readers.get(first, ()))
            made = _nodes(op)
        except UserError:
            raise
        except Exception as error:  # whatever numbers that do not go together lead to
            reason = f"{kind}: its inputs and options do not go together ({short_cause(error)})"
            raise call.refuse(reason, "export the model again") from error
        return [arithmetic.activated(op, made)] if isinstance(made, Value) else made

    def _layer(self, operator: schema.OperatorT, kind: str, reads: Sequence[Value | None]) -> object:
        """The same object for all calls of one layer: operators with the same weights and options."""
        weights = [i for i, value in zip(integers(operator.inputs), reads, strict=True) if value is None and i >= 0]
        if kind not in weighted.RULES or not weights:
            return operator
        options = str(sorted(vars(operator.builtinOptions).items())) if operator.builtinOptions else ""
        return self._shared.setdefault((kind, options, *weights), operator)

    def _constant(self, index: int) -> np.ndarray:
        """A tensor that is the same for every sample: as the file holds it, or as the interpreter has worked it out."""
        if index not in self._held:
            tensor = self._main.tensors[index]
            held = self._file.buffers[tensor.buffer].data
            if held is None or not len(held):
                value = self._worked_out.constant(index)
            else:
                value = np.frombuffer(bytes(held), DTYPES[tensor.type]).reshape(integers(tensor.shape))
            self._held[index] = value.astype("float32") if value.dtype.kind == "f" else value
        return self._held[index]

    @functools.cached_property
    def _worked_out(self) -> TfliteModel:
        """The interpreter after a run."""
        zeros = {info.name: np.zeros(np.abs(info.shape), info.dtype) for info in self._interpreter.inputs}
        self._interpreter.run(zeros)
        return self._interpreter


def _declared(tensor: schema.TensorT) -> list[int | None]:
    """The shape of one sample, None for what the file leaves open."""
    shape = integers(tensor.shapeSignature) or integers(tensor.shape)
    return [None if size == -1 else size for size in shape[1:]]


def _nodes(op: Operation) -> Value | Sequence[Value]:
    """What an operator makes, by its rule, or else carried through in float32."""
    try:
        if op.kind in RULES:
            return RULES[op.kind](op)
    except NoRuleError:
        if not is_carried(op):
            raise
    if is_carried(op):
        return carried(op)
    raise op.call.forbid(f"no rule is known for TFLite's operator {op.kind}", "export the model without it")


def _path(name: str) -> tuple[str, ...]:
    return tuple(_part(part) for part in name.split("/") if part) or ("tensor",)


def _part(name: str) -> str:
    """Of the names that litert-torch gives, "package.module.Class_attribute", the attribute or else the class."""
    found = _TORCH.fullmatch(name)
    return (found[2] or found[1]) if found else name
