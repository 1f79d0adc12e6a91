"""A table of bad inputs for all commands: name of the case -> command, arguments, what its message holds.

`make_files` makes the files that they name, in a folder that also holds good ones; the commands run in that folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfq import __version__
from tfq.recipe import Recipe

DEMO = pathlib.Path(__file__).resolve().parents[1] / "demo"
LONG = "x" * 300
NOT_UTF8 = os.fsdecode(b"caf\xe9")
DEEP = 200_000


@dataclasses.dataclass(frozen=True)
class Case:
    """One call: "quantize" stands for tfq-quantize; `message` is part of what it says."""

    command: str
    arguments: tuple[str, ...]
    message: str = ""


GOOD: Mapping[str, Mapping[str, str]] = {
    "quantize": {"model": "digits.keras", "calibration_data": "calibration.npz", "output_dir": "out"},
    "frontier": {"model": "digits.keras", "calibration_data": "calibration.npz", "output_dir": "out"},
    "batch": {"jobs": "good.flags", "output_dir": "out"},
    "evaluate": {"models": "float.tflite", "evaluation_data": "test.npz", "latency_runs": "0"},
    "inspect": {"model": "float.tflite"},
    "profile": {"model": "digits.keras", "output": "out"},
    "bench": {"models": "float.tflite", "evaluation_data": "test.npz", "output_dir": "out", "runner": "/bin/true"},
}


def call(command: str, message: str = "", **changes: str | None) -> Case:
    """The good call of a command with these flags changed, or left out where None."""
    options = {name: value for name, value in ({**GOOD[command], **changes}).items() if value is not None}
    return Case(command, tuple(f"--{name}={value}" for name, value in options.items()), message)


# ---- JSON -----------------------------------------------------------------------------------------------------------

SIZE = {"file_bytes": 10, "download_bytes": 9, "weight_bits": 8.0}
MODEL = {"name": "m", "size": SIZE} | dict.fromkeys(("score", "difference", "agreement", "sqnr", "latency"))
REPORT: dict[str, Any] = {
    "version": __version__,
    "recipe": {},
    "evaluation": {"models": [MODEL, MODEL], "metric": "top1", "samples": 5},
    "layers": [],
    "tensors": [],
    "stages": [],
}
OPERATION = {"kind": "Conv2D", "inputs": [[8, 8, 1]], "output": [8, 8, 4], "activation": "", "config": {}}
ENTRY = {"operation": OPERATION, "family": "int8", "p50_ms": 0.1, "mad_ms": 0.0, "runs": 4}
TABLE: dict[str, Any] = {
    "version": 1,
    "device": "d",
    "runtime": "r",
    "threads": 1,
    "date": "2026-01-01",
    "overhead_ms": 0.01,
    "entries": [ENTRY],
}
RECIPE: dict[str, Any] = json.loads(Recipe("digits.keras", "calibration.npz").to_json())
JOURNAL = b'{"measures": "m", "depends_on": "d"}\n{"key": ["a"], "value": 1.0}\n'

NO_JSON: Mapping[str, bytes] = {
    "empty": b"",
    "blank": b" \n\t\n",
    "an open brace": b"{",
    "words": b"this is no JSON",
    "single quotes": b"{'a': 1}",
    "two values": b"{} {}",
    "a trailing comma": b'{"a": 1,}',
    "brackets": b"[" * DEEP,
    "braces": b'{"a":' * DEEP,
    "closed brackets": b"[" * DEEP + b"]" * DEEP,
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "a name twice": b'{"model": "a", "model": "b"}',
    "a long number": b'{"a": ' + b"9" * 10_000 + b"}",
    "UTF-16": json.dumps(RECIPE).encode("utf-16"),
    "UTF-32": json.dumps(RECIPE).encode("utf-32"),
    "Latin-1": '{"model": "café"}'.encode("latin-1"),
    "null bytes": b'{"a": 1}\0\0',
    "binary": bytes(range(256)) * 8,
    "gzip": b"\x1f\x8b\x08" + bytes(64),
    "a zip archive": b"PK\x03\x04" + bytes(64),
}
NO_OBJECT: Mapping[str, Any] = {"null": None, "a list": [], "a number": 1, "a text": "x", "true": True, "lists": [[[]]]}


def _texts(good: Mapping[str, Any], fields: Mapping[str, Sequence[Any]]) -> dict[str, bytes]:
    """Everything wrong with a JSON file that is `good`: no JSON, no object, fields missing, unknown, of other types."""
    found = dict(NO_JSON) | {name: json.dumps(value).encode() for name, value in NO_OBJECT.items()}
    found["half of it"] = json.dumps(good).encode()[: len(json.dumps(good)) // 2]
    found["an empty object"] = b"{}"
    for field, values in fields.items():
        found |= {f"{field} is {value!r:.30}": json.dumps({**good, field: value}).encode() for value in values}
    return found


RECIPES = _texts(
    RECIPE,
    {
        "allow_unsafe_deserialization": ("false", "true", 0, 1, None, []),
        "per_channel": ("no", 1, None),
        "weight_bits": ("4", 4.0, True, None, [4], 10**30, -1, 99),
        "seed": (-1, 2**32, 1e9, "0"),
        "num_calibration_samples": (0, -5, 10**9, 10**400, "all"),
        "memory_limit": (0, 10**12, "1GB"),
        "workers": (0, 10**6, True),
        "size_budget": ("0.1", [], -1, 5),
        "precision": (None, 8, "int7", ["int8"]),
        "input_shape": ("224,224,3", [1], ["224x224"], ["image:"], ["0,3"], ["a:1", "a:2"], {}),
        "pin": ("a:w8", [1], {}, [["a:w8"]], ["(:w8"]),
        "candidates": ("w4", [4], [None]),
        "model": (None, 1, ["m"], "a\0b"),
        "labels": (1, False),
        "tomorrow": (1, None, {}),
    },
)
REPORTS = _texts(
    REPORT,
    {
        "evaluation": (None, [], {}, {"models": []}, {"models": [MODEL], "metric": 1, "samples": 1}),
        "layers": (None, {}, [1], [{}], "x"),
        "tensors": (None, [{"name": "a"}], [[]]),
        "stages": (None, [{"name": "a", "seconds": "1"}], [{}], 7),
        "version": (1, None),
        "recipe": ([], None, "int8"),
    },
)
TABLES = _texts(
    TABLE,
    {
        "version": (2, "1", None, True, 1.5),
        "overhead_ms": (-1, "0", None, 10**400),
        "entries": (None, {}, [1], [{}], [{**ENTRY, "family": "int3"}], [{**ENTRY, "p50_ms": -1}]),
        "in_place": ([], {"int8": 0}, {"int9": 1}, {"int8": "1"}),
        "checks": ([{}], "x", [[]]),
        "threads": ("1", 1.5, None),
        "device": (None, 5),
        "tomorrow": (1,),
    },
)
JOURNALS: Mapping[str, bytes] = {
    **{name: content + b"\n" for name, content in NO_JSON.items() if name not in ("empty",)},
    **{f"a line of {name}": JOURNAL + json.dumps(value).encode() + b"\n" for name, value in NO_OBJECT.items()},
    "a key that is a text": JOURNAL + b'{"key": "a", "value": 1}\n',
    "a value that is a text": JOURNAL + b'{"key": ["a"], "value": "1"}\n',
    "an endless value": JOURNAL + b'{"key": ["a"], "value": 1e999}\n',
    "of another run": JOURNAL,
}
LABELS: Mapping[str, bytes] = {
    "empty": b"",
    "blank": b"\n\n  \n",
    "UTF-16": "\n".join("abcdefghij").encode("utf-16"),
    "Latin-1": "café\n".encode("latin-1") * 10,
    "binary": bytes(range(256)),
    "nine names": b"\n".join(b"abcdefghi"[i : i + 1] for i in range(9)),
    "eleven names": b"\n".join(b"abcdefghijk"[i : i + 1] for i in range(11)),
    "a blank line": b"a\nb\n\nd\ne\nf\ng\nh\ni\nj\n",
}
FLAG_FILES: Mapping[str, bytes] = {
    "UTF-16": "--verbose\n".encode("utf-16"),
    "Latin-1": "--labels=café\n".encode("latin-1"),
    "binary": bytes(range(256)),
    "an unknown flag": b"--wieght_bits=4\n",
    "no flag": b"model.keras\n",
    "itself": b"--flagfile=file_itself\n",
    "a pipe in it": b"--flagfile=pipe\n",
    "null bytes": b"--verbose\0\n",
    "too large": b"# comment\n" * 200_000,
}


def _written(place: pathlib.Path) -> None:
    for kind, contents in (("recipe", RECIPES), ("table", TABLES), ("labels", LABELS)):
        for number, content in enumerate(contents.values()):
            (place / f"{kind}{number}.json").write_bytes(content)
    for number, content in enumerate(REPORTS.values()):
        (place / f"run{number}").mkdir()
        (place / f"run{number}/report.json").write_bytes(content)
    for number, content in enumerate(FLAG_FILES.values()):
        name = "file_itself" if b"file_itself" in content else f"flags{number}"
        (place / name).write_bytes(content)


def json_cases() -> Iterator[tuple[str, Case]]:
    budget = {"pipeline": "light", "size_budget": "0.2"}
    for number, name in enumerate(RECIPES):
        yield f"quantize, recipe: {name}", call("quantize", model=None, recipe=f"recipe{number}.json")
        yield f"frontier, recipe: {name}", call("frontier", model=None, recipe=f"recipe{number}.json")
        yield f"batch, recipe: {name}", call("batch", jobs=f"recipe{number}.json")
    for number, name in enumerate(REPORTS):
        yield f"inspect, report: {name}", call("inspect", model=None, result=f"run{number}")
        yield f"bench, report: {name}", call("bench", models=None, result=f"run{number}")
    for number, name in enumerate(TABLES):
        yield f"quantize, table: {name}", call("quantize", latency_table=f"table{number}.json", **budget)
        yield f"frontier, table: {name}", call("frontier", latency_table=f"table{number}.json")
    for number, name in enumerate(FLAG_FILES):
        file = "file_itself" if name == "itself" else f"flags{number}"
        for command in GOOD:
            yield f"{command}, flag file: {name}", call(command, flagfile=file)
    for number, name in enumerate(LABELS):
        yield f"quantize, labels: {name}", call("quantize", labels=f"labels{number}.json", preprocess="raw")


# ---- files that are none --------------------------------------------------------------------------------------------

STRANGE = {
    "nothing": "nowhere",
    "a folder": "folder",
    "a pipe": "pipe",
    "a socket": "socket",
    "an endless device": "/dev/zero",
    "a link to itself": "loop",
    "a name too long": LONG,
    "below a file": "good.flags/x",
    "no UTF-8": NOT_UTF8,
}
_PATHS = {  # flags that name a file to read: their ending, and the other flags that they need
    ("quantize", "calibration_data"): ".npz",
    ("quantize", "evaluation_data"): ".npy",
    ("quantize", "recipe"): ".json",
    ("quantize", "labels"): ".txt",
    ("quantize", "flagfile"): ".flags",
    ("frontier", "recipe"): ".json",
    ("frontier", "flagfile"): ".flags",
    ("frontier", "latency_table"): ".json",
    ("batch", "jobs"): ".json",
    ("batch", "flagfile"): ".flags",
    ("evaluate", "models"): ".tflite",
    ("evaluate", "evaluation_data"): ".npz",
    ("evaluate", "flagfile"): ".flags",
    ("inspect", "model"): ".tflite",
    ("inspect", "flagfile"): ".flags",
    ("profile", "flagfile"): ".flags",
    ("bench", "evaluation_data"): ".tfrecord",
    ("bench", "flagfile"): ".flags",
    ("bench", "delegate"): ".so",
}


def _strange_file(name: str, ending: str) -> str:
    return STRANGE[name] + ("" if name == "an endless device" else ending)


def _make_strange(place: pathlib.Path) -> None:
    for ending in ("", *dict.fromkeys(_PATHS.values())):
        os.mkfifo(place / f"pipe{ending}")
        (place / f"folder{ending}").mkdir()
        (place / f"loop{ending}").symlink_to(f"loop{ending}")
        bound = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(place)  # a socket's path is short
        bound.bind(f"socket{ending}")
        os.chdir(here)
        bound.close()
        (place / f"{NOT_UTF8}{ending}").write_bytes(b"x")


def strange_cases() -> Iterator[tuple[str, Case]]:
    for (command, flag), ending in _PATHS.items():
        for name in STRANGE:
            file = _strange_file(name, ending)
            yield (
                f"{command}, --{flag} is {name}",
                call(command, **{"preprocess": "raw"} if command == "quantize" else {}, **{flag: file}),
            )
    for command in ("inspect", "bench"):
        for name in STRANGE:
            changes = {"model": None} if command == "inspect" else {"models": None}
            yield f"{command}, --result is {name}", call(command, **changes, result=STRANGE[name])


# ---- numbers and choices --------------------------------------------------------------------------------------------

_NO_NUMBERS = ("nan", "inf", "-inf", "x", "", "1e999", "1,5", "--", "99999999999999999999999")


def number_cases(flags_of: Mapping[str, Any]) -> Iterator[tuple[str, Case]]:
    """For every number, choice and switch of every command; `flags_of` are the commands' absl flags."""
    for command, values in flags_of.items():
        for name in values:
            flag = values[name]
            kind = flag.flag_type()
            base = {"models": None} if (command, name) == ("bench", "result") else {}
            if kind in ("int", "float"):
                for value in _NO_NUMBERS if kind == "float" or name == "seed" else _NO_NUMBERS[:5]:
                    yield f"{command}, --{name}={value}", call(command, **base, **{name: value})
            elif kind == "string enum":
                for value in ("x", "", "INT8 "):
                    yield f"{command}, --{name}={value!r}", call(command, **base, **{name: value})
            elif kind == "bool":
                yield f"{command}, --{name}=maybe", call(command, **base, **{name: "maybe"})


