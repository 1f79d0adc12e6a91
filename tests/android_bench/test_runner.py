"""tfq_runner, built by CMake, with the real runtime on real models, against the Python interpreter."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import math
import os
import pathlib
import platform
import resource
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tfq.execution.interpreter import TfliteModel

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "android_bench/runner"
CODES = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "int16": 7, "int8": 9}
QUICK = "warmup_s=0\nmin_runs=1\nmax_runs=5\nmin_seconds=0\n"


def write_tensors(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> pathlib.Path:
    """A container of arrays [n, *shape of one sample, batch axis included], as FORMAT.md describes it."""

    def header(offsets: Sequence[int]) -> bytes:
        parts = [b"TFQT", struct.pack("<IQI", 1, len(next(iter(arrays.values()))), len(arrays))]
        for (name, array), offset in zip(arrays.items(), offsets, strict=True):
            dims = array.shape[1:]
            parts.append(struct.pack("<I", len(name.encode())) + name.encode())
            parts.append(struct.pack(f"<iI{len(dims)}iQ", CODES[str(array.dtype)], len(dims), *dims, offset))
        return b"".join(parts)

    offsets, end = [], len(header([0] * len(arrays)))
    for array in arrays.values():
        offsets.append(-(-end // 64) * 64)
        end = offsets[-1] + array.nbytes
    content = bytearray(header(offsets))
    for array, offset in zip(arrays.values(), offsets, strict=True):
        content += bytes(offset - len(content)) + array.tobytes()
    path.write_bytes(content)
    return path


def read_tensors(path: pathlib.Path) -> list[np.ndarray]:
    content = path.read_bytes()
    assert content[:4] == b"TFQT"
    version, samples, count = struct.unpack_from("<IQI", content, 4)
    assert version == 1
    at, arrays, end = 20, [], 0
    types = {code: name for name, code in CODES.items()}
    for _ in range(count):
        at += 4 + struct.unpack_from("<I", content, at)[0]
        code, rank = struct.unpack_from("<iI", content, at)
        dims = struct.unpack_from(f"<{rank}i", content, at + 8)
        (offset,) = struct.unpack_from("<Q", content, at + 8 + 4 * rank)
        at += 16 + 4 * rank
        array = np.frombuffer(content, types[code], samples * math.prod(dims), offset).reshape(samples, *dims)
        assert offset % 64 == 0
        arrays.append(array)
        end = offset + array.nbytes
    assert end == len(content)
    return arrays


@contextlib.contextmanager
def one_at_a_time(folder: pathlib.Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(folder: pathlib.Path, *targets: str, **options: str) -> pathlib.Path:
    """Configures and builds once for all workers of pytest."""
    for tool in ("cmake", "make", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install cmake make g++)")
    with one_at_a_time(folder):
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        for command in (
            ["cmake", "-G", "Unix Makefiles", "-S", SOURCE, "-B", folder, *definitions],
            ["cmake", "--build", folder, "--target", *targets],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder for builds that all workers of this session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def runner(builds: pathlib.Path) -> pathlib.Path:
    return build(builds / "runner", "tfq_runner", "runner_test") / "tfq_runner"


@pytest.fixture(scope="session")
def library() -> pathlib.Path:
    found = importlib.util.find_spec("ai_edge_litert")
    assert found is not None
    assert found.origin is not None
    return pathlib.Path(found.origin).parent / "libLiteRt.so"


@pytest.fixture
def work(tmp_path: pathlib.Path, runner: pathlib.Path, library: pathlib.Path) -> Work:
    return Work(tmp_path, runner, library)


class Work:
    """A folder with a job, and what the runner makes of it."""

    def __init__(self, folder: pathlib.Path, runner: pathlib.Path, library: pathlib.Path):
        self.folder, self.runner, self.library = folder, runner, library
        self.results = folder / "results.jsonl"
        self.tasks: list[str] = []

    def model(self, content: bytes, name: str = "model.tflite") -> pathlib.Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def inputs(self, arrays: Mapping[str, np.ndarray], name: str = "in.tensors") -> pathlib.Path:
        return write_tensors(self.folder / name, arrays)

    def add(self, task: str, **keys: Any) -> None:
        keys = {"model": self.folder / "model.tflite", "inputs": self.folder / "in.tensors", **keys}
        self.tasks.append(f"task {task}\n" + "".join(f"{key}={value}\n" for key, value in keys.items()))

    def start(self, *command: str | pathlib.Path, **options: Any) -> subprocess.Popen[str]:
        job = self.folder / "job.txt"
        job.write_text(f"tfq-job 1\nlibrary={self.library}\n" + "".join(self.tasks))
        arguments = [*command, self.runner, job, self.results]
        return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, **options)

    def run(self, *command: str | pathlib.Path, status: int = 0, **options: Any) -> dict[str, dict[str, Any]]:
        """Records by name of the task; the machine's under "machine"."""
        process = self.start(*command, **options)
        _, self.message = process.communicate(timeout=300)
        assert process.returncode == status, self.message
        return self.records()

    def records(self) -> dict[str, dict[str, Any]]:
        if not self.results.is_file():
            return {}
        text = self.results.read_text()
        lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # a torn last line is none
        tasks = [line for line in lines if line["kind"] == "task"]
        assert len({task["id"] for task in tasks}) == len(tasks)
        machine = next((line for line in lines if line["kind"] == "machine"), {})
        return {"machine": machine} | {task["id"]: task for task in tasks}


