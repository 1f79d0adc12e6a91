"""A MatMul of two activations gives the same in every runtime, XNNPACK of older TensorFlow included."""

import numpy as np
import operator_graphs
import pytest
from keras_outputs import predict_list

from tfq.execution.interpreter import RUNTIMES, TfliteModel
from tfq.export.package import export_quantized
from tfq.models.graph import Graph, Node
from tfq.simulate.wrap import build_simulation


@pytest.mark.parametrize("transposed", [False, True])
def test_matmul_of_one_sided_matrices(transposed):
    shape = (3, 6, 8) if transposed else (3, 8, 6)
    nodes = (
        Node("left", "Input", {"shape": (3, 6, 8), "dtype": "float32"}),
        Node("right", "Input", {"shape": shape, "dtype": "float32"}),
        Node("product", "MatMul", {"transpose_b": transposed}, ("left", "right")),
    )
    graph = Graph(nodes, ("left", "right"), ("product",))
    samples = {name: array + np.float32(2) for name, array in operator_graphs.draw(graph).items()}
    quantized = operator_graphs.specified(graph, samples)
    assert quantized.grids["right"].zero_point == 0
    assert quantized.grids["left"].zero_point < -40
    content = export_quantized(quantized, operator_graphs.representative(samples))
    expected = predict_list(build_simulation(quantized, outputs=["product"]), [samples[n] for n in graph.inputs])[0]
    step = quantized.grids["product"].scale[0]
    for runtime in RUNTIMES:
        for delegate in (True, False):
            model = TfliteModel(content, runtime=runtime, delegate=delegate)
            found = [model.run({n: a[i : i + 1] for n, a in samples.items()})[0] for i in range(8)]
            assert np.abs(np.concatenate(found) - expected[:8]).max() < 1.5 * step, (runtime, delegate)
