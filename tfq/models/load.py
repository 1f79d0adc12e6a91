"""Reads a Keras model, from a file of either framework or live, and flattens it into a `Graph`.

The file says which framework wrote it; that one reads it. Before anything is deserialised the stored
configuration is searched for code (Lambda layers, custom classes and functions, TensorFlow operators
without a rule), which runs only under `allow_unsafe_deserialization`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras.protobuf import saved_metadata_pb2

from tfq.errors import UserError
from tfq.models import keras3, tf_keras_models
from tfq.models.frontend import UNSAFE, Frontend, refuse, short_cause
from tfq.models.graph import Graph

_BATCH = 32
_MODELS = ("Functional", "Model", "Sequential")
_TF_OPERATORS = ("TFOpLambda", "SlicingOpLambda")
# Functions that old models use by name and that tf_keras finds only when told.
_FUNCTIONS = {"relu6": tf.nn.relu6, "leaky_relu": tf.nn.leaky_relu, "log_softmax": tf.nn.log_softmax}
_FORMATS = "give a .keras or .h5 file that Keras saved, or a SavedModel directory of tf_keras"


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model as the user made it, and as a flat graph.

    Attributes:
      graph: flat and not yet prepared; node kinds are classes of tf_keras.layers or tfq.models.layers.
      predict: the original model on arrays by input name (`graph.inputs`), [n, ...] each; its outputs
        in order. The reference for every equality check.
      framework: "keras 3.x" or "tf_keras x", with the version that wrote the file.
      name: the model's own name.
      compute_dtype: "float32", or the "float16" or "bfloat16" in which `predict` computes some layers.
        The graph is float32 all the same, and `predict` is then only as exact as that type.
    """

    graph: Graph
    predict: Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, ...]]
    framework: str
    name: str
    compute_dtype: str = "float32"


def load_model(
    source: pathlib.Path | keras.Model | tf_keras.Model, *, allow_unsafe_deserialization: bool = False
) -> LoadedModel:
    """The model and its flat graph.

    Args:
      source: path of a Keras 3 `.keras` or `.h5`, a tf_keras `.h5`, `.keras` or SavedModel directory; or a
        live model of either.
      allow_unsafe_deserialization: Lambda layers and custom classes may run; they are traced into nodes.

    Raises:
      UserError: the file cannot be read or is no Keras model, or the model holds something that has no
        place in a graph; the message names it and says what to do.
    """
    if isinstance(source, keras.Model):
        model, framework = source, f"keras {keras.__version__}"
    elif isinstance(source, tf_keras.Model):
        model, framework = source, f"tf_keras {tf_keras.__version__}"
    elif isinstance(source, (str, pathlib.Path)):
        model, framework = _read(pathlib.Path(source), unsafe=allow_unsafe_deserialization)
    else:
        raise UserError(f"got a {type(source).__name__} for a model; {_FORMATS}, or a keras.Model or tf_keras.Model")
    return _flatten(model, framework, unsafe=allow_unsafe_deserialization)


def _flatten(model: Any, framework: str, *, unsafe: bool) -> LoadedModel:
    is_keras3 = isinstance(model, keras.Model)
    module: Any = keras3 if is_keras3 else tf_keras_models
    inner = module.functional(model)
    frontend: Frontend = (keras3.Keras3Frontend if is_keras3 else tf_keras_models.TFKerasFrontend)(inner, unsafe=unsafe)
    graph = frontend.graph()
    run = module.make_predict(inner, graph.inputs)
    batch = inner.inputs[0].shape[0]
    dtype = sorted(frontend.rounded)[0] if frontend.rounded else "float32"
    return LoadedModel(graph, _batched(run, graph, batch), framework, model.name, dtype)


