"""What the terminal shows of a run."""

import re
from types import SimpleNamespace

import made_up_models

from tfq.allocation.allocate import Goal, allocate
from tfq.reconstruction.steps import StepOutcome
from tfq.report.summary import _allocation, _steps
from tfq.simulate.judge import Verdict


def verdict(kept, after, reason=""):
    return Verdict(kept, {"tuned": after, "before": 1.0}, 0.1, 64, reason)


def test_steps_say_what_was_kept_and_why_the_rest_was_not():
    worse, kept = verdict("before", 2.0, "worse"), verdict("tuned", 0.5)
    steps = (StepOutcome("batch-norm tuning", (worse, kept)), StepOutcome("network tuning", ()))
    lines = _steps(SimpleNamespace(steps=steps, guard=None)).splitlines()
    assert [line.split("  ")[-1].strip() for line in lines[2:4]] == ["rolled back: worse", "kept"]
    assert lines[4].split() == ["network", "tuning", "nothing"]
    assert lines[-1].startswith("Before and after:")


def test_chance_is_explained_where_it_decided():
    chance = verdict("before", 0.9, "chance, z = -1.1")
    text = _steps(SimpleNamespace(steps=(StepOutcome("network tuning", (chance,)),), guard=None))
    assert "rolled back: may be chance, z = -1.1" in text
    assert text.endswith("(Wilcoxon signed-rank test; a tuning is kept if z is below -2).")


def test_every_comparison_says_on_how_many_samples_it_was_made():
    calibration = Verdict("auto", {"auto": 0.5, "minmax": 0.6}, 0.1, 12)
    few = Verdict("tuned", {"tuned": 0.5, "before": 1.0}, 0.1, 3)
    steps = (StepOutcome("weight scales", (verdict("tuned", 0.5),)), StepOutcome("network tuning", (few,)))
    lines = _steps(SimpleNamespace(steps=steps, guard=calibration)).splitlines()
    assert [line.split() for line in lines[2:5]] == [
        ["calibration", "auto", "0.6", "0.5", "12", "kept"],
        ["weight", "scales", "tuned", "1", "0.5", "64", "kept"],
        ["network", "tuning", "tuned", "1", "0.5", "3", "kept"],
    ]


def test_models_of_a_budget_are_told_in_plain_words():
    bench = made_up_models.Made().bench()
    _, allocated = allocate(made_up_models.problem(), Goal({"download_bytes": 1600}), bench)
    table = _allocation(SimpleNamespace(allocation=allocated))
    assert not re.search(r"\b(assembled|reconstructed|program|uniform)\b", table)
    fits, proposers = ("one by one", "in sequence"), ("the solver", "a greedy search", "one precision for all layers")
    for said in (*(f"layers fitted {fit} " for fit in fits), *proposers):
        assert said in table
