"""Bits by layer and by tensor, from calibration to the specification."""

import numpy as np
import operator_graphs
import pytest

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify, with_ranges, with_scales
from tfq.export.package import export_quantized
from tfq.models.operators import OPERATORS
from tfq.models.widths import assign_widths, is_weighted


@pytest.fixture(scope="module")
def few():
    """(graph with few-bit tensors, its widths, samples, calibration by MSE, specification)."""
    graph, widths = assign_widths(operator_graphs.convolutions(), weight_bits=3, activation_bits=4, first_last_bits=8)
    samples = operator_graphs.draw(graph)
    calibration = calibrate(
        graph, [samples], method="mse", percentile=99.9, total=operator_graphs.SAMPLES, bits=widths.activations
    )
    spec = specify(graph, calibration.ranges, weight_bits=widths.weights, activation_bits=widths.activations)
    return graph, widths, samples, calibration, spec


def kernel(spec, node):
    return spec[node.name].weights[OPERATORS[node.kind].kernel]


def test_every_tensor_and_kernel_has_its_bits(few):
    graph, widths, _, _, spec = few
    assert {n: g.bits for n, g in spec.activations.items() if g.bits != 8} == widths.activations
    for name, bits in widths.weights.items():
        assert kernel(spec, graph[name]).bits == bits
    assert set(widths.weights.values()) == {3, 8}
    # slopes of a PReLU are no kernel: 8 bits
    assert spec["prelu"].weights["alpha"].bits == 8


def test_scales_are_those_of_the_bits(few):
    graph, _, _, calibration, spec = few
    for name, grid in spec.activations.items():
        group = calibration.groups[name]
        if group not in calibration.ranges:
            continue
        wanted = calibration.ranges[group]
        step = (wanted.high - wanted.low) / (2**grid.bits - 1)
        assert grid.scale[0] == pytest.approx(step, rel=2.0 ** -(grid.bits + 2))
        assert abs(grid.real_range[0] - wanted.low) <= grid.scale[0]
    for node in filter(is_weighted, graph.nodes):
        grid, values = kernel(spec, node), np.abs(node.weights[OPERATORS[node.kind].kernel])
        largest = values.max(axis=tuple(i for i in range(4)[: values.ndim] if i != grid.axis))
        np.testing.assert_allclose(grid.scale, largest / (2 ** (grid.bits - 1) - 1), rtol=2.0 ** -(grid.bits + 3))


def test_ranges_are_fitted_to_their_bits(few):
    """A 4-bit range gains from clipping where an 8-bit one of the same tensor does not."""
    graph, widths, samples, calibration, _ = few
    plain = calibrate(graph, [samples], method="mse", percentile=99.9, total=operator_graphs.SAMPLES)
    width = {g: r.high - r.low for g, r in calibration.ranges.items()}
    before = {g: r.high - r.low for g, r in plain.ranges.items()}
    assert {g for g in width if width[g] != before[g]} <= set(widths.activations)
    clipped = [g for g in widths.activations if width[g] < 0.95 * before[g]]
    assert len(clipped) >= len(widths.activations) / 2


def test_auto_leaves_the_input_whole_at_8_bits_only():
    graph = operator_graphs.convolutions()
    samples = operator_graphs.draw(graph)
    samples["image"][0, 0, 0, 0] = 60.0  # an outlier
    options = {"method": "auto", "percentile": 99.9, "total": operator_graphs.SAMPLES}
    assert calibrate(graph, [samples], **options).ranges["image"].high == 60
    assert calibrate(graph, [samples], **options, bits={"image": 4}).ranges["image"].high < 30


def test_one_number_and_the_same_for_every_name_agree():
    graph = operator_graphs.convolutions()
    ranges = calibrate(
        graph, [operator_graphs.draw(graph)], method="minmax", percentile=99.9, total=operator_graphs.SAMPLES
    ).ranges
    by_name = {node.name: 5 for node in graph.nodes}
    assert specify(graph, ranges, weight_bits=5) == specify(graph, ranges, weight_bits=by_name)
    by_group = dict.fromkeys(ranges, 6)
    assert specify(graph, ranges, activation_bits=6) == specify(graph, ranges, activation_bits=by_group)
    assert specify(graph, ranges) == specify(graph, ranges, weight_bits={}, activation_bits={})


def test_changes_keep_the_bits(few):
    graph, widths, _, calibration, spec = few
    assert with_ranges(graph, spec, calibration.ranges) == spec
    node = graph["no_bias"]
    changed = with_scales(spec, node, 0.7 * np.array(kernel(spec, node).scale))
    assert kernel(changed, node).bits == widths.weights["no_bias"] == 3


def test_a_right_hand_matrix_of_few_bits_stays_centred():
    graph = operator_graphs.transformer()
    ranges = calibrate(
        graph, [operator_graphs.draw(graph)], method="minmax", percentile=99.9, total=operator_graphs.SAMPLES
    ).ranges
    grid = specify(graph, ranges, activation_bits=4).activations[graph["scores"].inputs[1]]
    assert (grid.zero_point, grid.bits) == (0, 4)
    assert grid.real_range[1] == 7 * grid.scale[0]


def test_few_bits_are_never_exported(few):
    graph, _, samples, _, spec = few
    with pytest.raises(ValueError, match=r"TFLite has no kernels for activations of fewer than 8 bits: .*\(4 bits\)"):
        export_quantized(graph, spec, operator_graphs.representative(samples))
