import numpy as np
import operator_graphs
import pytest

from tfq.calibration.calibrate import calibrate
from tfq.calibration.specify import specify, with_ranges, with_scales
from tfq.calibration.statistics import Range
from tfq.models.operators import OPERATORS


@pytest.fixture(scope="module")
def setting():
    graph = operator_graphs.convolutions()
    ranges = calibrate(graph, [operator_graphs.draw(graph)], method="minmax", percentile=99.9, total=24).ranges
    return graph, ranges, specify(graph, ranges, weight_bits=4)


def kernel(graph, spec, name):
    return spec[name].weights[OPERATORS[graph[name].kind].kernel]


def test_the_same_ranges_and_scales_change_nothing(setting):
    graph, ranges, spec = setting
    assert with_ranges(graph, spec, ranges) == spec
    for layer in spec.layers:
        if "bias" in layer.weights:
            assert with_scales(spec, graph[layer.name], np.array(kernel(graph, spec, layer.name).scale)) == spec


def test_bias_scales_follow_ranges_and_weight_scales(setting):
    graph, ranges, spec = setting
    wide = {name: Range(3 * r.low, 3 * r.high) for name, r in ranges.items()}
    changed = with_ranges(graph, spec, wide)
    assert changed == specify(graph, wide, weight_bits=4)
    for layer in changed.layers:
        if "bias" not in layer.weights:
            continue
        node = graph[layer.name]
        changed = with_scales(changed, node, 0.5 * np.array(kernel(graph, spec, layer.name).scale))
        found = kernel(graph, changed, layer.name)
        np.testing.assert_allclose(found.scale, 0.5 * np.array(kernel(graph, spec, layer.name).scale), rtol=1e-4)
        expected = np.array(found.scale) * changed.activations[node.inputs[0]].scale[0]
        bias = np.array(changed[layer.name].weights["bias"].scale)
        np.testing.assert_allclose(
            bias.reshape(len(found.scale), -1), expected[:, None].repeat(bias.size // expected.size, 1)
        )


def test_a_wrong_number_of_scales_is_refused(setting):
    graph, _, spec = setting
    name = next(x.name for x in spec.layers if "bias" in x.weights)
    with pytest.raises(ValueError, match="scales, got 1"):
        with_scales(spec, graph[name], np.ones(1))
