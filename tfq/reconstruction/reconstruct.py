"""The engine: layer after layer against the float output, kept where samples that it was not fitted to gain by it.

Sequential mode walks the quantised network in topological order. Each layer sees the inputs that its
already reconstructed predecessors compute; then its own output is computed anew for all samples. Parallel
mode gives every layer the inputs of the float network, so that layers do not depend on each other.

A tensor is kept only until its last reader has run, in memory up to a limit and on disk beyond it.
Methods are fitted to the samples to fit, and by those to choose by (`tfq.data.roles`) they choose among solutions; by
the same a layer keeps the solution or what it had, which is one choice more. The samples that judge, which the whole
is compared on afterwards, are not read. Where there is no sample to choose by, every eighth position is one, and a
layer of fewer positions chooses by what it was fitted to.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import threadpoolctl

from tfq.calibration.calibrate import fixed_grid
from tfq.calibration.specify import with_ranges, with_scales
from tfq.calibration.statistics import Range
from tfq.data.calibration_set import CalibrationSet
from tfq.data.roles import Roles
from tfq.data.samples import Samples
from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.workers import Spread, spread
from tfq.grid import Grid
from tfq.models.graph import INPUT, Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.rewrite import sole_readers
from tfq.models.widths import is_weighted
from tfq.quantized_model import QuantizedModel
from tfq.reconstruction.linear import LinearForm
from tfq.reconstruction.problem import UNLIMITED, Limits, Method, Problem, Solution, clamp, limits_of, on_grid
from tfq.reconstruction.rows import (
    SampledLayer,
    collect_float_rows,
    inputs_name,
    sampled_layers,
    targets_name,
    walked_outputs,
    walked_rows,
)
from tfq.simulate.tensor_store import TensorStore
from tfq.simulate.walk import Walk
from tfq.simulate.weights import integers, snap_node

_EVERY = 8  # position is chosen by where no sample is
_HARDLY = 1e-3


@dataclasses.dataclass(frozen=True)
class LayerReconstruction:
    """What became of one layer.

    Attributes:
      name: node name.
      method: that was tried.
      before, after: relative error on the rows to choose by (`tfq.reconstruction.problem`) without and with it.
      kept: the reconstruction was kept.
      reason: why it was rolled back; empty where it was kept.
    """

    name: str
    method: str
    before: float
    after: float
    kept: bool
    reason: str = ""


def reconstructed_names(model: QuantizedModel) -> list[str]:
    """The layers that reconstruction takes on, in topological order: matrix products with weights on a grid.

    Of nodes that call one Keras layer the first is taken, and the others follow it.
    """
    first: dict[str, str] = {}
    for node in model.layers:
        if is_weighted(node) and node.precision.has_grid:
            first.setdefault(node.group, node.name)
    return list(first.values())


def rows_to_choose_by(roles: Roles, rows_per_sample: int) -> np.ndarray:
    """Flags of the rows [samples seen * rows_per_sample] that nothing is fitted to but a choice."""
    if len(roles.choose):
        return np.repeat(np.isin(roles.seen, roles.choose), rows_per_sample)
    return np.arange(len(roles.seen) * rows_per_sample) % _EVERY == _EVERY - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Reconstruction:
    """How layers are reconstructed.

    Attributes:
      name: of the method, for reports.
      method: finds a solution for one problem and a seed.
      mode: "sequential" or "parallel".
      granularity: "layer": each layer is fitted to its own float output. "block": the last layer before a residual
        addition is fitted to the float sum, so that it makes good what its block and the shortcut have lost. In
        parallel mode no layer knows of another's loss, and the two are one.
    """

    name: str
    method: Method
    mode: str = "sequential"
    granularity: str = "block"


def reconstruct(
    reference: Graph,
    model: QuantizedModel,
    calibration: CalibrationSet,
    how: Reconstruction,
    *,
    seed: int = 0,
    resources: Resources = DEFAULT,
) -> tuple[QuantizedModel, tuple[LayerReconstruction, ...]]:
    """The model with its layers reconstructed.

    Args:
      reference: the prepared float graph.
      model: the quantised model to start from; it has the nodes of `reference`.
      calibration: read are the samples to fit and those to choose by.
      how: by which method, in which mode.
      seed: of the sampled positions and of the method.
      resources: workers gather rows; in parallel mode they, or the executor, also work on the layers (`processes` in
        `tfq.execution.workers` says what a script has to heed).
    """
    names = reconstructed_names(model)
    if not names:  # a model without weights
        return model, ()
    seen, parallel = calibration.seen, how.mode == "parallel"
    by_block = how.granularity == "block" and not parallel
    layers = sampled_layers(reference, names, len(seen), seed, by_block=by_block)
    # the matrices are small: two threads cost more than they bring, much more on a machine that is busy
    limit = threadpoolctl.threadpool_limits(1, user_api="blas")
    solvers = spread(resources, how.method) if parallel else contextlib.nullcontext()
    with limit, solvers as apart, contextlib.closing(TensorStore(resources.memory_limit)) as store:
        collect_float_rows(reference, layers, seen, store, with_inputs=parallel, resources=resources)
        task = _Task(reference, model, layers, seen, calibration.roles, store, how, seed)
        found = []
        with resources.progress.task(f"reconstruct the layers, {how.name}", len(names)) as advance:
            for outcome in task.solved_in_turn() if apart is None else task.solved_apart(apart):
                model = outcome[0]
                found.append(outcome[1])
                advance(1)
    return model, tuple(sorted(found, key=lambda outcome: names.index(outcome.name)))


_Outcome = tuple[QuantizedModel, LayerReconstruction]


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """What one run of the engine works with."""

    reference: Graph
    model: QuantizedModel
    layers: Mapping[str, SampledLayer]
    seen: Samples
    roles: Roles
    store: TensorStore
    how: Reconstruction
    seed: int

    def problem(
        self, model: QuantizedModel, layer: SampledLayer, inputs: np.ndarray, offset: np.ndarray | None
    ) -> Problem:
        """A layer's problem; its targets leave the store."""
        name = targets_name(layer.form.node.name)
        problem = layer_problem(model, layer, inputs, offset, self.store.read(name), self.roles)
        self.store.release(name)
        return dataclasses.replace(problem, seed=self.seed)

    def solved_in_turn(self) -> Iterator[_Outcome]:
        """Sequential mode: (model so far, outcome) for every layer."""
        model = self.model
        walk = Walk(self.reference, self.seen.arrays, self.store)
        for index, (node, layer) in enumerate(self.layers.items()):
            walk.advance(model, until=node)
            offset = None
            if layer.addend is not None:
                offset = on_grid(walked_outputs(walk, layer, layer.addend), model[layer.addend].grid)
            problem = self.problem(model, layer, walked_rows(walk, layer), offset)
            solution, outcome = solve(model, layer.form, problem, self.how.method, self.seed + index, self.how.name)
            model = with_solution(model, layer.form, problem, solution, outcome)
            yield model, outcome

    def solved_apart(self, apart: Spread) -> Iterator[_Outcome]:
        """Parallel mode: the same, by workers that begin with the largest layers so as to end together."""
        model, names = self.model, list(self.layers)
        by_size = sorted(enumerate(names), key=lambda found: -self.layers[found[1]].multiplications)
        posed: dict[int, tuple[LinearForm, Problem]] = {}

        def tasks() -> Iterator[tuple[Problem, int]]:
            for number, (index, node) in enumerate(by_size):
                layer = self.layers[node]
                problem = self.problem(self.model, layer, self.store.read(inputs_name(node)), None)
                self.store.release(inputs_name(node))
                posed[number] = layer.form, problem
                yield problem, self.seed + index

        for number, solution in apart(self.how.method, tasks()):
            form, problem = posed.pop(number)
            outcome = judged(self.model, form, problem, solution, self.how.name)
            model = with_solution(model, form, problem, solution, outcome)
            yield model, outcome


