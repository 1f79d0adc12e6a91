"""Weights of clusters on the whole road: the file, the specification and the report hold them."""

import json
import re

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfq
from tfq.execution.interpreter import TfliteModel
from tfq.execution.tflite import parse_tflite
from tfq.report.summary import summary


def kernels(content):
    """Elements of the int8 constants with more than one scale."""
    table, model = parse_tflite(content), TfliteModel(content, delegate=False)
    return [
        model.constant(index)
        for index, tensor in enumerate(table.subgraphs[0].tensors)
        if tensor.quantization is not None
        and tensor.quantization.scale is not None
        and len(tensor.quantization.scale) > 1
        and tensor.type == schema.TensorType.INT8
    ]


@pytest.mark.parametrize(
    "options", [{"weight_clusters": 4}, {"candidates": ("c4",), "size_budget": 0.1, "sensitivity": "gradient"}]
)
def test_every_code_of_the_file_is_in_the_codebook_of_its_layer(options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    found = tfq.quantize(model, x, pipeline="light", **options)
    spec = json.loads(found.files["spec.json"])
    books = [
        grid["codebook"] for layer in spec["layers"] for name, grid in layer["weights"].items() if name == "kernel"
    ]
    assert len(books) == 2
    assert all(len(book) == 4 for book in books)
    for values, book in zip(kernels(found.files["model.tflite"]), books, strict=True):
        assert set(values.ravel().tolist()) <= set(book)
    assert "4 (2 bits)" in found.files["report.html"].decode()
    assert re.search(r"clusters of weights +4 \(2 bits\)", summary(found.report))
    assert [layer.clusters for layer in found.report.layers if layer.weight_bits] == [4, 4]
