"""What a frontend reads of the calls and the layers of a model, whichever library it is of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tfq.models.carried import leaves
from tfq.models.flatten import Call

# Keys that say how a layer is made or trained, not what it computes.
_NOT_COMPUTED = {"name", "dtype", "trainable", "seed", "synchronized", "batch_input_shape", "input_length", "sparse"}
_NOT_COMPUTED |= {"renorm", "renorm_clipping", "renorm_momentum", "flash_attention", "rng_type", "force_generator"}
_NOT_COMPUTED |= {"query_shape", "key_shape", "value_shape", "autocast"}
_HIDDEN_DEFAULTS = {"rms_scaling": False}  # not in the constructor's signature
_NOT_COMPUTED_ENDS = ("_initializer", "_regularizer", "_constraint")


class SourceCall(NamedTuple):
    """One call in the user's model: the arguments hold symbolic tensors of the framework."""

    layer: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    outputs: Any


def mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """`function` of every leaf of lists, tuples and dicts."""
    if isinstance(structure, dict):
        return {key: mapped(function, value) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [mapped(function, value) for value in structure]
    return function(structure)


def accepted_keys(layer_class: type) -> dict[str, Any]:
    """Keyword arguments that the constructors of a layer class and of its bases name, with their defaults."""
    found: dict[str, Any] = {}
    for base in reversed(layer_class.__mro__[:-1]):
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            found.update((p.name, p.default) for p in parameters if p.kind is not p.VAR_KEYWORD)
    return found


def is_computed(key: str) -> bool:
    """Whether a key of a configuration says what the layer computes, not how it is made or trained."""
    return key not in _NOT_COMPUTED and not key.endswith(_NOT_COMPUTED_ENDS)


def is_default(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    default = _HIDDEN_DEFAULTS.get(key, defaults.get(key))
    if isinstance(value, (list, tuple)) and isinstance(default, (list, tuple)):
        return list(value) == list(default)
    return value is default or value == default or value is None


def dtype_name(dtype: Any) -> str:
    return dtype if isinstance(dtype, str) else dtype.name


def tensors_read(call: Call, layer: Any, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The tensors a layer reads; UserError for any other argument that is not at its default."""
    given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
    given = {**{k: v for k, v in given.items() if k != "kwargs"}, **given.get("kwargs", {})}
    if type(layer).__name__ == "MultiHeadAttention":
        inputs = [given.pop("query"), given.pop("value")]
        key = given.pop("key", None)
        inputs += [] if key is None else [key]
    else:
        inputs = leaves(given.pop(next(iter(given))))
    extra = {key: value for key, value in given.items() if value is not None and value is not False}
    if extra:
        key, value = next(iter(extra.items()))
        shown = f"{key}={value!r}" if isinstance(value, (bool, int, float, str)) else f"the argument {key}"
        raise call.refuse(f"it is called with {shown}", "build the model again without it")
    return inputs
