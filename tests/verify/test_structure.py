"""A verification that cannot fail proves nothing: every kind of damage to a file must be named."""

import dataclasses
import functools

import numpy as np
import operator_graphs
import pytest

from tfq.errors import VerificationError
from tfq.export import flatbuffer
from tfq.export.package import export_quantized
from tfq.grid import Grid
from tfq.precision import FLOAT16, FLOAT32, Precision
from tfq.verify.structure import verify_structure


class Damaged:
    """A parsed file to be damaged, its tensors by name."""

    def __init__(self, content):
        self.model = flatbuffer.parse(content)
        self.subgraph = self.model.subgraphs[0]
        self.tensors = {flatbuffer.text(t.name): t for t in self.subgraph.tensors}
        for holder in (*self.subgraph.operators, self.subgraph):  # parsed arrays are views of the bytes
            holder.inputs, holder.outputs = np.array(holder.inputs), np.array(holder.outputs)
        for grid in (t.quantization for t in self.subgraph.tensors if flatbuffer.scales(t).size):
            grid.scale, grid.zeroPoint = np.array(grid.scale), np.array(grid.zeroPoint)

    def data(self, name):
        """A writable copy of a tensor's bytes, put in a buffer of its own."""
        tensor = self.tensors[name]
        buffer = type(self.model.buffers[0])()
        buffer.data = np.array(self.model.buffers[tensor.buffer].data, np.uint8)
        tensor.buffer = len(self.model.buffers)
        self.model.buffers.append(buffer)
        return buffer.data

    def operator(self, output):
        names = [flatbuffer.text(self.subgraph.tensors[o.outputs[0]].name) for o in self.subgraph.operators]
        return self.subgraph.operators[names.index(output)]

    def index(self, name):
        return [flatbuffer.text(t.name) for t in self.subgraph.tensors].index(name)


def weight_integer(file):
    data = file.data("stem/kernel")
    data[17] = np.uint8(data[17] + 1)


def bias_integer(file):
    file.data("hidden/bias")[4] ^= 1


def weight_scale(file):
    scale = file.tensors["depthwise/depthwise_kernel"].quantization.scale
    scale[3] = np.nextafter(scale[3], np.float32(1))


def bias_scale(file):
    file.tensors["stem/bias"].quantization.scale[0] *= np.float32(1.0000002)


def weight_zero_point(file):
    file.tensors["logits/kernel"].quantization.zeroPoint[2] = 1


def weight_axis(file):
    file.tensors["transposed/kernel"].quantization.quantizedDimension = 3


def activation_scale(file):
    file.tensors["add"].quantization.scale *= np.float32(1.0000002)


def activation_zero_point(file):
    file.tensors["leaky"].quantization.zeroPoint += 1


def activation_type(file):
    file.tensors["prelu"].type = 3  # uint8
    file.tensors["prelu"].quantization.zeroPoint += 128


def weights_of_another_layer(file):
    operator = file.operator("no_bias")
    operator.inputs[1] = file.index("zero_bias/kernel")


def bias_dropped(file):
    file.operator("stem").inputs[2] = -1
    file.tensors["stem/bias"].name = "stem/other"


def tensor_renamed(file):
    file.tensors["pool"].name = "somewhere_else"


def name_taken_twice(file):
    file.tensors["stem/bias"].name = "stem/kernel"


def input_renamed(file):
    file.model.signatureDefs[0].inputs[0].name = "picture"


def output_of_another_layer(file):
    file.subgraph.outputs[0] = file.index("logits")
    file.model.signatureDefs[0].outputs[0].tensorIndex = file.index("logits")


