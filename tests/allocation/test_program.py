"""The integer program against exhaustive search, and what it says where there is no answer."""

import contextlib
import dataclasses
import importlib.util
import itertools
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfq.allocation.program as program_module
import tfq.allocation.solver as solver_module
from benchmarks.allocation_networks import network_problem
from tfq.allocation.baselines import greedy, random_allocation, uniform
from tfq.allocation.problem import Border, Choice, Problem, pinned
from tfq.allocation.program import Infeasible, Unsolved, minimise_cost, minimise_degradation
from tfq.allocation.solver import bound_of_cbc
from tfq.errors import UserError
from tfq.precision import CANDIDATES

SOLVERS = [
    "cbc",
    pytest.param(
        "highs",
        marks=pytest.mark.skipif(importlib.util.find_spec("highspy") is None, reason="highspy is not installed"),
    ),
]
FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = ("w2", "w4", "w8", "float16", "float32")


@dataclasses.dataclass(frozen=True)
class Instance:
    """Random choices of few units, with borders, ties, fixed costs and budgets."""

    choices: tuple[Choice, ...]
    borders: tuple[Border, ...]
    tied: tuple[tuple[str, ...], ...]
    fixed: dict[str, float]
    budgets: dict[str, float]

    @property
    def problem(self):
        return Problem.of(self.choices, borders=self.borders, tied=self.tied, fixed=self.fixed)

    def all(self):
        """Degradation, costs and candidates of everything that the ties allow."""
        table = {(c.unit, c.candidate): c for c in self.choices}
        units = list(dict.fromkeys(c.unit for c in self.choices))
        offers = [[name for unit, name in table if unit == u] for u in units]
        for names in itertools.product(*offers):
            picked = dict(zip(units, names, strict=True))
            if any(len({picked[u] for u in together}) > 1 for together in self.tied):
                continue
            crossed = [
                b for b in self.borders if CANDIDATES[picked[b.first]].is_float != CANDIDATES[picked[b.second]].is_float
            ]
            chosen = [table[item] for item in picked.items()]
            costs = {
                name: math.fsum([*(c.costs[name] for c in chosen), *(b.costs.get(name, 0) for b in crossed), fixed])
                for name, fixed in self.fixed.items()
            }
            yield math.fsum(c.degradation for c in chosen), costs, picked

    def kept(self, **limits):
        return [
            (loss, costs, picked)
            for loss, costs, picked in self.all()
            if loss <= limits.get("loss", math.inf) and all(costs[n] <= most for n, most in self.budgets.items())
        ]


@st.composite
def instances(draw):
    count = draw(st.integers(1, 4))
    units = [f"u{i}" for i in range(count)]
    # few distinct values make ties; the others span what sensitivities and sizes span
    losses = st.one_of(st.sampled_from([0.0, 1e-6, 1e-3, 0.1]), st.floats(1e-6, 10.0))
    sizes = st.one_of(st.sampled_from([100.0, 200.0, 300.0]), st.integers(1, 10**8).map(float))
    times = st.one_of(st.sampled_from([0.1, 0.2, 0.3]), st.floats(1e-4, 10.0))
    choices = [
        Choice(unit, name, draw(losses), {"bytes": draw(sizes), "ms": draw(times)})
        for unit in units
        for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    ]
    pairs = list(itertools.combinations(units, 2))
    picked = draw(st.lists(st.sampled_from(pairs), max_size=3)) if pairs else []
    borders = [
        Border(a, b, {"ms": draw(times)} | ({"bytes": draw(sizes)} if draw(st.booleans()) else {})) for a, b in picked
    ]
    tied = []
    if count > 2 and draw(st.booleans()):
        shared = [{c.candidate for c in choices if c.unit == unit} for unit in units[:2]]
        tied = [tuple(units[:2])] if shared[0] & shared[1] else []
    fixed = {"bytes": draw(st.sampled_from([0.0, 1234.0])), "ms": draw(st.sampled_from([0.0, 0.05]))}
    instance = Instance(tuple(choices), tuple(borders), tuple(tied), fixed, {})
    totals = [costs for _, costs, _ in instance.all()]
    names = draw(st.lists(st.sampled_from(["bytes", "ms"]), unique=True))
    # a limit that some allocation meets exactly, or one anywhere
    budgets = {}
    for name in names:
        ends = min(t[name] for t in totals), max(t[name] for t in totals)
        exact = st.sampled_from(sorted({t[name] for t in totals}))
        budgets[name] = draw(st.one_of(exact, st.floats(0.9 * ends[0], ends[1])))
    return dataclasses.replace(instance, budgets=budgets)


