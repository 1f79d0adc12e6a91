"""The allow-list for stored configurations: what may pass, what is refused, and that nothing planted comes to life."""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import os
import pathlib
import random
import sys

import keras
import planted_objects as plants
import pytest
import tf_keras

from tfq.errors import UserError
from tfq.models.load import load_model
from tfq.models.rebuild import rebuild

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
both = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)


def config_of(model, tmp_path, suffix=".keras"):
    model.save(tmp_path / f"model{suffix}")
    return plants.read_config(tmp_path / f"model{suffix}")


def small(library, *extra):
    x = library.Input((8,), name="x")
    y = library.layers.Dense(4, name="dense")(x)
    for layer in extra:
        y = layer(y)
    return library.Model(x, y, name="small")


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """(library's name, path, configuration) of the base models."""
    folder = tmp_path_factory.mktemp("configs")
    return [
        (name, path, config)
        for name, library in LIBRARIES.items()
        for path, config in plants.stored_configs(library, folder)
    ]


# Nothing planted survives --------------------------------------------------------------------------


def one_planting(random_numbers, configs, canaries):
    library, path, config = random_numbers.choice(configs)
    place = random_numbers.choice(list(plants.places(config)))
    made = plants.planted(config, place, random_numbers.choice(canaries), random_numbers.randrange(400))
    if random_numbers.random() < 0.2:  # another library than the one that wrote it
        library = random_numbers.choice(list(LIBRARIES))
    return library, path, made


def outcome(config, library):
    """(what was rebuilt, "") or (None, why it was refused)."""
    try:
        return rebuild(config, library), ""
    except UserError as error:
        return None, str(error)


def check_plantings(configs, canaries, count: int, seed: int) -> int:
    """How many of `count` plantings were refused; the others must have left nothing."""
    random_numbers, refused = random.Random(seed), 0
    for _ in range(count):
        library, _, made = one_planting(random_numbers, configs, canaries)
        before = copy.deepcopy(made)
        result, message = outcome(made, library)
        refused += result is None
        assert message.isprintable()
        assert len(message) < 700
        assert result is None or plants.audit(result) == [], json.dumps(before)
        assert made == before, "the stored configuration was changed"
    return refused


def test_what_is_planted_anywhere_is_refused_or_left_out(configs):
    canaries = list(plants.canaries(pathlib.Path("/tmp/touched"), pathlib.Path("/tmp/words")))
    assert 200 < check_plantings(configs, canaries, 500, seed=random.randrange(2**32)) < 500


@pytest.mark.slow
def test_ten_thousand_plantings(configs):
    canaries = list(plants.canaries(pathlib.Path("/tmp/touched"), pathlib.Path("/tmp/words")))
    refused = check_plantings(configs, canaries, 10_000, seed=random.randrange(2**32))
    print(f"{refused} of 10,000 refused")
    assert 4_000 < refused < 10_000


def test_every_place_of_a_configuration_is_audited(configs):
    """A planted object at each place there is, one kind after the other."""
    canaries = list(plants.canaries(pathlib.Path("/tmp/touched"), pathlib.Path("/tmp/words")))
    for library, path, config in configs:
        if path.suffix == ".keras":
            for number, place in enumerate(plants.places(config)):
                result, _ = outcome(plants.planted(config, place, canaries[number % len(canaries)], 0), library)
                assert result is None or plants.audit(result) == [], place


def test_the_audit_sees_what_it_is_for():
    canaries = list(plants.canaries(pathlib.Path("/tmp/touched"), pathlib.Path("/tmp/words")))
    assert all(plants.audit({"layers": [canary]}) for canary in canaries)


_SEEN: list[str] = []
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")


def _watch(event: str, arguments: tuple) -> None:
    if event in _RUNS:
        _SEEN.append(f"{event} {arguments[0]}")


class Watch:
    """Sees whether code of a file ran or a file was read: a hook on Python, and the time of the last access."""

    def __init__(self, folder: pathlib.Path):
        self.touched, self.words = folder / "touched", folder / "words.txt"
        self.words.write_text("one\ntwo\n")
        (folder / "canary_module.py").write_text(f"import pathlib\npathlib.Path({str(self.touched)!r}).touch()\n")
        self.begin()

    def begin(self) -> None:
        _SEEN.clear()
        os.utime(self.words, (1, self.words.stat().st_mtime))  # a reader then changes the first of the two

    def traces(self) -> list[str]:
        read = ["words were read"] if self.words.stat().st_atime != 1 else []
        return [*_SEEN, *read, *(["code ran"] if self.touched.exists() else [])]


@pytest.fixture
def watch(tmp_path, monkeypatch):
    if not getattr(_watch, "added", False):
        sys.addaudithook(_watch)  # it cannot be removed
        _watch.added = True
    monkeypatch.syspath_prepend(tmp_path)
    return Watch(tmp_path)


