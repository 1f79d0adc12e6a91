"""The states of a layer: what it is at each precision of its weights, found once for all of them.

A *state* of a unit is its weights, scales and biases after a reconstruction in parallel mode: the layer
reads what the float network computes, so that its state does not depend on the precision of any other layer, and
any mixture of states is a model (as in Hubara et al. 2020, arXiv:2006.10518). The float network runs once; while the
rows of a layer are in memory, its problems of all precisions are solved. The grids of activations stay as they are,
but for w4a4: there the layer reads a tensor of its own (`tfq.models.widths.separate_inputs`), which has 4 bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import threadpoolctl

from tfq.calibration.specify import in_dynamic_range, starting_grid, with_precisions, with_ranges, with_scales
from tfq.calibration.statistics import Range
from tfq.data.calibration_set import CalibrationSet
from tfq.data.roles import Roles
from tfq.execution.resources import DEFAULT, Resources
from tfq.execution.workers import spread
from tfq.grid import Grid
from tfq.models.graph import Graph, Node
from tfq.models.grids import grid_groups
from tfq.models.widths import Unit, can_pack, dynamic_units, is_weighted, units
from tfq.operations.table import OPERATORS
from tfq.precision import (
    FLOATS,
    GRIDS,
    MOST_PACKED_BITS,
    SIMULATED,
    SIMULATED_ACTIVATION_BITS,
    Precision,
    dynamic_range,
    precision_of,
)
from tfq.quantized_model import QuantizedModel
from tfq.reconstruction.linear import LinearForm
from tfq.reconstruction.methods import solutions
from tfq.reconstruction.problem import Problem, Solution
from tfq.reconstruction.reconstruct import judged, layer_problem, weight_grid, with_solution
from tfq.reconstruction.rows import (
    SampledLayer,
    collect_float_rows,
    inputs_name,
    sampled_layers,
    targets_name,
)
from tfq.reconstruction.steps import node_with_mse_scales
from tfq.simulate.tensor_store import TensorStore
from tfq.simulate.weights import snap_node

Key = tuple[str, str]
"""(name of the unit, name of the candidate)."""


def units_of(base: QuantizedModel) -> tuple[Unit, ...]:
    """What has a precision to choose: every layer with weights.

    Where no tensor of the base has a grid, it is in dynamic range: then the layers that have such a kernel, and
    embeddings.
    """
    return units(base) if base.grids else dynamic_units(base)


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """A unit at one of its precisions.

    Attributes:
      unit: name of the unit.
      candidate: name of the candidate.
      nodes: the unit's nodes with their weights on the candidate's grid, which they carry.
      method: how it was found, with the seed; empty for float weights.
      before, after: relative error of the layer's output on the rows to choose by (`tfq.reconstruction.problem`),
        rounded to the nearest and in this state; equal where the reconstruction was rolled back; 0 for float weights.
      activations: grids of what the nodes read, where those are not the base's.
    """

    unit: str
    candidate: str
    nodes: tuple[Node, ...]
    method: str
    before: float
    after: float
    activations: Mapping[str, Grid] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.unit, self.candidate


def apply(base: QuantizedModel, *states: State) -> QuantizedModel:
    """The base with the nodes of the states in place of its own.

    States with activations of another format take with them the grids between layers of it (`tfq.models.borders`);
    nothing else changes.
    """
    nodes = [node for state in states for node in state.nodes]
    others = {n.name: n.precision for n in nodes if n.precision.arithmetic != base[n.name].precision.arithmetic}
    # what such a layer is to have beside its weights depends on its neighbours
    nodes = [
        base[node.name].replace(weights=node.weights, weight_grids=node.weight_grids) if node.name in others else node
        for node in nodes
    ]
    grids = {name: grid for state in states for name, grid in state.activations.items()}
    model = base.with_nodes(*nodes)
    model = model.with_nodes(*(model[name].replace(grid=grid) for name, grid in grids.items()))
    return with_precisions(model, others) if others else model


def float_states(reference: Graph, base: QuantizedModel, candidates: Sequence[Precision] = FLOATS) -> dict[Key, State]:
    """Every unit with its float weights, in the order of `find_states`.

    Args:
      reference, base: as in `find_states`.
      candidates: float16, float32 or both.

    Raises:
      UserError: a weight that float16 cannot hold.
    """
    states, start = {}, _float_weights(reference, base)
    for unit in units_of(base):
        for candidate in candidates:
            model = with_precisions(start, dict.fromkeys(unit.nodes, candidate))
            nodes = tuple(model[name] for name in unit.nodes)
            states[unit.name, candidate.name] = State(unit.name, candidate.name, nodes, "", 0.0, 0.0)
    return states


def rounded_states(reference: Graph, base: QuantizedModel, candidates: Sequence[Precision]) -> dict[Key, State]:
    """Every unit rounded to the nearest on the grid that its state starts from.

    Arguments as of `find_states`, but that no sample is read.
    """
    states, found, start = {}, units_of(base), _float_weights(reference, base)
    for candidate in candidates:
        model = start
        for unit in found:
            model = with_candidate(model, unit, candidate)
        for unit in found:
            nodes = tuple(model[name] for name in unit.nodes)
            states[unit.name, candidate.name] = State(unit.name, candidate.name, nodes, "", 0.0, 0.0)
    return states


def packed(state: State) -> State:
    """The same integers stored as INT4 tensors.

    Raises:
      ValueError: the weights have more than 4 bits, or TFLite has no INT4 kernel for the layer.
    """
    nodes = []
    for node in state.nodes:
        name = OPERATORS[node.kind].kernel
        kernel = node.weight_grids[name]
        if kernel.bits > MOST_PACKED_BITS or not can_pack(node):
            raise ValueError(f"{node.kind} {node.name!r} of {kernel.bits} bits cannot be stored as INT4")
        grids = {**node.weight_grids, name: dataclasses.replace(kernel, storage="int4")}
        precision = dataclasses.replace(node.precision, storage="packed")
        nodes.append(node.replace(precision=precision, weight_grids=grids))
    return dataclasses.replace(state, candidate=f"{state.candidate}-packed", nodes=tuple(nodes))


def as_dynamic(state: State) -> State:
    """The same integers among float activations, stored as int8: beside layers on fixed grids nothing is packed."""
    nodes = []
    for node in state.nodes:
        kernel = OPERATORS[node.kind].kernel
        precision = Precision("dynamic_range", node.weight_grids[kernel].bits)
        weights = {**node.weights, kernel: snap_node(node).weights[kernel]}
        grids = {kernel: node.weight_grids[kernel]}
        nodes.append(node.replace(weights=weights, weight_grids=grids, precision=precision))
    bits = nodes[0].precision.weight_bits
    return dataclasses.replace(state, candidate=dynamic_range(bits).name, nodes=tuple(nodes), activations={})


def as_wide(state: State, base: QuantizedModel) -> State:
    """The same integers among int16 activations: in `base`, where only this unit has these."""
    precision = Precision("int16x8", precision_of(state.candidate).weight_bits)
    wide = [node.replace(precision=precision) for node in state.nodes]
    model = apply(base, dataclasses.replace(state, nodes=tuple(wide)))
    return dataclasses.replace(state, candidate=precision.name, nodes=tuple(model[node.name] for node in wide))


def find_states(
    reference: Graph,
    base: QuantizedModel,
    calibration: CalibrationSet,
    *,
    candidates: Mapping[str, Collection[Precision]] | None = None,
    narrow: Mapping[str, Range] | None = None,
    method: str = "least_squares",
    seed: int = 0,
    resources: Resources = DEFAULT,
) -> dict[Key, State]:
    """The state of every unit at every candidate, units in topological order, whatever others are wanted the same.

    Args:
      reference: the prepared float graph, from whose weights every state starts.
      base: the 8-bit model, whose activation grids and per-channel or per-tensor scales the states keep; it has the
        nodes of `reference`. Where it is in dynamic range, embeddings have states too: with scales of the smallest
        squared error, as no layer's output tells how to fit them.
      calibration: read are the samples to fit and those to choose by.
      candidates: by name of the unit, of int8 precision and storage, with 8-bit activations, or of dynamic range as the
        base is; None: `GRIDS` for all.
      narrow: 4-bit ranges by group of tensors (`tfq.models.grids`): every unit gets a state of 4-bit weights and
        inputs too, and reads tensors of its own.
      method: a name in `METHODS`.
      seed: of the sampled positions and of the method.
      resources: each worker, or call of the executor, works on all candidates of one layer.
    """
    found = [unit for unit in units_of(base) if is_weighted(reference[unit.name])]
    tables = [unit for unit in units_of(base) if not is_weighted(reference[unit.name])]
    seen = calibration.seen
    layers = sampled_layers(reference, [unit.name for unit in found], len(seen), seed, by_block=False)
    start = _float_weights(reference, base)

    posed: dict[int, list[_Posed]] = {}

    def tasks() -> Iterator[tuple[str, list[list[Problem]], int]]:
        problems = _problems(start, found, layers, store, calibration.roles)
        for number, (unit, problem) in enumerate(problems):
            form = layers[unit.name].form
            problem = dataclasses.replace(problem, seed=seed)
            wanted = GRIDS if candidates is None else candidates.get(unit.name, ())
            groups = [[_Posed.of(start, unit, form, problem, candidate) for candidate in wanted]]
            if narrow is not None:
                reads = {start[name].inputs[0] for name in unit.nodes}
                few = _with_narrow(start, reads, narrow)
                groups.append([_Posed.of(few, unit, form, problem, SIMULATED, tuple(sorted(reads)))])
            posed[number] = [pose for group in groups for pose in group]
            yield method, [[pose.problem for pose in group] for group in groups if group], seed + number

    solved: dict[int, list[State]] = {}
    limit = threadpoolctl.threadpool_limits(1, user_api="blas")  # as in `reconstruct`
    solvers = spread(resources, _solved)
    with limit, solvers as apart, contextlib.closing(TensorStore(resources.memory_limit)) as store:
        collect_float_rows(reference, layers, seen, store, with_inputs=True, resources=resources)
        with resources.progress.task(f"states of the layers, {method}", len(found)) as advance:
            for number, made in apart(_solved, tasks()):
                solved[number] = [
                    pose.state(solution, method, seed) for pose, solution in zip(posed.pop(number), made, strict=True)
                ]
                advance(1)
    wanted = candidates or {}
    of_tables = [_of_table(start, unit, candidate) for unit in tables for candidate in wanted.get(unit.name, ())]
    of_layers = [state for number in sorted(solved) for state in solved[number]]
    place = {unit.name: number for number, unit in enumerate(units_of(base))}
    return {state.key: state for state in sorted([*of_tables, *of_layers], key=lambda state: place[state.unit])}


def _of_table(start: QuantizedModel, unit: Unit, candidate: Precision) -> State:
    """An embedding with scales of the smallest squared error."""
    rounded = with_candidate(start, unit, candidate)
    nodes = tuple(node_with_mse_scales(rounded[name], None) for name in unit.nodes)
    before, after = _table_error(rounded[unit.name]), _table_error(nodes[0])
    return State(unit.name, candidate.name, nodes, "squared error", before, after)


def _table_error(node: Node) -> float:
    """Relative error of an embedding's rows, all alike; of those that occur the measured losses tell."""
    values = node.weights[OPERATORS[node.kind].kernel]
    lost = snap_node(node).weights[OPERATORS[node.kind].kernel] - values
    return float(np.square(lost).sum() / max(float(np.square(values).sum()), np.finfo(np.float32).tiny))


