"""Bits by layer and by tensor, from calibration to the specification."""

import numpy as np
import operator_graphs
import pytest

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify, with_ranges, with_scales
from tfq.calibration.statistics import Range
from tfq.export.package import export_quantized
from tfq.models.graph import Graph, Node
from tfq.models.widths import activation_bits, assign_precisions, is_weighted
from tfq.operations.table import OPERATORS
from tfq.precision import Precision
from tfq.spec import Specification


@pytest.fixture(scope="module")
def few():
    """(graph with few-bit tensors, the precisions of its layers, samples, calibration by MSE, quantised model)."""
    wanted = Precision(weight_bits=3, activation_bits=4)
    graph, precisions = assign_precisions(operator_graphs.convolutions(), wanted, first_last_bits=8)
    samples = operator_graphs.draw(graph)
    bits = activation_bits(graph, precisions)
    calibration = calibrate(graph, [samples], method="mse", total=operator_graphs.SAMPLES, bits=bits)
    return graph, precisions, samples, calibration, specify(graph, calibration.ranges, precisions)


def kernel(node):
    return node.weight_grids[OPERATORS[node.kind].kernel]


def test_every_tensor_and_kernel_has_its_bits(few):
    graph, precisions, _, _, quantized = few
    assert {n: g.bits for n, g in quantized.grids.items() if g.bits != 8} == activation_bits(graph, precisions)
    for name, precision in precisions.items():
        assert kernel(quantized[name]).bits == precision.weight_bits
        assert quantized[name].precision == precision
    assert {precision.weight_bits for precision in precisions.values()} == {3, 8}
    # slopes of a PReLU are no kernel: 8 bits
    assert quantized["prelu"].weight_grids["alpha"].bits == 8


def test_scales_are_those_of_the_bits(few):
    graph, _, _, calibration, quantized = few
    for name, grid in quantized.grids.items():
        group = calibration.groups[name]
        if group not in calibration.ranges:
            continue
        wanted = calibration.ranges[group]
        step = (wanted.high - wanted.low) / (2**grid.bits - 1)
        assert grid.scale[0] == pytest.approx(step, rel=2.0 ** -(grid.bits + 2))
        assert abs(grid.real_range[0] - wanted.low) <= grid.scale[0]
    for node in filter(is_weighted, graph.nodes):
        grid, values = kernel(quantized[node.name]), node.weights[OPERATORS[node.kind].kernel]
        others = tuple(i for i in range(values.ndim) if i != grid.axis)
        low, high = grid.integer_range
        tight = np.maximum(values.max(axis=others) / high, values.min(axis=others) / low)
        np.testing.assert_allclose(grid.scale, tight, rtol=2.0 ** -(grid.bits + 3))


def test_ranges_are_fitted_to_their_bits(few):
    """A 4-bit range gains from clipping where an 8-bit one of the same tensor does not."""
    graph, precisions, samples, calibration, _ = few
    bits = activation_bits(graph, precisions)
    plain = calibrate(graph, [samples], method="mse", total=operator_graphs.SAMPLES)
    width = {g: r.high - r.low for g, r in calibration.ranges.items()}
    before = {g: r.high - r.low for g, r in plain.ranges.items()}
    assert {g for g in width if width[g] != before[g]} <= set(bits)
    clipped = [g for g in bits if width[g] < 0.95 * before[g]]
    assert len(clipped) >= len(bits) / 2


def test_auto_leaves_the_input_whole_at_8_bits_only():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph)
    samples["image"][0, 0, 0, 0] = 60.0  # an outlier
    options = {"method": "auto", "total": operator_graphs.SAMPLES}
    assert calibrate(graph, [samples], **options).ranges["image"].high == 60
    assert calibrate(graph, [samples], **options, bits={"image": 4}).ranges["image"].high < 30


def test_one_precision_and_the_same_for_every_name_agree():
    graph = operator_graphs.convolutions()
    ranges = calibrate(graph, [operator_graphs.draw(graph)], method="minmax", total=operator_graphs.SAMPLES).ranges
    five = Precision(weight_bits=5, activation_bits=6)

    def specified(*precisions):
        return Specification.of(specify(graph, ranges, *precisions))

    assert specified(five) == specified({node.name: five for node in graph.nodes if is_weighted(node)})
    assert specified() == specified({}) != specified(five)


def test_changes_keep_the_bits(few):
    _, _, _, calibration, quantized = few
    assert Specification.of(with_ranges(quantized, calibration.ranges)) == Specification.of(quantized)
    node = quantized["no_bias"]
    changed = with_scales(node, 0.7 * np.array(kernel(node).scale), quantized.grids[node.inputs[0]])
    assert kernel(changed).bits == node.precision.weight_bits == 3


def test_a_right_hand_matrix_of_few_bits_stays_centred():
    ranges = {"a": Range(-1.0, 3.0), "b": Range(-1.0, 3.0), "c": Range(-1.0, 3.0)}
    nodes = (
        Node("a", "Input", {"shape": (3, 4), "dtype": "float32"}),
        Node("b", "Input", {"shape": (4, 3), "dtype": "float32"}),
        Node("c", "MatMul", {}, ("a", "b")),
    )
    quantized = specify(Graph(nodes, ("a", "b"), ("c",)), ranges)
    grid = with_ranges(quantized, {"b": ranges["b"]}, bits=4).grids["b"]
    assert (grid.zero_point, grid.bits) == (0, 4)
    assert grid.real_range[1] == 7 * grid.scale[0] == pytest.approx(3.0, rel=0.1)


def test_few_bits_are_never_exported(few):
    *_, samples, _, quantized = few
    with pytest.raises(ValueError, match=r"TFLite has no kernels for activations of fewer than 8 bits: .*\(4 bits\)"):
        export_quantized(quantized, operator_graphs.representative(samples))
