"""The stops of allocation, in order: states, sensitivities, costs, program, rounds (`tfq.allocation.allocate`).

Float layers are offered where the user names them, and where a largest accuracy drop is asked for that the 8-bit model
does not keep: then the layers that 8 bits hurt can stay in float16.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfq.allocation.allocate import Allocated, Bench, Goal, Measured, Table, allocate
from tfq.allocation.candidates import (
    FLOATS,
    GRID_BITS,
    INT8,
    MOST_PACKED_BITS,
    Candidate,
    Unit,
    candidate_of,
    units,
)
from tfq.allocation.costs import all_costs, border_bytes, border_costs, fixed_costs, multiply_accumulates
from tfq.allocation.drop import accuracy_drop
from tfq.allocation.fisher import gradient_estimates
from tfq.allocation.latency_table import LatencyTable, border_price, unit_latencies
from tfq.allocation.program import Border, Choice, minimise_cost, pinned
from tfq.allocation.sensitivity import FLOOR, Sensitivities, exporter_of, find_loss, measured, output_errors
from tfq.allocation.states import Key, State, apply, find_states, float_states, packed
from tfq.calibration.specify import PACKABLE
from tfq.execution.interpreter import predict
from tfq.models.borders import find_borders
from tfq.models.graph import Graph, Node
from tfq.models.operators import OPERATORS
from tfq.reconstruction.methods import METHODS
from tfq.reconstruction.reconstruct import reconstruct
from tfq.reconstruction.steps import Setting
from tfq.simulate.guard import Version

_SENSITIVITY_SAMPLES = 256
_FLOAT_BYTES = 4
# Of a measured dL: a softmax has a grid of 1/256, and what one layer changes in the outputs of a confident model is
# less than a step, while all layers together change much.
_RESOLUTION = 1e-3
DOWNLOAD, LATENCY, WEIGHTS = "download_bytes", "latency_ms", "weight_bytes"
_WEIGHT_BITS = {"float16": 16, "float32": 32}

At = Callable[[Mapping[str, Candidate]], Version]
"""The version whose units have these candidates, its weights the float ones, rounded to the nearest when deployed."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the user asks for.

    Attributes:
      max_drop: points of accuracy, or None.
      size_budget: share of the float weights' bytes, or None.
      latency_budget: milliseconds, or None.
      objective: "size" or "latency": what `max_drop` makes small.
      candidates: names; empty for every grid width.
      pins: (regex of units, name of a candidate).
      storage: "int8" or "packed", of candidates that are not named.
      sensitivity: "measured", "gradient" or "output_error".
    """

    max_drop: float | None = None
    size_budget: float | None = None
    latency_budget: float | None = None
    objective: str = "size"
    candidates: tuple[str, ...] = ()
    pins: tuple[tuple[str, str], ...] = ()
    storage: str = "int8"
    sensitivity: str = "measured"


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was found out, and what was decided.

    Attributes:
      version: the model.
      allocated: the precisions, and the rounds that led to them.
      sensitivities: by (unit, candidate).
      units: with their nodes.
    """

    version: Version
    allocated: Allocated
    sensitivities: Sensitivities
    units: tuple[Unit, ...]


