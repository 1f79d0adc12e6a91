"""A stored model as a live one: its library builds the rebuilt configuration, then the weights are filled in.

No library reads the file's own configuration, and none runs its graph: of a SavedModel too, structure comes
from the configuration and weights from the checkpoint, variable by variable. While a model is built, no
layer may make more weights than the file stores, so that a small file cannot ask for a large memory.

Only `trusted_model`, for files whose author the user trusts, hands a file itself to its library.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import json
import math
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import keras
import tensorflow as tf
import tf_keras
from keras.src.saving import serialization_lib

from tfq.errors import UserError
from tfq.models.calls import accepted_keys
from tfq.models.frontend import Frontend
from tfq.models.keras3 import Keras3Frontend, operation_class
from tfq.models.known_names import HIDDEN_LAYERS
from tfq.models.model_files import StoredModel
from tfq.models.rebuild import OPERATION_PREFIX
from tfq.models.refusals import no_import, refuse, short_cause
from tfq.models.tf_keras_models import TFKerasFrontend

LIBRARIES: Mapping[str, Any] = {"keras": keras, "tf_keras": tf_keras}
FRONTENDS: Mapping[str, type[Frontend]] = {"keras": Keras3Frontend, "tf_keras": TFKerasFrontend}
# Functions that old models use by name and that tf_keras finds only when told.
_FUNCTIONS = {"relu6": tf.nn.relu6, "leaky_relu": tf.nn.leaky_relu, "log_softmax": tf.nn.log_softmax}
# Weights that no file holds: the states of random generators. And a layer may be built a second time.
_OTHER_NUMBERS, _TIMES_BUILT = 1_000_000, 2


def revive(stored: StoredModel, imports: Sequence[str] = ()) -> Any:
    """The live model, of the library that wrote the file; classes of the modules `imports` may be among its layers.

    Raises:
      UserError: the model cannot be built, or the weights are not its own.
    """
    library = LIBRARIES[stored.library]
    numbers = _TIMES_BUILT * stored.numbers + _OTHER_NUMBERS
    with as_user_error(stored.path, f"the {stored.library} model does not load", _way_out(stored)):
        if library is keras and _is_newer(stored):  # tf_keras takes options that no signature lists
            stored = dataclasses.replace(stored, config=_without_unused(stored.config, _way_out(stored)))
        with _bounded_weights(library.layers.Layer, numbers):
            model = _built(stored, _classes(library, imports))
        FRONTENDS[stored.library].functional(model)  # before the weights: they need a shape
        if stored.format == "saved_model":
            _restore(model, stored.weights)
        else:
            _load_weights(model, stored)
    return model


def _is_newer(stored: StoredModel) -> bool:
    """Whether a newer version of its library wrote the file than the one installed."""
    return _version(stored.version) > _version(LIBRARIES[stored.library].__version__)


def _version(text: str) -> tuple[int, ...]:
    """(major, minor); they are numbers, as `tfq.models.model_files` checked."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def _way_out(stored: StoredModel) -> str:
    if not _is_newer(stored):
        return "save the model again"
    installed = LIBRARIES[stored.library].__version__
    return (
        f"the file was written by {stored.library} {stored.version}, which is newer than the installed {installed}:"
        f" upgrade {stored.library}, or save the model with the older one"
    )


def _without_unused(config: Any, way_out: str) -> Any:
    """The configuration without the options that the installed Keras does not have yet and that are not used.

    An option that is not used is None or False. Raises UserError, with `way_out`, for one that is.
    """
    if isinstance(config, list):
        return [_without_unused(item, way_out) for item in config]
    if not isinstance(config, dict):
        return config
    found = {key: _without_unused(value, way_out) for key, value in config.items()}
    made = getattr(keras.layers, str(found.get("class_name")), None)
    settings = found.get("config")
    if made is None or not isinstance(settings, dict):
        return found
    known = accepted_keys(made)
    unknown = {key: value for key, value in settings.items() if key not in known}
    used = [key for key, value in unknown.items() if value is not None and value is not False]
    if used:
        raise refuse(f"Layer {settings.get('name')!r}", f"its option {used[0]} is not known here", way_out)
    return {**found, "config": {key: value for key, value in settings.items() if key in known}}


def _classes(library: Any, imports: Sequence[str]) -> dict[str, type]:
    """Layers and models of these modules, by their names; they register theirs with Keras as they are imported."""
    found: dict[str, type] = {}
    for name in imports:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise no_import(name, short_cause(error)) from None
        found |= {k: v for k, v in vars(module).items() if isinstance(v, type) and issubclass(v, library.layers.Layer)}
    return found


def _built(stored: StoredModel, classes: Mapping[str, type]) -> Any:
    kind, config = stored.config["class_name"], stored.config["config"]
    library = LIBRARIES[stored.library]
    model_class = library.Sequential if kind == "Sequential" else library.Model
    if library is tf_keras:
        custom = {**_FUNCTIONS, **_hidden_layers(), **classes}
        return classes.get(kind, model_class).from_config(
            config, **({} if kind in classes else {"custom_objects": custom})
        )
    custom = {name: operation_class(name.removeprefix(OPERATION_PREFIX)) for name in _operations(config)}
    with (
        serialization_lib.SafeModeScope(True),
        serialization_lib.ObjectSharingScope(),
        keras.saving.custom_object_scope({**custom, **classes}),
    ):
        if kind not in ("Functional", "Sequential"):
            return serialization_lib.deserialize_keras_object(stored.config)
        return model_class.from_config(config)


