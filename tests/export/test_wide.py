"""Layers with 16-bit activations among those of 8: which they are, what the file computes, what verification finds."""

import numpy as np
import operator_graphs
import pytest

from tfq.allocation.costs import wide_border_bytes
from tfq.errors import VerificationError
from tfq.execution.interpreter import TfliteModel
from tfq.export import flatbuffer
from tfq.export.variants import Exporter
from tfq.grid import activation_grid, copied_wide, wide_grid
from tfq.models.borders import find_borders, find_wide
from tfq.models.graph import Graph, Node
from tfq.models.widths import is_weighted
from tfq.precision import FLOAT32, W4A16, W8A16
from tfq.simulate.eager import tensors
from tfq.spec import Specification
from tfq.verify.forced import observe, teacher_forced
from tfq.verify.parity import layer_parity
from tfq.verify.runtimes import verify_runtimes
from tfq.verify.structure import verify_structure

FEW = 4
EDGES = {"input_type": "float32", "output_type": "float32"}


def chain(outlier: float = 1.0) -> Graph:
    """Two convolutions, a mean, a dense layer, a softmax; one channel is so much larger, and the second ignores it."""
    rng = np.random.default_rng(11)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    first, second = normal(1, 1, 3, 4), normal(3, 3, 4, 4)
    first[..., 1] *= outlier
    second[:, :, 1] *= outlier == 1
    nodes = (
        Node("image", "Input", {"shape": (6, 6, 3), "dtype": "float32"}),
        Node("first", "Conv2D", {"filters": 4, "kernel_size": 1, "use_bias": False}, ("image",), {"kernel": first}),
        Node(
            "second",
            "Conv2D",
            {"filters": 4, "kernel_size": 3},
            ("first",),
            {"kernel": second, "bias": normal(4)},
            "relu",
        ),
        Node("mean", "GlobalAveragePooling2D", {}, ("second",)),
        Node("last", "Dense", {"units": 5}, ("mean",), {"kernel": normal(4, 5), "bias": normal(5)}),
        Node("probabilities", "Softmax", {}, ("last",)),
    )
    return Graph(nodes, ("image",), ("probabilities",))


def wide(graph, *chosen, floats=(), **edges):
    return find_wide(graph, chosen, find_borders(graph, floats, **edges), **edges)


def test_the_graph_says_which_nodes_and_tensors_have_16_bits():
    graph = chain()
    one = wide(graph, "second")
    assert one.nodes == {"second", "mean"}  # the mean reads nothing else
    assert one.tensors == {"second"}
    both_edges = {"float_inputs": True, "float_outputs": True}
    everything = wide(graph, "first", "second", "last", **both_edges)
    assert everything.nodes == {node.name for node in graph.nodes} - {"image"}
    assert everything.tensors == {node.name for node in graph.nodes}
    assert not wide(graph).nodes | wide(graph).tensors
    beside_float = wide(graph, "second", floats=["first"])
    assert beside_float.tensors == {"first", "second"}  # a QUANTIZE makes the first one


def test_nothing_follows_that_would_cost_another_border():
    graph = operator_graphs.residual()
    assert wide(graph, "branch").nodes == {"branch"}  # the sum reads a tensor of 8 bits too
    assert wide(graph, "dense").nodes == {"mean", "dense", "probabilities"}
    assert wide(graph, "stem", "branch").tensors == frozenset()  # an 8-bit layer reads the stem
    block = wide(graph, "stem", "depthwise", "branch")
    assert block.nodes == {"stem", "depthwise", "branch", "add"}  # a pooling would need an int16 output
    assert block.tensors == {"stem", "depthwise", "branch"}


def test_a_softmax_of_many_classes_keeps_8_bits():
    """Its int16 kernel is off by two steps for each of them."""
    graph = chain()
    kernel, bias = np.zeros((4, 100), np.float32), np.zeros(100, np.float32)
    many = graph.replace_nodes(
        [n.replace(config={"units": 100}, weights={"kernel": kernel, "bias": bias}) if n.name == "last" else n
         for n in graph.nodes]
    )  # fmt: skip
    assert "probabilities" in wide(graph, "last").nodes
    assert wide(many, "last").nodes == {"mean", "last"}


@pytest.mark.parametrize("zero_point", [-128, -3, 0, 127])
def test_a_copy_holds_the_values_of_8_bits_and_a_wide_grid_four_times_their_range(zero_point):
    grid = activation_grid(0.0127, zero_point)
    copy, own = copied_wide(grid), wide_grid(grid)
    values = (np.arange(-128, 128) - zero_point) * np.float64(grid.scale[0])
    steps = values / copy.scale[0]
    assert (steps == np.rint(steps)).all()
    assert np.abs(steps).max() <= 32767
    assert 4 * np.abs(values).max() <= own.real_range[1] < 4.1 * np.abs(values).max()
    assert (copied_wide(own), own.zero_point, own.scale[0] < grid.scale[0] / 32) == (own, 0, True)
    assert wide_grid(grid, prescribed=True).scale == (2.0**-15,)