def decide(
    setting: Setting,
    base: Version,
    at: At,
    wish: Wish,
    *,
    labels: np.ndarray | None = None,
    table: LatencyTable | None = None,
    journal: Path | None = None,
) -> Decision:
    """A precision for every unit, and the model that has them.

    Args:
      setting: the float graph, the samples, and how layers are reconstructed; with no reconstruction the parallel
        states with scales of the smallest squared error are the result.
      base: the 8-bit version, rounded to the nearest.
      at: makes the versions that sequential reconstruction starts from.
      wish: what is asked for.
      labels: of the samples, for the accuracy drop; None: the float model's own probabilities.
      table: latencies, where a budget or the objective needs them.
      journal: file that keeps the sensitivities, so that a killed run resumes.

    Raises:
      Infeasible, UserError: what is asked for cannot be met, or does not fit the model.
    """
    graph, found = setting.graph, units(setting.graph)
    _check_within_reach(graph, found, wish)
    exporter, loss = exporter_of(setting.samples), find_loss(graph, setting.samples)
    base_file = exporter.export(base.graph, base.spec)

    def measure(version: Version) -> Measured:
        outputs = predict(exporter.export(version.graph, version.spec), setting.samples)
        drop = accuracy_drop(loss.reference[0], outputs[0], labels) if wish.max_drop is not None else None
        return Measured(loss(outputs), drop)

    needs_floats = wish.max_drop is not None and not wish.candidates and measure(base).points > wish.max_drop
    states = _states(setting, base, _offered(graph, found, wish, with_floats=needs_floats))
    sensitivities = _sensitivities(setting, base, states, wish, journal)
    choices, borders, fixed = _costs(setting.graph, base, found, states, sensitivities, table, base_file)

    def assemble(candidates: Mapping[str, str]) -> Version:
        return apply(base, *(states[key] for key in candidates.items()))

    def rebuild(candidates: Mapping[str, str]) -> Version:
        assembled = assemble(candidates)
        if setting.reconstruction == "none":
            return assembled
        start = at({unit: candidate_of(name) for unit, name in candidates.items()})
        rebuilt, _ = reconstruct(
            graph,
            start,
            setting.samples,
            METHODS[setting.reconstruction],
            name=setting.reconstruction,
            granularity=setting.granularity,
            memory_limit=setting.memory_limit,
            seed=setting.seed,
            progress=setting.progress,
        )
        return min(assembled, rebuilt, key=lambda version: measure(version).loss)

    goal = Goal(_budgets(graph, found, wish), wish.max_drop, LATENCY if wish.objective == "latency" else DOWNLOAD)
    bench = Bench(assemble, rebuild, measure)
    version, allocated = allocate(Table(choices, borders, fixed), goal, bench, progress=setting.progress)
    return Decision(version, allocated, sensitivities, found)


def _offered(graph: Graph, found: Sequence[Unit], wish: Wish, *, with_floats: bool = False) -> list[Key]:
    """What every unit may get: its pin, else the candidates named, else every width stored as wished.

    Packed is only what TFLite has INT4 kernels for; the same bits are stored as int8 elsewhere.
    """
    default = [
        Candidate(weight_bits=bits, storage=wish.storage if bits <= MOST_PACKED_BITS else "int8") for bits in GRID_BITS
    ]
    named = [candidate_of(name) for name in wish.candidates] or default + [FLOATS[0]] * with_floats
    keys = []
    for unit in found:
        packable = all(graph[node].kind in PACKABLE for node in unit.nodes)
        pins = [candidate_of(name) for pattern, name in wish.pins if re.search(pattern, unit.name)]
        offered = [c if packable else dataclasses.replace(c, storage="int8") for c in pins[-1:] or named]
        keys += [(unit.name, candidate.name) for candidate in dict.fromkeys(offered)]
    return keys


def _check_within_reach(graph: Graph, found: Sequence[Unit], wish: Wish) -> None:
    """What can be told before anything is measured. Raises Infeasible, UserError."""
    choices = [
        Choice(unit, name, 0.0, {WEIGHTS: _weights(graph, [graph[unit]]) * _bits(name) / 8})
        for unit, name in _offered(graph, found, wish)
    ]
    if wish.pins:
        pinned(choices, wish.pins)
    if wish.size_budget is not None:
        budgets = _budgets(graph, found, dataclasses.replace(wish, latency_budget=None))
        minimise_cost(choices, cost=WEIGHTS, max_degradation=0.0, budgets=budgets)


