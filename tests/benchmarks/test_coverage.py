"""The coverage benchmark: its list of models, three of them measured, and the bars and page by made-up figures."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import common, coverage, coverage_models
from benchmarks.common import Origin
from benchmarks.coverage import ModelResult
from benchmarks.coverage_case import ACCEPTED, CRASHED, REFUSED, CaseResult, measure

SQNR = {"tfq int8": 30.0, "TFLite int8": 29.0}


def test_every_theme_has_models_and_every_model_a_name_of_its_own():
    names = coverage_models.names()
    assert len(names) == len(set(names)) >= coverage.LEAST_MODELS
    assert {name.split("/")[0] for name in names} == set(coverage_models.THEMES)


@pytest.mark.parametrize("name", ["basics/mlp_sequential", "files/tflite_convolutions", "basics/categorical_input"])
def test_a_model_is_measured_beside_tflite_converter(name):
    *_, found = measure(name)
    assert (found.outcome, found.message, found.tflite_message) == (ACCEPTED, "", "")
    assert found.float_error < 1e-5
    assert found.sqnr_db["tfq int8"] > 15
    assert set(found.latency) == {"tfq int8", "TFLite int8", "TFLite dynamic range"}


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, ""),
        ({"outcome": CRASHED}, "crashed"),
        ({"outcome": REFUSED}, "taken by TFLiteConverter and not by tfq: basics/a"),
        ({"outcome": REFUSED, "tflite_message": "no"}, ""),
        ({"sqnr_db": SQNR | {"TFLite int8": 30.6}}, "more than 0.5 dB below TFLiteConverter's int8: basics/a"),
        ({"sqnr_db": {"tfq int8": 0.0, "TFLite int8": 2.0}}, ""),  # both are noise
    ],
)
def test_bars_name_the_models_that_miss_them(changes, missed):
    result = ModelResult(dataclasses.replace(CaseResult(ACCEPTED, sqnr_db=SQNR), **changes), Origin("c", "d", "e"))
    failed = [bar.text for bar in coverage.bars({"basics/a": result})[1:] if not bar.passed]
    assert any(missed in text for text in failed) if missed else not failed


def test_the_page_has_every_model_and_what_tfq_said():
    kept = CaseResult(REFUSED, "because of this", float_operations={"Carried: no rule": 2})
    results = {"basics/a": ModelResult(kept, Origin("c", "d", "e"))}
    page = coverage.page(results, coverage.bars(results), common.environment("benchmarks.coverage"))
    assert "| basics/a | refused | because of this |" in page
    assert "| Carried: no rule | 1 |" in page
