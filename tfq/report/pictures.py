"""Pictures of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK, LIGHT, GREY = "#08519c", "#9ecae1", "#636363"


def panels(width: float, height: float, count: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of so many inches with so many plots side by side."""
    from matplotlib.figure import Figure  # not pyplot: no state, no display

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    found = list(figure.subplots(1, count, squeeze=False)[0])
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found
