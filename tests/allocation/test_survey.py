"""All stops of allocation on a small network: budgets, pins, float layers, estimates."""

import functools
import json

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list
from operator_graphs import calibration_of, draw, specified

from tfq.allocation.allocate import allocate
from tfq.allocation.costs import multiply_accumulates
from tfq.allocation.latency_table import DEQUANTIZE, QUANTIZE, Entry, LatencyTable, border_operation, operations
from tfq.allocation.program import Infeasible, minimise_cost
from tfq.allocation.survey import survey
from tfq.allocation.wish import LATENCY, goal_of, offered
from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify
from tfq.errors import UserError
from tfq.evaluation.size import measure_size
from tfq.execution.deflate import deflated
from tfq.export.package import export_quantized
from tfq.models.grids import grid_groups
from tfq.models.widths import is_weighted, separate_inputs, units
from tfq.operations.table import OPERATORS
from tfq.option_groups import BudgetOptions
from tfq.precision import FLOAT16, W8A16
from tfq.recipe import Recipe
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.steps import Setting
from tfq.simulate.judge import Judge
from tfq.simulate.wrap import build_simulation
from tfq.verify.structure import verify_structure


@functools.cache
def start(name):
    graph = operator_graphs.ALL[name]()
    samples = draw(graph)
    count = len(next(iter(samples.values())))
    ranges = calibrate(graph, iter([samples]), method="minmax", total=count).ranges

    def at(chosen):
        by_node = {node: chosen[unit.name] for unit in units(graph) for node in unit.nodes}
        return specify(graph, ranges, by_node)

    return graph, samples, specified(graph, samples), at


def setting_of(recipe, graph, samples):
    calibration = calibration_of(samples)
    return Setting.of(recipe, calibration, Judge(graph, calibration.judging.arrays), lambda _: {})


def decide(setting, base, at, wish, *, narrow=None):
    """(the model, its precisions and the rounds that led to them)."""
    found = survey(setting, base, at, wish, narrow=narrow)
    return allocate(found.problem, goal_of(setting.graph, found.units, wish), found.bench)


PINS = ("^stem$:float16",)
PIPELINES = ["light", pytest.param("advanced", marks=pytest.mark.slow)]


def decided(name, pipeline="light", **wish):
    graph, samples, base, at = start(name)
    setting = setting_of(Recipe(model="", pipeline=pipeline), graph, samples)
    return graph, samples, decide(setting, base, at, BudgetOptions(**wish))


def file_of(samples, model):
    inputs = [{name: values[:1] for name, values in samples.items()}]
    content = export_quantized(model, lambda: iter(inputs))
    verify_structure(content, model)
    return content


def weight_bytes(graph, candidates):
    bits = {"float16": 16, "float32": 32}
    total = 0.0
    for unit in units(graph):
        kernel = max((w for n, w in graph[unit.name].weights.items() if n != "bias"), key=np.size)
        name = candidates[unit.name].removesuffix("-packed")
        total += kernel.size * bits.get(name, int(name[1]) if name[0] == "w" else 0) / 8
    return total


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_size_budget_is_kept_by_the_file_that_is_verified(pipeline):
    graph, samples, (model, found) = decided("convolutions", pipeline, size_budget=0.11)
    floats = 4 * sum(
        max((w for n, w in graph[u.name].weights.items() if n != "bias"), key=np.size).size for u in units(graph)
    )
    assert weight_bytes(graph, found.allocation.candidates) <= 0.11 * floats
    assert len(set(found.allocation.candidates.values())) > 1
    assert measure_size(file_of(samples, model)).weight_bits <= 0.11 * 32 * 1.02  # other constants too
    assert [r.kind for r in found.rounds][-1] == "reconstructed"
    best = min(r.measured.loss for r in found.rounds if r.kind == "assembled")
    assert found.rounds[-1].measured.loss <= best + 1e-9


def test_pins_and_named_candidates_are_followed():
    _, _, (_, found) = decided(
        "convolutions", size_budget=0.3, candidates=("w3", "w8"), pin=("stem:w8",), sensitivity="output_error"
    )
    chosen = found.allocation.candidates
    assert chosen["stem"] == "w8"
    assert set(chosen.values()) <= {"w3", "w8"}


def test_packed_storage_offers_packed_candidates():
    _, samples, (model, found) = decided("convolutions", size_budget=0.11, storage="packed", sensitivity="gradient")
    chosen = found.allocation.candidates
    assert any(name.endswith("-packed") for name in chosen.values())
    plain, packed = (len(file_of(samples, model)) for model in (start("convolutions")[2], model))
    assert packed < plain


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_coarse_grids_are_reconstructed_and_stored_with_one_scale_a_layer(pipeline):
    _, samples, (model, found) = decided("convolutions", pipeline, max_accuracy_drop=5.0, candidates=("e3", "e5"))
    chosen = found.allocation.candidates
    assert set(chosen.values()) <= {"e3", "e5"}
    for unit, candidate in chosen.items():
        layer = model[unit]
        grid = layer.weight_grids[OPERATORS[layer.kind].kernel]
        assert (grid.bits, grid.entropy_bits) == (8, int(candidate[1]))
        assert len(set(grid.scale)) == 1
    packages = [deflated(file_of(samples, v)) for v in (start("convolutions")[2], model)]
    assert len(packages[1]) < len(packages[0])


