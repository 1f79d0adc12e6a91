"""The latency table: its file, what it predicts, and how it is measured."""

import dataclasses
import json

import numpy as np
import operator_graphs
import pytest

from tfq.allocation.costs import border_costs
from tfq.allocation.latency_table import (
    DEQUANTIZE,
    FAMILIES,
    QUANTIZE,
    Check,
    Entry,
    LatencyTable,
    border_operation,
    border_price,
    family_of,
    operations,
    parse_table,
    predicted_latency,
    read_table,
    unit_latencies,
)
from tfq.allocation.profile import border_file, make_table, predicted_whole, profile
from tfq.errors import UserError
from tfq.execution.interpreter import TfliteModel
from tfq.models.borders import find_borders
from tfq.models.equality import tensor_shapes
from tfq.models.widths import units
from tfq.precision import CANDIDATES

OVERHEAD = 0.5
IN_PLACE = {"int8": 1.25}
SLOWER = {"int8": 1, "packed": 2, "float16": 3, "float32": 4}
MIXED = {"every_second_float32", "last_float32"}
TIMED = [name for name, precision in CANDIDATES.items() if not precision.is_dynamic]  # a table has no others


def made_up(graph):
    """A table in which the i-th operation takes i + 1 ms in int8 and the borders 100 ms, alone; int8 in place more."""
    distinct = list(dict.fromkeys(operations(graph).values()))
    entries = [
        Entry(operation, family, OVERHEAD + (number + 1) * SLOWER[family], 0.01, 48)
        for number, operation in enumerate(distinct)
        for family in FAMILIES
    ]
    entries += [
        Entry(border_operation(kind, shape), "int8", OVERHEAD + 100, 0.01, 48)
        for shape in set(tensor_shapes(graph).values())
        for kind in (QUANTIZE, DEQUANTIZE)
    ]
    return LatencyTable(
        "a phone", "runtime 1", 1, "2026-01-31", OVERHEAD, tuple(entries), IN_PLACE, (Check("int8", 2.0, 2.1),)
    )


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_a_table_survives_its_file(name, tmp_path):
    table = made_up(operator_graphs.ALL[name]())
    (tmp_path / "table.json").write_text(table.to_json())
    assert read_table(tmp_path / "table.json") == table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, expected 1"),
        ({"device": None, "extra": 1}, "no latency table"),
        ({"overhead_ms": -1}, "no latency table"),
        ({"entries": [{"family": "int8"}]}, "no latency table"),
        ({"in_place": {"int8": 0}}, "in_place of 'int8' .=0.0. must be a positive number"),
        ({"in_place": {"int4": 1.0}}, "in_place of 'int4' .=1.0. must be a positive number, of a known family"),
    ],
)
def test_a_broken_table_is_an_error_of_the_user(change, message):
    data = json.loads(made_up(operator_graphs.ALL["shared"]()).to_json()) | change
    with pytest.raises(UserError, match=message):
        parse_table(json.dumps(data))
    with pytest.raises(UserError, match="it is no JSON"):
        parse_table(json.dumps(data)[:-30])


def test_a_table_that_cannot_be_read_is_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"the latency table .*none.json cannot be read: no such file"):
        read_table(tmp_path / "none.json")


