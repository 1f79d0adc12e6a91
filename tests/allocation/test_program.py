"""The integer program against exhaustive search, and what it says where there is no answer."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfq.allocation.program as program_module
from benchmarks.allocation_networks import network_problem, random_allocation
from tfq.allocation.baselines import greedy, uniform
from tfq.allocation.problem import Border, Choice, Problem
from tfq.allocation.program import Infeasible, Unsolved, minimise_cost, minimise_degradation
from tfq.errors import UserError
from tfq.precision import CANDIDATES

FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = ("w2", "w4", "w8", "float16", "float32")


@dataclasses.dataclass(frozen=True)
class Instance:
    """Random choices of few units, with borders, fixed costs and budgets."""

    choices: tuple[Choice, ...]
    borders: tuple[Border, ...]
    fixed: dict[str, float]
    budgets: dict[str, float]

    @property
    def problem(self):
        return Problem.of(self.choices, borders=self.borders, fixed=self.fixed)

    def all(self):
        """Degradation, costs and candidates of everything that can be chosen."""
        table = {(c.unit, c.candidate): c for c in self.choices}
        units = list(dict.fromkeys(c.unit for c in self.choices))
        offers = [[name for unit, name in table if unit == u] for u in units]
        for names in itertools.product(*offers):
            picked = dict(zip(units, names, strict=True))
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
    fixed = {"bytes": draw(st.sampled_from([0.0, 1234.0])), "ms": draw(st.sampled_from([0.0, 0.05]))}
    instance = Instance(tuple(choices), tuple(borders), fixed, {})
    totals = [costs for _, costs, _ in instance.all()]
    names = draw(st.lists(st.sampled_from(["bytes", "ms"]), unique=True))
    # a limit that some allocation meets exactly, or one anywhere
    budgets = {}
    for name in names:
        ends = min(t[name] for t in totals), max(t[name] for t in totals)
        exact = st.sampled_from(sorted({t[name] for t in totals}))
        budgets[name] = draw(st.one_of(exact, st.floats(0.9 * ends[0], ends[1])))
    return dataclasses.replace(instance, budgets=budgets)


@FEW
@given(instance=instances())
def test_the_least_degradation_is_that_of_exhaustive_search(instance):
    kept = instance.kept()
    if not kept:
        with pytest.raises(Infeasible, match="no allocation keeps"):
            minimise_degradation(instance.problem, budgets=instance.budgets)
        return
    found = minimise_degradation(instance.problem, budgets=instance.budgets)
    best = min(loss for loss, _, _ in kept)
    assert found.degradation == pytest.approx(best, rel=1e-9, abs=1e-9)
    assert (found.degradation, found.costs, found.candidates) in kept  # the totals are exact, the budgets are kept
    assert (found.status, found.solver) == ("optimal", "highs")
    assert found.gap == pytest.approx(0, abs=1e-6)
    assert found.degradation - 1e-6 <= found.bound <= found.degradation
    second = next(iter(instance.budgets), "bytes")
    cheapest = min(costs[second] for loss, costs, _ in kept if loss <= found.degradation)
    assert found.costs[second] == pytest.approx(cheapest, rel=1e-9)


@FEW
@given(instance=instances(), most=st.floats(0, 10), cost=st.sampled_from(["bytes", "ms"]))
def test_the_least_cost_is_that_of_exhaustive_search(instance, most, cost):
    kept = instance.kept(loss=most)
    options = {"cost": cost, "max_degradation": most, "budgets": instance.budgets}
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


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_on_a_network_the_heuristics_stay_behind(share):
    problem = network_problem(60)
    budgets = {"bytes": share * everywhere(problem, "w8"), "ms": 1.2 * everywhere(problem, "w8", "ms")}
    options = {"budgets": budgets}
    best = minimise_degradation(problem, **options)
    for other in (uniform(problem, **options), greedy(problem, **options)):
        assert best.degradation <= other.degradation
    assert greedy(problem, **options).degradation < uniform(problem, **options).degradation


def test_same_input_same_answer_and_the_solver_is_silent(capfd):
    problem = network_problem(20)
    budgets = {"bytes": everywhere(problem, "w4")}
    first, second = (minimise_degradation(problem, budgets=budgets) for _ in range(2))
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


def test_an_optimum_that_preprocessing_in_cbc_loses_is_found():
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
    found = minimise_degradation(Problem.of(choices, borders=borders), budgets=budgets)
    assert found.candidates == {"u0": "w4", "u1": "w2", "u2": "w2", "u3": "w2"}


def test_a_program_without_a_solution_that_cbc_dies_of_is_infeasible():
    alike = [Choice("u1", name, 0.0, {"bytes": 100.0, "ms": 0.1}) for name in ("w2", "w4", "w8")]
    choices = [Choice("u0", "w2", 1e-6, {"bytes": 100.0, "ms": 0.1}), *alike]
    choices.append(Choice("u1", "float16", 3.0, {"bytes": 200.0, "ms": 0.1}))
    borders = [Border("u0", "u1", {"ms": 0.1, "bytes": 771.0}), Border("u0", "u1", {"ms": 0.1})]
    problem = Problem.of(choices, borders=borders)
    with pytest.raises(Infeasible, match="no allocation keeps degradation <= 0; the least attainable"):
        minimise_cost(problem, cost="bytes", max_degradation=0.0, budgets={"bytes": 200.0})


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": {"size": 3}}, "budgets: 'size' is none of bytes, ms"),
        ({"budgets": {"ms": math.nan}}, "not a number"),
        ({"budgets": {}, "fixed": {"size": 3.0}}, "fixed costs: 'size'"),
        ({"budgets": {}, "borders": [Border("stem", "tail", {"ms": 1.0})]}, "'tail' is none of stem, head"),
        ({"budgets": {}, "borders": [Border("stem", "head", {"size": 1.0})]}, "'size' is none of"),
    ],
)
def test_input_that_contradicts_itself_is_an_error(options, message):
    made = {name: value for name, value in options.items() if name in ("fixed", "borders")}
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
    with pytest.raises(UserError, match="no choices"):
        Problem.of([])


def test_no_allocation_exists_and_the_cuts_ran_out_are_told_apart(monkeypatch):
    """Cuts that are needed and not allowed: nothing is proved, and nothing is said to be."""
    problem = Problem.of(two_units())
    with pytest.raises(Infeasible, match="no allocation keeps bytes <= 100"):
        minimise_degradation(problem, budgets={"bytes": 100.0})
    monkeypatch.setattr(Problem, "meets", lambda *_: False)
    monkeypatch.setattr(program_module, "_MOST_CUTS", 1)
    with pytest.raises(Unsolved, match="ended by its limits; none was found, and it is not proved that there is none"):
        minimise_degradation(problem, budgets={"bytes": 1000.0})
