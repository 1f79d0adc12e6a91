"""Whole jobs on test devices: real adb client, real runner, real runtime, and every fault survived or a record."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from runner_cache import built_runner
from tfq_bench.adb import Adb
from tfq_bench.android_device import ROOT, Programs, describe, emulation, run_on_android
from tfq_bench.bench import prepare, run_bench
from tfq_bench.collect import Bench
from tfq_bench.elf import Target, elf_target, host_target
from tfq_bench.job import Settings
from tfq_bench.library import wheel_library
from tfq_bench.report import DeviceReport
from tfq_bench.summary import device_summary
from tfq_bench.tensors import read_tensors

from android_bench.testing import Corrupt, Disconnect, DropPush, Fault, Kill, Reboot, StorageFull, TestDevice
from android_bench.testing import emulation as arm
from tfq.data.samples import Samples
from tfq.errors import UserError
from tfq.evaluation.evaluate import evaluate
from tfq.evaluation.metrics import find_metric

QUICK = Settings(rounds=1, seconds=0, warmup_seconds=0, min_runs=20)
PHONE = {"ro.build.fingerprint": "maker/phone/phone:14/A/1:user/release-keys", "ro.product.model": "Phone"}
RUN = "tfq_runner"


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return built_runner(tmp_path_factory)


@pytest.fixture
def phones(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Callable[..., TestDevice]:
    count = iter(range(100))

    def start(*faults: Fault, properties: Mapping[str, str] = PHONE, **options: Any) -> TestDevice:
        device = TestDevice(tmp_path / f"phone{next(count)}", faults=faults, properties=properties, **options)
        request.addfinalizer(lambda: device.__exit__(None, None, None))
        return device.__enter__()

    return start


@pytest.fixture
def labelled(classifier: Any) -> Samples:
    return Samples({"image": classifier[1]}, np.arange(120), np.arange(120) % 4)


@pytest.fixture
def two_models(classifier: Any, tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    for name, content in zip(("float.tflite", "int8.tflite"), classifier[2:], strict=True):
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in ("float.tflite", "int8.tflite")}


def measured(
    bench: Bench,
    devices: list[TestDevice],
    runner: pathlib.Path,
    port: int,
    folder: pathlib.Path,
    *,
    patience: float = 20.0,
    **options: Any,
) -> list[DeviceReport]:
    def find(target: Target) -> Programs:
        assert target == host_target()
        return Programs(target, runner, wheel_library())

    def run(device: TestDevice) -> Any:
        adb = Adb(device.serial, server_port=port, patience=patience)
        return lambda job, own: run_on_android(adb, job, own, find=find, **options)

    found = {device.serial: (describe(device.serial, {}, None), run(device)) for device in devices}
    return run_bench(bench, found, folder)


def left(device: TestDevice) -> list[str]:
    """What jobs left on a device."""
    return sorted(path.name for path in device.host_path(ROOT).glob("*"))


def assert_complete(report: DeviceReport, models: int = 2) -> None:
    assert report.failures == ()
    assert len(report.models) == models
    for model in report.models:
        assert all(difference.exact for difference in model.against_host)
        assert model.timings[0].same_outputs
        assert model.timings[0].latency is not None
        assert model.timings[0].latency.runs == 20


def test_two_phones_at_once(
    phones: Any, adb_port: int, runner: pathlib.Path, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    devices = [phones(), phones(properties={**PHONE, "ro.product.model": "Other", "ro.soc.model": "SM1"})]
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)
    old, young = (devices[0].host_path(f"{ROOT}/{name}") for name in ("old", "young"))
    for folder, days in ((old, 9), (young, 2)):  # what jobs left that nobody collected
        (folder / "models").mkdir(parents=True)
        os.utime(folder, (time.time() - days * 86400,) * 2)
    reports = measured(bench, devices, runner, adb_port, tmp_path / "work")
    assert left(devices[0]) == ["young"]
    shutil.rmtree(young)
    for report, device in zip(reports, devices, strict=True):
        assert_complete(report)
        assert report.device.serial == device.serial
        assert report.before == {"battery_percent": 87, "battery_degrees": 27.1, "thermal_status": 0}
        assert left(device) == []
    assert [report.device.name for report in reports] == ["tfq Phone", "tfq Other"]
    assert "SM1" in device_summary(reports[1], bench)
    assert reports[0].models[0].score == reports[1].models[0].score


@pytest.fixture(scope="module")
def detector() -> tuple[bytes, Samples]:
    """A .tflite that passes its inputs [1, 30, 4 + 3, 1] on as a YOLO's numbers, and inputs that find most objects."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.6, (40, 6, 2))
    sizes = rng.uniform(0.1, 0.4, (40, 6, 2))
    classes = rng.integers(0, 3, (40, 6))
    labels = np.concatenate([classes[..., None], corners, corners + sizes], axis=2).astype(np.float32)
    numbers = np.zeros((40, 30, 7), np.float32)
    numbers[:, :6, :4] = np.concatenate([corners + sizes / 2, sizes], axis=2) + rng.normal(0, 0.02, (40, 6, 4))
    np.put_along_axis(numbers[:, :6, 4:], classes[..., None], rng.uniform(0.3, 1, (40, 6, 1)), axis=2)
    numbers[:, 6:] = rng.uniform(0, 0.5, (40, 24, 7))  # objects that are not there

    module = tf.Module()
    signature = tf.TensorSpec([1, 30, 7, 1], tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": tf.squeeze(x, 3) * 1.0}, input_signature=[signature])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.f.get_concrete_function()], module)
    return converter.convert(), Samples({"x": numbers[..., None]}, np.arange(40), labels)


def test_a_detector_is_judged_by_its_boxes(
    phones: Any, adb_port: int, runner: pathlib.Path, detector: tuple[bytes, Samples], tmp_path: pathlib.Path
) -> None:
    """What the phone computed, decoded here, has the mAP that pycocotools' equal gives on this machine's outputs."""
    content, samples = detector
    (tmp_path / "detector.tflite").write_bytes(content)
    models = {"detector.tflite": tmp_path / "detector.tflite"}
    metric = find_metric("map", decoder="yolov8,score=0.05,nms=0.5")
    bench = prepare(models, samples, tmp_path / "work/job", settings=QUICK, metric=metric)
    (report,) = measured(bench, [phones()], runner, adb_port, tmp_path / "work")
    assert_complete(report, models=1)
    expected = evaluate({"detector.tflite": content}, samples, metric=metric, timing=None).models[0].score
    found = report.models[0].score
    assert found is not None
    assert expected is not None
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert 20 < found.value < 95  # neither nothing nor everything is found
    assert report.metric == "map"
    row = next(line for line in device_summary(report, bench).splitlines() if line.startswith("detector.tflite"))
    assert f"{found.value:.2f} %" in row


FAULTS = {
    "disconnected while it measures": (Disconnect(command=RUN, after_seconds=0.2), Disconnect("state", 0.1, times=3)),
    "restarted while it measures": (Reboot(command=f"{RUN} job.txt", after_seconds=0.7),),
    "runner killed": (Kill(command="state", after_seconds=0.1),),
    "a bit lost on the way": (Corrupt(times=2),),
    "connection lost in a push": (DropPush(after_bytes=1_000_000),),
}


ALWAYS = ("restarted while it measures", "a bit lost on the way")  # the others are asked of the parts, in test_adb


@pytest.mark.parametrize(
    "name", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.slow) for name in FAULTS]
)
def test_a_job_survives(
    name: str,
    phones: Any,
    adb_port: int,
    runner: pathlib.Path,
    two_models: Any,
    labelled: Samples,
    tmp_path: pathlib.Path,
) -> None:
    device = phones(*FAULTS[name])
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)
    (report,) = measured(bench, [device], runner, adb_port, tmp_path / "work")
    assert_complete(report)
    for fault in FAULTS[name]:
        assert (
            device.faults.strike(type(fault), command="state tfq_runner job.txt", pushed=1 << 40) is None
        )  # it struck
    assert left(device) == []


