"""tfq: from a trained Keras model to the smallest, fastest .tflite that keeps the accuracy.

    import tfq
    result = tfq.quantize(model, calibration, evaluation=(x, y))
    result.save("out")

The names below are the library; what they need, TensorFlow too, is imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfq.errors import UserError as UserError
    from tfq.execution.engines import engine as engine
    from tfq.library.comparison import Comparison as Comparison
    from tfq.library.comparison import evaluate as evaluate
    from tfq.library.inspection import Inspection as Inspection
    from tfq.library.inspection import inspect as inspect
    from tfq.library.runs import explore as explore
    from tfq.library.runs import quantize as quantize
    from tfq.recipe import Recipe as Recipe
    from tfq.report.frontier import FrontierReport as FrontierReport
    from tfq.report.report import Report as Report
    from tfq.result import Result as Result

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "tfq.library.comparison",
    "FrontierReport": "tfq.report.frontier",
    "Inspection": "tfq.library.inspection",
    "Recipe": "tfq.recipe",
    "Report": "tfq.report.report",
    "Result": "tfq.result",
    "UserError": "tfq.errors",
    "engine": "tfq.execution.engines",
    "evaluate": "tfq.library.comparison",
    "explore": "tfq.library.runs",
    "inspect": "tfq.library.inspection",
    "quantize": "tfq.library.runs",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tfq' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