def expected_outputs(content: bytes, arrays: Mapping[str, np.ndarray], **options: Any) -> list[np.ndarray]:
    model = TfliteModel(content, **options)
    count = len(next(iter(arrays.values())))
    runs = [model.run_raw({name: array[i] for name, array in arrays.items()}) for i in range(count)]
    return [np.stack(outputs) for outputs in zip(*runs, strict=True)]


def raw_inputs(content: bytes, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random elements for every input: the whole range of int8, indices below 5, normal floats."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for info in TfliteModel(content).inputs:
        shape = (count, *(1 if size == -1 else size for size in info.shape))
        if info.dtype.kind == "f":
            arrays[info.name] = generator.normal(size=shape).astype(info.dtype)
        else:
            low, high = (-128, 128) if info.dtype == np.int8 else (0, 5)
            arrays[info.name] = generator.integers(low, high, shape).astype(info.dtype)
    return arrays


def digest(arrays: Sequence[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def assert_same_bytes(got: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    assert [a.shape for a in got] == [b.shape for b in expected]
    assert [a.dtype for a in got] == [b.dtype for b in expected]
    assert [a.tobytes() for a in got] == [b.tobytes() for b in expected]


def test_unit_tests_of_the_runner(runner: pathlib.Path, tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["ctest", "--output-on-failure"],
        cwd=runner.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in done.stdout


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
@pytest.mark.parametrize("which", [2, 3], ids=["float", "int8"])
def test_outputs_are_those_of_the_python_interpreter(work: Work, classifier: Any, which: int, kernels: str) -> None:
    content = classifier[which]
    arrays = raw_inputs(content, 7)
    model = work.model(content)
    work.inputs(arrays)
    work.add("o", mode="outputs", outputs=work.folder / "out.tensors", kernels=kernels)
    records = work.run()
    assert records["o"]["status"] == "ok", records["o"]
    outputs = read_tensors(work.folder / "out.tensors")
    assert_same_bytes(outputs, expected_outputs(content, arrays, delegate=kernels == "xnnpack"))
    result = records["o"]["result"]
    assert result["outputs_sha256"] == digest(outputs)
    assert result["output_sha256"] == digest([array[0] for array in outputs])
    assert result["model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert result["samples"] == 7


def test_several_inputs_are_bound_by_name_and_outputs_keep_the_order_of_the_graph(work: Work, two_inputs: Any) -> None:
    arrays = raw_inputs(two_inputs[1], 5)
    work.model(two_inputs[1])
    work.inputs(dict(sorted(arrays.items())), "sorted.tensors")
    work.inputs(dict(sorted(arrays.items(), reverse=True)), "reversed.tensors")
    for name in ("sorted", "reversed"):
        work.add(name, mode="outputs", inputs=work.folder / f"{name}.tensors", outputs=work.folder / f"{name}.out")
    records = work.run()
    assert [records[name]["status"] for name in ("sorted", "reversed")] == ["ok", "ok"]
    for name in ("sorted", "reversed"):
        assert_same_bytes(read_tensors(work.folder / f"{name}.out"), expected_outputs(two_inputs[1], arrays))


def test_unknown_names_are_bound_by_order(work: Work, two_inputs: Any) -> None:
    arrays = raw_inputs(two_inputs[1], 3)
    work.model(two_inputs[1])
    work.inputs({f"other {i}": array for i, array in enumerate(arrays.values())})
    work.add("o", mode="outputs", outputs=work.folder / "out.tensors")
    assert work.run()["o"]["status"] == "ok"
    assert_same_bytes(read_tensors(work.folder / "out.tensors"), expected_outputs(two_inputs[1], arrays))


def test_a_fixed_batch_is_one_sample(work: Work, three_at_a_time: bytes) -> None:
    arrays = raw_inputs(three_at_a_time, 4)
    work.model(three_at_a_time)
    work.inputs(arrays)
    work.add("o", mode="outputs", outputs=work.folder / "out.tensors")
    assert work.run()["o"]["status"] == "ok"
    assert_same_bytes(read_tensors(work.folder / "out.tensors"), expected_outputs(three_at_a_time, arrays))


def test_resetting_the_state_changes_nothing_without_one(work: Work, classifier: Any) -> None:
    arrays = raw_inputs(classifier[3], 4)
    work.model(classifier[3])
    work.inputs(arrays)
    work.add("o", mode="outputs", outputs=work.folder / "out.tensors", reset_state=1)
    assert work.run()["o"]["status"] == "ok"
    assert_same_bytes(read_tensors(work.folder / "out.tensors"), expected_outputs(classifier[3], arrays))


def test_litert_takes_no_variable_tensors_and_the_record_says_so(work: Work, lstm: Any) -> None:
    work.model(lstm[1])
    work.inputs(raw_inputs(lstm[1], 1))
    work.add("o", mode="outputs", outputs=work.folder / "out.tensors")
    record = work.run()["o"]
    assert (record["status"], record["stage"]) == ("error", "load")
    assert "Variable tensors not yet supported" in record["error"]


@pytest.fixture
def int8_convolution(classifier: Any) -> bytes:
    """The classifier's convolution alone: old runtimes run dense layers with a scale per channel wrongly."""
    import tensorflow as tf
    import tf_keras

    model, images = classifier[:2]
    converter = tf.lite.TFLiteConverter.from_keras_model(tf_keras.Model(model.input, model.layers[0].output))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def test_classic_c_api(work: Work, classifier: Any, int8_convolution: bytes, lstm: Any, two_inputs: Any) -> None:
    """Outputs of another version's kernels: close, not the same bytes."""
    if "TFLITE_C_LIBRARY" not in os.environ:
        pytest.skip("set TFLITE_C_LIBRARY to a libtensorflowlite_c.so for this machine to test the classic C API")
    work.library = pathlib.Path(os.environ["TFLITE_C_LIBRARY"])
    contents = {"float": classifier[2], "int8": int8_convolution, "lstm": lstm[1], "two": two_inputs[1]}
    arrays = {name: raw_inputs(content, 4) for name, content in contents.items()}
    for name, content in contents.items():
        files = {"model": work.model(content, f"{name}.tflite"), "inputs": work.inputs(arrays[name], f"{name}.tensors")}
        for kernels in ("xnnpack", "builtin"):
            keys = {"outputs": work.folder / f"{name}.{kernels}", "kernels": kernels, "reset_state": 1}
            work.add(f"{name}/{kernels}", mode="outputs", **keys, **files)
    work.add(
        "kept",
        mode="outputs",
        outputs=work.folder / "kept",
        model=work.folder / "lstm.tflite",
        inputs=files["inputs"].with_name("lstm.tensors"),
    )
    quick = dict(line.split("=") for line in QUICK.split())
    work.add("latency", mode="latency", **quick, **files)
    work.add("profile", mode="profile", **quick, **files)
    records = work.run()
    assert records["machine"]["runtime"]["name"] == "tflite"
    for name, content in contents.items():
        for kernels in ("xnnpack", "builtin"):
            assert records[f"{name}/{kernels}"]["status"] == "ok", records[f"{name}/{kernels}"]
            got = read_tensors(work.folder / f"{name}.{kernels}")
            for one, other in zip(got, expected_outputs(content, arrays[name]), strict=True):
                assert one.dtype == other.dtype
                if one.dtype == np.int8:
                    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
                else:
                    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    fresh, kept = read_tensors(work.folder / "lstm.builtin")[0], read_tensors(work.folder / "kept")[0]
    assert fresh[0].tobytes() == kept[0].tobytes() or np.allclose(fresh[0], kept[0], atol=1e-6)
    assert not np.allclose(fresh[1], kept[1], atol=1e-3)
    assert records["latency"]["result"]["runs"] == 1
    assert records["profile"]["status"] == "error"
    assert "no profiler" in records["profile"]["error"]


def test_latency_record(work: Work, classifier: Any) -> None:
    content = classifier[3]
    arrays = raw_inputs(content, 3)
    work.model(content)
    work.inputs(arrays)
    processor = max(os.sched_getaffinity(0))
    keys = {"warmup_s": 0.05, "min_runs": 400, "max_runs": 500, "min_seconds": 60, "threads": 2}
    work.add("l", mode="latency", cpu_mask=f"{1 << processor:x}", **keys)
    records = work.run()
    assert records["l"]["status"] == "ok", records["l"]
    assert records["l"]["task"] | keys == records["l"]["task"]
    result = records["l"]["result"]
    values = result["latencies_us"]
    ordered = sorted(values)
    assert result["runs"] == len(values) == 500
    assert min(values) > 0
    figures = result["latency_us"]
    for name, rank in (("p50", 250), ("p90", 450), ("p99", 495)):
        assert figures[name]["value"] == ordered[rank - 1]
        assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]
    assert figures["mean"] == pytest.approx(np.mean(values), abs=0.01)
    assert (figures["min"], figures["max"]) == (ordered[0], ordered[-1])
    assert figures["drift"] == pytest.approx(sorted(values[-50:])[24] / sorted(values[:50])[24], abs=1e-4)
    assert result["timed_s"] * 1e6 > sum(values)
    assert result["warmup_runs"] > 0
    assert result["samples_cycled"] == 3
    assert result["cpu_mask"] == result["cpu_mask_asked"] == f"{1 << processor:x}"
    assert min(result[key] for key in ("open_library_ms", "load_ms", "prepare_ms", "first_run_us")) > 0
    memory = result["memory"]
    assert memory["before"]["peak_kb"] < memory["library_opened"]["peak_kb"] < memory["after"]["peak_kb"]
    assert memory["after"]["pss_kb"] <= memory["after"]["peak_kb"]
    assert set(result["device_before"]["frequencies_khz"]) == {str(processor)}
    assert result["output_sha256"] == digest([array[0] for array in expected_outputs(content, arrays)])


def test_machine_record(work: Work, classifier: Any) -> None:
    work.model(classifier[2])
    work.inputs(raw_inputs(classifier[2], 1))
    work.add("l", mode="latency", **dict(line.split("=") for line in QUICK.split()))
    machine = work.run()["machine"]
    assert work.results.read_text().startswith('{"kind":"machine"')
    assert machine["library_sha256"] == hashlib.sha256(work.library.read_bytes()).hexdigest()
    assert machine["runner_sha256"] == hashlib.sha256(work.runner.read_bytes()).hexdigest()
    assert machine["runtime"] == {"name": "litert", "version": "2.3 or later"}
    assert machine["runtime_error"] is None
    assert machine["abi"] == {"x86_64": "x86_64", "aarch64": "arm64-v8a"}[platform.machine()]
    assert (machine["uname"]["machine"], machine["uname"]["release"]) == (platform.machine(), platform.release())
    assert machine["cpu_count"] >= len(os.sched_getaffinity(0))
    assert int(machine["cpu_mask"], 16) == sum(1 << i for i in os.sched_getaffinity(0))
    assert machine["page_bytes"] == resource.getpagesize()
    assert machine["emulated"] is False
    assert machine["android"] is None


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_profile_lists_every_operator(work: Work, classifier: Any, kernels: str) -> None:
    content = classifier[3]
    work.model(content)
    work.inputs(raw_inputs(content, 2))
    work.add("p", mode="profile", kernels=kernels, warmup_s=0, min_runs=20, max_runs=20)
    record = work.run()["p"]
    assert record["status"] == "ok", record
    result = record["result"]
    assert result["plain_ops"] + result["delegated_ops"] == result["model_ops"]
    assert [op["index"] for op in result["ops"]] == list(range(len(result["ops"])))
    assert {op["runs"] for op in result["ops"]} == {20}
    plain = [op for op in result["ops"] if not op["delegated"]]
    assert len(plain) == result["plain_ops"]
    if kernels == "builtin":
        assert [op["type"] for op in plain] == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
        assert [op["node"] for op in plain] == [0, 1, 2, 3]
        tensors = {info.name for info in TfliteModel(content).all_tensors}
        assert {op["name"] for op in plain} <= tensors
        assert result["delegated_ops"] == 0
    else:
        assert result["delegated_ops"] > 0
        assert any(op["type"].startswith("Convolution") for op in result["ops"] if op["delegated"])


def test_a_model_cut_off_anywhere_is_a_record(work: Work, classifier: Any) -> None:
    content = classifier[2]
    work.inputs(raw_inputs(content, 1))
    lengths = [4, 8, 64, len(content) // 4, len(content) // 2, len(content) - 8]
    for length in lengths:
        work.model(content[:length], f"{length}.tflite")
        work.add(f"{length}", mode="outputs", outputs=work.folder / "out", model=work.folder / f"{length}.tflite")
    work.model(content)
    work.add("whole", mode="outputs", outputs=work.folder / "whole.out", deadline_s=60)
    records = work.run()
    for length in lengths:
        record = records[str(length)]
        assert record["status"] in ("error", "signal"), record
        assert record["result"] is None
        assert record["stage"] in ("load", "prepare")
        assert (record["signal"] is not None) == (record["status"] == "signal")
        assert record["error"]
    assert records["whole"]["status"] == "ok"


def test_what_is_wrong_with_model_and_inputs_is_told(
    work: Work, classifier: Any, needs_tensorflow: bytes, two_inputs: Any
) -> None:
    arrays = raw_inputs(classifier[3], 2)
    work.model(classifier[3])
    work.inputs(arrays)
    work.model(needs_tensorflow, "inverse.tflite")
    work.inputs({"x": np.ones((1, 2, 2), np.float32)}, "inverse.tensors")
    work.model(two_inputs[1], "two.tflite")
    work.inputs({"image": arrays["image"][:, :, :-1]}, "small.tensors")
    work.inputs({"image": arrays["image"].astype(np.float32)}, "float.tensors")
    (work.folder / "torn.tensors").write_bytes((work.folder / "in.tensors").read_bytes()[:-1])
    (work.folder / "text.tensors").write_text("no tensors")
    wrong = {
        "inverse": ({"model": "inverse.tflite", "inputs": "inverse.tensors"}, "prepare", ["FlexMatrixInverse"]),
        "none": ({"model": "none.tflite"}, "inputs", ["cannot open", "none.tflite"]),
        "noinputs": ({"inputs": "none.tensors"}, "inputs", ["cannot open", "none.tensors"]),
        "small": ({"inputs": "small.tensors"}, "prepare", ["int8 [1, 8, 8, 1], 64 bytes", "56 bytes"]),
        "float": ({"inputs": "float.tensors"}, "prepare", ["int8 [1, 8, 8, 1]", "float32 [1, 8, 8, 1], 256 bytes"]),
        "torn": ({"inputs": "torn.tensors"}, "inputs", ["torn.tensors", "cut off"]),
        "text": ({"inputs": "text.tensors"}, "inputs", ["text.tensors", "TFQT"]),
        "count": ({"model": "two.tflite"}, "prepare", ["1 tensors", "2 inputs"]),
        "folder": ({"outputs": "none/out.tensors"}, "outputs", ["cannot write", "none/out.tensors"]),
        "mask": ({"cpu_mask": "1" + "0" * 200}, "inputs", ["cpu_mask"]),
        "delegate": ({"delegate": "in.tensors"}, "prepare", ["in.tensors", "no ELF library"]),
    }
    for name, (keys, _, _) in wrong.items():
        paths = {k: v if k == "cpu_mask" else work.folder / v for k, v in keys.items()}
        work.add(name, mode="outputs", **{"outputs": work.folder / "out.tensors", **paths})
    records = work.run()
    for name, (_, stage, parts) in wrong.items():
        record = records[name]
        assert (record["status"], record["stage"], record["result"]) == ("error", stage, None), record
        for part in parts:
            assert part in record["error"]
        assert "\n" not in record["error"]
    assert not list(work.folder.glob("out.tensors*"))


def compile_library(folder: pathlib.Path, source: str) -> pathlib.Path:
    code, made = folder / "library.cc", folder / "library.so"
    code.write_text(source)
    subprocess.run(["c++", "-shared", "-fPIC", "-o", made, code], check=True, capture_output=True)
    return made


def test_libraries_that_are_no_runtime(work: Work, classifier: Any) -> None:
    work.model(classifier[2])
    work.inputs(raw_inputs(classifier[2], 1))
    work.add("o", mode="outputs", outputs=work.folder / "out.tensors", deadline_s=1)
    real = work.library.read_bytes()
    other = bytearray(real)
    other[18:20] = struct.pack("<H", 183 if platform.machine() == "x86_64" else 62)
    made = {name: work.folder / f"{name}.so" for name in ("missing", "other", "truncated", "text")}
    made["other"].write_bytes(other)
    made["truncated"].write_bytes(real[: len(real) // 2])
    made["text"].write_text("this is no library at all")
    abi = {"x86_64": "arm64-v8a", "aarch64": "x86_64"}[platform.machine()]
    cases = {
        "missing": ("error", ["cannot open the library", "No such file"]),
        "other": ("error", [f"is a library for {abi}", "this runner is for"]),
        "text": ("error", ["no ELF library"]),
    }
    sources = {
        "empty": ("int nothing;", ("error", ["neither LiteRT", "TfLiteInterpreterCreate"])),
        "old": ('extern "C" int LiteRtCreateEnvironment() { return 1; }', ("error", ["before 2.2", "2.2 and 2.3"])),
        "half": ('extern "C" int TfLiteInterpreterCreate() { return 1; }', ("error", ["has no symbol TfLite"])),
        "aborts": (
            "#include <stdlib.h>\n__attribute__((constructor)) void f() { abort(); }",
            ("signal", [f"signal {signal.SIGABRT.value}"]),
        ),
        "exits": ("#include <unistd.h>\n__attribute__((constructor)) void f() { _exit(5); }", ("exit", ["status 5"])),
        "hangs": (
            "#include <unistd.h>\n__attribute__((constructor)) void f() { for (;;) pause(); }",
            ("timeout", ["after 1 s"]),
        ),
    }
    for name, (source, expected) in sources.items():
        folder = work.folder / name
        folder.mkdir()
        made[name] = compile_library(folder, source)
        cases[name] = expected
    for name, (status, parts) in cases.items():
        work.library, work.results = made[name], work.folder / f"{name}.jsonl"
        records = work.run()
        assert (records["o"]["status"], records["o"]["stage"]) == (status, "open_library"), records["o"]
        assert records["machine"]["runtime"] is None
        for part in parts:
            assert part in records["o"]["error"]
            assert part in records["machine"]["runtime_error"]
    # A library cut in half may map pages behind its end: whatever happens, it is a record.
    work.library, work.results = made["truncated"], work.folder / "truncated.jsonl"
    assert work.run()["o"]["status"] in ("error", "signal")


def test_a_task_past_its_deadline_is_killed(work: Work, classifier: Any) -> None:
    work.model(classifier[2])
    work.inputs(raw_inputs(classifier[2], 1))
    work.add("slow", mode="latency", warmup_s=0, min_runs=1, max_runs=1000000, min_seconds=3600, deadline_s=0.7)
    work.add("next", mode="outputs", outputs=work.folder / "out.tensors")
    records = work.run()
    assert (records["slow"]["status"], records["slow"]["stage"]) == ("timeout", "timed")
    assert records["slow"]["wall_s"] >= 0.7
    assert "0.7 s" in records["slow"]["error"]
    assert records["next"]["status"] == "ok"


def until(condition: Any, *, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def children(process: subprocess.Popen[str]) -> list[int]:
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in path.read_text().split()]


def lives(process: int) -> bool:
    try:
        return " Z " not in pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_a_killed_runner_leaves_no_child_and_its_job_is_finished_later(work: Work, classifier: Any) -> None:
    work.model(classifier[2])
    work.inputs(raw_inputs(classifier[2], 1))
    for i in range(6):
        work.add(f"t{i}", mode="latency", warmup_s=0.2, min_runs=10, max_runs=10)
    process = work.start()
    until(lambda: work.results.exists() and work.results.read_text().count('"kind":"task"') >= 2)
    until(lambda: children(process))
    (child,) = children(process)
    process.kill()
    process.wait()
    until(lambda: not lives(child))
    before = work.records()
    assert 2 <= len(before) - 1 < 6
    with work.results.open("a") as results:
        results.write('{"kind":"task","id":"t5","mode":"lat')
    after = work.run()
    assert {name for name in after if name != "machine"} == {f"t{i}" for i in range(6)}
    assert all(after[f"t{i}"]["status"] == "ok" for i in range(6))
    assert {name: after[name] for name in before} == before
    assert work.results.read_text().count('"kind":"machine"') == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_runner_and_its_child(work: Work, classifier: Any, number: signal.Signals) -> None:
    work.model(classifier[2])
    work.inputs(raw_inputs(classifier[2], 1))
    work.add("slow", mode="latency", warmup_s=3600, deadline_s=7200)
    process = work.start()
    until(lambda: work.results.exists() and '"kind":"machine"' in work.results.read_text())
    until(lambda: children(process))
    (child,) = children(process)
    process.send_signal(number)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"signal {number.value}" in message
    assert not lives(child)
    assert set(work.records()) == {"machine"}


def test_a_hangup_that_is_ignored_from_the_start_stops_nothing(work: Work, classifier: Any) -> None:
    work.model(classifier[2])
    work.inputs(raw_inputs(classifier[2], 1))
    work.add("l", mode="latency", warmup_s=0.5, min_runs=1, min_seconds=0)
    process = work.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    until(lambda: work.results.exists() and '"kind":"machine"' in work.results.read_text())
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert work.records()["l"]["status"] == "ok"


def test_a_hundred_tasks_in_one_job(work: Work, autoencoder: Any) -> None:
    _, _, in_float, in_int8 = autoencoder
    expected = {}
    for kind, content in (("float", in_float), ("int8", in_int8)):
        arrays = raw_inputs(content, 4)
        work.model(content, f"{kind}.tflite")
        work.inputs(arrays, f"{kind}.tensors")
        expected[kind] = digest(expected_outputs(content, arrays))
    for i in range(100):
        kind = ("float", "int8")[i % 2]
        keys = {"model": work.folder / f"{kind}.tflite", "inputs": work.folder / f"{kind}.tensors"}
        work.add(f"{kind}/{i}", mode="outputs", outputs=work.folder / f"{i}.out", **keys)
    records = work.run()
    assert len(records) == 101
    for name, record in records.items():
        if name != "machine":
            assert record["status"] == "ok"
            assert record["result"]["outputs_sha256"] == expected[name.split("/")[0]]


@pytest.mark.parametrize(
    ("job", "parts"),
    [
        ("", ["0 bytes"]),
        ("tfq-job 9\n", ["line 1", "'tfq-job 9'", "'tfq-job 1'"]),
        ("tfq-job 1\nlibrary=x\ntask a\nmode=latency\nmodel=m\ninputs=i\nthreads=many\n", ["line 7", "'many'", "1024"]),
        ("tfq-job 1\nlibrary=x\ntask a\nmode=latency\nmodel=m\ninputs=i\nspeed=9\n", ["line 7", "unknown key 'speed'"]),
        ("tfq-job 1\nlibrary=x\ntask a\nmode=latency\nmodel=m\n", ["line 3", "task a", "inputs"]),
    ],
)
def test_a_job_that_cannot_be_used_runs_nothing(
    runner: pathlib.Path, tmp_path: pathlib.Path, job: str, parts: list[str]
) -> None:
    (tmp_path / "job.txt").write_text(job)
    command = [runner, tmp_path / "job.txt", tmp_path / "results.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr
    assert not (tmp_path / "results.jsonl").exists()


def test_arguments_are_checked(runner: pathlib.Path) -> None:
    done = subprocess.run([runner, "one"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split()[0]) == (2, "usage:")


def test_results_that_cannot_be_written(work: Work, classifier: Any) -> None:
    work.model(classifier[2])
    work.inputs(raw_inputs(classifier[2], 1))
    work.add("o", mode="outputs", outputs=work.folder / "out.tensors")
    work.results = work.folder / "none" / "results.jsonl"
    work.run(status=3)
    assert "cannot write" in work.message
    work.results = pathlib.Path("/dev/full")
    work.run(status=3)
    assert "no regular file" in work.message
    # Storage that ends in the middle of the second record; the rest is done when there is room again.
    work.results = work.folder / "results.jsonl"
    work.run()
    whole = work.results.stat().st_size
    work.results.unlink()

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 100, whole - 100))

    records = work.run(status=3, restore_signals=False, preexec_fn=little_room)  # Python ignores SIGXFSZ
    assert "cannot write" in work.message
    assert set(records) == {"machine"}
    assert not work.results.read_text().endswith("\n")
    assert work.run()["o"]["status"] == "ok"


def test_two_runners_do_not_share_results(work: Work, classifier: Any) -> None:
    work.model(classifier[2])
    work.inputs(raw_inputs(classifier[2], 1))
    work.add("slow", mode="latency", warmup_s=3600, deadline_s=7200)
    first = work.start()
    until(lambda: work.results.exists() and '"kind":"machine"' in work.results.read_text())
    work.run(status=3)
    assert "another runner" in work.message
    first.terminate()
    first.communicate(timeout=30)


@pytest.mark.slow
def test_sanitizers_find_nothing(builds: pathlib.Path, library: pathlib.Path, classifier: Any, tmp_path: Any) -> None:
    """The unit tests and whole jobs, with right and hostile files, under AddressSanitizer and UBSan."""
    folder = build(builds / "sanitized", "tfq_runner", "runner_test", TFQ_SANITIZE="ON", CMAKE_BUILD_TYPE="Debug")
    done = subprocess.run([folder / "runner_test"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    work = Work(tmp_path, folder / "tfq_runner", library)
    content = classifier[3]
    arrays = raw_inputs(content, 3)
    work.model(content)
    container = work.inputs(arrays).read_bytes()
    work.add("o", mode="outputs", outputs=work.folder / "out.tensors")
    work.add("l", mode="latency", **dict(line.split("=") for line in QUICK.split()))
    work.add("p", mode="profile", **dict(line.split("=") for line in QUICK.split()))
    generator = np.random.default_rng(0)
    hostile = [container[:length] for length in (3, 20, 30, 60, 100)]
    for _ in range(60):
        broken = bytearray(container)
        broken[generator.integers(0, 64)] = generator.integers(0, 256)
        hostile.append(bytes(broken))
    for i, content in enumerate(hostile):
        (work.folder / f"{i}.tensors").write_bytes(content)
        work.add(f"{i}", mode="outputs", outputs=work.folder / f"{i}.out", inputs=work.folder / f"{i}.tensors")
    records = work.run()
    assert records["o"]["status"] == records["l"]["status"] == records["p"]["status"] == "ok"
    assert_same_bytes(read_tensors(work.folder / "out.tensors"), expected_outputs(classifier[3], arrays))
    for record in records.values():
        assert record.get("status", "ok") in ("ok", "error"), record
        assert "Sanitizer" not in record.get("output_tail", "")
        assert "runtime error" not in record.get("output_tail", "")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["fuzz_job", "fuzz_tensors"])
def test_a_short_fuzz_of_the_parsers_finds_nothing(builds: pathlib.Path, target: str, tmp_path: pathlib.Path) -> None:
    if shutil.which("clang++") is None:
        pytest.skip("clang++ is not installed (apt install clang)")
    probe = tmp_path / "probe.cc"
    probe.write_text('extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }')
    command = ["clang++", "-fsanitize=fuzzer,address", probe, "-o", tmp_path / "probe"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("clang++ has no libFuzzer (apt install libclang-rt-14-dev, or the one of its version)")
    folder = build(builds / "fuzz", "fuzz_job", "fuzz_tensors", TFQ_FUZZ="ON", CMAKE_CXX_COMPILER="clang++")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_tensors(corpus / "tensors", {"x": np.zeros((2, 1, 3), np.int8), "y": np.zeros((2, 1, 2), np.float32)})
    (corpus / "job").write_text("tfq-job 1\nlibrary=x\ntask a\nmode=latency\nmodel=m\ninputs=i%20\nthreads=2\n")
    command = [folder / target, "-max_total_time=5", "-seed=1", "-print_final_stats=1", corpus]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stat::number_of_executed_units" in done.stderr
