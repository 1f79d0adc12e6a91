"""Faults planted into real files, one at a time: each must be found, and named by its layer.

Most lie where shapes tell nothing: the graph `square` has kernels, images, operands, inputs and outputs of equal sizes.
"""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from damaged_files import CASES, File, case

from tfq.errors import VerificationError
from tfq.verify.constants import check_constants
from tfq.verify.contents import read
from tfq.verify.structure import verify_structure

CLAMP, PADDING = schema.ActivationFunctionType, schema.Padding


def permuted(layer, *axes, kernel="kernel"):
    """The kernel's elements with its axes in another order, under the shape it had."""

    def plant(file):
        values = file.array(f"{layer}/{kernel}")
        values[...] = np.transpose(values, axes).reshape(values.shape)

    return plant


def reordered(name, order):
    """The constant's elements in another order."""

    def plant(file):
        values = file.array(name).reshape(-1)
        values[...] = values[order(len(values))]

    return plant


def option(output, **fields):
    def plant(file):
        for field, value in fields.items():
            assert hasattr(file.options(output), field)
            assert getattr(file.options(output), field) != value
            setattr(file.options(output), field, value)

    return plant


def reads(output, *names):
    """The operation that writes `output` reads these tensors instead, the rest as before."""

    def plant(file):
        inputs = file.operator(output).inputs
        inputs[: len(names)] = [file.index(name) for name in names]

    return plant


def swapped(output, first, second):
    def plant(file):
        inputs = file.operator(output).inputs
        inputs[[first, second]] = inputs[[second, first]]

    return plant


def constant(name, *values):
    """Other elements: of a permutation, paddings, axes, sizes."""

    def plant(file):
        array = file.array(name)
        assert array.reshape(-1).tolist() != list(values)
        array[...] = np.reshape(values, array.shape)

    return plant


def scales_turned(name):
    """The channels' scales, shifted by one channel."""

    def plant(file):
        grid = file.tensor(name).quantization
        grid.scale = np.roll(grid.scale, 1)

    return plant


def axis(name, number):
    def plant(file):
        file.tensor(name).quantization.quantizedDimension = number

    return plant


def zero_point(name, by=1):
    def plant(file):
        grid = file.tensor(name).quantization
        grid.zeroPoint = grid.zeroPoint + by

    return plant


def scale(name, factor):
    def plant(file):
        grid = file.tensor(name).quantization
        grid.scale = grid.scale * np.float32(factor)

    return plant


def kernels_exchanged(first, second):
    """Each layer reads the other's constant, by the name of its own."""

    def plant(file):
        one, other = file.tensor(first), file.tensor(second)
        one.buffer, other.buffer = other.buffer, one.buffer
        one.quantization, other.quantization = other.quantization, one.quantization

    return plant


def names_exchanged(first, second):
    def plant(file):
        one, other = file.tensor(first), file.tensor(second)
        one.name, other.name = other.name, one.name

    return plant


def nibbles_swapped(name):
    def plant(file):
        values = file.array(name)
        values[...] = (values << 4) | (values >> 4)

    return plant


def signature_swapped(what):
    """Two entries of the signature change places, and the tensors at the file's edge with them."""

    def plant(file):
        entries = getattr(file.model.signatureDefs[0], what)
        entries[0].tensorIndex, entries[1].tensorIndex = entries[1].tensorIndex, entries[0].tensorIndex
        edge = getattr(file.graph, what)
        edge[[0, 1]] = edge[[1, 0]]

    return plant


def edge_swapped(what):
    """The file's edge alone: the order in which the interpreter takes and gives."""

    def plant(file):
        edge = getattr(file.graph, what)
        edge[[0, 1]] = edge[[1, 0]]

    return plant


def backwards(size):
    return np.arange(size)[::-1]


def rolled(size):
    return np.roll(np.arange(size), 1)


def multiplier_first(file):
    """[channel, multiplier] of the depthwise outputs as [multiplier, channel]."""
    values = file.array("depthwise/depthwise_kernel")
    values[...] = values.reshape(1, 3, 3, 3, 3).swapaxes(3, 4).reshape(values.shape)


def multiplier_first_everywhere(file):
    """The same with scales and bias in that order too: consistent, and wrong."""
    multiplier_first(file)
    order = np.arange(9).reshape(3, 3).T.reshape(-1)
    for name in ("depthwise/depthwise_kernel", "depthwise/bias"):
        grid = file.tensor(name).quantization
        grid.scale = grid.scale[order]
    bias = file.array("depthwise/bias")
    bias[...] = bias[order]


def every_kernel_and_name_exchanged(file):
    """ "left" does what "right" should and the reverse, names and all."""
    kernels_exchanged("left/kernel", "right/kernel")(file)
    kernels_exchanged("left/bias", "right/bias")(file)


def outside_the_codebook(file):
    values = file.array("conv/kernel").reshape(-1)
    values[3] = next(code for code in range(-127, 128) if code not in values)


