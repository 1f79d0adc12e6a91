"""The HTML page of a report: what it shows, what it leaves out, and that names cannot break it."""

import copy
import html
import html.parser
import re

import pytest

from tfq.report.devices import with_devices
from tfq.report.page import page

SIZE = {"file_bytes": 4000, "download_bytes": 3000, "weights": 900, "weight_bits": 6.0, "activation_bytes": 500}


def estimate(value, unit="%", spread=0.5):
    return {"value": value, "low": value - spread, "high": value + spread, "unit": unit, "n": 100}


def layer(name, **changes):
    found = {
        "name": name,
        "keras_layers": [name, f"{name}_bn"],
        "kind": "Conv2D",
        "precision": "int8",
        "reason": "",
        "weight_bits": 4,
        "entropy_bits": 0,
        "clusters": 0,
        "storage": "int8",
        "parameters": 1234,
        "sqnr_db": 20.0,
        "own_sqnr_db": 30.0,
        "parity_max_steps": 1,
        "reconstruction": [],
        "inputs": ["image"],
        "time_ms": 0.25,
    }
    return {**found, **changes}


def model(name, **changes):
    found = {
        "name": name,
        "size": SIZE,
        "score": estimate(90.0),
        "difference": None,
        "agreement": None,
        "sqnr": None,
        "other_sqnr": [],
        "parts": [],
        "latency": None,
        "delegation": None,
        "simulated": "",
        "changes": None,
    }
    return {**found, **changes}


def report(**changes):
    quantised = model("int8", difference=estimate(-0.25, "points"), agreement=estimate(98.0), sqnr=estimate(31.0, "dB"))
    found = {
        "version": "1.0",
        "recipe": {"precision": "int8", "model": "net.keras"},
        "model": {"name": "net", "framework": "keras 3", "parameters": 84322},
        "calibration_samples": 512,
        "distillation_samples": 0,
        "verdict": "Good: -0.25 points, try `pipeline='advanced'`.",
        "anew": [],
        "causes": [{"layer": "conv", "cause": "its weights have 4 bits", "remedy": "try `pipeline='advanced'`"}],
        "layers": [layer("stem"), layer("head", weight_bits=8)],
        "evaluation": {"models": [model("float"), quantised], "metric": "top1", "samples": 797, "omitted": ""},
        "stages": [{"name": "calibrate", "seconds": 1.25, "peak_memory_mb": 700.0}],
        "warnings": [],
        "guard": None,
        "steps": [],
        "allocation": None,
        "verification": None,
        "parity": [],
        "package_bytes": None,
        "devices": [],
        "tensors": [],
        "machine": {"cpu": "a CPU", "cores": 2, "system": "Linux x86_64", "runtime": "litert 2.3"},
        "class_names": [],
        "previews": [],
    }
    return {**copy.deepcopy(found), **changes}