def layer_problem(
    model: QuantizedModel,
    layer: SampledLayer,
    inputs: np.ndarray,
    offset: np.ndarray | None,
    targets: np.ndarray,
    roles: Roles,
) -> Problem:
    """The problem of one layer.

    Args:
      model: what the search starts from: weights, grids.
      layer: with the positions at which the rows below were gathered.
      inputs, offset, targets: as in `Problem`, of all samples to fit and to choose by.
      roles: of the samples.
    """
    form = layer.form
    node = model[form.node.name]
    grid = node.weight_grids[form.kernel_name]
    held = rows_to_choose_by(roles, layer.rows_per_sample)
    chosen = held if held.any() else ~held
    tied = scale_numbers(form, grid.axis is not None)
    groups, _, outputs = form.matrix_shape
    return Problem(
        name=node.name,
        inputs=inputs[~held],
        targets=targets[~held],
        held_inputs=inputs[chosen],
        held_targets=targets[chosen],
        matrix=form.matrix(node.weights[form.kernel_name]),
        bias=node.weights["bias"].reshape(groups, outputs) if "bias" in node.weights else np.zeros((groups, outputs)),
        limits=_limits(model[layer.output], targets),
        samples=len(roles.seen),
        held_samples=len(roles.choose),
        tied=tied,
        has_bias="bias" in node.weights,
        input_grid=model[node.inputs[0]].grid,
        input_is_free=has_own_input_grid(model, node.name),
        offset=None if offset is None else offset[~held],
        held_offset=None if offset is None else offset[chosen],
        **weight_grid(grid, tied),
    )


