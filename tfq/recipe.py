"""What the user wants. Flags become a `Recipe` in one function; the pipeline reads nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path, PurePath

from tfq import __version__
from tfq.errors import UserError
from tfq.execution.inputs import check_encodable
from tfq.execution.json_files import built, checked_types, parse_json, read_json, shown
from tfq.execution.progress import Progress
from tfq.execution.resources import Resources
from tfq.options import check_options
from tfq.precision import precision_of

CHOICES = {
    "precision": ("int8", "int16x8", "float16", "dynamic_range", "float32"),
    "pipeline": ("int8", "light", "advanced"),
    "reconstruction": ("default", "none", "bias_correction", "least_squares", "adaround", "adaquant", "best"),
    "mode": ("sequential", "parallel"),
    "granularity": ("layer", "block"),
    "batch_norm_tuning": ("default", "none", "always"),
    "bias_tuning": ("default", "none", "always"),
    "equalization": ("default", "none", "published", "expected"),
    "storage": ("int8", "packed"),
    "package": ("none", "gzip"),
    "input_type": ("int8", "uint8", "float32"),
    "output_type": ("int8", "uint8", "float32"),
    "preprocess": ("none", "zero_one", "minus_one_one", "imagenet", "raw"),
    "selection": ("first", "random", "balanced", "coverage"),
    "objective": ("size", "latency"),
    "sensitivity": ("measured", "gradient", "output_error"),
}

GRADIENT_METHODS = ("adaround", "adaquant")

# What a number may be; memory_limit in MiB.
BOUNDS = {
    "memory_limit": (64, 2**20),
    "workers": (1, 256),
    "num_calibration_samples": (1, 1_000_000),
    "seed": (0, 2**32 - 1),
}
# Options with which a recipe allocates, by a budget that no model exceeds: for `explore`, which sets its own.
UNBOUND = {
    "size_budget": 1.0,
    "max_accuracy_drop": None,
    "latency_budget": "",
    "compute_budget": None,
    "objective": "size",
    "weight_bits": 8,
    "first_last_bits": 0,
}
_FORMER = f"; this is tfq {__version__}, another version wrote the file: remove the field, or use that version"


_LIVE = re.compile(r"<\w+>")


def live_name(found: object) -> str:
    """What a recipe says of an object that was given in place of a path."""
    return f"<{type(found).__name__}>"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that determines the result; the same recipe on the same files gives the same bytes.

    Paths are kept as given; in place of an object stands the name of its class, as <ndarray>. `weight_bits` are grid
    bits (2..8); `storage` says how the integers are stored. `activation_bits` below 8 are simulated, and no
    `model.tflite` is made; so are candidates such as "w4a4". `first_last_bits` are both for the first and last weighted
    layers, 0 for the same as everywhere. `memory_limit` is in MiB. `max_accuracy_drop` (points), `size_budget` (share
    of the float weights), `latency_budget` (as "1.2ms") and `compute_budget` (share of the 8-bit model's bit
    operations) leave the bits of every layer to allocation.
    The other fields are the flags of `tfq-quantize` of the same name.
    """

    model: str
    calibration_data: str = ""
    evaluation_data: str = ""
    precision: str = "int8"
    pipeline: str = "int8"
    reconstruction: str = "default"
    mode: str = "sequential"
    granularity: str = "block"
    batch_norm_tuning: str = "default"
    bias_tuning: str = "default"
    equalization: str = "default"
    weight_bits: int = 8
    activation_bits: int = 8
    first_last_bits: int = 0
    max_accuracy_drop: float | None = None
    size_budget: float | None = None
    latency_budget: str = ""
    latency_table: str = ""
    compute_budget: float | None = None
    objective: str = "size"
    candidates: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    sensitivity: str = "measured"
    per_channel: bool = True
    calibration_method: str = "auto"
    num_calibration_samples: int = 512
    selection: str = "first"
    preprocess: str = "none"
    storage: str = "int8"
    package: str = "none"
    input_type: str = "int8"
    output_type: str = "int8"
    metric: str = "top1"
    labels: str = ""
    memory_limit: int = 512
    workers: int = 1
    seed: int = 0
    allow_unsafe_deserialization: bool = False

    def __post_init__(self) -> None:
        checked_types(self, "`{}`".format)
        for field in (field.name for field in dataclasses.fields(self)):
            if isinstance(getattr(self, field), str):
                check_encodable(getattr(self, field), f"`{field}`")
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise UserError(f"`{field}` is {getattr(self, field)!r}; it must be one of {', '.join(choices)}")
        if not 2 <= self.weight_bits <= 8:
            raise UserError(f"`weight_bits` is {self.weight_bits}; it must be 2 to 8")
        if not 4 <= self.activation_bits <= 8:
            raise UserError(
                f"`activation_bits` is {self.activation_bits}; it must be 8, which TFLite runs, or 4 to 7, which are"
                " simulated only (for 16-bit activations use `precision='int16x8'`)"
            )
        if self.first_last_bits not in (0, 8):
            raise UserError(f"`first_last_bits` is {self.first_last_bits}; it must be 8, or 0 for no exception")
        if self.activation_bits < 8 and self.precision != "int8":
            raise UserError(
                f"`activation_bits` is {self.activation_bits} and `precision` is {self.precision}; only int8 can be"
                " simulated with fewer bits, leave one of the two out"
            )
        if self.simulated and self.package != "none":
            narrow = f"`activation_bits` is {self.activation_bits}" if self.activation_bits < 8 else "w4a4 is offered"
            raise UserError(
                f"`package` is {self.package} and {narrow}; {self.simulated}, so there is no model.tflite to package,"
                " leave one of the two out"
            )
        if self.pipeline != "int8" and self.precision != "int8":
            raise UserError(
                f"`pipeline` is {self.pipeline} and `precision` is {self.precision}; only int8 models have a pipeline,"
                " leave one of the two out"
            )
        if self.pipeline == "int8" and (self.reconstruction, self.batch_norm_tuning) not in (
            ("default", "default"),
            ("none", "none"),
        ):
            raise UserError(
                f"`reconstruction` is {self.reconstruction} and `batch_norm_tuning` is {self.batch_norm_tuning}, but"
                " `pipeline='int8'` has neither; add `pipeline='light'` or `pipeline='advanced'`"
            )
        if self.pipeline == "light" and self.reconstruction in GRADIENT_METHODS:
            raise UserError(
                f"`reconstruction` is {self.reconstruction}, which learns by gradients, and `pipeline` is light; use"
                " `pipeline='advanced'`, or `reconstruction='least_squares'`"
            )
        for field, (least, most) in BOUNDS.items():
            value = getattr(self, field)
            if value < least:
                raise UserError(f"`{field}` is {shown(value)}; it must be at least {least}")
            if value > most:
                raise UserError(f"`{field}` is {shown(value)}; it must be at most {most}")

        self._check_allocation()
        check_options(self, {field.name: field.default for field in dataclasses.fields(self)})

    def _check_allocation(self) -> None:
        if self.max_accuracy_drop is not None and not 0 <= self.max_accuracy_drop <= 100:
            raise UserError(f"`max_accuracy_drop` is {self.max_accuracy_drop:g}; it must be 0 to 100 points, e.g. 0.5")
        if self.size_budget is not None and not 0 < self.size_budget <= 1:
            raise UserError(
                f"`size_budget` is {self.size_budget:g}; it must lie in (0, 1]: the share of the float weights' bytes,"
                " 0.25 for 8 bits a weight and 0.125 for 4"
            )
        if self.compute_budget is not None and not 0 < self.compute_budget <= 1:
            raise UserError(
                f"`compute_budget` is {self.compute_budget:g}; it must lie in (0, 1]: the share of the 8-bit model's"
                " bit operations, 0.5 for 4-bit weights and 0.25 for 4-bit activations too"
            )
        if self.latency_budget and not self.latency_table:
            raise UserError(
                f"`latency_budget` is {self.latency_budget} and no `latency_table` says what layers take; give the file"
                " that tfq-profile or tfq-bench wrote"
            )
        self.latency_budget_ms  # noqa: B018  raises what is wrong with it
        for name in self.candidates:
            precision_of(name)
        for pin in self.pin:
            pattern, _, name = pin.rpartition(":")
            if not pattern:
                raise UserError(f"`pin` is {pin!r}; it must be a layer's name or regex and a precision, as conv1:w8")
            precision_of(name)
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"`pin` is {pin!r}; {pattern!r} is no regular expression: {error}") from error
        if not self.allocates:
            idle = [f for f in ("candidates", "pin", "latency_table") if getattr(self, f)]
            if idle:
                raise UserError(
                    f"`{idle[0]}` is given without a budget; add `max_accuracy_drop`, `size_budget`,"
                    " `latency_budget` or `compute_budget`"
                )
            return
        if self.pipeline == "int8":
            raise UserError("a budget needs `pipeline='light'` or `pipeline='advanced'`; add one of them")
        fixed = {"weight_bits": 8, "activation_bits": 8, "first_last_bits": 0}
        for name, default in fixed.items():
            if getattr(self, name) != default:
                raise UserError(
                    f"`{name}` is {getattr(self, name)} and a budget is given, which chooses the bits of every layer;"
                    " leave one of the two out"
                )
        if self.objective == "latency" and not self.latency_table:
            raise UserError("`objective` is latency and no `latency_table` says what layers take; give that file")

    @property
    def missing(self) -> tuple[str, ...]:
        """What a run needs and this does not name: nothing was given, or an object, which no text can hold."""
        needed = ("model", "calibration_data")
        return tuple(
            name
            for name in (*needed, "evaluation_data", "metric", "labels")
            if _LIVE.fullmatch(getattr(self, name)) or (name in needed and not getattr(self, name))
        )

    @property
    def allocates(self) -> bool:
        """Every layer's precision is chosen by a budget."""
        limits = (self.max_accuracy_drop, self.size_budget, self.compute_budget, self.latency_budget or None)
        return any(limit is not None for limit in limits)

    @property
    def separates_inputs(self) -> bool:
        """A candidate reads activations of fewer bits than others do, and so a tensor of its own."""
        return any(precision_of(name).is_simulated for name in (*self.candidates, *(name for _, name in self.pins)))

    @property
    def pins(self) -> tuple[tuple[str, str], ...]:
        """(regex of layers, precision)."""
        return tuple((pattern, name) for pattern, _, name in (pin.rpartition(":") for pin in self.pin))

    @property
    def latency_budget_ms(self) -> float | None:
        """Milliseconds, None without a budget."""
        if not self.latency_budget:
            return None
        found = re.fullmatch(r"([0-9.]+)\s*(us|ms|s)", self.latency_budget.strip())
        try:
            value = float(found[1]) if found else 0.0
        except ValueError:
            value = 0.0
        if found is None or value <= 0:
            raise UserError(f"`latency_budget` is {self.latency_budget!r}; it must be a time, as 1.2ms or 800us")
        return value * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]

    def resources(self, progress: Progress) -> Resources:
        """What a run of the recipe may take."""
        return Resources(self.memory_limit * 2**20, self.workers, progress)

    @property
    def simulated(self) -> str:
        """Why there is a simulation only and no model.tflite; "" where there is one."""
        bits = 4 if self.separates_inputs else self.activation_bits
        return "" if bits == 8 else f"TFLite has no kernels for {bits}-bit activations"

    @property
    def reconstruction_method(self) -> str:
        """How layers are reconstructed, by default as well as the pipeline can."""
        defaults = {"int8": "none", "light": "least_squares", "advanced": "best"}
        return defaults[self.pipeline] if self.reconstruction == "default" else self.reconstruction

    @property
    def equalization_method(self) -> str:
        """Equalisation pays where weights have one scale per tensor."""
        default = "none" if self.per_channel or self.precision != "int8" else "expected"
        return default if self.equalization == "default" else self.equalization

    @property
    def model_name(self) -> str:
        """What reports call the quantised model."""
        if self.separates_inputs:
            return "mixed simulated"
        return f"W{self.weight_bits}A{self.activation_bits} simulated" if self.simulated else self.precision

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