class Tags(html.parser.HTMLParser):
    """Counts what is opened, and fails where something else is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in ("meta", "path", "input", "img", "br") and not dict(attributes).get("/"):
            self.open.append(tag)

    def handle_startendtag(self, tag, _):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def text_of(shown):
    told = re.sub(r"<(style|script)\b.*?</\1>", "", shown, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", told)))


def test_scores_sizes_layers_and_times_are_there_and_the_tags_close():
    shown = page(report())
    tags = Tags()
    tags.feed(shown)
    assert tags.open == []
    text = text_of(shown)
    for expected in (
        "net: int8 against float",
        "-0.25 points [-0.75, +0.25]",
        "98.00 % [97.50, 98.50]",
        "84,322 parameters",
        "stem stem + stem_bn Conv2D int8 4 int8 1,234 30.0 dB 20.0 dB 1 0.25",
        "measure what values tensors have 1.2 700",
        "Download 3 kB 1.00 x float's 3 kB; file 4 kB",
        "Memory 4.5 kB 1.00 x float's; file and 500 B of activations",
    ):
        assert expected in text
    assert "error on new samples" not in text


def test_options_are_written_as_the_reader_gives_them():
    told = report(verdict="Not usable: try `pipeline='light'`.", warnings=["no `evaluation`"])
    assert "try <code>pipeline=&#39;light&#39;</code>." in page(told)
    shown = page(told, "--{}".format)
    assert "try <code>--pipeline=&#39;light&#39;</code>." in shown
    assert "no <code>--evaluation</code>" in shown


def test_names_are_escaped():
    hostile = "<script>alert(1)</script>"
    shown = page(report(layers=[layer(hostile)], warnings=[hostile], model={**report()["model"], "name": hostile}))
    assert hostile not in shown
    assert "&lt;script&gt;" in shown


def test_the_same_report_gives_the_same_page():
    assert page(report()) == page(report())


def test_reconstruction_allocation_and_steps_are_shown_where_there_are_any():
    rolled_back = {"method": "best", "before": 0.5, "after": 0.75, "kept": False}
    rounds = [
        {
            "kind": kind,
            "name": "program",
            "predicted": 0.01,
            "measured": {
                "loss": 0.02,
                "drop": {"points": 0.4, "standard_error": 0.1, "n": 512},
                "download_bytes": 56789,
            },
            "holds": holds,
            "costs": {"download_bytes": 54321.0},
        }
        for kind, holds in (("assembled", False), ("reconstructed", True))
    ]
    guard = {"kept": "best", "divergences": {"tuned": 0.3, "best": 0.2}, "samples": 12, "reason": "worse"}
    shown = page(
        report(
            layers=[layer("stem", reconstruction=[rolled_back]), layer("head", weight_bits=8)],
            allocation={"allocation": {"status": "optimal", "gap": 0.0, "solver": "highs"}, "rounds": rounds},
            steps=[{"name": "network tuning", "guards": [guard]}, {"name": "batch-norm tuning", "guards": []}],
        )
    )
    text = text_of(shown)
    for expected in (
        "best: 0.5 → 0.75, rolled back",
        "The solver (highs) proved that no other choice is predicted to be better.",
        "layers fitted one by one the solver 0.01 0.02 -0.40 ± 0.10 no 54,321",
        "network tuning tuned 0.2 0.3 12 rolled back: worse",
        "Network tuning was tried and undone: the outputs of 12 unseen samples were 50 % further from float.",
        "Batch-norm tuning found nothing to try.",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("allocation", "said"),
    [
        (
            {"status": "stopped", "gap": 0.0531, "solver": "highs"},
            "The solver (highs) was stopped before the end; no other choice is predicted to be more than 5.3 % better.",
        ),
        (
            {"status": "feasible", "gap": None, "solver": "greedy"},
            "A greedy search measured better than the solver's choice. Nothing is proved about it.",
        ),
    ],
)
def test_what_the_solver_proved_is_said_in_words(allocation, said):
    assert said in text_of(page(report(allocation={"allocation": allocation, "rounds": []})))


def device(serial, p50_us):
    latency = {
        "p50_us": {"value": p50_us, "low": p50_us, "high": p50_us},
        "p90_us": {"value": 2 * p50_us, "low": p50_us, "high": p50_us},
        "ratio_p50": {"value": 0.5, "low": 0.4, "high": 0.6},
        "memory": {"after": {"peak_kb": 10240}},
        "rounds_us": [[p50_us] * 100],
    }
    measured = {
        "name": "model.tflite",
        "score": estimate(90.0),
        "difference": estimate(-0.25, "points"),
        "agreement": estimate(98.0),
        "against_host": [{"exact": False, "differing": 3, "elements": 80}],
        "timings": [{"threads": 4, "latency": latency}, {"threads": 1, "latency": None}],
    }
    return {
        "device": {"name": f"phone {serial}", "serial": serial, "abi": "arm64-v8a", "emulated": ""},
        "machine": {"runtime": {"name": "litert", "version": "2.3"}},
        "date": "2026-01-31T10:00:00+00:00",
        "metric": "top1",
        "reference": "the interpreter",
        "models": [measured],
        "failures": [{"model": "other.tflite", "task": "", "stage": "load", "error": "truncated"}],
        "warnings": ["it is hot"],
    }


def test_devices_join_the_report_each_in_the_place_of_its_earlier_figures():
    first = with_devices(report(), [device("a", 1500.0), device("b", 900.0)])
    second = with_devices(first, [device("a", 1234.0)])
    assert [entry["device"]["serial"] for entry in second["devices"]] == ["b", "a"]
    assert "rounds_us" not in second["devices"][0]["models"][0]["timings"][0]["latency"]
    assert with_devices(report(), []) == report()
    text = text_of(page(second))
    for expected in (
        "On phone a arm64-v8a, litert 2.3, 2026-01-31. Outputs are compared with the interpreter.",
        "model.tflite 4 1.234 ms 0.500 x [0.400, 0.600] 2.468 ms 10.0 MiB 90.00 % -0.25 points [-0.75, +0.25] 98.00 %"
        " 3 of 80 differ",
        "other.tflite failed (load): truncated",
        "it is hot",
    ):
        assert expected in text
    assert "1.500 ms" not in text


def test_a_device_that_failed_and_one_that_ran_a_single_round():
    failed = {**device("a", 1.0), "machine": {}, "models": []}
    once = device("b", 900.0)
    latency = once["models"][0]["timings"][0]["latency"]
    latency["ratio_p50"] |= {"low": None, "high": None}
    latency["memory"]["after"]["peak_kb"] = None
    text = text_of(page(with_devices(report(), [failed, once])))
    assert "On phone a arm64-v8a, runtime unknown, 2026-01-31." in text
    assert "model.tflite 4 0.900 ms 0.500 x 1.800 ms 90.00 %" in text


@pytest.mark.parametrize(
    ("missing", "label", "card"),
    [
        ("score", "against float's", "Accuracy, top1 not measured no labels"),
        ("agreement", "greement", "Output SQNR 31.0 dB [30.5, 31.5]"),
        ("latency", "median latency", "Latency not measured"),
        ("size", "file bytes", "Download not measured TFLite has no kernels for it"),
    ],
)
def test_what_was_not_measured_is_left_out(missing, label, card):
    models = [model("float"), model("int8", difference=estimate(-0.25, "points"), sqnr=estimate(31.0, "dB"))]
    for entry in models:
        entry[missing] = None
    if missing == "size":
        models[1]["simulated"] = "TFLite has no kernels for it"
    evaluation = {"models": models, "metric": "top1", "samples": 10, "omitted": "no labels"}
    text = text_of(page(report(evaluation=evaluation)))
    assert label not in text
    assert card in text
    assert ("this is a simulation" in text) == (missing == "size")