def test_a_full_phone_is_a_record_and_the_other_goes_on(
    phones: Any, adb_port: int, runner: pathlib.Path, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    full, other = phones(StorageFull(after_bytes=100_000)), phones()
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)
    reports = measured(bench, [full, other], runner, adb_port, tmp_path / "work")
    (failure,) = reports[0].failures
    assert (failure.model, failure.stage) == ("", "device")
    assert "free space on the device" in failure.error
    assert reports[0].models == ()
    text = device_summary(reports[0], bench)
    rows = [line.split() for line in text.splitlines() if ".tflite" in line]
    assert [(row[0], "failed:" in row) for row in rows] == [("float.tflite", True), ("int8.tflite", True)]
    assert failure.error in text
    assert left(full) == []
    assert_complete(reports[1])


def test_a_task_that_takes_the_phone_down_is_given_up(
    phones: Any, adb_port: int, runner: pathlib.Path, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    """A runner that Android kills whenever it comes to one task."""
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)
    deadly = bench.prepared["int8.tflite"].tasks[0].id
    device = phones()
    script = tmp_path / "deadly"
    script.write_text(
        f"""#!/bin/sh
        if grep -q '^task {deadly}$' "$1"; then
          sed '\\|^task {deadly}$|,$d' "$1" >before.txt
          {runner} before.txt "$2"
          kill -9 $$
        fi
        exec {runner} "$@"
        """
    )
    (report,) = measured(bench, [device], script, adb_port, tmp_path / "work")
    (failure,) = report.failures
    assert (failure.task, failure.stage, failure.model) == (deadly, "device", "int8.tflite")
    assert "given up after 3 tries" in failure.error
    assert report.models[0].score is not None
    assert all(model.timings[0].latency for model in report.models)
    assert any("was stopped after 1 of" in note for note in report.warnings)


