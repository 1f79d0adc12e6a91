"""Values of a report in words."""

import dataclasses
import math

import pytest

from tfq.models.forms import WrittenAnew
from tfq.report.words import anew, proof, setting, verdict


def test_another_form_is_told_with_its_reason_and_its_price():
    found = WrittenAnew("HARD_SWISH", ("ADD", "MUL"), ("a", "b"), "runs outside XNNPACK in int8", "It is exact.")
    assert anew(**vars(found)) == (
        "HARD_SWISH of 2 layers is written as ADD and MUL, because it runs outside XNNPACK in int8. It is exact."
    )
    in_float = dataclasses.replace(found, operator="GELU", operators=("GELU",), layers=("a",), dtype="float32")
    assert anew(**vars(in_float)).startswith("GELU of 1 layer is computed in float32 between integers, because it runs")
    several = dataclasses.replace(found, operators=("PAD", "ADD", "MUL"))
    assert "is written as PAD, ADD and MUL, because" in anew(**vars(several))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "not set"),
        ("", "not set"),
        ((), "not set"),
        ([], "not set"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (99.9, "99.9"),
        (["w4", "w8"], "w4, w8"),
        ("int8", "int8"),
    ],
)
def test_settings_are_no_python(value, said):
    assert setting(value) == said


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("", "kept"),
        ("worse", "rolled back: worse"),
        ("chance, z = -1.1", "rolled back: may be chance, z = -1.1"),
    ],
)
def test_verdicts(reason, said):
    assert verdict(reason) == said


@pytest.mark.parametrize("gap", [None, math.inf, math.nan])
def test_without_a_bound_nothing_is_called_proved(gap):
    for status in ("optimal", "stopped", "feasible"):
        assert "othing is proved" in proof(status, gap, "highs")


def test_a_small_gap_is_not_called_none():
    assert "more than 0.01 % better" in proof("optimal", 1e-4, "highs")
