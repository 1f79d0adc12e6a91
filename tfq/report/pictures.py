"""Pictures of a report, drawn from its JSON alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK, LIGHT, GREY = "#08519c", "#9ecae1", "#636363"
_INCHES_A_LAYER, _NARROWEST, _WIDEST = 0.28, 7.0, 40.0
_FLOAT_BITS = {"float16": 16, "float32": 32}


def layer_errors(report: Mapping[str, Any]) -> Figure | None:
    """Every layer's own error and what has arrived at it; None where none was measured."""
    layers = [layer for layer in report["layers"] if layer["own_sqnr_db"] is not None]
    if not layers:
        return None
    figure, axes = _by_layer(layers)
    places = range(len(layers))
    axes.bar(places, [x["own_sqnr_db"] for x in layers], color=LIGHT, label="error that the layer itself adds")
    axes.plot(
        places,
        [float("nan") if x["sqnr_db"] is None else x["sqnr_db"] for x in layers],
        color=DARK,
        marker="o",
        markersize=4,
        label="all error up to its output",
    )
    axes.set_ylabel("SQNR against float, dB (more is better)")
    axes.legend(frameon=False, fontsize=8, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.0))
    axes.set_ylim(0, 1.15 * max(x["own_sqnr_db"] for x in layers))
    return figure


def layer_bits(report: Mapping[str, Any]) -> Figure | None:
    """The bits of every layer's weights, on coarse grids those of their entropy, of clusters those of their number.

    None where all have the same.
    """
    layers = [layer for layer in report["layers"] if layer["weight_bits"] or layer["precision"] in _FLOAT_BITS]
    layers = [layer for layer in layers if layer["parameters"]]
    bits = [
        layer["entropy_bits"]
        or max(layer["clusters"] - 1, 0).bit_length()
        or layer["weight_bits"]
        or _FLOAT_BITS[layer["precision"]]
        for layer in layers
    ]
    if len(set(bits)) < 2:
        return None
    figure, axes = _by_layer(layers)
    floats = [layer["precision"] in _FLOAT_BITS for layer in layers]
    bars = axes.bar(range(len(layers)), bits, color=[GREY if x else DARK for x in floats])
    axes.bar_label(bars, [str(x) for x in bits], fontsize=8)
    axes.set_ylabel("bits per weight")
    return figure


def svg(figure: Figure) -> str:
    """The figure as an <svg> element; the same figure gives the same text."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "tfq", "svg.fonttype": "none"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    found = text.getvalue()
    return found[found.index("<svg") :]


def _by_layer(layers: Sequence[Mapping[str, Any]]) -> tuple[Figure, Any]:
    """A figure whose horizontal axis are these layers."""
    width = min(max(_NARROWEST, _INCHES_A_LAYER * len(layers)), _WIDEST)
    figure, (axes,) = panels(width, 4.0)
    names = [x["name"] for x in layers]
    axes.set_xticks(range(len(layers)), names, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def panels(width: float, height: float, count: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of so many inches with so many plots side by side."""
    from matplotlib.figure import Figure  # not pyplot: no state, no display

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    found = list(figure.subplots(1, count, squeeze=False)[0])
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found
