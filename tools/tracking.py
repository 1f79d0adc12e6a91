"""A run in MLflow: what was asked for, what was measured, and the files. Imported only with --mlflow.

Paths name people and machines, and addresses may hold passwords: what is logged has bare file names (`Recipe.shipped`),
and neither the files that hold paths nor the address of the server.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfq.errors import UserError
from tfq.evaluation.bootstrap import Estimate
from tfq.report.report import Report
from tfq.result import Result

_EXPERIMENT = "tfq"
_ARTIFACTS = ("model.tflite", "model.tflite.gz", "HOWTO.md", "spec.json")  # the reports and recipe.json hold paths


def load_mlflow() -> Any:
    """The package. Raises UserError where it is not installed; for a look before the work."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        import mlflow
    except ImportError as error:
        raise UserError("--mlflow is given and mlflow is not installed; pip install 'tfq[mlflow]'") from error
    return mlflow


def log_run(mlflow: Any, uri: str, name: str, result: Result) -> None:
    """Log a run under this name to the server, or the folder, at this address. Raises UserError where it cannot."""
    recipe = dataclasses.asdict(result.report.recipe.shipped())
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(_EXPERIMENT)
        # MLflow itself notes down the user and the path of the program
        tags = {"mlflow.user": "", "mlflow.source.name": "tfq", "tfq.version": result.report.version}
        with mlflow.start_run(run_name=name, tags=tags), tempfile.TemporaryDirectory() as folder:
            mlflow.log_params(recipe | {"chosen_precision": result.report.precision})
            mlflow.log_metrics(dict(figures(result.report)))
            for file in _ARTIFACTS:
                if file in result.files:
                    (Path(folder) / file).write_bytes(result.files[file])
            mlflow.log_artifacts(folder)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise UserError(f"cannot log to MLflow: {error}; the files of the run are written") from error


def figures(report: Report) -> Iterator[tuple[str, float]]:
    """(name, number) of what was measured of both models; intervals as name_low and name_high."""
    for model, of in ((report.evaluation.models[0], "float_"), (report.evaluation.models[-1], "")):
        estimates = {field: getattr(model, field) for field in ("score", "difference", "agreement", "sqnr")}
        if model.latency is not None:
            estimates["latency_ratio"] = model.latency.ratio
        for field, estimate in estimates.items():
            yield from _parts(f"{of}{field}", estimate)
        if model.size is not None:
            yield f"{of}file_bytes", model.size.file_bytes
            yield f"{of}download_bytes", model.size.download_bytes
    for stage in report.stages:
        yield f"seconds/{stage.name.replace(',', '')}", stage.seconds


def _parts(name: str, estimate: Estimate | None) -> Iterator[tuple[str, float]]:
    found = {} if estimate is None else {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    yield from ((f"{name}{end}", value) for end, value in found.items() if value is not None)
