"""States against the engine that reconstructs whole models, and against what they leave alone."""

import dataclasses
import functools

import numpy as np
import operator_graphs
import pytest
from operator_graphs import calibration_of, draw, specified

from tfq.allocation.states import apply, as_wide, find_states, float_states, packed, with_candidate
from tfq.execution.resources import Resources
from tfq.models.widths import units
from tfq.numerics import reference as numerics
from tfq.operations.table import OPERATORS
from tfq.precision import FLOAT16, FLOATS, W4A16, W8A16, precision_of
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.reconstruct import Reconstruction, reconstruct
from tfq.simulate.weights import integers
from tfq.spec import Specification

GRAPHS = ("convolutions", "shared", "transformer", "islands")
NAMES = ("w2", "w4", "w8", "e3", "c4")
CANDIDATES = [precision_of(name) for name in NAMES]


@functools.cache
def start(name):
    """(float graph, samples, 8-bit model)."""
    graph = operator_graphs.ALL[name]()
    samples = draw(graph)
    return graph, samples, specified(graph, samples)


def everywhere(graph, candidates):
    return dict.fromkeys((unit.name for unit in units(graph)), candidates)


@functools.cache
def found(name, method="least_squares", workers=1, memory_limit=2**30):
    graph, samples, base = start(name)
    return find_states(
        graph,
        base,
        calibration_of(samples),
        candidates=everywhere(graph, CANDIDATES),
        method=method,
        seed=3,
        resources=Resources(memory_limit=memory_limit, workers=workers),
    )


def weights_of(graph):
    return {(n.name, w): value for n in graph.nodes for w, value in n.weights.items()}


def decisions(node):
    return node.precision, node.reason, node.grid, node.weight_grids


def assert_same_states(one, other):
    assert list(one) == list(other)
    for key, state in one.items():
        assert [decisions(node) for node in state.nodes] == [decisions(node) for node in other[key].nodes]
        assert (state.before, state.after) == (other[key].before, other[key].after)
        for a, b in zip(state.nodes, other[key].nodes, strict=True):
            assert all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_unit_has_a_state_for_every_candidate(name):
    graph, _, base = start(name)
    states = found(name)
    assert list(states) == [(unit.name, name) for unit in units(graph) for name in NAMES]
    for unit in units(graph):
        for candidate in CANDIDATES:
            state, bits = states[unit.name, candidate.name], candidate.weight_bits
            assert tuple(node.name for node in state.nodes) == unit.nodes
            for node in state.nodes:
                grid = node.weight_grids[OPERATORS[node.kind].kernel]
                assert (grid.bits, grid.storage, grid.entropy_bits) == (bits, "int8", candidate.entropy_bits)
                assert len(set(grid.scale)) == 1 or not candidate.entropy_bits
                assert len(grid.codebook) == candidate.clusters
                codes = integers(node.weights[OPERATORS[node.kind].kernel], grid)
                assert not grid.codebook or np.isin(codes, grid.codebook).all()
                low, high = numerics.integer_range(bits, symmetric=True)
                assert low <= codes.min()
                assert codes.max() <= high
                assert node.precision == candidate
                assert node.inputs == base[node.name].inputs


def test_states_of_16_bits_make_the_model_that_is_specified_so():
    graph, samples, base = start("shared")
    states = [as_wide(found("shared")[unit.name, "w8"], base) for unit in units(graph)]
    model, expected = apply(base, *states), specified(graph, samples, W8A16)
    assert {state.candidate for state in states} == {"w8a16"}
    for node in model.layers:
        assert (node.precision, node.reason, node.grid) == decisions(expected[node.name])[:3]
        assert node.weight_grids.keys() == expected[node.name].weight_grids.keys()
    alone = states[0].nodes[0]
    assert alone.weight_grids["bias"].storage == "int64"
    few = as_wide(found("shared")[units(graph)[0].name, "w4"], base)
    assert (few.candidate, few.nodes[0].precision) == ("w4a16", W4A16)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("candidate", NAMES)
def test_all_states_of_one_candidate_are_the_parallel_reconstruction_of_the_model(name, candidate):
    graph, samples, base = start(name)
    uniform = base
    for unit in units(graph):
        uniform = with_candidate(uniform, unit, precision_of(candidate))
    expected, outcomes = reconstruct(
        graph,
        uniform,
        calibration_of(samples),
        Reconstruction("least_squares", METHODS["least_squares"], mode="parallel"),
        seed=3,
    )
    chosen = [found(name)[unit.name, candidate] for unit in units(graph)]
    model = apply(base, *chosen)
    assert Specification.of(model) == Specification.of(expected)
    mine, theirs = weights_of(model), weights_of(expected)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    errors = {o.name: (o.before, o.after if o.kept else o.before) for o in outcomes}
    assert {state.unit: (state.before, state.after) for state in chosen} == errors


def test_scales_begin_as_those_of_a_specification_do():
    graph, samples, base = start("convolutions")
    for unit in units(graph):
        for candidate in map(precision_of, ("w3", "e3", "c8")):
            expected = specified(graph, samples, dict.fromkeys(unit.nodes, candidate))
            found = with_candidate(base, unit, candidate)
            assert [decisions(node) for node in found.nodes] == [decisions(node) for node in expected.nodes]