def option_cases() -> Iterator[tuple[str, Case]]:
    contradictions: Sequence[dict[str, str]] = (
        {"precision": "float16", "weight_bits": "4"},
        {"precision": "float16", "mode": "parallel"},
        {"precision": "float16", "weight_clusters": "16"},
        {"weight_clusters": "16", "weight_bits": "4"},
        {"weight_clusters": "16", "activation_bits": "4"},
        {"weight_clusters": "7"},
        {"calibration_data": "synthetic", "selection": "random"},
        {"pipeline": "light", "size_budget": "0.1", "weight_clusters": "16"},
        {"pipeline": "advanced", "reconstruction": "adaround", "weight_clusters": "16"},
        {"pipeline": "advanced", "reconstruction": "adaround", "size_budget": "0.1", "candidates": "c16"},
        {"precision": "float16", "input_type": "uint8"},
        {"precision": "int16x8", "per_channel": "false"},
        {"precision": "dynamic_range", "calibration_method": "mse"},
        {"precision": "float32", "storage": "packed"},
        {"precision": "float32", "equalization": "expected"},
        {"mode": "parallel"},
        {"workers": "4"},
        {"granularity": "layer"},
        {"pipeline": "light", "reconstruction": "none", "mode": "parallel"},
        {"pipeline": "light", "network_tuning": "always"},
        {"calibration_method": "percentile=50"},
        {"calibration_method": "kl=2"},
        {"objective": "latency"},
        {"storage": "packed"},
        {"storage": "packed", "weight_bits": "6"},
        {"sensitivity": "gradient"},
        {"journal": "journal.jsonl"},
        {"engine": "ray"},
        {"pipeline": "light", "mode": "parallel", "engine": "spark"},
        {"pipeline": "light", "mode": "parallel", "engine": "ray://here:1", "workers": "2"},
        {"first_last_bits": "8"},
        {"metric": "auc"},
        {"metric": "map", "decoder": "yolo"},
        {"metric": "map", "decoder": "yolov9", "evaluation_data": "test.npz"},
        {"decoder": "yolo"},
        {"annotations": "instances.json"},
        {"candidates": "w4"},
        {"pin": "a:w8"},
        {"latency_table": "table.json"},
        {"size_budget": "0.1"},
        {"pipeline": "light", "size_budget": "0.1", "weight_bits": "4"},
        {"pipeline": "light", "size_budget": "0.1", "sensitivity": "gradient", "journal": "journal.jsonl"},
        {"activation_bits": "4", "package": "gzip"},
        {"reconstruction": "best"},
        {"batch_norm_tuning": "always"},
        {"pipeline": "light", "reconstruction": "adaround"},
    )
    for changes in contradictions:
        yield f"quantize, {changes}", call("quantize", **changes)
    others: Sequence[tuple[str, dict[str, str | None]]] = (
        ("evaluate", {"threads": "2"}),
        ("evaluate", {"models": "float.tflite,float.tflite"}),
        ("evaluate", {"models": ","}),
        ("evaluate", {"metric": ""}),
        ("evaluate", {"metric": ":"}),
        ("evaluate", {"metric": "a:"}),
        ("evaluate", {"metric": ":f"}),
        ("evaluate", {"metric": "top5:"}),
        ("evaluate", {"metric": "map"}),
        ("evaluate", {"decoder": "yolo"}),
        ("evaluate", {"metric": "map", "decoder": "yolo9"}),
        ("evaluate", {"metric": "map", "decoder": "yolo,nms=2"}),
        ("evaluate", {"metric": "map", "decoder": "ssd"}),
        ("evaluate", {"metric": "map", "decoder": "yolo"}),
        ("evaluate", {"outputs": "nowhere"}),
        ("evaluate", {"annotations": "nowhere.json"}),
        ("bench", {"decoder": "yolo"}),
        ("evaluate", {"preprocess": "best"}),
        ("evaluate", {"json": "folder"}),
        ("inspect", {"result": "run0"}),
        ("inspect", {"model": None}),
        ("inspect", {"num_samples": "4"}),
        ("inspect", {"preprocess": "raw"}),
        ("inspect", {"sort": "error"}),
        ("inspect", {"data": "test.npz"}),
        ("inspect", {"float_model": "float.tflite"}),
        ("inspect", {"layers": "("}),
        ("inspect", {"layers": "*"}),
        ("bench", {"serials": "abc"}),
        ("bench", {"keep": "true"}),
        ("bench", {"min_runs": "100", "max_runs": "10"}),
        ("bench", {"threads": "0"}),
        ("bench", {"threads": "1,1"}),
        ("bench", {"threads": "two"}),
        ("bench", {"threads": "999999"}),
        ("bench", {"cpu_mask": "xyz"}),
        ("bench", {"latency_table": "t.json"}),
        ("bench", {"model": "digits.keras"}),
        ("bench", {"result": "run0"}),
        ("bench", {"metric": "top2"}),
        ("bench", {"runner": "good.flags"}),
        ("bench", {"library": "good.flags"}),
        ("batch", {"jobs": "*.none"}),
        ("batch", {"jobs": "good.flags,good.flags"}),
        ("batch", {"jobs": ","}),
        ("batch", {"jobs": "["}),
        ("profile", {"model": "good.flags"}),
        ("profile", {"model": "folder"}),
        ("frontier", {"candidates": "w4a4"}),
        ("frontier", {"granularity": "layer"}),
        ("frontier", {"pin": "(:w8"}),
        ("frontier", {"recipe": "good.flags"}),
    )
    for command, changed in others:
        yield f"{command}, {changed}", call(command, **changed)
    for command in GOOD:
        yield f"{command} with a word", Case(command, (*call(command).arguments, "word"), "unexpected argument")
        yield f"{command} with an unknown flag", Case(command, (*call(command).arguments, "--unknown=1"), "unknown")
        yield f"{command} with no arguments", Case(command, ())
        yield (
            f"{command} with an argument that is no UTF-8",
            Case(command, (*call(command).arguments, NOT_UTF8), "UTF-8"),
        )


def make_files(place: pathlib.Path, model: bytes) -> None:
    """All files; `model` is a .tflite of inputs [8, 8, 1] and 4 classes."""
    for name in ("digits.keras", "calibration.npz"):
        shutil.copy(DEMO / name, place)
    (place / "float.tflite").write_bytes(model)
    images = np.random.default_rng(0).uniform(0, 4, (20, 8, 8, 1)).astype(np.float32)
    np.savez(place / "test.npz", x=images, y=np.arange(20) % 4)
    (place / "good.flags").write_text("--model=digits.keras\n--calibration_data=calibration.npz\n")
    _written(place)
    _make_strange(place)
