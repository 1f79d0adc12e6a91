"""Candidates by their names, and which nodes share one."""

import operator_graphs
import pytest

from tfq.models.widths import is_weighted, units
from tfq.precision import CANDIDATES, FLOATS, INT8, Precision


def test_names_are_unique_and_say_what_the_candidate_is():
    assert CANDIDATES["w8"] == INT8
    assert CANDIDATES["w3"] == Precision(weight_bits=3)
    assert CANDIDATES["w4-packed"] == Precision(weight_bits=4, storage="packed")
    assert CANDIDATES["w4a4"] == Precision(weight_bits=4, activation_bits=4)
    assert CANDIDATES["e3"] == Precision(entropy_bits=3)
    assert CANDIDATES["c16"] == Precision(clusters=16)
    assert [CANDIDATES[name].bits_stored for name in ("c2", "c16", "e3", "w6", "float16")] == [1, 4, 3, 6, 16]
    assert (CANDIDATES["float16"], CANDIDATES["float32"]) == FLOATS
    for name, candidate in CANDIDATES.items():
        assert candidate.name == name
    assert "w5-packed" not in CANDIDATES
    assert [c.name for c in CANDIDATES.values() if not c.has_grid] == ["float16", "float32"]


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_units_hold_every_weighted_node_once_and_calls_of_one_layer_together(name):
    graph = operator_graphs.ALL[name]()
    found = units(graph)
    members = [node for unit in found for node in unit.nodes]
    assert sorted(members) == sorted(n.name for n in graph.nodes if is_weighted(n))
    for unit in found:
        assert len({graph[node].group for node in unit.nodes}) == 1
    assert len({graph[unit.name].group for unit in found}) == len(found)


def test_two_calls_of_one_layer_are_one_unit():
    sizes = [len(unit.nodes) for unit in units(operator_graphs.ALL["shared"]())]
    assert max(sizes) > 1
