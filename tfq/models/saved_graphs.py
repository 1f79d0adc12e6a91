"""A SavedModel without Keras layers, as Keras 3's `export()` writes it, as a float .tflite.

TFLiteConverter runs its graph, which may do what its author liked, so that only a trusted one is converted; and in a
process of its own, which ends with this one.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from tfq.errors import UserError
from tfq.execution.parent import die_with_parent
from tfq.models.refusals import shortened


@contextlib.contextmanager
def as_tflite(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """The converted file of a SavedModel, which is there as long as the context is open.

    Raises UserError where TFLiteConverter does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="tfq-model-") as folder:
        target = pathlib.Path(folder) / f"{path.stem}.tflite"
        command = [sys.executable, "-m", __name__, str(path), str(target), str(os.getpid())]
        found = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=found, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode or not target.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise UserError(
                f"{path}: TFLiteConverter cannot convert it ({shortened(lines[-1])}); give the .keras file of"
                " the model, or a float .tflite"
            )
        yield target


def _main(path: str, target: str, parent: str) -> None:
    die_with_parent(int(parent))
    import tensorflow as tf

    pathlib.Path(target).write_bytes(tf.lite.TFLiteConverter.from_saved_model(path).convert())


if __name__ == "__main__":
    _main(*sys.argv[1:])
