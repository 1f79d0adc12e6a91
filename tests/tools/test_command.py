import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = """
import os, sys, time
from absl import flags
from tfq.errors import UserError
from tfq_tools.command import new_flags, run_command

FLAGS = new_flags()
flags.DEFINE_string("model", "", "The model.", flag_values=FLAGS)
flags.DEFINE_enum("metric", "top1", ["top1", "auc"], "What counts.", flag_values=FLAGS)
flags.DEFINE_integer("bits", 8, "Bits.", lower_bound=2, upper_bound=8, flag_values=FLAGS)

def main(values):
    os.write(2, b"native chatter\\n")
    print("progress", file=sys.stderr)
    print(values.model, values.metric, values.bits)
    if values.model == "bad":
        raise UserError("the model is bad;\\ngive a good one")
    if values.model == "defect":
        raise ZeroDivisionError
    if values.model == "slow":
        sys.stdout.flush()
        time.sleep(60)
    if values.model == "long":
        for number in range(100000):
            print(number)

groups = {"Input": ("model", "metric", "bits")}
run_command("tfq-test", main, FLAGS, summary="Tests.", groups=groups, required=("model",))
"""


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, **options)


def test_done():
    done = run("--model=m", "--bits=4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "m top1 4\n", "progress\n")


def test_verbose_lets_the_libraries_speak():
    assert "native chatter" in run("--model=m", "--verbose").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing --model; for example: tfq-test --model=model.keras (tfq-test --help lists the flags)"),
        (["--model=bad"], "the model is bad; give a good one"),
        (["--model=m", "--nope=1"], "there is no flag --nope; tfq-test --help lists the flags"),
        (["--modell=m"], "there is no flag --modell; did you mean --model?"),
        (["--model=m", "--points=3"], "--points is no flag of tfq-test; tfq-frontier has it"),
        (["--model=m", "--noexplain"], "--explain is no flag of tfq-test; tfq-quantize has it"),
        (["--model=m", "--metric=top2"], "flag --metric=top2: value should be one of <top1|auc>"),
        (["--model=m", "--bits=9"], "flag --bits=9: 9 is not an integer in the range [2, 8]"),
        (["--model=m", "--bits=x"], "flag --bits=x: invalid literal for int() with base 10: 'x'"),
        (["--model=m", "extra"], "unexpected argument 'extra'; every option has the form --name=value, see --help"),
        (["--flagfile=/none"], "--flagfile=/none cannot be read: no such file"),
        (["--model=m", "--bits=3", "--bits", "4"], "--bits is given twice, as '3' and as '4'; give it once"),
        (["--verbose", "--noverbose"], "--verbose is given twice, as 'true' and as 'false'; give it once"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_code_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.removeprefix("progress\n") == f"tfq-test: error: {message}\n"


def test_defect_shows_its_traceback():
    done = run("--model=defect")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_help_needs_no_flags_and_groups_them():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Input:\n  --model\n      The model.\n  --metric=top1|auc\n      What counts. (default: top1)" in done.stdout
    assert "General:" in done.stdout


def test_flagfile(tmp_path):
    (tmp_path / "flags").write_text("# a comment\n--model=m\n--metric=auc\n")
    assert run(f"--flagfile={tmp_path / 'flags'}", "--bits=3").stdout == "m auc 3\n"


def test_the_command_line_changes_what_a_flagfile_says_and_no_place_says_two_things(tmp_path):
    file = tmp_path / "flags"
    file.write_text("--model=m\n--bits=3\n--bits=3\n")
    assert run(f"--flagfile={file}", "--bits=4").stdout == "m top1 4\n"
    file.write_text("--model=m\n--bits=3\n--bits=4\n")
    told = f"--flagfile={file}: --bits is given twice, as '3' and as '4'; give it once"
    assert run(f"--flagfile={file}").stderr == f"tfq-test: error: {told}\n"


def test_what_stands_without_a_flag_belongs_to_a_list_alone(tmp_path):
    for name, taken in (("profile", False), ("report", True)):
        line = [sys.executable, "-m", f"tfq_tools.{name}", "a", "b"]
        done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert ("unexpected argument 'a'" in done.stderr) != taken
        told = subprocess.run([*line[:3], "--help"], capture_output=True, text=True, check=False).stdout
        assert (" RUNS ..." in told) == taken


def test_interrupt():
    child = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--model=slow"], stdout=subprocess.PIPE, stderr=-1, text=True
    )
    assert child.stdout.readline() == "slow top1 8\n"
    time.sleep(0.1)  # into the sleep
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert errors == "progress\ntfq-test: interrupted\n"


def test_reader_that_has_seen_enough():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "--model=long"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "progress\n")
