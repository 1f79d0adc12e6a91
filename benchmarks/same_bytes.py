"""Whether a change of tfq left its results as they were: `python -m benchmarks.same_bytes --output=before.json`.

Run it before the change, and after it with `--against=before.json`: every recipe whose `model.tflite` or `spec.json` is
no longer the same in every byte is listed, and the exit code is 1. "In its description alone" says that the two files
hold the same tensors and differ in their metadata, which has the recipe and the version.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ai_edge_litert import schema_py_generated as schema
from tfq_tools.command import new_flags, run_command

from benchmarks import cases
from benchmarks.common import fresh_process
from tfq.errors import UserError
from tfq.execution.progress import Lines

FLAGS = new_flags()
flags.DEFINE_list("cases", list(cases.CASES), "Which cases to run.", flag_values=FLAGS)
flags.DEFINE_list("recipes", [], "Which recipes to run; all by default.", flag_values=FLAGS)
flags.DEFINE_string("output", "", "Where the digests go, a JSON file.", flag_values=FLAGS)
flags.DEFINE_string("against", "", "The digests of an earlier run to compare with.", flag_values=FLAGS)

# Every case runs these, the small demo model all of them.
_EVERYWHERE: Mapping[str, Mapping[str, Any]] = {
    "int8": {},
    "w4_nearest": {"weight_bits": 4},
    "w4_advanced": {"weight_bits": 4, "pipeline": "advanced"},
}
_DEMO: Mapping[str, Mapping[str, Any]] = {
    **_EVERYWHERE,
    "minmax": {"calibration_method": "minmax"},
    "kl": {"calibration_method": "kl"},
    "w4_light": {"weight_bits": 4, "pipeline": "light"},
    "w3_least_squares": {"weight_bits": 3, "pipeline": "light", "reconstruction": "least_squares"},
    "w4_adaquant": {"weight_bits": 4, "pipeline": "advanced", "reconstruction": "adaquant", "mode": "parallel"},
    "w4_packed": {"weight_bits": 4, "storage": "packed"},
    "per_tensor": {"per_channel": False},
    "int16x8": {"precision": "int16x8"},
    "float_types": {"input_type": "float32", "output_type": "uint8"},
    "size_budget": {"pipeline": "light", "size_budget": 0.13, "sensitivity": "output_error"},
    "max_accuracy_drop": {"pipeline": "light", "max_accuracy_drop": 0.5},
}


def main(values: flags.FlagValues) -> int:
    if not values.output and not values.against:
        raise UserError("missing --output or --against; --help lists the flags")
    before = json.loads(Path(values.against).read_text(encoding="utf-8")) if values.against else {}
    names, absent = cases.present(values.cases)
    for note in absent:
        print(note, file=sys.stderr)
    progress = Lines(sys.stderr)
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder, fresh_process() as call:
        for name in names:
            files = cases.write_case(name, Path(folder), 512)
            for recipe, options in (_DEMO if name == cases.DEMO else _EVERYWHERE).items():
                if values.recipes and recipe not in values.recipes:
                    continue
                with progress.task(f"{name}, {recipe}", 0):
                    found[f"{name}/{recipe}"] = call(digests, files, options)
                if values.output:  # what is there if the run is stopped
                    Path(values.output).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    changed = {name: _changed(before[name], now) for name, now in found.items() if name in before}
    for name, what in changed.items():
        print(f"{name}: {what or 'the same bytes'}")
    return int(any(changed.values()))


def digests(files: cases.CaseFiles, options: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of what one recipe gives, and of the tensors of its model without the description."""
    from tfq.pipeline import quantize
    from tfq.recipe import Recipe

    recipe = Recipe(str(files.model), str(files.calibration), num_calibration_samples=512, **options)
    product = quantize(recipe)
    model = product.files["model.tflite"]
    return {
        "model.tflite": _sha(model),
        "spec.json": _sha(product.files["spec.json"]),
        "tensors": _sha(*_tensors(model)),
    }


def _tensors(model: bytes) -> list[bytes]:
    parsed = schema.ModelT.InitFromPackedBuf(model, 0)
    found = []
    for graph in parsed.subgraphs:
        for tensor in graph.tensors:
            grid = tensor.quantization
            for part in (parsed.buffers[tensor.buffer].data, grid and grid.scale, grid and grid.zeroPoint):
                found.append(b"" if part is None else bytes(part))
    return found


def _sha(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is no longer the same; empty where nothing changed."""
    names = [name for name in now if now[name] != before[name]]
    if names == ["model.tflite"]:
        return "model.tflite, in its description alone"
    return ", ".join(names)


def run() -> None:
    run_command(
        "same_bytes",
        main,
        FLAGS,
        summary="Compare the files of a set of recipes with those that an earlier version of tfq made.",
        groups={"What to run": ("cases", "recipes"), "Where": ("output", "against")},
    )


if __name__ == "__main__":
    run()