def _solved(method: str, groups: Sequence[Sequence[Problem]], seed: int) -> list[Solution]:
    """Of problems in groups that differ in the grid of their weights alone."""
    return [solution for problems in groups for solution in solutions(method, problems, seed)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Posed:
    """A unit at one of its candidates before the weights are fitted.

    Attributes:
      model: with the unit on the candidate's grids.
      form, problem: of its layer there.
      reads: tensors whose grids are the state's own.
    """

    unit: Unit
    candidate: Precision
    model: QuantizedModel
    form: LinearForm
    problem: Problem
    reads: tuple[str, ...]

    @classmethod
    def of(
        cls,
        start: QuantizedModel,
        unit: Unit,
        form: LinearForm,
        problem: Problem,
        candidate: Precision,
        reads: tuple[str, ...] = (),
    ) -> _Posed:
        model = with_candidate(start, unit, candidate)
        grid = model[unit.name].weight_grids[form.kernel_name]
        read = model[model[unit.name].inputs[0]].grid
        problem = dataclasses.replace(problem, input_grid=read, **weight_grid(grid, problem.tied))
        return cls(unit, candidate, model, form, problem, reads)

    def state(self, solution: Solution, method: str, seed: int) -> State:
        """With the weights of the solution, or rounded to the nearest where it loses."""
        outcome = judged(self.model, self.form, self.problem, solution, method)
        made = with_solution(self.model, self.form, self.problem, solution, outcome)
        return State(
            self.unit.name,
            self.candidate.name,
            tuple(made[name] for name in self.unit.nodes),
            f"{method}, seed {seed}",
            outcome.before,
            outcome.after if outcome.kept else outcome.before,
            {name: made.grids[name] for name in self.reads},
        )


def with_candidate(model: QuantizedModel, unit: Unit, candidate: Precision) -> QuantizedModel:
    """The model with the kernels of a unit on the grids that this candidate starts with, among int8 ones as int8."""
    if candidate.is_dynamic:
        return model.with_nodes(*(in_dynamic_range(model[name], candidate) for name in unit.nodes))
    precision = dataclasses.replace(candidate, storage="int8")

    def changed(node: Node) -> Node:
        name = OPERATORS[node.kind].kernel
        kernel = starting_grid(node.weights[name], precision, node.weight_grids[name].axis)
        node = node.replace(precision=precision, weight_grids={**node.weight_grids, name: kernel})
        return with_scales(node, np.asarray(kernel.scale), model.grids[node.inputs[0]])

    return model.with_nodes(*(changed(model[name]) for name in unit.nodes))


def _with_narrow(model: QuantizedModel, tensors: Collection[str], ranges: Mapping[str, Range]) -> QuantizedModel:
    """The model with these tensors on grids of few bits."""
    groups = grid_groups(model)
    return with_ranges(model, {groups[n]: ranges[groups[n]] for n in tensors}, bits=SIMULATED_ACTIVATION_BITS)


def _float_weights(reference: Graph, model: QuantizedModel) -> QuantizedModel:
    """`model` with the weights of `reference` in its weighted layers."""
    names = [name for unit in units_of(model) for name in unit.nodes]
    return model.with_nodes(*(model[name].replace(weights=reference[name].weights) for name in names))


def _problems(
    model: QuantizedModel, found: Iterable[Unit], layers: Mapping[str, SampledLayer], store: TensorStore, roles: Roles
) -> Iterator[tuple[Unit, Problem]]:
    """The problem of every unit; its rows leave the store."""
    for unit in found:
        inputs, targets = inputs_name(unit.name), targets_name(unit.name)
        problem = layer_problem(model, layers[unit.name], store.read(inputs), None, store.read(targets), roles)
        store.release(inputs)
        store.release(targets)
        yield unit, dataclasses.replace(problem, input_is_free=False)
