"""Budgets where all activations are float: every width is one of dynamic range, and embeddings are chosen for too."""

import numpy as np
import operator_graphs
import pytest
import tf_keras
from operator_graphs import calibration_of

import tfq
from tfq.allocation.sensitivity import Loss, measured
from tfq.allocation.states import apply, find_states, units_of
from tfq.calibration.specify import specify
from tfq.errors import UserError
from tfq.execution.predict import predict
from tfq.export.package import export_quantized
from tfq.export.variants import Exporter
from tfq.models.widths import dynamic_precisions, units
from tfq.precision import dynamic_range
from tfq.recipe import Recipe
from tfq.simulate.judge import Judge

EDGES = {"input_type": "float32", "output_type": "float32"}
WORDS, LENGTH, WIDTH = 60, 6, 32


def base_of(graph):
    return specify(graph, {}, dynamic_precisions(graph, 8), **EDGES)


def states_of(graph, samples, bits=(2, 4, 8)):
    base = base_of(graph)
    wanted = {unit.name: [dynamic_range(b) for b in bits] for unit in units_of(base)}
    return base, find_states(graph, base, calibration_of(samples), candidates=wanted)


def classifier():
    """Which half of the words the first one is of, learned; half of the weights are the embedding's."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    given = layers.Input((LENGTH,), dtype="int32", name="words")
    x = layers.Flatten()(layers.Embedding(WORDS, WIDTH, name="table")(given))
    x = layers.Dense(24, activation="relu", name="hidden")(x)
    model = tf_keras.Model(given, layers.Dense(4, activation="softmax", name="classes")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = words(600, seed=5)
    model.fit(x, y, epochs=20, verbose=0)
    return model


def words(count, seed):
    x = np.random.default_rng(seed).integers(0, WORDS, (count, LENGTH)).astype(np.int32)
    return x, x[:, 0] // (WORDS // 4)


def test_embeddings_are_units_where_no_tensor_has_a_grid():
    graph = operator_graphs.lookups()
    assert [unit.name for unit in units_of(base_of(graph))] == ["table", "rows", "conv", "last"]
    assert [unit.name for unit in units(graph)] == ["rows", "conv", "last"]


def test_a_layer_without_such_a_kernel_has_nothing_to_choose():
    assert units_of(base_of(operator_graphs.image_layer("DepthwiseConv2D"))) == ()


def test_mixtures_are_exported_as_from_scratch_and_verified_by_the_runtime():
    """The converter's file of one mixture serves all others, byte for byte."""
    graph = operator_graphs.lookups()
    samples = operator_graphs.draw(graph, count=32)
    base, states = states_of(graph, samples)
    exporter = Exporter.of(samples)
    for bits in ((2, 4, 8, 2), (8, 2, 2, 4), (4, 8, 4, 8)):
        chosen = [states[unit.name, f"d{b}"] for unit, b in zip(units_of(base), bits, strict=True)]
        model = apply(base, *chosen)
        assert [model[state.unit].precision.weight_bits for state in chosen] == list(bits)
        content = exporter.export(model)
        assert content == export_quantized(model, operator_graphs.representative(samples))
        (found,) = predict(content, samples)
        divergence = Judge(graph, samples).divergence(model).mean()
        assert Loss.of(graph, samples)([found]) == pytest.approx(divergence, rel=0.05)


def test_fitted_layers_lose_less_than_rounded_ones_and_fewer_bits_more():
    graph = operator_graphs.lookups()
    samples = operator_graphs.draw(graph, count=64)
    base, states = states_of(graph, samples)
    fitted = [state for state in states.values() if state.unit != "table"]
    assert all(state.after <= state.before for state in fitted)
    assert any(state.after < 0.7 * state.before for state in fitted)
    tables = [states["table", f"d{bits}"] for bits in (2, 4, 8)]
    assert tables[0].after > 2 * tables[1].after > 8 * tables[2].after > 0
    assert all(state.after <= state.before for state in tables)
    found = measured(base, states.values(), Loss.of(graph, samples))
    for unit in units_of(base):
        losses = [found[unit.name, f"d{bits}"] for bits in (2, 4, 8)]
        assert losses == sorted(losses, reverse=True), unit.name


@pytest.fixture(scope="module")
def quantized():
    calibration = words(240, seed=1)  # with labels: the drop is counted
    test = words(200, seed=2)
    options = {"pipeline": "light", "precision": "dynamic_range"}
    model = classifier()

    def made(**more):
        return tfq.quantize(model, calibration, evaluation=test, **options, **more)

    return made


def test_a_budget_gives_the_embedding_its_own_bits(quantized):
    found = quantized(size_budget=0.11)  # 3.5 bits a weight
    chosen = found.report.allocation.allocation.candidates
    assert set(chosen) == {"table", "hidden", "classes"}
    bits = {layer.name: layer.weight_bits for layer in found.report.layers if layer.weight_bits}
    assert bits == {name: int(candidate[1:]) for name, candidate in chosen.items()}
    size = found.report.evaluation.models[-1].size
    assert size.weight_bits <= 0.11 * 32 + 0.6  # scales of the rows come on top
    assert found.report.evaluation.models[-1].agreement.value > 90


@pytest.mark.slow
def test_a_largest_drop_makes_it_smaller_than_8_bits(quantized):
    found = quantized(max_accuracy_drop=5.0)
    assert found.report.allocation.attained
    whole = quantized()
    sizes = [result.report.evaluation.models[-1].size.download_bytes for result in (found, whole)]
    assert sizes[0] < 0.8 * sizes[1]
    assert found.report.evaluation.models[-1].difference.high >= -5.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": ("d4", "w8")}, "w8 is asked for and `precision` is dynamic_range"),
        ({"pin": ("table:float16",)}, "float16 is asked for and `precision` is dynamic_range"),
        ({"latency_table": "x.json"}, "`latency_table` is given and `precision` is dynamic_range"),
        ({"latency_budget": "1ms"}, "`latency_budget` is given and `precision` is dynamic_range"),
    ],
)
def test_what_is_no_width_of_dynamic_range_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Recipe("m", pipeline="light", precision="dynamic_range", size_budget=0.2, **options)
