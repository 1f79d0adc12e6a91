"""Files of both frameworks, and everything that must be refused: by name, in one line, with the way out."""

from __future__ import annotations

import importlib
import json
import os
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.applications.convnext import LayerScale

from tfq.errors import UserError
from tfq.models.load import load_model

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
both = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)
UNSAFE = "`allow_unsafe_deserialization=True`"


def refused(source, pattern: str, **options) -> str:
    """`source` is refused with one short line that matches `pattern` and names a way out."""
    with pytest.raises(UserError, match=pattern) as caught:
        load_model(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    assert ";" in message, "no way out is named"
    return message


def small(library, *extra):
    x = library.Input((8, 8, 3), name="image")
    y = library.layers.Conv2D(4, 3, name="conv")(x)
    y = library.layers.BatchNormalization(name="norm")(y)
    for layer in extra:
        y = layer(y)
    return library.Model(x, y, name="small")


# Files ---------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_gives_what_the_live_model_gives(library, suffix, tmp_path, check_equal, randomise):
    model = randomise(small(library))
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = check_equal(path)
    assert loaded.framework == f"{library.__name__} {library.__version__}"
    assert loaded.name == "small"
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(loaded.predict({"image": x})[0], load_model(model).predict({"image": x})[0])
    assert os.listdir(tmp_path) == [path.name]


def test_a_saved_model_of_tf_keras(tmp_path, check_equal, randomise):
    model = randomise(small(tf_keras, tf_keras.layers.ReLU(6.0)))
    model.compile("adam", "mse")
    model.save(tmp_path / "saved", save_format="tf")
    assert [n.kind for n in check_equal(tmp_path / "saved").graph.nodes][1:] == ["Conv2D", "BatchNormalization", "ReLU"]


@both
def test_an_operator_model_survives_its_file(library, tmp_path, check_equal, randomise):
    x = library.Input((8, 8, 3))
    y = library.layers.Conv2D(6, 3)(x)[:, 1:3, :, 2:] * 2 + 1
    y = library.layers.Add()([library.layers.Multiply()([y, y]), y])  # layers that share their names with operations
    for suffix in (".keras", ".h5"):
        randomise(library.Model(x, y)).save(tmp_path / f"model{suffix}")
        check_equal(tmp_path / f"model{suffix}", built=False)


@both
def test_the_content_decides_not_the_name(library, tmp_path):
    small(library).save(tmp_path / "model.h5")
    os.rename(tmp_path / "model.h5", tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").name == "small"
    small(library).save(tmp_path / "other.keras")
    os.rename(tmp_path / "other.keras", tmp_path / "other.weights")
    assert load_model(tmp_path / "other.weights").name == "small"


@both
@pytest.mark.parametrize("name", ["model.weights.h5", "mine.weights.h5"])
def test_a_whole_model_may_have_a_name_that_says_weights(library, name, tmp_path, check_equal, randomise):
    """Keras takes such a name for weights alone, which lie otherwise in their file."""
    randomise(small(library)).save(tmp_path / "model.h5")
    os.rename(tmp_path / "model.h5", tmp_path / name)
    check_equal(tmp_path / name)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_a_layer_of_convnext_in_a_file_of_tf_keras(suffix, tmp_path, check_equal, randomise):
    """tf_keras itself reads back none but the SavedModel."""
    model = randomise(small(tf_keras, LayerScale(0.5, 4)))
    model.save(tmp_path / f"model{suffix}", save_format=None if suffix else "tf")
    check_equal(tmp_path / f"model{suffix}")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_may_name_operations_without_a_rule(suffix, tmp_path, check_equal):
    x = keras.Input((8,))
    keras.Model(x, keras.ops.where(x > 0, x, 2 * x)).save(tmp_path / f"model{suffix}")
    assert check_equal(tmp_path / f"model{suffix}").graph.nodes[-1].kind == "Carried"


def test_an_operation_in_an_h5_that_takes_functions_is_no_custom_class(tmp_path):
    """No flag would help: it is not carried."""
    x = keras.Input((8,))
    keras.Model(x, keras.ops.where(x > 0, x, 2 * x)).save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"Where"', '"Switch"')
    assert UNSAFE not in refused(tmp_path / "model.h5", "no rule is known for the operator Switch")


def test_an_old_h5_with_groups_in_a_depthwise_layer_is_read_by_tf_keras(tmp_path, check_equal):
    """Keras 3 refuses `groups`; the file says by its version who wrote it."""
    x = tf_keras.Input((8, 8, 4))
    model = tf_keras.Model(x, tf_keras.layers.DepthwiseConv2D(3)(x))
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["groups"] = 1
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.4.0"
    with pytest.raises(Exception, match="groups"):
        keras.models.load_model(tmp_path / "model.h5", compile=False)
    assert check_equal(tmp_path / "model.h5").framework == "tf_keras 2.4.0"


def test_an_old_h5_that_names_relu6_as_a_function(tmp_path, check_equal, randomise):
    x = tf_keras.Input((8, 8, 4))
    model = tf_keras.Model(x, tf_keras.layers.Activation(tf.nn.relu6)(tf_keras.layers.Conv2D(3, 3)(x)))
    randomise(model).save(tmp_path / "model.h5")
    assert check_equal(tmp_path / "model.h5").graph.nodes[-1].config["max_value"] == 6.0


# Damaged and foreign files -------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    refused(tmp_path / "no.h5", "no such file")


@both
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.97])
def test_a_truncated_file(library, suffix, part, tmp_path):
    path = tmp_path / f"model{suffix}"
    small(library).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    refused(path, f"{path.name}: .*(truncated|damaged)")


