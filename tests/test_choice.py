"""`precision='auto'`: static or dynamic range for the whole model."""

import numpy as np
import operator_graphs
import pytest
import tf_keras

import tfq
from tfq.allocation.wish import check_within_reach
from tfq.errors import UserError
from tfq.models.widths import units
from tfq.recipe import Recipe

LENGTH, WIDTH, WORDS = 8, 32, 40


def encoder(*, outlier: float):
    """One block of a transformer; one word is `outlier` times as large as the others where no normalisation is."""
    layers, rng = tf_keras.layers, np.random.default_rng(0)
    given = layers.Input((LENGTH,), dtype="int32", name="words")
    table = layers.Embedding(WORDS, WIDTH)
    x = table(given)
    hidden = layers.Dense(2 * WIDTH, activation="gelu", name="expand")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(WIDTH, name="shrink")(hidden)])
    x = layers.LayerNormalization()(x)
    model = tf_keras.Model(given, layers.Dense(5, name="classes")(layers.GlobalAveragePooling1D()(x)))
    for weight in model.weights:
        if "normalization" not in weight.name:
            weight.assign(rng.normal(0, 1 / np.sqrt(weight.shape[0]), weight.shape))
    rows = rng.normal(size=(WORDS, WIDTH))
    rows[0] *= outlier
    table.embeddings.assign(rows)
    return model


def words(count):
    return np.random.default_rng(1).integers(0, WORDS, (count, LENGTH)).astype(np.int32)


def test_rows_of_unlike_sizes_take_dynamic_range():
    model = encoder(outlier=300.0)
    result = tfq.quantize(model, words(64), evaluation=words(24))
    report = result.report
    assert report.precision == "dynamic_range"
    assert any(note.startswith("dynamic range was chosen") for note in report.warnings)
    assert {layer.precision for layer in report.layers} == {"dynamic_range", "float32"}
    assert report.evaluation.models[-1].sqnr.value > 25
    again = tfq.quantize(model, words(64), evaluation=words(24), precision="dynamic_range")
    assert again.files["spec.json"] == result.files["spec.json"]


def test_few_bits_of_weights_do_not_hide_what_activations_lose():
    options = {"weight_bits": 4, "pipeline": "light"}
    report = tfq.quantize(encoder(outlier=300.0), words(64), evaluation=words(24), **options).report
    assert report.precision == "dynamic_range"
    assert report.evaluation.models[-1].sqnr.value > 10


@pytest.mark.parametrize(
    "options", [{"precision": "int8"}, {"calibration_method": "minmax"}, {"target": "micro"}, {"output_type": "uint8"}]
)
def test_what_only_static_int8_has_keeps_it_static(options):
    report = tfq.quantize(encoder(outlier=300.0), words(64), evaluation=words(24), **options).report
    assert report.precision == "int8"
    assert not any(note.startswith("dynamic range was chosen") for note in report.warnings)


def test_noise_that_is_hardly_noticed_is_no_reason_where_convolutions_stand_between():
    layers = tf_keras.layers
    image = layers.Input((8, 8, 4), name="image")
    x = layers.LayerNormalization()(layers.DepthwiseConv2D(3, padding="same")(image))
    x = layers.Dense(8)(layers.Dense(64, activation="relu")(x))
    model = tf_keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 4)).astype(np.float32)
    assert tfq.quantize(model, images[:48], evaluation=images[48:]).report.precision == "int8"


def test_layers_among_fixed_grids_may_be_dynamic():
    budget = {"size_budget": 0.3, "pipeline": "light", "pin": ("expand:d8", "shrink:w4")}
    result = tfq.quantize(encoder(outlier=1.0), words(64), evaluation=words(24), **budget)
    chosen = {layer.name: layer.precision for layer in result.report.layers}
    assert (chosen["expand"], chosen["shrink"]) == ("dynamic_range", "int8")
    assert result.report.evaluation.models[-1].sqnr.value > 10


def test_a_pin_without_a_kernel_is_told():
    graph = operator_graphs.image_layer("DepthwiseConv2D")
    wish = Recipe("m", pipeline="light", size_budget=0.5, pin=("last:d8",))
    with pytest.raises(UserError, match="'last' is pinned to d8, and TFLite has no such kernel for DepthwiseConv2D"):
        check_within_reach(graph, units(graph), wish)


def test_a_budget_and_a_precision_of_plain_exports_exclude_each_other():
    with pytest.raises(UserError, match="leave one of the two out"):
        tfq.quantize(encoder(outlier=1.0), words(64), precision="float16", size_budget=0.3, pipeline="light")


@pytest.mark.parametrize(("named", "precision"), [({}, "dynamic_range"), ({"candidates": ("w4", "w8")}, "int8")])
def test_a_budget_is_kept_in_the_precision_that_is_better(named, precision):
    budget = {"size_budget": 0.2, "pipeline": "light", **named}
    report = tfq.quantize(encoder(outlier=300.0), words(64), evaluation=words(24), **budget).report
    assert report.precision == precision