FAULTS = {
    "kernel, a code that is not in the codebook": ("clusters", outside_the_codebook, "conv"),
    # kernels: the elements in another order
    "kernel, rows and columns": ("square", permuted("conv", 0, 2, 1, 3), "conv"),
    "kernel, inputs and outputs": ("square", permuted("conv", 3, 1, 2, 0), "conv"),
    "kernel, as Keras has it": ("square", permuted("conv", 1, 2, 3, 0), "conv"),
    "kernel, mirrored": ("square", reordered("conv/kernel", backwards), "conv"),
    "kernel, shifted by one element": ("square", reordered("conv/kernel", rolled), "conv"),
    "1x1 kernel, transposed": ("square", permuted("left", 3, 1, 2, 0), "left"),
    "dense kernel, transposed": ("square", permuted("first", 1, 0), "first"),
    "transposed convolution, inputs and outputs": ("square", permuted("transposed", 3, 1, 2, 0), "transposed"),
    "transposed convolution, rows and columns": ("square", permuted("transposed", 0, 2, 1, 3), "transposed"),
    "transposed convolution, mirrored": ("square", reordered("transposed/kernel", backwards), "transposed"),
    "depthwise, rows and columns": (
        "square",
        permuted("depthwise", 0, 2, 1, 3, kernel="depthwise_kernel"),
        "depthwise",
    ),
    "depthwise, multiplier first": ("square", multiplier_first, "depthwise"),
    "depthwise, multiplier first everywhere": ("square", multiplier_first_everywhere, "depthwise"),
    "embedding, rows in another order": ("transformer", reordered("embedding/embeddings", backwards), "embedding"),
    "slopes of a PReLU": ("square", reordered("slopes/alpha", rolled), "slopes"),
    "packed kernel, nibbles swapped": ("packed", nibbles_swapped("conv/kernel"), "conv"),
    "packed dense kernel, nibbles swapped": ("packed", nibbles_swapped("first/kernel"), "first"),
    "packed depthwise, nibbles swapped": ("packed", nibbles_swapped("depthwise/depthwise_kernel"), "depthwise"),
    "float16 kernel, rows and columns": ("mixed", permuted("conv", 0, 2, 1, 3), "conv"),
    "float16 transposed convolution": ("mixed", permuted("transposed", 3, 1, 2, 0), "transposed"),
    "float32 kernel, transposed": ("mixed", permuted("right", 3, 1, 2, 0), "right"),
    "float32 dense kernel, transposed": ("mixed", permuted("third", 1, 0), "third"),
    "weights of a normalisation": ("transformer", reordered("norm1/12", rolled), "norm1"),
    # constants of another layer
    "kernel of another layer": ("square", reads("conv", "image", "dilated/kernel"), "conv"),
    "kernels exchanged": ("square", kernels_exchanged("left/kernel", "right/kernel"), "left"),
    "biases exchanged": ("square", kernels_exchanged("conv/bias", "dilated/bias"), "conv"),
    "names of kernels exchanged": ("square", names_exchanged("conv/kernel", "dilated/kernel"), "conv"),
    "kernel and bias exchanged with those of a layer of this shape": (
        "shared",
        lambda file: [kernels_exchanged(f"conv_right/{n}", f"conv_left/{n}")(file) for n in ("kernel", "bias")],
        "conv_",
    ),
    # grids
    "scales of another axis": ("square", axis("first/kernel", 1), "first"),
    "scales of another axis, 3x3": ("square", axis("conv/kernel", 3), "conv"),
    "scales of another axis, transposed convolution": ("square", axis("transposed/kernel", 3), "transposed"),
    "scales shifted by one channel": ("square", scales_turned("conv/kernel"), "conv"),
    "scales of a depthwise kernel": ("square", scales_turned("depthwise/depthwise_kernel"), "depthwise"),
    "zero-point of an activation": ("square", zero_point("joined"), "joined"),
    "zero-point of a model's input": ("square", zero_point("image"), "image"),
    "zero-point of an input in uint8": ("uint8", zero_point("right"), "right"),
    "zero-point of a kernel": ("square", zero_point("back/kernel"), "back"),
    "zero-point of an embedding": ("transformer", zero_point("embedding/embeddings"), "embedding"),
    "scale of an activation": ("square", scale("left", 1.001), "left"),
    "scale of a kernel of one scale": ("per_tensor", scale("conv_left/kernel", 1.001), "conv_left"),
    "scale of a bias": ("square", scale("conv/bias", 2), "conv"),
    "scales of a bias shifted by one channel": ("square", scales_turned("conv/bias"), "conv"),
    "bias shifted by one channel": ("square", reordered("conv/bias", rolled), "conv"),
    "bias of a float layer shifted by one channel": ("mixed", reordered("conv/bias", rolled), "conv"),
    # geometry
    "padding valid for same": ("square", option("pool", padding=PADDING.VALID), "summed"),  # refused there
    "padding same for valid": ("square", option("valid", padding=PADDING.SAME), "valid"),
    "stride": ("square", option("strided", strideW=1), "strided"),
    "dilation dropped": ("square", option("dilated", dilationHFactor=1), "dilated"),
    "dilation added": ("square", option("conv", dilationWFactor=2), "conv"),
    "dilation of a depthwise layer": ("square", option("depthwise", dilationWFactor=2), "depthwise"),
    "window of a pooling": ("square", option("pool", filterHeight=2), "pool"),
    "window of an average": ("square", option("average", filterWidth=2), "average"),
    "paddings of an image": ("square", constant("padded/1", 0, 0, 1, 0, 1, 0, 0, 0), "padded"),
    "pixels by their corners": ("square", option("enlarged", halfPixelCenters=False), "enlarged"),
    "corners aligned": ("square", option("enlarged", halfPixelCenters=False, alignCorners=True), "enlarged"),
    "nearest pixel by its corner": ("square", option("sized", halfPixelCenters=False), "sized"),
    "slice one further": ("arithmetic", constant("part/1", 0, 0, 1, 2), "part"),
    "crop one further": ("arithmetic", constant("cropped/1", 0, 1, 2, 0), "cropped"),
    # clamps and numbers
    "clamp dropped": ("square", option("dilated", fusedActivationFunction=CLAMP.NONE), "dilated"),
    "clamp at 6 for a clamp at 0": ("square", option("dilated", fusedActivationFunction=CLAMP.RELU6), "dilated"),
    "clamp added": ("square", option("conv", fusedActivationFunction=CLAMP.RELU), "conv"),
    "clamp at 6 added": ("square", option("left", fusedActivationFunction=CLAMP.RELU6), "left"),
    "clamp at -1 and 1": ("square", option("difference", fusedActivationFunction=CLAMP.RELU_N1_TO_1), "difference"),
    "clamp added to a float layer": ("floats", option("left/1", fusedActivationFunction=CLAMP.RELU), "left"),
    "slope of a LeakyReLU": ("square", option("leaky", alpha=0.21), "leaky"),
    "beta of a softmax": ("square", option("soft", beta=1.1), "soft"),
    "number that is added": ("arithmetic", constant("moved/1", 100), "moved"),
    "number that is multiplied by": ("arithmetic", constant("scaled/1", -100), "scaled"),
    # axes and operands
    "permutation": ("square", constant("turned/1", 0, 2, 3, 1), "turned"),
    "axis of a mean": ("square", constant("rows/1", 2), "rows"),
    "axes of a global pooling": ("square", constant("mean_strided/1", 1, 3), "means"),  # refused there
    "axis of a concatenation": ("square", option("joined", axis=2), "difference"),  # refused there
    "operands of a subtraction": ("square", swapped("difference", 0, 1), "difference"),
    "operands of a concatenation": ("square", swapped("joined", 0, 1), "joined"),
    "operands of a product": ("square", swapped("product", 0, 1), "product"),
    "left matrix transposed": ("square", option("product", adjX=True), "product"),
    "right matrix transposed": ("square", option("product", adjY=True), "product"),
    "neither matrix transposed": ("square", option("crossed", adjX=False, adjY=False), "crossed"),
    "one operand read twice": ("square", reads("summed", "padded", "padded"), "summed"),
    "another layer's output": ("square", reads("left", "joined"), "left"),
    "an input for another": ("square", reads("conv", "other"), "conv"),
    "names of two layers exchanged": ("square", names_exchanged("left", "right"), "left"),
    # the file's edge
    "inputs of the signature": ("square", signature_swapped("inputs"), "image"),
    "outputs of the signature": ("square", signature_swapped("outputs"), "first"),
    "order of the inputs": ("square", edge_swapped("inputs"), "image"),
    "order of the outputs": ("square", edge_swapped("outputs"), "first"),
    "inputs in float32": ("floats", signature_swapped("inputs"), "image"),
    "outputs in float32": ("floats", signature_swapped("outputs"), "first"),
    "inputs in uint8": ("uint8", signature_swapped("inputs"), "right"),
    # floats among integers
    "operation of a normalisation": (
        "transformer",
        lambda file: [reads(o, *n)(file) for o, n in {"norm1/10": ("norm1/4", "embedding/1")}.items()],
        "norm1",
    ),
    "operands of a division": ("islands", swapped("ratio", 0, 1), "ratio"),
    "another function": (
        "islands",
        lambda file: setattr(file.operator("square"), "opcodeIndex", file.operator("positive").opcodeIndex),
        "square",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_its_layer_named(name):
    whose, plant, layer = FAULTS[name]
    made = case(whose)
    file = File(made.content)
    plant(file)
    with pytest.raises(VerificationError) as caught:
        verify_structure(file.content, made.model)
    assert f"'{layer}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_code_outside_the_codebook_is_told():
    made = case("clusters")
    file = File(made.content)
    outside_the_codebook(file)
    faults = check_constants(read(file.content), made.model).faults
    assert any("which is not in the codebook" in fault and "'conv'" in fault for fault in faults)


@pytest.mark.parametrize("name", CASES)
def test_a_file_without_a_fault_passes_and_every_layer_tells(name):
    made = case(name)
    found = verify_structure(File(made.content).content, made.model)
    assert found.unseen == ()
    assert found.layers_alone >= len(made.graph.nodes) - len(made.graph.inputs) - len(found.absent) - 3
    assert found.elements_alone > 256 * found.layers_alone