def test_a_keras_file_with_a_flipped_byte(tmp_path):
    path = tmp_path / "model.keras"
    small(keras).save(path)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("model.weights.h5")
        at = info.header_offset + 200 + info.compress_size // 2
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(path, "damaged")


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_text_renamed_to_a_model(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_text("no model at all\n" * 50)
    refused(path, r"neither HDF5 nor a \.keras file")


def test_an_empty_file_and_an_empty_folder(tmp_path):
    (tmp_path / "model.h5").touch()
    refused(tmp_path / "model.h5", "empty")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", r"without saved_model\.pb")


def test_a_zip_that_is_no_model(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "model.keras", r"zip file, but no \.keras model")


def test_weights_without_a_model(tmp_path):
    small(tf_keras).save_weights(tmp_path / "model.h5")
    refused(tmp_path / "model.h5", r"weights only.*model\.save")


def test_a_saved_model_without_keras_layers(tmp_path, check_equal):
    small(keras).export(tmp_path / "exported", verbose=False)
    refused(tmp_path / "exported", r"without Keras layers.*export\(\).*\.keras or \.h5")
    check_equal(tmp_path / "exported", allow_unsafe_deserialization=True)
    (tmp_path / "exported" / "saved_model.pb").write_bytes(b"no graph")
    refused(tmp_path / "exported", "TFLiteConverter cannot convert it", allow_unsafe_deserialization=True)


def test_something_that_is_no_model():
    refused(3, "got a int")


# Code in files -------------------------------------------------------------------------------------

RAN = "TFQ_TEST_LAMBDA_RAN"


def lambda_layer(library):
    return library.layers.Lambda(
        lambda x: (__import__("os").environ.__setitem__("TFQ_TEST_LAMBDA_RAN", "1"), x * 2)[1],
        output_shape=(6, 6, 4), name="secret",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("library", "suffix"), [(keras, ".keras"), (keras, ".h5"), (tf_keras, ".keras"), (tf_keras, ".h5"), (tf_keras, "")]
)
def test_a_lambda_in_a_file_never_runs_unless_allowed(library, suffix, tmp_path, monkeypatch, check_equal, randomise):
    path = tmp_path / f"model{suffix}"
    randomise(small(library, lambda_layer(library))).save(path)
    monkeypatch.delenv(RAN, raising=False)
    refused(path, f"Layer 'secret' .*Lambda.*{UNSAFE}")
    assert RAN not in os.environ
    check_equal(path, allow_unsafe_deserialization=True)
    assert os.environ.pop(RAN) == "1"


@both
def test_a_lambda_inside_a_nested_model_is_found(library, tmp_path, monkeypatch):
    x = library.Input((8, 8, 3))
    library.Model(x, small(library, lambda_layer(library))(x)).save(tmp_path / "model.h5")
    monkeypatch.delenv(RAN, raising=False)
    refused(tmp_path / "model.h5", "Layer 'secret'")
    assert RAN not in os.environ


@both
def test_a_python_lambda_as_activation_is_code(library, tmp_path):
    model = small(library, library.layers.Activation(lambda x: x * 2, name="odd"))
    load_model(model)  # it is part of the user's program
    model.save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", "Layer 'odd' .*activation is a Python lambda")


@both
def test_a_custom_layer_is_refused_or_traced(library, tmp_path, check_equal, randomise):
    class Twice(library.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = library.layers.Conv2D(4, 1, name="inside")

        def call(self, x):
            return library.activations.relu(self.inner(x)) * 2

    model = small(library, Twice(name="twice"))
    model.save(tmp_path / "model.h5")
    refused(tmp_path / "model.h5", f"Layer 'twice' .*Twice is a custom class.*{UNSAFE}")
    loaded = check_equal(randomise(model))
    assert [n.kind for n in loaded.graph.nodes][3:] == ["Conv2D", "ReLU", "Affine"]


def test_an_operator_that_touches_files_is_refused_before_loading(tmp_path):
    model = small(tf_keras)
    tf_keras.Model(model.input, tf.math.cumsum(model.output)).save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace("math.cumsum", "io.write_file")
    refused(tmp_path / "model.h5", r"operator tf\.io\.write_file")


# Models that have no place in a graph --------------------------------------------------------------


@both
def test_a_subclassed_model(library, tmp_path, check_equal):
    class Mine(library.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.dense = library.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Mine()
    refused(model, "Model 'mine' .*subclassed model.*never called")
    model(np.zeros((1, 3), "float32"))
    assert [n.kind for n in check_equal(model).graph.nodes] == ["Input", "Dense"]
    if library is tf_keras:
        model.save(tmp_path / "saved", save_format="tf")
        refused(tmp_path / "saved", "Mine.*custom class|subclassed model")
    else:
        model.save(tmp_path / "model.keras")
        refused(tmp_path / "model.keras", "Mine.*custom class|subclassed model")


@both
def test_a_sequential_without_input_shape(library):
    refused(library.Sequential([library.layers.Dense(2)], name="open"), "Model 'open' .*add an Input layer first")


@both
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "Bidirectional"])
def test_a_recurrent_layer_is_carried(library, kind, tmp_path, check_equal):
    x = library.Input((5, 3))
    layer = library.layers.Bidirectional(library.layers.LSTM(2), name="memory") if kind == "Bidirectional" else (
        getattr(library.layers, kind)(2, name="memory"))  # fmt: skip
    library.Model(x, layer(x)).save(tmp_path / "model.keras")
    assert check_equal(tmp_path / "model.keras").graph["memory"].kind == "Carried"


@both
def test_a_layer_without_a_rule_is_carried(library, check_equal):
    x = library.Input((4, 4, 4, 1))
    loaded = check_equal(library.Model(x, library.layers.Conv3D(2, 3, name="volume")(x)))
    assert loaded.graph["volume"].kind == "Carried"


@both
def test_an_unknown_dimension(library):
    x = library.Input((None, None, 3), name="image")
    model = library.Model(x, library.layers.Conv2D(2, 3)(x))
    refused(model, r"Input 'image' .*shape is \(\?, \?, 3\).*input_shape='image:224,224,3'")


@both
def test_channels_first(library):
    x = library.Input((3, 8, 8))
    layer = library.layers.ZeroPadding2D(1, data_format="channels_first", name="around")
    refused(library.Model(x, layer(x)), "Layer 'around' .*channels_first.*channels_last")


@both
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(library, value):
    model = small(library)
    weights = model.get_layer("norm").get_weights()
    weights[3][1] = value
    model.get_layer("norm").set_weights(weights)
    refused(model, "Layer 'norm' has 1 NaN or infinite values of 4 in its moving_variance")


@pytest.mark.parametrize(
    ("name", "words"),
    [("net.onnx", "onnx2tf -i"), ("net.PTH", "litert_torch"), ("net.pb", "SavedModel"), ("net.json", r"model\.save"),
     ("net.safetensors", "without a network"), ("net.mlmodel", "Core ML")],
)  # fmt: skip
def test_files_of_others_are_told_the_road(tmp_path, name, words):
    path = tmp_path / name
    path.write_bytes(b"\x08\x07\x12\x04anything")
    refused(path, words)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", "")
    refused(path, words)


@both
def test_masks_reach_the_layers_that_read_them(library, check_equal):
    ids = library.Input((5,), dtype="int32")
    words = library.layers.Embedding(9, 4, mask_zero=True)(ids)
    check_equal(library.Model(ids, library.layers.GlobalAveragePooling1D()(library.layers.Dropout(0.1)(words))))
    x = library.Input((5, 3))
    check_equal(library.Model(x, library.layers.LSTM(3)(library.layers.Masking(name="mask")(x))))


@both
def test_attention_with_a_causal_mask(library, check_equal):
    x = library.Input((5, 8))
    attention = library.layers.MultiHeadAttention(2, 4, name="attention")
    check_equal(library.Model(x, attention(x, x, use_causal_mask=True)))


@both
def test_a_normalisation_of_another_axis_is_carried(library, check_equal):
    x = library.Input((4, 8, 3))
    check_equal(library.Model(x, library.layers.BatchNormalization(axis=1, name="norm")(x)))


def test_dropout_kept_active_by_its_call():
    x = tf_keras.Input((8,))
    model = tf_keras.Model(x, tf_keras.layers.Dropout(0.5, name="monte_carlo")(x, training=True))
    refused(model, "Layer 'monte_carlo' .*training=True")


@both
def test_an_input_of_text(library):
    x = library.Input((1,), dtype="string", name="text")
    with pytest.raises((UserError, ValueError), match=r"string|text"):
        load_model(library.Model(x, library.layers.Identity()(x)))


# Modules that the user trusts ----------------------------------------------------------------------

MODULE = """
import keras, tf_keras

class Token(keras.layers.Layer):
    def __init__(self, mode, **options):
        super().__init__(**options)
        self.mode = mode
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="normal", name="token")
    def call(self, x):
        token = keras.ops.broadcast_to(self.token, (keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([token, x] if self.mode == "front" else [x, token], axis=1)
    def get_config(self):
        return {**super().get_config(), "mode": self.mode}

class Old(tf_keras.layers.Layer):
    def call(self, x):
        return tf_keras.activations.relu(x) * 2
"""


@pytest.fixture
def trusted_module(tmp_path, monkeypatch):
    (tmp_path / "tfq_test_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("tfq_test_layers")
    del sys.modules["tfq_test_layers"]


@pytest.mark.parametrize(("library", "suffix"), [(keras, ".keras"), (tf_keras, ".h5"), (tf_keras, ".keras")])
def test_a_file_may_name_classes_of_a_module_that_is_trusted(library, suffix, trusted_module, tmp_path, check_equal):
    x = library.Input((5, 8))
    layer = trusted_module.Token("front", name="mine") if library is keras else trusted_module.Old(name="mine")
    library.Model(x, layer(x)).save(tmp_path / f"model{suffix}")
    refused(tmp_path / f"model{suffix}", "Layer 'mine' .*custom class; give `imports='")
    check_equal(tmp_path / f"model{suffix}", imports=["tfq_test_layers"])
    wrong = "custom class|`imports` names 'no_such_module'"
    refused(tmp_path / f"model{suffix}", wrong, imports=["no_such_module"])