def _hidden_layers() -> dict[str, type]:
    """Layers of models in keras.applications, which tf_keras does not find by itself."""
    return {
        name: getattr(importlib.import_module(f"tf_{module}"), name) for name, module in HIDDEN_LAYERS.items()
    }  # tf_keras has them in modules of the same names


def _operations(config: Mapping[str, Any]) -> set[str]:
    """Class names of the keras.ops operations in a rebuilt configuration."""
    found: set[str] = set()
    for layer in config.get("layers", ()):
        if layer["class_name"].startswith(OPERATION_PREFIX):
            found.add(layer["class_name"])
        elif "layers" in layer["config"]:
            found |= _operations(layer["config"])
    return found


@contextlib.contextmanager
def _bounded_weights(layer_class: Any, most: int) -> Iterator[None]:
    """Refuse the weight with which layers made inside have more than `most` numbers, before it is allocated."""
    original = layer_class.add_weight
    signature = inspect.signature(original)
    made = 0

    def add_weight(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal made
        shape = signature.bind(self, *args, **kwargs).arguments.get("shape")
        sizes = list(shape) if isinstance(shape, (list, tuple, tf.TensorShape)) else [shape or 1]
        made += math.prod(int(size or 1) for size in sizes)
        if made > most:
            raise refuse(
                f"Layer {self.name!r}",
                f"with its weight of shape {sizes} the model has more weights than the file stores",
                "save the model again with model.save()",
            )
        return original(self, *args, **kwargs)

    layer_class.add_weight = add_weight
    try:
        yield
    finally:
        layer_class.add_weight = original


def _load_weights(model: Any, stored: StoredModel) -> None:
    if stored.format == "keras":  # by its name the libraries know how it is laid out
        model.load_weights(stored.weights)
        return
    with _with_suffix(stored.weights, ".h5", ".hdf5") as named:
        model.load_weights(named)


def _restore(model: Any, prefix: pathlib.Path) -> None:
    """Fill the weights from the checkpoint of a SavedModel.

    Both are trees of named parts (layer 0, its kernel), and are matched by these names. Every weight must
    be found, with its shape.
    """
    status = tf.train.Checkpoint(model).read(str(prefix))
    status.assert_existing_objects_matched()
    status.expect_partial()
    for part in model.submodules:
        if isinstance(part, tf_keras.layers.Layer):
            part.finalize_state()  # a Normalization computes from its weights what it uses


@contextlib.contextmanager
def as_user_error(path: pathlib.Path, what: str, way_out: str) -> Iterator[None]:
    """Turn a library's exception into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        if cause is not None:  # Keras wraps what its layers raise
            raise UserError(str(cause)) from None
        raise UserError(f"{path}: {what} ({type(error).__name__}: {short_cause(error)}); {way_out}") from None


@contextlib.contextmanager
def _with_suffix(path: pathlib.Path, *suffixes: str) -> Iterator[pathlib.Path]:
    """The file under a name that ends as its loader demands, and does not promise weights alone."""
    if path.suffix in suffixes and not path.name.endswith(".weights.h5"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tfq-model-") as folder:
        yield pathlib.Path(shutil.copy(path, pathlib.Path(folder) / f"model{suffixes[0]}"))


# Files whose author is trusted ----------------------------------------------------------------------


def trusted_model(stored: StoredModel) -> Any:
    """The live model, read by its library, which runs whatever code the file holds."""
    library = LIBRARIES[stored.library]
    with as_user_error(stored.path, f"the {stored.library} model does not load", _way_out(stored)):
        if stored.format == "saved_model":
            return tf_keras.models.load_model(stored.path, compile=False, custom_objects=_FUNCTIONS)
        suffixes = (".keras",) if stored.format == "keras" else (".h5", ".hdf5")
        with _with_suffix(stored.path, *suffixes) as named:
            if stored.format == "h5" and library is keras:
                return _load_marked(named)
            custom = _FUNCTIONS if library is tf_keras else None
            return library.models.load_model(named, custom_objects=custom, compile=False, safe_mode=False)


def _load_marked(path: pathlib.Path) -> Any:
    """A Keras 3 `.h5`, its operations marked so that Keras finds them again."""
    with h5py.File(path, "r") as file:
        config = json.loads(file.attrs["model_config"])
    operations = _mark_operations(config)
    if not operations:
        return keras.models.load_model(path, compile=False, safe_mode=False)
    with tempfile.TemporaryDirectory(prefix="tfq-model-") as folder:
        marked = pathlib.Path(shutil.copy(path, pathlib.Path(folder) / "model.h5"))
        with h5py.File(marked, "a") as file:
            file.attrs["model_config"] = json.dumps(config)
        return keras.models.load_model(marked, custom_objects=operations, compile=False, safe_mode=False)


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
        operation = operation_class(str(layer.get("class_name")))
        if operation is not None and "trainable" not in layer["config"]:
            layer["class_name"] = f"{OPERATION_PREFIX}{layer['class_name']}"
            found[layer["class_name"]] = operation
    return found
