"""What the benchmarks share: a run of tfq in a process of its own, bars, tables, and where the results go."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tfq.errors import UserError, VerificationError
from tfq.execution.predict import available_cores
from tfq.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
_CODE = ("tfq", "tools", "benchmarks", "demo", "setup.py")  # what measurements depend on
REPEATABLE = ("model.tflite", "float.tflite", "spec.json", "recipe.json")
_PACKAGES = ("tfq", "tensorflow", "tf_keras", "keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Bar:
    """Something a benchmark demands: `text` says what, what was measured and what the limit is."""

    text: str
    passed: bool

    @classmethod
    def at_most(cls, what: str, measured: float, limit: float, form: str) -> Bar:
        """`form` writes a number with its unit, as "{:.2f} x"."""
        return cls(f"{what}: {form.format(measured)}, bar at most {form.format(limit)}", measured <= limit)

    @classmethod
    def at_least(cls, what: str, measured: float, limit: float, form: str) -> Bar:
        return cls(f"{what}: {form.format(measured)}, bar at least {form.format(limit)}", measured >= limit)

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.text}"


@dataclasses.dataclass(frozen=True)
class TfqRun:
    """One run of tfq in a process of its own.

    Attributes:
      seconds: from before the import of tfq to the end, writing the files not included.
      peak_memory_mb: largest resident memory of the process, in MiB.
      layers: layers whose parity with the simulation was measured.
      max_steps: largest difference of any of them on its own inputs, in steps of its grid.
      digests: SHA-256 of the files that must not change from run to run.
      report: the whole report.json.
    """

    seconds: float
    peak_memory_mb: float
    layers: int
    max_steps: int
    digests: Mapping[str, str]
    report: Mapping[str, Any]

    @property
    def stages(self) -> dict[str, float]:
        """Stage -> seconds."""
        return {stage["name"]: stage["seconds"] for stage in self.report["stages"]}

    def figures(self) -> dict[str, Any]:
        """What the benchmark's JSON keeps: the parts of the report that stay readable."""
        kept = ("verification", "parity", "guard", "warnings", "stages", "model")
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "report"}
        return own | {name: self.report[name] for name in kept}


def run_tfq(recipe: Recipe, output: Path) -> TfqRun:
    """Quantise and write the files; to be called in a fresh process, whose time and memory it measures."""
    start = time.monotonic()
    from tfq.pipeline import quantize

    product = quantize(recipe)
    seconds = time.monotonic() - start
    output.mkdir(parents=True, exist_ok=True)
    for name, content in product.files.items():
        (output / name).write_bytes(content)
    report = json.loads(product.files["report.json"])
    steps = [layer["parity_max_steps"] for layer in report["layers"] if layer["parity_max_steps"] is not None]
    return TfqRun(
        seconds=seconds,
        peak_memory_mb=report["stages"][-1]["peak_memory_mb"],
        layers=len(steps),
        max_steps=max(steps, default=0),
        digests={name: hashlib.sha256(product.files[name]).hexdigest() for name in REPEATABLE},
        report=report,
    )


def in_fresh_process(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call in a new interpreter: its memory is its own, and nothing of an earlier call is warm."""
    with fresh_process() as call:
        return call(function, *arguments)


@contextlib.contextmanager
def fresh_process() -> Iterator[Callable[..., Any]]:
    """`call(function, *arguments)` in a new interpreter, which serves all calls of the block.

    Linux hands a parent's peak memory on to its children, so the parent must stay small: it imports no TensorFlow.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def judged(
    names: Sequence[str], run: Callable[[str], _Result], bars: Callable[[_Result], Sequence[Bar]]
) -> tuple[list[_Result], list[Bar]]:
    """(results, bars) of a run of every name; a file that is not what was specified is a missed bar."""
    results: list[_Result] = []
    demands: list[Bar] = []
    for name in names:
        try:
            results.append(run(name))
        except VerificationError as error:
            demands.append(Bar(f"{name}: not verified: {error}", False))
        else:
            demands += bars(results[-1])
    return results, demands


@dataclasses.dataclass(frozen=True, order=True)
class Origin:
    """What made a measurement: the command, the day and the commit, empty where none was kept."""

    command: str
    date: str
    commit: str

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Origin:
        return cls(found.get("command", ""), found.get("date", ""), found.get("commit", ""))


