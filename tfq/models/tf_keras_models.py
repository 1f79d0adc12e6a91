"""tf_keras models as flat graphs: its functional calls, its TensorFlow operator layers, its configurations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras.src.engine.functional import Functional
from tf_keras.src.engine.keras_tensor import KerasTensor
from tf_keras.src.layers.core.tf_op_layer import TFOpLambda

from tfq.models import lstm, operators
from tfq.models import operations as op
from tfq.models.calls import SourceCall, mapped
from tfq.models.carried import BATCH, carry, leaves
from tfq.models.flatten import Call, Tensor
from tfq.models.frontend import Frontend
from tfq.models.graph import variable_names

_A = tf_keras.activations

_OF_SHAPES = ("ones_like", "zeros_like")


def _slices(spec: Any) -> Any:
    """The slices of a `SlicingOpLambda`, which records them as dicts."""
    if isinstance(spec, dict):
        return slice(*(None if spec[k] is None else int(spec[k]) for k in ("start", "stop", "step")))
    if isinstance(spec, (list, tuple)):
        return tuple(map(_slices, spec))
    return int(spec) if isinstance(spec, (np.generic, np.ndarray)) else spec


def _with_batch(structure: Any, batch: Any) -> Any:
    """`structure` with `batch` where a list, which is a shape, holds None, the batch size."""
    if isinstance(structure, dict):
        return {key: _with_batch(value, batch) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        numbers = all(value is None or isinstance(value, (int, np.integer)) for value in structure)
        return [batch if numbers and value is None else _with_batch(value, batch) for value in structure]
    return structure


class TFKerasFrontend(Frontend):
    library = tf_keras
    functional_class = Functional
    tree = tf.nest
    tensor_types = (KerasTensor,)
    mask_options: ClassVar = {"by_argument": False, "takes_away": ()}
    kept_activations: ClassVar = {
        _A.linear: "linear", _A.relu: "relu", _A.softmax: "softmax", _A.elu: "elu", _A.selu: "selu",
        _A.softplus: "softplus", _A.softsign: "softsign", _A.swish: "swish", _A.gelu: "gelu", _A.tanh: "tanh",
        _A.sigmoid: "sigmoid", _A.exponential: "exponential", _A.mish: "mish",
        tf.nn.relu: "relu", tf.nn.softmax: "softmax", tf.nn.elu: "elu", tf.nn.selu: "selu",
        tf.nn.softplus: "softplus", tf.nn.softsign: "softsign", tf.nn.silu: "swish", tf.nn.gelu: "gelu",
        tf.nn.tanh: "tanh", tf.nn.sigmoid: "sigmoid", tf.identity: "linear", tf.exp: "exponential",
    }  # fmt: skip
    other_activations: ClassVar = {
        _A.hard_sigmoid: op.hard_sigmoid_fifth, tf.nn.relu6: op.relu6, tf.nn.leaky_relu: op.leaky_relu,
        tf.nn.log_softmax: op.log_softmax,
    }  # fmt: skip

    @classmethod
    def inside(cls, model: Any) -> Any | None:
        return model if getattr(model, "_nodes_by_depth", None) and model.inputs else None

    @classmethod
    def inputs_of(cls, model: Any) -> Any | None:
        specs = getattr(model, "_saved_model_inputs_spec", None)
        return None if specs is None else tf.nest.map_structure(
            lambda s: tf_keras.Input(s.shape[1:], dtype=s.dtype), specs
        )  # fmt: skip

    def source_call(self, node: Any) -> SourceCall:
        return SourceCall(node.layer, node.call_args, node.call_kwargs, node.outputs)

    def mask(self, path: tuple[str, ...], layer: Any, function: Callable[..., Any], args: list[Any]) -> Any:
        call = self._flattener.call((*path, layer.name), layer)
        return carry(call, f"{type(layer).__name__}.compute_mask", function, args, identity=str(id(layer)))

    def structures(self, model: Any) -> tuple[Any, Any]:
        return model._nested_inputs, model._nested_outputs

    def input_names(self, model: Any) -> list[str]:
        return list(model.input_names)

    def operator(self, call: Call, source: SourceCall, args: list[Any], kwargs: dict[str, Any]) -> Any:
        layer = source.layer
        if not isinstance(layer, TFOpLambda):
            if type(layer).__name__ in ("ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer"):
                raise call.refuse(f"no rule is known for {type(layer).__name__}", "replace it by standard layers")
            return NotImplemented
        bound = inspect.signature(layer.function).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if "slice_spec" in given:
            given["slice_spec"] = _slices(given["slice_spec"])
        if layer.symbol == "cast":
            given["dtype"] = tf.as_dtype(given["dtype"]).name
            if isinstance(given["x"], Tensor) and given["x"].dtype == given["dtype"]:
                return given["x"]
        tensors = [value for value in leaves([args, list(kwargs.values())]) if isinstance(value, Tensor)]
        if layer.symbol in operators.SHAPES and tensors:
            return list(given["input"].shape)
        if layer.symbol in _OF_SHAPES and tensors:
            like = tensors[0]
            return layer.function(np.zeros((1, *like.sample), like.dtype)).numpy()
        if not tensors:
            return self._constant(layer, given)
        if given.get("data_format") not in (None, "NHWC"):
            raise call.forbid(f"its data_format is {given['data_format']}", "build the model again with NHWC")
        given.pop("name", None)

        def carried() -> Any:
            sized = _with_batch((list(bound.args), bound.kwargs), BATCH)
            return carry(call, f"tf.{layer.symbol}", layer.function, *sized)

        found = operators.TENSORFLOW.get(layer.symbol)
        ways = (
            [] if found is None or self.counts(args, kwargs) else [lambda: operators.add_nodes(call, found, given.get)]
        )
        return self._flattener.first_of(call, [*ways, carried])

    def _constant(self, layer: Any, given: dict[str, Any]) -> Any:
        """An operator on numbers known now, such as the parts of a shape."""
        if layer.symbol == "__operators__.getitem":
            return given["tensor"][given["slice_spec"]]
        if layer.symbol in ("stack", "convert_to_tensor"):
            return given.get("values", given.get("value"))
        if layer.symbol == "concat":
            return leaves(given["values"])
        found = layer.function(**{**_with_batch(given, 1), **{k: 1 for k in ("x", "y") if given.get(k, 1) is None}})
        return mapped(lambda v: v.numpy() if hasattr(v, "numpy") else v, found)

    def carried_form(self, layer: Any, begins: bool) -> Any:
        return lstm.as_loop(layer) if begins else super().carried_form(layer, begins)

    def variables(self, layer: Any) -> list[tf.Variable]:
        return list(layer.weights)

    def renamed(self, kind: str, key: str) -> str:  # noqa: ARG002
        return key

    def variable_names(self, layer: Any) -> list[str]:
        return variable_names(layer)
