"""What allocation can choose from: every unit in every state, what that loses and what it costs, all measured.

The stops in order: states, sensitivities, costs, program. States are fitted as `tfq.reconstruction.reconstruct` says;
what they lose is measured on the samples to choose by, and models of many are compared on the samples that judge
(`tfq.data.roles`). An accuracy drop takes more samples than judge; how it is estimated on all, `tfq.allocation.drop`
says. Float layers and 16-bit activations are offered where the user names them. Where a largest accuracy drop is asked
for that the 8-bit model does not keep, the layers that 8 bits hurt can stay in float16, or have 16-bit activations
where the target computes in integers.

Where the base is in dynamic range, embeddings are units as layers are, and every candidate is a width of it.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfq.allocation.allocate import Bench, Measured
from tfq.allocation.contenders import bearable, contenders
from tfq.allocation.costs import (
    all_costs,
    border_bytes,
    border_costs,
    coded_bytes,
    fixed_costs,
    multiply_accumulates,
    wide_border_bytes,
)
from tfq.allocation.drop import optimism
from tfq.allocation.fisher import gradient_estimates
from tfq.allocation.latency_table import LatencyTable, border_price, unit_latencies
from tfq.allocation.metric_drop import drop_of
from tfq.allocation.problem import Border, Choice, Problem
from tfq.allocation.sensitivity import FLOOR, Loss, Sensitivities, measured, output_errors
from tfq.allocation.states import (
    Key,
    State,
    apply,
    as_dynamic,
    as_wide,
    find_states,
    float_states,
    packed,
    rounded_states,
    units_of,
)
from tfq.allocation.wish import LATENCY, WEIGHTS, check_within_reach, offered, weight_bits, weight_count
from tfq.calibration.statistics import Range
from tfq.data.calibration_set import CalibrationSet
from tfq.errors import UserError
from tfq.evaluation.metric import Metric
from tfq.evaluation.metrics import find_metric
from tfq.execution.deflate import deflated
from tfq.execution.predict import predict
from tfq.execution.workers import Shared, share, spread
from tfq.export.variants import Exporter
from tfq.models.borders import find_borders
from tfq.models.graph import Graph
from tfq.models.widths import Unit
from tfq.option_groups import BudgetOptions
from tfq.precision import INT8, STORED_BITS, Precision, dynamic_range, precision_of
from tfq.quantized_model import QuantizedModel
from tfq.reconstruction.reconstruct import Reconstruction, reconstruct
from tfq.reconstruction.steps import Setting
from tfq.simulate.divergence import divergence
from tfq.simulate.eager import tensors

_SENSITIVITY_SAMPLES = 256
_KEPT = 8  # models that were put together; what is looked at next is often the same
# Of a measured dL: a softmax has a grid of 1/256, and what one layer changes in the outputs of a confident model is
# less than a step, while all layers together change much. Below a tenth of it, what is measured is noise.
_RESOLUTION = 1e-3
_TOLD = _RESOLUTION / 10

At = Callable[[Mapping[str, Precision]], QuantizedModel]
"""The model whose units have these candidates, its weights the float ones, rounded to the nearest when deployed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """What was found out.

    Attributes:
      problem: what can be chosen, with degradations and costs.
      bench: how models of what was chosen are made and measured.
      sensitivities: by (unit, candidate).
      units: with their nodes.
    """

    problem: Problem
    bench: Bench
    sensitivities: Sensitivities
    units: tuple[Unit, ...]