def commit() -> str:
    """The commit of the code that runs, with "changed" where the code differs from it; "unknown" outside of git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return git("rev-parse", "--short=10", "HEAD") + (", changed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment(module: str) -> dict[str, Any]:
    """Where and when a benchmark runs, by which command and by which code."""
    return {
        "commit": commit(),
        "command": " ".join(["python -m", module, *_telling(sys.argv[1:])]),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": f"{available_cores()}-core {platform.machine().replace('_', '-')}",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
    }


def _telling(arguments: Sequence[str]) -> list[str]:
    """Arguments without --output: where the page lies changes no figure, and the path is of one machine."""
    return [argument for argument in arguments if not re.match("--?output=", argument)]


def environment_text(found: Mapping[str, Any]) -> str:
    """One paragraph above the tables."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"`{found['command']}`, {found['date']}, {_code_text(found.get('commit', ''))}, {found['machine']}, load"
        f" average {found['load_average']} at the start. {versions}."
    )


def _code_text(commit: str) -> str:
    return f"commit {commit}" if commit else "commit not kept"


def origins_section(origins: Mapping[str, Origin], present: str) -> list[str]:
    """By which command, when and by which code every measurement of a page was made.

    Args:
      origins: by name of the measurement.
      present: the commit of the code that writes the page.
    """
    groups: dict[Origin, list[str]] = {}
    for name, origin in origins.items():
        groups.setdefault(origin, []).append(name)
    others = sum(origin.commit != present or "changed" in present for origin in origins.values())
    rows = [
        [
            f"`{origin.command}`".replace("|", "\\|"),  # else it ends the cell
            origin.date,
            (origin.commit or "not kept") + (" *" if origin.commit != present or "changed" in present else ""),
            f"{len(names)}",
            "; ".join(names),
        ]
        for origin, names in sorted(groups.items(), key=lambda group: (group[0].date, group[0]))
    ]
    text = (
        f"Every measurement with what made it. `*`: made by other code than {_code_text(present)}, which wrote this"
        f" page; {others} of {len(origins)} were."
    )
    return ["## Origins", text, markdown_table(["command", "date", "commit", "number", "measurements"], rows)]


def bar_list(bars: Sequence[Bar]) -> str:
    """All bars, one a line, for terminal and page."""
    failed = sum(not bar.passed for bar in bars)
    return "\n".join([f"{len(bars) - failed} of {len(bars)} bars passed", *map(str, bars)])


def page_text(
    title: str,
    where: Mapping[str, Any],
    parts: Sequence[str],
    bars: Sequence[Bar],
    notes: Sequence[str] = (),
    *,
    origins: Mapping[str, Origin] | None = None,
) -> str:
    """A page of Markdown: where it was measured, what, the bars, and what was left out.

    Args:
      origins: what made every measurement, where they come from several runs; None: all from the one of `where`.
    """
    first = environment_text(where) if origins is None else f"This page was written by {environment_text(where)}"
    sections = [f"# {title}", first, *parts, "## Bars", "```\n" + bar_list(bars) + "\n```"]
    if notes:
        sections.append("\n".join(f"- {note}" for note in notes))
    if origins is not None:
        sections += origins_section(origins, where.get("commit", ""))
    return "\n\n".join(sections) + "\n"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is flush left, the others flush right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def output_directory(path: str) -> Path:
    """The directory, made where it is missing. Raises UserError where nothing can be written to it."""
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the directory --output={path}: {error.strerror}; name another") from error
    if not os.access(directory, os.W_OK):
        raise UserError(f"cannot write to --output={path}; name a directory that can be written to")
    return directory


def check_choices(flag: str, named: Sequence[str], choices: Sequence[str]) -> None:
    """Raises UserError for a name that is not among the choices."""
    unknown = [name for name in named if name not in choices]
    if unknown:
        raise UserError(f"--{flag} names {unknown[0]!r}; choose among {', '.join(choices)}")


def check_num_samples(count: int) -> None:
    """Raises UserError for less than one."""
    check_positive("num_samples", [count])


def check_positive(flag: str, counts: Sequence[int | str]) -> None:
    """Raises UserError for what is no whole number of at least one."""
    for count in counts:
        if not str(count).isdecimal() or int(count) < 1:
            raise UserError(f"--{flag} is {count}; it must be at least 1")


def check_shares(flag: str, shares: Sequence[str]) -> None:
    """Raises UserError for what is no number above 0 and at most 1."""
    for share in shares:
        try:
            fits = 0 < float(share) <= 1
        except ValueError:
            fits = False
        if not fits:
            raise UserError(f"--{flag} names {share!r}; it must be a number above 0 and at most 1, as 0.125")


def finish(path: Path, page: str, figures: Mapping[str, Any], bars: Sequence[Bar], notes: Sequence[str] = ()) -> int:
    """Write the page and, beside it, its figures, and print the bars; exit code 1 where one is missed."""
    path.write_text(page, encoding="utf-8")
    content = {**figures, "skipped": notes, "bars": [dataclasses.asdict(bar) for bar in bars]}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print("\n".join([bar_list(bars), *notes, f"page: {path}"]))
    return 0 if all(bar.passed for bar in bars) else 1