def test_what_the_table_lacks_is_named():
    graph = operator_graphs.ALL["convolutions"]()
    table = made_up(graph)
    kept = tuple(e for e in table.entries if (e.operation.kind, e.family) != ("DepthwiseConv2D", "packed"))
    with pytest.raises(UserError, match=r"lacks 2 .* DepthwiseConv2D 6x6x8 -> 6x6x8 \(packed\)"):
        unit_latencies(dataclasses.replace(table, entries=kept), graph, units(graph), ["w8", "w4-packed"])


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_the_latency_of_a_model_is_the_sum_over_its_operations_and_borders(name):
    graph = operator_graphs.ALL[name]()
    table, found = made_up(graph), units(graph)
    number = {operation: place + 1 for place, operation in enumerate(dict.fromkeys(operations(graph).values()))}
    chosen = {unit.name: ["w4", "float32", "w3-packed"][place % 3] for place, unit in enumerate(found)}
    families = {node: family_of(chosen[unit.name]) for unit in found for node in unit.nodes}
    borders = find_borders(graph, [node for node, family in families.items() if family == "float32"])
    expected = OVERHEAD + 100.0 * IN_PLACE["int8"] * (len(borders.quantized) + len(borders.dequantized))
    for node, operation in operations(graph).items():
        if node in borders.nodes and graph[node].kind == "Requantize":
            continue
        family = families.get(node, "float32" if node in borders.nodes else "int8")
        expected += number[operation] * SLOWER[family] * IN_PLACE.get(family, 1.0)
    assert predicted_latency(table, graph, families) == pytest.approx(expected)

    # as costs of the program: exact where one unit is float
    times = unit_latencies(table, graph, found, ["w8", "float32"])
    _, own = border_costs(graph, found, border_price(table, graph))
    pairs, base = border_costs(graph, found, border_price(table, graph))[0], dict.fromkeys(families, "int8")
    for unit in found:
        crossed = sum(b.costs["latency_ms"] for b in pairs if unit.name in (b.first, b.second))
        change = times[unit.name, "float32"] - times[unit.name, "w8"] + own[unit.name]["latency_ms"] + crossed
        alone = predicted_latency(table, graph, base | dict.fromkeys(unit.nodes, "float32"))
        assert alone - predicted_latency(table, graph, base) == pytest.approx(change)


@pytest.mark.parametrize("name", ["convolutions", "shared"])
def test_factors_make_whole_models_what_they_were_measured_to_take(name):
    """And mixed models lie between: the factors are those of their operations."""
    graph = operator_graphs.ALL[name]()
    made = made_up(graph)
    alone = dataclasses.replace(made, in_place={})
    whole = {f: 1.3 * predicted_whole(alone, graph, f) for f in FAMILIES} | dict.fromkeys(MIXED, 7.0)
    about = {"device": "a phone", "runtime": "runtime 1", "threads": 1, "overhead_ms": OVERHEAD}
    table = make_table(graph, made.entries, whole, **about)
    for family in FAMILIES:
        assert predicted_whole(table, graph, family) == pytest.approx(whole[family])
    assert {check.model: check.measured_ms for check in table.checks} == whole
    for check in table.checks:
        assert check.predicted_ms == pytest.approx(predicted_whole(table, graph, check.model))
        assert check.predicted_ms > predicted_whole(alone, graph, check.model)
    # all that is known of a model that is as fast as its invocation: no factor
    assert make_table(graph, made.entries, {"int8": OVERHEAD / 2}, **about).in_place == {}
    assert make_table(graph, made.entries, {}, **about).checks == ()


def test_every_candidate_has_a_family():
    assert {family_of(name) for name in TIMED} == set(FAMILIES)
    assert family_of("w3") == family_of("w4a4") == family_of("w8") == "int8"


def test_the_files_of_borders_quantise_and_dequantise():
    values = np.linspace(-3, 3, 24, dtype=np.float32).reshape(1, 2, 3, 4)
    for kind in (QUANTIZE, DEQUANTIZE):
        model = TfliteModel(border_file(kind, (2, 3, 4)))
        assert [str(t.dtype) for t in (*model.inputs, *model.outputs)] == (
            ["float32", "int8"] if kind == QUANTIZE else ["int8", "float32"]
        )
        np.testing.assert_allclose(model.run({"x": values})[0], values, atol=8 / 255 / 2 + 1e-6)


def test_a_profile_holds_every_operation_at_every_family_it_can_have():
    graph = operator_graphs.ALL["shared"]()
    table = profile(graph, runs=4, seconds=0.0)
    known = {(e.operation, e.family) for e in table.entries}
    for node, operation in operations(graph).items():
        weighted = node in {n for unit in units(graph) for n in unit.nodes}
        families = FAMILIES if weighted else ("int8", "float32")
        assert {f for o, f in known if o == operation} == set(families), operation.name
    assert len(known) == len(table.entries)
    assert set(table.in_place) <= set(FAMILIES)
    assert {check.model for check in table.checks} == {*FAMILIES, *MIXED}
    assert all(check.predicted_ms >= table.overhead_ms > 0 and check.measured_ms > 0 for check in table.checks)
    assert parse_table(table.to_json()) == table
    unit_latencies(table, graph, units(graph), TIMED)
