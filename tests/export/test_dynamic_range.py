"""Integer weights among float activations: through rounding, export, verification and both runtimes' kernels."""

import numpy as np
import operator_graphs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfq.calibration.specify import specify
from tfq.errors import VerificationError
from tfq.execution.interpreter import RUNTIMES, TfliteModel
from tfq.export import flatbuffer
from tfq.export.package import export_quantized
from tfq.models.floats import pointwise_as_dense, without_wide_depthwise
from tfq.models.graph import Graph, Node
from tfq.models.widths import dynamic_precisions
from tfq.operations.table import OPERATORS
from tfq.precision import dynamic_range
from tfq.simulate.eager import tensors
from tfq.simulate.quantizers import rounded_rows
from tfq.verify.definitions import rounded
from tfq.verify.structure import verify_structure

FEW = 3
EDGES = {"input_type": "float32", "output_type": "float32"}


def case_of(bits):
    graph = operator_graphs.lookups()
    return operator_graphs.exported(graph, dynamic_precisions(graph, bits), **EDGES)


def images(graph):
    return operator_graphs.draw(graph, count=2)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_the_file_computes_the_simulation(bits):
    case = case_of(bits)
    verified = verify_structure(case.content, case.model)
    assert (verified.weights, verified.activations) == (4, 0)
    assert verified.unseen == ()
    samples = {"index": case.samples["index"][:FEW]}
    (simulated,) = tensors(case.model, samples)
    for runtime in RUNTIMES:
        model = TfliteModel(case.content, runtime=runtime, delegate=True)
        runs = [model.run({"index": samples["index"][i : i + 1]})[0] for i in range(FEW)]
        # a number halfway between two integers may be rounded the other way
        assert np.abs(np.concatenate(runs) - simulated).max() < 5e-3 * np.ptp(simulated), runtime


@pytest.mark.parametrize(("bits", "stored"), [(8, "int8"), (4, "int4"), (2, "int2")])
def test_weights_are_packed_where_a_kernel_reads_them_so(bits, stored):
    case = case_of(bits)
    file, graph = flatbuffer.parse(case.content), case.graph
    kinds = {flatbuffer.text(t.name): flatbuffer.type_name(t) for t in file.subgraphs[0].tensors}
    found = {name: kinds[f"{name}/{OPERATORS[graph[name].kind].kernel}"] for name in ("table", "rows", "conv", "last")}
    # the kernel for convolutions reads bytes, and a row of 30 has no whole number of fours
    last = "int4" if bits == 2 else stored
    assert found == {"table": stored, "rows": stored, "conv": "int8", "last": last}


def test_the_builtin_kernel_misreads_the_lowest_int4():
    """Why such grids are narrow: if this fails, the runtime has been mended, and they need not be."""
    case = case_of(4)
    node = case.model["rows"]
    (grid,) = node.weight_grids.values()
    assert grid.narrow
    assert grid.integer_range == (-7, 7)
    codes = np.full(node.weights["kernel"].shape, -8.0)
    wide = grid.__class__(grid.scale, 0, 4, "int4", symmetric=True, axis=1)
    weights = {**node.weights, "kernel": (codes * np.asarray(grid.scale)).astype(np.float32)}
    model = case.model.with_nodes(node.replace(weights=weights, weight_grids={"kernel": wide}))
    content = export_quantized(model, operator_graphs.representative(case.samples))
    with pytest.raises(VerificationError, match="computes something else"):
        verify_structure(content, model)


