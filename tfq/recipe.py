"""What the user wants. Flags become a `Recipe` in one function; the pipeline reads nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import PurePath

from tfq.errors import UserError

CHOICES = {
    "precision": ("int8", "int16x8", "float16", "dynamic_range", "float32"),
    "pipeline": ("int8", "light", "advanced"),
    "calibration_method": ("auto", "minmax", "moving_average", "percentile", "kl", "mse"),
    "storage": ("int8", "packed"),
    "input_type": ("int8", "uint8", "float32"),
    "output_type": ("int8", "uint8", "float32"),
    "preprocess": ("none", "zero_one", "minus_one_one", "imagenet", "raw"),
    "selection": ("first", "random", "balanced", "coverage"),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that determines the result; the same recipe on the same files gives the same bytes.

    Paths are kept as given. `weight_bits` are grid bits (2..8); `storage` says how the integers are
    stored. The other fields are the flags of `tfq-quantize` of the same name.
    """

    model: str
    calibration_data: str = ""
    evaluation_data: str = ""
    precision: str = "int8"
    pipeline: str = "int8"
    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    calibration_method: str = "auto"
    percentile: float = 99.9
    num_calibration_samples: int = 512
    selection: str = "first"
    preprocess: str = "none"
    storage: str = "int8"
    input_type: str = "int8"
    output_type: str = "int8"
    metric: str = "top1"
    labels: str = ""
    seed: int = 0
    allow_unsafe_deserialization: bool = False

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise UserError(f"--{field} is {getattr(self, field)!r}; it must be one of {', '.join(choices)}")
        if not 2 <= self.weight_bits <= 8:
            raise UserError(f"--weight_bits is {self.weight_bits}; it must be 2 to 8")
        if self.activation_bits != 8:
            raise UserError(
                f"--activation_bits is {self.activation_bits}; TFLite runs 8-bit activations only"
                " (for 16-bit activations use --precision=int16x8)"
            )
        if not 50.0 < self.percentile <= 100.0:
            raise UserError(f"--percentile is {self.percentile}; it must lie in (50, 100], e.g. 99.9")
        if self.num_calibration_samples < 1:
            raise UserError(f"--num_calibration_samples is {self.num_calibration_samples}; it must be at least 1")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def without_folders(self) -> Recipe:
        """The recipe with bare file names: what goes into a file that is shipped to others."""
        return dataclasses.replace(
            self,
            model=PurePath(self.model).name,
            calibration_data=PurePath(self.calibration_data).name,
            evaluation_data=PurePath(self.evaluation_data).name,
            labels=PurePath(self.labels).name,
        )

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        return cls(**json.loads(text))