def test_a_phone_that_stays_away_is_a_record_and_the_same_job_goes_on_later(
    phones: Any, adb_port: int, runner: pathlib.Path, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    device = phones(Reboot(command="results.jsonl", after_seconds=0.5), reboot_seconds=9)
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)
    (report,) = measured(bench, [device], runner, adb_port, tmp_path / "one", patience=3)
    (failure,) = report.failures
    assert "the same command continues where it stopped" in failure.error
    assert len(left(device)) == 1
    (report,) = measured(bench, [device], runner, adb_port, tmp_path / "two")
    assert_complete(report)
    assert left(device) == []


@pytest.mark.slow
def test_kept_files_are_used_again_and_results_are_not(
    phones: Any, adb_port: int, runner: pathlib.Path, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    device = phones()
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)
    (one,) = measured(bench, [device], runner, adb_port, tmp_path / "one", keep=True)
    (folder,) = left(device)
    library = device.host_path(f"{ROOT}/{folder}/lib/libLiteRt.so")
    before = library.stat().st_mtime_ns
    (two,) = measured(bench, [device], runner, adb_port, tmp_path / "two", keep=True)
    assert left(device) == [folder]
    assert library.stat().st_mtime_ns == before
    first, second = (report.models[0].timings[0].latency for report in (one, two))
    assert first is not None
    assert second is not None
    assert first.rounds_us != second.rounds_us


def test_an_emulated_phone_gets_no_timings(
    phones: Any, adb_port: int, runner: pathlib.Path, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    settings = Settings(rounds=1, seconds=0, warmup_seconds=0, min_runs=20, profile_ops=True)
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=settings)
    (report,) = measured(bench, [phones(properties={})], runner, adb_port, tmp_path / "work")
    assert report.failures == ()
    assert report.device.emulated
    assert [model.timings[0].latency for model in report.models] == [None, None]
    assert [model.profiles[0].ops for model in report.models] == [(), ()]
    assert all(model.against_host[0].exact for model in report.models)
    data = report.to_json()
    assert not re.search(r'_us"|_ms"|mean_us', data)
    text = device_summary(report, bench)
    assert sum("emulated" in line for line in text.splitlines() if ".tflite" in line) == 2
    assert "its timings mean nothing and are left out" in text


@pytest.mark.parametrize(
    ("properties", "emulated"),
    [
        ({"ro.build.fingerprint": "google/shiba/shiba:14/UQ1A/1:user/release-keys", "ro.hardware": "shiba"}, False),
        ({"ro.build.fingerprint": "google/sdk_gphone64_arm64/emu64a:14/U/1:userdebug/dev-keys"}, True),
        ({"ro.build.fingerprint": "generic_x86/sdk/generic:10/Q/1:eng/test-keys"}, True),
        ({"ro.hardware": "ranchu"}, True),
        ({"ro.kernel.qemu": "1"}, True),
    ],
)
def test_emulators_are_known_by_their_properties(properties: dict[str, str], emulated: bool) -> None:
    assert bool(emulation(properties)) == emulated


