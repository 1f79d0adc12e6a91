"""The steps by which a pipeline improves a quantised model, each kept only where samples it has not seen gain by it.

A step takes the model as it is and proposes others. One of them goes on if its divergence from the float model on
the samples that judge (`tfq.simulate.judge`) is smaller, and beyond chance: of several tunings tried on few samples one
is soon ahead, and loses on others (docs/reconstruction.md). Weight scales, which others build on, and a reconstruction,
whose every layer has proved itself already, are rolled back only if they lose by more than one standard error: chance
must not undo them either. A bias correction must not lose. Nothing that a step fits or chooses has seen the samples
that judge it (`tfq.data.roles`). They are the same for every step. The ranges that a model starts with are of all
samples, before and after a step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfq.calibration.specify import with_scales
from tfq.calibration.statistics import Range
from tfq.data.calibration_set import CalibrationSet
from tfq.execution.resources import DEFAULT, Resources
from tfq.grid import Grid
from tfq.models.graph import Graph, Node
from tfq.models.widths import is_weighted
from tfq.operations.table import OPERATORS
from tfq.precision import FLOAT16, W8A16, Precision
from tfq.quantized_model import QuantizedModel
from tfq.recipe import Recipe
from tfq.reconstruction.batch_norm import tune_batch_norm
from tfq.reconstruction.bias_correction import correct_biases
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.network_tuning import DISTILLATION, tune_network
from tfq.reconstruction.reconstruct import LayerReconstruction, Reconstruction, reconstruct
from tfq.reconstruction.weight_scales import mse_scales
from tfq.simulate.judge import Judge, Named, Verdict
from tfq.targets import TARGETS

_MOST_JUDGES = 512  # of further samples: a pass over them takes a moment beside the steps
# Behind these there was nothing left for a tuning to gain, on any network measured (docs/reconstruction.md).
_LEAVES_NOTHING = ("least_squares", "best")


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What all steps of one run share.

    Attributes:
      calibration: the samples.
      judge: of models made from the prepared float graph.
      reconstruction: how layers are reconstructed; None: they are not.
      states: name of the method by which allocation fits layers of every precision.
      distillation: samples that the whole network learns from in the end; None: it does not.
      distillation_steps: in which it does.
      tunes_batch_norms, tunes_network: whether a pipeline that has the step tries it.
      recalibrate: gives a graph with rounded weights its ranges, without a look at the samples that judge.
      rescue: what allocation may give layers that 8 bits hurt.
      seed: of everything that is left to chance.
    """

    calibration: CalibrationSet
    judge: Judge
    reconstruction: Reconstruction | None
    states: str
    tunes_batch_norms: bool
    tunes_network: bool
    recalibrate: Callable[[Graph], Mapping[str, Range]]
    rescue: Precision = FLOAT16
    seed: int = 0
    distillation: CalibrationSet | None = None
    distillation_steps: int = DISTILLATION.steps
    resources: Resources = DEFAULT

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        calibration: CalibrationSet,
        judge: Judge,
        recalibrate: Callable[[Graph], Mapping[str, Range]],
        resources: Resources = DEFAULT,
        *,
        distillation: CalibrationSet | None = None,
    ) -> Setting:
        """What the recipe asks for; distillation: further samples, where there are any.

        States are fitted by the method that the recipe names; by least squares where it names none and the pipeline
        reconstructs, because `best`, at every precision of every layer, would take several times as long; and where
        nothing is reconstructed, they have scales of the smallest squared error.
        """
        name, how, states = recipe.reconstruction_method, None, "mse"
        if name != "none":
            how = Reconstruction(name, METHODS[name], recipe.mode, recipe.granularity)
            states = "least_squares" if recipe.reconstruction == "default" else name
        tunes = {"default": name not in _LEAVES_NOTHING, "none": False, "always": True}
        return cls(
            calibration=calibration,
            judge=judge,
            reconstruction=how,
            states=states,
            tunes_batch_norms=tunes[recipe.batch_norm_tuning],
            tunes_network=tunes[recipe.network_tuning],
            distillation=(distillation or calibration) if recipe.distills else None,
            distillation_steps=recipe.distillation_steps,
            recalibrate=recalibrate,
            rescue=W8A16 if TARGETS[recipe.target].integers_only else FLOAT16,
            seed=recipe.seed,
            resources=resources,
        )

    @property
    def graph(self) -> Graph:
        """The prepared float graph."""
        return self.judge.reference

    @property
    def sequential(self) -> Reconstruction | None:
        """The sequential pass behind a parallel reconstruction; None where there was no parallel one."""
        first = self.reconstruction
        return None if first is None or first.mode == "sequential" else dataclasses.replace(first, mode="sequential")


