"""A file is made for one sample; a program may give it any number."""

import numpy as np
import operator_graphs
from ai_edge_litert.interpreter import Interpreter

from tfq.execution.delegation import delegation
from tfq.execution.interpreter import TfliteModel
from tfq.models.graph import Graph, Node
from tfq.models.widths import dynamic_precisions


def outputs(content, integers):
    """Of the file resized to as many samples; integers [n, ...]."""
    runtime = Interpreter(model_content=content)
    (given,) = runtime.get_input_details()
    runtime.resize_tensor_input(given["index"], integers.shape)
    runtime.allocate_tensors()
    runtime.set_tensor(given["index"], integers)
    runtime.invoke()
    return [runtime.get_tensor(found["index"]) for found in runtime.get_output_details()]


def test_the_batch_can_be_resized():
    rng = np.random.default_rng(0)
    weights = {"kernel": rng.normal(size=(1, 1, 4, 6)).astype(np.float32), "bias": np.ones(6, np.float32)}
    nodes = (
        Node("image", "Input", {"shape": (6, 8, 4), "dtype": "float32"}),
        Node("rows", "Reshape", {"target_shape": (48, 1, 4)}, ("image",)),
        Node("mixed", "Conv2D", {"filters": 6, "kernel_size": 1}, ("rows",), weights),
        Node("means", "GlobalAveragePooling2D", {}, ("mixed",)),
        Node("pixel", "Reshape", {"target_shape": (1, 1, 6)}, ("means",)),
        Node("flat", "Reshape", {"target_shape": (48 * 6,)}, ("mixed",)),
    )
    content = operator_graphs.exported(Graph(nodes, ("image",), ("pixel", "flat"))).content
    samples = rng.integers(-128, 128, (3, 6, 8, 4), np.int8)
    alone = [outputs(content, sample[None]) for sample in samples]
    for together, singles in zip(outputs(content, samples), zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(together, np.concatenate(singles))
    assert not delegation(TfliteModel(content)).outside


def test_rows_are_looked_up_for_any_batch():
    graph = operator_graphs.lookups()
    options = {"input_type": "float32", "output_type": "float32"}
    case = operator_graphs.exported(graph, dynamic_precisions(graph, 8), **options)
    (alone,) = zip(*(outputs(case.content, sample[None]) for sample in case.samples["index"][:3]), strict=True)
    (together,) = outputs(case.content, case.samples["index"][:3])
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-5)
