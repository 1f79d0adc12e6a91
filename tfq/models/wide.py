"""Inputs that no single 8-bit grid can hold: channels of very different scales, or small changes far from 0.

A channel (of the last axis) is lost where its standard deviation is less than 10 dB above the error that the grid of
the whole input makes in it; a grid reaches from the smallest value to the largest, and to 0. That alone says nothing of
what the model makes of the channel. So the float model is run on the rounded input: where that costs its outputs
dearly, the input stays float32, without a grid, up to where its channels have one scale:

    the affine maps behind it (Normalization, Rescaling, batch normalisation) stay in float, if their outputs have
    one scale, or else
    x = s y + m per channel: y = (x - m) / s in float, s y + m folded into the layer behind; m and s are the mean and
    the standard deviation of the samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfq.models.equality import run_graph
from tfq.models.fold import fold_affines
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.inputs import moves, without_grid
from tfq.models.rewrite import made_by
from tfq.numerics import reference

_BITS = 8
_LOST = 10.0  # dB of a channel
_DEAR = 25.0  # dB of an output
_ROUNDING = 1e-6  # of float32


@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
    """One tensor's channels against its grid.

    Attributes:
      low, high, step: of the grid.
      means, deviations: of the channels, float64 [channels].
      lost: channels that the grid cannot hold.
    """

    low: float
    high: float
    step: float
    means: np.ndarray
    deviations: np.ndarray
    lost: tuple[int, ...]

    def __str__(self) -> str:
        grid = f"8 bits over {self.low:.6g}..{self.high:.6g} are steps of {self.step:.3g}"
        least = self.lost[int(np.argmin(self.deviations[list(self.lost)]))] if self.lost else 0
        if len(self.deviations) == 1:
            return f"{grid}, and it varies by {self.deviations[0]:.3g} (standard deviation)"
        return (
            f"{grid}, and channel {least} varies by {self.deviations[least]:.3g}, channel"
            f" {int(self.deviations.argmax())} by {self.deviations.max():.3g} (standard deviations)"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Wide:
    """Inputs with lost channels, by name, and samples [n, ...] of all inputs to judge that by."""

    spreads: Mapping[str, Spread]
    samples: Mapping[str, np.ndarray]


def spread_of(values: np.ndarray) -> Spread:
    """Of a tensor's values [n, ..., channels]."""
    rows = np.asarray(values, np.float64).reshape(-1, values.shape[-1] if values.ndim > 1 else 1)
    low, high = float(rows.min()), float(rows.max())
    error = rows - _rounded(rows, low, high)
    noise, deviations = np.sqrt(np.mean(error**2, axis=0)), rows.std(axis=0)
    means = rows.mean(axis=0)
    deviations[deviations <= _ROUNDING * np.abs(means)] = 0.0  # constant
    lost = np.flatnonzero((deviations > 0) & (deviations < noise * 10 ** (_LOST / 20)))
    step = reference.asymmetric_parameters(low, high, _BITS)[0]
    return Spread(min(low, 0.0), max(high, 0.0), float(step), means, deviations, tuple(map(int, lost)))


def find_wide(graph: Graph, samples: Mapping[str, np.ndarray]) -> Wide | None:
    """The inputs of a loaded model with lost channels; None where there are none, as in almost all models."""
    spreads = {}
    for name in graph.inputs:
        if np.asarray(samples[name]).dtype.kind == "f":
            spread = spread_of(np.asarray(samples[name]))
            if spread.lost:
                spreads[name] = spread
    return Wide(spreads, samples) if spreads else None