@dataclasses.dataclass(frozen=True)
class StepOutcome:
    """What one step did.

    Attributes:
      name: of the step.
      guards: one comparison for every model that was proposed.
      layers: what became of each layer, where the step reconstructs layers.
    """

    name: str
    guards: tuple[Verdict, ...]
    layers: tuple[LayerReconstruction, ...] = ()

    @property
    def kept(self) -> bool:
        """Something that the step proposed went on."""
        return any(not guard.rolled_back for guard in self.guards)


Step = Callable[[Setting, QuantizedModel], tuple[QuantizedModel, StepOutcome]]


def fit_weight_scales(setting: Setting, model: QuantizedModel) -> tuple[QuantizedModel, StepOutcome]:
    """Weight scales of the smallest squared error."""
    return _kept(setting, "weight scales", model, [("squared error", with_mse_scales(model))], must_gain=False)


def with_mse_scales(model: QuantizedModel) -> QuantizedModel:
    """The model with the scales of `mse_scales` for the kernels of its layers; biases follow."""

    def fitted(node: Node) -> Node:
        if not node.precision.has_grid or not (is_weighted(node) or node.precision.is_dynamic):
            return node
        return node_with_mse_scales(node, model[node.inputs[0]].grid)

    return model.with_nodes(*map(fitted, model.layers))


def node_with_mse_scales(node: Node, input_grid: Grid | None) -> Node:
    """A layer or embedding that has a grid, with the scales of `mse_scales` unless its own are decided.

    Arguments as of `with_scales`.
    """
    name = OPERATORS[node.kind].kernel
    grid = node.weight_grids[name]
    if grid.entropy_bits or grid.codebook:
        return node
    return with_scales(node, mse_scales(node.weights[name], grid.bits, grid.axis, narrow=grid.narrow), input_grid)


def reconstruct_layers(setting: Setting, model: QuantizedModel) -> tuple[QuantizedModel, StepOutcome]:
    """Reconstruction in the mode asked for."""
    return _reconstructed(setting, model, "reconstruction", setting.reconstruction)


def reconstruct_in_sequence(setting: Setting, model: QuantizedModel) -> tuple[QuantizedModel, StepOutcome]:
    """The sequential pass on the final precisions; nothing to do where the first was sequential."""
    return _reconstructed(setting, model, "sequential reconstruction", setting.sequential)


def correct_all_biases(setting: Setting, model: QuantizedModel) -> tuple[QuantizedModel, StepOutcome]:
    """Bias correction of the whole network, where nothing is reconstructed."""
    corrected = correct_biases(setting.graph, model, setting.calibration.fit, resources=setting.resources)
    proposed = [] if corrected is model else [("corrected", corrected)]
    return _kept(setting, "bias correction", model, proposed, must_gain=False, tolerance=0.0)


def tune_batch_norms(setting: Setting, model: QuantizedModel) -> tuple[QuantizedModel, StepOutcome]:
    """Batch-norm tuning."""
    options: dict[str, Any] = {"recalibrate": setting.recalibrate, "resources": setting.resources}
    tuned = tune_batch_norm(setting.graph, model, setting.calibration.seen, **options)
    return _tuned(setting, "batch-norm tuning", model, tuned)