@pytest.mark.slow
def test_a_hundred_models_in_one_job(
    phones: Any, adb_port: int, runner: pathlib.Path, autoencoder: Any, tmp_path: pathlib.Path
) -> None:
    paths = {}
    for number in range(100):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(autoencoder[2 + number % 2])
        paths[path.name] = path
    samples = Samples({"signal": autoencoder[1]}, np.arange(80))
    settings = Settings(rounds=1, seconds=0, warmup_seconds=0, min_runs=20, max_runs=20)
    bench = prepare(paths, samples, tmp_path / "work/job", settings=settings, metric="mse")
    assert len(list((tmp_path / "work/job/inputs").iterdir())) == 2
    (report,) = measured(bench, [phones()], runner, adb_port, tmp_path / "work")
    assert_complete(report, models=100)


def command(folder: pathlib.Path, port: int, serial: str, *arguments: str, **options: Any) -> Any:
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(port)}
    line = [sys.executable, "-m", "tfq_tools.bench", "--device=adb", f"--serials={serial}"]
    line += ["--models=float.tflite,int8.tflite", "--evaluation_data=test.npz", *arguments]
    return subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def data(two_models: Any, labelled: Samples) -> pathlib.Path:
    folder = two_models["float.tflite"].parent
    np.savez(folder / "test.npz", x=labelled.arrays["image"], y=labelled.labels)
    return folder


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_command_that_was_stopped_and_is_started_again_finishes_the_job(
    number: signal.Signals, phones: Any, adb_port: int, runner: pathlib.Path, data: pathlib.Path
) -> None:
    device = phones()
    arguments = (f"--runner={runner}", "--rounds=2", "--seconds=1", "--warmup_seconds=0", "--max_runs=100000")
    first = command(data, adb_port, device.serial, *arguments, start_new_session=True)

    def records() -> list[dict[str, Any]]:
        found = list(device.host_path(ROOT).glob("*/results.jsonl"))
        return [json.loads(line) for line in found[0].read_text().split("\n")[:-1]] if found else []

    end = time.monotonic() + 60
    while len(records()) < 4:  # the machine's, both outputs, one latency
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(first.pid, number)
    _, message = first.communicate(timeout=60)
    if number == signal.SIGINT:
        assert first.returncode == 130
        assert "run the same command again for their results" in message
    before = next(r for r in records() if r.get("mode") == "latency")["result"]["latencies_us"]
    assert not (data / "out/bench").exists()
    second = command(data, adb_port, device.serial, *arguments)
    _, message = second.communicate(timeout=120)
    assert second.returncode == 0, message
    name = re.sub(r"[^\w.-]", "_", device.serial)
    found = json.loads((data / f"out/bench/{name}.json").read_text())
    assert found["models"][0]["timings"][0]["latency"]["rounds_us"][0] == before
    assert found["failures"] == []
    assert left(device) == []
    assert sorted(path.name for path in (data / "out").iterdir()) == ["bench"]


def test_a_serial_that_is_nowhere_is_told_at_once(adb_port: int, data: pathlib.Path, phones: Any) -> None:
    phones()
    _, message = (away := command(data, adb_port, "nowhere")).communicate(timeout=60)
    assert away.returncode == 2
    assert "--serials names 'nowhere'; adb lists" in message


