"""A stored model configuration, rebuilt from what is known: the only configuration that a library gets to see.

A model file is data of somebody else. Keras makes objects of whatever a configuration names: it imports
modules, looks functions up, opens files, and does so at any depth. Searching for what is harmful never
ends; so this is an allow-list. Out of the stored configuration come numbers, words of a fixed list,
printable names, and classes of `tfq.models.known_names` by their plain names. What only serves training
(initialisers, regularisers, constraints, compile and build configurations, seeds) is left out. All else
is refused, with the name of its layer.

It also bounds what building may cost: the depth of the configuration, the number of layers, the number of
calls of layers once nested models are written out, and it refuses calls that can never be made, for which
tf_keras would wait for ever.

Pure functions; only the standard library is imported.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfq.errors import UserError
from tfq.models import rebuild_values as values
from tfq.models.carried_names import may_carry
from tfq.models.known_names import (
    HIDDEN_LAYERS,
    KERAS_OPERATIONS,
    LAYERS,
    MODELS,
    NOT_TAKEN,
    TF_OPERATOR_LAYERS,
    TF_SYMBOLS,
    WRAPPERS,
)
from tfq.models.refusals import UNSAFE, import_of, refuse, shortened

DEEPEST = 150  # a nested model takes about four levels
MOST_LAYERS = 20_000
MOST_CALLS = 100_000
# How the operations of keras.ops are called in a rebuilt configuration: layers have the same names.
OPERATION_PREFIX = "ops."
_FUNCTIONAL = "keras.src.models.functional"
_REPLACE = "replace it by standard layers"
_AGAIN = "save the model again with model.save()"
_HELD = ("layer", "backward_layer")
_NOT_NEEDED = {"seed", "renorm_clipping", "renorm_momentum"}
_NOT_NEEDED_ENDS = ("_initializer", "_regularizer", "_constraint")


@dataclasses.dataclass(frozen=True)
class _Part:
    """A rebuilt layer or model.

    Attributes:
      config: the object as its library wants it.
      layers: how many layers it holds, itself among them.
      calls: how many calls of layers one call of it makes.
      first_call: the number by which its first call is known in the model around it.
      imported: the name of one whose class is the user's; "" of all others.
    """

    config: dict[str, Any]
    layers: int = 1
    calls: int = 1
    first_call: int = 0
    imported: str = ""

    @property
    def name(self) -> str:
        return self.imported or self.config["config"]["name"]


@dataclasses.dataclass(frozen=True)
class _Source:
    """Whether Keras 3 wrote the configuration, and the modules whose classes it may name."""

    keras3: bool
    imports: tuple[str, ...] = ()

    def may_import(self, module: Any) -> bool:
        return isinstance(module, str) and any(module == m or module.startswith(f"{m}.") for m in self.imports)


def rebuild(config: Any, library: str, imports: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration of a model, {"class_name", "config"}, made anew for `library` ("keras" or "tf_keras").

    Classes of the modules `imports` pass with their own configurations, of numbers and printable texts.

    Raises:
      UserError: it holds something that is not on the list; the message names the layer and the way out.
    """
    _check_depth(config)
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise UserError(f"the stored configuration describes no model; {_AGAIN}")
    part = _object(config, _Source(library == "keras", tuple(imports)), "the model")
    if config["class_name"] not in MODELS and not part.imported:
        raise UserError(f"the stored configuration describes a layer ({config['class_name']}), no model; {_AGAIN}")
    return part.config


def _check_depth(config: Any) -> None:
    level, depth = [config], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise UserError(f"the stored configuration is nested more than {DEEPEST} levels deep; {_AGAIN}")
        inner = (item for item in level if isinstance(item, (dict, list)))
        level = [v for item in inner for v in (item.values() if isinstance(item, dict) else item)]


def _object(entry: Any, source: _Source, where: str) -> _Part:
    """A layer, a model or an operation, without its calls."""
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
        raise refuse(where, "one of its layers is not described", _AGAIN)
    kind, inner = entry["class_name"], entry.get("config")
    if kind == "Sequential" and isinstance(inner, list):  # as Keras 2.0 wrote it
        inner = {"name": "sequential", "layers": inner}
    if not isinstance(inner, dict):
        raise refuse(where, f"the configuration of its {shortened(kind, 60)} is not described", _AGAIN)
    named = inner.get("name", entry.get("name"))
    if isinstance(named, str):
        where = f"{'Model' if kind in MODELS else 'Layer'} {shortened(repr(named))}"
    if source.may_import(entry.get("module")):
        return _imported(entry, inner, source, where)
    _check_own(entry, kind, where)
    operation = source.keras3 and kind in KERAS_OPERATIONS and "trainable" not in inner
    others = set(HIDDEN_LAYERS) if source.keras3 else TF_OPERATOR_LAYERS | set(HIDDEN_LAYERS)
    if not operation and kind not in MODELS | WRAPPERS | LAYERS | others:
        if source.imports and kind not in NOT_TAKEN | {"Lambda"} and "module" not in entry:  # as tf_keras writes it
            return _imported(entry, inner, source, where)
        raise _unknown_class(entry, kind, source, where)
    inner = {**inner, "name": values.name_of(named, where)}
    if kind in MODELS:
        return _model(kind, inner, source, where)
    if operation:
        marked = f"{OPERATION_PREFIX}{kind}"
        return _Part({"module": "keras.ops", "class_name": marked, "registered_name": marked,
                      "config": _settings(inner, source, where)})  # fmt: skip
    if kind in TF_OPERATOR_LAYERS:
        return _Part({"class_name": kind, "config": _tf_operator(inner, where)})
    if kind in WRAPPERS:
        held = {key: _object(inner.get(key), source, where) for key in _HELD if key == "layer" or inner.get(key)}
        settings = _settings({k: v for k, v in inner.items() if k not in held}, source, where)
        settings |= {key: part.config for key, part in held.items()}
        return _Part(
            _layer(entry, kind, settings, source),
            layers=sum(part.layers for part in held.values()),
            calls=sum(part.calls for part in held.values()),
        )
    return _Part(_layer(entry, kind, _settings(inner, source, where), source))


