"""The benchmark's cases as files, the way a user has them: a Keras model, calibration inputs, labelled test data.

The demo model is there in every checkout. The others are real pretrained models with real data that are
not part of the project; they are read from `shared/` beside the checkout, where that is present.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT
from tfq.data.preprocess import NORMALIZATIONS
from tfq.recipe import Recipe

DEMO = "digits"
SHARED = ("resnet8_cifar10", "resnet20_cifar10", "kws_dscnn", "mobilenet_v2_035_imagenette")
CASES = (DEMO, *SHARED)
LARGER = ("mobilenet_v2_100_imagenet", "mobilenet_v3_small_imagenette")  # of the pages that say so
DETECTOR = "fastestdet_coco"  # its labels are boxes: no case for `write_case`
_OF_CIFAR = {"resnet8_cifar10": "raw", "resnet20_cifar10": "imagenet"}  # case -> its scaling
_OF_IMAGENETTE = ("mobilenet_v2_035_imagenette",)
_SHARED_FOLDER = ROOT.parent / "shared"


@dataclasses.dataclass(frozen=True)
class CaseFiles:
    """One case on disk; the arrays are float32 in the units that the model expects."""

    model: Path
    calibration: Path
    test: Path
    calibration_samples: int

    def recipe(self, num_samples: int, seed: int, **options: Any) -> Recipe:
        """A run on these files with so many calibration samples."""
        return Recipe(
            model=str(self.model),
            calibration_data=str(self.calibration),
            evaluation_data=str(self.test),
            num_calibration_samples=num_samples,
            seed=seed,
            **options,
        )


def absence(name: str) -> str:
    """Why a case cannot be run here; "" where it can."""
    if name == DEMO:
        return ""
    models = [_SHARED_FOLDER / "data" / "models" / f"{name}{suffix}" for suffix in (".h5", ".keras", "_float16.npz")]
    needed = (_SHARED_FOLDER / "cases.py", next((path for path in models if path.is_file()), models[0]))
    missing = [path.relative_to(ROOT.parent) for path in needed if not path.is_file()]
    return f"../{missing[0]} is not there (it is no part of the project)" if missing else ""


def present(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the cases that can be run here, why the others cannot)."""
    reasons = {name: absence(name) for name in names}
    notes = [f"{name} was skipped: {reason}" for name, reason in reasons.items() if reason]
    return [name for name, reason in reasons.items() if not reason], notes


def write_case(name: str, directory: Path, num_samples: int | None) -> CaseFiles:
    """Write the calibration inputs (the first `num_samples` or all, without labels) and the test data as .npz."""
    model, calibration, test, labels = data(name)
    calibration = calibration[:num_samples]
    files = CaseFiles(model, directory / "calibration.npz", directory / "test.npz", len(calibration))
    np.savez(files.calibration, x=calibration.astype(np.float32))
    np.savez(files.test, x=test.astype(np.float32), y=labels)
    return files


def write_named(name: str, directory: Path, num_samples: int | None) -> CaseFiles:
    """As `write_case`, of a case with several inputs: the arrays have their names, in the types that they come in."""
    case = _shared_cases().load(name)
    calibration = {name: values[:num_samples] for name, values in case.calibration.items()}
    count = min(map(len, calibration.values()))
    files = CaseFiles(Path(case.model_path), directory / "calibration.npz", directory / "test.npz", count)
    np.savez(files.calibration, **calibration)
    np.savez(files.test, **case.test, y=case.labels)
    return files


def data(name: str) -> tuple[Path, np.ndarray, np.ndarray, Any]:
    """(model, calibration inputs, test inputs, labels of these) of a case with one input, and of the detector."""
    if name == DEMO:
        with np.load(ROOT / "demo" / "calibration.npz") as calibration, np.load(ROOT / "demo" / "test.npz") as test:
            return ROOT / "demo" / "digits.keras", calibration["x"], test["x"], test["y"]
    case = _shared_cases().load(name)
    return case.model_path, case.calibration, case.test, case.labels


def further(name: str, num_samples: int) -> np.ndarray | None:
    """Inputs without labels beyond the first `num_samples` calibration samples, as `data` gives them; or None."""
    shared = _shared_cases()
    if name in _OF_CIFAR:
        with np.load(shared.ROOT / "cifar10_train.npz") as file:
            return NORMALIZATIONS[_OF_CIFAR[name]](file["x"][num_samples:])
    if name in _OF_IMAGENETTE:
        images = shared.jpegs("imagenette160_unlabelled.npz")
        return np.concatenate([_enlarged(image[None]) for image in images])
    return None


def _enlarged(images: np.ndarray) -> np.ndarray:
    """Pictures of 160 pixels as a network of 224 pixels reads them."""
    import tensorflow as tf

    return NORMALIZATIONS["minus_one_one"](tf.image.resize(images.astype(np.float32), (224, 224)).numpy())


def _shared_cases() -> Any:
    """The loader beside the data, as a module."""
    spec = importlib.util.spec_from_file_location("shared_cases", _SHARED_FOLDER / "cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
