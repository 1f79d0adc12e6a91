"""The report as one HTML page, made from its JSON alone: it asks the network for nothing, and reads without scripts."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from tfq.report import words
from tfq.report.cards import cards
from tfq.report.estimates import interval, number
from tfq.report.network import LEGENDS, ROW, TITLES, network
from tfq.report.table import against_float, decibel
from tfq.report.words import Spelling


def page(report: Mapping[str, Any], spelled: Spelling = str) -> str:
    """The page of what `Report.to_json` says, parsed."""
    shown = {"cards": cards(report), "network": network(report), "legends": LEGENDS, "titles": TITLES, "row": ROW}
    return render("report.html", **report, **shown, spelled=spelled)


def render(template: str, **values: Any) -> str:
    """A page of tfq/report/templates."""
    return _environment().get_template(template).render(**values, words=words)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfq.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters |= {"number": number, "interval": interval, "decibel": decibel}
    environment.filters |= {"short": lambda x: "" if x is None else f"{x:.3g}", "thousands": "{:,.0f}".format}
    environment.filters |= {"against_float": against_float, "marked": _marked}
    return environment


def _marked(text: str, spelled: Spelling = str) -> markupsafe.Markup:
    """The text with what stands in backquotes, options of tfq, as code."""
    text = words.with_options(text, spelled)
    return markupsafe.Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(markupsafe.escape(text))))