def _batched(
    run: Callable[[Mapping[str, np.ndarray]], list[np.ndarray]], graph: Graph, fixed: int | None
) -> Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, ...]]:
    """`run` over any number of samples; a model of `fixed` batch size gets its last batch filled up."""

    def predict(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        if set(arrays) != set(graph.inputs):
            raise UserError(f"the model's inputs are {list(graph.inputs)}, got arrays for {sorted(arrays)}")
        given = {n: np.asarray(arrays[n], graph[n].config["dtype"]) for n in graph.inputs}
        counts = {len(value) for value in given.values()}
        if len(counts) != 1 or 0 in counts:
            raise UserError(f"every input needs the same number of samples, at least 1; got {sorted(counts)}")
        count, size = counts.pop(), fixed or _BATCH
        parts = []
        for start in range(0, count, size):
            rows = np.arange(start, start + size if fixed else min(start + size, count)) % count
            parts.append([y[: count - start] for y in run({n: value[rows] for n, value in given.items()})])
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    return predict


def _read(path: pathlib.Path, *, unsafe: bool) -> tuple[Any, str]:
    """The live model of a file, and what wrote it."""
    if not path.exists():
        raise UserError(f"{path}: no such file; {_FORMATS}")
    try:
        with open(path if path.is_file() else path / "saved_model.pb", "rb") as file:
            start = file.read(8)
    except FileNotFoundError:
        raise UserError(f"{path}: a directory without saved_model.pb; {_FORMATS}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_FORMATS}") from None
    if path.is_dir():
        return _read_saved_model(path, unsafe=unsafe)
    if zipfile.is_zipfile(path):
        return _read_keras(path, unsafe=unsafe)
    if h5py.is_hdf5(path):
        return _read_h5(path, unsafe=unsafe)
    if start[:2] == b"PK":
        raise UserError(f"{path}: the file is truncated or damaged (a .keras file without its end); copy it again")
    if not start:
        raise UserError(f"{path}: the file is empty; {_FORMATS}")
    raise UserError(f"{path}: neither HDF5 nor a .keras file, whatever its name says; {_FORMATS}")


@contextlib.contextmanager
def _as_user_error(path: pathlib.Path, what: str) -> Iterator[None]:
    """Turn a library's exception into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{path}: {what} ({type(error).__name__}: {short_cause(error)}); save the model again"
        ) from None


@contextlib.contextmanager
def _with_suffix(path: pathlib.Path, *suffixes: str) -> Iterator[pathlib.Path]:
    """The file under a name that ends as its loader demands."""
    if path.suffix in suffixes:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(shutil.copy(path, pathlib.Path(folder) / f"model{suffixes[0]}"))


def _read_keras(path: pathlib.Path, *, unsafe: bool) -> tuple[Any, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            missing = {"config.json", "metadata.json"} - set(archive.namelist())
            if missing:
                raise UserError(
                    f"{path}: a zip file, but no .keras model: it holds no {sorted(missing)[0]}; {_FORMATS}"
                )
            damaged = archive.testzip()
            config = {} if damaged else json.loads(archive.read("config.json"))
            version = "" if damaged else json.loads(archive.read("metadata.json"))["keras_version"]
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path}: the .keras file is damaged ({short_cause(error)}); copy or save it again") from None
    if damaged:
        raise UserError(f"{path}: the .keras file is damaged ({damaged} fails its checksum); copy or save it again")
    with _as_user_error(path, "the .keras file holds no readable configuration"):
        library, framework = _library(version)
        if not unsafe:
            _check_safe(config)
    with _as_user_error(path, f"{framework} model does not load"), _with_suffix(path, ".keras") as named:
        return _load(library, named, unsafe=unsafe), framework


def _read_h5(path: pathlib.Path, *, unsafe: bool) -> tuple[Any, str]:
    try:
        with h5py.File(path, "r") as file:
            config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "2")
    except OSError as error:
        raise UserError(f"{path}: the .h5 file is truncated or damaged ({short_cause(error)}); copy it again") from None
    if config is None:
        raise UserError(
            f"{path}: an HDF5 file without a model configuration (weights only, or no Keras file);"
            " save the whole model with model.save()"
        )
    with _as_user_error(path, "the .h5 file holds no readable configuration"):
        parsed = json.loads(config if isinstance(config, str) else bytes(config).decode())
        library, framework = _library(version if isinstance(version, str) else bytes(version).decode())
    if not unsafe:
        _check_safe(parsed)
    operations = _mark_operations(parsed) if library is keras else {}
    with _as_user_error(path, f"{framework} model does not load"), _with_suffix(path, ".h5", ".hdf5") as named:
        if not operations:
            return _load(library, named, unsafe=unsafe), framework
        with tempfile.TemporaryDirectory() as folder:
            marked = pathlib.Path(shutil.copy(named, pathlib.Path(folder) / "model.h5"))
            with h5py.File(marked, "a") as file:
                file.attrs["model_config"] = json.dumps(parsed)
            return _load(library, marked, unsafe=unsafe, custom=operations), framework


def _mark_operations(config: Any) -> dict[str, type]:
    """Give every keras.ops operation in a Keras 3 `.h5` configuration a class name that is found again.

    Keras writes such files but cannot read them: it looks "GetItem" up among the layers, and finds the
    layer "Multiply" where the operation of that name was meant. An operation has no "trainable".
    """
    found: dict[str, type] = {}
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        return found
    for layer in config["config"].get("layers", ()):
        found |= _mark_operations(layer)
        operation = keras3.operation_class(str(layer.get("class_name")))
        if operation is not None and "trainable" not in layer["config"]:
            layer["class_name"] = f"ops.{layer['class_name']}"
            found[layer["class_name"]] = operation
    return found


def _read_saved_model(path: pathlib.Path, *, unsafe: bool) -> tuple[Any, str]:
    metadata = path / "keras_metadata.pb"
    if not metadata.is_file():
        raise UserError(
            f"{path}: a SavedModel without Keras layers (Keras 3's export() and tf.saved_model.save() write such);"
            " give the .keras or .h5 file of the model"
        )
    with _as_user_error(path, "keras_metadata.pb does not parse"):
        saved = saved_metadata_pb2.SavedMetadata()
        saved.ParseFromString(metadata.read_bytes())
        layers = [json.loads(node.metadata) for node in saved.nodes if node.identifier != "_tf_keras_metric"]
    if not layers:
        raise UserError(f"{path}: its keras_metadata.pb lists no layers; give the .keras or .h5 file of the model")
    framework = f"tf_keras {tf_keras.__version__}"
    if not unsafe:
        for layer in layers:
            _check_safe(
                {"class_name": layer.get("class_name"), "config": layer.get("config"), "name": layer.get("name")}
            )
    with _as_user_error(path, "the SavedModel does not load"):
        return tf_keras.models.load_model(path, compile=False, custom_objects=_FUNCTIONS), framework


def _library(version: str) -> tuple[Any, str]:
    return (keras, f"keras {version}") if int(version.split(".")[0]) >= 3 else (tf_keras, f"tf_keras {version}")


def _load(library: Any, path: pathlib.Path, *, unsafe: bool, custom: Mapping[str, Any] | None = None) -> Any:
    custom = _FUNCTIONS if library is tf_keras else custom
    return library.models.load_model(path, custom_objects=custom, compile=False, safe_mode=not unsafe)


def _check_safe(config: Any, where: str = "the model") -> None:
    """Raise UserError at the first piece of a stored configuration that would run code from outside Keras."""
    if isinstance(config, list):
        for item in config:
            _check_safe(item, where)
    if not isinstance(config, dict):
        return
    kind, inner = config.get("class_name"), config.get("config")
    if isinstance(kind, str):
        named = inner.get("name") if isinstance(inner, dict) else None
        where = f"Layer {named or config.get('name')!r}" if named or config.get("name") else where
        _check_object(config, kind, inner, where)
    for key, value in config.items():
        if key == "layers" and isinstance(value, list):
            for layer in value:
                _check_layer_class(layer)
        # how Keras writes a function's bytecode; a Constant initialiser's config looks the same but holds numbers
        if (
            isinstance(value, dict)
            and list(value) == ["value"]
            and any(isinstance(v, str) for v in _items(value["value"]))
        ):
            raise refuse(where, f"its {key} is a Python lambda, which is code", "use one of Keras' own activations")
        if key not in ("compile_config", "build_config"):
            _check_safe(value, where)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check_object(config: Mapping[str, Any], kind: str, inner: Any, where: str) -> None:
    module = config.get("module")
    if kind == "Lambda":
        raise refuse(where, "it is a Lambda, which holds code", UNSAFE)
    if kind == "__lambda__" or (isinstance(inner, dict) and inner.get("function_type") == "lambda"):
        raise refuse(where, "it holds a Python lambda, which is code", UNSAFE)
    if kind == "function" and isinstance(inner, str) and not _known_function(inner):
        raise refuse(where, f"it uses the custom function {inner!r}", UNSAFE)
    if isinstance(module, str) and module.split(".")[0] not in ("keras", "tf_keras", "builtins"):
        raise refuse(where, f"{module}.{kind} is a custom class", UNSAFE)
    if ">" in str(config.get("registered_name") or ""):
        raise refuse(where, f"{config['registered_name']} is a custom class", UNSAFE)
    if kind in _TF_OPERATORS and isinstance(inner, dict):
        symbol = str(inner.get("function"))
        if symbol not in tf_keras_models.OPERATORS and symbol not in tf_keras_models.SHAPES:
            raise refuse(where, f"no rule is known for the operator tf.{symbol}", "replace it by standard layers")


def _check_layer_class(layer: Any) -> None:
    """A layer of an .h5 file, which names no module: its class must be Keras' own."""
    if not isinstance(layer, dict) or layer.get("module") or not isinstance(layer.get("class_name"), str):
        return
    kind = layer["class_name"].split(">")[-1]
    known = kind in (*_MODELS, *_TF_OPERATORS) or any(hasattr(k.layers, kind) for k in (keras, tf_keras))
    if not known and keras3.operation_class(kind) is None:
        name = (layer.get("config") or {}).get("name") or layer.get("name")
        raise refuse(f"Layer {name!r}", f"{kind} is a custom class", UNSAFE)


def _known_function(name: str) -> bool:
    return name in _FUNCTIONS or hasattr(keras.activations, name) or hasattr(tf_keras.activations, name)