def _limits(output: Node, targets: np.ndarray) -> Limits:
    """What cuts off a layer's output; nothing where it has no activation and its range hardly cuts off a target."""
    limits = limits_of(output.activation, output.grid)
    if output.activation is None and np.mean(targets != clamp(targets, limits)) < _HARDLY:
        return UNLIMITED
    return limits


def weight_grid(grid: Grid, tied: np.ndarray) -> dict[str, Any]:
    """What a problem says of the grid of its weights, by field."""
    scales = np.asarray(grid.scale)[tied]
    return {
        "bits": grid.bits,
        "scales": scales,
        "scales_are_given": bool(grid.entropy_bits),
        "narrow": grid.narrow,
        "codebook": grid.codebook,
    }


def scale_numbers(form: LinearForm, per_channel: bool) -> np.ndarray:
    """For every output [groups, outputs] the position of its scale among those of the kernel's grid."""
    groups, _, outputs = form.matrix_shape
    if not per_channel:
        return np.zeros((groups, outputs), int)
    if form.is_depthwise:
        return np.tile(np.arange(groups)[:, None], (1, outputs))
    return np.arange(outputs)[None]


def has_own_input_grid(graph: Graph, name: str) -> bool:
    """Whether the grid that a layer reads may move without another node computing anything else.

    Not so for an input or output of the model, a tensor that other nodes read too or that shares its grid with
    others, and a grid that TFLite or an embedding's table prescribes.
    """
    source, groups = graph[name].inputs[0], grid_groups(graph)
    if source not in groups or graph[source].kind in (INPUT, "Embedding") or fixed_grid(graph, source) is not None:
        return False
    return sole_readers(graph)[source] == name and list(groups.values()).count(groups[source]) == 1


def solve(
    model: QuantizedModel, form: LinearForm, problem: Problem, method: Method, seed: int, name: str
) -> tuple[Solution, LayerReconstruction]:
    """What the method finds, and whether it is better on the rows to choose by."""
    solution = method(problem, seed)
    return solution, judged(model, form, problem, solution, name)


def judged(
    model: QuantizedModel, form: LinearForm, problem: Problem, solution: Solution, name: str
) -> LayerReconstruction:
    """Whether a solution is better on the rows to choose by than the model; compared is what is deployed."""
    before, after = (_deployed(v, form, problem) for v in (model, _applied(model, form, problem, solution)))
    kept = after <= before
    reason = "" if kept else f"the error on samples it was not fitted to rose from {before:.3g} to {after:.3g}"
    return LayerReconstruction(problem.name, name, before, after, kept, reason)


def with_solution(
    model: QuantizedModel, form: LinearForm, problem: Problem, solution: Solution, outcome: LayerReconstruction
) -> QuantizedModel:
    """The model with the solution where it was kept."""
    return _applied(model, form, problem, solution) if outcome.kept else model


def _applied(model: QuantizedModel, form: LinearForm, problem: Problem, solution: Solution) -> QuantizedModel:
    """The model with the layer's weights and scales (and those of nodes that share its Keras layer) replaced.

    The grid it reads moves where the solution brings one.
    """
    if solution.input_grid is not None:
        source = model[form.node.name].inputs[0]
        model = with_ranges(model, {grid_groups(model)[source]: Range(*solution.input_grid.real_range)})
    scales = np.empty(problem.tied.max() + 1)
    scales[problem.tied] = solution.scales

    def replaced(node: Node) -> Node:
        bias = {"bias": solution.bias.reshape(-1).astype(np.float32)} if problem.has_bias else {}
        kernel_grid = dataclasses.replace(node.weight_grids[form.kernel_name], codebook=solution.codebook)
        grids = {**node.weight_grids, form.kernel_name: kernel_grid}
        node = node.replace(weights={**node.weights, **bias}, weight_grids=grids)
        node = with_scales(node, scales, model[node.inputs[0]].grid)
        exact = np.asarray(node.weight_grids[form.kernel_name].scale)[problem.tied]
        kernel = form.kernel((solution.codes * exact[:, None, :]).astype(np.float32))
        return node.replace(weights={**node.weights, form.kernel_name: kernel})

    group = model[form.node.name].group
    return model.with_nodes(*(replaced(node) for node in model.nodes if node.group == group))


def _deployed(model: QuantizedModel, form: LinearForm, problem: Problem) -> float:
    """The error of the layer's weights as they are on their grids."""
    node = snap_node(model[form.node.name])
    grid = node.weight_grids[form.kernel_name]
    kernel = node.weights[form.kernel_name]
    scales = np.asarray(grid.scale)[problem.tied]
    codes = form.matrix(integers(kernel, grid))
    bias = node.weights["bias"].reshape(problem.bias.shape) if problem.has_bias else problem.bias
    input_grid = model[node.inputs[0]].grid
    return problem.error(Solution(codes, scales, bias, input_grid))