def test_every_size_of_an_int4_kernel_is_verified():
    """Its builtin kernel rounds what it reads otherwise where weights fill a block of 32 inputs and 4 outputs."""
    sizes = [(16, 8), (30, 5), (32, 3), (34, 4), (48, 6), (96, 16)]
    nodes, width = [Node("x", "Input", {"shape": (16,), "dtype": "float32"})], 16
    rng = np.random.default_rng(0)
    for inputs, outputs in sizes:
        before = nodes[-1].name
        for name, shape in (("wide", (width, inputs)), ("layer", (inputs, outputs))):
            weights = {"kernel": rng.normal(size=shape).astype(np.float32), "bias": np.zeros(shape[1], np.float32)}
            nodes.append(Node(f"{name}{inputs}", "Dense", {"units": shape[1]}, (before,), weights))
            before, width = nodes[-1].name, shape[1]
    graph = Graph(tuple(nodes), ("x",), (nodes[-1].name,))
    case = operator_graphs.exported(graph, dynamic_precisions(graph, 4), **EDGES)
    assert verify_structure(case.content, case.model).weights == 2 * len(sizes)


@pytest.mark.parametrize("damage", ["integer", "scale", "row"])
def test_damage_is_named(damage):
    case = case_of(8)
    file = flatbuffer.parse(case.content)
    tensors_of = {flatbuffer.text(t.name): t for t in file.subgraphs[0].tensors}
    node, weight = ("table", "embeddings") if damage == "row" else ("rows", "kernel")
    tensor = tensors_of[f"{node}/{weight}"]
    if damage == "scale":
        scale = np.array(tensor.quantization.scale)
        scale[3] *= 2
        tensor.quantization.scale = scale
    else:
        data = np.array(file.buffers[tensor.buffer].data)
        data[5] ^= 1
        tensor.buffer = flatbuffer.add_buffer(file, data.tobytes())
    with pytest.raises(VerificationError, match=f"{weight} of '{node}'"):
        verify_structure(flatbuffer.serialize(file), case.model)


ROWS = arrays.arrays(
    np.float32, (1, 3, 5), elements=st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30)
)


@settings(max_examples=60)
@given(ROWS)
def test_rows_are_rounded_as_their_definition_says(values):
    node = Node("dense", "Dense", inputs=("x",))
    wanted, halves = rounded(node, values.astype(np.float64), symmetric=False)
    found = rounded_rows(values, whole=False).numpy()
    assert (np.abs(found - wanted) <= halves + 1e-5 * (np.abs(values) + np.abs(wanted).max())).all()
    steps = (np.maximum(values.max(-1), 0) - np.minimum(values.min(-1), 0)) / 255
    assert (np.abs(found - values).max(-1) <= 1.01 * steps + 1e-6).all()
    assert (found[values == 0] == 0).all()


def test_a_pointwise_convolution_is_a_dense_layer():
    graph = operator_graphs.image_layer("Conv2D")
    found = pointwise_as_dense(graph)
    assert [node.kind for node in found.nodes] == ["Input", "Dense", "Conv2D"]
    np.testing.assert_allclose(tensors(found, images(graph))[0], tensors(graph, images(graph))[0], atol=1e-5)


def test_no_float_depthwise_convolution_is_wider_than_its_kernel_can_be():
    """TFLite's builtin float kernel never ends on these."""
    graph = operator_graphs.image_layer("DepthwiseConv2D", 6000, 1)
    found = without_wide_depthwise(graph)
    assert [node.kind for node in found.nodes] == ["Input", "FloatAffine"]
    np.testing.assert_allclose(tensors(found, images(graph))[0], tensors(graph, images(graph))[0], atol=1e-5)


def test_a_precision_without_a_kernel_is_refused():
    graph = operator_graphs.image_layer("DepthwiseConv2D")
    assert {p.name for p in dynamic_precisions(graph, 8).values()} == {"float16"}
    with pytest.raises(ValueError, match="no kernel for DepthwiseConv2D in d8"):
        specify(graph, {}, {"last": dynamic_range(8)}, **EDGES)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_bias_stays_with_its_layer(bits):
    """TFLiteConverter would move it into the next layer's, where nothing stands between."""
    graph = operator_graphs.chain()
    case = operator_graphs.exported(graph, dynamic_precisions(graph, bits), **EDGES)
    assert verify_structure(case.content, case.model).biases == 3