def test_a_swap_leaves_every_other_node_and_grid_untouched():
    graph, _, base = start("convolutions")
    for state in found("convolutions").values():
        model = apply(base, state)
        own = {node.name for node in state.nodes}
        for before, after in zip(base.nodes, model.nodes, strict=True):
            assert (before.name, before.inputs, before.config) == (after.name, after.inputs, after.config)
            if before.name not in own:
                assert all(after.weights[name] is values for name, values in before.weights.items())
            assert decisions(before) == decisions(after) or before.name in own
        assert model.grids == base.grids
        assert (model.outputs, model.output_names) == (graph.outputs, graph.output_names)


def test_calls_of_one_layer_keep_equal_weights():
    for state in found("shared").values():
        first, *others = state.nodes
        assert others
        for other in others:
            assert all(np.array_equal(first.weights[name], other.weights[name]) for name in first.weights)


def test_states_start_from_the_float_weights_and_not_from_those_of_the_base():
    graph, samples, base = start("shared")
    nodes = [n.replace(weights={k: v * 0 for k, v in n.weights.items()}) for n in base.nodes]
    emptied = base.with_nodes(*nodes)
    candidates = everywhere(graph, CANDIDATES)
    assert_same_states(
        find_states(graph, emptied, calibration_of(samples), candidates=candidates, seed=3), found("shared")
    )


def test_a_state_is_the_same_whatever_others_are_wanted():
    graph, samples, base = start("convolutions")
    names = [unit.name for unit in units(graph)]
    some = {names[0]: CANDIDATES[1:2], names[-1]: CANDIDATES[::2]}
    few = find_states(graph, base, calibration_of(samples), candidates=some, seed=3)
    assert {key for key in few} == {(name, candidate.name) for name in some for candidate in some[name]}
    assert_same_states(few, {key: found("convolutions")[key] for key in few})


@pytest.mark.parametrize("options", [{"workers": 2}, {"memory_limit": 0}])
def test_threads_and_the_memory_limit_change_nothing(options):
    assert_same_states(found("convolutions", **options), found("convolutions"))


def test_more_bits_and_a_reconstruction_lower_the_error():
    nearest, solved = found("convolutions", "nearest"), found("convolutions")
    for unit in units(start("convolutions")[0]):
        errors = [solved[unit.name, f"w{bits}"].after for bits in (2, 4, 8)]
        assert errors == sorted(errors, reverse=True)
        for bits in (2, 4, 8):
            key = unit.name, f"w{bits}"
            assert nearest[key].before == nearest[key].after == solved[key].before
            assert solved[key].after <= solved[key].before
    gain = [solved[key].after / solved[key].before for key in solved if key[1] == "w2"]
    assert np.mean(gain) < 0.8


def test_packed_states_hold_the_same_integers():
    state = found("shared")["conv_right", "w4"]
    stored = packed(state)
    assert stored.key == ("conv_right", "w4-packed")
    for before, after in zip(state.nodes, stored.nodes, strict=True):
        kernel, bias = before.weight_grids["kernel"], before.weight_grids["bias"]
        assert after.weight_grids == {"kernel": dataclasses.replace(kernel, storage="int4"), "bias": bias}
        assert after.precision == precision_of("w4-packed")
        assert after.weights is before.weights


def test_what_cannot_be_packed_is_refused():
    states = found("convolutions")
    with pytest.raises(ValueError, match="of 8 bits cannot be stored as INT4"):
        packed(states["stem", "w8"])
    with pytest.raises(ValueError, match="Conv2DTranspose 'transposed' of 2 bits"):
        packed(states["transposed", "w2"])


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("edges", ["int8", "float32"])
def test_float_states_give_the_specification_of_these_precisions(name, edges):
    graph, samples, _ = start(name)
    types = {"input_type": edges, "output_type": edges}
    base = specified(graph, samples, **types)
    states = float_states(graph, base)
    found = units(graph)
    rng = np.random.default_rng(0)
    for subset in [*(rng.random(len(found)) < share for share in (0.3, 0.6)), np.ones(len(found), bool)]:
        chosen = [unit for unit, wanted in zip(found, subset, strict=True) if wanted]
        names = [FLOATS[int(rng.random() >= 0.5)].name for _ in chosen]
        precisions = {node: precision_of(kind) for unit, kind in zip(chosen, names, strict=True) for node in unit.nodes}
        model = apply(base, *(states[unit.name, kind] for unit, kind in zip(chosen, names, strict=True)))
        assert Specification.of(model) == Specification.of(specified(graph, samples, precisions, **types))


def test_float_states_hold_the_float_weights_and_int8_ones_may_stand_beside_them():
    graph, _, base = start("convolutions")
    emptied = [n.replace(weights={k: v * 0 for k, v in n.weights.items()}) for n in base.nodes]
    states = float_states(graph, base.with_nodes(*emptied))
    few = found("convolutions")["hidden", "w2"]
    model = apply(base, states["stem", "float16"], few)
    assert all(np.array_equal(model["stem"].weights[k], v) for k, v in graph["stem"].weights.items())
    assert model["stem"].precision == FLOAT16
    assert decisions(model["hidden"]) == decisions(few.nodes[0])