def _states(setting: Setting, base: Version, offered: Sequence[Key]) -> dict[Key, State]:
    """The states of these units with these candidates."""
    candidates = {candidate_of(name) for _, name in offered}
    widths = sorted({candidate.weight_bits for candidate in candidates if not candidate.is_float})
    states: dict[Key, State] = {}
    if widths:
        states = find_states(
            setting.graph,
            base,
            setting.samples,
            widths=widths,
            method="mse" if setting.reconstruction == "none" else "least_squares",
            memory_limit=setting.memory_limit,
            workers=setting.workers,
            seed=setting.seed,
            progress=setting.progress,
        )
    floats = sorted(candidate for candidate in candidates if candidate.is_float)
    states |= float_states(setting.graph, base, floats) if floats else {}
    found = {}
    for unit, name in offered:
        candidate = candidate_of(name)
        plain = states[unit, dataclasses.replace(candidate, storage="int8").name]
        found[unit, name] = packed(plain) if candidate.storage == "packed" else plain
    return found


def _sensitivities(
    setting: Setting, base: Version, states: Mapping[Key, State], wish: Wish, journal: Path | None
) -> dict[Key, float]:
    """dL of every state. What is too small to be measured is ordered by its estimate, up to where measuring begins."""
    if wish.sensitivity == "output_error":
        return output_errors(states.values())
    few = {name: values[:_SENSITIVITY_SAMPLES] for name, values in setting.samples.items()}
    loss, options = find_loss(setting.graph, few), {"progress": setting.progress}
    estimates = gradient_estimates(setting.graph, states.values(), loss, seed=setting.seed, **options)
    if wish.sensitivity == "gradient":
        return estimates
    found = measured(base, states.values(), loss, journal=journal, workers=setting.workers, **options)
    return {key: max(value, min(estimates[key], _RESOLUTION)) for key, value in found.items()}


def _costs(
    graph: Graph,
    base: Version,
    found: Sequence[Unit],
    states: Mapping[Key, State],
    sensitivities: Mapping[Key, float],
    table: LatencyTable | None,
    base_file: bytes,
) -> tuple[list[Choice], list[Border], dict[str, float]]:
    """The program's choices, borders and fixed costs."""
    macs = multiply_accumulates(graph)
    in_base = {
        (unit.name, INT8.name): ([base.graph[n] for n in unit.nodes], [base.spec[n] for n in unit.nodes])
        for unit in found
    }
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
    if any(candidate_of(name).is_float for _, name in states):
        edges = {
            "float_inputs": base.spec.input_type == "float32",
            "float_outputs": base.spec.output_type == "float32",
        }
        for price in prices:
            between, alone = border_costs(graph, found, price, **edges)
            for border in between:
                by_pair.setdefault((border.first, border.second), {}).update(border.costs)
            for name, costs in alone.items():
                own[name].update(costs)
    choices = []
    for key, costs in all_costs({key: (state.nodes, state.layers) for key, state in states.items()}, macs).items():
        name, candidate = key
        costs[WEIGHTS] = _weights(graph, states[key].nodes) * _bits(candidate) / 8
        if table is not None:
            costs[LATENCY] = latencies[key]
        if candidate_of(candidate).is_float:
            costs |= {cost: costs[cost] + extra for cost, extra in own[name].items()}
        choices.append(Choice(name, candidate, max(sensitivities[key], FLOOR), costs))
    borders = [Border(first, second, costs) for (first, second), costs in by_pair.items()]
    return choices, borders, fixed


def _budgets(graph: Graph, found: Sequence[Unit], wish: Wish) -> dict[str, float]:
    budgets: dict[str, float] = {}
    if wish.size_budget is not None:
        weights = math.fsum(_weights(graph, [graph[name] for name in unit.nodes]) for unit in found)
        budgets[WEIGHTS] = wish.size_budget * _FLOAT_BYTES * weights
    if wish.latency_budget is not None:
        budgets[LATENCY] = wish.latency_budget
    return budgets


def _bits(candidate: str) -> int:
    found = candidate_of(candidate)
    return _WEIGHT_BITS[found.precision] if found.is_float else found.weight_bits


def _weights(graph: Graph, nodes: Sequence[Node]) -> int:
    """Elements of the kernel, which the calls of one layer share."""
    node = nodes[0]
    return graph[node.name].weights[OPERATORS[node.kind].kernel].size