@pytest.mark.parametrize("count", [30, pytest.param(400, marks=pytest.mark.slow)])
def test_files_with_planted_objects_are_loaded_without_a_trace(count, configs, watch, tmp_path):
    canaries = list(plants.canaries(watch.touched, watch.words))
    random_numbers, loaded = random.Random(), 0
    for _ in range(count):
        _, path, made = one_planting(random_numbers, configs, canaries)
        target = tmp_path / f"hostile{path.suffix}"
        plants.write_config(path, target, made)
        watch.begin()
        with contextlib.suppress(UserError):
            load_model(target)
            loaded += 1
        assert watch.traces() == [], json.dumps(made)
    assert loaded, "all were refused: nothing was tried"


def test_the_watch_sees_what_runs_and_what_is_read(watch):
    """The canaries do sing when a library is told to trust them."""
    watch.words.read_text()
    if not watch.traces():
        pytest.skip("this file system keeps no time of access")
    watch.begin()
    keras.layers.StringLookup(vocabulary=str(watch.words))
    assert watch.traces() == ["words were read"]
    watch.begin()
    bytecode = list(plants.canaries(watch.touched, watch.words))[1]
    keras.saving.deserialize_keras_object(bytecode, safe_mode=False)(1)
    assert watch.traces() == ["code ran"]
    watch.touched.unlink()
    importlib.import_module("canary_module")
    assert watch.traces() == ["code ran"]
    os.system("true")
    assert watch.traces()[0] == "os.system b'true'"


# What may pass -------------------------------------------------------------------------------------


def test_the_base_models_pass_whole(configs):
    for library, path, config in configs:
        result = rebuild(config, library)
        assert len(result["config"]["layers"]) == len(config["config"]["layers"]), path
        assert plants.audit(result) == []
        again = json.loads(json.dumps(result)) if library == "keras" else result
        assert rebuild(config, library) == again


@both
def test_what_only_serves_training_is_left_out(library, tmp_path):
    def custom_loss(y, z):
        return ((y - z) ** 2).mean()

    layer = library.layers.Dense(
        3, kernel_initializer=library.initializers.Orthogonal(), kernel_regularizer="l2", bias_constraint="non_neg"
    )
    model = small(library, layer)
    model.compile("adam", custom_loss)
    config = config_of(model, tmp_path)
    text = repr(rebuild(config, library.__name__))
    for word in ("Orthogonal", "regularizer", "constraint", "compile_config", "build_config", "custom_loss", "adam"):
        assert word not in text
    assert load_model(tmp_path / "model.keras").name == "small"


@both
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_custom_initialiser_never_runs_and_is_not_missed(library, suffix, tmp_path):
    """It would be code of the file; the weights lie in the file, so nobody needs it."""

    class Mine(library.initializers.Initializer):
        def __call__(self, shape, dtype=None, **kwargs):  # noqa: ARG002
            return library.initializers.Ones()(shape, dtype)

        def get_config(self):
            return {}

    model = small(library, library.layers.Dense(3, kernel_initializer=Mine(), name="head"))
    model.save(tmp_path / f"model{suffix}")
    kernel = load_model(tmp_path / f"model{suffix}").graph["head"].weights["kernel"]
    assert (kernel == 1).all()


# What is refused, and how --------------------------------------------------------------------------


def refused(config, library, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern) as caught:
        rebuild(config, library.__name__)
    assert ";" in str(caught.value), "no way out is named"


def layer_of(config, name):
    return next(layer for layer in config["config"]["layers"] if layer["config"]["name"] == name)


@both
def test_a_layer_of_another_module_or_package(library, tmp_path):
    config = config_of(small(library), tmp_path)
    layer_of(config, "dense")["module"] = "os.path"
    refused(config, library, r"Layer 'dense' .*os\.path\.Dense is a custom class")
    layer_of(config, "dense").update(module="keras.layers", registered_name="Mine>Dense")
    refused(config, library, "Layer 'dense' .*custom class")
    layer_of(config, "dense").update(registered_name=None, class_name="Custom>Dense")
    refused(config, library, "Layer 'dense' .*custom class")
    layer_of(config, "dense").update(class_name="keras.src.layers.core.dense.Dense")
    refused(config, library, "Layer 'dense' .*custom class")


@both
@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("StringLookup", "no rule is known for layer class StringLookup"),
        ("TFSMLayer", "no rule is known for layer class TFSMLayer"),
        ("RNN", "no rule is known for layer class RNN"),
        ("Lambda", "it is a Lambda, which holds code"),
        ("Dance", "Dance is a custom class"),
    ],
)
def test_a_layer_class_that_is_not_on_the_list(library, kind, pattern, tmp_path):
    config = config_of(small(library), tmp_path)
    layer_of(config, "dense")["class_name"] = kind
    refused(config, library, f"Layer 'dense' .*{pattern}")


