"""The diagnosis of a model against parts put together by hand."""

import re

import numpy as np
import operator_graphs
import pytest

from tfq.evaluation.diagnosis import diagnose
from tfq.models.widths import is_weighted
from tfq.precision import Precision
from tfq.report.diagnosis import diagnosis_text
from tfq.simulate.eager import tensors
from tfq.simulate.judge import Judge


@pytest.fixture(scope="module")
def made():
    """(graph, model, samples, others, diagnosis)."""
    graph = operator_graphs.convolutions()
    samples, others = operator_graphs.draw(graph), operator_graphs.draw(graph, seed=1)
    model = operator_graphs.specified(graph, samples, Precision(weight_bits=4))
    return graph, model, samples, others, diagnose(graph, model, samples, others)


def part(found, name, samples="unseen"):
    (row,) = [row for row in found.parts if (row.part, row.samples) == (name, samples)]
    return row


def test_all_is_what_the_judge_measures(made):
    graph, model, samples, others, found = made
    for name, arrays in (("fitted", samples), ("unseen", others)):
        assert part(found, "all", name).divergence == pytest.approx(Judge(graph, arrays).divergence(model).mean())


def test_weights_and_activations_lose_by_themselves(made):
    graph, model, _, others, found = made
    float_activations = model.with_nodes(*(node.replace(grid=None) for node in model.nodes))
    (y,), (q,) = (tensors(g, others, ["logits"]) for g in (graph, float_activations))
    expected = 10 * np.log10(np.square(y, dtype=float).sum() / np.square(y - q, dtype=float).sum())
    assert part(found, "weights").sqnr_db == pytest.approx(expected, rel=1e-3)
    assert part(found, "weights").agreement == 100 * (y.argmax(-1) == q.argmax(-1)).mean()
    fine = operator_graphs.specified(graph, operator_graphs.draw(graph), Precision(weight_bits=8))
    again = diagnose(graph, fine, others, others)
    assert part(again, "activations").sqnr_db == pytest.approx(part(found, "activations").sqnr_db)
    assert part(again, "weights").sqnr_db > part(found, "weights").sqnr_db + 15
    assert part(found, "activations").divergence < part(found, "weights").divergence


def test_kinds_of_layers_are_counted_and_together_are_all(made):
    _, model, _, _, found = made
    kinds = [
        row.layers for row in found.parts if row.part in ("depthwise weights", "pointwise weights", "other weights")
    ]
    assert sum(kinds) == part(found, "all").layers == sum(map(is_weighted, model.nodes))
    assert part(found, "depthwise weights").layers == 2


def test_layers_are_compared_in_order(made):
    graph, model, _, others, found = made
    names = [layer.name for layer in found.layers]
    assert names == [node.name for node in graph.nodes if is_weighted(node) or node.kind == "Add"]
    (y,), (q,) = (tensors(g, others, ["add"]) for g in (graph, model))
    (row,) = [layer for layer in found.layers if layer.name == "add"]
    expected = 10 * np.log10(np.square(y, dtype=float).sum() / np.square(y - q, dtype=float).sum())
    assert row.both == pytest.approx(expected, rel=1e-3)
    assert row.activations > row.both


def test_the_text_holds_every_part_and_the_layers_asked_for(made):
    found = made[-1]
    text = diagnosis_text(found, (), re.compile("^add$"))
    assert all(row.part in text for row in found.parts)
    assert [line.split()[0] for line in text.splitlines() if " dB" in line][-1] == "add"
    assert "stem" not in text
