"""What the passes do to a file: weights of any width, INT4 storage, sharing, alignment, names."""

import dataclasses

import numpy as np
import operator_graphs
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from tfq.execution.interpreter import RUNTIMES, TfliteModel
from tfq.export import flatbuffer
from tfq.export.binding import bind, missing
from tfq.export.convert import convert_plain
from tfq.export.layout import pack, tflite_layout
from tfq.export.passes import finish
from tfq.models.graph import Graph, Node
from tfq.numerics import reference
from tfq.precision import Precision
from tfq.verify.structure import verify_structure

PACKED_VERSIONS = {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 7, "FULLY_CONNECTED": 10}


def constants(content):
    """Tensor name -> (type, scales, integers) of every weight matrix stored as int8."""
    model = flatbuffer.parse(content)
    found = {}
    for tensor in model.subgraphs[0].tensors:
        if flatbuffer.is_constant(model, tensor) and flatbuffer.type_name(tensor) == "int8":
            data = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int8)
            found[flatbuffer.text(tensor.name)] = (flatbuffer.scales(tensor), data.reshape(tensor.shape))
    return found


@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_weights_of_any_width_fill_their_range(bits, per_channel):
    case = operator_graphs.exported(operator_graphs.shared(), Precision(weight_bits=bits), per_channel=per_channel)
    found = verify_structure(case.content, case.model)
    assert found.weights == 4
    low, high = reference.integer_range(bits, symmetric=True)
    stored = constants(case.content)
    assert set(stored) == {"conv_right/kernel", "conv_left/kernel", "dense_right/kernel", "dense_left/kernel"}
    for name, (scales, integers) in stored.items():
        channels = 4 if name.startswith("conv") else 3
        assert len(scales) == (channels if per_channel else 1)
        rows = integers.reshape(len(scales), -1).astype(int)
        assert ((rows.min(axis=1) >= low) & (rows.max(axis=1) <= high)).all()
        assert ((rows.min(axis=1) == low) | (rows.max(axis=1) == high)).all()


@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
def test_every_kind_of_weight_on_few_bits(per_channel):
    case = operator_graphs.exported(operator_graphs.convolutions(), Precision(weight_bits=5), per_channel=per_channel)
    assert verify_structure(case.content, case.model).weights == 9
    for name, (_, integers) in constants(case.content).items():
        low, high = (-127, 127) if name == "prelu/alpha" else (-16, 15)
        assert integers.min() == low or integers.max() == high
        assert integers.min() >= low
        assert integers.max() <= high


@pytest.fixture(scope="module")
def stored():
    """The convolutions on 4 bits: {"int8": case, "packed": case}."""
    graph = operator_graphs.convolutions()
    return {s: operator_graphs.exported(graph, Precision(weight_bits=4, storage=s)) for s in ("int8", "packed")}


def outputs(case, **options):
    model = TfliteModel(case.content, **options)
    runs = [model.run({n: a[i : i + 1] for n, a in case.samples.items()})[0] for i in range(12)]
    return np.concatenate(runs)


def test_packed_weights_are_int4_tensors_in_operations_that_may_read_them(stored):
    case = stored["packed"]
    verify_structure(case.content, case.model)
    model = flatbuffer.parse(case.content)
    tensors = model.subgraphs[0].tensors
    packed = set()
    for operator in model.subgraphs[0].operators:
        kind = flatbuffer.operator_name(model, operator)
        reads_int4 = "int4" in {flatbuffer.type_name(tensors[i]) for i in operator.inputs if i >= 0}
        assert reads_int4 == (kind in PACKED_VERSIONS)
        if reads_int4:
            packed.add(kind)
            assert model.operatorCodes[operator.opcodeIndex].version == PACKED_VERSIONS[kind]
    assert packed == set(PACKED_VERSIONS)


def test_a_file_with_int4_says_which_runtime_it_needs(stored):
    def needed(content):
        model = flatbuffer.parse(content)
        found = {flatbuffer.text(e.name): model.buffers[e.buffer].data for e in model.metadata}
        return np.asarray(found["min_runtime_version"], np.uint8).tobytes().rstrip(b"\0")

    assert needed(stored["packed"].content) == b"2.11.0"
    assert needed(stored["int8"].content) == b"2.3.0"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_storage_does_not_change_the_values(stored, runtime):
    expected = outputs(stored["int8"], runtime=runtime, delegate=False)
    np.testing.assert_array_equal(outputs(stored["packed"], runtime=runtime, delegate=False), expected)
    assert len(np.unique(expected)) > 20
    with_xnnpack = outputs(stored["packed"], runtime=runtime, delegate=True)
    assert np.abs(with_xnnpack - expected).max() <= 2 / 256


