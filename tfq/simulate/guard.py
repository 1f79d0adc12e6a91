"""The guard of every step that can make things worse: the outputs of the simulation on held-back samples.

divergence = mean over samples of  KL(float || simulated)          for outputs that are probabilities
             sum (y - q)^2 / sum y^2                               for all others
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfq.models.graph import Graph, build_model
from tfq.simulate.run import predict_list
from tfq.simulate.wrap import build_simulation
from tfq.spec import QuantizationSpec

_TINY = 1e-7


def compare_specs(
    graph: Graph, specs: Mapping[str, QuantizationSpec], samples: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Divergence of each specification's simulation from the float model, by the specification's name.

    Args:
      graph: the prepared graph.
      specs: candidates.
      samples: arrays [n, ...] by input name that no candidate was fitted to.
    """
    feeds = [samples[name] for name in graph.inputs]
    reference = predict_list(build_model(graph, outputs=graph.outputs), feeds)
    return {
        name: divergence(reference, predict_list(build_simulation(graph, spec, outputs=graph.outputs), feeds))
        for name, spec in specs.items()
    }


def divergence(reference: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> float:
    """Sum over the outputs of the equation above; arrays [n, ...]."""
    return float(sum(_one(y.astype(np.float64), q.astype(np.float64)) for y, q in zip(reference, values, strict=True)))


def _one(y: np.ndarray, q: np.ndarray) -> float:
    if y.ndim > 1 and y.min() >= 0 and np.allclose(y.sum(-1), 1, atol=1e-3):
        p, r = np.clip(y, _TINY, None), np.clip(q, _TINY, None)
        p, r = p / p.sum(-1, keepdims=True), r / r.sum(-1, keepdims=True)
        return float((p * np.log(p / r)).sum(-1).mean())
    return float(np.square(y - q).sum() / max(np.square(y).sum(), _TINY))
