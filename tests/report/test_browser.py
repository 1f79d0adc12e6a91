"""The pages in headless Chromium: what they do, and that anybody can use them, wide and narrow, light and dark."""

import dataclasses
import importlib.resources
import json

import pytest

from benchmarks.browser import CHROMIUM, opened
from tfq.evaluation.bootstrap import Estimate
from tfq.evaluation.evaluate import Evaluation, ModelEvaluation
from tfq.evaluation.size import Size
from tfq.recipe import Recipe
from tfq.report.comparison import compare, comparison_page
from tfq.report.frontier import FrontierPoint, FrontierReport
from tfq.report.frontier_page import frontier_page
from tfq.report.page import page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")
LOOKS = [(width, dark) for width in (1280, 390) for dark in (False, True)]
_SUMMARY = "r => r.violations.map(v => [v.id, v.help, v.nodes.map(n => n.html.slice(0, 200))])"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def axe():
    """axe-core's script, from the package that brings it along."""
    package = pytest.importorskip("axe_core_python")
    return importlib.resources.files(package).joinpath("axe.min.js").read_text(encoding="utf-8")


ESTIMATE = {"value": 90.0, "low": 89.0, "high": 91.0, "unit": "%"}
SIZE = {"file_bytes": 4000, "download_bytes": 3000, "weight_bits": 8.0, "activation_bytes": 500}
MODEL = {
    "name": "float",
    "size": SIZE,
    "score": ESTIMATE,
    **dict.fromkeys(("difference", "agreement", "sqnr", "delegation", "changes")),
    "other_sqnr": [],
    "parts": [],
    "latency": {"p50_ms": 0.5, "threads": 1, "ratio": ESTIMATE | {"unit": "x"}},
    "simulated": "",
}
CHANGES = {
    "count": 1,
    "total": 9,
    "by_baseline": [[4, 1], [0, 4]],
    "by_label": [[3, 2], [1, 3]],
    "pairs": [[0, 1, 1]],
    "samples": [{"sample": 3, "baseline": 0, "model": 1, "label": 0}],
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
PREVIEW = {"sample": 3, "index": 6, "name": "", "pictures": {"x": f"data:image/png;base64,{PIXEL}"}, "numbers": {}}
GUARD = {"kept": "auto", "divergences": {"auto": 0.1, "minmax": 0.2}, "samples": 64, "reason": ""}


def layer(name, inputs, **changes):
    empty = dict.fromkeys(("storage", "parity_max_steps"))
    given = {
        "name": name,
        "inputs": inputs,
        "keras_layers": [name],
        "kind": "Conv2D",
        "precision": "int8",
        "reason": "",
    }
    measured = {
        "weight_bits": 8,
        "entropy_bits": 0,
        "clusters": 0,
        "parameters": 10,
        "sqnr_db": 20.0,
        "own_sqnr_db": 30.0,
    }
    return empty | given | measured | {"reconstruction": [], "time_ms": 0.5} | changes


def tensor(name):
    histogram = {"edges": [0.0, 1.0, 2.0], "counts": [9, 1], "zeros": 3}
    ranges = {"observed": [0.0, 2.0], "range": [0.0, 1.5], "bits": 8, "method": "mse", "rolled_back": False}
    return {"name": name, "group": name, "histogram": histogram, **ranges}


def report(**changes):
    layers = [layer("stem", ["image"]), layer("side", ["stem"], own_sqnr_db=12.0), layer("add", ["stem", "side"])]
    quantised = MODEL | {"name": "W4A8", "agreement": ESTIMATE, "difference": ESTIMATE, "changes": CHANGES}
    found = {
        "version": "1.0",
        "recipe": {"precision": "int8", "weight_bits": 4},
        "model": {"name": "net", "framework": "keras 3", "parameters": 84322},
        "calibration_samples": 512,
        "distillation_samples": 0,
        "verdict": "Less accurate than float: try `pipeline='advanced'`.",
        "causes": [{"layer": "side", "cause": "its weights have 4 bits", "remedy": "try `weight_bits=8`"}],
        "layers": layers,
        "tensors": [tensor(name) for name in ("image", "stem", "side")],
        "evaluation": {"models": [MODEL, quantised], "metric": "top1", "samples": 9, "omitted": "", "outputs": ["y"]},
        "stages": [{"name": "calibrate", "seconds": 1.25, "peak_memory_mb": 700.0}],
        "guard": GUARD,
        "steps": [{"name": "range tuning", "guards": [GUARD | {"kept": "minmax", "reason": "worse"}]}],
        "machine": {"cpu": "a CPU", "cores": 2, "system": "Linux", "runtime": "litert 2.3"},
        "previews": [PREVIEW],
        **dict.fromkeys(("allocation", "verification", "package_bytes")),
        **{name: [] for name in ("anew", "warnings", "parity", "devices", "class_names")},
    }
    return json.loads(json.dumps(found)) | changes


def evaluated(name, points, download):
    difference = Estimate(points, points - 0.5, points + 0.5, "points", 9)
    unmeasured = dict.fromkeys(("score", "agreement", "sqnr", "latency"))
    size = Size(4000, download, 900, 8.0, 8.0, 500)
    return ModelEvaluation(**unmeasured, name=name, size=size, difference=difference, other_sqnr=())


def frontier_report():
    models = [
        evaluated(name, *at) for name, *at in (("float", 0, 9000), ("w8", 0, 3000), ("p 1", -3, 900), ("p 2", -1, 1800))
    ]
    models[0] = dataclasses.replace(models[0], score=Estimate(90.0, 89.0, 91.0, "%", 9))
    points = [
        FrontierPoint(
            model.name, f"--size_budget=0.{i}", {"stem": "w4"}, 4.0, {"degradation": 0.1}, 0.1, "program", True, model
        )
        for i, model in enumerate(models[2:], 1)
    ]
    facts = {"name": "net", "framework": "keras 3", "parameters": 84322}
    evaluation = Evaluation(tuple(models), "top1", True, "", ("y",), 9, 0)
    return FrontierReport("1.0", Recipe("m.keras"), facts, True, tuple(points), evaluation, (), ())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Pages by name."""
    folder = tmp_path_factory.mktemp("pages")
    other = report()
    other["layers"][1] |= {"weight_bits": 4, "own_sqnr_db": 9.0}
    other["recipe"]["weight_bits"] = 8
    pages = {
        "report": page(report()),
        "comparison": comparison_page(compare({"a": report(), "b": other})),
        "frontier": frontier_page(frontier_report(), "w8"),
    }
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.mark.parametrize("name", ["report", "comparison", "frontier"])
@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_nothing_stands_in_anybodys_way(tab, axe, written, name, width, dark):
    tab.open(written[name], width=width, dark=dark)
    assert [address for address in tab.asked if not address.startswith(("file:", "data:"))] == []
    assert tab.js("document.documentElement.scrollWidth") <= width
    tab.js("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    if width < 500 and tab.js("!!document.querySelector('.graph button')"):
        tab.js("document.querySelector('.graph button').click()")
    tab.js(f"{axe}; 0")
    assert tab.js(f"axe.run({{resultTypes: ['violations']}}).then({_SUMMARY})") == []


def test_a_layer_is_chosen_by_click_and_by_keyboard(tab, written):
    tab.open(written["report"])
    chosen = "document.getElementById('chosen').innerText"
    assert tab.js(chosen).startswith("side")  # of most error, at first
    tab.js("document.querySelectorAll('.graph button')[0].click()")
    assert tab.js(chosen).startswith("image")
    tab.key("ArrowDown")
    tab.key("Enter")
    assert "0 to 1.5, 8 bits" in tab.js(chosen)
    assert tab.js("document.querySelector('#chosen svg').getAttribute('aria-label')").startswith("Histogram")
    assert tab.js("[...document.querySelectorAll('.graph [aria-pressed=true] .name')].map(e => e.innerText)") == [
        "stem"
    ]
    tab.key("End")
    assert tab.js("document.activeElement.innerText").startswith("add")


def test_colours_switch_and_the_table_sorts_and_filters(tab, written):
    tab.open(written["report"])
    seen = "[...document.querySelectorAll('.graph .value')].filter(e => e.offsetParent).map(e => e.innerText)"
    assert tab.js(seen) == ["", "30.0 dB", "12.0 dB", "30.0 dB"]
    tab.js("document.querySelector('input[value=time]').click()")
    assert tab.js(seen) == ["", "33.3 %", "33.3 %", "33.3 %"]
    names = (
        "[...document.querySelectorAll('#layer-table tbody tr')].filter(r => !r.hidden).map(r => r.cells[0].innerText)"
    )
    tab.js("document.querySelectorAll('#layer-table th button')[7].click()")
    assert tab.js(names) == ["side", "stem", "add"]
    assert tab.js("document.querySelectorAll('#layer-table th')[7].getAttribute('aria-sort')") == "ascending"
    tab.js(
        "const s = document.querySelector('input[type=search]'); s.value = 'ste';"
        " s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert tab.js(names) == ["stem"]
    assert tab.js("document.querySelector('.filter output').innerText") == "1 of 3 layers"


def test_on_a_phone_a_layer_opens_over_the_page_and_escape_closes_it(tab, written):
    tab.open(written["report"], width=390)
    shown = "getComputedStyle(document.getElementById('chosen')).display"
    assert tab.js(shown) == "none"
    tab.js("document.querySelectorAll('.graph button')[1].click()")
    assert tab.js(shown) == "block"
    tab.key("Escape")
    assert tab.js(shown) == "none"
    assert tab.js("document.querySelectorAll('.scroll.overflows').length") > 0


def test_a_point_of_the_frontier_shows_the_command_that_makes_it(tab, written):
    tab.open(written["frontier"])
    chosen = "document.getElementById('chosen').innerText"
    assert "tfq-quantize --recipe=recipe.json --size_budget=0.1 --output_dir=out" in tab.js(chosen)
    tab.js("document.querySelectorAll('[data-point]')[1].focus()")
    tab.key("Enter")
    assert "--size_budget=0.2" in tab.js(chosen)
    assert "-1.00 points [-1.50, -0.50]" in tab.js(chosen)
    heights = tab.js("[...document.querySelectorAll('.point')].map(e => e.getBoundingClientRect().top)")
    assert heights[0] > heights[1]  # which loses less


def test_runs_side_by_side_name_what_differs(tab, written):
    tab.open(written["comparison"])
    rows = "[...document.querySelectorAll('#layer-table tbody tr')].map(r => r.innerText)"
    assert tab.js(rows) == ["side\tint8, 8 bits, 12.0 dB\tint8, 4 bits, 9.0 dB"]
    places = "[...document.querySelectorAll('.strip')].map(s => [...s.children].map(e => e.getAttribute('x')))"
    assert tab.js(places) == [["0", "1", "2"]] * 4
    text = tab.js("document.body.innerText")
    assert "--weight_bits\t4\t8" in text
    assert "b: 2 layers of 8 bits, 1 layer of 4 bits" in text
