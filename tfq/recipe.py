"""What the user wants. Flags become a `Recipe` in one function; the pipeline reads nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from tfq import __version__
from tfq.errors import UserError
from tfq.execution.inputs import check_encodable
from tfq.execution.json_files import built, checked_types, parse_json, read_json, shown
from tfq.input_shapes import InputShapes
from tfq.option_groups import (
    BudgetOptions,
    CalibrationOptions,
    FileOptions,
    FittingOptions,
    ResourceOptions,
    WidthOptions,
    between,
)
from tfq.options import check_options

# Options with which a recipe allocates, by a budget that no model exceeds: for `explore`, which sets its own.
UNBOUND = {
    "size_budget": 1.0,
    "max_accuracy_drop": None,
    "latency_budget": "",
    "compute_budget": None,
    "objective": "size",
    "weight_bits": 8,
    "weight_clusters": 0,
    "first_last_bits": 0,
}
AUTO = "auto"  # of `precision`: static int8 or dynamic range, whichever is better
_FORMER = f"; this is tfq {__version__}, another version wrote the file: remove the field, or use that version"


_LIVE = re.compile(r"<\w+>")


def live_name(found: object) -> str:
    """What a recipe says of an object that was given in place of a path."""
    return f"<{type(found).__name__}>"


@dataclasses.dataclass(frozen=True)
class _Source:
    model: str
    calibration_data: str = ""
    evaluation_data: str = ""
    distillation_data: str = ""


def _check_value(name: str, value: Any, *, choices: Sequence[str] = (), bounds: tuple[int, int] | None = None) -> None:
    """Raises UserError for a value that the field cannot have, whatever the others are."""
    if isinstance(value, str):
        check_encodable(value, f"`{name}`")
    if choices and value not in choices:
        raise UserError(f"`{name}` is {value!r}; it must be one of {', '.join(choices)}")
    if bounds and value < bounds[0]:
        raise UserError(f"`{name}` is {shown(value)}; it must be at least {bounds[0]}")
    if bounds and value > bounds[1]:
        raise UserError(f"`{name}` is {shown(value)}; it must be at most {bounds[1]}")


@dataclasses.dataclass(frozen=True)
class Recipe(ResourceOptions, FileOptions, CalibrationOptions, BudgetOptions, FittingOptions, WidthOptions, _Source):
    """Everything that determines the result; the same recipe on the same files gives the same bytes.

    The options are those of the classes that it is made of, which say what each means (`tfq.option_groups`); the flags
    of `tfq-quantize` have the same names.

    Attributes:
      model, calibration_data, evaluation_data, distillation_data: paths as given; in place of an object stands the name
        of its class, as <ndarray>.
      allow_unsafe_deserialization: code that the model file holds may run.
      imports: modules that the user trusts: the model file may name their layers and models.
      input_shape: of inputs whose model leaves sizes open (`tfq.input_shapes`).
      seed: of everything random.
    """

    seed: int = between(0, 2**32 - 1, default=0)
    allow_unsafe_deserialization: bool = False
    imports: tuple[str, ...] = ()
    input_shape: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checked_types(self, "`{}`".format)
        for field in dataclasses.fields(self):
            _check_value(field.name, getattr(self, field.name), **field.metadata)
        InputShapes.read(self.input_shape)
        timed = next((name for name in ("latency_budget", "latency_table") if getattr(self, name)), None)
        if timed and self.precision == "dynamic_range":
            raise UserError(
                f"`{timed}` is given and `precision` is dynamic_range, of whose layers no table has times; leave one of"
                " the two out"
            )
        for group in (WidthOptions, FittingOptions, BudgetOptions):
            group.check(self)
        if self.pipeline != "int8" and not self.fits:
            raise UserError(
                f"`pipeline` is {self.pipeline} and `precision` is {self.precision}; only weights on a grid are fitted,"
                " leave one of the two out"
            )
        if self.simulated and self.package != "none":
            narrow = f"`activation_bits` is {self.activation_bits}" if self.activation_bits < 8 else "w4a4 is offered"
            raise UserError(
                f"`package` is {self.package} and {narrow}; {self.simulated}, so there is no model.tflite to package,"
                " leave one of the two out"
            )
        if self.allocates:
            self._check_allocation()
        clusters = next((p.clusters for p in self.named_precisions if p.clusters), self.weight_clusters)
        if clusters and self.reconstruction == "adaround":
            raise UserError(
                f"`reconstruction` is adaround, which rounds a weight up or down by one, and {clusters} clusters are"
                " asked for, which lie further apart; leave one of the two out"
            )
        check_options(self, {field.name: field.default for field in dataclasses.fields(self)})

    def _check_allocation(self) -> None:
        if self.pipeline == "int8":
            raise UserError("a budget needs `pipeline='light'` or `pipeline='advanced'`; add one of them")
        if not self.fits:
            raise UserError(
                f"`precision` is {self.precision} and a budget is given, which chooses the precision of every layer;"
                " leave one of the two out"
            )
        if self.precision == "dynamic_range":
            self._check_dynamic_allocation()
        fixed = {"weight_bits": 8, "weight_clusters": 0, "activation_bits": 8, "first_last_bits": 0}
        for name, default in fixed.items():
            if getattr(self, name) != default:
                raise UserError(
                    f"`{name}` is {getattr(self, name)} and a budget is given, which chooses the bits of every layer;"
                    " leave one of the two out"
                )

    def _check_dynamic_allocation(self) -> None:
        other = next((precision.name for precision in self.named_precisions if not precision.is_dynamic), None)
        if other:
            raise UserError(
                f"{other} is asked for and `precision` is dynamic_range, where every layer gets one of d2 to d8; name"
                " one of these, or leave `precision` out"
            )

    @property
    def missing(self) -> tuple[str, ...]:
        """What a run needs and this does not name: nothing was given, or an object, which no text can hold."""
        needed = ("model", "calibration_data")
        return tuple(
            name
            for name in (*needed, "evaluation_data", "distillation_data", "metric", "labels")
            if _LIVE.fullmatch(getattr(self, name)) or (name in needed and not getattr(self, name))
        )

    @property
    def simulated(self) -> str:
        """Why there is a simulation only and no model.tflite; "" where there is one."""
        bits = 4 if self.separates_inputs else self.activation_bits
        return "" if bits == 8 else f"TFLite has no kernels for {bits}-bit activations"

    @property
    def fits(self) -> bool:
        """Weights lie on grids that tfq chooses; else TFLiteConverter does."""
        return self.precision in (AUTO, "int8", "dynamic_range")

    @property
    def may_be_static(self) -> bool:
        """Activations lie on fixed integer grids, or may."""
        return self.precision in (AUTO, "int8")

    @property
    def tunes_ranges(self) -> bool:
        """By default where tfq chooses the calibration method, and the model ends in classes."""
        by_default = self.may_be_static and self.calibration_method == "auto"
        return by_default if self.range_tuning == "default" else self.range_tuning == "always"

    @property
    def distills(self) -> bool:
        """The whole network learns the float model's outputs in the end."""
        return self.distill or bool(self.distillation_data)

    @property
    def equalization_method(self) -> str:
        """By default it is tried where weights have one scale per tensor, and where nothing is fitted to the layers."""
        tried = self.may_be_static and (self.pipeline == "int8" or not self.per_channel)
        default = "expected" if tried else "none"
        return default if self.equalization == "default" else self.equalization

    @property
    def model_name(self) -> str:
        """What reports call the quantised model: "int8", "W4A8", "8 clusters", "mixed precision", "float16" ..."""
        if self.separates_inputs:
            return "mixed simulated"
        few = self.weight_bits < 8
        if self.allocates:
            name = "mixed precision"
        elif self.precision == "dynamic_range":
            name = f"W{self.weight_bits} dynamic range" if few else "dynamic range"
        elif self.weight_clusters:
            name = f"{self.weight_clusters} clusters"
        elif self.may_be_static and (few or self.simulated):
            name = f"W{self.weight_bits}A{self.activation_bits}"
        else:
            name = self.precision
        return f"{name} simulated" if self.simulated else name

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def shipped(self) -> Recipe:
        """What goes into a file that is shipped to others: bare file names, and no workers, on which nothing hangs."""
        return dataclasses.replace(
            self,
            workers=1,
            model=PurePath(self.model).name,
            calibration_data=PurePath(self.calibration_data).name,
            evaluation_data=PurePath(self.evaluation_data).name,
            distillation_data=PurePath(self.distillation_data).name,
            annotations=PurePath(self.annotations).name,
            labels=PurePath(self.labels).name,
            latency_table=PurePath(self.latency_table).name,
        )

    @classmethod
    def from_json(cls, text: str, *, what: str = "the recipe") -> Recipe:
        """The recipe of a JSON text. Raises UserError, which calls it `what`, where it holds none."""
        return built(cls, parse_json(text, what), what=what, unknown=_FORMER)

    @classmethod
    def read(cls, path: Path, *, what: str) -> Recipe:
        """The recipe in a file. Raises UserError, which calls it `what`, where it holds none."""
        return built(cls, read_json(path, what=what), what=what, unknown=_FORMER)


CHOICES: Mapping[str, Sequence[str]] = {
    field.name: field.metadata["choices"] for field in dataclasses.fields(Recipe) if "choices" in field.metadata
}
"""The options that have one of a few values."""
