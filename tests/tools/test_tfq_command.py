"""tfq: every command under one name."""

import subprocess
import sys

import pytest
from tfq_tools.tfq import COMMANDS

import tfq


def call(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tfq_tools.tfq", *arguments], capture_output=True, text=True, check=False
    )


def test_the_version_and_the_commands_are_told():
    assert call("--version").stdout == f"tfq {tfq.__version__}\n"
    for arguments in ((), ("--help",)):
        told = call(*arguments)
        assert told.returncode == 0
        assert all(f"\n  {name} " in told.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", ["quantize", "batch"])
def test_a_command_is_the_one_of_its_old_name(name):
    old = subprocess.run(
        [sys.executable, "-m", f"tfq_tools.{name}", "--help"], capture_output=True, text=True, check=True
    )
    assert call(name, "--help").stdout == old.stdout
    assert call("help", name).stdout == old.stdout


def test_what_is_missing_is_told_with_an_example():
    told = call("quantize", "--model=m.keras")
    assert told.returncode == 2
    assert told.stderr == (
        "tfq-quantize: error: missing --calibration_data and --output_dir; for example: tfq-quantize"
        " --model=model.keras --calibration_data=calibration.npz --output_dir=out (tfq-quantize --help lists the"
        " flags)\n"
    )


def test_no_such_command():
    told = call("quantise")
    assert (told.returncode, told.stderr) == (2, "tfq: error: there is no command 'quantise'; did you mean quantize?\n")
