"""The options of a run in groups: each with its defaults, what a value may be, and the checks that need no other group.

A `tfq.recipe.Recipe` is all of them at once: flags, recipe.json and the keywords of `tfq.quantize` have one flat set of
names. A stop that reads one group asks for that group.
"""

from __future__ import annotations

import dataclasses
import re
from concurrent.futures import Executor
from typing import Any

from tfq.errors import UserError
from tfq.execution.progress import Progress
from tfq.execution.resources import Resources
from tfq.precision import CLUSTERS, Precision, precision_of
from tfq.targets import TARGETS

_UNTIMED = {"dynamic_range": "dynamic range", "int16x8": "16-bit activations"}  # arithmetics without latencies
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
GRADIENT_METHODS = ("adaround", "adaquant")


def one_of(*choices: str, default: str = "") -> Any:
    """A field with one of these values, by default the first."""
    return dataclasses.field(default=default or choices[0], metadata={"choices": choices})


def between(least: int, most: int, *, default: int) -> Any:
    """A field with a whole number within these bounds."""
    return dataclasses.field(default=default, metadata={"bounds": (least, most)})


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """Which samples are taken, and how ranges are found.

    Attributes:
      num_calibration_samples, selection, preprocess: as `tfq.data.loading` takes them.
      calibration_method: a name of `tfq.calibration.choose`, with its number after "=" where it takes one.
    """

    calibration_method: str = "auto"
    num_calibration_samples: int = between(1, 1_000_000, default=512)
    selection: str = one_of("first", "random", "balanced", "coverage")
    preprocess: str = one_of("none", "zero_one", "minus_one_one", "imagenet", "raw")


@dataclasses.dataclass(frozen=True)
class WidthOptions:
    """How many bits everything has.

    Attributes:
      precision: of the whole model; auto: int8 or dynamic_range, whichever is better (`tfq.pipeline.choice`).
      weight_bits: grid bits of weights, 2 to 8.
      activation_bits: of activations. Below 8 they are simulated, and no `model.tflite` is made.
      first_last_bits: both of the first and the last weighted layers; 0 for the same as everywhere.
      weight_clusters: on how many integers the weights of a layer lie, 2 to 32; 0: on those of `weight_bits`.
      per_channel: weights have one scale for every output channel.
    """

    precision: str = one_of("auto", "int8", "int16x8", "float16", "dynamic_range", "float32")
    weight_bits: int = 8
    activation_bits: int = 8
    first_last_bits: int = 0
    weight_clusters: int = 0
    per_channel: bool = True

    def check(self) -> None:
        if not 2 <= self.weight_bits <= 8:
            raise UserError(f"`weight_bits` is {self.weight_bits}; it must be 2 to 8")
        if not 4 <= self.activation_bits <= 8:
            raise UserError(
                f"`activation_bits` is {self.activation_bits}; it must be 8, which TFLite runs, or 4 to 7, which are"
                " simulated only (for 16-bit activations use `precision='int16x8'`)"
            )
        clusters = sorted(precision.clusters for precision in CLUSTERS)
        if self.weight_clusters not in (0, *clusters):
            raise UserError(
                f"`weight_clusters` is {self.weight_clusters}; it must be one of {', '.join(map(str, clusters))}, or 0"
                " for none"
            )
        narrow = next((name for name in ("weight_bits", "activation_bits") if getattr(self, name) < 8), None)
        if self.weight_clusters and narrow:
            raise UserError(
                f"`weight_clusters` is {self.weight_clusters} and `{narrow}` is {getattr(self, narrow)}; clusters are"
                " integers of 8 bits, leave one of the two out"
            )
        if self.first_last_bits not in (0, 8):
            raise UserError(f"`first_last_bits` is {self.first_last_bits}; it must be 8, or 0 for no exception")
        if self.activation_bits < 8 and self.precision not in ("auto", "int8"):
            raise UserError(
                f"`activation_bits` is {self.activation_bits} and `precision` is {self.precision}; only int8 can be"
                " simulated with fewer bits, leave one of the two out"
            )


@dataclasses.dataclass(frozen=True)
class FittingOptions:
    """How weights and biases are fitted to the float model (`tfq.reconstruction`).

    Attributes:
      reconstruction: a method; default: the pipeline's own.
      mode, granularity: as `tfq.reconstruction.reconstruct` takes them.
      range_tuning: default: where the calibration method is auto and classes end the model.
      batch_norm_tuning, network_tuning: default: where the reconstruction leaves something to gain.
      equalization: default: where weights have one scale per tensor, or layers are not fitted.
      distill: the whole network learns the float model's outputs in the end, in `distillation_steps`; so it does where
        `distillation_data` are given.
    """

    pipeline: str = one_of("int8", "light", "advanced")
    reconstruction: str = one_of("default", "none", "bias_correction", "least_squares", "adaround", "adaquant", "best")
    mode: str = one_of("sequential", "parallel")
    granularity: str = one_of("layer", "block", default="block")
    range_tuning: str = one_of("default", "none", "always")
    batch_norm_tuning: str = one_of("default", "none", "always")
    network_tuning: str = one_of("default", "none", "always")
    equalization: str = one_of("default", "none", "published", "expected")
    distill: bool = False
    distillation_steps: int = between(1, 1_000_000, default=1500)

    def check(self) -> None:
        for name in ("reconstruction", "batch_norm_tuning"):
            value = getattr(self, name)
            if self.pipeline == "int8" and value not in ("default", "none"):
                raise UserError(
                    f"`{name}` is {value}, but `pipeline='int8'` has none; add `pipeline='light'` or"
                    " `pipeline='advanced'`"
                )
        if self.pipeline == "light" and self.reconstruction in GRADIENT_METHODS:
            raise UserError(
                f"`reconstruction` is {self.reconstruction}, which learns by gradients, and `pipeline` is light; use"
                " `pipeline='advanced'`, or `reconstruction='least_squares'`"
            )

    @property
    def reconstruction_method(self) -> str:
        """How layers are reconstructed, by default as well as the pipeline can."""
        defaults = {"int8": "none", "light": "least_squares", "advanced": "best"}
        return defaults[self.pipeline] if self.reconstruction == "default" else self.reconstruction


