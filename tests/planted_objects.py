"""Stored configurations of models with something planted in them that must never come to life, and who looks for it.

Nothing here is shared with `tfq.models.rebuild` but the lists of names: what `audit` accepts is written down anew.
"""

from __future__ import annotations

import base64
import copy
import json
import marshal
import pathlib
import zipfile

import h5py

from tfq.models import known_names as known

MODULES = {"keras.layers", "keras", "keras.ops", "keras.src.models.functional", "keras.src.applications.convnext"}
MARKERS = {"__keras_tensor__", "__slice__", "__ellipsis__", "__numpy__", "__tensor__"}
CLASSES = known.LAYERS | known.MODELS | known.WRAPPERS | known.TF_OPERATOR_LAYERS | set(known.HIDDEN_LAYERS) | MARKERS
CLASSES |= {f"ops.{name}" for name in known.KERAS_OPERATIONS}
WORDS = known.WORDS | known.POLICIES | known.ACTIVATIONS | {"_CONSTANT_VALUE"}
NEW_KEYS = ("activation", "build_config", "compile_config", "config", "dtype", "function", "input_dim", "layer", "name")
NEW_KEYS += ("kernel_initializer", "layers", "module", "quantization_config", "registered_name", "value", "vocabulary")
NEW_KEYS += ("kernel_constraint", "activity_regularizer", "inbound_nodes", "kwargs", "slice_spec", "call", "path")


def base_models(library):
    """Small models that between them use every kind of object in a configuration."""
    layers = library.layers
    x = library.Input((8, 8, 3), name="image")
    y = layers.Conv2D(4, 3, activation=layers.LeakyReLU(0.2), kernel_regularizer="l2", bias_constraint="max_norm")(x)
    y = layers.BatchNormalization(dtype="mixed_float16" if library.__name__ == "keras" else None)(y)
    y = (y[:, 1:5, ..., 1:] if library.__name__ == "keras" else y[:, 1:5, :, 1:]) * 2 + 1
    i = library.Input((4, 6, 3))
    inner = library.Model(i, layers.Flatten()(layers.Conv2D(3, 1, activation="relu")(i)), name="inner")
    y = layers.Dense(4)(inner(y))
    yield library.Model(x, y)
    a, b = library.Input((6, 8), name="a"), library.Input((6, 8), name="b")
    shared = layers.TimeDistributed(layers.Dense(8, activation="gelu"))
    joined = layers.Add()([shared(a), shared(b)])
    attended = layers.MultiHeadAttention(2, 4)(joined, a)
    yield library.Model({"a": a, "b": b}, {"score": layers.Dense(1)(attended), "features": attended - a})
    yield library.Sequential(
        [
            library.Input((12, 6)),
            layers.Normalization(mean=[0.0] * 6, variance=[1.0] * 6),
            layers.Dropout(0.1, seed=3),
            layers.Dense(4, activation="softmax"),
        ]
    )


def stored_configs(library, folder: pathlib.Path):
    """The configurations as the library writes them: (format, configuration) of .keras and of .h5."""
    for number, model in enumerate(base_models(library)):
        for suffix in (".keras", ".h5"):
            path = folder / f"{library.__name__}_{number}{suffix}"
            model.save(path)
            yield path, read_config(path)


def read_config(path: pathlib.Path):
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path) as file:
        return json.loads(file.attrs["model_config"])


def write_config(source: pathlib.Path, target: pathlib.Path, config) -> None:
    """A copy of a model file with another configuration."""
    if source.suffix == ".keras":
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
            for name in old.namelist():
                new.writestr(name, json.dumps(config) if name == "config.json" else old.read(name))
        return
    target.write_bytes(source.read_bytes())
    with h5py.File(target, "a") as file:
        file.attrs["model_config"] = json.dumps(config)


