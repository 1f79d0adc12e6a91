"""A device's report as text: one row a model and number of threads, ratios to the first model beside its figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tfq_bench.collect import Bench
from tfq_bench.compare import worst
from tfq_bench.report import DeviceReport, Latency, ModelReport, Profile, Timing
from tfq_bench.results import Record

from tfq.report.summary import interval, number
from tfq.report.table import format_table

_TOP_OPS = 8


def device_summary(report: DeviceReport, bench: Bench) -> str:
    """What a person reads about one device."""
    parts = [_heading(report), _table(report, bench)]
    if report.models:
        parts.append(_notes(report, bench))
    parts += [_profile_table(model, profile) for model in report.models for profile in model.profiles if profile.ops]
    if report.warnings:
        parts.append("\n".join(f"warning: {warning}" for warning in report.warnings))
    if report.failures:
        parts.append("\n".join(_failure_lines(report)))
    return "\n\n".join(part for part in parts if part)


def _heading(report: DeviceReport) -> str:
    device, machine = report.device, report.machine
    runtime = machine.get("runtime") or {}
    found = [
        device.name if device.serial in (device.name, "host") else f"{device.name} ({device.serial})",
        " ".join(device.properties.get(f"ro.soc.{key}", "") for key in ("manufacturer", "model")).strip()
        or machine.get("cpu_model")
        or "",
        f"{device.abi} {'emulated' if device.emulated else ''}".strip(),
        f"Android {release}" if (release := device.properties.get("ro.build.version.release")) else "",
        f"{runtime.get('name', '')} {runtime.get('version', '')}".strip(),
    ]
    return ", ".join(part for part in found if part)


def _table(report: DeviceReport, bench: Bench) -> str:
    header = ["model", "threads", "p50 ms", "ratio [rounds]", "p90 ms", "", "p99 ms", "", "first run ms", ""]
    header += ["load ms", "", "peak MB", "", "file kB", "", "delegated", report.metric, "difference [95 %]"]
    header += ["agreement", "against host"]
    rows = []
    by_name = {model.name: model for model in report.models}
    base = by_name.get(bench.models[0])
    failed = {failure.model: failure for failure in reversed(report.failures)}
    for name in bench.models:
        model = by_name.get(name)
        if model is None:
            failure = failed.get(name) or failed[""]
            rows.append([name, "", f"failed: {failure.status}", failure.stage, *[""] * (len(header) - 4)])
            continue
        for threads in bench.settings.threads:
            timing = next((t for t in model.timings if t.threads == threads), None)
            other = next((t for t in base.timings if t.threads == threads), None) if base else None
            rows.append(_row(report, model, timing, base, other, str(threads)))
            if timing is None and model.name in failed:
                task = next((f for f in report.failures if f.model == name and f"/t{threads}/" in f.task), failed[name])
                rows[-1][2:4] = [f"failed: {task.status}", task.stage]
    used = [c for c in range(len(header)) if c < 3 or any(row[c] for row in rows)]
    return format_table([header[c] for c in used], [[row[c] for c in used] for row in rows])


def _row(
    report: DeviceReport,
    model: ModelReport,
    timing: Timing | None,
    base: ModelReport | None,
    other: Timing | None,
    threads: str,
) -> list[str]:
    first = model is base
    own = timing.latency if timing else None
    before = other.latency if other and not first else None
    cells = [model.name, threads]
    mark = " ?" if model.outputs_differ or (timing and timing.same_outputs is False) else ""
    if own is None:
        cells += ["emulated" if timing and report.device.emulated else "", *[""] * 11]
    else:
        cells += [_ms(own.p50_us.value) + mark, _rounds(own, mark)]
        for key in ("p90_us", "p99_us"):
            cells += _beside(getattr(own, key).value, getattr(before, key).value if before else None, _ms)
        cells += _beside(own.first_run_us, before.first_run_us if before else None, _ms)
        cells += _beside(_load(own), _load(before) if before else None, lambda ms: f"{ms:.1f}")
        cells += _beside(_peak(own), _peak(before) if before else None, lambda kb: f"{kb * 1024 / 1e6:.1f}")
    size = base.file_bytes if base and not first else None
    cells += _beside(model.file_bytes, size, lambda count: f"{count / 1e3:.1f}")
    cells += [
        _delegated(model, timing),
        number(model.score, 2),
        interval(model.difference, sign="+").replace(" points", ""),
        number(model.agreement, 2),
        _against_host(model),
    ]
    return cells


def _beside(value: float | None, base: float | None, form: Callable[[float], str]) -> list[str]:
    """A figure and its ratio to the baseline's."""
    if value is None:
        return ["", ""]
    return [form(value), f"{value / base:.2f}x" if base else ""]