@pytest.mark.parametrize(
    "wish", [{"size_budget": 0.2}, {"max_accuracy_drop": 1.0, "objective": "latency"}, {"max_accuracy_drop": 1.0}]
)
def test_coarse_grids_are_offered_where_the_download_is_made_small(wish):
    graph = start("convolutions")[0]
    names = {name for _, name in offered(graph, units(graph), BudgetOptions(**wish))}
    assert any(name[0] == "e" for name in names) == (wish == {"max_accuracy_drop": 1.0})


def test_what_layers_that_8_bits_hurt_may_have_is_offered_beside_the_defaults_alone():
    graph = start("convolutions")[0]
    found, wish = units(graph), BudgetOptions(max_accuracy_drop=1.0)
    plain, more = set(offered(graph, found, wish)), set(offered(graph, found, wish, [W8A16]))
    assert {key for key in more if key not in plain} == {(unit.name, "w8a16") for unit in found}
    named = BudgetOptions(max_accuracy_drop=1.0, candidates=("w8",), pin=("logits:w4a16",))
    assert {name for _, name in offered(graph, found, named, [W8A16])} == {"w8", "w4a16"}


@pytest.mark.parametrize(("border_ms", "precision"), [(0.1, "float32"), (0.4, "w8")])
def test_a_layer_that_is_faster_in_float_is_float_where_its_borders_cost_less(border_ms, precision):
    graph, samples, base, at = start("convolutions")
    found = operations(graph)
    # the first layer takes 0.5 ms less in float, and then has a border on either side
    entries = [
        Entry(o, family, 0.5 if (o, family) == (found["stem"], "float32") else milliseconds, 0.0, 1)
        for o in dict.fromkeys(found.values())
        for family, milliseconds in (("int8", 1.0), ("float32", 1.5))
    ]
    shapes = {shape for o in found.values() for shape in (*o.inputs, o.output)}
    borders = [border_operation(kind, shape) for shape in shapes for kind in (QUANTIZE, DEQUANTIZE)]
    entries += [Entry(border, "int8", border_ms, 0.0, 1) for border in borders]
    table = LatencyTable("a phone", "runtime 1", 1, "2026-01-31", 0.0, tuple(entries))
    wish = BudgetOptions(max_accuracy_drop=5.0, objective="latency", sensitivity="output_error")
    setting = setting_of(Recipe(model="", pipeline="light"), graph, samples)
    problem = survey(setting, base, at, wish, table=table).problem
    chosen = dict(minimise_cost(problem, cost=LATENCY, max_degradation=np.inf).candidates)
    assert chosen.pop("stem") == precision
    assert set(chosen.values()) == {"w8"}


def test_the_layers_that_few_bits_hurt_stay_in_float16():
    _, samples, (model, found) = decided(
        "convolutions", max_accuracy_drop=5.0, candidates=("w2", "float16", "w8"), pin=PINS
    )
    assert found.attained
    assert found.rounds[-1].measured.points <= 5.0
    chosen = found.allocation.candidates
    assert chosen["stem"] == "float16"
    assert "w2" in chosen.values()
    assert model["stem"].precision == FLOAT16
    assert model["stem"].reason.startswith("chosen")
    file_of(samples, model)


def test_the_layer_that_8_bits_destroy_is_put_into_float16_without_being_asked():
    graph = operator_graphs.outlier()
    samples = draw(graph)
    ranges = calibrate(graph, iter([samples]), method="minmax", total=len(samples["image"])).ranges

    def at(chosen):
        return specify(graph, ranges, chosen)

    setting = setting_of(Recipe(model="", pipeline="light"), graph, samples)
    base = specified(graph, samples)
    _, found = decide(setting, base, at, BudgetOptions(max_accuracy_drop=5.0))
    assert found.attained
    assert found.allocation.candidates["second"] == "float16"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_4_bit_activations_are_given_where_a_compute_budget_asks_for_them_and_simulated(pipeline):
    plain = operator_graphs.residual()
    weighted = [node.name for node in plain.nodes if is_weighted(node)]
    graph = separate_inputs(plain, weighted, apart=True)
    samples = draw(graph)
    count = len(next(iter(samples.values())))
    groups = grid_groups(graph)
    reads = {unit.name: [groups[graph[node].inputs[0]] for node in unit.nodes] for unit in units(graph)}
    bits = dict.fromkeys((group for found in reads.values() for group in found), 4)
    ranges, narrow = (calibrate(graph, iter([samples]), method="mse", total=count, bits=b).ranges for b in ({}, bits))

    def at(chosen):
        few = [group for unit, c in chosen.items() if c.activation_bits == 4 for group in reads[unit]]
        own = {**ranges, **{group: narrow[group] for group in few}}
        return specify(graph, own, {node: chosen[unit.name] for unit in units(graph) for node in unit.nodes})

    setting = setting_of(Recipe(model="", pipeline=pipeline), graph, samples)
    base = specify(graph, ranges)
    wish = BudgetOptions(compute_budget=0.4, candidates=("w4", "w8", "w4a4"))
    model, found = decide(setting, base, at, wish, narrow=narrow)

    chosen = found.allocation.candidates
    macs = multiply_accumulates(graph)
    spent = {"w4": 32, "w8": 64, "w4a4": 16}
    done = sum(macs[node] * spent[chosen[unit.name]] for unit in units(graph) for node in unit.nodes)
    assert done <= 0.4 * 64 * sum(macs.values())
    assert "w4a4" in chosen.values()
    assert len(set(chosen.values())) > 1
    few = {groups[name] for name, grid in model.grids.items() if grid.bits == 4}
    assert few == {group for unit, name in chosen.items() if name == "w4a4" for group in reads[unit]}
    predicted = predict_list(
        build_simulation(model, outputs=graph.outputs),
        [samples[name] for name in graph.inputs],
    )
    assert np.isfinite(predicted[0]).all()


