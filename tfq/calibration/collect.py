"""One pass over the calibration samples: statistics of every activation tensor, in bounded memory.

The model runs once, in graph mode, with all wanted tensors exposed; a batch is as large as the memory
bound allows. Minimum and maximum are taken over all elements, except where no grid depends on them:
the grid of a sigmoid is prescribed, and a pooled or reshaped tensor reaches no further than the one
it is made from, whose grid it shares. There those of the histogram's elements must do, which saves
reading a third of all activations of EfficientNet. The histogram sees every k-th element of each
sample: a SHARE of them, but at least FEWEST_ELEMENTS and at most MOST_ELEMENTS. k has no
common factor with the number of channels, so that all channels and positions are represented alike.
Every second sample goes into statistics of its own, so that ranges fitted to one half can be compared
on the other; and so do the samples that judge (`tfq.data.roles`), so that there are statistics without them.

The samples are batched anew: the result does not depend on the batch size they arrive in.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf
import tf_keras

from tfq.calibration import histogram as histograms
from tfq.calibration.statistics import TensorStatistics
from tfq.errors import UserError
from tfq.execution.resources import DEFAULT, Resources
from tfq.models.graph import Graph, Node, build_model
from tfq.operations.table import OPERATORS

SHARE = 1 / 16
FEWEST_ELEMENTS, MOST_ELEMENTS = 64, 1024
DECAY = 0.99  # of the moving averages, per sample
_LARGEST_BATCH = 128
_LARGEST = 1e38  # an end of a range: the width of one beyond it is no float32
_PENDING_SAMPLES = 64  # subsamples wait until at least so many are there: one histogram call for all
_WORKERS = os.cpu_count() or 1
_TASKS_PER_WORKER = 4

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Halves:
    """Statistics by tensor (node) name.

    Attributes:
      first, second: over every other sample from the first on, and over those between; of a single sample the same.
      whole: over all.
    """

    first: dict[str, TensorStatistics]
    second: dict[str, TensorStatistics]
    whole: dict[str, TensorStatistics]


@dataclasses.dataclass(frozen=True)
class Collected:
    """Statistics over all samples, and over those that do not judge; the same where none does."""

    everything: Halves
    unjudged: Halves


class _Elements:
    """Extremes and histogram of one tensor over one part of the samples."""

    def __init__(self) -> None:
        self.minimum, self.maximum = math.inf, -math.inf
        self.histogram = histograms.EMPTY
        self.pending: list[np.ndarray] = []

    def add(self, lows: np.ndarray, highs: np.ndarray, elements: np.ndarray) -> None:
        """Some samples: their minima and maxima [samples] and subsamples [samples, elements]."""
        if len(lows):
            self.minimum, self.maximum = min(self.minimum, float(lows.min())), max(self.maximum, float(highs.max()))
            self.pending.append(elements)

    def flush(self) -> None:
        """The waiting subsamples into the histogram."""
        if self.pending:
            self.histogram = histograms.merge(self.histogram, histograms.histogram(np.concatenate(self.pending)))
            self.pending.clear()


class _Averages:
    """Moving averages of one tensor's extremes, sample by sample."""

    def __init__(self) -> None:
        self.minimum = self.maximum = 0.0
        self.samples = 0

    def add(self, lows: np.ndarray, highs: np.ndarray) -> None:
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True):
            self.minimum = DECAY * self.minimum + (1 - DECAY) * low
            self.maximum = DECAY * self.maximum + (1 - DECAY) * high
        self.samples += len(lows)


# The parts that samples fall into, and the unions of parts that are asked for.
_PARTS = tuple(itertools.product((False, True), (False, True)))  # (in the second half, judges)
_VIEWS = tuple(itertools.product(("first", "second", "whole"), (False, True)))  # (half, judges included)


def _belongs(part: tuple[bool, bool], view: tuple[str, bool]) -> bool:
    (in_second, judges), (half, with_judges) = part, view
    return (half == "whole" or in_second == (half == "second")) and (with_judges or not judges)