def tune_whole_network(setting: Setting, model: QuantizedModel) -> tuple[QuantizedModel, StepOutcome]:
    """Network tuning."""
    tuned = tune_network(setting.graph, model, setting.calibration, seed=setting.seed, resources=setting.resources)
    return _tuned(setting, "network tuning", model, tuned)


def distil(setting: Setting, model: QuantizedModel) -> tuple[QuantizedModel, StepOutcome]:
    """The whole network learns the float network's outputs, in small steps and many."""
    samples, schedule = setting.distillation, dataclasses.replace(DISTILLATION, steps=setting.distillation_steps)
    if samples is None:
        return model, StepOutcome("distillation", ())
    options: dict[str, Any] = {"schedule": schedule, "seed": setting.seed, "resources": setting.resources}
    tuned = tune_network(setting.graph, model, samples, **options)
    if samples is setting.calibration:
        return _tuned(setting, "distillation", model, tuned)
    judges = samples.samples.take(samples.roles.judging[:_MOST_JUDGES])  # of which there are more
    further = dataclasses.replace(setting, judge=Judge(setting.graph, judges.arrays, resources=setting.resources))
    kept, outcome = _tuned(further, "distillation", model, tuned)
    if kept is model:
        return model, outcome
    # further samples may be unlike those that the model is for
    kept, usual = _kept(setting, "distillation", model, [("tuned", kept)], must_gain=False)
    return kept, usual if kept is model else outcome


# How a pipeline finds the weights of given precisions, and what it tunes afterwards.
FITTING: Mapping[str, tuple[Step, ...]] = {
    "int8": (correct_all_biases,),
    "light": (fit_weight_scales, reconstruct_layers),
    "advanced": (fit_weight_scales, reconstruct_layers),
}
TUNING: Mapping[str, tuple[Step, ...]] = {
    "int8": (),
    "light": (tune_batch_norms, distil),
    "advanced": (tune_batch_norms, tune_whole_network, reconstruct_in_sequence, distil),
}


def wanted(steps: Sequence[Step], setting: Setting) -> tuple[Step, ...]:
    """Those of the steps that the setting asks for."""
    idle: Mapping[Step, bool] = {
        reconstruct_layers: setting.reconstruction is None,
        tune_batch_norms: not setting.tunes_batch_norms,
        tune_whole_network: not setting.tunes_network,
        distil: setting.distillation is None,
        reconstruct_in_sequence: setting.sequential is None,
    }
    return tuple(step for step in steps if not idle.get(step))


def _reconstructed(
    setting: Setting, model: QuantizedModel, name: str, how: Reconstruction | None
) -> tuple[QuantizedModel, StepOutcome]:
    if how is None:
        return model, StepOutcome(name, ())
    candidate, layers = reconstruct(
        setting.graph, model, setting.calibration, how, seed=setting.seed, resources=setting.resources
    )
    kept, outcome = _kept(setting, name, model, [(f"{how.name}, {how.mode}", candidate)], must_gain=False)
    return kept, dataclasses.replace(outcome, layers=layers)


def _tuned(
    setting: Setting, name: str, model: QuantizedModel, tuned: QuantizedModel
) -> tuple[QuantizedModel, StepOutcome]:
    return _kept(setting, name, model, [] if tuned is model else [("tuned", tuned)])


def _kept(
    setting: Setting,
    name: str,
    model: QuantizedModel,
    candidates: Iterable[Named],
    *,
    must_gain: bool = True,
    tolerance: float = 1.0,
) -> tuple[QuantizedModel, StepOutcome]:
    """The best of the model and the candidates; must_gain and tolerance as in `Judge.keep_best`."""
    kept, verdicts = setting.judge.keep_best(("before", model), candidates, must_gain=must_gain, tolerance=tolerance)
    return kept, StepOutcome(name, verdicts)
