"""What the user asks allocation for, and what of it can be told before anything is measured."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
from collections.abc import Collection, Iterator, Sequence

from tfq.allocation.allocate import DOWNLOAD, Goal
from tfq.allocation.costs import multiply_accumulates
from tfq.allocation.problem import Choice, Problem
from tfq.allocation.program import Infeasible, minimise_cost, upward
from tfq.allocation.states import Key
from tfq.errors import UserError
from tfq.models.graph import Graph, Node
from tfq.models.widths import Unit, can_be_dynamic, can_pack
from tfq.operations.table import OPERATORS
from tfq.option_groups import MILLISECONDS, BudgetOptions
from tfq.precision import (
    FLOAT32,
    FOR_DOWNLOADS,
    GRIDS,
    INT8,
    MOST_PACKED_BITS,
    Precision,
    dynamic_range,
    precision_of,
)

LATENCY, WEIGHTS, COMPUTE = "latency_ms", "weight_bytes", "bops"
_FLOAT_BYTES = 4
_DIGITS = 4  # of what is attainable


def offered(
    graph: Graph,
    found: Sequence[Unit],
    wish: BudgetOptions,
    rescues: Sequence[Precision] = (),
    *,
    dynamic: bool = False,
) -> list[Key]:
    """What every unit may get: its pin, else the candidates named, else every width stored as wished.

    Packed is only what TFLite has INT4 kernels for; the same bits are stored as int8 elsewhere. Where time is the
    objective, float32 is a candidate, for layers that are faster in it. Of the widths stored as int8, which all take
    the same time, 8 bits are then enough, unless a budget of bits is to be kept too. `rescues` are offered beside these
    defaults. dynamic: no tensor has a grid, and every unit gets some width of dynamic range, packed where it can be.
    """
    default = [dataclasses.replace(c, storage=wish.storage) if c.weight_bits <= MOST_PACKED_BITS else c for c in GRIDS]
    if wish.max_accuracy_drop is not None and wish.objective == "size" and wish.storage == "int8":
        default = list(FOR_DOWNLOADS)
    if wish.objective == "latency":
        narrow = wish.storage == "packed" or wish.size_budget is not None or wish.compute_budget is not None
        default = [*(default if narrow else [INT8]), FLOAT32]
    if dynamic:
        default, rescues = [dynamic_range(grid.weight_bits) for grid in GRIDS], ()
    named = [precision_of(name) for name in wish.candidates] or [*default, *rescues]
    keys = []
    for unit in found:
        packable = all(can_pack(graph[node]) for node in unit.nodes)
        pins = [precision_of(name) for pattern, name in wish.pins if re.search(pattern, unit.name)]
        has_kernel = all(can_be_dynamic(graph[node]) for node in unit.nodes)
        if pins and pins[-1].is_dynamic and not has_kernel:
            raise UserError(
                f"{unit.name!r} is pinned to {pins[-1].name}, and TFLite has no such kernel for"
                f" {graph[unit.name].kind}; pin it to w8 or float16"
            )
        wanted = [c for c in pins[-1:] or named if has_kernel or not c.is_dynamic] or [INT8]
        offered = [c if packable or c.is_dynamic else dataclasses.replace(c, storage="int8") for c in wanted]
        keys += [(unit.name, candidate.name) for candidate in dict.fromkeys(offered)]
    return keys


def check_pins(wish: BudgetOptions, names: Collection[str], layers: Sequence[str]) -> None:
    """Raises UserError for a pin that matches none of these names; those of the `layers` are offered in its place."""
    for pattern, precision in wish.pins:
        if not any(re.search(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, layers, n=3, cutoff=0.3) or layers[:3]
            raise UserError(
                f"`pin` is {f'{pattern}:{precision}'!r}, and that matches none of the {len(layers)} layers with"
                f" weights; near it: {', '.join(near)}"
            )


def check_within_reach(graph: Graph, found: Sequence[Unit], wish: BudgetOptions, *, dynamic: bool = False) -> None:
    """What can be told before anything is measured. Raises Infeasible, UserError. dynamic: as in `offered`."""
    names = [unit.name for unit in found]
    check_pins(wish, names, names)
    keys = offered(graph, found, wish, dynamic=dynamic)
    if wish.size_budget is not None:
        choices = [
            Choice(unit, name, 0.0, {WEIGHTS: weight_count(graph, [graph[unit]]) * weight_bits(name) / 8})
            for unit, name in keys
        ]
        budgets = {WEIGHTS: wish.size_budget * float_bytes(graph, found)}
        with told_in_options(graph, found, wish):
            minimise_cost(Problem.of(choices), cost=WEIGHTS, max_degradation=0.0, budgets=budgets)


def goal_of(graph: Graph, found: Sequence[Unit], wish: BudgetOptions) -> Goal:
    """The wish in the units of the costs."""
    budgets: dict[str, float] = {}
    if wish.size_budget is not None:
        budgets[WEIGHTS] = wish.size_budget * float_bytes(graph, found)
    if wish.latency_budget_ms is not None:
        budgets[LATENCY] = wish.latency_budget_ms
    if wish.compute_budget is not None:
        budgets[COMPUTE] = wish.compute_budget * int8_operations(graph, found)
    return Goal(budgets, wish.max_accuracy_drop, LATENCY if wish.objective == "latency" else DOWNLOAD)


@contextlib.contextmanager
def told_in_options(graph: Graph, found: Sequence[Unit], wish: BudgetOptions) -> Iterator[None]:
    """Where the block raises Infeasible of the costs here, the error speaks of the options and in their units."""
    try:
        yield
    except Infeasible as error:
        if not error.least or not set(error.limits) <= {WEIGHTS, LATENCY, COMPUTE}:
            raise
        raise Infeasible(_unattainable(error, graph, found, wish), error.limits, error.least) from error


def _unattainable(error: Infeasible, graph: Graph, found: Sequence[Unit], wish: BudgetOptions) -> str:
    wholes = {WEIGHTS: float_bytes, COMPUTE: int8_operations}

    def told(cost: str, value: float) -> str:
        if cost == LATENCY:
            unit = wish.latency_budget.strip().lstrip("0123456789. ")
            return f"{upward(value / MILLISECONDS[unit], _DIGITS)} {unit}"
        whole = wholes[cost](graph, found)
        what = "bytes of weights" if cost == WEIGHTS else "bit operations"
        return f"{upward(value / whole, _DIGITS)} ({value:,.0f} of {whole:,} {what})"

    options = {WEIGHTS: "size_budget", LATENCY: "latency_budget", COMPUTE: "compute_budget"}
    asked = [f"`{options[cost]}={getattr(wish, options[cost])!r}`" for cost in error.limits]
    several = len(asked) > 1
    reached = [told(cost, value) + f" for `{options[cost]}`" * several for cost, value in error.least.items()]
    remedy = " while the rest is kept; raise one of them" if several else "; raise it"
    return (
        f"no choice of precisions keeps {' together with '.join(asked)}; the smallest possible is"
        f" {', or '.join(reached)}{remedy}, or offer smaller or faster precisions (`candidates`)"
    )


def int8_operations(graph: Graph, found: Sequence[Unit]) -> int:
    """Bit operations of the units at 8 bits."""
    macs = multiply_accumulates(graph)
    return sum(macs[node] for unit in found for node in unit.nodes) * INT8.weight_bits * INT8.activation_bits


def float_bytes(graph: Graph, found: Sequence[Unit]) -> int:
    """Bytes of the units' kernels in float32."""
    return _FLOAT_BYTES * sum(weight_count(graph, [graph[name] for name in unit.nodes]) for unit in found)


def weight_bits(candidate: str) -> int:
    """Bits of a weight, on a coarse grid in an ideal code."""
    return precision_of(candidate).bits_stored


def weight_count(graph: Graph, nodes: Sequence[Node]) -> int:
    """Elements of the kernel, which the calls of one layer share."""
    node = nodes[0]
    return graph[node.name].weights[OPERATORS[node.kind].kernel].size
