import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tfq.errors import UserError
from tfq.evaluation.metrics import METRICS
from tfq.option_groups import GRADIENT_METHODS
from tfq.options import NEED_LABELS, RULES
from tfq.recipe import CHOICES, Recipe

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
FREE = {
    field: st.sampled_from(choices)
    for field, choices in CHOICES.items()
    if field not in ("precision", "pipeline", "reconstruction", "batch_norm_tuning")
}
FREE |= {field: TEXT for field in ("model", "calibration_data", "evaluation_data", "metric", "labels")}
FREE |= {field: st.booleans() for field in ("per_channel", "allow_unsafe_deserialization")}
FREE |= {
    "weight_bits": st.integers(2, 8),
    "num_calibration_samples": st.integers(1, 10**6),
    "memory_limit": st.integers(64, 10**6),
    "workers": st.integers(1, 64),
    "seed": st.integers(0, 2**31),
    "input_shape": st.sampled_from([(), ("28,28,1",), ("a:3,4", "b:c:8")]),
}
BUDGETS = {
    "max_accuracy_drop": st.none() | st.floats(0, 100),
    "size_budget": st.floats(0.01, 1.0),
    "latency_budget": st.sampled_from(["", "1.2ms", "800 us", "0.01s"]),
    "latency_table": st.just("table.json"),
    "candidates": st.lists(st.sampled_from(["w2", "w4-packed", "w8", "float16"])).map(tuple),
    "pin": st.lists(st.sampled_from(["conv.*:w8", "a:b:float16"])).map(tuple),
    "weight_bits": st.just(8),
}


def recipes(pipeline, **choices):
    return fitting(pipeline=st.just(pipeline), **FREE, **{n: st.sampled_from(c) for n, c in choices.items()})


@st.composite
def fitting(draw, **fields):
    """A recipe of these fields; an option that would do nothing beside the others keeps its default."""
    values = {name: draw(found) for name, found in fields.items()}
    for _ in fields:
        try:
            return Recipe(**values)
        except UserError as error:
            del values[str(error).split()[0].strip("`")]
    return assume(False)


WITHOUT_GRADIENTS = [x for x in CHOICES["reconstruction"] if x not in GRADIENT_METHODS]
RECIPES = st.one_of(
    recipes("int8", precision=CHOICES["precision"]),
    recipes("int8", **{n: ["default", "none"] for n in ("reconstruction", "batch_norm_tuning")}),
    recipes("light", reconstruction=WITHOUT_GRADIENTS, batch_norm_tuning=CHOICES["batch_norm_tuning"]),
    recipes("advanced", **{n: CHOICES[n] for n in ("reconstruction", "batch_norm_tuning")}),
    fitting(pipeline=st.sampled_from(["light", "advanced"]), **{**FREE, **BUDGETS}),
)


@given(RECIPES)
def test_json_round_trip(recipe):
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    "name", ["reconstruction", "range_tuning", "batch_norm_tuning", "network_tuning", "equalization"]
)
def test_what_the_int8_pipeline_leaves_out_anyhow_may_be_said(name):
    assert getattr(Recipe(model="", **{name: "none"}), name) == "none"


