"""How a command ends: by signals, crashes, exits from within, and what is left behind then. All without TensorFlow."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest
from processes import Family, until

COMMAND = """
import ctypes, os, signal, subprocess, sys, tempfile, time
from absl import flags
from tfq_tools.command import new_flags, run_command
from tfq.execution.files import staged_directory
from pathlib import Path

FLAGS = new_flags()
flags.DEFINE_string("do", "", "What.", flag_values=FLAGS)
flags.DEFINE_string("output_dir", "", "Where.", flag_values=FLAGS)

def main(values):
    with tempfile.NamedTemporaryFile(prefix="__autograph_generated_file", delete=False) as file:
        file.write(b"code")
    exec(values.do)

for number in (signal.SIGINT, signal.SIGQUIT):  # which a shell has its background jobs ignore
    signal.signal(number, signal.SIG_DFL)
run_command("tfq-test", main, FLAGS, summary="Tests.", groups={})
"""
WAIT = "print('ready', flush=True); time.sleep(60)"
STOPPING = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT]


def command(do, *arguments):
    return [sys.executable, "-c", COMMAND, f"--do={do}", *arguments]


def run(do, *arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command(do, *arguments), text=True, check=False, **options)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_ends_everything_in_one_line(tmp_path, number):
    do = f"""with staged_directory(Path("deep/out"), overwrite=False) as folder:
        (folder / "model.tflite").write_text("half")
        subprocess.Popen(["sleep", "60"])
        {WAIT}"""
    with Family(command(do, "--output_dir=deep/out"), tmp_path) as family:
        assert family.first.stdout.readline() == "ready\n"
        until(lambda: len(family.living()) == 3, "the three processes")  # a new one has no environment at first
        family.first.send_signal(number)
        code, _, errors = family.end()
        family.wait_until_none_lives()
        assert code == 128 + number
        said = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
        assert errors == f"tfq-test: {said}\n"
        assert os.listdir(tmp_path / "deep") == []
        assert family.left() == []


def test_the_second_signal_ends_what_does_not_listen(tmp_path):
    do = f"""signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
    with staged_directory(Path("out"), overwrite=False): {WAIT}""".replace("\n    ", "\n")
    with Family(command(do, "--output_dir=out"), tmp_path) as family:
        assert family.first.stdout.readline() == "ready\n"
        family.first.send_signal(signal.SIGTERM)
        time.sleep(1.1)  # a terminal sends a signal to all processes: what comes within a second is the same
        family.first.send_signal(signal.SIGINT)
        code, _, errors = family.end()
        family.wait_until_none_lives()
        assert (code, errors) == (128 + signal.SIGTERM, "tfq-test: stopped by SIGTERM\n")
        assert sorted(os.listdir(tmp_path)) == ["tmp"]
        assert family.left() == []


def test_a_signal_to_the_group_is_one_signal(tmp_path):
    with Family(command(f"try: {WAIT}\nfinally: time.sleep(0.3); print('cleaned up')"), tmp_path) as family:
        assert family.first.stdout.readline() == "ready\n"
        os.killpg(family.first.pid, signal.SIGINT)
        code, output, errors = family.end()
        assert (code, output, errors) == (130, "cleaned up\n", "tfq-test: interrupted\n")


def test_a_signal_after_the_work_ends_what_is_left_without_a_word(tmp_path):
    do = "import threading\nthreading.Thread(target=time.sleep, args=(60,)).start()\nprint('ready', flush=True)"
    with Family(command(do), tmp_path) as family:
        assert family.first.stdout.readline() == "ready\n"
        time.sleep(1)
        family.first.send_signal(signal.SIGINT)
        code, _, errors = family.end()
        family.wait_until_none_lives()
        assert (code, errors) == (0, "")
        assert family.left() == []


def test_nohup(tmp_path):
    with Family(["nohup", *command("print('ready', flush=True); time.sleep(1); print('done')")], tmp_path) as family:
        assert family.first.stdout.readline() == "ready\n"
        os.killpg(family.first.pid, signal.SIGHUP)
        code, output, _ = family.end()
        assert (code, output) == (0, "done\n")


def test_killed_it_takes_all_with_it_and_the_next_run_cleans_up(tmp_path):
    do = f"with staged_directory(Path('out'), overwrite=False): {WAIT}"
    with Family(command(do, "--output_dir=out"), tmp_path) as family:
        assert family.first.stdout.readline() == "ready\n"
        family.first.send_signal(signal.SIGKILL)
        family.end()
        family.wait_until_none_lives()
        assert len(family.left()) == 1
    with Family(command("with staged_directory(Path('out'), overwrite=False): pass"), tmp_path) as family:
        assert family.end()[0] == 0
        assert family.left() == []
    assert sorted(os.listdir(tmp_path)) == ["out", "tmp"]


def test_the_temporary_files_of_a_living_run_are_left_alone(tmp_path):
    with Family(command(WAIT), tmp_path) as slow:
        assert slow.first.stdout.readline() == "ready\n"
        with Family(command("print('x')"), tmp_path) as fast:
            assert fast.end() == (0, "x\n", "")
        assert len(slow.left()) == 1
        (folder,) = slow.temporary.iterdir()
        assert any(path.name.startswith("__autograph") for path in folder.iterdir())


@pytest.mark.parametrize(
    ("do", "code", "message"),
    [
        ("sys.exit(0)", 2, "sys.exit(0) was called before the work was done; no function of yours may do that"),
        ("sys.exit('no')", 2, "sys.exit('no') was called before the work was done; no function of yours may do that"),
        ("raise SystemExit", 2, "sys.exit(None) was called before the work was done; no function of yours may do that"),
        ("os._exit(0)", 2, "the process ended itself (exit code 0) before the work was done"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 2, "crashed in native code (SIGSEGV): a model file is damaged"),
        ("ctypes.string_at(0)", 2, "crashed in native code (SIGSEGV)"),
        ("os.abort()", 2, "crashed in native code (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "killed, as by a system that runs out of memory"),
        ("raise MemoryError", 2, "there is not enough memory"),
        ("raise OSError(28, 'No space left on device', 'x/y')", 2, "No space left on device (x/y); make room"),
        ("[open('/dev/null') for _ in range(10**5)]", 2, "Too many open files"),
        ("raise KeyboardInterrupt", 130, None),
        ("raise flags.Error('x')", 1, None),
    ],
)
def test_sudden_ends_are_one_line_and_leave_nothing(tmp_path, do, code, message):
    with Family(command(f"print('begun', flush=True); {do}"), tmp_path) as family:
        ended, output, errors = family.end()
        assert (ended, output) == (code, "begun\n")
        if message:
            assert errors.startswith("tfq-test: error: ")
            assert message in errors
            assert errors.count("\n") == 1
        assert family.left() == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_go_nowhere(tmp_path, closed):
    do = "print('out'); print('err', file=sys.stderr); open('file', 'w').write('kept')"
    line = f'"$@" {closed}'
    done = subprocess.run(["sh", "-c", line, "sh", *command(do)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == ("" if ">&-" in closed.split() else "out\n")
    assert done.stderr == ("" if "2>&-" in closed else "err\n")
    assert (tmp_path / "file").read_text() == "kept"


def test_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        done = run("print('x')", stdout=full)
    assert done.returncode == 2
    assert done.stderr.startswith("tfq-test: error: cannot write what it prints: No space left on device")
    assert done.stderr.count("\n") == 1


def test_control_characters_do_not_reach_the_terminal():
    name = r"'a\x1b[31mb\rc\x9bd\u202ee'"
    do = f"print({name}); print({name}, file=sys.stderr); from tfq.errors import UserError; raise UserError({name})"
    done = run(do)
    assert done.stdout == r"a\x1b[31mb\rc\x9bd\u202ee" + "\n"
    lines = done.stderr.splitlines()
    assert lines[0] == r"a\x1b[31mb\rc\x9bd\u202ee"
    assert lines[1].startswith("tfq-test: error: a\\x1b[31mb")
    assert not set(done.stdout + done.stderr) & {"\x1b", "\r", "\x9b", "\u202e"}


def test_text_that_the_locale_lacks_is_escaped():
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run(r"print('\xe9 \u2713'); print('\xe9', file=sys.stderr)", env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xe9 \\u2713\n", "\\xe9\n")


@pytest.mark.parametrize(
    ("temporary", "message"),
    [("gone", "is not a directory"), ("file", "is not a directory"), ("\n", "not a directory")],
)
def test_a_temporary_directory_that_is_none(tmp_path, temporary, message):
    (tmp_path / "file").write_text("")
    done = run("print('x')", env={**os.environ, "TMPDIR": str(tmp_path / temporary)})
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_keras_is_that_of_tensorflow_with_its_own_settings(tmp_path):
    (tmp_path / ".keras/datasets").mkdir(parents=True)
    (tmp_path / ".keras/datasets/mnist.npz").write_text("data")
    (tmp_path / ".keras/keras.json").write_text('{"backend": "torch", "floatx": "float16"')
    do = "h = Path(os.environ['KERAS_HOME']); print(os.environ['KERAS_BACKEND'], *sorted(p.name for p in h.iterdir()))"
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("KERAS_HOME", None)
    done = run(do, env=environment)
    assert (done.stdout, done.stderr) == ("tensorflow datasets\n", "")
    done = run(do, env={**environment, "KERAS_BACKEND": "jax"})
    assert done.stdout == "tensorflow datasets\n"
    assert done.stderr == "tfq-test: KERAS_BACKEND is jax; tfq works with tensorflow, whatever it says\n"


def test_the_limit_on_open_files_is_raised_as_far_as_may_be():
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))

    done = run("print(len([open('/dev/null') for _ in range(300)]))", preexec_fn=limit)
    assert (done.returncode, done.stdout) == (0, "300\n")


@pytest.mark.slow
def test_a_batch_hands_signals_on(tmp_path):
    """Its own run of tfq-quantize is stopped, not killed: nothing of it is left."""
    root = pathlib.Path(__file__).resolve().parents[2]
    flags = [f"--model={root / 'demo/digits.keras'}", f"--calibration_data={root / 'demo/calibration.npz'}"]
    (tmp_path / "a.flags").write_text("\n".join([*flags, "--preprocess=raw"]) + "\n")
    log = tmp_path / "out/a.log"
    batch = [sys.executable, "-m", "tfq_tools.batch", "--jobs=a.flags", "--output_dir=out"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with Family(batch, tmp_path) as family:
            until(lambda: log.exists() and "read " in log.read_text(), "the run to begin")
            assert len(family.living()) == 4
            family.first.send_signal(number)
            code, _, errors = family.end()
            family.wait_until_none_lives()
            if number == signal.SIGTERM:
                assert code == 143
                assert errors.endswith("tfq-batch: stopped by SIGTERM\n")
                assert family.left() == []
            assert "stopped by SIGTERM" in log.read_text()
            assert os.listdir(tmp_path / "out") == ["a.log"]
            log.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_parallel_run_leaves_no_process_and_no_file(tmp_path, number):
    root = pathlib.Path(__file__).resolve().parents[2]
    run = [sys.executable, "-m", "tfq_tools.quantize", f"--model={root / 'demo/digits.keras'}"]
    run += [f"--calibration_data={root / 'demo/calibration.npz'}", "--preprocess=raw", "--output_dir=out"]
    run += ["--pipeline=advanced", "--mode=parallel", "--workers=3", "--weight_bits=4"]
    with Family(run, tmp_path, OMP_NUM_THREADS="1") as family:
        until(lambda: len(family.living()) == 5, "two workers and what watches their resources", seconds=300)
        time.sleep(3)
        family.first.send_signal(number)
        code, _, errors = family.end()
        family.wait_until_none_lives()
        if number == signal.SIGKILL:  # the next run cleans up
            assert code == -number
        else:
            assert (code, errors.splitlines()[-1]) == (128 + number, f"tfq-quantize: stopped by {number.name}")
            assert os.listdir(tmp_path) == ["tmp"]
            assert family.left() == []