def keep_wide_float(graph: Graph, wide: Wide) -> tuple[Graph, tuple[str, ...]]:
    """The graph whose wide inputs stay float where that matters, and one line for each that matters.

    Args:
      graph: decomposed, its affine maps not folded yet.
      wide: of its inputs.
    """
    expected, notes = run_graph(graph, wide.samples), []
    for name, spread in wide.spreads.items():
        if without_grid(graph[name]):
            continue
        values = np.asarray(wide.samples[name], np.float64)
        rounded = _rounded(values, spread.low, spread.high).astype(np.float32)
        left = _signal_to_noise(expected, run_graph(graph, {**wide.samples, name: rounded}))
        if left >= _DEAR:
            continue
        kept = _with_float_maps(graph, name, wide) or _with_own_map(graph, name, spread)
        if kept is None:
            notes.append(
                f"input {name!r} is too coarse on one 8-bit grid: {spread}; rounding it leaves the outputs"
                f" {left:.0f} dB; bring its channels to one scale, by a Normalization layer or before the model"
            )
            continue
        graph, what = kept
        notes.append(
            f"input {name!r} stays float32 in the file, and so does {what}: {spread}; rounding it would leave the"
            f" outputs {left:.0f} dB"
        )
    return graph, tuple(notes)


def _rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scale, zero_point = reference.asymmetric_parameters(low, high, _BITS)
    codes = np.clip(np.rint(values / float(scale)) + zero_point, -128, 127)
    return (codes - zero_point) * float(scale)


def _signal_to_noise(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """dB of the output that keeps least."""
    worst = np.inf
    for a, b in zip(expected, found, strict=True):
        signal, noise = float(np.var(a, dtype=np.float64)), float(np.mean((a - b.astype(np.float64)) ** 2))
        if signal > 0 and noise > 0:
            worst = min(worst, 10 * np.log10(signal / noise))
    return worst


def _without_grid(node: Node) -> Node:
    return node.replace(config={**node.config, "grid": False})


def _with_float_maps(graph: Graph, name: str, wide: Wide) -> tuple[Graph, str] | None:
    """The affine maps that the input reaches first, in float; None where what they give is too wide itself."""
    reached, maps = {name}, []
    for node in graph.nodes:
        is_map = node.kind == "Affine"
        if (is_map or moves(node)) and node.inputs and reached.issuperset(node.inputs):
            reached.add(node.name)
            maps += [node.name] if is_map else []
    readers = graph.readers
    ends = tuple(n for n in sorted(reached) if n in graph.outputs or any(r not in reached for r in readers[n]))
    if not maps or not ends:
        return None
    values = run_graph(Graph(graph.nodes, graph.inputs, ends), wide.samples)
    if any(spread_of(v).lost for v in values):
        return None

    def changed(node: Node) -> Node:
        if node.name == name:
            return _without_grid(node)
        return node.replace(kind="FloatAffine") if node.name in maps else node

    layers = ", ".join(repr(origin) for m in maps for origin in graph[m].origin)
    return graph.replace_nodes([changed(node) for node in graph.nodes]), f"what scales it ({layers})"


def _with_own_map(graph: Graph, name: str, spread: Spread) -> tuple[Graph, str] | None:
    """The input brought to one scale in float, and back in the layers behind; None where these cannot take it."""
    if not graph[name].config["shape"]:
        return None
    deviations = np.where(spread.deviations > 0, spread.deviations, 1.0)
    weights = {"scale": 1 / deviations, "offset": -spread.means / deviations}
    back = {"scale": deviations, "offset": spread.means}
    nodes: list[Node] = []
    made = None
    for node in graph.nodes:
        if node.name == name and node.kind == INPUT:
            scaled = made_by(node, "scaled", "FloatAffine", (name,), weights={n: _f(w) for n, w in weights.items()})
            made = made_by(node, "restored", "Affine", (scaled.name,), weights={n: _f(w) for n, w in back.items()})
            nodes += [_without_grid(node), scaled, made]
        else:
            inputs = tuple(made.name if made is not None and i == name else i for i in node.inputs)
            nodes.append(node.replace(inputs=inputs))
    found = Graph(tuple(nodes), graph.inputs, graph.outputs, graph.output_names)
    if made is None or made.name in fold_affines(found).by_name:
        return None
    return found, "a scaling of each channel that tfq puts behind it"


def _f(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32)