def test_every_choice_is_a_field_whose_default_is_one_of_them():
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    for field, choices in CHOICES.items():
        assert defaults[field] in choices


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pipeline": "light", "max_accuracy_drop": -1.0}, "`max_accuracy_drop` is -1; it must be 0 to 100 points"),
        ({"pipeline": "light", "size_budget": 0.0}, "`size_budget` is 0; it must lie in (0, 1]"),
        ({"pipeline": "light", "latency_budget": "1ms"}, "`latency_budget` is 1ms and no `latency_table`"),
        (
            {"pipeline": "light", "latency_budget": "fast", "latency_table": "t"},
            "`latency_budget` is 'fast'; it must be a time, as 1.2ms or 800us",
        ),
        ({"pipeline": "light", "objective": "latency", "size_budget": 0.2}, "`objective` is latency and no"),
        (
            {"pipeline": "light", "size_budget": 0.2, "candidates": ("w9",)},
            "'w9' is no precision; it must be one of w2",
        ),
        (
            {"pipeline": "light", "size_budget": 0.2, "pin": ("conv:w4a4",), "package": "gzip"},
            "`package` is gzip and w4a4 is offered; TFLite has no kernels for 4-bit activations",
        ),
        ({"pipeline": "light", "compute_budget": 1.5}, "`compute_budget` is 1.5; it must lie in"),
        (
            {"pipeline": "light", "size_budget": 0.2, "pin": ("a(:w8",)},
            "`pin` is 'a(:w8'; 'a(' is no regular expression",
        ),
        ({"pipeline": "light", "size_budget": 0.2, "pin": ("w8",)}, "`pin` is 'w8'; it must be a layer's name or"),
        ({"pipeline": "light", "pin": ("a:w8",)}, "`pin` is given without a budget"),
        ({"size_budget": 0.2}, "a budget needs `pipeline='light'` or `pipeline='advanced'`"),
        ({"pipeline": "light", "size_budget": 0.2, "weight_bits": 4}, "`weight_bits` is 4 and a budget is given"),
        ({"precision": "int7"}, "`precision` is 'int7'; it must be one of auto, int8, int16x8, float16"),
        ({"pipeline": "best"}, "`pipeline` is 'best'"),
        ({"storage": "int4"}, "`storage` is 'int4'; it must be one of int8, packed"),
        ({"input_type": "float16"}, "`input_type` is 'float16'"),
        ({"output_type": "int16"}, "`output_type` is 'int16'"),
        ({"preprocess": "caffe"}, "`preprocess` is 'caffe'"),
        ({"selection": "last"}, "`selection` is 'last'"),
        ({"weight_bits": 1}, "`weight_bits` is 1; it must be 2 to 8"),
        ({"weight_bits": 9}, "`weight_bits` is 9; it must be 2 to 8"),
        ({"activation_bits": 3}, "`activation_bits` is 3; it must be 8, which TFLite runs, or 4 to 7, which are simul"),
        ({"activation_bits": 16}, "`activation_bits` is 16; it must be 8, which TFLite runs"),
        (
            {"activation_bits": 4, "precision": "float16"},
            "`activation_bits` is 4 and `precision` is float16; only int8",
        ),
        ({"activation_bits": 4, "package": "gzip"}, "`package` is gzip and `activation_bits` is 4; TFLite has no ker"),
        ({"first_last_bits": 4}, "`first_last_bits` is 4; it must be 8, or 0 for no exception"),
        ({"package": "zip"}, "`package` is 'zip'; it must be one of none, gzip"),
        ({"reconstruction": "gptq"}, "`reconstruction` is 'gptq'; it must be one of default, none, bias_correction"),
        ({"mode": "both"}, "`mode` is 'both'; it must be one of sequential, parallel"),
        ({"granularity": "model"}, "`granularity` is 'model'; it must be one of layer, block"),
        ({"batch_norm_tuning": "on"}, "`batch_norm_tuning` is 'on'; it must be one of default, none, always"),
        ({"equalization": "on"}, "`equalization` is 'on'; it must be one of default, none, published, expected"),
        (
            {"pipeline": "light", "precision": "float16"},
            "`pipeline` is light and `precision` is float16; only weights on a grid are fitted",
        ),
        (
            {"latency_budget": "1ms", "latency_table": "t.json", "candidates": ("w8", "d8")},
            "d8 is offered and `latency_table` is given, which has no times of dynamic range",
        ),
        (
            {"size_budget": 0.3, "latency_table": "t.json", "pin": ("a:w8a16",)},
            "w8a16 is offered and `latency_table` is given, which has no times of 16-bit activations",
        ),
        ({"reconstruction": "best"}, "`reconstruction` is best, but `pipeline='int8'` has none; add `pipeline"),
        ({"batch_norm_tuning": "always"}, "`batch_norm_tuning` is always, but `pipeline='int8'` has none; add `pipe"),
        (
            {"pipeline": "light", "reconstruction": "adaquant"},
            "`reconstruction` is adaquant, which learns by gradients, and `pipeline` is light; use `pipe",
        ),
        ({"pipeline": "light", "reconstruction": "adaround"}, "`reconstruction` is adaround, which learns by grad"),
        ({"memory_limit": 63}, "`memory_limit` is 63; it must be at least 64"),
        ({"workers": 0}, "`workers` is 0; it must be at least 1"),
        ({"num_calibration_samples": 0}, "`num_calibration_samples` is 0; it must be at least 1"),
        ({"num_calibration_samples": 10**9}, "`num_calibration_samples` is 1000000000; it must be at most 1000000"),
        ({"workers": 257}, "`workers` is 257; it must be at most 256"),
        ({"memory_limit": 10**8}, "`memory_limit` is 100000000; it must be at most 1048576"),
        ({"seed": -1}, "`seed` is -1; it must be at least 0"),
        ({"seed": 2**32}, "`seed` is 4294967296; it must be at most 4294967295"),
        ({"labels": "m\udcff"}, "`labels` is 'm\\udcff', whose bytes are no UTF-8; rename it"),
        ({"labels": "a\0"}, "`labels` is 'a\\x00', which holds a null byte"),
        ({"weight_bits": "4"}, "`weight_bits` is '4'; expected a whole number"),
        ({"weight_bits": True}, "`weight_bits` is true; expected a whole number"),
        ({"weight_bits": 4.0}, "`weight_bits` is 4.0; expected a whole number"),
        ({"weight_bits": np.int64(4)}, "`weight_bits` is "),
        ({"per_channel": 1}, "`per_channel` is 1; expected true or false"),
        ({"allow_unsafe_deserialization": "false"}, "`allow_unsafe_deserialization` is 'false'; expected true or fal"),
        ({"size_budget": float("inf")}, "`size_budget` is inf; expected a number"),
        ({"precision": None}, "`precision` is null; expected a text"),
        ({"candidates": ["w4"]}, "`candidates` is a list; expected a tuple"),
        ({"pin": (1,)}, "`pin`: [0] is 1; expected a text"),
    ],
)
def test_an_impossible_request_is_named_with_what_is_possible(wrong, message):
    with pytest.raises(UserError) as caught:
        Recipe(model="m.keras", **wrong)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


