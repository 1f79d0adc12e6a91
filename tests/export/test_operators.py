"""Every operation of `OPERATORS` through conversion, passes and both runtimes, against the simulation."""

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list

from tfq.execution.interpreter import RUNTIMES, TfliteModel
from tfq.export import flatbuffer
from tfq.models.graph import Graph, Node
from tfq.operations.table import OPERATORS
from tfq.precision import FLOAT32
from tfq.simulate.wrap import build_simulation
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.parity import layer_parity
from tfq.verify.structure import verify_structure

EDGES = (("int8", "int8"), ("uint8", "uint8"), ("float32", "float32"), ("uint8", "float32"))
FEW = 8


def few(case):
    return {name: array[:FEW] for name, array in case.samples.items()}


def run(content, samples, **options):
    """The file's outputs in real values, [FEW, ...] each."""
    model = TfliteModel(content, **options)
    found = [model.run({name: array[i : i + 1] for name, array in samples.items()}) for i in range(FEW)]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def test_every_operation_is_in_one_of_the_graphs():
    covered = {node.kind for make in operator_graphs.ALL.values() for node in make().nodes}
    carried = {"Carried"}  # test_carried.py: what it computes, libraries say
    assert covered - {"Input"} == set(OPERATORS) - carried, "add the new operation to tests/operator_graphs.py"


@pytest.mark.parametrize("edges", EDGES, ids="-".join)
@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_the_file_is_what_the_specification_says(name, edges):
    case = operator_graphs.case(name, *edges)
    found = verify_structure(case.content, case.model)
    layers = [layer for layer in case.model.layers if layer.weight_grids]
    assert found.weights == len(layers)
    assert found.activations + len(found.absent) == len(case.model.grids)
    is_float = any(layer.precision == FLOAT32 for layer in case.model.layers)
    assert (found.float_operators > 0) == is_float
    model = TfliteModel(case.content)
    assert [info.name for info in model.inputs] == list(case.graph.inputs)
    assert [info.name for info in model.outputs] == list(case.graph.output_names)
    for info in model.inputs:
        assert info.dtype == (edges[0] if info.name in case.model.grids else case.graph[info.name].config["dtype"])
    for node, info in zip(case.graph.outputs, model.outputs, strict=True):
        assert info.dtype == (edges[1] if node in case.model.grids else "float32")


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_the_types_at_the_edges_change_no_value(name):
    samples = few(operator_graphs.case(name))
    expected = run(operator_graphs.case(name).content, samples, delegate=False)
    for edges in EDGES[1:]:
        found = run(operator_graphs.case(name, *edges).content, samples, delegate=False)
        for first, second in zip(expected, found, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("delegate", [True, False], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_the_file_computes_what_the_simulation_does(name, delegate, runtime):
    case = operator_graphs.case(name)
    samples = few(case)
    feeds = [samples[n] for n in case.graph.inputs]
    simulated = predict_list(build_simulation(case.model, outputs=case.graph.outputs), feeds)
    found = run(case.content, samples, delegate=delegate, runtime=runtime)
    for node, expected, values in zip(case.graph.outputs, simulated, found, strict=True):
        step = case.model.grids[node].scale[0] if node in case.model.grids else np.abs(expected).max() / 127
        assert np.ptp(expected) > 10 * step, "the output hardly moves: nothing is compared"
        assert np.abs(values - expected).max() < 3.5 * step
        assert np.abs(values - expected).mean() < step


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_every_layer_is_within_one_step_of_its_simulation(name):
    case = operator_graphs.case(name)
    samples = few(case)
    observed = observe(case.content, case.model, samples)
    absent = verify_structure(case.content, case.model).absent
    assert set(observed) == set(case.model.grids) - set(absent)
    found = layer_parity(teacher_forced(case.model, observed, samples), observed)
    assert {p.name: p.max_steps for p in found if p.max_steps > 1} == {}
    assert {p.name for p in found} == set(observed) - set(case.graph.inputs)
    # poolings and means are rounded by the kernels in another way than everything else
    rounded_otherwise = ("AveragePooling2D", "GlobalAveragePooling2D", "Mean")
    for parity in found:
        if case.graph[parity.name].kind not in rounded_otherwise:
            assert parity.differing < max(0.02, 1.5 / parity.elements), parity


@pytest.mark.parametrize("name", ["shared", "islands"])
def test_the_same_inputs_give_the_same_bytes(name):
    graph = operator_graphs.ALL[name]()
    assert operator_graphs.exported(graph).content == operator_graphs.case(name).content


FLOATS = {
    "layer normalisation": ("LayerNormalization", {"axis": -1}),
    "ELU": ("ELU", {}),
    **{name: ("Unary", {"function": name}) for name in ("softplus", "exp", "abs", "negative", "square")},
}


@pytest.mark.parametrize("order", ["before", "behind"])
@pytest.mark.parametrize("name", FLOATS)
def test_a_float_operation_stays_float_and_its_border_where_the_graph_has_it(name, order):
    """The converter would compute some in int8, and moves the border across a reshape, each way for some."""
    kind, config = FLOATS[name]
    rng = np.random.default_rng(0)
    weights = {}
    if kind == "LayerNormalization":
        weights = {"gamma": rng.uniform(0.5, 2, 8).astype(np.float32), "beta": rng.normal(size=8).astype(np.float32)}
    kernel = {"kernel": rng.normal(size=(1, 1, 8, 3)).astype(np.float32), "bias": np.ones(3, np.float32)}
    steps = [("grid", "Requantize", {}), ("image", "Reshape", {"target_shape": (1, 6, 8)})]
    nodes = [Node("x", "Input", {"shape": (6, 8), "dtype": "float32"}), Node("float", kind, config, ("x",), weights)]
    for step, step_kind, step_config in steps if order == "before" else steps[::-1]:
        nodes.append(Node(step, step_kind, step_config, (nodes[-1].name,)))
    nodes.append(Node("conv", "Conv2D", {"filters": 3, "kernel_size": 1}, (nodes[-1].name,), kernel))
    case = operator_graphs.exported(Graph(tuple(nodes), ("x",), ("conv",)))
    found = verify_structure(case.content, case.model)
    assert found.float_operators > 0
    model = flatbuffer.parse(case.content)
    kinds = [flatbuffer.operator_name(model, operator) for operator in model.subgraphs[0].operators]
    assert "LEAKY_RELU" not in kinds
    border = kinds.index("QUANTIZE")
    assert (border < kinds.index("RESHAPE")) == (order == "before")
