"""The benchmark of reconstruction: cells that add up over runs, bars on made-up results, and the demo end to end."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import aeq, cases, common, cost, reconstruction
from benchmarks.cells import Cell, Key, Outcome, OverSeeds, Results, record
from benchmarks.reconstruction_bars import MOST_LOST, judge
from benchmarks.reconstruction_page import difference_text, draw_curves, page
from tfq.errors import UserError
from tfq.execution.interpreter import TfliteModel
from tfq.execution.predict import predict

RESNET20 = "resnet20_cifar10"


def cell(method, difference, *, case=RESNET20, width="W4A8", samples=512, selection="first", seed=0, **changes):
    outcome = Outcome(91.0, difference, difference - 0.5, difference + 0.5, 98.0, 10.0, 1202)
    outcome = dataclasses.replace(outcome, **changes)
    return Cell(Key(case, width, method, samples, selection, seed), outcome, "2026-01-01", "a command")


RAGGED = {"best": [-1.0, -2.0, -3.0], "adaround": [-1.0, -1.5]}


def results_of(*cells, runs=None):
    return Results({c.key: c for c in cells}, runs or {})


def judged(*cells, runs=None):
    """Texts of the bars -> whether they hold."""
    return {bar.text: bar.passed for bar in judge(results_of(*cells, runs=runs)).bars}


def test_later_cells_join_the_earlier_ones_and_replace_their_like(tmp_path):
    path = tmp_path / "results.json"
    first = [cell("nearest", -3.0), cell("best", -0.2, seed=1, note="2 of 20 layers rolled back")]
    record(path, cells=first)
    record(path, runs={"net of 10 layers": {"seconds": 3.0}})
    again = dataclasses.replace(cell("nearest", -2.0), date="2026-02-02", command="another")
    record(path, cells=[again, cell("nearest", -2.5, samples=16)])
    found = Results.read(path)
    assert list(found.cells.values()) == [first[1], cell("nearest", -2.5, samples=16), again]
    assert found.runs == {"net of 10 layers": {"seconds": 3.0}}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"models": []}', '{"cells": [{"case": "x"}], "runs": {}}'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    path = tmp_path / "reconstruction.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"reconstruction\.json does not hold results of this benchmark"):
        Results.read(path)
    assert Results.read(tmp_path / "absent.json") == Results()


def test_seeds_are_averaged_and_their_spread_is_kept():
    differences = np.array([-0.5, 0.25, -1.25])
    found = OverSeeds.of(cell("best", d, seed=s) for s, d in enumerate(differences))
    assert found.difference == pytest.approx(differences.mean())
    assert (found.low, found.high) == pytest.approx((differences.mean() - 0.5, differences.mean() + 0.5))
    assert (found.least, found.most, found.seeds) == (-1.25, 0.25, 3)
    assert difference_text(found) == "-0.50 [-1.00, +0.00]; -1.25 to +0.25"
    assert difference_text(OverSeeds.of([cell("best", 0.1)])) == "+0.10 [-0.40, +0.60]"
    assert OverSeeds.of([]) is None


def test_the_table_takes_the_largest_number_of_samples_and_no_drawn_ones():
    found = results_of(cell("best", -1.0, samples=64), cell("best", -0.5), cell("best", -9.0, selection="random"))
    assert found.over_seeds(RESNET20, "W4A8", "best", selection="first").difference == -0.5
    assert found.over_seeds(RESNET20, "W4A8", "best", selection="first", samples=64).difference == -1.0
    assert found.over_seeds(RESNET20, "W4A8", "mse", selection="first") is None


def test_methods_are_compared_by_the_seeds_that_both_have_unless_one_has_a_single_one():
    best, rival = ([cell(name, d, seed=s) for s, d in enumerate(found)] for name, found in RAGGED.items())
    found = results_of(*best, *rival, cell("nearest", -3.0))
    table = functools.partial(found.over_seeds, RESNET20, "W4A8", selection="first")
    assert table("best").difference == -2.0
    assert table("best", beside="adaround").difference == -1.5
    assert table("adaround", beside="best").difference == -1.25
    assert table("best", beside="nearest").difference == -2.0
    assert table("nearest", beside="best").difference == -3.0
    assert (
        judged(*best, *rival)[f"{RESNET20} W4A8: best less adaround: -0.25 points, bar at least +0.00 points"] is False
    )


def test_methods_without_chance_have_one_seed_and_peers_one_width():
    keys = list(
        reconstruction.ablation_keys(
            "digits",
            200,
            widths=["W4A8", "W8A8"],
            methods=["aeq", "best_bn", "best", "nearest", "tflite"],
            seeds=2,
            num_samples=512,
        )
    )
    assert [(k.width, k.method, k.seed) for k in keys] == [
        *[("W8A8", m, 0) for m in ("nearest", "best", "best_bn", "tflite")],
        *[("W8A8", m, 1) for m in ("best", "best_bn")],
        *[("W4A8", m, 0) for m in ("nearest", "best", "best_bn", "aeq")],
        *[("W4A8", m, 1) for m in ("best", "best_bn")],
    ]
    assert {(k.samples, k.selection) for k in keys} == {(200, "first")}


def test_the_curve_ends_with_all_samples_of_the_case_and_draws_for_every_seed():
    keys = list(
        reconstruction.curve_keys("digits", 200, width="W4A8", methods=["nearest"], seeds=2, counts=[1, 64, 256, 1024])
    )
    assert [(k.samples, k.seed) for k in keys] == [(1, 0), (1, 1), (64, 0), (64, 1), (200, 0), (200, 1)]
    assert {k.selection for k in keys} == {"random"}


def test_points_lost_are_judged_by_the_floor_and_tell_of_the_goal():
    assert judged(cell("advanced", -0.4)) == {
        f"{RESNET20} W4A8: advanced against float, 1 seeds: -0.40 points, bar at least -0.40 points; goal -0.10"
        " not reached": True
    }
    (missed,) = judged(cell("advanced", -0.3), cell("advanced", -0.6, seed=1)).items()
    assert missed[1] is False
    (reached,) = judged(cell("advanced", -0.1))
    assert reached.endswith("goal -0.10 reached")


@pytest.mark.parametrize(
    ("one", "other", "width", "selection", "bar", "equal_passes"),
    [
        ("best", "adaround", "W3A8", "first", "W3A8: best less adaround", True),
        ("best", "adaquant_parallel", "W4A8", "first", "W4A8: best less adaquant_parallel", True),
        ("adaquant", "nearest", "W2A8", "first", "W2A8: adaquant less nearest", False),
        ("best", "nearest", "W4A8", "random", "W4A8, 16 samples: best less nearest", False),
    ],
)
def test_methods_are_compared_with_their_rivals(one, other, width, selection, bar, equal_passes):
    options = {"width": width, "selection": selection, "samples": 16 if selection == "random" else 512}

    def outcome(gain):
        found = judged(cell(one, -1.0 + gain, **options), cell(other, -1.0, **options))
        return {text.split(":")[0] + ":" + text.split(":")[1]: passed for text, passed in found.items()}

    name = f"{RESNET20} {bar}"
    assert [outcome(gain)[name] for gain in (0.25, 0.0, -0.25)] == [True, equal_passes, False]


def test_rivals_are_compared_by_divergence_where_every_seed_has_it():
    rivals = cell("best", -1.0, divergence=0.03), cell("adaround", -1.0, divergence=0.02)
    text = f"{RESNET20} W4A8: divergence from float, best over adaround: 1.500 x, bar at most 1.000 x"
    assert judged(*rivals)[text] is False
    assert not any("divergence" in text for text in judged(*rivals, cell("best", -1.0, seed=1)))


def test_rivals_are_compared_by_agreement_too():
    found = judged(cell("best", -1.0, agreement=97.5), cell("adaround", -1.0, agreement=98.0))
    assert found == {
        f"{RESNET20} W4A8: best less adaround: +0.00 points, bar at least +0.00 points": True,
        f"{RESNET20} W4A8: agreement with float, best less adaround: -0.50 points, bar at least +0.00 points": False,
    }


def test_a_stage_may_cost_a_few_samples_and_no_more():
    for loss, passed in ((0.25, True), (0.5, False)):
        found = judged(cell("best", -1.0), cell("best_bn", -1.0 - loss))
        assert [p for text, p in found.items() if "best_bn less best" in text] == [passed]


def product(**changes):
    plain = {"download_bytes": 1000, "seconds": 10.0, "peak_memory_mb": 900.0, "latency_ratio": {"value": 1.0}}
    return {"int8": plain, "advanced": {**plain, "download_bytes": 560, **changes}}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, ""),
        ({"download_bytes": 561}, "download"),
        ({"latency_ratio": {"value": 1.06}}, "latency"),
        ({"seconds": 241.0}, "whole run"),
        ({"peak_memory_mb": 3815.0}, "peak memory"),
    ],
)
def test_products_are_judged_by_size_latency_time_and_memory(changes, failed):
    bars = judged(runs={f"products {RESNET20}": product(**changes)})
    assert len(bars) == 4
    missed = [text for text, passed in bars.items() if not passed]
    assert len(missed) == bool(failed)
    assert not failed or failed in missed[0]


def test_cost_is_judged_by_layer_and_by_worker():
    runs = {
        "net of 10 layers": {"layers": 10, "seconds": 10.0},
        "net of 40 layers": {"layers": 40, "seconds": 60.0},
        "parallel best, 1 worker": {"seconds": 16.0},
        "parallel best, 2 workers": {"seconds": 10.0},
    }
    assert judged(runs=runs) == {
        "seconds a layer, 40 layers against 10: 1.50 x, bar at most 1.25 x": False,
        f"{RESNET20}: parallel best, 1 worker against 2: 1.60 x, bar at least 1.60 x": True,
    }


def test_what_has_not_been_measured_is_named_and_not_judged():
    judgement = judge(results_of())
    assert judgement.bars == []
    for width, case in MOST_LOST:
        assert f"{case} {width}: advanced against float" in judgement.unmeasured
    written = page(results_of(), judgement, [], common.environment("benchmarks.reconstruction"))
    assert "not measured, so not judged: " + judgement.unmeasured[0] in written


def test_page_and_figure_show_every_cell(tmp_path):
    found = results_of(
        cell("best_bn", -0.2, note="batch-norm tuning rolled back"),
        cell("nearest", -2.0, width="W3A8"),
        *(cell("best", -1.0 / n, selection="random", samples=n, seed=s) for n in (1, 16) for s in (0, 1)),
    )
    lines = page(found, judge(found), [], common.environment("benchmarks.reconstruction")).splitlines()
    assert "|  | W4A8 | W3A8 |" in lines
    assert "| best + BN tuning | -0.20 [-0.70, +0.30] |  |" in lines
    assert "| nearest |  | -2.00 [-2.50, -1.50] |" in lines
    assert "- W4A8 best + BN tuning, seed 0: batch-norm tuning rolled back" in lines
    assert f"| {RESNET20}, W4A8 | 1 | 16 |" in lines
    draw_curves(found, tmp_path / "images/curves.png")
    assert (tmp_path / "images/curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_demo_case_in_two_runs_measures_each_cell_once(tmp_path):
    def run(methods, *more):
        command = [sys.executable, "-m", "benchmarks.reconstruction", "--parts=ablation,samples", "--cases=digits"]
        command += ["--widths=W4A8,W4A4", f"--methods={methods}", "--num_samples=16", "--seeds=1"]
        command += ["--curve_methods=nearest", "--curve_samples=1,4", f"--output={tmp_path / 'benchmarks'}", *more]
        subprocess.run(command, cwd=common.ROOT, check=True, capture_output=True, text=True)
        return Results.read(tmp_path / "benchmarks/reconstruction.json")

    first = run("nearest,mse")
    assert {(k.width, k.method) for k in first.cells if k.selection == "first"} == {
        (width, method) for width in ("W4A8", "W4A4") for method in ("nearest", "mse")
    }
    assert {(k.method, k.samples) for k in first.cells if k.selection == "random"} == {("nearest", 1), ("nearest", 4)}
    for entry in first.cells.values():
        assert entry.outcome.float_score == pytest.approx(100 * 758 / 797)  # what demo/README.md says
        assert entry.outcome.low <= entry.outcome.difference <= entry.outcome.high
        assert entry.outcome.n == 797
        assert "--methods=nearest,mse" in entry.command
    # four bits by nearest rounding lose what least squares on the grid gets back
    second = run("nearest,least_squares")
    assert {key: second.cells[key] for key in first.cells} == first.cells
    new = {key: entry for key, entry in second.cells.items() if key not in first.cells}
    assert {(k.width, k.method) for k in new} == {("W4A8", "least_squares"), ("W4A4", "least_squares")}
    for key, entry in new.items():
        assert entry.outcome.agreement > second.cells[dataclasses.replace(key, method="nearest")].outcome.agreement
    assert (tmp_path / "images/calibration_samples.png").exists()
    written = json.loads((tmp_path / "benchmarks/reconstruction.json").read_text())
    assert len(written["cells"]) == len(second.cells) == 8


def test_nets_of_all_depths_have_their_layers_and_equal_blocks(tmp_path):
    import tf_keras

    for layers in (4, 10):
        model, noise = cost.write_residual_net(tmp_path, layers, 3, seed=0)
        net = tf_keras.models.load_model(model, compile=False)
        convolutions = [x for x in net.layers if isinstance(x, tf_keras.layers.Conv2D)]
        assert len(convolutions) == layers - 1  # and the dense layer at the end
        assert len({x.kernel.shape.as_list()[2] for x in convolutions[1:]}) == 1
        with np.load(noise) as arrays:
            assert arrays["x"].shape == (3, 32, 32, 3)
            assert np.isfinite(net.predict(arrays["x"], verbose=0)).all()


def test_timed_reconstruction_takes_on_every_layer(tmp_path):
    model, noise = cost.write_residual_net(tmp_path, 4, 8, seed=0)
    found = cost.timed_reconstruction(model, noise, 8, "nearest", "sequential", 1, 0)
    assert (found["layers"], found["samples"]) == (4, 8)
    assert found["seconds"] > 0


@pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_quantizer") is None, reason="needs ai-edge-quantizer: pip install '.[benchmark]'"
)
@pytest.mark.parametrize("algorithm", aeq.ALGORITHMS)
def test_the_peer_gives_four_bit_weights_and_sensible_outputs(tmp_path, classifier, algorithm):
    _, images, content, _ = classifier
    path = tmp_path / "float.tflite"
    path.write_bytes(content)
    quantized = aeq.quantize(path, images, weight_bits=4, algorithm=algorithm)
    (name,) = [info.name for info in TfliteModel(path).inputs]
    expected, found = (predict(model, {name: images})[0] for model in (content, quantized))
    assert len(quantized) < len(content)
    assert (expected.argmax(1) == found.argmax(1)).mean() > 0.7


def test_an_absent_peer_is_told_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="ai-edge-quantizer, which is not installed: pip install"):
        aeq.check_installed()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--parts=speed", "--parts names 'speed'; choose among ablation, samples, products, cost"),
        ("--widths=W5A8", "--widths names 'W5A8'; choose among W8A8,"),
        ("--methods=gptq", "--methods names 'gptq'; choose among nearest,"),
        ("--curve_methods=aeq", "--curve_methods names 'aeq'"),
        ("--curve_samples=0", "--curve_samples is 0; it must be at least 1"),
        ("--seeds=0", "--seeds is 0; it must be at least 1"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_code_2(flag, message):
    command = [sys.executable, "-m", "benchmarks.reconstruction", flag]
    done = subprocess.run(command, cwd=common.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_every_bar_is_about_a_case_that_there_is():
    assert {case for _, case in MOST_LOST} <= {*cases.SHARED, *cases.LARGER}