IDLE = {
    "weight bits of another precision": {"precision": "float16", "weight_bits": 4},
    "first and last layer of another precision": {"precision": "int16x8", "first_last_bits": 8},
    "one scale a tensor of another precision": {"precision": "dynamic_range", "per_channel": False},
    "calibration of another precision": {"precision": "float32", "calibration_method": "mse"},
    "storage of another precision": {"precision": "int16x8", "storage": "packed"},
    "equalisation of another precision": {"precision": "float16", "equalization": "expected"},
    "mode of another precision": {"precision": "float16", "mode": "parallel"},
    "input of another precision": {"precision": "float16", "input_type": "uint8"},
    "output of another precision": {"precision": "float16", "output_type": "uint8"},
    "mode without a pipeline": {"mode": "parallel"},
    "granularity without a pipeline": {"granularity": "layer"},
    "workers without a pipeline": {"workers": 2},
    "workers without a reconstruction": {"pipeline": "light", "reconstruction": "none", "workers": 2},
    "distillation of another precision": {"precision": "dynamic_range", "pipeline": "light", "distill": True},
    "distillation of weights that are only rounded": {"weight_bits": 4, "distill": True},
    "distillation data for weights that are only rounded": {"distillation_data": "x.npz"},
    "steps without distillation": {"pipeline": "light", "distillation_steps": 10},
    "network tuning of the light pipeline": {"pipeline": "light", "network_tuning": "always"},
    "granularity without a reconstruction": {"pipeline": "advanced", "reconstruction": "none", "granularity": "layer"},
    "granularity in parallel": {
        "pipeline": "light",
        "reconstruction": "best",
        "mode": "parallel",
        "granularity": "layer",
    },
    "first and last layer where all have 8 bits": {"first_last_bits": 8},
    "packed bytes": {"storage": "packed"},
    "packed grids of 5 bits": {"storage": "packed", "weight_bits": 5},
    "packed clusters": {"storage": "packed", "weight_clusters": 4},
    "storage of named candidates": {
        "pipeline": "light",
        "size_budget": 0.2,
        "storage": "packed",
        "candidates": ("w4", "w8"),
    },
    "objective without a drop": {
        "pipeline": "light",
        "size_budget": 0.2,
        "objective": "latency",
        "latency_table": "t.json",
    },
    "sensitivity without a budget": {"pipeline": "advanced", "sensitivity": "gradient"},
    "metric of labels without any": {"metric": "auc"},
}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"nms": "append", "decoder": "yolov8", "activation_bits": 4}, "the model is simulated only"),
        ({"nms": "append", "decoder": "centernet", "evaluation_data": "t"}, "`decoder` is 'centernet'"),
        ({"pipeline": "advanced", "reconstruction": "none", "workers": 2}, "`reconstruction` is none"),
        ({"workers": 2}, "add `pipeline='advanced'`"),
    ],
)
def test_of_several_reasons_the_one_that_holds_is_told(options, reason):
    with pytest.raises(UserError, match=re.escape(reason)):
        Recipe("m.keras", **options)