def survey(
    setting: Setting,
    base: QuantizedModel,
    at: At,
    wish: BudgetOptions,
    *,
    metric: Metric | None = None,
    table: LatencyTable | None = None,
    narrow: Mapping[str, Range] | None = None,
    ledger: Path | None = None,
) -> Survey:
    """Everything that the program needs.

    Args:
      setting: the float graph, the samples, whose labels tell the accuracy drop (without labels what the float model
        gives does), and how layers are reconstructed; with no reconstruction the parallel
        states with scales of the smallest squared error are the result.
      base: the 8-bit model, rounded to the nearest.
      at: makes the models that sequential reconstruction starts from.
      wish: what is asked for.
      metric: what `max_accuracy_drop` is of, by default top-1 accuracy.
      table: latencies, where a budget or the objective needs them.
      narrow: 4-bit ranges by group, where w4a4 is among the candidates; such models are simulated.
      ledger: file that keeps the sensitivities, so that a killed run resumes.

    Raises:
      Infeasible, UserError: what is asked for cannot be met, or does not fit the model.
    """
    graph, found = setting.graph, units_of(base)
    dynamic = not base.grids
    check_within_reach(graph, found, wish, dynamic=dynamic)
    calibration, quiet = setting.calibration, setting.resources.silent()
    samples, labels, roles = calibration.samples.arrays, calibration.samples.labels, calibration.roles
    export, loss = Exporter.of(samples).export, Loss.of(graph, samples)

    judging_loss, judges = loss.at(roles.judging), np.isin(np.arange(len(roles)), roles.judge)
    estimating = wish.max_accuracy_drop is not None  # on all samples; what judges is enough for the rest
    needed = samples if estimating else judging_loss.samples
    base_outputs = predict(export(base), needed, resources=quiet)

    def judged(outputs: Sequence[np.ndarray]) -> float:
        return judging_loss([values[roles.judging] for values in outputs] if estimating else outputs)

    base_loss = judged(base_outputs)
    unfitted = divergence(loss.reference, base_outputs) if estimating else np.empty(0)

    ratios: list[float] = []

    metric = metric or find_metric("top1")
    lost = drop_of(metric, loss.reference, graph.outputs, samples, labels, seed=setting.seed) if estimating else None

    def measure(model: QuantizedModel) -> Measured:
        content = export(model) if _runs(model) else None
        outputs = tensors(model, needed) if content is None else predict(content, needed, resources=quiet)
        found, size = judged(outputs) - base_loss, None if content is None else len(deflated(content))
        if lost is None:
            return Measured(found, None, size)
        drop = lost(outputs)
        ratios.append(optimism(divergence(loss.reference, outputs), unfitted, judges))
        return Measured(found, drop.corrected(max(1.0, statistics.geometric_mean(ratios))), size)

    most, keys = wish.max_accuracy_drop, offered(graph, found, wish, dynamic=dynamic)
    if lost is not None and most is not None:
        unhelped = Measured(0.0, lost(base_outputs))
        if unhelped.points > most and not wish.candidates:
            keys = offered(graph, found, wish, [setting.rescue], dynamic=dynamic)
        if _saves_bytes_alone(wish) and wish.sensitivity != "output_error":
            left = max(most - unhelped.drop_points, most / 8)
            ends = [bearable(loss, lost, drop, seed=setting.seed) for drop in (left, most) if metric.name == "top1"]
            keys = _contending(setting, base, keys, loss, ends)
    states = _states(setting, base, keys, narrow)
    sensitivities = _sensitivities(setting, base, states, wish, loss, ledger)
    problem = _problem(graph, base, found, states, sensitivities, table, export(base))

    @functools.lru_cache(maxsize=_KEPT)
    def assembled(mixture: tuple[Key, ...]) -> tuple[QuantizedModel, Measured]:
        model = apply(base, *(states[key] for key in mixture))
        return model, measure(model)

    def assemble(candidates: Mapping[str, str]) -> tuple[QuantizedModel, Measured]:
        return assembled(tuple(sorted(candidates.items())))

    def start(candidates: Mapping[str, str]) -> QuantizedModel:
        return at({unit: precision_of(name) for unit, name in candidates.items()})

    def better(candidates: Mapping[str, str], rebuilt: QuantizedModel) -> tuple[QuantizedModel, Measured]:
        return min(assemble(candidates), (rebuilt, measure(rebuilt)), key=lambda made: made[1].loss)

    how = setting.reconstruction and dataclasses.replace(setting.reconstruction, mode="sequential")

    def rebuild(candidates: Mapping[str, str]) -> tuple[QuantizedModel, Measured]:
        if how is None:
            return assemble(candidates)
        options: dict[str, Any] = {"seed": setting.seed, "resources": setting.resources}
        return better(candidates, reconstruct(graph, start(candidates), calibration, how, **options)[0])

    def rebuild_each(mixtures: Sequence[Mapping[str, str]]) -> Iterator[tuple[int, tuple[QuantizedModel, Measured]]]:
        if how is None:
            yield from enumerate(map(assemble, mixtures))
            return
        with spread(setting.resources, _rebuilt) as apart:
            told = share(setting.resources, (graph, calibration, how, setting.seed))
            for number, rebuilt in apart(_rebuilt, ((told, start(candidates)) for candidates in mixtures)):
                yield number, better(mixtures[number], rebuilt)

    return Survey(problem, Bench(assemble, rebuild, rebuild_each, export), sensitivities, found)


