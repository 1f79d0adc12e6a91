"""Values in a stored model configuration, rebuilt from what is known: numbers, words, types, activations, arguments.

Each function returns the value in the form that its library is to see, made anew; nothing of the stored
object is passed on but numbers, words of a fixed list and printable names. Whatever else there is, it
raises UserError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from tfq.errors import UserError
from tfq.models.known_names import ACTIVATIONS, DTYPES, POLICIES, WORDS
from tfq.models.refusals import UNSAFE, refuse, shortened

_LONGEST_NAME = 500
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_EQUATION = re.compile(r"[A-Za-z.,>-]{0,100}")
_NO_SUCH = "save the model again with model.save()"
_REBUILD = "build the model again without it"
# What a reference to a tensor is recorded as: the layer's name and the number of its call.
References = list[tuple[str, int]]


def name_of(value: Any, where: str) -> str:
    """A name that can be shown: of a layer, an input or an output."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
        raise refuse(
            where, f"the name {shortened(repr(value), 60)} is empty, too long or not printable", "rename the layer"
        )
    return value


def key_of(value: str, where: str) -> str:
    if not _KEY.fullmatch(value):
        raise refuse(where, f"its configuration has the key {shortened(repr(value), 60)}", _NO_SUCH)
    return value


def number(value: Any) -> bool:
    """None, a truth value or a number that fits 64 bits."""
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def option(value: Any, key: str, where: str) -> Any:
    """The value of an option: numbers, lists of numbers, known words."""
    if number(value):
        return value
    if isinstance(value, str):
        if value in WORDS or value in DTYPES:
            return value
        if key in ("equation", "bias_axes") and _EQUATION.fullmatch(value):
            return value
        if _is_einsum(value):
            return value
    if isinstance(value, list):
        return [option(item, key, where) for item in value]
    items = _items(value)
    if items is not None:
        return [option(item, key, where) for item in items]
    raise not_known(value, key, where)


def plain(value: Any, key: str, where: str, layer: Callable[[Any, str], Any]) -> Any:
    """The value of an option of a class that the user trusts: numbers and printable texts, in lists and dictionaries.

    What only serves training is left out; `layer` makes anew what describes a layer or model.
    """
    if number(value) or (isinstance(value, str) and len(value) <= _LONGEST_NAME and value.isprintable()):
        return value
    if isinstance(value, list):
        return [plain(item, key, where, layer) for item in value]
    if not isinstance(value, dict):
        raise not_known(value, key, where)
    if key == "dtype":
        return dtype_policy(value, where)
    if key.endswith("activation"):
        return activation(value, where, layer)
    if value.get("module") in ("keras.initializers", "keras.regularizers", "keras.constraints"):
        return None
    items = _items(value)
    if items is not None:
        return [plain(item, key, where, layer) for item in items]
    if "class_name" in value:
        return layer(value, where)
    return {key_of(k, where): plain(item, k, where, layer) for k, item in value.items()}


def _is_einsum(value: str) -> bool:
    """Whether it can be nothing but the equation of an einsum."""
    return "->" in value and _EQUATION.fullmatch(value) is not None


def _numbers(value: Any, key: str, where: str) -> Any:
    if isinstance(value, list):
        return [_numbers(item, key, where) for item in value]
    if value is not None and number(value):
        return value
    raise not_known(value, key, where)


def _items(value: Any) -> list[Any] | None:
    """What lies in a stored tuple, shape or array; None for anything else."""
    if not isinstance(value, dict):
        return None
    kind, inner = value.get("class_name"), value.get("config")
    if kind in ("__tuple__", "TensorShape") and isinstance(value.get("items"), list):
        return value["items"]
    if kind in ("__numpy__", "__tensor__") and isinstance(inner, dict) and isinstance(inner.get("value"), list):
        return inner["value"]
    return None


def not_known(value: Any, key: str, where: str) -> UserError:
    """Why a value is refused."""
    if isinstance(value, dict):
        if value.get("class_name") == "__lambda__" or list(value) == ["value"]:
            return refuse(where, f"its {key} is a Python lambda, which is code", "use one of Keras' own activations")
        kind = value.get("class_name")
        inner = value.get("config")
        if kind == "function" and isinstance(inner, str):
            return refuse(where, f"its {key} is the custom function {shortened(repr(inner), 60)}", UNSAFE)
        what = f"an object of class {shortened(repr(kind), 60)}" if isinstance(kind, str) else "a dictionary"
        return refuse(where, f"its {key} is {what}, which tfq does not know", UNSAFE)
    return refuse(where, f"its {key} is {shortened(repr(value), 60)}, which is no option that tfq knows", _REBUILD)


def dtype_policy(value: Any, where: str) -> str | None:
    """A type, or the name of a policy of Keras' own."""
    inner = value.get("config") if isinstance(value, dict) else None
    if isinstance(inner, dict) and value.get("class_name") in ("DTypePolicy", "FloatDTypePolicy", "Policy"):
        value = inner.get("name")
    if value is None or (isinstance(value, str) and value in POLICIES):
        return value
    raise not_known(value, "dtype", where)


