"""Bad inputs of every command: one line, exit code 2, nothing left behind. The table is `bad_inputs` and `bad_data`."""

import contextlib
import importlib
import io
import os
import pathlib
import runpy
import signal
import subprocess
import sys

import bad_data
import bad_inputs
import pytest

_SECONDS = 60
COMMANDS = tuple(bad_inputs.GOOD)
FLAGS = {command: importlib.import_module(f"tfq_tools.{command}").FLAGS for command in COMMANDS}
CASES = {
    **dict(bad_inputs.json_cases()),
    **dict(bad_inputs.strange_cases()),
    **dict(bad_inputs.number_cases(FLAGS)),
    **dict(bad_inputs.option_cases()),
    **bad_data.data_cases(),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, classifier):
    """The folder of all files."""
    folder = tmp_path_factory.mktemp("bad")
    bad_inputs.make_files(folder, classifier[2])
    bad_data.make_data(folder)
    return folder


def called(place: pathlib.Path, case: bad_inputs.Case) -> tuple[object, str, str]:
    """(exit code, output, errors) of the command in this process; what takes over a minute fails."""

    def stop(*_: object) -> None:
        raise AssertionError(f"still at work after {_SECONDS} s")

    found = runpy.run_module(f"tfq_tools.{case.command}")
    output, errors = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, stop)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [f"tfq-{case.command}", *case.arguments, "--verbose"])
        patched.chdir(place)
        patched.setattr(sys, "path", [*sys.path])
        signal.alarm(_SECONDS)
        try:
            with (
                contextlib.redirect_stderr(errors),
                contextlib.redirect_stdout(output),
                pytest.raises(SystemExit) as ended,
            ):
                found["run"]()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    return ended.value.code, output.getvalue(), errors.getvalue()


@pytest.mark.parametrize("name", CASES)
def test_one_line_exit_code_2_and_nothing_left(name, place):
    case = CASES[name]
    before = set(os.listdir(place))
    code, output, errors = called(place, case)
    lines = errors.splitlines()
    told = [line for line in lines if line.startswith(f"tfq-{case.command}: error: ")]
    assert code == 2, (output, errors)
    assert len(told) == 1, errors
    assert told[0] == lines[-1]
    assert len(told[0]) < 1000
    assert case.message in told[0]
    assert "Traceback" not in errors
    assert set(os.listdir(place)) - before <= {"__pycache__"}


def test_the_table_is_as_large_as_promised():
    assert len(CASES) >= 500
    assert {case.command for case in CASES.values()} == set(COMMANDS)


IN_PROCESSES = (
    "batch, recipe: weight_bits is '4'",
    "evaluate, --evaluation_data is a pipe",
    "inspect, report: brackets",
    "inspect, --flagfile is an endless device",
    "bench, report: a list",
    "profile, --seconds=nan",
    "quantize with an argument that is no UTF-8",
)
SLOW = (
    "quantize, recipe: brackets",
    "evaluate, npy: an open bracket",
    "evaluate, metric bad_metrics:exits",
    "evaluate, data by bad_functions:exits",
    "frontier, table: version is 2",
)


@pytest.mark.parametrize("name", [*IN_PROCESSES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_in_a_process_of_its_own(name, place):
    case = CASES[name]
    command = [sys.executable, "-m", f"tfq_tools.{case.command}", *case.arguments]
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"tfq-{case.command}: error: ")
    assert "Traceback" not in done.stderr
    assert not (place / "out").exists()