def test_an_address_where_nothing_listens_is_a_record(
    adb_port: int, data: pathlib.Path, phones: Any, runner: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfq_bench.android_device._FIRST_PATIENCE", 1.0)
    device = phones()
    serial = device.serial
    device.__exit__(None, None, None)
    names = {name: data / name for name in ("float.tflite", "int8.tflite")}
    with np.load(data / "test.npz") as stored:
        samples = Samples({"image": stored["x"]}, np.arange(120), stored["y"])
    bench = prepare(names, samples, data / "work/job", settings=QUICK)
    (report,) = measured(bench, [device], runner, adb_port, data / "work")
    (failure,) = report.failures
    assert failure.error.startswith(f"device {serial}: connect: ")
    assert failure.stage == "device"


def test_arm64_under_qemu_computes_what_this_host_does(
    phones: Any,
    adb_port: int,
    tmp_path_factory: pytest.TempPathFactory,
    two_models: Any,
    labelled: Samples,
    tmp_path: pathlib.Path,
) -> None:
    if lacking := arm.missing():
        pytest.skip(f"an arm64 test device needs {lacking}")
    if "TFQ_TEST_LIBRARY_ARM64_LINUX" not in os.environ:
        pytest.skip("set TFQ_TEST_LIBRARY_ARM64_LINUX to libLiteRt.so of the aarch64 wheel of ai-edge-litert")
    library = pathlib.Path(os.environ["TFQ_TEST_LIBRARY_ARM64_LINUX"])
    target = Target("arm64-v8a", "linux")
    assert elf_target(library) == target
    runner = built_runner(tmp_path_factory, target)
    device = phones(abi="arm64-v8a")
    bench = prepare(two_models, labelled.head(20), tmp_path / "work/job", settings=QUICK)
    adb = Adb(device.serial, server_port=adb_port)

    def run(job: Any, own: pathlib.Path) -> Any:
        return run_on_android(adb, job, own, find=lambda found: Programs(found, runner, library))

    (report,) = run_bench(bench, {device.serial: (describe(device.serial, {}, None), run)}, tmp_path / "work")
    assert report.failures == ()
    assert report.machine["abi"] == "arm64-v8a"
    assert report.device.emulated == "the runner's processor is emulated"
    assert report.models[1].against_host[0].exact
    assert not report.models[0].outputs_differ
    assert all(model.timings[0].latency is None for model in report.models)


def test_a_phone_without_programs_for_it_is_a_record(
    phones: Any, adb_port: int, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    device = phones(properties={**PHONE, "ro.product.cpu.abilist": "mips,armeabi-v7a"})
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)

    def find(target: Target) -> Programs:
        raise UserError(f"nothing for {target}")

    adb = Adb(device.serial, server_port=adb_port)
    run = (describe(device.serial, {}, None), lambda job, own: run_on_android(adb, job, own, find=find))
    (report,) = run_bench(bench, {device.serial: run}, tmp_path / "work")
    assert "nothing for armeabi-v7a Linux" in report.failures[0].error
    assert left(device) == []


def test_outputs_on_the_phone_are_those_of_the_interpreter_byte_for_byte(
    phones: Any, adb_port: int, runner: pathlib.Path, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)
    found = run_on_android(
        Adb(phones().serial, server_port=adb_port),
        bench.job,
        tmp_path,
        find=lambda target: Programs(target, runner, wheel_library()),
    )
    for model in bench.prepared.values():
        ((_, outputs),) = read_tensors(found.outputs[model.tasks[0].outputs])
        assert outputs.tobytes() == model.reference[0].tobytes()


@pytest.mark.slow
def test_a_runner_that_does_not_start_is_told(
    phones: Any, adb_port: int, two_models: Any, labelled: Samples, tmp_path: pathlib.Path
) -> None:
    bench = prepare(two_models, labelled, tmp_path / "work/job", settings=QUICK)
    for name, text, message in (
        ("a", "#!/bin/sh\nkill -9 $$\n", r"does not even start: exit code 137 \(signal 9\)"),
        ("b", "#!/no/such/shell\n", "exit code 127: .*not found"),
        ("c", "#!/bin/sh\necho 'line 3: unknown key' >&2; exit 2", "exit code 2: line 3: unknown key"),
    ):
        (tmp_path / name).write_text(text)
        device = phones()
        (report,) = measured(bench, [device], tmp_path / name, adb_port, tmp_path / f"work{name}")
        (failure,) = report.failures
        assert re.search(message, failure.error), failure.error
        assert left(device) == []


def test_a_large_evaluation_set(phones: Any, adb_port: int, runner: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """More than 50 MB, over a connection that is lost in the middle of it."""
    import tensorflow as tf
    import tf_keras

    layers = [tf_keras.Input((200, 200, 3), name="image"), tf_keras.layers.GlobalAveragePooling2D()]
    converter = tf.lite.TFLiteConverter.from_keras_model(tf_keras.Sequential(layers))
    (tmp_path / "mean.tflite").write_bytes(converter.convert())
    images = np.random.default_rng(0).normal(size=(110, 200, 200, 3)).astype(np.float32)
    assert images.nbytes > 50e6
    bench = prepare(
        {"mean": tmp_path / "mean.tflite"},
        Samples({"image": images}, np.arange(110)),
        tmp_path / "work/job",
        settings=QUICK,
        metric="mse",
    )
    (container,) = (tmp_path / "work/job/inputs").iterdir()
    ((_, packed),) = read_tensors(container)
    assert np.array_equal(packed[:, 0], images)
    device = phones(DropPush(after_bytes=30_000_000))
    (report,) = measured(bench, [device], runner, adb_port, tmp_path / "work")
    assert_complete(report, models=1)
