"""Parts of tfq-bench by themselves: inputs, ELF headers, quantiles, comparisons, the job's text, building."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from runner_cache import built_runner
from tfq_bench import build, release
from tfq_bench.compare import compare, compare_real
from tfq_bench.elf import Target, elf_target, host_target
from tfq_bench.inputs import feed_of, per_sample, write_inputs
from tfq_bench.job import Job, Settings, Task, bench_tasks, escaped
from tfq_bench.library import find_library, wheel_library
from tfq_bench.quantiles import Figure, interval_ranks, quantile, ratio_of_rounds
from tfq_bench.reference import reference_outputs
from tfq_bench.report import ModelReport
from tfq_bench.results import read_results
from tfq_bench.tensors import read_tensors

from tfq.errors import UserError
from tfq.evaluation.evaluate import Judgement, ModelEvaluation
from tfq.execution.interpreter import TensorInfo, TfliteModel

ARM = Target("arm64-v8a", "android")


def test_inputs_are_quantised_as_for_the_python_interpreter(classifier: Any, tmp_path: pathlib.Path) -> None:
    _, images, in_float, in_int8 = classifier
    for content in (in_float, in_int8):
        model = TfliteModel(content)
        feed = feed_of(model)
        write_inputs(tmp_path / "i", feed, {"image": images})
        ((name, array),) = read_tensors(tmp_path / "i")
        assert (name, array.shape) == ("image", (120, 1, 8, 8, 1))
        assert array.dtype == model.inputs[0].dtype
        if content is in_int8:
            info = model.inputs[0]
            expected = np.clip(np.round(images / np.float32(info.scale[0])) + info.zero_point[0], -128, 127)
            assert np.array_equal(array[:, 0], expected.astype(np.int8))
        else:
            assert np.array_equal(array[:, 0], images)
        outputs = reference_outputs(content, read_tensors(tmp_path / "i"), name="m")
        for i in (0, 7, 119):
            one = model.run({"image": images[i : i + 1]})[0]
            assert np.array_equal(model.outputs[0].to_real(outputs[0][i]), one)


def test_a_fixed_batch_is_filled_with_the_last_sample(three_at_a_time: bytes, tmp_path: pathlib.Path) -> None:
    samples = np.arange(8, dtype=np.float32).reshape(4, 2)
    feed = feed_of(TfliteModel(three_at_a_time))
    (name,) = (info.name for info in feed.inputs)
    write_inputs(tmp_path / "i", feed, {name: samples})
    inputs = read_tensors(tmp_path / "i")
    assert inputs[0][1].shape == (2, 3, 2)
    (outputs,) = reference_outputs(three_at_a_time, inputs, name="m")
    place = np.array([0, 1, 2, 0])[:, None]
    assert np.array_equal(per_sample(outputs, feed, 4), 2 * samples + place)
    with pytest.raises(UserError, match="first axis must be the batch"):
        per_sample(np.zeros((2, 4)), feed, 4)


def test_elf_targets_of_programs_and_libraries(tmp_path: pathlib.Path) -> None:
    assert elf_target(wheel_library()) == elf_target(pathlib.Path(os.path.realpath(sys.executable))) == host_target()
    for content in (b"", b"text", b"\x7fELF" + bytes(10), wheel_library().read_bytes()[:1000]):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(UserError, match="no ELF program or library"):
            elf_target(tmp_path / "x")
    with pytest.raises(UserError, match="No such file"):
        elf_target(tmp_path / "none")


@pytest.mark.parametrize(("needed", "system"), [("libc.so", "android"), ("libc.so.6", "linux")])
def test_the_c_library_tells_android_from_linux(tmp_path: pathlib.Path, needed: str, system: str) -> None:
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed (apt install gcc)")
    empty, code = tmp_path / needed, tmp_path / "a.c"
    code.write_text("int f(void) { return 0; }")
    subprocess.run(["cc", "-shared", "-nostdlib", f"-Wl,-soname,{needed}", "-o", empty, code], check=True)
    code.write_text("int f(void); int g(void) { return f(); }")
    subprocess.run(["cc", "-shared", "-nostdlib", "-o", tmp_path / "l.so", code, empty], check=True)
    assert elf_target(tmp_path / "l.so") == dataclasses.replace(host_target(), system=system)


def test_a_library_is_found_by_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFQ_LIBRARY_ARM64_V8A", raising=False)
    assert find_library(host_target()) == wheel_library()
    assert find_library(host_target(), [wheel_library()]) == wheel_library()
    with pytest.raises(UserError, match=r"jni/arm64-v8a/libLiteRt.so of the LiteRT AAR"):
        find_library(ARM)
    with pytest.raises(UserError, match=f"arm64-v8a Android is missing: .* is for {host_target()}"):
        find_library(ARM, [wheel_library()])
    monkeypatch.setenv("TFQ_LIBRARY_ARM64_V8A", str(wheel_library()))
    with pytest.raises(UserError, match="expected a file for arm64-v8a Android"):
        find_library(ARM)


def test_what_is_missing_to_build_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv("ANDROID_NDK_HOME", raising=False)
    monkeypatch.delenv("TFQ_RUNNER_ARM64_V8A", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"set ANDROID_NDK_HOME .*or TFQ_RUNNER_ARM64_V8A"):
        build.find_runner(ARM)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"pip install cmake"):
        build.find_runner(host_target())
    with pytest.raises(UserError, match="g\\+\\+-aarch64-linux-gnu"):
        build.find_runner(Target("armeabi-v7a", "linux"))


def test_release_assets_are_built_for_every_abi_and_named_with_their_sums_and_the_ndk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """The runner's own toolchain file with an NDK that compiles for this machine, and a program that tells its ABI."""
    for tool in ("cmake", "make", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install cmake make g++)")
    sources, ndk = tmp_path / "runner", tmp_path / "ndk"
    sources.mkdir()
    shutil.copy(build.source_folder() / "android.cmake", sources)
    (sources / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(x CXX)\nadd_executable(tfq_runner x.cc)\n"
        'add_compile_definitions(ABI="${ANDROID_ABI}")'
    )
    (sources / "x.cc").write_text("#include <cstdio>\nint main() { std::puts(ABI); }")
    monkeypatch.setattr(build, "source_folder", lambda: sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ANDROID_NDK_HOME", str(ndk))
    targets = [target for target in release.TARGETS if target.system == "android"]
    made, missing = release.write_assets(tmp_path / "without", [host_target(), *targets])
    assert [path.name for path in made] == [release.asset_name(host_target())]
    assert len(missing) == 3
    assert all(f"set ANDROID_NDK_HOME to its folder (got {str(ndk)!r})" in line for line in missing)
    assert not any("--runner" in line for line in missing)

    (ndk / "build/cmake").mkdir(parents=True)
    (ndk / "build/cmake/android.toolchain.cmake").touch()
    (ndk / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 27.2.12479018\n")
    made, missing = release.write_assets(tmp_path / "with", targets)
    assert missing == []
    told = [subprocess.run([path], check=True, capture_output=True, text=True).stdout.strip() for path in made]
    assert told == ["arm64-v8a", "armeabi-v7a", "x86_64"]
    assert [path.name.partition("-android-")[2] for path in made] == told
    sums = tmp_path / "with/SHA256SUMS"
    assert "NDK 27.2.12479018" in sums.read_text().splitlines()[0]
    subprocess.run(["sha256sum", "--check", "--strict", sums], cwd=sums.parent, check=True, capture_output=True)


def test_a_failing_build_tells_the_compilers_error(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed (apt install cmake)")
    sources = tmp_path / "runner"
    sources.mkdir()
    (sources / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(x CXX)\nadd_executable(y z.cc)"
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "source_folder", lambda: sources)
    with pytest.raises(UserError, match=r"cannot be built: cmake .*z\.cc"):
        build.find_runner(host_target())
    assert not [path for path in (tmp_path / "cache/tfq").iterdir() if path.suffix != ".lock"]


def test_the_runner_is_built_once_for_processes_at_once(tmp_path: pathlib.Path) -> None:
    """A program of one line in the runner's place; each build leaves a line in a log."""
    for tool in ("cmake", "make", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install cmake make g++)")
    sources = tmp_path / "runner"
    sources.mkdir()
    (sources / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(x CXX)\nadd_executable(tfq_runner main.cc)\n"
        f'add_custom_command(TARGET tfq_runner POST_BUILD COMMAND sh -c "echo built >> {tmp_path}/log" VERBATIM)'
    )
    (sources / "main.cc").write_text("int main() { return 7; }")
    program = (
        "import sys, pathlib; from tfq_bench import build; from tfq_bench.elf import host_target;"
        "build.source_folder = lambda: pathlib.Path(sys.argv[1]); print(build.find_runner(host_target()))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def at_once(count: int) -> set[str]:
        command = [sys.executable, "-c", program, sources]
        started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return {process.communicate()[0].strip() for process in started}

    (first,) = at_once(3)
    assert subprocess.run([first], check=False).returncode == 7
    assert (tmp_path / "log").read_text() == "built\n"
    (sources / "main.cc").write_text("int main() { return 8; }")
    (second,) = at_once(1)
    assert subprocess.run([second], check=False).returncode == 8
    assert (tmp_path / "log").read_text() == "built\nbuilt\n"


@hypothesis.given(st.lists(st.floats(1, 1000), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_nearest_ranks(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found.value == min(v for v in values if sum(w <= v for w in values) >= q * len(values) - 1e-9)
    assert found.low is None or found.low <= found.value
    assert found.high is None or found.high >= found.value


@hypothesis.given(st.integers(1, 400), st.sampled_from([0.5, 0.9, 0.99]))
def test_interval_ranks_enclose_95_percent(n: int, q: float) -> None:
    def below(k: int) -> float:
        return sum(math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k))

    low, high = interval_ranks(n, q)
    assert low == 0 or below(low) <= 0.025 + 1e-9
    assert below(low + 1) > 0.025 - 1e-9
    assert high == 0 or below(high) >= 0.975 - 1e-9
    assert (high == 0) == (below(n) < 0.975)


def test_ratios_of_rounds() -> None:
    assert ratio_of_rounds([1, 2, 9], [2, 2, 3]) == Figure(1.0, 0.5, 3.0)
    assert ratio_of_rounds([1], [2]) == Figure(0.5)


def info(dtype: str, *grid: float) -> TensorInfo:
    return TensorInfo("y", 0, (1, 2), np.dtype(dtype), tuple(grid[:1]), tuple(map(int, grid[1:])))


def test_differences_in_steps_and_real_values() -> None:
    one, other = np.array([[1, 2], [3, 6]], np.int8), np.array([[1, 2], [3, 3]], np.int8)
    found = compare(info("int8", 0.5, 1), one, other)
    assert (found.exact, found.elements, found.differing) == (False, 4, 1)
    assert (found.max_lsb, found.mean_lsb, found.max_absolute) == (3.0, 0.75, 1.5)
    assert found.sqnr_db == pytest.approx(10 * math.log10((0 + 1 + 4 + 4) / 9))
    assert found.within(3)
    assert not found.within(2.9)
    equal = compare(info("int8", 0.5, 1), one, one)
    assert equal.exact
    assert equal.within(0)
    real = compare_real("y", np.float32([1.0, 2.25]), np.float32([1.0, 2.0]), 0.125)
    assert (real.max_lsb, real.max_absolute, real.mean_absolute) == (2.0, 0.25, 0.125)
    with pytest.raises(UserError, match=r"int8 \[2, 2\] on the device, float32"):
        compare(info("int8", 0.5, 1), one, other.astype(np.float32))


@pytest.mark.parametrize("holder", [ModelEvaluation, ModelReport])
def test_what_outputs_say_has_the_same_names_here_and_of_a_device(holder: type) -> None:
    """A judgement is spread over the fields of both."""
    types = {field.name: field.type for field in dataclasses.fields(holder)}
    assert {field.name: field.type for field in dataclasses.fields(Judgement)}.items() <= types.items()


def test_differences_that_are_not_finite() -> None:
    one, nan = np.float32([1, 2]), np.float32([1, np.nan])
    found = compare(info("float32"), nan, one)
    assert (found.differing, found.max_absolute, found.sqnr_db, found.within(100)) == (1, None, None, False)
    assert compare(info("float32"), nan, nan).exact
    assert compare(info("float32"), one + np.float32(1e-3), one).within(0)
    assert not compare(info("float32"), one[::-1].copy(), one).within(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": (1, 1)}, "different numbers"),
        ({"threads": (0,)}, "1 to 256"),
        ({"cpu_mask": "0"}, "hexadecimal"),
        ({"cpu_mask": "g"}, "hexadecimal"),
        ({"kernels": "fast"}, "xnnpack, builtin"),
        ({"min_runs": 5, "max_runs": 4}, "min <= max"),
        ({"deadline_seconds": 0}, "deadline"),
        ({"rounds": 0}, "1 to 1000"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Settings(**settings)


def test_models_take_turns_and_outputs_come_first() -> None:
    settings = Settings(threads=(1, 4), rounds=2)
    placed = [item for model in range(3) for item in bench_tasks(model, "i", settings)]
    ids = [task.id for _, task in sorted(placed, key=lambda item: item[0])]
    assert ids[:3] == [f"m00{i}/outputs" for i in range(3)]
    assert ids[3:9] == [f"m00{i}/latency/t1/r{r}" for r, order in ((0, (0, 1, 2)), (1, (2, 1, 0))) for i in order]
    assert ids[-3:] == [f"m00{i}/profile/t1" for i in range(3)]
    assert len(ids) == len(set(ids)) == 3 * (1 + 4 + 1)


@hypothesis.given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_path_survives_the_jobs_text(path: str) -> None:
    from urllib.parse import unquote

    written = escaped(path)
    assert unquote(written, errors="strict") == path
    assert not any(ord(c) < 32 or ord(c) == 127 for c in written)


def test_text_and_fingerprint_of_a_job(tmp_path: pathlib.Path) -> None:
    (tmp_path / "m").write_bytes(b"1")
    task = Task("a", "outputs", "m", "i", "o", 2)
    job = Job((task, dataclasses.replace(task, id="b")), {"m": tmp_path / "m"}, Settings(cpu_mask="f0"))
    keys = "mode=outputs model=m inputs=i outputs=o kernels=xnnpack threads=2 deadline_s=600 cpu_mask=f0"
    lines = job.text("l/b", without=["a"]).splitlines()
    assert lines == ["tfq-job 1", "library=l/b", "task b", *keys.split()]
    before = job.fingerprint()
    assert job.fingerprint() == before
    (tmp_path / "m").write_bytes(b"2")
    assert job.fingerprint() != before


def test_results_with_a_torn_line_and_broken_ones(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "r"
    path.write_text('{"kind":"machine","abi":"x"}\n{"kind":"task","id":"a"}\n{"kind":"task","id":"b"')
    machine, records = read_results(path)
    assert (machine["abi"], set(records)) == ("x", {"a"})
    for text, message in (("{]\n", "line 1"), ("[]\n", "line 1"), ("", "about the machine")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_results(path)


def test_quantiles_are_the_runners(tmp_path_factory: pytest.TempPathFactory, classifier: Any) -> None:
    from tfq_bench.host_device import run_on_host

    folder = tmp_path_factory.mktemp("job")
    (folder / "m.tflite").write_bytes(classifier[3])
    write_inputs(folder / "i.tensors", feed_of(TfliteModel(classifier[3])), {"image": classifier[1][:3]})
    keys = {"min_runs": "300", "max_runs": "300", "warmup_s": "0"}
    job = Job(
        (Task("a", "latency", "m.tflite", "i.tensors", keys=keys),),
        {name: folder / name for name in ("m.tflite", "i.tensors")},
        Settings(),
    )
    found = run_on_host(job, built_runner(tmp_path_factory), wheel_library(), folder / "work")
    result = found.records["a"]["result"]
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert dataclasses.asdict(quantile(result["latencies_us"], q)) == result["latency_us"][name]
    assert struct.calcsize("P") * 8 == found.machine["pointer_bits"]