def activation(value: Any, where: str, layer: Callable[[Any, str], Any]) -> Any:
    """None, the name of one of Keras' own functions, or what `layer` makes of a layer used as an activation."""
    if value is None or (isinstance(value, str) and value in ACTIVATIONS):
        return value
    if isinstance(value, dict):
        name, module = value.get("config"), value.get("module")
        own = module is None or (isinstance(module, str) and module.split(".")[0] in ("builtins", "keras", "tf_keras"))
        if value.get("class_name") == "function" and own and isinstance(name, str) and name in ACTIVATIONS:
            return name
        if isinstance(name, dict) and value.get("class_name") != "__lambda__":
            return layer(value, where)
    if isinstance(value, str):
        raise refuse(where, f"it uses the custom function {shortened(repr(value), 60)}", UNSAFE)
    raise not_known(value, "activation", where)


def keras_argument(value: Any, key: str, where: str, found: References) -> Any:
    """An argument of a call in a Keras 3 model; its tensors are added to `found`."""
    if number(value) or (isinstance(value, str) and (value in WORDS or value in DTYPES or _is_einsum(value))):
        return value
    if isinstance(value, list):
        return [keras_argument(item, key, where, found) for item in value]
    if not isinstance(value, dict):
        raise not_known(value, key, where)
    kind, inner = value.get("class_name"), value.get("config")
    if kind is None and not {"config", "module", "registered_name"} & set(value):
        return {name_of(k, where): keras_argument(v, key, where, found) for k, v in value.items()}
    if kind == "__tuple__" and isinstance(value.get("items"), list):
        return [keras_argument(item, key, where, found) for item in value["items"]]
    if kind == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    if not isinstance(inner, dict):
        raise not_known(value, key, where)
    if kind == "__keras_tensor__":
        return _keras_tensor(inner, where, found)
    if kind == "__slice__" and all(number(inner.get(part)) for part in ("start", "stop", "step")):
        return {"class_name": kind, "config": {part: inner.get(part) for part in ("start", "stop", "step")}}
    dtype = inner.get("dtype")
    if kind in ("__numpy__", "__tensor__") and isinstance(dtype, str) and dtype in DTYPES - {"string"}:
        array = {"value": _numbers(inner.get("value"), key, where), "dtype": dtype}
        return {"class_name": kind, "config": array}
    raise not_known(value, key, where)


def _keras_tensor(inner: Mapping[str, Any], where: str, found: References) -> dict[str, Any]:
    shape, dtype, history = inner.get("shape"), inner.get("dtype"), inner.get("keras_history")
    shaped = isinstance(shape, list) and all(size is None or index(size) for size in shape)
    if not (shaped and isinstance(dtype, str) and dtype in DTYPES and _is_reference(history)):
        raise refuse(where, "it is called with a tensor that is not described", _NO_SUCH)
    made = {"shape": shape, "dtype": dtype, "keras_history": reference(history, where, found)}
    return {"class_name": "__keras_tensor__", "config": made}


def _is_reference(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and all(map(index, value[1:]))


def reference(value: list[Any], where: str, found: References) -> list[Any]:
    """[layer, call, output], added to `found`."""
    name = name_of(value[0], where)
    found.append((name, value[1]))
    return [name, value[1], value[2]]


def tf_keras_node(node: Any, where: str, found: References) -> Any:
    """One call of a layer in a tf_keras model: references, constants and arguments, in lists and dictionaries."""
    if isinstance(node, dict):
        return {name_of(key, where): tf_keras_node(item, where, found) for key, item in node.items()}
    if not isinstance(node, list):
        raise not_known(node, "call", where)
    if not (node and isinstance(node[0], str)):
        return [tf_keras_node(item, where, found) for item in node]
    arguments = node[3] if len(node) == 4 else {}
    if len(node) not in (3, 4) or not isinstance(arguments, dict):
        raise not_known(node, "call", where)
    given = {key_of(k, where): _tf_keras_argument(v, k, where, found) for k, v in arguments.items()}
    if node[:2] == ["_CONSTANT_VALUE", -1]:
        return ["_CONSTANT_VALUE", -1, _tf_keras_argument(node[2], "constant", where, []), given]
    if not _is_reference(node[:3]):
        raise not_known(node[:3], "call", where)
    return [*reference(node[:3], where, found), given]


def _tf_keras_argument(value: Any, key: str, where: str, found: References) -> Any:
    if key == "name":  # of the operation in TensorFlow's graph: not needed
        return None
    if number(value) or (isinstance(value, str) and (value in WORDS or value in DTYPES or _is_einsum(value))):
        return value
    if _is_reference(value):
        return reference(value, where, found)
    if isinstance(value, list) and not any(isinstance(item, str) for item in value):
        return [_tf_keras_argument(item, key, where, found) for item in value]
    items = _items(value)
    if items is not None:
        return _tf_keras_argument(items, key, where, found)
    if isinstance(value, dict) and set(value) == {"start", "stop", "step"}:
        return {part: _tf_keras_argument(item, part, where, found) for part, item in value.items()}
    if isinstance(value, dict) and value.get("class_name") == "__ellipsis__":
        return Ellipsis
    raise not_known(value, key, where)


def endpoints(value: Any, where: str) -> Any:
    """The inputs or outputs of a model: references in lists and dictionaries."""
    if _is_reference(value):
        return reference(value, where, [])
    if isinstance(value, list):
        return [endpoints(item, where) for item in value]
    if isinstance(value, dict):
        return {name_of(key, where): endpoints(item, where) for key, item in value.items()}
    raise refuse(where, "its inputs and outputs are not described", _NO_SUCH)