@pytest.mark.parametrize("solver", SOLVERS)
@FEW
@given(instance=instances())
def test_the_least_degradation_is_that_of_exhaustive_search(solver, instance):
    kept = instance.kept()
    if not kept:
        with pytest.raises(Infeasible, match="no allocation keeps"):
            minimise_degradation(instance.problem, budgets=instance.budgets, solver=solver)
        return
    found = minimise_degradation(instance.problem, budgets=instance.budgets, solver=solver)
    best = min(loss for loss, _, _ in kept)
    assert found.degradation == pytest.approx(best, rel=1e-9, abs=1e-9)
    assert (found.degradation, found.costs, found.candidates) in kept  # the totals are exact, the budgets are kept
    assert (found.status, found.solver) == ("optimal", solver)
    assert found.gap == pytest.approx(0, abs=1e-6)
    assert found.degradation - 1e-6 <= found.bound <= found.degradation
    second = next(iter(instance.budgets), "bytes")
    cheapest = min(costs[second] for loss, costs, _ in kept if loss <= found.degradation)
    assert found.costs[second] == pytest.approx(cheapest, rel=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@FEW
@given(instance=instances(), most=st.floats(0, 10), cost=st.sampled_from(["bytes", "ms"]))
def test_the_least_cost_is_that_of_exhaustive_search(solver, instance, most, cost):
    kept = instance.kept(loss=most)
    options = {"cost": cost, "max_degradation": most, "budgets": instance.budgets, "solver": solver}
    if not kept:
        with pytest.raises(Infeasible, match="no allocation keeps"):
            minimise_cost(instance.problem, **options)
        return
    found = minimise_cost(instance.problem, **options)
    assert found.costs[cost] == pytest.approx(min(costs[cost] for _, costs, _ in kept), rel=1e-9)
    assert (found.degradation, found.costs, found.candidates) in kept
    least = min(loss for loss, costs, _ in kept if costs[cost] <= found.costs[cost])
    assert found.degradation == pytest.approx(least, rel=1e-9, abs=1e-9)


@FEW
@given(instance=instances(), seed=st.integers(0, 5))
def test_baselines_keep_the_budgets_and_never_beat_the_program(instance, seed):
    try:
        best = minimise_degradation(instance.problem, budgets=instance.budgets)
    except Infeasible:
        best = None
    for other in (uniform, greedy, random_allocation):
        options = {"seed": seed} if other is random_allocation else {}
        try:
            found = other(instance.problem, budgets=instance.budgets, **options)
        except Infeasible:
            continue
        assert best is not None
        assert (found.degradation, found.costs, found.candidates) in instance.kept()
        assert found.degradation >= best.degradation * (1 - 1e-9) - 1e-9
        assert (found.status, found.gap) == ("feasible", math.inf)


@FEW
@given(instance=instances())
def test_what_an_answer_costs_is_a_budget_that_it_keeps_and_no_budget_is_met_below_the_least(instance):
    free = minimise_cost(instance.problem, cost="ms", max_degradation=math.inf)
    again = minimise_degradation(instance.problem, budgets={"ms": free.costs["ms"]})
    assert again.costs["ms"] == free.costs["ms"]
    below = math.nextafter(free.costs["ms"], -math.inf)
    with pytest.raises(Infeasible, match=r"the least attainable: ms"):
        minimise_degradation(instance.problem, budgets={"ms": below})


def everywhere(problem, candidate, cost="bytes"):
    """What one candidate for all units costs."""
    return problem.total(cost, dict.fromkeys(problem.values, candidate))


@pytest.mark.skipif(importlib.util.find_spec("highspy") is None, reason="highspy is not installed")
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_both_solvers_agree_on_a_network_and_the_heuristics_stay_behind(share):
    problem = network_problem(60)
    budgets = {"bytes": share * everywhere(problem, "w8"), "ms": 1.2 * everywhere(problem, "w8", "ms")}
    options = {"budgets": budgets}
    cbc, highs = (minimise_degradation(problem, solver=name, **options) for name in ("cbc", "highs"))
    assert cbc.degradation == pytest.approx(highs.degradation, rel=1e-9)
    assert cbc.costs["bytes"] == highs.costs["bytes"]
    for other in (uniform(problem, **options), greedy(problem, **options)):
        assert cbc.degradation <= other.degradation
    assert greedy(problem, **options).degradation < uniform(problem, **options).degradation


def test_same_input_same_answer_and_every_solver_is_silent(capfd):
    problem = network_problem(20)
    budgets = {"bytes": everywhere(problem, "w4")}
    first, second = (minimise_degradation(problem, budgets=budgets, solver="cbc") for _ in range(2))
    assert first == second
    assert capfd.readouterr() == ("", "")


def test_random_allocations_fill_the_budget_and_differ_by_seed():
    problem = network_problem(40)
    most = everywhere(problem, "w4")
    found = [random_allocation(problem, budgets={"bytes": most}, seed=seed) for seed in (1, 2, 1)]
    assert found[0] == found[2]
    assert found[0].candidates != found[1].candidates
    assert all(0.98 * most < f.costs["bytes"] <= most for f in found)


def two_units():
    return [
        Choice("stem", "w4", 0.5, {"bytes": 50.0, "ms": 3.0}),
        Choice("stem", "w8", 0.0, {"bytes": 100.0, "ms": 2.0}),
        Choice("head", "w4", 0.25, {"bytes": 500.0, "ms": 1.5}),
        Choice("head", "w8", 0.0, {"bytes": 1000.0, "ms": 1.0}),
    ]


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_optimum_that_preprocessing_in_cbc_loses_is_found(solver):
    costs = {
        "u0": {"w4": (0.0, 200.0, 0.1), "w2": (1.0, 100.0, 0.1)},
        "u1": {"w2": (0.0, 100.0, 0.1)},
        "u2": {"w2": (1e-6, 100.0, 0.2), "w4": (0.0, 402.0, 0.1), "float16": (0.0, 100.0, 0.1)},
        "u3": {"w2": (0.0, 100.0, 0.1)},
    }
    choices = [
        Choice(unit, name, loss, {"bytes": size, "ms": time})
        for unit, own in costs.items()
        for name, (loss, size, time) in own.items()
    ]
    borders = [Border("u0", "u2", {"ms": 0.1, "bytes": 200.0}), Border("u0", "u2", {"ms": 1.0})]
    budgets = {"ms": 0.5, "bytes": 801.0}
    found = minimise_degradation(Problem.of(choices, borders=borders), budgets=budgets, solver=solver)
    assert found.candidates == {"u0": "w4", "u1": "w2", "u2": "w2", "u3": "w2"}


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_program_without_a_solution_that_cbc_dies_of_is_infeasible(solver):
    alike = [Choice("u1", name, 0.0, {"bytes": 100.0, "ms": 0.1}) for name in ("w2", "w4", "w8")]
    choices = [Choice("u0", "w2", 1e-6, {"bytes": 100.0, "ms": 0.1}), *alike]
    choices.append(Choice("u1", "float16", 3.0, {"bytes": 200.0, "ms": 0.1}))
    borders = [Border("u0", "u1", {"ms": 0.1, "bytes": 771.0}), Border("u0", "u1", {"ms": 0.1})]
    problem = Problem.of(choices, borders=borders)
    with pytest.raises(Infeasible, match="no allocation keeps degradation <= 0; the least attainable"):
        minimise_cost(problem, cost="bytes", max_degradation=0.0, budgets={"bytes": 200.0}, solver=solver)


def test_an_infeasible_budget_is_named_with_the_nearest_that_is_not():
    with pytest.raises(Infeasible, match=r"keeps bytes <= 500; the least attainable: bytes 560;"):
        minimise_degradation(Problem.of(two_units(), fixed={"bytes": 10.0}), budgets={"bytes": 500})
    with pytest.raises(
        Infeasible, match=r"keeps degradation <= 0.1 and bytes <= 700; .* degradation 0.25 .* bytes 1100 "
    ) as told:
        minimise_cost(Problem.of(two_units()), cost="ms", max_degradation=0.1, budgets={"bytes": 700})
    assert "of these two: degradation 0 with bytes 1100 ... bytes 550 with degradation 0.75" in str(told.value)


def test_budgets_that_only_together_are_infeasible_are_told_apart_from_those_that_can_be_kept():
    budgets = {"ms": 3.2, "bytes": 700.0}
    for name in budgets:
        minimise_degradation(Problem.of(two_units()), budgets={name: budgets[name]})
    with pytest.raises(Infeasible, match=r"ms <= 3.2 and bytes <= 700; the least attainable: ms 3.5 .*, or bytes 1100"):
        minimise_degradation(Problem.of(two_units()), budgets=budgets)


def test_pins_leave_the_pinned_candidate_alone():
    kept = pinned(two_units(), [("st.m", "w4")])
    assert [(c.unit, c.candidate) for c in kept] == [("stem", "w4"), ("head", "w4"), ("head", "w8")]
    later = pinned(two_units(), [("", "w4"), ("head", "w8")])
    assert [(c.unit, c.candidate) for c in later] == [("stem", "w4"), ("head", "w8")]


@pytest.mark.parametrize(
    ("pins", "message"),
    [
        ([("stam", "w4")], "'stam' matches none of the 2 units; near it: stem"),
        ([("head", "w2")], "'head' is pinned to 'w2'; it can have w4, w8"),
        ([("(", "w4")], "no regular expression"),
    ],
)
def test_a_pin_that_cannot_be_kept_is_an_error(pins, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        pinned(two_units(), pins)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": {"size": 3}}, "budgets: 'size' is none of bytes, ms"),
        ({"budgets": {"ms": math.nan}}, "not a number"),
        ({"budgets": {}, "fixed": {"size": 3.0}}, "fixed costs: 'size'"),
        ({"budgets": {}, "borders": [Border("stem", "tail", {"ms": 1.0})]}, "'tail' is none of stem, head"),
        ({"budgets": {}, "borders": [Border("stem", "head", {"size": 1.0})]}, "'size' is none of"),
        ({"budgets": {}, "tied": [("stem", "tail")]}, "'tail' is none of"),
        ({"budgets": {}, "solver": "glpk"}, "must be one of auto, cbc, highs"),
    ],
)
def test_input_that_contradicts_itself_is_an_error(options, message):
    made = {name: value for name, value in options.items() if name in ("fixed", "borders", "tied")}
    solved = {name: value for name, value in options.items() if name not in made}
    with pytest.raises(UserError, match=message):
        minimise_degradation(Problem.of(two_units(), **made), **solved)


