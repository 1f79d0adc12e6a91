"""report.json from outside: the fields that are read are those that reports have, and what is wrong is told."""

import json
from collections.abc import Iterator

import pytest

from tfq import __version__
from tfq.errors import UserError
from tfq.report.devices import merge_devices, read_report, rendered

ESTIMATE = {"value": 90.0, "low": 89.0, "high": 91.0, "unit": "%"}
MODEL = {
    "name": "float",
    "size": {"file_bytes": 10, "download_bytes": 9, "weight_bits": 8.0},
    "score": ESTIMATE,
    "difference": None,
    "agreement": None,
    "sqnr": None,
    "latency": {"p50_ms": 1, "ratio": ESTIMATE},
}
LAYER = {
    "name": "conv",
    "keras_layers": ["conv"],
    "kind": "Conv2D",
    "precision": "int8",
    "reason": "",
    "weight_bits": 8,
    "storage": "int8",
    "parameters": 9,
    "entropy_bits": 0,
    "clusters": 0,
    "sqnr_db": 20.0,
    "own_sqnr_db": None,
    "parity_max_steps": 1,
    "parity_differing": 0.0,
}
REPORT = {
    "version": __version__,
    "recipe": {"precision": "int8"},
    "evaluation": {"models": [MODEL, MODEL], "metric": "top1", "samples": 5},
    "layers": [LAYER],
    "tensors": [{"name": "conv", "range": [-1.0, 1.0], "bits": 8, "method": "mse", "rolled_back": False}],
    "stages": [{"name": "load", "seconds": 1.0, "peak_memory_mb": 100.0}],
}


def read(folder, report):
    (folder / "report.json").write_text(report if isinstance(report, str) else json.dumps(report))
    return read_report(folder)


def test_a_report_is_read_whole_with_what_nobody_asks_for(tmp_path):
    report = REPORT | {"of_tomorrow": [1]}
    assert read(tmp_path, report) == report


def places(value, path=()) -> Iterator[tuple]:
    """Paths of everything in a tree."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(path, value):
    found = json.loads(json.dumps(REPORT))
    place = found
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return found


@pytest.mark.parametrize("path", [p for p in places(REPORT) if p and isinstance(p[-1], str)], ids=str)
def test_every_field_that_is_missing_or_of_another_type_is_named(path, tmp_path):
    if path[0] == "recipe" and len(path) == 2:
        return  # of any content
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]
    for value in (None, [[]], {"a": 1}):
        if path == ("recipe",) and value == {"a": 1}:
            continue
        with pytest.raises(UserError) as caught:
            read(tmp_path, changed(path, value))
        assert place in str(caught.value)
        assert "give the `output_dir` of a tfq-quantize run" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "1", "{", "[" * 200_000, "{}", '"x"', "NaN"])
def test_what_is_no_report(text, tmp_path):
    with pytest.raises(UserError, match=r"report\.json"):
        read(tmp_path, text)


def test_a_report_of_another_version_that_lacks_something_is_called_so(tmp_path):
    old = changed(("layers", 0, "entropy_bits"), None) | {"version": "0.0.1"}
    with pytest.raises(UserError, match=r"no layers\[0\].entropy_bits; .*tfq '0.0.1' wrote it, this is"):
        read(tmp_path, old)
    assert read(tmp_path, REPORT | {"version": "0.0.1"})["version"] == "0.0.1"


def test_what_a_page_cannot_show_is_told_and_nothing_is_written(tmp_path):
    report = read(tmp_path, REPORT)
    with pytest.raises(UserError, match=r"report\.json does not hold what a page shows"):
        rendered(report, tmp_path / "report.json")
    with pytest.raises(UserError, match=r"does not hold what a page shows"):
        merge_devices(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
