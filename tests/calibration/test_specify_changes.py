import numpy as np
import operator_graphs
import pytest

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify, with_ranges, with_scales
from tfq.calibration.statistics import Range
from tfq.operations.table import OPERATORS
from tfq.precision import Precision
from tfq.spec import Specification


@pytest.fixture(scope="module")
def setting():
    graph = operator_graphs.convolutions()
    ranges = calibrate(graph, [operator_graphs.draw(graph)], method="minmax", total=24).ranges
    return graph, ranges, specify(graph, ranges, Precision(weight_bits=4))


def kernel(node):
    return node.weight_grids[OPERATORS[node.kind].kernel]


def rescaled(quantized, name, factor):
    node = quantized[name]
    return with_scales(node, factor * np.array(kernel(node).scale), quantized.grids[node.inputs[0]])


def test_the_same_ranges_and_scales_change_nothing(setting):
    _, ranges, quantized = setting
    assert Specification.of(with_ranges(quantized, ranges)) == Specification.of(quantized)
    for layer in quantized.layers:
        if "bias" in layer.weight_grids:
            assert rescaled(quantized, layer.name, 1.0).weight_grids == layer.weight_grids


def test_bias_scales_follow_ranges_and_weight_scales(setting):
    graph, ranges, quantized = setting
    wide = {name: Range(3 * r.low, 3 * r.high) for name, r in ranges.items()}
    changed = with_ranges(quantized, wide)
    assert Specification.of(changed) == Specification.of(specify(graph, wide, Precision(weight_bits=4)))
    for layer in changed.layers:
        if "bias" not in layer.weight_grids:
            continue
        found = rescaled(changed, layer.name, 0.5)
        scales = np.array(kernel(found).scale)
        np.testing.assert_allclose(scales, 0.5 * np.array(kernel(layer).scale), rtol=1e-4)
        expected = scales * changed.grids[layer.inputs[0]].scale[0]
        bias = np.array(found.weight_grids["bias"].scale)
        np.testing.assert_allclose(
            bias.reshape(len(scales), -1), expected[:, None].repeat(bias.size // expected.size, 1)
        )


def test_a_wrong_number_of_scales_is_refused(setting):
    *_, quantized = setting
    node = next(x for x in quantized.layers if "bias" in x.weight_grids)
    with pytest.raises(ValueError, match="scales, got 1"):
        with_scales(node, np.ones(1), quantized.grids[node.inputs[0]])
