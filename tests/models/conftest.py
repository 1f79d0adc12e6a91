"""What the loading tests share: random weights that do not degenerate, random inputs, the equality check."""

from __future__ import annotations

import numpy as np
import pytest

from tfq.models.equality import relative_error, run_graph
from tfq.models.graph import build_model, layer_class
from tfq.models.load import LoadedModel, load_model


def _randomise(model, seed: int = 0):
    """Weights that keep the signal's size, BatchNormalizations whose statistics are far from trivial."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if hasattr(layer, "layers"):
            _randomise(layer, seed)
            continue
        values = []
        for variable in layer.weights:
            name, shape = variable.name.split("/")[-1].split(":")[0], tuple(variable.shape)
            if name in ("moving_variance", "variance", "gamma"):
                values.append(rng.uniform(0.7, 1.4, shape))
            elif "kernel" in name or name == "embeddings":
                fan_in = max(1, int(np.prod(shape[:-1]))) if "depthwise" not in name else int(np.prod(shape[:2]))
                values.append(rng.normal(0, np.sqrt(1.6 / fan_in), shape))
            else:
                values.append(rng.normal(0, 0.1, shape))
        if values and all(v.dtype == float for v in values) and "count" not in layer.weights[-1].name:
            layer.set_weights(values)
    return model


def _arrays_for(loaded: LoadedModel, samples: int = 3, seed: int = 1, tokens: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for name in loaded.graph.inputs:
        shape, dtype = (samples, *loaded.graph[name].config["shape"]), loaded.graph[name].config["dtype"]
        found[name] = rng.normal(0, 1, shape) if dtype == "float32" else rng.integers(0, tokens, shape)
        found[name] = found[name].astype(dtype)
    return found


def _check_equal(source, *, bound: float = 1e-5, built: bool = True, **options) -> LoadedModel:
    """Load `source`; the graph must compute what the original does, and hold only known kinds."""
    loaded = load_model(source, **options)
    arrays = _arrays_for(loaded)
    expected = loaded.predict(arrays)
    for value in expected:
        assert value.std() > 1e-3 * np.abs(value).max(), "the model's output hardly depends on its input"
    if built:
        model = build_model(loaded.graph)
        found = model([arrays[name] for name in loaded.graph.inputs])
        found = [np.asarray(y) for y in (found if isinstance(found, list) else [found])]
    else:
        found = run_graph(loaded.graph, arrays)
    assert relative_error(list(expected), found) <= bound
    assert all(n.kind == "Input" or layer_class(n.kind) for n in loaded.graph.nodes)
    return loaded


@pytest.fixture
def randomise():
    return _randomise


@pytest.fixture
def check_equal():
    return _check_equal
