"""How far the outputs of a model are from those of the float model, sample by sample.

    KL(softmax(y) || softmax(q))        y, q: what a softmax at the end of the graph reads (`ends`)
    KL(p' || r')                        probabilities p of the float model, r of the other
    |y - q|^2 / mean over samples |y|^2     all other outputs (logits cannot be told from a regression)

summed over the outputs and their parts (`ends`).

The first is what a simulation is compared by. A file gives probabilities on the softmax's own grid, whose step is
1/256: of a thousand classes it rounds most to 0, and KL(p || r) would mostly measure that. So p' and r' have one class
for all those that neither p nor r has a step of, and what r rounds to 0 elsewhere counts as half a step. Merging
classes can only lower KL, and by nothing where their shares of the sum are alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfq.models.graph import Graph
from tfq.models.rewrite import unmoved

_STEP = 1 / 256  # of the grid that TFLite prescribes for probabilities
_TINY = 1e-7


class End(NamedTuple):
    """What an output of a graph, or a part of one, is compared by: a tensor, and whether a softmax reads it."""

    tensor: str
    logits: bool


def ends(graph: Graph) -> tuple[End, ...]:
    """One for every output, and for every part of an output that joins tensors of unlike ranges, as those of detectors.

    A model made from the graph has tensors of the same names.
    """

    def found(output: str) -> list[End]:
        node = graph[unmoved(graph, output)[-1]]
        if node.kind == "FloatConcatenate":
            return [end for part in node.inputs for end in found(part)]
        return [End(node.inputs[0], True) if node.kind in ("Softmax", "FloatSoftmax") else End(output, False)]

    return tuple(end for output in graph.outputs for end in found(output))


def divergence(reference: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> np.ndarray:
    """Divergence of every sample, summed over the outputs; arrays [n, ...], result [n]."""
    return np.sum([Yardstick.of(y)(y, q) for y, q in zip(reference, values, strict=True)], axis=0)


def is_distribution(values: np.ndarray) -> bool:
    """Whether the last axis of an output [n, ...] holds probabilities."""
    return values.ndim > 1 and bool(values.min() >= 0) and np.allclose(values.sum(-1), 1, atol=1e-3)


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """What one output of a model is compared by.

    Attributes:
      kind: "logits", "probabilities" or "values".
      size: mean over samples of |y|^2 in the float model.
    """

    kind: str
    size: float

    @classmethod
    def of(cls, values: np.ndarray, *, logits: bool = False) -> Yardstick:
        """That of the float model's output [n, ...]; logits: it is what a softmax reads."""
        found = Measured(logits=logits)
        found.add(values)
        return found.yardstick

    def __call__(self, reference: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Divergence of every sample [n] of some."""
        y, q = reference.astype(np.float64), values.astype(np.float64)
        if self.kind == "values":
            return np.square(y - q).reshape(len(y), -1).sum(1) / self.size
        each = _between_logits(y, q) if self.kind == "logits" else _between_probabilities(y, q)
        return each.reshape(len(y), -1).mean(1)


class Measured:
    """What a yardstick needs to know of an output, from some samples after others."""

    def __init__(self, *, logits: bool = False) -> None:
        self._logits, self._distribution, self._squares, self._samples = logits, True, 0.0, 0

    def add(self, values: np.ndarray) -> None:
        self._distribution &= is_distribution(values)
        self._squares += float(np.square(values, dtype=np.float64).sum())
        self._samples += len(values)

    @property
    def yardstick(self) -> Yardstick:
        kind = "logits" if self._logits else "probabilities" if self._distribution else "values"
        return Yardstick(kind, max(self._squares / self._samples, _TINY))


def _between_logits(y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(softmax(y) || softmax(q)) along the last axis."""
    from scipy.special import log_softmax  # takes a second to import

    log_p = log_softmax(y, -1)
    return (np.exp(log_p) * (log_p - log_softmax(q, -1))).sum(-1)


def _between_probabilities(p: np.ndarray, r: np.ndarray) -> np.ndarray:
    """KL(p' || r') along the last axis."""
    told = (p >= _STEP) | (r >= _STEP)
    rest = ~told.all(-1, keepdims=True)

    def merged(values: np.ndarray) -> np.ndarray:
        kept = np.where(told, np.maximum(values, _STEP / 2), 0.0)
        others = np.where(rest, np.maximum(1 - np.where(told, values, 0.0).sum(-1, keepdims=True), _STEP / 2), 0.0)
        found = np.concatenate([kept, others], -1)
        return found / found.sum(-1, keepdims=True)

    p, r = merged(p), merged(r)
    return (p * np.log(np.divide(p, r, out=np.ones_like(p), where=r > 0))).sum(-1)
