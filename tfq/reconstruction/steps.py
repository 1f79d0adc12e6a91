"""The steps by which a pipeline improves a quantised model, each kept only where samples it has not seen gain by it.

A step takes the model as it is and proposes others. One of them goes on if its divergence from the float model on
the samples that judge (`tfq.simulate.guard`) is smaller, and beyond chance: of several tunings tried on few samples one
is soon ahead, and loses on others (docs/reconstruction.md). Weight scales, which others build on, and a reconstruction,
whose every layer has proved itself already, are rolled back only if they lose by more than one standard error: chance
must not undo them either. Nothing that a step fits or chooses has seen the samples that judge it (`tfq.data.roles`).
They are the same for every step. The ranges that a model starts with are of all samples, before and after a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from tfq.calibration.specify import with_scales
from tfq.calibration.statistics import Range
from tfq.data.roles import Roles
from tfq.execution.progress import Progress, Silent
from tfq.models.graph import Graph
from tfq.models.operators import OPERATORS
from tfq.recipe import Recipe
from tfq.reconstruction.batch_norm import tune_batch_norm
from tfq.reconstruction.bias_tuning import tune_biases
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.reconstruct import LayerReconstruction, reconstruct
from tfq.reconstruction.weight_scales import mse_scales
from tfq.simulate.guard import Guarded, Version, keep_best
from tfq.spec import QuantizationSpec

_JUDGED = 128  # samples that judge, at most

# Name -> (damped, targets paired with the float network).
BATCH_NORM_TUNINGS: Mapping[str, tuple[bool, bool]] = {
    "damped": (True, False),
    "undamped": (False, False),
    "paired": (False, True),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What all steps of one run share.

    Attributes:
      graph: the prepared float graph.
      samples: calibration samples [n, ...] by input name.
      roles: of the samples.
      reconstruction: a name in `METHODS`, or "none".
      states: likewise, by which allocation fits layers of every precision.
      mode, granularity, memory_limit (bytes), workers, seed: as `reconstruct` takes them.
      batch_norm_tuning: one of BATCH_NORM_TUNINGS, "best" of all, or "none".
      recalibrate: gives a graph with rounded weights its ranges, without a look at the samples that judge.
    """

    graph: Graph
    samples: Mapping[str, np.ndarray]
    roles: Roles
    reconstruction: str
    states: str
    mode: str
    granularity: str
    memory_limit: int
    workers: int
    seed: int
    batch_norm_tuning: str
    recalibrate: Callable[[Graph], Mapping[str, Range]]
    progress: Progress = dataclasses.field(default_factory=Silent)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        graph: Graph,
        samples: Mapping[str, np.ndarray],
        recalibrate: Callable[[Graph], Mapping[str, Range]],
        *,
        roles: Roles | None = None,
        progress: Progress | None = None,
    ) -> Setting:
        """What the recipe asks for; roles: as in `reconstruct`.

        States are fitted by the method that the recipe names; by least squares where it names none and the pipeline
        reconstructs, because `best`, at every precision of every layer, would take several times as long.
        """
        method = recipe.reconstruction_method
        by_default = recipe.reconstruction == "default" and method != "none"
        return cls(
            graph=graph,
            samples=samples,
            roles=roles or Roles.of(len(next(iter(samples.values())))),
            reconstruction=method,
            states="least_squares" if by_default else method,
            mode=recipe.mode,
            granularity=recipe.granularity,
            memory_limit=recipe.memory_limit * 2**20,
            workers=recipe.workers,
            seed=recipe.seed,
            batch_norm_tuning="best" if recipe.batch_norm_tuning == "default" else recipe.batch_norm_tuning,
            recalibrate=recalibrate,
            progress=progress or Silent(),
        )

    @property
    def seen(self) -> dict[str, np.ndarray]:
        """The samples that steps may see."""
        return {name: np.asarray(values)[self.roles.seen] for name, values in self.samples.items()}

    @property
    def judged(self) -> dict[str, np.ndarray]:
        """The samples by which they are judged."""
        return judging(self.samples, self.roles)


def judging(samples: Mapping[str, np.ndarray], roles: Roles) -> dict[str, np.ndarray]:
    """The samples by which all versions of a model are compared."""
    return {name: np.asarray(values)[roles.judging[:_JUDGED]] for name, values in samples.items()}


@dataclasses.dataclass(frozen=True)
class StepOutcome:
    """What one step did.

    Attributes:
      name: of the step.
      guards: one comparison for every version that was proposed.
      layers: what became of each layer, where the step reconstructs layers.
    """

    name: str
    guards: tuple[Guarded, ...]
    layers: tuple[LayerReconstruction, ...] = ()

    @property
    def kept(self) -> bool:
        """Something that the step proposed went on."""
        return any(not guard.rolled_back for guard in self.guards)