def canaries(touched: pathlib.Path, words: pathlib.Path):
    """Objects that run code, open a file or import a module when a library makes them: `touched` appears then."""
    code = f"__import__('pathlib').Path({str(touched)!r}).touch()"
    function = eval(f"lambda *args, **kwargs: ({code}, args[0] if args else 0)[1]")
    packed = base64.b64encode(marshal.dumps(function.__code__)).decode()
    named = {"class_name": "function", "config": "system", "module": "os", "registered_name": "system"}
    bytecode = {"class_name": "__lambda__", "config": {"value": [packed, None, None]}}
    common = {"name": "canary", "trainable": True, "dtype": "float32"}

    def layer(kind, module="keras.layers", registered=None, **settings):
        return {"module": module, "class_name": kind, "config": {**common, **settings}, "registered_name": registered,
                "build_config": {"input_shape": [None, 4]}, "name": "canary", "inbound_nodes": []}  # fmt: skip

    yield from (named, bytecode, {"value": [packed, None, None]})
    yield layer("Lambda", function=bytecode, function_type="lambda", arguments={}, output_shape=None)
    yield layer("Lambda", function=[packed, None, None], function_type="lambda", module="builtins", arguments={})
    yield layer("Lambda", function=named, function_type="function", arguments={"command": f"touch {touched}"})
    yield layer("StringLookup", vocabulary=str(words), invert=False)
    yield layer("TextVectorization", vocabulary=str(words))
    yield layer("TFSMLayer", filepath=str(words))
    yield layer("Dense", module="canary_module.layers", units=4)
    yield layer("Popen", module="subprocess", args=f"touch {touched}", shell=True)
    yield layer("Mine", module=None, registered="Custom>Mine")
    yield layer("TFOpLambda", module="tf_keras.src.layers.core.tf_op_layer", function="io.write_file")
    yield layer("Dense", units={"class_name": "TFOpLambda", "config": {"function": "io.read_file", "name": "r"}})
    yield layer("Functional", layers=[layer("Lambda", function=bytecode, arguments={})], input_layers=[],
                output_layers=[])  # fmt: skip
    yield {"class_name": "Custom>Mine", "config": {"name": "canary"}, "__passive_serialization__": True}
    yield {"class_name": "__typespec__", "spec_name": "system", "module": "os", "registered_name": None, "config": []}
    yield {"class_name": "__tensor__", "config": {"value": named, "dtype": "float32"}}
    yield ["_CONSTANT_VALUE", -1, f"touch {touched}", {"function": named}]
    yield ["_CONSTANT_VALUE", -1, ["_COMPOSITE_TYPE", json.dumps(named)], {}]
    yield from ("os.system", "keras.src.utils.file_utils.copy", "Custom>Mine", str(words), "canary_module")


def places(config, path=()):
    """The path of every value in a configuration, of dictionaries and lists too."""
    yield path
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def planted(config, path, canary, how: int):
    """A copy of `config` with the canary at `path`: in its stead, beside it or merged into it."""
    made = copy.deepcopy(config)
    canary = copy.deepcopy(canary)
    holder, here = None, made
    for key in path:
        holder, here = here, here[key]
    if isinstance(here, dict) and how % 4 == 1:
        here[NEW_KEYS[how // 4 % len(NEW_KEYS)]] = canary
    elif isinstance(here, dict) and isinstance(canary, dict) and how % 4 == 2:
        here.update({k: v for k, v in canary.items() if (how >> 2) % 2 or k not in ("name", "inbound_nodes")})
    elif isinstance(here, list) and how % 4 == 1:
        here.insert(how // 4 % (len(here) + 1), canary)
    elif holder is not None:
        holder[path[-1]] = canary
    else:
        made = canary
    return made


def audit(value, path=()) -> list[str]:
    """What in a rebuilt configuration is none of the things that it may hold."""
    found: list[str] = []
    if isinstance(value, dict):
        allowed = {"class_name": CLASSES, "module": MODULES, "function": known.TF_SYMBOLS}
        allowed["registered_name"] = {None, str(value.get("class_name"))}
        for key, known_values in allowed.items():
            if key in value and not (value[key] is None or isinstance(value[key], str)):
                found.append(f"{path}: {key} is {value[key]!r}")
            elif key in value and value[key] not in known_values:
                found.append(f"{path}: {key} {value[key]}")
        if not isinstance(value.get("name"), (str, type(None))):
            found.append(f"{path}: name is {value['name']!r}")
        for key, item in value.items():
            if key not in (*allowed, "name"):
                found += audit(item, (*path, key))
    elif isinstance(value, list):
        is_reference = len(value) in (3, 4) and isinstance(value[0], str) and isinstance(value[1], int)
        for number, item in enumerate(value):
            if not (is_reference and number == 0):
                found += audit(item, (*path, number))
    elif isinstance(value, str):
        if value not in WORDS and path[-1] not in ("equation", "bias_axes"):
            found.append(f"{path}: text {value!r}")
    elif value is not Ellipsis and not isinstance(value, (int, float, type(None))):
        found.append(f"{path}: {type(value).__name__}")
    return found
