"""Estimates as a report.json has them, as text."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

from tfq.report import summary


def _of_json(form: Callable[..., str]) -> Callable[..., str]:
    """The same for estimates as JSON has them; a device's ratio has no unit there."""

    def formed(found: Mapping[str, Any] | None, **options: Any) -> str:
        return form(found and types.SimpleNamespace(**{"unit": "x", **found}), **options)

    return formed


def ends(found: Mapping[str, Any], digits: int = 2) -> str:
    """The interval alone: "[97.50, 98.50]"; empty where there is none."""
    if found["low"] is None or found["high"] is None:
        return ""
    return f"[{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


number, interval = _of_json(summary.number), _of_json(summary.interval)