Step = Callable[[Setting, Version], tuple[Version, StepOutcome]]


def fit_weight_scales(setting: Setting, version: Version) -> tuple[Version, StepOutcome]:
    """Weight scales of the smallest squared error."""
    candidate = dataclasses.replace(version, spec=with_mse_scales(version.graph, version.spec))
    return _kept(setting, "weight scales", version, [("squared error", candidate)], must_gain=False)


def with_mse_scales(graph: Graph, spec: QuantizationSpec) -> QuantizationSpec:
    """The specification with the scales of `mse_scales` for the kernels of its int8 layers; biases follow."""
    for layer in spec.layers:
        operator = OPERATORS[layer.kind]
        if layer.precision == "int8" and operator.channel_axis is not None:
            node, name = graph[layer.name], operator.kernel
            grid = layer.weights[name]
            if not grid.entropy_bits:  # whose scale is decided
                spec = with_scales(spec, node, mse_scales(node.weights[name], grid.bits, grid.axis))
    return spec


def reconstruct_layers(setting: Setting, version: Version) -> tuple[Version, StepOutcome]:
    """Reconstruction in the mode asked for."""
    return _reconstructed(setting, version, "reconstruction", setting.mode)


def reconstruct_in_sequence(setting: Setting, version: Version) -> tuple[Version, StepOutcome]:
    """The sequential pass on the final precisions; nothing to do where the first was sequential."""
    name = "sequential reconstruction"
    if setting.mode == "sequential":
        return version, StepOutcome(name, ())
    return _reconstructed(setting, version, name, "sequential")


def tune_batch_norms(setting: Setting, version: Version) -> tuple[Version, StepOutcome]:
    """Batch-norm tuning in the way asked for, or in all ways."""
    wanted = setting.batch_norm_tuning
    names = {"none": (), "best": tuple(BATCH_NORM_TUNINGS)}.get(wanted, (wanted,))

    def candidates() -> Iterator[tuple[str, Version]]:
        seen = setting.seen
        for name in names:
            damped, paired = BATCH_NORM_TUNINGS[name]
            tuned = tune_batch_norm(
                version,
                seen,
                reference=setting.graph if paired else None,
                damped=damped,
                recalibrate=setting.recalibrate,
                progress=setting.progress,
            )
            if tuned is not version:
                yield name, tuned

    return _kept(setting, "batch-norm tuning", version, candidates())


def tune_all_biases(setting: Setting, version: Version) -> tuple[Version, StepOutcome]:
    """Bias tuning."""
    tuned = tune_biases(
        setting.graph,
        version,
        setting.samples,
        roles=setting.roles,
        seed=setting.seed,
        progress=setting.progress,
    )
    return _kept(setting, "bias tuning", version, [] if tuned is version else [("tuned", tuned)])


# How a pipeline finds the weights of given precisions, and what it tunes afterwards.
FITTING: Mapping[str, tuple[Step, ...]] = {
    "int8": (),
    "light": (fit_weight_scales, reconstruct_layers),
    "advanced": (fit_weight_scales, reconstruct_layers),
}
TUNING: Mapping[str, tuple[Step, ...]] = {
    "int8": (),
    "light": (tune_batch_norms,),
    "advanced": (tune_batch_norms, tune_all_biases, reconstruct_in_sequence),
}


def _reconstructed(setting: Setting, version: Version, name: str, mode: str) -> tuple[Version, StepOutcome]:
    if setting.reconstruction == "none":
        return version, StepOutcome(name, ())
    candidate, layers = reconstruct(
        setting.graph,
        version,
        setting.samples,
        METHODS[setting.reconstruction],
        roles=setting.roles,
        name=setting.reconstruction,
        mode=mode,
        granularity=setting.granularity,
        memory_limit=setting.memory_limit,
        workers=setting.workers,
        seed=setting.seed,
        progress=setting.progress,
    )
    named = [(f"{setting.reconstruction}, {mode}", candidate)]
    kept, outcome = _kept(setting, name, version, named, must_gain=False)
    return kept, dataclasses.replace(outcome, layers=layers)


def _kept(
    setting: Setting,
    name: str,
    version: Version,
    candidates: Iterable[tuple[str, Version]],
    *,
    must_gain: bool = True,
) -> tuple[Version, StepOutcome]:
    """The best of the version and the candidates."""
    named = (dataclasses.replace(candidate, name=label) for label, candidate in candidates)
    before = dataclasses.replace(version, name="before")
    kept, guards = keep_best(setting.graph, before, named, setting.judged, must_gain=must_gain)
    return kept, StepOutcome(name, guards)