def test_packed_storage_halves_the_weights(stored):
    def sizes(case):
        model = flatbuffer.parse(case.content)
        named = {flatbuffer.text(t.name): t.buffer for t in model.subgraphs[0].tensors}
        return {n: len(model.buffers[b].data) for n, b in named.items() if n.endswith("kernel")}

    wide, packed = sizes(stored["int8"]), sizes(stored["packed"])
    transposed = packed.pop("transposed/kernel")  # no runtime has it in INT4
    assert transposed == wide.pop("transposed/kernel")
    assert packed == {name: (size + 1) // 2 for name, size in wide.items()}
    assert len(packed) == 7
    assert len(stored["packed"].content) < len(stored["int8"].content)


def test_nibbles_are_packed_low_first():
    assert pack(np.array([[1, -2, 7], [-7, 0, 3]]), "int4") == bytes([0xE1, 0x97, 0x30])
    assert pack(np.array([1, -2, 7]), "int4") == bytes([0xE1, 0x07])
    assert pack(np.array([1, -2]), "int8") == bytes([1, 254])
    assert pack(np.array([-2]), "int32") == (-2).to_bytes(4, "little", signed=True)


def test_layouts():
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert tflite_layout("Conv2D", kernel)[4, 1, 2, 3] == kernel[1, 2, 3, 4]
    assert tflite_layout("Conv2DTranspose", kernel)[3, 1, 2, 4] == kernel[1, 2, 3, 4]
    assert tflite_layout("DepthwiseConv2D", kernel)[0, 1, 2, 3 * 5 + 4] == kernel[1, 2, 3, 4]
    assert tflite_layout("Dense", kernel[0, 0])[4, 3] == kernel[0, 0, 3, 4]


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_buffers_are_aligned_and_stored_once_and_nothing_is_left_over(name):
    content = operator_graphs.case(name).content
    root, model = schema.Model.GetRootAs(content), flatbuffer.parse(content)
    seen = set()
    for index in range(root.BuffersLength()):
        table = root.Buffers(index)._tab
        field = table.Offset(4)  # of Buffer.data
        if field:
            assert table.Vector(field) % 16 == 0
            seen.add(np.asarray(model.buffers[index].data, np.uint8).tobytes())
    tensors, operators = model.subgraphs[0].tensors, model.subgraphs[0].operators
    used = {t.buffer for t in tensors} | {e.buffer for e in model.metadata}
    assert used | {0} == set(range(len(model.buffers)))
    assert len(seen) == len(model.buffers) - 1 > 5
    touched = {int(i) for o in operators for i in (*o.inputs, *o.outputs) if i >= 0}
    assert touched == set(range(len(tensors)))
    assert {o.opcodeIndex for o in operators} == set(range(len(model.operatorCodes)))


def test_equal_constants_are_stored_once():
    case = operator_graphs.case("shared")
    tensors = {flatbuffer.text(t.name): t for t in flatbuffer.parse(case.content).subgraphs[0].tensors}
    first, second = tensors["conv_right/kernel"], tensors["conv_left/kernel"]
    assert first.buffer == second.buffer
    assert first.quantization.scale.tolist() == second.quantization.scale.tolist()


@pytest.mark.parametrize("name", operator_graphs.ALL)
def test_tensors_are_called_by_their_layers(name):
    case = operator_graphs.case(name)
    labels = [flatbuffer.text(t.name) for t in flatbuffer.parse(case.content).subgraphs[0].tensors]
    assert len(set(labels)) == len(labels)
    assert {label.split("/")[0] for label in labels} <= {n.name for n in case.graph.nodes}
    for layer in case.model.layers:
        for weight in layer.weight_grids:
            if weight != "bias" or case.graph[layer.name].weights["bias"].any():
                assert f"{layer.name}/{weight}" in labels


def test_an_output_that_a_float_operation_reads_too_keeps_its_reader():
    model = flatbuffer.parse(operator_graphs.case("islands").content)
    subgraph = model.subgraphs[0]
    readers = [o for o in subgraph.operators if flatbuffer.operator_name(model, o) == "EXP"]
    assert len(readers) == 2
    assert all(i >= 0 for o in readers for i in o.inputs)
    assert flatbuffer.type_name(subgraph.tensors[subgraph.outputs[1]]) == "int8"


def test_layer_names_of_any_kind_survive():
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(4, 3)).astype(np.float32)}
    nodes = (
        Node("tfq0001", "Input", {"shape": (4,), "dtype": "float32"}),
        Node("block_1.expand.Conv-2", "Dense", {"units": 3, "use_bias": False}, ("tfq0001",), weights),
    )
    graph = Graph(nodes, ("tfq0001",), ("block_1.expand.Conv-2",), ("tfq0000",))
    case = operator_graphs.exported(graph)
    assert verify_structure(case.content, case.model).weights == 1
    model = TfliteModel(case.content)
    assert [model.inputs[0].name, model.outputs[0].name] == ["tfq0001", "tfq0000"]


def test_a_file_of_another_specification_is_refused():
    *_, quantized, converted = operator_graphs._converted("shared")
    node = quantized["distance"]
    other = dataclasses.replace(node.grid, zero_point=node.grid.zero_point + 1)
    changed = quantized.with_nodes(node.replace(grid=other))
    with pytest.raises(RuntimeError, match="tensor 'distance' came out of the converter as int8"):
        finish(converted, changed)


def test_missing_weights_are_noticed():
    graph, samples, quantized, converted = operator_graphs._converted("shared")
    file = flatbuffer.parse(converted)
    assert missing(file, bind(file, graph), quantized) == []
    file = flatbuffer.parse(convert_plain(graph, "float32", operator_graphs.representative(samples)))
    binding = bind(file, graph)
    others = {index: name for index, name in binding.operator_node.items() if name != "conv_left"}
    less = dataclasses.replace(binding, operator_node=others)
    assert missing(file, less, quantized) == ["Conv2D 'conv_left' has no weights"]
