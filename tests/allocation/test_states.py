"""States against the engine that reconstructs whole models, and against what they leave alone."""

import dataclasses
import functools

import numpy as np
import operator_graphs
import pytest
from operator_graphs import draw, specified

from tfq.allocation.states import apply, find_states, float_states, packed, with_candidate
from tfq.models.operators import OPERATORS
from tfq.models.widths import units
from tfq.numerics import reference as numerics
from tfq.precision import precision_of
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.reconstruct import reconstruct
from tfq.simulate.judge import Version
from tfq.simulate.weights import integers

GRAPHS = ("convolutions", "shared", "transformer", "islands")
NAMES = ("w2", "w4", "w8", "e3")
CANDIDATES = [precision_of(name) for name in NAMES]


@functools.cache
def start(name):
    """(float graph, samples, 8-bit version)."""
    graph = operator_graphs.ALL[name]()
    samples = draw(graph)
    return graph, samples, Version("8 bit", graph, specified(graph, samples))


@functools.cache
def found(name, method="least_squares", workers=1, memory_limit=2**30):
    graph, samples, base = start(name)
    return find_states(
        graph, base, samples, candidates=CANDIDATES, method=method, workers=workers, memory_limit=memory_limit, seed=3
    )


def weights_of(graph):
    return {(n.name, w): value for n in graph.nodes for w, value in n.weights.items()}


def assert_same_states(one, other):
    assert list(one) == list(other)
    for key, state in one.items():
        assert state.layers == other[key].layers
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
            assert tuple(node.name for node in state.nodes) == unit.nodes == tuple(x.name for x in state.layers)
            for node, layer in zip(state.nodes, state.layers, strict=True):
                grid = layer.weights[OPERATORS[node.kind].kernel]
                assert (grid.bits, grid.storage, grid.entropy_bits) == (bits, "int8", candidate.entropy_bits)
                assert len(set(grid.scale)) == 1 or not candidate.entropy_bits
                codes = integers(node.weights[OPERATORS[node.kind].kernel], grid)
                assert np.abs(codes).max() <= numerics.integer_range(bits, symmetric=True)[1]
                assert layer.precision == "int8"
                assert node.inputs == base.graph[node.name].inputs


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("candidate", NAMES)
def test_all_states_of_one_candidate_are_the_parallel_reconstruction_of_the_model(name, candidate):
    graph, samples, base = start(name)
    uniform = base
    for unit in units(graph):
        uniform = with_candidate(uniform, unit, precision_of(candidate))
    expected, outcomes = reconstruct(
        graph, uniform, samples, METHODS["least_squares"], name="least_squares", mode="parallel", seed=3
    )
    chosen = [found(name)[unit.name, candidate] for unit in units(graph)]
    version = apply(base, *chosen)
    assert version.spec == expected.spec
    mine, theirs = weights_of(version.graph), weights_of(expected.graph)
    assert mine.keys() == theirs.keys()
    assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    errors = {o.name: (o.before, o.after if o.kept else o.before) for o in outcomes}
    assert {state.unit: (state.before, state.after) for state in chosen} == errors


def test_scales_begin_as_those_of_a_specification_do():
    graph, samples, base = start("convolutions")
    for unit in units(graph):
        expected = specified(graph, samples, weight_bits={name: 3 for name in unit.nodes})
        assert with_candidate(base, unit, precision_of("w3")).spec == expected
        expected = specified(graph, samples, entropy_bits={name: 3 for name in unit.nodes})
        assert with_candidate(base, unit, precision_of("e3")).spec == expected


def test_a_swap_leaves_every_other_node_and_grid_untouched():
    graph, _, base = start("convolutions")
    for state in found("convolutions").values():
        version = apply(base, state)
        own = {node.name for node in state.nodes}
        for before, after in zip(base.graph.nodes, version.graph.nodes, strict=True):
            assert (before.name, before.inputs, before.config) == (after.name, after.inputs, after.config)
            if before.name not in own:
                assert all(after.weights[name] is values for name, values in before.weights.items())
        for before, after in zip(base.spec.layers, version.spec.layers, strict=True):
            assert before == after or before.name in own
        assert version.spec.activations == base.spec.activations
        assert (version.graph.outputs, version.graph.output_names) == (graph.outputs, graph.output_names)


def test_calls_of_one_layer_keep_equal_weights():
    for state in found("shared").values():
        first, *others = state.nodes
        assert others
        for other in others:
            assert all(np.array_equal(first.weights[name], other.weights[name]) for name in first.weights)


def test_states_start_from_the_float_weights_and_not_from_those_of_the_base():
    graph, samples, base = start("shared")
    nodes = [n.replace(weights={k: v * 0 for k, v in n.weights.items()}) for n in base.graph.nodes]
    emptied = dataclasses.replace(base, graph=base.graph.replace_nodes(nodes))
    assert_same_states(find_states(graph, emptied, samples, candidates=CANDIDATES, seed=3), found("shared"))


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
    for before, after in zip(state.layers, stored.layers, strict=True):
        assert after.weights["kernel"] == dataclasses.replace(before.weights["kernel"], storage="int4")
        assert after.weights["bias"] == before.weights["bias"]
    assert stored.nodes == state.nodes


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
    base = Version("8 bit", graph, specified(graph, samples, **types))
    states = float_states(graph, base)
    found = units(graph)
    rng = np.random.default_rng(0)
    for subset in [*(rng.random(len(found)) < share for share in (0.3, 0.6)), np.ones(len(found), bool)]:
        chosen = [unit for unit, wanted in zip(found, subset, strict=True) if wanted]
        names = ["float16" if rng.random() < 0.5 else "float32" for _ in chosen]
        precisions = {node: kind for unit, kind in zip(chosen, names, strict=True) for node in unit.nodes}
        version = apply(base, *(states[unit.name, kind] for unit, kind in zip(chosen, names, strict=True)))
        assert version.spec == specified(graph, samples, precisions=precisions, **types)


def test_float_states_hold_the_float_weights_and_int8_ones_may_stand_beside_them():
    graph, _, base = start("convolutions")
    emptied = [n.replace(weights={k: v * 0 for k, v in n.weights.items()}) for n in base.graph.nodes]
    states = float_states(graph, dataclasses.replace(base, graph=base.graph.replace_nodes(emptied)))
    few = found("convolutions")["hidden", "w2"]
    version = apply(base, states["stem", "float16"], few)
    assert all(np.array_equal(version.graph["stem"].weights[k], v) for k, v in graph["stem"].weights.items())
    assert version.spec["stem"].precision == "float16"
    assert version.spec["hidden"] == few.layers[0]