CASES = {
    "one": (chain, ("second",), W8A16),
    "all": (chain, ("first", "second", "last"), W4A16),
    "residual": (operator_graphs.residual, ("stem", "depthwise", "branch"), W8A16),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    made, chosen, precision = CASES[request.param]
    return operator_graphs.exported(made(), dict.fromkeys(chosen, precision), **EDGES)


def test_the_file_is_verified_and_computes_the_simulation(case):
    assert verify_structure(case.content, case.model).unseen == ()
    samples = {name: values[:FEW] for name, values in case.samples.items()}
    observed = observe(case.content, case.model, samples)
    parity = layer_parity(teacher_forced(case.model, observed, samples), observed)
    assert {layer.name for layer in parity} == {name for name in case.model.grids if name != "image"}
    assert max(layer.max_steps for layer in parity) <= 1
    (simulated,) = tensors(case.model, samples)
    model = TfliteModel(case.content)
    runs = [model.run({"image": samples["image"][i : i + 1]})[0] for i in range(FEW)]
    assert np.abs(np.concatenate(runs) - simulated).max() < 1.01 / 128


def test_types_and_reasons_stand_in_file_and_specification(case):
    file = flatbuffer.parse(case.content)
    kinds = {
        flatbuffer.text(t.name).removesuffix("/quantized"): flatbuffer.type_name(t) for t in file.subgraphs[0].tensors
    }
    layers = {layer.name: layer for layer in Specification.of(case.model).layers}
    for node in case.model.layers:
        assert (layers[node.name].precision == "int16x8") == node.precision.is_int16
        assert bool(node.reason) == node.precision.is_int16
        if node.precision.is_int16 and "bias" in node.weights:
            assert kinds[f"{node.name}/bias"] == "int64"
        if node.grid is not None:
            assert kinds[node.name] == node.grid.storage
    assert Specification.from_json(Specification.of(case.model).to_json()) == Specification.of(case.model)


def test_copies_stand_at_borders_and_nowhere_else(case):
    chosen = [n.name for n in case.model.layers if n.precision.is_int16 and is_weighted(n)]
    found = wide(case.graph, *chosen, float_inputs=True, float_outputs=True)
    read = {i for name in found.nodes for i in case.graph[name].inputs if i not in found.tensors}
    file = flatbuffer.parse(case.content)
    quantizes = [o for o in file.subgraphs[0].operators if flatbuffer.operator_name(file, o) == "QUANTIZE"]
    assert len(quantizes) == 1 + len(read) + len(found.nodes - found.tensors)  # and the input's
    costs = wide_border_bytes(case.graph, chosen, float_inputs=True, float_outputs=True)
    assert (costs["file_bytes"] > 0) == (len(quantizes) > 1)
    told = verify_runtimes(case.content, case.samples, name="model.tflite")
    assert ("TensorFlow" in told) == bool(read)


def test_one_conversion_serves_all_weights():
    graph = chain()
    samples = operator_graphs.draw(graph)
    model = operator_graphs.specified(graph, samples, {"second": W8A16})
    changed = model.with_nodes(
        model["second"].replace(weights={n: 0.7 * v for n, v in model["second"].weights.items()})
    )
    exporter = Exporter.of(samples)
    exporter.export(model)
    verify_structure(exporter.export(changed), changed)
    assert len(exporter._converted) == 1


@pytest.mark.parametrize("tensor", ["second/bias", "second/kernel", "first", "second/1", "mean/1"])
def test_damage_is_named(tensor):
    case = operator_graphs.exported(chain(), {"second": W8A16})
    file = flatbuffer.parse(case.content)
    found = {flatbuffer.text(t.name): t for t in file.subgraphs[0].tensors}[tensor]
    if flatbuffer.is_constant(file, found):
        data = np.array(file.buffers[found.buffer].data)
        data[0] ^= 1
        found.buffer = flatbuffer.add_buffer(file, data.tobytes())
    else:
        found.quantization.scale = np.float32([2]) * found.quantization.scale
    owner = tensor.split("/")[0]
    with pytest.raises(VerificationError, match=f"'{owner}|'{tensor}"):
        verify_structure(flatbuffer.serialize(file), case.model)


def test_a_layer_on_8_bits_that_is_to_have_16_is_named():
    case = operator_graphs.exported(chain(), {})
    wanted = operator_graphs.specified(case.graph, case.samples, {"second": W8A16})
    with pytest.raises(VerificationError, match="'second'"):
        verify_structure(case.content, wanted)


@pytest.mark.parametrize("outlier", [30.0, 300.0])
def test_with_an_outlying_channel_16_bits_lose_less(outlier):
    graph = chain(outlier)
    samples = operator_graphs.draw(graph, count=16)
    (expected,) = tensors(graph, samples, ["last"])

    def error(precisions):
        (found,) = tensors(operator_graphs.specified(graph, samples, precisions), samples, ["last"])
        return float(np.mean((found - expected) ** 2))

    narrow, both = error({}), error(dict.fromkeys(("first", "second"), W8A16))
    assert both < narrow / 10


def test_between_float_layers_borders_are_to_float():
    precisions = {"first": FLOAT32, "second": W8A16, "last": FLOAT32}
    case = operator_graphs.exported(chain(), precisions)
    assert verify_structure(case.content, case.model).unseen == ()
    assert case.model["first"].grid.is_wide
    assert case.model["last"].grid is None or not case.model["last"].grid.is_wide
