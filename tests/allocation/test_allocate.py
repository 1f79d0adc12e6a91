"""The rounds of allocation on made-up models, whose losses add up or do not."""

import itertools

import pytest
from made_up_models import BITS, UNITS, Made, problem, size

from tfq.allocation.allocate import Goal, allocate
from tfq.allocation.program import Infeasible


def exhaustive():
    for bits in itertools.product(BITS, repeat=len(UNITS)):
        yield {u: f"w{b}" for u, b in zip(UNITS, bits, strict=True)}


def test_within_a_budget_the_program_is_taken_where_losses_add_up():
    made = Made()
    version, found = allocate(problem(), Goal({"download_bytes": 2000}), made.bench())
    best = min((c for c in exhaustive() if size(c) <= 2000), key=lambda c: made.true_loss("assembled", c))
    assert made.true_loss("assembled", found.allocation.candidates) == pytest.approx(
        made.true_loss("assembled", best), abs=1e-4
    )
    assert version == ("reconstructed", dict(found.allocation.candidates))
    assert made.rebuilt == 1
    assert next(r.name for r in found.rounds) == "program"
    assert found.rounds[-1].kind == "reconstructed"
    assert found.attained
    assert found.allocation.gap <= 1e-6


def test_another_proposal_is_taken_where_the_assumption_fails():
    mixed = Made(penalty=lambda c: 100.0 * (len(set(c.values())) > 1))  # any mixture is terrible
    _, found = allocate(problem(), Goal({"download_bytes": 2900}), mixed.bench())
    assert set(found.allocation.candidates.values()) == {"w4"}
    assert found.rounds[-1].name == "uniform"


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("drop", [0.5, 2.0, 20.0])
def test_the_drop_is_kept_as_measured_and_little_size_is_wasted(scale, drop):
    made = Made()
    version, found = allocate(problem(scale), Goal({}, max_drop=drop), made.bench())
    assert found.attained
    assert 10.0 * made.true_loss(*version) <= drop
    smallest = min(size(c) for c in exhaustive() if 10.0 * made.true_loss("reconstructed", c) <= drop)
    assert size(version[1]) <= 1.1 * smallest
    assert made.rebuilt <= 4


@pytest.mark.parametrize("drop", [2.0, 20.0])
def test_a_model_that_misses_by_chance_does_not_end_the_search(drop):
    lucky, found = allocate(problem(), Goal({}, max_drop=drop), Made().bench())
    first = next(r.candidates for r in found.rounds if r.kind == "reconstructed")
    assert size(first) > size(lucky[1])
    version, found = allocate(
        problem(), Goal({}, max_drop=drop), Made(error=lambda c: 100.0 if c == first else 0.0).bench()
    )
    assert found.attained
    assert size(version[1]) <= 1.2 * size(lucky[1])  # a round more went to the miss


def test_of_the_models_that_hold_the_one_of_the_smallest_file_is_taken():
    made = Made(download=lambda c: 10_000 - size(c))  # what is predicted to be small is large
    version, found = allocate(problem(), Goal({}, max_drop=2.0), made.bench())
    held = [r for r in found.rounds if r.holds and r.kind == "reconstructed"]
    assert len(held) > 1
    assert size(version[1]) == max(size(r.candidates) for r in held)


def test_a_drop_that_no_model_keeps_gives_the_most_accurate_and_says_so():
    made = Made(penalty=lambda _: 1.0)
    version, found = allocate(problem(), Goal({}, max_drop=1.0), made.bench())
    assert not found.attained
    assert not any(r.holds for r in found.rounds)
    assert set(version[1].values()) == {"w8"}


def test_drop_and_budget_together():
    made = Made()
    version, found = allocate(problem(), Goal({"download_bytes": 4600}, max_drop=2.0), made.bench())
    assert found.attained
    assert size(version[1]) <= 4600


def test_a_budget_that_cannot_be_met_is_infeasible():
    with pytest.raises(Infeasible, match="download_bytes"):
        allocate(problem(), Goal({"download_bytes": 200}), Made().bench())
