"""The library speaks of options, the commands of flags."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import pathlib
import re
from collections.abc import Iterator

import pytest
from tfq_tools.arguments import as_flag, with_flags

import tfq
from tfq.library import comparison, inspection, runs
from tfq.recipe import Recipe
from tfq.report.words import with_options

ROOT = pathlib.Path(__file__).resolve().parents[1]


def strings(path: pathlib.Path) -> Iterator[str]:
    """The texts of a source file, those with fields in pieces, but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    described = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
            yield node.value


SOURCES = sorted((ROOT / "tfq").rglob("*.py"))
# The page of a frontier shows the command that makes a point.
FLAGS = {"tfq-quantize --recipe=recipe.json ", " --output_dir=out"}


def test_no_message_of_the_library_speaks_of_flags():
    found = {(path.name, s) for path in SOURCES for s in strings(path) if re.search(r"--[a-z{]", s)}
    assert {s for _, s in found} == FLAGS
    assert {name for name, _ in found} == {"frontier_page.py"}  # a call to copy


def test_what_stands_in_backquotes_is_an_option_of_a_function():
    known = {field.name for field in dataclasses.fields(Recipe)} | {
        "output_dir",
        "engine",
    }  # of `Result.save`; `tfq.engine`
    for function in (runs.quantize, runs.explore, comparison.evaluate, inspection.inspect, tfq.Result.save):
        known |= set(inspect.signature(function).parameters)
    known |= set(runs.FrontierOptions.__annotations__)
    mentioned = {
        name for path in SOURCES for s in strings(path) for name in re.findall(r"`([a-z][a-z_]*)(?:=[^`]*)?`", s)
    }
    assert len(mentioned) > 25
    assert mentioned <= known, mentioned - known


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("`weight_bits` is 9; it must be 2 to 8", "--weight_bits is 9; it must be 2 to 8"),
        ("add `pipeline='light'`, or leave it out", "add --pipeline=light, or leave it out"),
        ("pass `overwrite=True` to replace it", "pass --overwrite to replace it"),
        ("`per_channel=False` and `weight_bits=4`", "--noper_channel and --weight_bits=4"),
        ("no `evaluation`: agreement", "no --evaluation_data: agreement"),
        ("Expected `X[..., None]` and a ` b", "Expected `X[..., None]` and a ` b"),
    ],
)
def test_the_commands_write_options_as_flags(message, told):
    assert with_flags(message) == told


@pytest.mark.parametrize(
    ("option", "flag"),
    [("pipeline='light'", "--pipeline=light"), ("overwrite=True", "--overwrite"), ("evaluation", "--evaluation_data")],
)
def test_pages_keep_the_marks_of_options(option, flag):
    message = f"`X[..., None]` and `{option}`"
    assert with_options(message, as_flag) == f"`X[..., None]` and `{flag}`"
    assert with_options(message, str) == message
