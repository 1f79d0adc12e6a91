"""Which models go in, and what comes out: `python -m benchmarks.coverage`.

Small models as their owners have them (`benchmarks/coverage_models`), with random weights: every one goes through
`tfq.quantize` with its defaults, and through TFLiteConverter. What each makes of it, or says, is measured on samples
that neither has seen (`benchmarks/coverage_case.py`). Nothing is downloaded.

A process measures some models one after the other; one that ends it, or takes too long, is told so. Models that were
measured stay in coverage.json, and the page is made from all that are there: `--only` measures some.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import multiprocessing
import queue
import re
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tfq_tools.command import new_flags, run_command

from benchmarks import common, coverage_models
from benchmarks.common import Bar, Origin
from benchmarks.coverage_case import ACCEPTED, CRASHED, NOT_VERIFIED, REFUSED, TIMED_OUT, CaseResult, serve
from tfq.errors import UserError

LEAST_MODELS, MOST_LOST_DB = 150, 0.5
_MOST_SERVED = 12  # models of one process: TensorFlow keeps something of each
LEAST_SIGNAL = 3.0  # dB: where both files have less, the network amplifies any rounding, and nothing is compared
TFQ, TFLITE, DYNAMIC = "tfq int8", "TFLite int8", "TFLite dynamic range"

FLAGS = new_flags()
flags.DEFINE_string("only", "", "Measure models whose theme/name match this regular expression.", flag_values=FLAGS)
flags.DEFINE_integer("jobs", 1, "Models that are measured at the same time.", flag_values=FLAGS)
flags.DEFINE_integer("timeout", 300, "Seconds for each model.", flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "Seed of weights and tfq.", flag_values=FLAGS)
flags.DEFINE_string("output", "docs/benchmarks", "Directory of coverage.md and coverage.json.", flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What one model came to, and what measured it when."""

    found: CaseResult
    origin: Origin

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> ModelResult:
        return cls(CaseResult(**kept["found"]), Origin(**kept["origin"]))

    @property
    def gain_db(self) -> float | None:
        """SQNR of tfq's int8 above TFLiteConverter's; None where there are not both, or neither holds a signal."""
        ours, theirs = (self.found.sqnr_db.get(name) for name in (TFQ, TFLITE))
        if ours is None or theirs is None or max(ours, theirs) < LEAST_SIGNAL:
            return None
        return ours - theirs