def test_gradients_do_not_see_the_error_of_4_bit_activations():
    graph = separate_inputs(start("convolutions")[0], ["stem"], apart=True)
    samples = draw(graph)
    ranges = calibrate(graph, iter([samples]), method="minmax", total=24).ranges
    setting = setting_of(Recipe(model="", pipeline="light"), graph, samples)
    wish = BudgetOptions(compute_budget=0.9, candidates=("w8",), pin=("stem:w4a4",), sensitivity="gradient")
    base = specify(graph, ranges)
    with pytest.raises(UserError, match="use `sensitivity='measured'` or output_error"):
        decide(setting, base, lambda _: base, wish, narrow=ranges)


def test_what_cannot_be_met_or_is_not_there_is_told():
    with pytest.raises(Infeasible, match=r"keeps `size_budget=0\.01`; the smallest possible is 0\.0625 \("):
        decided("convolutions", size_budget=0.01, sensitivity="output_error")
    with pytest.raises(UserError, match="nowhere"):
        decided("convolutions", size_budget=0.2, pin=("nowhere:w8",), sensitivity="output_error")


@pytest.mark.parametrize("sensitivity", ["measured", "gradient", "output_error"])
def test_what_single_layers_lose_is_told_without_the_samples_that_judge(sensitivity):
    graph, samples, base, at = start("convolutions")
    found = []
    for factor in (1.0, -50.0):
        changed = {name: values.copy() for name, values in samples.items()}
        for values in changed.values():
            values[7::8] *= factor
        setting = setting_of(Recipe(model="", pipeline="advanced"), graph, changed)
        wish = BudgetOptions(size_budget=0.2, candidates=("w3", "w8"), sensitivity=sensitivity)
        found.append(survey(setting, base, at, wish))
    assert found[0].sensitivities == found[1].sensitivities
    assert found[0].problem == found[1].problem


def test_what_is_estimated_to_be_far_too_small_is_not_measured(tmp_path):
    graph, samples, base, at = start("convolutions")
    setting, path = setting_of(Recipe(model="", pipeline="light"), graph, samples), tmp_path / "ledger"
    wish = BudgetOptions(size_budget=0.3, candidates=("w3", "w8"))
    found = survey(setting, base, at, wish, ledger=path).sensitivities
    noted = {tuple(json.loads(line)["key"]) for line in path.read_text().splitlines()[1:]}
    assert {candidate for _, candidate in noted & found.keys()} >= {"w3"}
    small = found.keys() - noted
    assert small
    assert max(found[key] for key in small) < 1e-4


def test_states_are_fitted_by_the_method_that_the_recipe_names(monkeypatch):
    graph, samples, base, at = start("convolutions")
    asked = []

    def spy(problem, seed):
        asked.append(problem.name)
        return METHODS["nearest"](problem, seed)

    monkeypatch.setitem(METHODS, "adaquant", spy)
    recipe = Recipe(model="", pipeline="advanced", reconstruction="adaquant")
    setting = setting_of(recipe, graph, samples)
    survey(setting, base, at, BudgetOptions(size_budget=0.2, candidates=("w3", "w8"), sensitivity="output_error"))
    assert set(asked) == {unit.name for unit in units(graph)}


def test_for_a_largest_drop_only_what_could_be_chosen_is_fitted_and_a_mixture_is_measured_once():
    graph, samples, base, at = start("convolutions")
    setting, wish = setting_of(Recipe(model="", pipeline="light"), graph, samples), BudgetOptions(max_accuracy_drop=1.0)
    found = survey(setting, base, at, wish)
    every = offered(graph, found.units, wish, [setting.rescue])
    assert found.sensitivities.keys() < set(every)
    assert {unit for unit, _ in found.sensitivities} == {unit for unit, _ in every}
    chosen = dict(found.sensitivities.keys())  # of every unit the last
    assert found.bench.assemble(chosen) is found.bench.assemble(dict(reversed(chosen.items())))
