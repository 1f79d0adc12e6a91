"""Models by a budget: the same bytes whoever measures their layers."""

import concurrent.futures
import multiprocessing

import keras
import numpy as np
import pytest

import tfq

BUDGET = {"pipeline": "light", "size_budget": 0.15, "candidates": ["w3", "w4", "w8"]}


@pytest.mark.slow
def test_a_budget_gives_the_same_bytes_by_any_executor():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((12, 12, 3))
    for filters in (8, 12):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
    samples = np.random.default_rng(0).normal(size=(64, 12, 12, 3)).astype(np.float32)

    def run(executor=None, **more):
        return tfq.quantize(model, samples, executor=executor, **BUDGET, **more).tflite

    alone = run()
    assert run(workers=2) == alone
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        assert run(pool) == alone
    for name in ("ray", "dask"):
        with tfq.engine(name, workers=2) as executor:
            assert run(executor) == alone