class _Accumulator:
    """Running statistics of one tensor: elements by part, averages, whose order counts, by view."""

    def __init__(self) -> None:
        self._parts = {part: _Elements() for part in _PARTS}
        self._averages = {view: _Averages() for view in _VIEWS}

    def add(self, second: np.ndarray, judges: np.ndarray, *values: np.ndarray) -> None:
        """Some samples: flags [samples] of the part that each is in, then as in `_Elements.add`."""
        parts = {part: (second == part[0]) & (judges == part[1]) for part in _PARTS}
        for part, chosen in parts.items():
            self._parts[part].add(*(value[chosen] for value in values))
        for view, averages in self._averages.items():
            chosen = np.any([flags for part, flags in parts.items() if _belongs(part, view)], axis=0)
            averages.add(*(value[chosen] for value in values[:2]))

    def flush(self) -> None:
        for part in self._parts.values():
            part.flush()

    def statistics(self, view: tuple[str, bool]) -> TensorStatistics | None:
        """What was seen up to the last `flush`; None where the view holds no sample."""
        found, parts = self._averages[view], [self._parts[part] for part in _PARTS if _belongs(part, view)]
        if not found.samples:
            return None
        minimum, maximum = min(p.minimum for p in parts), max(p.maximum for p in parts)
        correction = 1 - DECAY**found.samples
        return TensorStatistics(
            minimum=minimum,
            maximum=maximum,
            average_minimum=max(found.minimum / correction, minimum),
            average_maximum=min(found.maximum / correction, maximum),
            histogram=functools.reduce(histograms.merge, (p.histogram for p in parts)),
            samples=found.samples,
        )


def _halves(accumulators: Mapping[str, _Accumulator], *, judges: bool) -> Halves:
    found: dict[str, dict[str, TensorStatistics]] = {"first": {}, "second": {}, "whole": {}}
    for name, accumulator in accumulators.items():
        whole = accumulator.statistics(("whole", judges))
        assert whole is not None
        for half, values in found.items():
            part = None if whole.samples == 1 else accumulator.statistics((half, judges))
            values[name] = part or whole
    return Halves(**found)


def collect_statistics(
    graph: Graph,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    tensors: Sequence[str],
    judges: Collection[int] = (),
    total: int = 0,
    resources: Resources = DEFAULT,
) -> Collected:
    """Run the samples through `graph` once and collect the statistics of `tensors`.

    Args:
      graph: the prepared graph.
      batches: arrays [any number of samples, ...] by input name (`graph.inputs`).
      tensors: names of the nodes whose outputs are wanted.
      judges: positions of the samples that judge, not all of them.
      total: number of samples, for the progress display only.
      resources: the exposed activations of one batch fit into the memory.

    Raises:
      UserError: no sample at all, an input missing, or NaN or Inf in a tensor (named).
    """
    tensors = tuple(dict.fromkeys(tensors))
    watched = build_model(graph, outputs=tensors)
    wanted = watched.outputs
    size = sum(math.prod(t.shape[1:]) for t in wanted) * 4
    batch_size = resources.batch(size, _LARGEST_BATCH)
    signature = [tf.TensorSpec((batch_size, *t.shape[1:]), t.dtype) for t in watched.inputs]
    run = tf.function(lambda *inputs: watched(inputs, training=False), input_signature=signature, autograph=False)
    strides = [_stride(tuple(t.shape[1:])) for t in wanted]
    exact = [decides_on_grid(graph[name]) for name in tensors]
    clamped = [graph[name].activation is not None or graph[name].kind == "ReLU" for name in tensors]

    accumulators = {name: _Accumulator() for name in tensors}
    judging = np.asarray(list(judges), np.int64)
    seen = pending = 0
    with resources.progress.task("calibrate", total) as advance, ThreadPoolExecutor(_WORKERS) as pool:
        for arrays, count in _rebatch(batches, graph.inputs, batch_size):
            inputs = [tf.constant(a, s.dtype) for a, s in zip(arrays, signature, strict=True)]
            try:
                found = run(*inputs)
            except (tf.errors.UnimplementedError, tf.errors.AbortedError):
                # TensorFlow fuses operations that its oneDNN has no kernel for, unless it runs them one by one
                run = functools.partial(_one_by_one, watched)
                found = run(*inputs)
            values = [np.asarray(v)[:count] for v in tf.nest.flatten(found)]
            reduced = _in_parallel(pool, _reduce, list(zip(values, strides, clamped, exact, strict=True)))
            positions = np.arange(seen, seen + count)
            second, judged = positions % 2 == 1, np.isin(positions, judging)
            for name, (lows, highs, elements) in zip(tensors, reduced, strict=True):
                _check_finite(name, lows, highs, seen)
                accumulators[name].add(second, judged, lows, highs, elements)
            pending += count
            if pending >= _PENDING_SAMPLES:
                _in_parallel(pool, _Accumulator.flush, [(a,) for a in accumulators.values()])
                pending = 0
            seen += count
            advance(count)
        _in_parallel(pool, _Accumulator.flush, [(a,) for a in accumulators.values()])
    if not seen:
        raise UserError("the calibration data holds no sample; at least one is needed, some hundreds are better")
    everything = _halves(accumulators, judges=True)
    unjudged = _halves(accumulators, judges=False) if len(judging) else everything
    return Collected(everything, unjudged)