def _imported(entry: Mapping[str, Any], inner: Mapping[str, Any], source: _Source, where: str) -> _Part:
    """A layer or model of a module that the user trusts."""

    def layer(entry: Any, where: str) -> dict[str, Any]:
        return _object(entry, source, where).config

    kind = entry["class_name"]
    config = {key: values.plain(value, key, where, layer) for key, value in inner.items()}
    made = {key: entry[key] for key in ("module", "registered_name") if isinstance(entry.get(key), str)}
    made |= {"class_name": kind, "config": config}
    if isinstance(entry.get("build_config"), dict):
        made["build_config"] = values.plain(entry["build_config"], "build_config", where, layer)
    return _Part(made, imported=values.name_of(inner.get("name", entry.get("name", kind)), where))


def _check_own(entry: Mapping[str, Any], kind: str, where: str) -> None:
    """Raise UserError for a class that its file says is not of Keras."""
    module, registered = entry.get("module"), entry.get("registered_name")
    foreign = "module" in entry and not (isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras"))
    if foreign or (isinstance(registered, str) and ">" in registered):
        full = f"{module}.{kind}" if isinstance(module, str) else kind
        raise refuse(where, f"{shortened(full, 100)} is a custom class", import_of(module))


def _unknown_class(entry: Mapping[str, Any], kind: str, source: _Source, where: str) -> UserError:
    shown = shortened(kind, 60)
    if kind == "Lambda":
        return refuse(where, "it is a Lambda, which holds code", UNSAFE)
    if kind in NOT_TAKEN:
        return refuse(where, f"no rule is known for layer class {kind}", _REPLACE)
    unmarked = "module" not in entry and not {"trainable", "dtype"} & set(entry["config"])  # as in a .h5 file
    if source.keras3 and (unmarked or ".ops" in str(entry.get("module"))):
        return refuse(where, f"no rule is known for the operator {shown}", _REPLACE)
    return refuse(where, f"{shown} is a custom class", import_of(None))


def _layer(entry: Mapping[str, Any], kind: str, settings: dict[str, Any], source: _Source) -> dict[str, Any]:
    made: dict[str, Any] = {"class_name": kind, "config": settings}
    if source.keras3:
        made |= {"module": HIDDEN_LAYERS.get(kind, "keras.layers"), "registered_name": None}
    shared = entry.get("shared_object_id")
    if isinstance(shared, int):  # one layer that stands in several places
        made["shared_object_id"] = shared
    return made


def _settings(inner: Mapping[str, Any], source: _Source, where: str) -> dict[str, Any]:
    """The arguments of a layer's constructor."""
    made: dict[str, Any] = {"name": inner["name"]}
    for key, value in inner.items():
        values.key_of(key, where)
        if key == "name" or key in _NOT_NEEDED or key.endswith(_NOT_NEEDED_ENDS):
            continue
        if key == "dtype":
            made[key] = values.dtype_policy(value, where)
        elif key.endswith("activation"):
            made[key] = values.activation(value, where, lambda v, w: _plain_layer(v, source, w))
        else:
            made[key] = values.option(value, key, where)
    return made


def _plain_layer(entry: Any, source: _Source, where: str) -> dict[str, Any]:
    made = _object(entry, source, where).config
    if made["class_name"] not in LAYERS:
        raise refuse(where, f"its activation is a {made['class_name']}", "use one of Keras' own activations")
    return made


def _tf_operator(inner: Mapping[str, Any], where: str) -> dict[str, Any]:
    symbol = inner.get("function")
    if not isinstance(symbol, str) or not (symbol in TF_SYMBOLS or may_carry(symbol)):
        raise refuse(where, f"no rule is known for the operator tf.{shortened(str(symbol), 60)}", _REPLACE)
    rest = {key: value for key, value in inner.items() if key != "function"}
    return {**_settings(rest, _Source(False), where), "function": symbol}


def _model(kind: str, inner: Mapping[str, Any], source: _Source, where: str) -> _Part:
    entries = inner.get("layers")
    if not isinstance(entries, list) or not entries:
        subclassed = "its configuration lists no layers, as a subclassed model's"
        raise refuse(where, subclassed, "build it with the functional API: Model(inputs, outputs)")
    parts = [_object(entry, source, where) for entry in entries]
    names = [part.name for part in parts]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise refuse(where, f"two of its layers are called {twice[0]!r}", "rename one of them")
    made: dict[str, Any] = {"name": inner["name"]}
    if isinstance(inner.get("trainable"), bool) and kind != "Sequential":
        made["trainable"] = inner["trainable"]
    if kind == "Sequential":
        made["layers"] = [part.config for part in parts]
        shape = inner.get("build_input_shape")
        if shape is not None:
            made["build_input_shape"] = values.option(shape, "build_input_shape", where)
        calls = sum(part.calls for part in parts)
        first = int(entries[0].get("class_name") == "InputLayer")
    else:
        made["layers"], calls = _connected(entries, parts, source, where)
        made |= {key: values.endpoints(inner.get(key), where) for key in ("input_layers", "output_layers")}
        first = 1
    layers = 1 + sum(part.layers for part in parts)
    if layers > MOST_LAYERS or calls > MOST_CALLS:
        raise refuse(where, f"it has {layers} layers and makes {calls} calls of them", "use a smaller model")
    config: dict[str, Any] = {"class_name": "Sequential" if kind == "Sequential" else "Functional", "config": made}
    if source.keras3:
        module = "keras" if kind == "Sequential" else _FUNCTIONAL
        config |= {"module": module, "registered_name": None}
    return _Part(config, layers, calls, 0 if source.keras3 else first)


def _connected(
    entries: Sequence[Any], parts: Sequence[_Part], source: _Source, where: str
) -> tuple[list[dict[str, Any]], int]:
    """The layers of a functional model with their calls, and the number of calls that one call of it makes."""
    made, calls, needs = [], 0, {}
    for entry, part in zip(entries, parts, strict=True):
        name = part.name
        if entry.get("name", name) != name:
            raise refuse(where, f"its layer {name!r} has a second name", _AGAIN)
        nodes, needed = _calls(entry.get("inbound_nodes", []), source, f"Layer {name!r}")
        is_input = part.config["class_name"] == "InputLayer"
        if is_input and nodes:
            raise refuse(where, f"its input {name!r} has an input", _AGAIN)
        needs[name] = (part.first_call, [[]] if is_input else needed)
        calls += part.calls * len(nodes)
        made.append({**part.config, "name": name, "inbound_nodes": nodes})
    _check_order(needs, where)
    return made, calls


def _calls(nodes: Any, source: _Source, where: str) -> tuple[list[Any], list[values.References]]:
    """The calls of a layer, and the tensors that each of them needs."""
    if not isinstance(nodes, list):
        raise refuse(where, "its calls are not described", _AGAIN)
    made, needed = [], []
    for node in nodes:
        found: values.References = []
        if not source.keras3:
            made.append(values.tf_keras_node(node, where, found))
        elif isinstance(node, dict) and isinstance(node.get("args"), list) and isinstance(node.get("kwargs"), dict):
            args = [values.keras_argument(item, "argument", where, found) for item in node["args"]]
            given = {values.key_of(k, where): values.keras_argument(v, k, where, found)
                     for k, v in node["kwargs"].items()}  # fmt: skip
            made.append({"args": args, "kwargs": given})
        else:
            raise refuse(where, "its calls are not described", _AGAIN)
        if not found:  # it would be computed while the model is built
            raise refuse(where, "it is called on constants alone", "call it on a tensor of the model")
        needed.append(found)
    return made, needed


def _check_order(needs: Mapping[str, tuple[int, list[values.References]]], where: str) -> None:
    """Raise UserError unless every call comes to have all its tensors.

    Args:
      needs: for every layer the number of its first call, and what each call needs. The calls of a layer
        are made in this order.
    """
    made = dict.fromkeys(needs, 0)
    waiting: dict[tuple[str, int], list[str]] = collections.defaultdict(list)
    todo = list(needs)
    while todo:
        layer = todo.pop()
        first, calls = needs[layer]
        while made[layer] < len(calls):
            missing = next((r for r in calls[made[layer]] if not _is_made(r, needs, made)), None)
            if missing is not None:
                waiting[missing].append(layer)
                break
            made[layer] += 1
            todo += waiting.pop((layer, first + made[layer] - 1), [])
    stuck = next((name for name, (_, calls) in needs.items() if made[name] < len(calls)), None)
    if stuck is not None:
        raise refuse(where, f"its layer {stuck!r} waits for a tensor that no layer makes", _AGAIN)


def _is_made(
    wanted: tuple[str, int], needs: Mapping[str, tuple[int, list[values.References]]], made: Mapping[str, int]
) -> bool:
    name, number = wanted
    if name not in needs:
        return False
    first = needs[name][0]
    return first <= number < first + made[name]
