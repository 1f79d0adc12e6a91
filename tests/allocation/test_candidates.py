"""Candidates by their names, and which nodes share one."""

import operator_graphs
import pytest

from tfq.allocation.candidates import ALL, FLOATS, INT8, Candidate, units
from tfq.models.widths import is_weighted


def test_names_are_unique_and_say_what_the_candidate_is():
    assert ALL["w8"] == INT8
    assert ALL["w3"] == Candidate(weight_bits=3)
    assert ALL["w4-packed"] == Candidate(weight_bits=4, storage="packed")
    assert ALL["w4a4"] == Candidate(weight_bits=4, activation_bits=4)
    assert ALL["e3"] == Candidate(entropy_bits=3)
    assert (ALL["float16"], ALL["float32"]) == FLOATS
    for name, candidate in ALL.items():
        assert candidate.name == name
    assert "w5-packed" not in ALL
    assert [c.name for c in ALL.values() if c.is_float] == ["float16", "float32"]


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
