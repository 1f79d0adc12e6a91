import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tfq.errors import UserError
from tfq.execution import files
from tfq.execution.files import staged_directory, write_atomic


def content(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def write_output(path: Path, text: str, *, overwrite: bool = False) -> None:
    with staged_directory(path, overwrite=overwrite) as staged:
        (staged / "model.tflite").write_text(text)


@pytest.fixture(params=["exchange", "two renames"])
def swapping(request, monkeypatch):
    """Both ways to replace a directory: the kernel's exchange, and that of file systems without it."""
    if request.param == "two renames":
        monkeypatch.setattr(files, "_exchange", lambda *_: False)


def test_nothing_appears_before_the_end(tmp_path):
    out = tmp_path / "deep" / "out"
    with staged_directory(out, overwrite=False) as staged:
        assert staged.parent == out.parent
        (staged / "report.json").write_text("{}")
        assert not out.exists()
    assert content(out) == {"report.json": b"{}"}
    assert os.listdir(out.parent) == ["out"]


def test_mode_of_the_directory_follows_the_umask(tmp_path):
    (tmp_path / "plain").mkdir()
    write_output(tmp_path / "out", "x")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_empty_directory_is_filled_without_overwrite(tmp_path):
    write_output(tmp_path, "x")
    assert content(tmp_path) == {"model.tflite": b"x"}


def test_existing_output_needs_overwrite(tmp_path):
    out = tmp_path / "out"
    write_output(out, "old")
    with pytest.raises(UserError, match="`overwrite=True`"):
        write_output(out, "new")
    assert content(out) == {"model.tflite": b"old"}


@pytest.mark.usefixtures("swapping")
def test_overwrite_replaces_all_and_leaves_no_trace(tmp_path):
    out = tmp_path / "out"
    with staged_directory(out, overwrite=False) as staged:
        (staged / "spec.json").write_text("old")
    write_output(out, "new", overwrite=True)
    assert content(out) == {"model.tflite": b"new"}
    assert os.listdir(tmp_path) == ["out"]


def test_overwrite_refuses_a_directory_with_files_of_others(tmp_path):
    out = tmp_path / "home"
    write_output(out, "old")
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        write_output(out, "new", overwrite=True)
    assert content(out) == {"model.tflite": b"old", "thesis.tex": b"years of work"}


@pytest.mark.usefixtures("swapping")
def test_file_of_others_that_came_during_the_run_is_kept(tmp_path):
    out = tmp_path / "out"
    write_output(out, "old")
    with pytest.raises(UserError, match=r"notes\.txt"), staged_directory(out, overwrite=True):
        (out / "notes.txt").write_text("mine")
    assert content(out) == {"model.tflite": b"old", "notes.txt": b"mine"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_error_leaves_the_old_content_and_no_partial(tmp_path, error):
    out = tmp_path / "out"
    write_output(out, "old")
    with pytest.raises(error), staged_directory(out, overwrite=True) as staged:  # noqa: PT012
        (staged / "model.tflite").write_text("half")
        raise error
    assert content(out) == {"model.tflite": b"old"}
    assert os.listdir(tmp_path) == ["out"]


def test_output_made_by_another_run_meanwhile_is_kept(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="exists"), staged_directory(out, overwrite=False) as staged:  # noqa: PT012
        (staged / "model.tflite").write_text("slow")
        write_output(out, "fast")
    assert content(out) == {"model.tflite": b"fast"}


KILLED = """
import sys, time
from pathlib import Path
from tfq.execution import files

out, point = Path(sys.argv[1]), sys.argv[2]

def wait():
    print("ready", flush=True)
    time.sleep(60)

if point == "between renames":
    files._exchange = lambda *_: False
    rename = Path.rename
    def stop_after_first(self, target):
        rename(self, target)
        wait()
    Path.rename = stop_after_first
with files.staged_directory(out, overwrite=True) as staged:
    (staged / "model.tflite").write_text("half")
    if point == "while writing":
        wait()
"""


def kill_while_it_writes(out: Path, point: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(out), point], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()


@pytest.mark.parametrize("existing", [False, True])
def test_killed_while_writing_leaves_what_was_there(tmp_path, existing):
    out = tmp_path / "out"
    if existing:
        write_output(out, "old")
    kill_while_it_writes(out, "while writing")
    assert out.exists() == existing
    assert not existing or content(out) == {"model.tflite": b"old"}
    assert len(list(tmp_path.glob(".out.partial-*"))) == 1
    write_output(out, "new", overwrite=True)
    assert content(out) == {"model.tflite": b"new"}
    assert os.listdir(tmp_path) == ["out"]


def test_killed_between_renames_the_next_run_puts_the_old_content_back(tmp_path):
    out = tmp_path / "out"
    write_output(out, "old")
    kill_while_it_writes(out, "between renames")
    assert not out.exists()
    with pytest.raises(UserError, match="`overwrite=True`"):
        write_output(out, "new")
    assert content(out) == {"model.tflite": b"old"}
    assert os.listdir(tmp_path) == ["out"]


def test_partial_of_a_living_run_is_left_alone(tmp_path):
    out = tmp_path / "out"
    with staged_directory(out, overwrite=True) as slow:
        (slow / "model.tflite").write_text("slow")
        write_output(out, "fast")
        assert slow.exists()
    assert content(out) == {"model.tflite": b"slow"}


def test_stale_partials_of_other_outputs_are_left_alone(tmp_path):
    kept = tmp_path / ".out2.partial-01234567"
    kept.mkdir()
    write_output(tmp_path / "out?", "x")
    assert kept.exists()


def test_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_output(tmp_path / "file" / "out", "x")
    with pytest.raises(UserError, match="it is a file"):
        write_output(tmp_path / "file", "x", overwrite=True)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that nobody can write: /proc")
def test_unwritable_parent():
    with pytest.raises(UserError, match="cannot write /proc/tfq"):
        write_output(Path("/proc/tfq/out"), "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the device that is always full")
def test_full_disk(tmp_path):
    with pytest.raises(UserError, match="No space left"), staged_directory(tmp_path / "out", overwrite=False):
        Path("/dev/full").write_bytes(b"x")
    assert os.listdir(tmp_path) == []


def test_write_atomic_replaces(tmp_path):
    write_atomic(tmp_path / "sub" / "report.json", b"old")
    write_atomic(tmp_path / "sub" / "report.json", b"new")
    assert content(tmp_path / "sub") == {"report.json": b"new"}


def test_write_atomic_that_runs_out_of_room_keeps_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    write_atomic(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match="cannot write"):
            write_atomic(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(tmp_path) == {"report.json": b"old"}


def test_write_atomic_refuses_a_directory(tmp_path):
    with pytest.raises(UserError, match="directory"):
        write_atomic(tmp_path, b"x")
