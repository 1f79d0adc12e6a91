"""The walk over a functional Keras model, common to both frameworks.

A nested model is walked in place, an operator or layer becomes nodes through a `Call`. What differs
between Keras 3 and tf_keras is in the abstract methods of `Frontend`.
"""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.input_shapes import InputShapes
from tfq.models import encodings, operations
from tfq.models.calls import SourceCall, accepted_keys, dtype_name, is_computed, is_default, mapped, tensors_read
from tfq.models.carried import carry, leaves, weight_names
from tfq.models.dot_product import softmax_layer
from tfq.models.flatten import Call, Flattener, Tensor, add_layer
from tfq.models.graph import Graph
from tfq.models.keras_layers import LAYERS
from tfq.models.masks import Masks, ignores_mask, with_masks
from tfq.models.refusals import UNSAFE, independent, refuse, short_cause

OWN = ("keras", "tf_keras", "tensorflow")
ATTENTION = ("AdditiveAttention", "Attention", "GroupedQueryAttention", "MultiHeadAttention")
Follow = Callable[[Call, Tensor], Tensor]


class Frontend(abc.ABC):
    """Walks one model. `unsafe`: code that came with the model may run (it is traced into nodes)."""

    library: ClassVar[Any]
    functional_class: ClassVar[Any]
    tree: ClassVar[Any]  # the module that packs and flattens structures as the library does
    tensor_types: ClassVar[tuple[type, ...]]
    kept_activations: ClassVar[Mapping[Any, str]]  # function -> name in tf_keras
    other_activations: ClassVar[Mapping[Any, Follow]]
    mask_options: ClassVar[Mapping[str, Any]]  # of `Masks`

    def __init__(self, model: Any, *, unsafe: bool, input_shapes: InputShapes):
        self._unsafe = unsafe
        self.rounded: set[str] = set()
        self.masks = Masks(**self.mask_options)
        self.model = self.functional(model)
        self._flattener = Flattener(
            self._paths(self.model, ()), batch=self.model.inputs[0].shape[0], shapes=input_shapes
        )

    @classmethod
    def functional(cls, model: Any) -> Any:
        """The functional model inside a model of the library; UserError for a subclassed or unbuilt one."""
        if isinstance(model, cls.library.Sequential):
            inner = cls.inside(model)
            if inner is None:
                reason = "it is a Sequential without a known input shape"
                raise refuse(f"Model {model.name!r}", reason, "add an Input layer first")
            return inner
        if not isinstance(model, cls.functional_class) or type(model).call is not cls.functional_class.call:
            symbols = cls.inputs_of(model)
            if symbols is None:
                reason = f"it is a subclassed model ({type(model).__name__}) that was never called"
                raise refuse(f"Model {model.name!r}", reason, "call it once on a batch of samples before")
            return cls.library.Model(symbols, model(symbols), name=model.name)
        return model

    @classmethod
    @abc.abstractmethod
    def inputs_of(cls, model: Any) -> Any | None:
        """Symbolic inputs of a subclassed model, as it was called before; None where it was not."""

    @classmethod
    @abc.abstractmethod
    def inside(cls, model: Any) -> Any | None:
        """The functional model of a Sequential one; None where its input shape is not known yet."""

    @abc.abstractmethod
    def source_call(self, node: Any) -> SourceCall:
        """The call that a node of the library's own graph stands for."""

    @abc.abstractmethod
    def mask(self, path: tuple[str, ...], layer: Any, function: Callable[..., Any], args: list[Any]) -> Any:
        """The masks that a layer's function gives for tensors and their masks."""

    @abc.abstractmethod
    def structures(self, model: Any) -> tuple[Any, Any]:
        """The inputs and the outputs of a functional model, in lists and dicts as the user gave them."""

    @abc.abstractmethod
    def input_names(self, model: Any) -> list[str]: ...

    @abc.abstractmethod
    def operator(self, call: Call, source: SourceCall, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Add the nodes of an operator; NotImplemented if `source.layer` is a layer."""

    @abc.abstractmethod
    def renamed(self, kind: str, key: str) -> str:
        """tf_keras' name of a configuration key or variable of this framework."""

    @abc.abstractmethod
    def variable_names(self, layer: Any) -> list[str]:
        """Short names of `layer.weights`."""

    def carried_form(self, layer: Any, begins: bool) -> Any:  # noqa: ARG002
        """The layer that is carried for `layer`, as the runtime takes it; `begins`: it is given an initial state."""
        return encodings.as_operations(layer) or layer

    @abc.abstractmethod
    def variables(self, layer: Any) -> list[tf.Variable]:
        """TensorFlow's variables behind `layer.weights`."""

    @property
    def batch(self) -> int | None:
        """The batch size that the model fixes, or None."""
        return self._flattener.batch

    def calls(self, model: Any) -> Iterator[SourceCall]:
        """Every call but those of the input layers, in topological order."""
        inputs = {id(tensor) for tensor in model.inputs}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input and not all(id(tensor) in inputs for tensor in leaves(node.outputs)):
                    yield self.source_call(node)

    def output_names(self, model: Any) -> list[str]:
        structure = self.structures(model)[1]
        if isinstance(structure, dict) and len(structure) == len(model.outputs):
            return sorted(structure)
        return list(model.output_names)

    def predict(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The model's outputs, in order, for one batch of arrays by input name."""
        values = [tf.constant(arrays[name]) for name in self._inputs]
        packed = self.tree.pack_sequence_as(self.structures(self.model)[0], values)
        return [np.asarray(y) for y in self.tree.flatten(self.model(packed, training=False))]

    def graph(self) -> Graph:
        model = self.model
        names = self.input_names(model)
        self._flattener.shapes.check(names)
        for name, tensor in zip(names, model.inputs, strict=True):
            if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False) or len(tensor.shape) == 0:
                raise refuse(
                    f"Input {name!r}", "it is sparse, ragged or a single number", "use a dense Input(shape=...)"
                )
        self.rounded.update({"float16", "bfloat16"} & {dtype_name(tensor.dtype) for tensor in model.inputs})
        inputs = [
            self._flattener.input(name, tuple(t.shape), dtype_name(t.dtype))
            for name, t in zip(names, model.inputs, strict=True)
        ]
        self._inputs = [tensor.name for tensor in inputs]
        outputs = self._run(model, inputs, ())
        constant = [n for n, t in zip(self.output_names(model), outputs, strict=True) if not isinstance(t, Tensor)]
        if constant:
            raise independent(constant[0], len(constant) < len(outputs))
        return self._flattener.graph(inputs, outputs, self.output_names(model))

    def _paths(self, model: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        for source in self.calls(model):
            here = (*path, source.layer.name)
            inner = self.graph_model(source.layer)
            found += [here] if inner is None else self._paths(inner, here)
        return found

    def _run(self, model: Any, values: Sequence[Any], path: tuple[str, ...]) -> list[Any]:
        table = {id(tensor): value for tensor, value in zip(model.inputs, values, strict=True)}

        def look_up(leaf: Any) -> Any:
            if isinstance(leaf, self.tensor_types):
                return table[id(leaf)]
            return leaf.numpy() if hasattr(leaf, "numpy") else leaf

        def run(source: SourceCall) -> None:
            args, kwargs = mapped(look_up, source.args), mapped(look_up, source.kwargs)
            results = leaves(self._masked(source, args, kwargs, path))
            outputs = leaves(source.outputs)
            if len(outputs) == 1 and len(results) > 1:  # a shape: one symbolic tensor, several numbers
                results = [results]
            if len(outputs) != len(results):
                raise refuse(f"Layer {source.layer.name!r}", f"it has {len(outputs)} outputs", "use single outputs")
            table.update((id(tensor), value) for tensor, value in zip(outputs, results, strict=True))

        for source in self.calls(model):
            run(source)
        return [look_up(tensor) for tensor in model.outputs]

    def graph_model(self, layer: Any) -> Any | None:
        """The functional model that `layer` is; None for a layer, and for a subclassed model, whose code is traced."""
        if isinstance(layer, self.library.Sequential):
            return self.functional(layer)
        is_functional = isinstance(layer, self.functional_class) and type(layer).call is self.functional_class.call
        return layer if is_functional else None

    def _nested_inputs(self, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """What a nested model is called with, in the order of its inputs."""
        given = args[0] if args else kwargs["inputs"]
        if isinstance(given, dict) and not isinstance(self.structures(model)[0], dict):
            return [given[name] for name in self.input_names(model)]
        return leaves(given)

    def _masked(self, source: SourceCall, args: list[Any], kwargs: dict[str, Any], path: tuple[str, ...]) -> Any:
        """What a call gives, with the masks that Keras adds to its arguments; its outputs get theirs."""
        layer = source.layer
        if not hasattr(layer, "supports_masking"):
            return self._call(source, args, kwargs, path)
        kwargs = self.masks.given(layer, args, kwargs)
        read = {key: value for key, value in kwargs.items() if key != "mask"} if ignores_mask(layer) else kwargs
        results = self._call(source, args, read, path)
        if layer.supports_masking and self.graph_model(layer) is None:
            self.masks.hand_on(functools.partial(self.mask, path), layer, args, kwargs, results)
        return results

    def _call(self, source: SourceCall, args: list[Any], kwargs: dict[str, Any], path: tuple[str, ...]) -> Any:
        layer = source.layer
        path = (*path, layer.name)
        inner = self.graph_model(layer)
        if inner is not None:
            if kwargs.get("training"):
                raise refuse(f"Model {layer.name!r}", "it is called with training=True", "call it without")
            return self._run(inner, self._nested_inputs(inner, args, kwargs), path)
        call = self._flattener.call(path, layer)
        compute = dtype_name(getattr(layer, "compute_dtype", None) or "float32")
        if compute in ("float16", "bfloat16"):
            self.rounded.add(compute)
        result = self.operator(call, source, args, kwargs)
        return self._layer(call, layer, args, kwargs, source, path) if result is NotImplemented else result

    def counts(self, args: Any, kwargs: Any) -> bool:
        """Whether one of these tensors holds integers or truth values that are computed."""
        return any(isinstance(v, Tensor) and self._flattener.is_count(v) for v in leaves([args, kwargs]))

    def _layer(self, call: Call, layer: Any, args: list[Any], kwargs: dict[str, Any],
               source: SourceCall, path: tuple[str, ...]) -> Any:  # fmt: skip
        kind = type(layer).__name__
        own = type(layer).__module__.split(".")[0] in OWN
        if not own or kind == "Lambda":
            if not self._unsafe:
                what = "it is a Lambda, which holds code" if kind == "Lambda" else f"{kind} is a custom class"
                raise call.forbid(what, UNSAFE)
            ways = [lambda: self._traced(call, layer, args, kwargs, path)]
        elif kind == "TimeDistributed":
            ways = [lambda: self._time_distributed(call, layer, args, kwargs, source, path)]
        elif kind not in ("Embedding", "Softmax", *ATTENTION) and self.counts(args, kwargs):
            return self._carried(call, layer, args, kwargs)
        elif kind in LAYERS:
            ways = [lambda: self._known(call, layer, args, kwargs, source)]
            ways += [lambda: softmax_layer(call, layer, args, kwargs)] if kind == "Softmax" else []
        else:
            ways = []
        if own and (kind not in LAYERS or kind in ATTENTION):
            ways.append(lambda: self._written_out(call, layer, args, kwargs, path))
        return self._flattener.first_of(call, [*ways, lambda: self._carried(call, layer, args, kwargs)])

    def _known(self, call: Call, layer: Any, args: list[Any], kwargs: dict[str, Any], source: SourceCall) -> Tensor:
        """A layer that has a row in `LAYERS`."""
        kind = type(layer).__name__
        if kind in ATTENTION and self.masks.beside([args, kwargs]):
            raise call.refuse("it reads tensors that have masks")
        inputs = tensors_read(call, layer, args, kwargs)
        if LAYERS[kind].training_only:
            return call.add("Activation", {"activation": "linear"}, inputs, shape=inputs[0].shape)
        if not all(isinstance(value, Tensor) for value in inputs):
            raise call.refuse("it is called with a constant", "rebuild the model without it")
        config, follow = self._config(call, layer, kind)
        output = leaves(source.outputs)[0]
        return add_layer(
            call, kind, config, inputs, self._weights(layer, kind), activate=follow,
            shape=tuple(output.shape), dtype=dtype_name(output.dtype),
        )  # fmt: skip

    def _carried(self, call: Call, layer: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A layer as its library has it."""
        if getattr(layer, "stateful", False):
            raise call.forbid("it keeps a state from one call to the next", "build it again with stateful=False")
        if kwargs.get("training"):
            raise call.forbid("it is called with training=True", "build the model again without it")
        given = {key: value for key, value in kwargs.items() if value is not None}
        if "training" in inspect.signature(layer.call).parameters:
            given["training"] = False
        bound = inspect.signature(layer.call).bind(*args, **given).arguments
        several = len(leaves(next(iter(bound.values())))) > 1  # tf_keras has a state behind what is read
        made = self.carried_form(layer, several or bound.get("initial_state") is not None)
        variables = self.variables(made)
        names = weight_names([name.replace("/", ".") for name in self.variable_names(layer)])
        function, masks = made, self.masks.beside([args, given])
        if masks:
            function, args, given = with_masks(made), [[*masks], [*masks.values()], args, given], {}
        return carry(
            call, type(layer).__name__, function, args, given,
            variables=dict(zip(names, variables, strict=True)), identity=f"{layer.name} {id(layer)}",
        )  # fmt: skip

    def _config(self, call: Call, layer: Any, kind: str) -> tuple[dict[str, Any], Follow | None]:
        """The layer's configuration for tf_keras' class, and what follows an activation tf_keras lacks."""
        try:
            config = layer.get_config()
        except Exception as error:
            raise call.forbid(f"its configuration cannot be read ({short_cause(error)})", UNSAFE) from None
        if config.get("data_format") == "channels_first":
            raise call.forbid("its data_format is channels_first", "build the model again with channels_last")
        follow = None
        if "activation" in config:
            config["activation"], follow = self.activation(call, layer.activation)
        accepted = accepted_keys(getattr(tf_keras.layers, kind))
        defaults = accepted_keys(type(layer))
        kept = {}
        for key, value in config.items():
            if not is_computed(key):
                continue
            if self.renamed(kind, key) in accepted:
                kept[self.renamed(kind, key)] = value
            elif key != "data_format" and not is_default(key, value, defaults):
                raise call.refuse(f"{kind} with {key}={value!r} has no equivalent", f"build it again without {key}")
        return kept, follow

    def activation(self, call: Call, function: Any) -> tuple[str, Follow | None]:
        """Name of the activation to keep fused, and what follows instead where tf_keras has no such name."""
        if function is None or function in self.kept_activations:
            return ("linear" if function is None else self.kept_activations[function]), None
        if function in self.other_activations:
            return "linear", self.other_activations[function]
        name = str(getattr(function, "name", None) or getattr(function, "__name__", type(function).__name__))
        kind = type(function).__name__
        if isinstance(function, self.library.layers.Layer) and kind in LAYERS and not function.weights:
            config, inner = self._config(call, function, kind)
            if inner is None:
                return "linear", operations.named(kind, **config)
        if (
            not self._unsafe
            and type(function).__module__.split(".")[0] not in OWN
            and (getattr(function, "__module__", "").split(".")[0] not in OWN)
        ):
            raise call.forbid(f"its activation {name!r} is no function of Keras", UNSAFE)
        return "linear", lambda call, x: carry(call, name, function, [x])

    def _weights(self, layer: Any, kind: str) -> dict[str, np.ndarray]:
        names = [self.renamed(kind, name) for name in self.variable_names(layer)]
        found = dict(zip(names, map(self._flattener.array, layer.weights), strict=True))
        return {name: value for name, value in found.items() if not name.startswith("renorm_")}

    def _time_distributed(self, call: Call, layer: Any, args: list[Any], kwargs: dict[str, Any],
                          source: SourceCall, path: tuple[str, ...]) -> Any:  # fmt: skip
        """Layers that treat every position alike need no wrapper."""
        inner = layer.layer
        if type(inner).__name__ not in ("Dense", "Activation", "ReLU", "Dropout"):
            raise call.refuse(f"TimeDistributed around {type(inner).__name__} unrolls time", "reshape instead")
        given = {key: value for key, value in kwargs.items() if value is not None}
        return self._layer(call, inner, args, given, source, path)

    def _written_out(self, call: Call, layer: Any, args: list[Any], kwargs: dict[str, Any],
                     path: tuple[str, ...]) -> Any:  # fmt: skip
        """A layer class of Keras itself that no rule knows, as the operators that it is written in.

        Attention gains by every part of it that is int8; of other layers all parts must have a rule.
        """
        before = self._flattener.count("Carried")
        found = self._traced(call, layer, args, kwargs, path)
        if self._flattener.count("Carried") > before and type(layer).__name__ not in ATTENTION:
            raise call.refuse("some of its operators have no rule")
        return found

    def _traced(self, call: Call, layer: Any, args: list[Any], kwargs: dict[str, Any], path: tuple[str, ...]) -> Any:
        """The nodes of a layer's own code, found by calling it with symbolic tensors."""
        is_lambda = type(layer) is self.library.layers.Lambda
        function = layer.function if is_lambda else layer.call
        given = dict(layer.arguments or {}) if is_lambda else {}
        given |= {key: value for key, value in kwargs.items() if value is not None}
        if given.get("training"):
            raise call.forbid("it is called with training=True", "build the model again without it")
        if "training" in inspect.signature(function).parameters:  # some layers default to True
            given["training"] = False
        structure = (args, given)
        masks = self.masks.beside(structure)
        read = leaves([structure, list(masks.values())])
        inputs = list(dict.fromkeys(value for value in read if isinstance(value, Tensor)))
        for batch in (None, 1):  # what a constant is repeated along must be known
            try:
                model = self._trace(function, inputs, structure, masks, batch)
                found = self._run(model, inputs, path)
            except Exception as error:
                cause = error
            else:
                return found[0] if len(found) == 1 else found
        raise call.refuse(f"its code cannot be traced ({short_cause(cause)})", "replace it by standard layers")

    def _trace(self, function: Callable[..., Any], inputs: Sequence[Tensor], structure: Any,
               masks: Mapping[Tensor, Tensor], batch: int | None) -> Any:  # fmt: skip
        """A functional model of `function`, called with symbolic tensors in the places of `structure`."""
        symbols = {t.name: self.library.Input(batch_shape=(batch, *t.shape[1:]), dtype=t.dtype) for t in inputs}
        args, kwargs = mapped(lambda v: symbols[v.name] if isinstance(v, Tensor) else v, structure)
        beside = [[symbols[t.name] for t in part] for part in (masks.keys(), masks.values())]
        return self.library.Model(list(symbols.values()), with_masks(function)(*beside, args, kwargs))
