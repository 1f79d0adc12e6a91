"""Parity must notice an operation that computes something else."""

import dataclasses

import numpy as np
import operator_graphs
import pytest

from tfq.errors import VerificationError
from tfq.export import flatbuffer
from tfq.export.package import export_plain
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.parity import LayerParity, layer_parity, output_parity, parity_note
from tfq.verify.runtimes import verify_runtimes


def parity(content, case):
    few = {name: array[:6] for name, array in case.samples.items()}
    observed = observe(content, case.model, few)
    return {p.name: p for p in layer_parity(teacher_forced(case.model, observed, few), observed)}


@pytest.fixture(scope="module")
def rewired():
    """(case, its file with the addition reading one of its inputs twice)."""
    case = operator_graphs.case("convolutions")
    model = flatbuffer.parse(case.content)
    subgraph = model.subgraphs[0]
    names = [flatbuffer.text(subgraph.tensors[o.outputs[0]].name) for o in subgraph.operators]
    operator = subgraph.operators[names.index("add")]
    operator.inputs = np.array([operator.inputs[0], operator.inputs[0]], np.int32)
    return case, flatbuffer.serialize(model)


def test_an_operation_that_computes_something_else_shows_in_its_own_row_alone(rewired):
    case, content = rewired
    found = parity(content, case)
    assert {name for name, p in found.items() if p.max_steps > 1} == {"add"}
    assert found["add"].differing > 0.1
    assert found["add"].elements == 6 * 4 * 4 * 8
    with pytest.raises(VerificationError, match=r"^1 layers differ from the simulation by .* add \("):
        parity_note(tuple(found.values()))


def test_a_few_steps_are_a_note_and_not_an_error():
    note = parity_note([LayerParity("a", 3, 0.5, 10), LayerParity("b", 1, 0.0, 10)])
    assert note == "1 layers differ from the simulation by more than one step on their own inputs: a (3)"


def test_end_to_end_it_shows_at_the_output(rewired):
    case, content = rewired
    good = output_parity(case.content, case.model, case.samples)
    bad = output_parity(content, case.model, case.samples)
    assert [(p.name, p.kernels, p.samples) for p in good] == [
        ("probabilities", "xnnpack", 24),
        ("probabilities", "builtin", 24),
    ]
    for one, other in zip(good, bad, strict=True):
        assert one.max_steps <= 2
        assert other.mean_steps > 5 * one.mean_steps
        assert other.max_steps > 2


def test_no_note_without_a_difference_above_one_step():
    assert parity_note([LayerParity("a", 1, 0.5, 10), LayerParity("b", 0, 0.0, 10)]) == ""


def test_teacher_forcing_feeds_every_layer_what_the_file_computed():
    case = operator_graphs.case("arithmetic")
    few = {name: array[:3] for name, array in case.samples.items()}
    observed = observe(case.content, case.model, few)
    forced = teacher_forced(case.model, observed, few)
    assert set(forced.outputs) == set(observed) - set(case.graph.inputs)
    for node in forced.graph.nodes:
        if node.kind != "Input":
            assert all(forced.graph[source].kind == "Input" for source in node.inputs), node.name
    assert set(forced.feeds) == set(forced.graph.inputs)
    for name, value in forced.feeds.items():
        np.testing.assert_array_equal(value, observed[name])
        codes = value / case.model.grids[name].scale[0]
        np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)


def test_both_runtimes_open_and_run_the_file():
    case = operator_graphs.case("shared")
    verify_runtimes(case.content, case.samples, name="model.tflite")


def test_a_file_that_a_runtime_refuses():
    case = operator_graphs.case("shared")
    model = flatbuffer.parse(case.content)
    for code in model.operatorCodes:
        code.version = 90
    with pytest.raises(VerificationError, match=r"model\.tflite does not run in litert: "):
        verify_runtimes(flatbuffer.serialize(model), case.samples, name="model.tflite")


def test_a_file_that_gives_nan():
    graph, samples = operator_graphs.shared(), operator_graphs.case("shared").samples
    nan = {"kernel": graph["dense_left"].weights["kernel"], "bias": np.float32([0, np.nan, 0])}
    nodes = tuple(n.replace(weights=nan) if n.name == "dense_left" else n for n in graph.nodes)
    content = export_plain(dataclasses.replace(graph, nodes=nodes), "float32", operator_graphs.representative(samples))
    with pytest.raises(VerificationError, match=r"model\.tflite gives NaN or Inf in litert on the first calibration"):
        verify_runtimes(content, samples, name="model.tflite")