class Worker:
    """A process that measures one model after the other; a new one after a model that ended it, or took too long."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.coverage_case"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,))
        self._process.start()
        theirs.close()
        self.served = 0

    def measure(self, name: str, seed: int, seconds: float) -> CaseResult:
        """The last that is known of the model, where the process ends or takes too long."""
        self._pipe.send((name, seed))
        self.served += 1
        last, end = CaseResult(TIMED_OUT, f"after {seconds} s"), time.monotonic() + seconds
        try:
            while self._pipe.poll(max(0.0, end - time.monotonic())):
                found = self._pipe.recv()
                if found is None:
                    return last
                last = found
        except EOFError:
            self._process.join()
            if last.outcome == TIMED_OUT:
                last = CaseResult(CRASHED, f"the process ended with exit code {self._process.exitcode}")
        self.served = _MOST_SERVED
        return last

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def measured_in_turn(names: Sequence[str], seed: int, seconds: float) -> Iterator[tuple[str, CaseResult]]:
    """(name, what was found) of one model after the other."""
    worker = Worker()
    try:
        for name in names:
            if worker.served == _MOST_SERVED:
                worker.end()
                worker = Worker()
            yield name, worker.measure(name, seed, seconds)
    finally:
        worker.end()


def measured(names: Sequence[str], values: flags.FlagValues) -> Iterator[tuple[str, CaseResult]]:
    """The same as it comes, several at the same time."""
    results: queue.SimpleQueue[tuple[str, CaseResult]] = queue.SimpleQueue()

    def job(mine: Sequence[str]) -> None:
        for result in measured_in_turn(mine, values.seed, values.timeout):
            results.put(result)

    for number in range(values.jobs):
        threading.Thread(target=job, args=(names[number :: values.jobs],), daemon=True).start()
    for _ in names:
        yield results.get()


def line(name: str, found: CaseResult) -> str:
    sqnr = ", ".join(f"{file} {_number(found.sqnr_db.get(file), '.1f')} dB" for file in (TFQ, TFLITE, DYNAMIC))
    said = f"; {found.message}" if found.message else ""
    theirs = f"; TFLiteConverter: {found.tflite_message}" if found.tflite_message else ""
    return f"{name}: {found.outcome}, {found.seconds:.0f} s; {sqnr}{said}{theirs}"


def bars(results: Mapping[str, ModelResult]) -> list[Bar]:
    """What is demanded of all models together."""
    broken = [n for n, r in results.items() if r.found.outcome in (CRASHED, NOT_VERIFIED, TIMED_OUT)]
    refused = [n for n, r in results.items() if r.found.outcome == REFUSED and not r.found.tflite_message]
    worse = [n for n, r in results.items() if (r.gain_db or 0.0) < -MOST_LOST_DB]
    return [
        Bar.at_least("models", len(results), LEAST_MODELS, "{:d}"),
        Bar(f"crashed, not verified or timed out: {_listed(broken)}, bar none", not broken),
        Bar(f"taken by TFLiteConverter and not by tfq: {_listed(refused)}, bar none", not refused),
        Bar(f"more than {MOST_LOST_DB} dB below TFLiteConverter's int8: {_listed(worse)}, bar none", not worse),
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def page(results: Mapping[str, ModelResult], demands: Sequence[Bar], where: Mapping[str, Any]) -> str:
    """The results as Markdown: a summary, and a table for each theme."""
    found = {name: result.found for name, result in results.items()}
    taken = sum(f.outcome == ACCEPTED for f in found.values())
    theirs = sum(not f.tflite_message for f in found.values())
    gains = sorted(r.gain_db for r in results.values() if r.gain_db is not None)
    text = (
        f"{len(found)} small models as their owners have them, with random weights and fitted batch normalisation. tfq"
        f" takes {taken}, TFLiteConverter with its built-in operators {theirs}. Both see the same"
        f" {coverage_models.CALIBRATION} calibration samples. SQNR is that of the worst output on"
        f" {coverage_models.SAMPLES - coverage_models.CALIBRATION} other samples; what an output has in common for all"
        " samples is no signal. Latency is the time of the thread on its processor, one process, a rough figure. The"
        " machine was not quiet."
    )
    if gains:
        text += (
            f" Over {len(gains)} models tfq's int8 is {statistics.median(gains):+.1f} dB from TFLiteConverter's in the"
            f" median, {gains[0]:+.1f} dB at the least, {gains[-1]:+.1f} dB at the most."
        )
    header = ["model", "tfq", "TFLite int8", "SQNR, tfq int8", "TFLite int8", "TFLite dynamic range"]
    header += ["latency of float's, tfq", "TFLite int8", "layers in float", "seconds"]
    parts = [text]
    for theme in coverage_models.THEMES:
        rows = [_row(name, f) for name, f in found.items() if name.startswith(f"{theme}/")]
        parts += [f"## {theme.capitalize()}", common.markdown_table(header, rows)] if rows else []
    kinds = collections.Counter(kind for f in found.values() for kind in f.float_operations)
    parts += ["## What stays float", common.markdown_table(
        ["layer and reason", "models"], [[kind.replace("|", "/"), f"{count}"] for kind, count in kinds.most_common()]
    )]  # fmt: skip
    messages = [[name, f.outcome, f.message.replace("|", "/")] for name, f in found.items() if f.message]
    if messages:
        parts += ["## What tfq says of the others", common.markdown_table(["model", "outcome", "message"], messages)]
    origins = {name: result.origin for name, result in results.items()}
    return common.page_text("Which models go in", where, parts, demands, origins=origins)


def _row(name: str, found: CaseResult) -> list[str]:
    return [
        name.split("/")[1],
        found.outcome,
        "refused" if found.tflite_message else ACCEPTED,
        *(_number(found.sqnr_db.get(file), ".1f") for file in (TFQ, TFLITE, DYNAMIC)),
        *(_number(found.latency.get(file), ".2f") for file in (TFQ, TFLITE)),
        f"{sum(found.float_operations.values())}",
        f"{found.seconds:.0f}",
    ]


def _kept(path: Path) -> dict[str, ModelResult]:
    """What was measured before."""
    if not path.is_file():
        return {}
    return {name: ModelResult.of(found) for name, found in json.loads(path.read_text())["models"].items()}


def main(values: flags.FlagValues) -> int:
    common.check_positive("jobs", [values.jobs])
    common.check_positive("timeout", [values.timeout])
    output = common.output_directory(values.output)
    every = coverage_models.names()
    names = [name for name in every if re.search(values.only, name)]
    if not names:
        raise UserError(f"--only={values.only} matches no model; they are {', '.join(every)}")
    where, results = common.environment("benchmarks.coverage"), _kept(output / "coverage.json")
    for number, (name, found) in enumerate(measured(names, values), start=1):
        print(f"{number}/{len(names)} {line(name, found)}", flush=True)
        results[name] = ModelResult(found, Origin.of(where))
        _write(output / "coverage.json", {**where, "models": _figures(results)})
    results = {name: results[name] for name in every if name in results}
    demands = bars(results)
    figures = {**where, "models": _figures(results)}
    return common.finish(output / "coverage.md", page(results, demands, where), figures, demands)


def _figures(results: Mapping[str, ModelResult]) -> dict[str, Any]:
    return {name: dataclasses.asdict(result) for name, result in results.items()}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """What is there so far: a run that is ended loses nothing."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def run_benchmark() -> None:
    run_command(
        "benchmarks.coverage",
        main,
        FLAGS,
        summary="Put many small models through tfq and TFLiteConverter; the exit code is 1 where a bar is missed.",
        groups={"Benchmark": ("only", "jobs", "timeout", "seed", "output")},
    )


if __name__ == "__main__":
    run_benchmark()