def _ms(us: float) -> str:
    return f"{us / 1e3:.3f}"


def _load(latency: Latency) -> float:
    return latency.load_ms + latency.prepare_ms


def _peak(latency: Latency) -> float | None:
    return latency.memory["after"]["peak_kb"]


def _rounds(latency: Latency, mark: str) -> str:
    ratio = latency.ratio_p50
    if ratio is None:
        return ""
    between = f" [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio.low is not None else ""
    return f"{ratio.value:.2f}x{between}{mark}"


def _delegated(model: ModelReport, timing: Timing | None) -> str:
    if model.profiles:
        profile = next((p for p in model.profiles if timing and p.threads == timing.threads), model.profiles[0])
        return f"{profile.delegated_ops}/{profile.delegated_ops + profile.plain_ops}"
    delegated = timing.fully_delegated if timing else None
    return "" if delegated is None else "all" if delegated else "not all"


def _against_host(model: ModelReport) -> str:
    if not model.against_host:
        return ""
    found = worst(model.against_host)
    if found.exact:
        return "equal"
    if found.max_lsb is not None:
        text = f"{found.max_lsb:g} LSB, {found.differing / found.elements:.2%}"
    elif found.sqnr_db is not None:
        text = f"{found.sqnr_db:.1f} dB"
    else:
        text = "not finite"
    return f"DIFFERS: {text}" if model.outputs_differ else text


def _notes(report: DeviceReport, bench: Bench) -> str:
    settings = bench.settings
    judged = "; brackets of differences: 95 % intervals (paired bootstrap)" if bench.metric else ""
    notes = [f"{len(bench.samples)} samples; ratios are to {bench.models[0]}{judged}."]
    if report.omitted:
        notes.append(f"No score: {report.omitted}.")
    latencies = [t.latency for model in report.models for t in model.timings if t.latency]
    if latencies:
        runs = sorted({latency.runs for latency in latencies})
        counted = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else str(runs[0])
        notes.append(
            f"Latency: {counted} runs of one invocation in {_processes(settings.rounds)};"
            f" {settings.kernels} kernels{f', delegate {settings.delegate}' if settings.delegate else ''};"
            f" processors {settings.cpu_mask or 'as the system chooses'}."
        )
        notes.append(
            "Load: from opening the file to the first run, which is not counted. Peak: memory of the whole"
            " process (VmHWM)."
        )
    if any(model.against_host for model in report.models):
        notes.append(f"Against host: outputs compared with {report.reference}. equal: every bit is the same.")
    return "\n".join(notes)


def _processes(rounds: int) -> str:
    return "one process" if rounds == 1 else f"{rounds} processes, models in turns"


def _profile_table(model: ModelReport, profile: Profile) -> str:
    """The operators that take longest, by their mean: the profiler counts whole microseconds."""
    total = sum(op["mean_us"] for op in profile.ops) or 1.0
    longest: Sequence[Record] = sorted(profile.ops, key=lambda op: -op["mean_us"])[:_TOP_OPS]
    rows = [
        [
            op["type"],
            op["name"] if op["name"] != op["type"] else "",
            "delegate" if op["delegated"] else "runtime",
            f"{op['p50_us'] / 1e3:.3f}",
            f"{op['mean_us'] / 1e3:.4f}",
            f"{op['mean_us'] / total:.0%}",
        ]
        for op in longest
    ]
    more = f"\n... and {len(profile.ops) - _TOP_OPS} more in the JSON file" if len(profile.ops) > _TOP_OPS else ""
    header = [f"{model.name}, {profile.threads} thr.", "tensor", "run by", "p50 ms", "mean ms", "share"]
    return format_table(header, rows, left=3) + more


def _failure_lines(report: DeviceReport) -> list[str]:
    """One line for all failures with the same words."""
    places: dict[tuple[str, str], list[str]] = {}
    for failure in report.failures:
        where = " ".join(part for part in (failure.model, failure.task and f"({failure.task})") if part)
        places.setdefault((failure.stage, failure.error), []).append(where or report.device.serial)
    return [
        f"failed: {found[0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {stage}: {error}"
        for (stage, error), found in places.items()
    ]
