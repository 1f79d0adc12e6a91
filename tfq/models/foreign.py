"""Model files of others, and the road on which each becomes a float .tflite."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from tfq.errors import UserError

_TORCH = (
    "a model of PyTorch",
    "litert_torch.convert(model.eval(), (example,)).export('model.tflite') writes a float .tflite; give that",
)
_CORE_ML = ("a model of Core ML", "nothing converts it back; give the model that it was made from")
_ROADS: Mapping[str, tuple[str, str]] = {
    ".onnx": ("a model of ONNX", "onnx2tf -i model.onnx -o folder writes a float .tflite; give that"),
    ".pt": _TORCH,
    ".pt2": _TORCH,
    ".pth": _TORCH,
    ".ckpt": ("a checkpoint, weights without a network", "load it into its model, and give that"),
    ".safetensors": (
        "weights without a network",
        "load them into their model; then save that as .keras, or convert it with litert_torch to a float .tflite",
    ),
    ".pb": (
        "a graph of TensorFlow",
        "give the whole folder of a SavedModel; tf.compat.v1.lite.TFLiteConverter.from_frozen_graph makes a float"
        " .tflite of a frozen graph",
    ),
    ".json": ("a network without its weights", "give the .keras file that model.save('model.keras') writes"),
    ".mlmodel": _CORE_ML,
    ".mlpackage": _CORE_ML,
}


def foreign(path: pathlib.Path) -> UserError | None:
    """Why a path that holds no model of Keras and no .tflite is refused, if its name says what it is."""
    found = _ROADS.get(path.suffix.lower())
    return UserError(f"{path}: {found[0]}, which tfq does not read; {found[1]}") if found is not None else None