def _rebuilt(told: Shared[tuple[Graph, CalibrationSet, Reconstruction, int]], start: QuantizedModel) -> QuantizedModel:
    """A model reconstructed in sequence, wherever."""
    graph, calibration, how, seed = told.value
    return reconstruct(graph, start, calibration, how, seed=seed)[0]


def _runs(model: QuantizedModel) -> bool:
    """Whether TFLite has kernels for all of it."""
    return all(grid.bits >= STORED_BITS for grid in model.grids.values())


def _saves_bytes_alone(wish: BudgetOptions) -> bool:
    """The download is made small, and no other cost counts."""
    return wish.objective == "size" and wish.size_budget is None and wish.compute_budget is None


def _contending(
    setting: Setting, base: QuantizedModel, offered: Sequence[Key], loss: Loss, ends: Sequence[float]
) -> list[Key]:
    """Those of the keys that the program could choose; of other grids than those of int8 layers all.

    Arguments as of `survey`; ends: of what may be lost, none where that is not known.
    """
    plain = sorted({p for p in (precision_of(name) for _, name in offered) if _fitted_as(p, base) == p})
    states = rounded_states(setting.graph, base, plain)
    rounded, few = {key: states[key] for key in offered if key in states}, _told_by(setting, loss)
    losses = gradient_estimates(setting.graph, rounded.values(), few, seed=setting.seed)
    kept = contenders({key: coded_bytes(state.nodes) for key, state in rounded.items()}, losses, ends)
    return [key for key in offered if key not in rounded or key in kept]


def _told_by(setting: Setting, loss: Loss) -> Loss:
    """The loss on the samples that tell what states lose: none that they are fitted to, where there are others."""
    roles, fitted = setting.calibration.roles, setting.reconstruction is not None
    return loss.at((roles.choose if fitted and len(roles.choose) else roles.seen)[:_SENSITIVITY_SAMPLES])


def _states(
    setting: Setting, base: QuantizedModel, offered: Sequence[Key], narrow: Mapping[str, Range] | None
) -> dict[Key, State]:
    """The states of these units with these candidates."""
    fitted = {key: _fitted_as(precision_of(key[1]), base) for key in offered}
    plain: dict[str, set[Precision]] = {}
    for (unit, _), precision in fitted.items():
        if precision is not None:
            plain.setdefault(unit, set()).add(precision)
    states: dict[Key, State] = {}
    if plain or narrow is not None:
        states = find_states(
            setting.graph,
            base,
            setting.calibration,
            candidates={unit: sorted(found) for unit, found in plain.items()},
            narrow=narrow,
            method=setting.states,
            seed=setting.seed,
            resources=setting.resources,
        )
    floats = sorted({precision_of(name) for _, name in offered if not precision_of(name).has_grid})
    states |= float_states(setting.graph, base, floats) if floats else {}
    found = {}
    for (unit, name), precision in fitted.items():
        candidate, state = precision_of(name), states[unit, name if precision is None else precision.name]
        if candidate.is_dynamic and base.grids:
            state = as_dynamic(state)
        elif candidate.is_int16:
            state = as_wide(state, base)
        found[unit, name] = packed(state) if candidate.is_int8 and candidate.storage == "packed" else state
    return found


def _fitted_as(candidate: Precision, base: QuantizedModel) -> Precision | None:
    """What the weights are fitted as; None where they are not, or as no other is."""
    if candidate.is_dynamic and not base.grids:
        return candidate
    if not candidate.has_grid or candidate.is_simulated:
        return None
    return (
        dataclasses.replace(candidate, storage="int8")
        if candidate.is_int8
        else Precision(weight_bits=candidate.weight_bits)
    )


