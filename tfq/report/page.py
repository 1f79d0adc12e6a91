"""The report as one HTML page without scripts, made from its JSON alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from tfq.report import words
from tfq.report.pictures import layer_bits, layer_errors, svg
from tfq.report.table import against_float


def page(report: Mapping[str, Any]) -> str:
    """The page.

    Args:
      report: what `Report.to_json` says, parsed.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfq.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"estimate": _estimate, "interval": _interval, "short": _short, "thousands": _thousands}
    environment.filters |= {"times": _times, "against_float": against_float, "marked": _marked}
    pictures = {"errors": layer_errors(report), "bits": layer_bits(report)}
    drawn = {name: svg(figure) for name, figure in pictures.items() if figure is not None}
    return environment.get_template("page.html").render(**report, pictures=drawn, words=words)


def _marked(text: str) -> markupsafe.Markup:
    """The text with what stands in backquotes, options of tfq, as code."""
    return markupsafe.Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(markupsafe.escape(text))))


def _estimate(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    """ "95.11 %" """
    if found is None or found["value"] is None:
        return ""
    return f"{found['value']:.{digits}f}{_unit(found['unit'])}"


def _interval(found: Mapping[str, Any] | None, *, sign: str = "", digits: int = 2) -> str:
    """ "+0.12 points [-0.38, +0.50]" """
    if found is None or found["value"] is None:
        return ""
    text = f"{found['value']:{sign}.{digits}f}{_unit(found['unit'])}"
    if found["low"] is None or found["high"] is None:
        return text
    return f"{text} [{found['low']:{sign}.{digits}f}, {found['high']:{sign}.{digits}f}]"


def _times(found: Mapping[str, Any] | None) -> str:
    """ "0.512 x [0.498, 0.531]"; one round has no interval."""
    return "" if found is None else _interval({**found, "unit": "x"}, digits=3)


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def _short(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _thousands(value: float) -> str:
    return f"{value:,.0f}"