@pytest.mark.parametrize("case", IDLE)
def test_an_option_that_would_do_nothing_is_refused(case):
    with pytest.raises(UserError) as caught:
        Recipe(model="m.keras", **IDLE[case])
    *_, idle = str(caught.value).partition(" and ")
    assert str(caught.value).split()[0].strip("`") in IDLE[case]
    assert "leave" in idle


def test_what_acts_or_repeats_what_happens_anyhow_is_allowed():
    Recipe("m", precision="float16", input_type="float32", output_type="float32", equalization="none")
    Recipe("m", pipeline="advanced", workers=4, memory_limit=64, mode="parallel", granularity="layer")
    Recipe("m", pipeline="light", size_budget=0.2, storage="packed", workers=2, granularity="layer")
    Recipe("m", weight_bits=4, storage="packed", first_last_bits=8)
    Recipe("m", precision="float16", memory_limit=64)
    Recipe("m", evaluation_data="t.npz", metric="auc")
    Recipe("m", metric="mse")  # against the float model


def test_the_metrics_that_need_labels_are_named():
    assert {*NEED_LABELS, "top1"} == {metric.name for metric in METRICS.values() if metric.needs_labels}


def test_every_option_of_the_table_is_a_field():
    fields = {field.name for field in dataclasses.fields(Recipe)}
    assert {option for rule in RULES for option in rule.options} <= fields


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"allow_unsafe_deserialization": "false"}, "allow_unsafe_deserialization is 'false'; expected true or false"),
        ({"weight_bits": "4"}, "weight_bits is '4'; expected a whole number"),
        ({"weight_bits": True}, "weight_bits is true; expected a whole number"),
        ({"weight_bits": None}, "weight_bits is null; expected a whole number"),
        ({"weight_bits": 10**30}, "weight_bits is a whole number of 100 bits; expected a whole number"),
        ({"size_budget": "0.1"}, "size_budget is '0.1'; expected a number or null"),
        ({"pin": "a:w8"}, "pin is 'a:w8'; expected an array"),
        ({"pin": [1]}, "pin[0] is 1; expected a text"),
        ({"model": ["m"]}, "model is an array of 1; expected a text"),
        ({"granularity_of_tomorrow": 1}, "the recipe has the unknown field granularity_of_tomorrow; this is tfq "),
        ({"weight_bits": 9}, "the recipe: `weight_bits` is 9; it must be 2 to 8"),
    ],
)
def test_a_recipe_of_wrong_types_is_named(change, message):
    text = json.dumps(json.loads(Recipe(model="m.keras").to_json()) | change)
    with pytest.raises(UserError) as caught:
        Recipe.from_json(text)
    assert message in str(caught.value)


def test_fields_that_are_absent_keep_their_defaults_but_the_model_must_be_there():
    assert Recipe.from_json('{"model": "m"}') == Recipe(model="m")
    with pytest.raises(UserError, match="the recipe has no model; expected a text"):
        Recipe.from_json("{}")


def test_a_shipped_recipe_names_no_folder():
    recipe = Recipe("/a/m", "/b/c", "/d/e", labels="/f/g", pipeline="light", latency_budget="1ms", latency_table="/h/i")
    assert "/" not in recipe.shipped().to_json()


def test_a_candidate_with_few_bits_of_activations_makes_the_result_a_simulation():
    recipe = Recipe("m.keras", pipeline="light", compute_budget=0.5, candidates=("w4a4", "w8"))
    assert recipe.allocates
    assert recipe.simulated == "TFLite has no kernels for 4-bit activations"
    assert recipe.model_name == "mixed simulated"
    assert Recipe("m.keras", pipeline="light", compute_budget=0.5, candidates=("w4", "w8")).simulated == ""


def test_fewer_than_8_bits_of_activations_are_called_simulated():
    assert Recipe("m.keras", precision="int8", weight_bits=4).model_name == "W4A8"
    assert Recipe("m.keras", weight_bits=4).simulated == ""
    recipe = Recipe("m.keras", weight_bits=3, activation_bits=4)
    assert recipe.model_name == "W3A4 simulated"
    assert recipe.simulated == "TFLite has no kernels for 4-bit activations"


def test_times_and_pins_are_read():
    recipe = Recipe(
        model="", pipeline="light", latency_budget="800 us", latency_table="t", pin=("^conv:a$:w8", "b:float16")
    )
    assert recipe.latency_budget_ms == 0.8
    assert recipe.pins == (("^conv:a$", "w8"), ("b", "float16"))
    assert recipe.allocates
    assert not Recipe(model="").allocates