def _sensitivities(
    setting: Setting,
    base: QuantizedModel,
    states: Mapping[Key, State],
    wish: BudgetOptions,
    loss: Loss,
    ledger: Path | None,
) -> dict[Key, float]:
    """dL of every state. What is too small to be measured is ordered by its estimate, up to where measuring begins.

    What is estimated far below that is not measured at all; estimates see errors of weights alone.
    """
    if wish.sensitivity == "output_error":
        return output_errors(states.values())
    if wish.sensitivity == "gradient" and any(precision_of(candidate).is_simulated for _, candidate in states):
        raise UserError(
            "`sensitivity` is gradient, which sees errors of weights alone, and a candidate has activations of 4 bits;"
            " use `sensitivity='measured'` or output_error"
        )
    few, resources = _told_by(setting, loss), setting.resources
    estimates = gradient_estimates(setting.graph, states.values(), few, seed=setting.seed, progress=resources.progress)
    if wish.sensitivity == "gradient":
        return estimates
    # estimates do not see what activations gain or lose, of which the other states of a unit have to be told
    unlike = {s.unit for s in states.values() if precision_of(s.candidate).is_int16}
    told = [
        s
        for s in states.values()
        if estimates[s.key] >= _TOLD or s.unit in unlike or precision_of(s.candidate).is_simulated
    ]
    found = measured(base, told, few, ledger=ledger, resources=resources)
    return {key: max(found.get(key, 0.0), min(estimates[key], _RESOLUTION)) for key in states}


def _problem(
    graph: Graph,
    base: QuantizedModel,
    found: Sequence[Unit],
    states: Mapping[Key, State],
    sensitivities: Mapping[Key, float],
    table: LatencyTable | None,
    base_file: bytes,
) -> Problem:
    """The program's choices, borders and fixed costs."""
    macs = multiply_accumulates(graph)
    whole = INT8 if base.grids else dynamic_range(STORED_BITS)
    in_base = {(unit.name, whole.name): [base[name] for name in unit.nodes] for unit in found}
    present = list(all_costs(in_base, macs).values())
    fixed = fixed_costs(base_file, present, graph) | {WEIGHTS: 0.0}
    prices = [border_bytes(graph)]
    latencies: dict[Key, float] = {}
    if table is not None:
        prices.append(border_price(table, graph))
        for unit in found:
            names = [candidate for name, candidate in states if name == unit.name]
            latencies |= unit_latencies(table, graph, [unit], names)
        fixed[LATENCY] = table.overhead_ms + prices[-1](find_borders(graph, ()))[LATENCY]
    by_pair: dict[tuple[str, str], dict[str, float]] = {}
    own: dict[str, dict[str, float]] = {unit.name: {} for unit in found}
    edges = {"float_inputs": base.input_type == "float32", "float_outputs": base.output_type == "float32"}
    names_of = {unit.name: unit.nodes for unit in found}
    if base.grids and any(precision_of(name).is_float for _, name in states):
        for price in prices:
            between, alone = border_costs(graph, found, price, **edges)
            for border in between:
                by_pair.setdefault((border.first, border.second), {}).update(border.costs)
            for name, costs in alone.items():
                own[name].update(costs)
    choices = []
    for key, costs in all_costs({key: state.nodes for key, state in states.items()}, macs).items():
        name, candidate = key
        costs[WEIGHTS] = weight_count(graph, states[key].nodes) * weight_bits(candidate) / 8
        if table is not None:
            costs[LATENCY] = latencies[key]
        if precision_of(candidate).is_float:
            costs |= {cost: costs[cost] + extra for cost, extra in own[name].items()}
        if precision_of(candidate).is_int16:
            extra = wide_border_bytes(graph, names_of[name], **edges)
            costs |= {cost: costs[cost] + value for cost, value in extra.items()}
        choices.append(Choice(name, candidate, max(sensitivities[key], FLOOR), costs))
    borders = [Border(first, second, costs) for (first, second), costs in by_pair.items()]
    return Problem.of(choices, borders=borders, fixed=fixed)
