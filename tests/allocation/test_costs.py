"""Costs of units and borders against real files and against counting."""

import itertools
import sys
from pathlib import Path

import operator_graphs
import pytest

from tfq.allocation.costs import (
    all_costs,
    border_bytes,
    border_costs,
    coded_bytes,
    fixed_costs,
    largest_activations,
    multiply_accumulates,
)
from tfq.evaluation.size import measure_size
from tfq.models.borders import find_borders
from tfq.models.widths import units
from tfq.precision import CANDIDATES, INT8

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def predicted(case, specified, chosen):
    """Total costs of the model whose units have the `chosen` candidates, from an 8-bit file of it."""
    found = units(case.graph)
    macs = multiply_accumulates(case.graph)
    models = {name: specified(CANDIDATES[name]) for name in chosen.values()} | {"w8": case.model}
    priced = {(unit.name, name): [model[n] for n in unit.nodes] for name, model in models.items() for unit in found}
    costs = all_costs(priced, macs)
    fixed = fixed_costs(case.content, [costs[unit.name, "w8"] for unit in found], case.graph)
    borders, own = border_costs(case.graph, found, border_bytes(case.graph))
    floats = {name for name, candidate in chosen.items() if CANDIDATES[candidate].is_float}
    totals = dict(fixed)
    for unit in found:
        for name, value in costs[unit.name, chosen[unit.name]].items():
            totals[name] += value + (own[unit.name].get(name, 0.0) if unit.name in floats else 0.0)
    for border in borders:
        for name, value in border.costs.items():
            totals[name] += value * ((border.first in floats) != (border.second in floats))
    return totals


@pytest.mark.parametrize("mixture", [("w4", "w3-packed", "w8"), ("w8", "float32", "w6", "float16")])
def test_totals_are_those_of_the_exported_file(mixture):
    case = operator_graphs.case("convolutions")
    chosen = dict(zip((unit.name for unit in units(case.graph)), itertools.cycle(mixture)))
    chosen["transposed"] = "w8"
    real = operator_graphs.exported(case.graph, by_node(case.graph, chosen))

    def specified(precision):
        return operator_graphs.specified(case.graph, case.samples, precision)

    totals, size = predicted(case, specified, chosen), measure_size(real.content)
    # of these few kB the hundredth is 80 bytes: what flatbuffers align, the zero-points that float layers no longer
    # share and what deflate finds across units comes on top
    assert totals["file_bytes"] == pytest.approx(size.file_bytes, rel=0.01, abs=32 * len(chosen))
    assert totals["download_bytes"] == pytest.approx(size.download_bytes, rel=0.01, abs=32 * len(chosen))


def by_node(graph, chosen):
    """Precisions for `specify`."""
    return {node: CANDIDATES[chosen[unit.name]] for unit in units(graph) for node in unit.nodes}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there: no resnet8 to export")
def test_totals_of_resnet8_are_near_those_of_the_files():
    sys.path.insert(0, str(DATA.parent))
    import cases

    from tfq.calibration.calibrate import calibrate
    from tfq.calibration.specify import specify
    from tfq.export.package import export_quantized
    from tfq.models.load import load_model
    from tfq.models.prepare import prepare

    found = cases.load("resnet8_cifar10")
    loaded = load_model(found.model_path)
    inputs = {loaded.graph.inputs[0]: found.calibration[:32]}
    graph = prepare(loaded.graph, inputs).graph
    ranges = calibrate(graph, [inputs], method="minmax", total=32).ranges

    def export(precisions):
        model = specify(graph, ranges, precisions)
        return model, export_quantized(model, operator_graphs.representative(inputs))

    base = operator_graphs.Case(graph, inputs, *export(INT8))
    names = [unit.name for unit in units(graph)]
    for mixture in (("w4",), ("w3", "w5", "w2", "w6"), ("w4-packed", "w8", "float16"), ("w8", "float32", "w3")):
        chosen = dict(zip(names, itertools.cycle(mixture)))
        totals = predicted(base, lambda precision: specify(graph, ranges, precision), chosen)
        size = measure_size(export(by_node(graph, chosen))[1])
        assert totals["file_bytes"] == pytest.approx(size.file_bytes, rel=0.01), mixture
        # deflate's code tables and strategy fit a file of one width best: not additive
        within = 0.015 if len(mixture) == 1 else 0.055
        assert totals["download_bytes"] == pytest.approx(size.download_bytes, rel=within), mixture


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_borders_are_exact_for_every_one_and_every_two_float_units(name):
    graph = operator_graphs.ALL[name]()
    found = units(graph)

    def price(borders):
        return {"quantize": float(len(borders.quantized)), "dequantize": 7.0 * len(borders.dequantized)}

    borders, own = border_costs(graph, found, price)
    none = price(find_borders(graph))
    for chosen in itertools.chain.from_iterable(itertools.combinations(found, count) for count in (0, 1, 2)):
        real = price(find_borders(graph, [node for unit in chosen for node in unit.nodes]))
        names = {unit.name for unit in chosen}
        for cost, value in real.items():
            crossed = [b.costs[cost] for b in borders if (b.first in names) != (b.second in names)]
            assert none[cost] + sum(own[n][cost] for n in names) + sum(crossed) == pytest.approx(value), names