def _one_by_one(model: tf_keras.Model, *inputs: Any) -> Any:
    return model(inputs, training=False)


def _in_parallel(
    pool: ThreadPoolExecutor, function: Callable[..., _T], arguments: Sequence[tuple[Any, ...]]
) -> list[_T]:
    """`function` of every tuple of `arguments`, in few tasks: hundreds would cost more than they compute.

    NumPy lets go of the GIL in its loops, so threads do.
    """
    tasks = min(len(arguments), _TASKS_PER_WORKER * _WORKERS)
    found = pool.map(lambda k: [function(*a) for a in arguments[k::tasks]], range(tasks))
    results: list[Any] = [None] * len(arguments)
    for k, part in enumerate(found):
        results[k::tasks] = part
    return results


def decides_on_grid(node: Node) -> bool:
    """Whether the output's own extremes decide on a grid."""
    operator = OPERATORS.get(node.kind)
    return operator is None or operator.output == "own" or node.kind == "Embedding"


def _reduce(value: np.ndarray, stride: int, positive: bool, exact: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minima [samples], maxima [samples] and subsamples [samples, elements] of one batch of one tensor."""
    flat = value.reshape(len(value), -1)
    elements = np.ascontiguousarray(flat[:, ::stride])
    searched = flat if exact else elements
    highs = searched.max(axis=1)
    lows = np.zeros_like(highs) if positive else searched.min(axis=1)
    return lows, highs, elements


def _check_finite(name: str, lows: np.ndarray, highs: np.ndarray, seen: int) -> None:
    finite = np.isfinite(lows) & np.isfinite(highs)
    if not finite.all():
        raise UserError(
            f"the output of layer {name!r} holds NaN or Inf for calibration sample {seen + int(np.argmin(finite))};"
            " check the model's weights and the preprocessing of the data"
        )
    if (np.maximum(-lows, highs) > _LARGEST).any():
        worst = int(np.argmax(np.maximum(-lows, highs)))
        raise UserError(
            f"the output of layer {name!r} reaches {max(-float(lows[worst]), float(highs[worst])):.3g} for calibration"
            f" sample {seen + worst}, which no 8-bit grid holds beside other numbers; bound it in the model (a mask of"
            " -1e4 hides as much as -inf), or set `precision='dynamic_range'`"
        )


def _stride(shape: tuple[int, ...]) -> int:
    """The smallest step that leaves no more elements than wanted and meets all channels."""
    size = math.prod(shape)
    stride = math.ceil(size / min(max(size * SHARE, FEWEST_ELEMENTS), MOST_ELEMENTS))
    while stride > 1 and math.gcd(stride, shape[-1]) > 1:
        stride += 1
    return stride


def _rebatch(
    batches: Iterable[Mapping[str, np.ndarray]], names: Sequence[str], batch_size: int
) -> Iterator[tuple[list[np.ndarray], int]]:
    """Batches of exactly `batch_size` samples, the last one padded with copies, and the number of real ones."""
    waiting: list[list[np.ndarray]] = [[] for _ in names]
    for batch in batches:
        if set(batch) != set(names):
            raise UserError(f"the calibration data has the inputs {sorted(batch)}; the model expects {sorted(names)}")
        for queue, name in zip(waiting, names, strict=True):
            queue.extend(batch[name])
        while len(waiting[0]) >= batch_size:
            yield [np.stack(queue[:batch_size]) for queue in waiting], batch_size
            for queue in waiting:
                del queue[:batch_size]
    count = len(waiting[0])
    if count:
        yield [np.stack([*queue, *[queue[-1]] * (batch_size - count)]) for queue in waiting], count