def test_choices_are_checked():
    with pytest.raises(UserError, match="'w9' is none of"):
        Choice("stem", "w9", 0.0, {})
    with pytest.raises(UserError, match="must be finite and >= 0"):
        Choice("stem", "w8", -1.0, {})
    with pytest.raises(UserError, match=r"bytes .*must be a finite number"):
        Choice("stem", "w8", 0.0, {"bytes": math.inf})
    with pytest.raises(UserError, match="twice"):
        Problem.of([*two_units(), two_units()[0]])
    with pytest.raises(UserError, match="give all choices the same"):
        Problem.of([*two_units(), Choice("tail", "w8", 0.0, {"ms": 1.0})])
    with pytest.raises(UserError, match="no candidate in common"):
        Problem.of(pinned(two_units(), [("stem", "w4"), ("head", "w8")]), tied=[("stem", "head")])
    with pytest.raises(UserError, match="no choices"):
        Problem.of([])


def tolerant(program, solver, **_):
    """A solver that may end far from the best: what it found, with the bound that it proved, as if it was stopped."""
    return dataclasses.replace(solver_module.solved(program, solver, gap=0.9), finished=False)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_search_that_ends_early_tells_the_gap_that_the_solver_proved(solver, monkeypatch):
    problem = network_problem(24)
    budgets = {"bytes": 0.4 * everywhere(problem, "w8")}
    best = minimise_degradation(problem, budgets=budgets, solver=solver)
    assert best.status == "optimal"
    assert 0 <= best.gap <= 1e-6
    monkeypatch.setattr(program_module, "solved", tolerant)
    found = minimise_degradation(problem, budgets=budgets, solver=solver)
    assert found.status == "stopped"
    assert problem.meets(budgets, found.candidates)
    assert found.bound <= best.degradation * (1 + 1e-9)
    assert found.gap == pytest.approx((found.degradation - found.bound) / found.degradation)
    assert found.gap > 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_time_limit_ends_the_search_and_nothing_is_claimed_that_was_not_proved(solver):
    problem = network_problem(24)
    budgets = {"bytes": 0.4 * everywhere(problem, "w8")}
    best = minimise_degradation(problem, budgets=budgets, solver=solver)
    with contextlib.suppress(Unsolved):  # in so little time that may be all
        found = minimise_degradation(problem, budgets=budgets, solver=solver, time_limit=0.01)
        assert found.bound <= best.degradation * (1 + 1e-9)
        assert found.degradation >= best.degradation * (1 - 1e-9)
        assert found.status == "stopped" or found.gap <= 1e-6


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_allocation_exists_and_the_cuts_ran_out_are_told_apart(solver, monkeypatch):
    """Cuts that are needed and not allowed: nothing is proved, and nothing is said to be."""
    problem = Problem.of(two_units())
    with pytest.raises(Infeasible, match="no allocation keeps bytes <= 100"):
        minimise_degradation(problem, budgets={"bytes": 100.0}, solver=solver)
    monkeypatch.setattr(Problem, "meets", lambda *_: False)
    monkeypatch.setattr(program_module, "_MOST_CUTS", 1)
    with pytest.raises(Unsolved, match="ended by its limits; none was found, and it is not proved that there is none"):
        minimise_degradation(problem, budgets={"bytes": 1000.0}, solver=solver)


def test_the_bound_is_read_from_the_log_of_cbc():
    ended = "Result - Optimal solution found\n\nObjective value:                125423.54565765\nEnumerated nodes: 12\n"
    assert bound_of_cbc(ended) == 125423.54565765
    stopped = "Result - Stopped on time limit\n\nObjective value:  130782.5\nLower bound:   127730.880\nGap:  0.02\n"
    assert bound_of_cbc(stopped) == 127730.88
    near = "Result - Optimal solution found (within gap tolerance)\n\nObjective value:  12.5\nLower bound:   12.25\n"
    assert bound_of_cbc(near) == 12.25
    assert bound_of_cbc("Result - Stopped on time limit\n\nNo feasible solution found\n") == -math.inf
    assert bound_of_cbc("") == -math.inf