def test_operations_are_counted_as_they_are_done():
    graph = operator_graphs.ALL["convolutions"]()
    macs = multiply_accumulates(graph)
    assert macs["stem"] == 6 * 6 * 3 * 3 * 3 * 8
    assert macs["depthwise"] == 6 * 6 * 3 * 3 * 8
    assert macs["doubled"] == 4 * 4 * 3 * 3 * 8 * 2  # valid padding
    assert macs["transposed"] == 4 * 4 * 3 * 3 * 6 * 8  # every input element meets every tap
    assert macs["hidden"] == 6 * 12
    assert largest_activations(graph) == max(12 * 12 * 3 + 6 * 6 * 8, 8 * 8 * 6 * 2, 4 * 4 * 8 + 8 * 8 * 6)


def test_costs_follow_bits_and_storage():
    case = operator_graphs.case("convolutions")
    macs = multiply_accumulates(case.graph)
    costs = {}
    for name in ("w2", "w4", "w4-packed", "w4a4", "w8", "float16", "float32"):
        model = operator_graphs.specified(case.graph, case.samples, CANDIDATES[name])
        costs |= {name: found for (_, name), found in all_costs({("stem", name): [model["stem"]]}, macs).items()}
    weights, filters = 3 * 3 * 3 * 8, 8
    assert costs["w8"]["memory_bytes"] == weights + 4 * filters
    assert costs["w4-packed"]["memory_bytes"] == weights / 2 + 4 * filters
    assert costs["float16"]["memory_bytes"] == costs["float32"]["memory_bytes"] == 4 * (weights + filters)
    assert costs["w4"]["file_bytes"] - costs["w4-packed"]["file_bytes"] == weights / 2
    assert costs["w2"]["file_bytes"] == costs["w8"]["file_bytes"]
    assert costs["w2"]["download_bytes"] < costs["w4"]["download_bytes"] < costs["w8"]["download_bytes"]
    assert costs["w8"]["bops"] == 64 * macs["stem"] == 2 * costs["w4"]["bops"] == 4 * costs["w4a4"]["bops"]
    assert costs["float16"]["bops"] == 1024 * macs["stem"]


def test_calls_of_one_layer_are_stored_once_and_computed_twice():
    case = operator_graphs.case("shared")
    macs = multiply_accumulates(case.graph)
    unit = next(unit for unit in units(case.graph) if len(unit.nodes) == 2)
    nodes = [case.model[name] for name in unit.nodes]
    same = [node.replace(weight_grids=nodes[0].weight_grids) for node in nodes]  # with inputs on one grid
    one, two = (all_costs({("shared", "w8"): same[:count]}, macs)["shared", "w8"] for count in (1, 2))
    assert two["macs"] == 2 * one["macs"]
    assert two["memory_bytes"] == one["memory_bytes"]


def test_coded_bytes_differ_as_deflated_ones_do():
    """What a layer adds beside its integers, such as the tensor itself, is the same in all of its precisions."""
    case = operator_graphs.case("convolutions")
    macs = multiply_accumulates(case.graph)
    coded, stored = {}, {}
    for name in ("w2", "w4", "w8"):
        model = operator_graphs.specified(case.graph, case.samples, CANDIDATES[name])
        node = max(
            (model[unit.name] for unit in units(case.graph)),
            key=lambda node: sum(v.size for v in node.weights.values()),
        )
        coded[name] = coded_bytes([node])
        stored[name] = all_costs({("unit", name): [node]}, macs)["unit", name]["download_bytes"]
    for name in ("w2", "w4"):
        assert coded["w8"] - coded[name] == pytest.approx(stored["w8"] - stored[name], rel=0.3)
