"""The report as one HTML page without scripts, made from its JSON alone."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from typing import Any

import jinja2
import markupsafe

from tfq.report import words
from tfq.report.pictures import layer_bits, layer_errors, svg
from tfq.report.summary import interval, number
from tfq.report.table import against_float, decibel


def page(report: Mapping[str, Any]) -> str:
    """The page of what `Report.to_json` says, parsed."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfq.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _of_json(number), "interval": _of_json(interval), "decibel": decibel}
    environment.filters |= {"short": lambda x: "" if x is None else f"{x:.3g}", "thousands": "{:,.0f}".format}
    environment.filters |= {"against_float": against_float, "marked": _marked}
    pictures = {"errors": layer_errors(report), "bits": layer_bits(report)}
    drawn = {name: svg(figure) for name, figure in pictures.items() if figure is not None}
    return environment.get_template("page.html").render(**report, pictures=drawn, words=words)


def _marked(text: str) -> markupsafe.Markup:
    """The text with what stands in backquotes, options of tfq, as code."""
    return markupsafe.Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(markupsafe.escape(text))))


def _of_json(form: Callable[..., str]) -> Callable[..., str]:
    """The same for estimates as JSON has them; a device's ratio has no unit there."""

    def formed(found: Mapping[str, Any] | None, **options: Any) -> str:
        return form(found and types.SimpleNamespace(**{"unit": "x", **found}), **options)

    return formed