DAMAGES = {
    weight_integer: "kernel of 'stem' (Keras layer keras_stem) holds integers that differ",
    bias_integer: "bias of 'hidden' (Keras layer keras_hidden) holds integers that differ",
    weight_scale: "depthwise_kernel of 'depthwise' (Keras layer keras_depthwise) has scales that differ",
    bias_scale: "bias of 'stem' (Keras layer keras_stem) has scales that differ",
    weight_zero_point: "kernel of 'logits' (Keras layer keras_logits) has zero-points other than 0",
    weight_axis: "tensor 'transposed/kernel' of the shape [6, 3, 3, 8] has 6 scales along axis 3",  # no reader takes it
    activation_scale: "activation 'add' (Keras layer keras_add) has the scale",
    activation_zero_point: "activation 'leaky' (Keras layer keras_leaky) has the scale",
    activation_type: "activation 'prelu' (Keras layer keras_prelu) is uint8, specified int8",
    weights_of_another_layer: "CONV_2D of layer 'no_bias' (Keras layer keras_no_bias) reads 'zero_bias/kernel' as its",
    bias_dropped: "bias of 'stem' (Keras layer keras_stem) is not in the file",
    tensor_renamed: "operation MAX_POOL_2D writes 'somewhere_else', which the specification does not know",
    name_taken_twice: "1 tensors have the names of others",
    input_renamed: "the inputs are ['picture'], specified ['image']",
    output_of_another_layer: "output 'probabilities' is the tensor of 'logits', specified 'probabilities' (Keras layer",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_with_tensor_and_keras_layer(damage):
    case = operator_graphs.case("convolutions")
    file = Damaged(case.content)
    damage(file)
    with pytest.raises(VerificationError) as caught:
        verify_structure(flatbuffer.serialize(file.model), case.model)
    assert DAMAGES[damage] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_written_again_unchanged_passes():
    case = operator_graphs.case("convolutions")
    file = Damaged(case.content)
    file.data("stem/kernel")
    verify_structure(flatbuffer.serialize(file.model), case.model)


def test_outputs_in_another_order():
    case = operator_graphs.case("arithmetic")
    file = Damaged(case.content)
    file.subgraph.outputs = file.subgraph.outputs[::-1]
    with pytest.raises(VerificationError, match=r"the outputs are \['a_map', 'peak', 'z_scores'\], specified \['z_sc"):
        verify_structure(flatbuffer.serialize(file.model), case.model)


def test_outputs_that_swapped_their_names():
    case = operator_graphs.case("arithmetic")
    file = Damaged(case.content)
    first, second = file.model.signatureDefs[0].outputs[:2]
    first.tensorIndex, second.tensorIndex = second.tensorIndex, first.tensorIndex
    file.subgraph.outputs = file.subgraph.outputs[[1, 0, 2]]
    with pytest.raises(VerificationError, match="output 'z_scores' is the tensor of 'peak', specified 'scores'"):
        verify_structure(flatbuffer.serialize(file.model), case.model)


def test_inputs_that_swapped_their_names():
    case = operator_graphs.case("arithmetic")
    file = Damaged(case.content)
    first, second = file.model.signatureDefs[0].inputs
    first.tensorIndex, second.tensorIndex = second.tensorIndex, first.tensorIndex
    file.subgraph.inputs = file.subgraph.inputs[::-1]
    with pytest.raises(VerificationError, match="input 'zebra' is the tensor of 'apple'"):
        verify_structure(flatbuffer.serialize(file.model), case.model)


def test_types_at_the_edges():
    case = operator_graphs.case("shared", "uint8", "uint8")
    for wanted in ({"input_type": "int8"}, {"output_type": "float32"}):
        with pytest.raises(VerificationError, match="is uint8, specified"):
            verify_structure(case.content, dataclasses.replace(case.model, **wanted))
    file = Damaged(case.content)
    file.subgraph.tensors[file.subgraph.inputs[0]].quantization.zeroPoint += 1
    with pytest.raises(VerificationError, match=r"input 'right' has the scale .* and the zero-point"):
        verify_structure(flatbuffer.serialize(file.model), case.model)


def test_an_operation_left_in_float():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph)
    quantized = operator_graphs.specified(graph, samples)
    weaker = quantized.with_nodes(quantized["leaky"].replace(precision=FLOAT32, reason="a test", grid=None))
    content = export_quantized(weaker, operator_graphs.representative(samples))
    with pytest.raises(VerificationError) as caught:
        verify_structure(content, quantized)
    assert "activation 'leaky' (Keras layer keras_leaky) is float32, specified int8" in str(caught.value)
    assert "of layer 'leaky' (Keras layer keras_leaky) works in float, specified int8" in str(caught.value)


def test_a_file_with_other_weights():
    case = operator_graphs.case("shared")
    node = case.model["conv_left"]
    weights = {**node.weights, "kernel": node.weights["kernel"] * np.float32(-1)}
    with pytest.raises(VerificationError, match="kernel of 'conv_left'"):
        verify_structure(case.content, case.model.with_nodes(node.replace(weights=weights)))


def test_int4_where_int8_was_specified():
    graph = operator_graphs.shared()
    case = operator_graphs.exported(graph, Precision(weight_bits=4, storage="packed"))
    layers = [x.replace(weight_grids={n: unpacked(g) for n, g in x.weight_grids.items()}) for x in case.model.layers]
    with pytest.raises(VerificationError, match=r"kernel of 'conv_right' .* is int4\[4, 3, 3, 3\], specified int8"):
        verify_structure(case.content, case.model.with_nodes(*layers))


def unpacked(grid: Grid) -> Grid:
    return dataclasses.replace(grid, storage="int8" if grid.storage == "int4" else grid.storage)


@functools.cache
def mixed():
    """ "stem" in float16, "last" in float32."""
    return operator_graphs.exported(operator_graphs.residual(), {"stem": FLOAT16, "last": FLOAT32})


def float16_weight(file):
    file.data("stem/kernel")[8] ^= 1


def float32_weight(file):
    file.data("last/kernel")[8] ^= 1


def float16_bias_is_another(file):
    dequantize = next(o for o in file.subgraph.operators if o.inputs[0] == file.index("stem/bias"))
    dequantize.inputs[0] = file.index("stem/kernel")


def float_weight_renamed(file):
    file.tensors["last/kernel"].name = "last/other"


FLOAT_DAMAGES = {
    float16_weight: "kernel of 'stem' (Keras layer keras_stem) holds values that differ",
    float32_weight: "kernel of 'last' (Keras layer keras_last) holds values that differ",
    float16_bias_is_another: "CONV_2D of layer 'stem' (Keras layer keras_stem) reads 'stem/kernel' as its bias",
    float_weight_renamed: "kernel of 'last' (Keras layer keras_last) is not in the file",
}


@pytest.mark.parametrize("damage", FLOAT_DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_to_a_float_layer_is_named(damage):
    file = Damaged(mixed().content)
    damage(file)
    with pytest.raises(VerificationError) as caught:
        verify_structure(flatbuffer.serialize(file.model), mixed().model)
    assert FLOAT_DAMAGES[damage] in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "precision", "message"),
    [
        ("stem", "float32", r"kernel of 'stem' .* is float16\[8, 3, 3, 4\], specified float32\[8, 3, 3, 4\]"),
        ("last", "float16", r"kernel of 'last' .* is float32\[12, 3, 3, 8\], specified float16"),
        ("branch", "float32", "CONV_2D of layer 'branch' .* works in int8, specified float32"),
        ("last", "int8", "CONV_2D of layer 'last' .* works in float, specified int8"),
    ],
)
def test_another_precision_than_specified(layer, precision, message):
    quantized = mixed().model
    changed = quantized[layer].replace(precision=Precision(precision), reason="a test", weight_grids={})
    with pytest.raises(VerificationError, match=message):
        verify_structure(mixed().content, quantized.with_nodes(changed))
