"""Values of a report in words."""

import dataclasses
import math

import pytest

from tfq.models.forms import WrittenAnew
from tfq.pipeline import plan_of, plan_of_frontier
from tfq.recipe import Recipe
from tfq.report.words import anew, bytes_of, clusters, milliseconds, precision, proof, setting, stage, step, verdict


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


def test_a_layer_is_called_as_its_precision_is_asked_for():
    assert [precision("int16x8", 8), precision("int16x8", 4), precision("int16x8", None)] == ["w8a16", "w4a16", "w8a16"]
    assert [precision("int8", 4), precision("dynamic_range", 8)] == ["int8", "dynamic range"]


def test_the_stages_of_a_run_are_told_in_plain_words():
    for changes in ({}, {"max_accuracy_drop": 1.0}, {"distill": True}, {"nms": "append", "decoder": "yolo"}):
        recipe = Recipe("m", pipeline="advanced", batch_norm_tuning="always", network_tuning="always", **changes)
        for name, planned in {**plan_of(recipe), **plan_of_frontier()}.items():
            assert planned.words == stage(name)
            assert (name == planned.words) == name.startswith("load the ")


def test_clusters_have_bits():
    assert clusters([16, 0, 2, 16]) == "2 (1 bit), 16 (4 bits)"


def test_a_small_gap_is_not_called_none():
    assert "more than 0.01 % better" in proof("optimal", 1e-4, "highs")


@pytest.mark.parametrize(
    ("divergences", "reason", "said"),
    [
        ((0.08, 0.1), "", "Tuning was kept: the outputs of 64 unseen samples are 20 % nearer to float."),
        ((0.1, 0.1), "", "Tuning was kept: the outputs of 64 unseen samples are as far from float as before."),
        (
            (0.15, 0.1),
            "worse",
            "Tuning was tried and undone: the outputs of 64 unseen samples were 50 % further from float.",
        ),
        (
            (0.5, 0.1),
            "worse",
            "Tuning was tried and undone: the outputs of 64 unseen samples were 5.0 times as far from float as before.",
        ),
        (
            (0.09, 0.1),
            "chance, z = -1.2",
            "Tuning was tried and undone: the outputs of 64 unseen samples were 10 % nearer to float, which may be"
            " chance.",
        ),
    ],
)
def test_a_step_is_a_sentence(divergences, reason, said):
    assert step("tuning", dict(zip(("tuned", "before"), divergences, strict=True)), 64, reason) == said


def test_sizes_and_times_have_units_that_suit_them():
    assert [bytes_of(count) for count in (980, 97_993, 3_412_000)] == ["980 B", "98 kB", "3.41 MB"]
    assert [milliseconds(value) for value in (0.0264, 0.5, 12.34)] == ["26.4 us", "0.5 ms", "12.3 ms"]