@dataclasses.dataclass(frozen=True)
class BudgetOptions:
    """What allocation is asked for: any budget leaves the precision of every layer to it (`tfq.allocation`).

    Attributes:
      max_accuracy_drop: what may be lost by the metric, in its unit.
      size_budget: share of the float weights' bytes.
      latency_budget: a time as "1.2ms", by `latency_table`.
      compute_budget: share of the 8-bit model's bit operations.
      objective: what `max_accuracy_drop` makes small.
      candidates: names of precisions; empty for every width.
      pin: "regex:precision", of layers whose precision is fixed.
      sensitivity: how the loss that a layer causes is found.
      storage: how 4 bits and fewer are stored; of candidates those that are not named.
    """

    max_accuracy_drop: float | None = None
    size_budget: float | None = None
    latency_budget: str = ""
    latency_table: str = ""
    compute_budget: float | None = None
    objective: str = one_of("size", "latency")
    candidates: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    sensitivity: str = one_of("measured", "gradient", "output_error")
    storage: str = one_of("int8", "packed")

    def check(self) -> None:
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
        untimed = next((precision for precision in self.named_precisions if precision.arithmetic in _UNTIMED), None)
        if self.latency_table and untimed:
            raise UserError(
                f"{untimed.name} is offered and `latency_table` is given, which has no times of"
                f" {_UNTIMED[untimed.arithmetic]}; leave one of the two out"
            )
        if not self.allocates:
            idle = [f for f in ("candidates", "pin", "latency_table") if getattr(self, f)]
            if idle:
                raise UserError(
                    f"`{idle[0]}` is given without a budget; add `max_accuracy_drop`, `size_budget`,"
                    " `latency_budget` or `compute_budget`"
                )
        elif self.objective == "latency" and not self.latency_table:
            raise UserError("`objective` is latency and no `latency_table` says what layers take; give that file")

    @property
    def allocates(self) -> bool:
        """Every layer's precision is chosen by a budget."""
        limits = (self.max_accuracy_drop, self.size_budget, self.compute_budget, self.latency_budget or None)
        return any(limit is not None for limit in limits)

    @property
    def pins(self) -> tuple[tuple[str, str], ...]:
        """(regex of layers, precision)."""
        return tuple((pattern, name) for pattern, _, name in (pin.rpartition(":") for pin in self.pin))

    @property
    def named_precisions(self) -> tuple[Precision, ...]:
        """Of candidates and pins."""
        return tuple(map(precision_of, (*self.candidates, *(name for _, name in self.pins))))

    @property
    def separates_inputs(self) -> bool:
        """A candidate reads activations of fewer bits than others do, and so a tensor of its own."""
        return any(precision.is_simulated for precision in self.named_precisions)

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
        return value * MILLISECONDS[found[2]]


@dataclasses.dataclass(frozen=True)
class FileOptions:
    """What the .tflite is like to whoever uses it, and what it is measured by.

    Attributes:
      package: "gzip" makes a compressed copy too.
      model_card: MODEL_CARD.md is written too, for the Hugging Face Hub.
      model_explorer: figures of the layers are written too, for Google's Model Explorer.
      input_type, output_type: of the values that an app gives and gets.
      metric: a name in `tfq.evaluation.metrics`, or module:function.
      outputs: names of those that the metric judges, in the order in which its decoder reads them; empty for all.
      decoder: what makes boxes of a detector's outputs (`tfq.evaluation.decoders`).
      nms: "append" writes model_nms.tflite too, in which the boxes of `decoder` are found by an operator at its end
        (`tfq.export.nms`); "app" leaves that to the app.
      annotations: boxes or masks of the images of the evaluation data (`tfq.data.annotations`).
      labels: a file with a class name on every line.
      target: what an int8 model is to run on: operations that it runs slowly take other forms (`tfq.models.forms`).
    """

    package: str = one_of("none", "gzip")
    model_card: bool = False
    model_explorer: bool = False
    input_type: str = one_of("int8", "uint8", "float32")
    output_type: str = one_of("int8", "uint8", "float32")
    metric: str = "top1"
    outputs: tuple[str, ...] = ()
    decoder: str = ""
    nms: str = one_of("app", "append")
    annotations: str = ""
    labels: str = ""
    target: str = one_of(*TARGETS)

    @property
    def appends_nms(self) -> bool:
        return self.nms == "append"


@dataclasses.dataclass(frozen=True)
class ResourceOptions:
    """What a run may take.

    Attributes:
      memory_limit: MiB of samples, and of what is computed of them, that a stop keeps in memory.
      workers: processes that reconstruct layers in parallel mode.
    """

    memory_limit: int = between(64, 2**20, default=512)
    workers: int = between(1, 256, default=1)

    def resources(self, progress: Progress, executor: Executor | None = None) -> Resources:
        return Resources(self.memory_limit * 2**20, self.workers, progress, executor)