@both
@pytest.mark.parametrize(
    ("key", "value", "pattern"),
    [
        ("units", {"class_name": "Dense", "config": {}}, "its units is an object of class 'Dense'"),
        ("units", "/etc/passwd", "its units is '/etc/passwd', which is no option"),
        ("activation", "os.system", r"custom function 'os\.system'"),
        ("activation", {"class_name": "function", "config": "relu", "module": "mine"}, "custom function 'relu'"),
        ("activation", {"class_name": "__lambda__", "config": {"value": ["x"]}}, "Python lambda"),
        ("dtype", {"class_name": "DTypePolicy", "config": {"name": "int8_from_float32"}}, "its dtype is"),
        ("dtype", {"class_name": "Evil", "config": {"name": "float32"}}, "its dtype is an object of class 'Evil'"),
        ("bad key\n", 1, "configuration has the key"),
        ("units", 2**70, "its units is"),
    ],
)
def test_a_setting_that_is_no_number_or_known_word(library, key, value, pattern, tmp_path):
    config = config_of(small(library), tmp_path)
    layer_of(config, "dense")["config"][key] = value
    refused(config, library, f"Layer 'dense' .*{pattern}")


@both
@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "\u202egnp", "", "x" * 600, 7])
def test_a_name_that_cannot_be_shown(library, name, tmp_path):
    config = config_of(small(library), tmp_path)
    layer_of(config, "dense")["config"]["name"] = name
    with pytest.raises(UserError, match=r"the name .* is empty, too long or not printable") as caught:
        rebuild(config, library.__name__)
    assert str(caught.value).isprintable()


@both
def test_calls_that_can_never_be_made(library, tmp_path):
    """tf_keras would look for their tensors for ever."""
    model = small(library, library.layers.ReLU(name="one"), library.layers.ReLU(name="two"))
    config = config_of(model, tmp_path)
    text = json.dumps(config).replace('["dense", 0, 0', '["two", 0, 0')
    refused(json.loads(text), library, "Model 'small' .*layer '(one|two)' waits for a tensor")
    text = json.dumps(config).replace('["dense", 0, 0', '["dense", 5, 0')
    refused(json.loads(text), library, "layer '(one|two)' waits for a tensor")
    text = json.dumps(config).replace('["dense", 0, 0', '["nobody", 0, 0')
    refused(json.loads(text), library, "layer '(one|two)' waits for a tensor")


@both
def test_layers_of_one_name(library, tmp_path):
    model = small(library, library.layers.ReLU(name="one"), library.layers.ReLU(name="two"))
    text = json.dumps(config_of(model, tmp_path)).replace('"two"', '"one"')
    refused(json.loads(text), library, "two of its layers are called 'one'")


def test_a_call_on_constants_alone(tmp_path):
    """It would be computed while the model is built, and may be as large as it likes."""
    x = tf_keras.Input((8,))
    config = config_of(tf_keras.Model(x, x * 2.0), tmp_path)
    text = json.dumps(config).replace(json.dumps([[config["config"]["layers"][0]["name"], 0, 0]])[1:-2], "[0]")
    layer = config["config"]["layers"][1]
    layer["inbound_nodes"] = [["_CONSTANT_VALUE", -1, 3.0, {"y": 2.0, "name": None}]]
    refused(config, tf_keras, "called on constants alone")
    assert text


@both
def test_models_that_call_each_other_twice_are_not_written_out(library, tmp_path):
    """Twenty models, each of which calls the one before twice: a million calls of one layer."""
    layers = library.layers
    x = library.Input((2,))
    inner = library.Model(x, layers.ReLU()(x), name="m0")
    for level in range(1, 4):
        x = library.Input((2,))
        inner = library.Model(x, inner(inner(x)), name=f"m{level}")
    config = config_of(inner, tmp_path)
    rebuild(config, library.__name__)
    holder = config["config"]["layers"]
    for level in range(4, 24):
        outer = copy.deepcopy(config)
        outer["config"]["name"] = outer["name"] = f"m{level}"
        inner_entry = next(layer for layer in outer["config"]["layers"] if layer["class_name"] == "Functional")
        inner_entry["config"] = config["config"]
        inner_name = config["config"]["name"]
        text = json.dumps({k: v for k, v in outer["config"].items() if k != "layers"})
        outer["config"] |= json.loads(text.replace(f'"{inner_entry["name"]}"', f'"{inner_name}"'))
        nodes = json.dumps(inner_entry["inbound_nodes"]).replace(f'"{inner_entry["name"]}"', f'"{inner_name}"')
        inner_entry["inbound_nodes"] = json.loads(nodes)
        inner_entry["name"] = inner_name
        config = outer
    refused(config, library, r"makes \d{6,} calls")
    assert holder


@both
def test_a_configuration_of_two_hundred_levels(library):
    config: dict = {"class_name": "Sequential", "config": {"name": "deep", "layers": []}}
    for _ in range(200):
        config = {"class_name": "Sequential", "config": {"name": "deep", "layers": [config]}}
    refused(config, library, "nested more than 150 levels deep")
    refused({"class_name": "Sequential", "config": [[]]}, library, "not described")
    for nothing in (None, [], "text", 3, {}, {"class_name": 3}, {"class_name": "Dense", "config": {"name": "d"}}):
        refused(nothing, library, "describes no model|describes a layer")
