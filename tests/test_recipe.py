import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfq.errors import UserError
from tfq.recipe import CHOICES, GRADIENT_METHODS, Recipe

TEXT = st.text(max_size=20)
FREE = {
    field: st.sampled_from(choices)
    for field, choices in CHOICES.items()
    if field not in ("precision", "pipeline", "reconstruction", "batch_norm_tuning")
}
FREE |= {field: TEXT for field in ("model", "calibration_data", "evaluation_data", "metric", "labels")}
FREE |= {field: st.booleans() for field in ("per_channel", "allow_unsafe_deserialization")}
FREE |= {
    "weight_bits": st.integers(2, 8),
    "percentile": st.floats(50.0, 100.0, exclude_min=True),
    "num_calibration_samples": st.integers(1, 10**6),
    "memory_limit": st.integers(64, 10**6),
    "workers": st.integers(1, 64),
    "seed": st.integers(0, 2**31),
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
    return st.builds(Recipe, pipeline=st.just(pipeline), **FREE, **{n: st.sampled_from(c) for n, c in choices.items()})


WITHOUT_GRADIENTS = [x for x in CHOICES["reconstruction"] if x not in GRADIENT_METHODS]
RECIPES = st.one_of(
    recipes("int8", precision=CHOICES["precision"]),
    recipes("int8", reconstruction=["none"], batch_norm_tuning=["none"]),
    recipes("light", reconstruction=WITHOUT_GRADIENTS, batch_norm_tuning=CHOICES["batch_norm_tuning"]),
    recipes("advanced", **{n: CHOICES[n] for n in ("reconstruction", "batch_norm_tuning")}),
    st.builds(Recipe, pipeline=st.sampled_from(["light", "advanced"]), **{**FREE, **BUDGETS}),
)


@given(RECIPES)
def test_json_round_trip(recipe):
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_every_choice_is_a_field_whose_default_is_one_of_them():
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    for field, choices in CHOICES.items():
        assert defaults[field] in choices


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pipeline": "light", "max_accuracy_drop": -1.0}, "--max_accuracy_drop is -1; it must be 0 to 100 points"),
        ({"pipeline": "light", "size_budget": 0.0}, "--size_budget is 0; it must lie in (0, 1]"),
        ({"pipeline": "light", "latency_budget": "1ms"}, "--latency_budget is 1ms and no --latency_table"),
        (
            {"pipeline": "light", "latency_budget": "fast", "latency_table": "t"},
            "--latency_budget is 'fast'; it must be a time, as 1.2ms or 800us",
        ),
        ({"pipeline": "light", "objective": "latency", "size_budget": 0.2}, "--objective is latency and no"),
        (
            {"pipeline": "light", "size_budget": 0.2, "candidates": ("w9",)},
            "'w9' is no precision; it must be one of w2",
        ),
        (
            {"pipeline": "light", "size_budget": 0.2, "pin": ("conv:w4a4",), "package": "gzip"},
            "--package is gzip and w4a4 is offered; TFLite has no kernels for 4-bit activations",
        ),
        ({"pipeline": "light", "compute_budget": 1.5}, "--compute_budget is 1.5; it must lie in"),
        (
            {"pipeline": "light", "size_budget": 0.2, "pin": ("a(:w8",)},
            "--pin is 'a(:w8'; 'a(' is no regular expression",
        ),
        ({"pipeline": "light", "size_budget": 0.2, "pin": ("w8",)}, "--pin is 'w8'; it must be a layer's name or"),
        ({"pipeline": "light", "pin": ("a:w8",)}, "--pin is given and nothing to allocate by"),
        ({"size_budget": 0.2}, "a budget needs --pipeline=light or --pipeline=advanced"),
        ({"pipeline": "light", "size_budget": 0.2, "weight_bits": 4}, "--weight_bits is 4 and a budget is given"),
        ({"precision": "int7"}, "--precision is 'int7'; it must be one of int8, int16x8, float16"),
        ({"pipeline": "best"}, "--pipeline is 'best'"),
        ({"calibration_method": "entropy"}, "--calibration_method is 'entropy'"),
        ({"storage": "int4"}, "--storage is 'int4'; it must be one of int8, packed"),
        ({"input_type": "float16"}, "--input_type is 'float16'"),
        ({"output_type": "int16"}, "--output_type is 'int16'"),
        ({"preprocess": "caffe"}, "--preprocess is 'caffe'"),
        ({"selection": "last"}, "--selection is 'last'"),
        ({"weight_bits": 1}, "--weight_bits is 1; it must be 2 to 8"),
        ({"weight_bits": 9}, "--weight_bits is 9; it must be 2 to 8"),
        ({"activation_bits": 3}, "--activation_bits is 3; it must be 8, which TFLite runs, or 4 to 7, which are simul"),
        ({"activation_bits": 16}, "--activation_bits is 16; it must be 8, which TFLite runs"),
        (
            {"activation_bits": 4, "precision": "float16"},
            "--activation_bits is 4 and --precision is float16; only int8",
        ),
        ({"activation_bits": 4, "package": "gzip"}, "--package is gzip and --activation_bits is 4; TFLite has no ker"),
        ({"first_last_bits": 4}, "--first_last_bits is 4; it must be 8, or 0 for no exception"),
        ({"package": "zip"}, "--package is 'zip'; it must be one of none, gzip"),
        ({"percentile": 50.0}, "--percentile is 50.0; it must lie in"),
        ({"percentile": float("nan")}, "--percentile is nan"),
        ({"reconstruction": "gptq"}, "--reconstruction is 'gptq'; it must be one of default, none, bias_correction"),
        ({"mode": "both"}, "--mode is 'both'; it must be one of sequential, parallel"),
        ({"granularity": "model"}, "--granularity is 'model'; it must be one of layer, block"),
        ({"batch_norm_tuning": "on"}, "--batch_norm_tuning is 'on'; it must be one of default, none, damped"),
        ({"equalization": "on"}, "--equalization is 'on'; it must be one of default, none, published, expected"),
        (
            {"pipeline": "light", "precision": "float16"},
            "--pipeline is light and --precision is float16; only int8 models have a pipeline",
        ),
        (
            {"reconstruction": "best"},
            "--reconstruction is best and --batch_norm_tuning is default, but --pipeline=int8",
        ),
        ({"batch_norm_tuning": "paired"}, "--reconstruction is default and --batch_norm_tuning is paired, but --pipel"),
        (
            {"pipeline": "light", "reconstruction": "adaquant"},
            "--reconstruction is adaquant, which learns by gradients, and --pipeline is light; use --pipeline=advanced",
        ),
        ({"pipeline": "light", "reconstruction": "adaround"}, "--reconstruction is adaround, which learns by grad"),
        ({"memory_limit": 63}, "--memory_limit is 63; it must be at least 64"),
        ({"workers": 0}, "--workers is 0; it must be at least 1"),
        ({"num_calibration_samples": 0}, "--num_calibration_samples is 0; it must be at least 1"),
    ],
)
def test_an_impossible_request_is_named_with_what_is_possible(wrong, message):
    with pytest.raises(UserError) as caught:
        Recipe(model="m.keras", **wrong)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_candidate_with_few_bits_of_activations_makes_the_result_a_simulation():
    recipe = Recipe("m.keras", pipeline="light", compute_budget=0.5, candidates=("w4a4", "w8"))
    assert recipe.allocates
    assert recipe.simulated == "TFLite has no kernels for 4-bit activations"
    assert recipe.model_name == "mixed simulated"
    assert Recipe("m.keras", pipeline="light", compute_budget=0.5, candidates=("w4", "w8")).simulated == ""


def test_fewer_than_8_bits_of_activations_are_called_simulated():
    assert Recipe("m.keras", weight_bits=4).model_name == "int8"
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
