"""The latency table of a device: that of tfq-profile, timed by the runner."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import operator_graphs
import pytest
from runner_cache import built_runner
from tfq_bench.adb import Adb
from tfq_bench.android_device import Programs, run_on_android
from tfq_bench.host_device import run_on_host
from tfq_bench.job import Settings
from tfq_bench.latency_job import latency_table, prepare_table
from tfq_bench.library import wheel_library

from android_bench.testing import TestDevice
from tfq.allocation.latency_table import FAMILIES, operations, parse_table, unit_latencies
from tfq.errors import UserError
from tfq.models.widths import units
from tfq.precision import CANDIDATES

QUICK = Settings(rounds=2, seconds=0, warmup_seconds=0, min_runs=5, max_runs=5)
PHONE = {"ro.build.fingerprint": "maker/phone/phone:14/A/1:user/release-keys", "ro.product.model": "Phone"}


@pytest.fixture(scope="module")
def graph() -> Any:
    return operator_graphs.ALL["shared"]()


@pytest.fixture(scope="module")
def made(graph: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return prepare_table(graph, tmp_path_factory.mktemp("table") / "job", settings=QUICK)


def test_the_table_has_every_operation_at_every_family_it_can_have(
    graph: Any, made: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: pathlib.Path
) -> None:
    found = run_on_host(made.job, built_runner(tmp_path_factory), wheel_library(), tmp_path / "work")
    table, failures = latency_table(made, found)
    assert failures == ()
    assert parse_table(table.to_json()) == table
    known = {(entry.operation, entry.family) for entry in table.entries}
    assert len(known) == len(table.entries)
    for node, operation in operations(graph).items():
        weighted = node in {name for unit in units(graph) for name in unit.nodes}
        assert {f for o, f in known if o == operation} == set(FAMILIES if weighted else ("int8", "float32"))
    timed = [name for name, precision in CANDIDATES.items() if not precision.is_dynamic]
    assert len(unit_latencies(table, graph, units(graph), timed)) == len(units(graph)) * len(timed)
    assert {entry.runs for entry in table.entries} == {10}
    assert set(table.in_place) <= set(FAMILIES)
    assert {check.model for check in table.checks} == {*FAMILIES, "every_second_float32", "last_float32"}
    assert table.runtime == "litert 2.3 or later"
    records = {
        key: [found.records[task.id]["result"]["latencies_us"] for task in made.tasks[key]] for key in made.tasks
    }
    for entry in table.entries:
        times = np.concatenate(records["", entry.operation, entry.family]) / 1e3
        assert entry.p50_ms == pytest.approx(np.median(times))
        assert entry.mad_ms == pytest.approx(np.median(np.abs(times - np.median(times))))


def test_an_operation_that_fails_is_told_and_the_table_lacks_it(
    made: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: pathlib.Path
) -> None:
    found = run_on_host(made.job, built_runner(tmp_path_factory), wheel_library(), tmp_path / "work")
    key = next(key for key in made.tasks if not key[0])
    failed = {"status": "signal", "stage": "load", "signal": 11, "error": "signal 11", "output_tail": ""}
    records = {**found.records, made.tasks[key][0].id: failed, made.tasks[key][1].id: failed}
    table, failures = latency_table(made, dataclasses.replace(found, records=records))
    assert [failure.signal for failure in failures] == [11, 11]
    assert failures[0].model == f"{key[1].name} ({key[2]})"
    assert key[1:] not in {(entry.operation, entry.family) for entry in table.entries}
    assert table.checks == ()
    emulated = dataclasses.replace(found, device=dataclasses.replace(found.device, emulated="an emulator"))
    with pytest.raises(UserError, match="an emulator; its timings mean nothing"):
        latency_table(made, emulated)
    with pytest.raises(UserError, match="gave no result"):
        latency_table(made, dataclasses.replace(found, records={}))
    with pytest.raises(UserError, match="one number of threads"):
        prepare_table(made.graph, tmp_path, settings=Settings(threads=(1, 2)))


def test_the_table_of_a_phone(
    made: Any, adb_port: int, tmp_path_factory: pytest.TempPathFactory, tmp_path: pathlib.Path
) -> None:
    runner = built_runner(tmp_path_factory)
    (tmp_path / "local").mkdir()
    with TestDevice(tmp_path / "phone", properties=PHONE) as device:
        adb = Adb(device.serial, server_port=adb_port)
        found = run_on_android(
            adb, made.job, tmp_path / "local", find=lambda target: Programs(target, runner, wheel_library())
        )
    table, failures = latency_table(made, found)
    assert failures == ()
    assert table.device == "tfq Phone x86_64"
    assert len(table.entries) == sum(not kind for kind, *_ in made.tasks)
