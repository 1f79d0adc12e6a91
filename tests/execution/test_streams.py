"""Outputs that are no regular files are written into, never replaced; what cannot be written is told beforehand."""

import os
import pathlib
import socket
import stat
import subprocess
import sys
import threading

import pytest

from tfq.errors import UserError
from tfq.execution.files import check_directory, check_file, remove_partials, staged_directory, write_atomic
from tfq.execution.ledger import Ledger

WRITE = """
import sys
from pathlib import Path
from tfq.execution.files import check_file, write_atomic
check_file(Path(sys.argv[1]))
print("before")  # waits in the buffer
write_atomic(Path(sys.argv[1]), b"content\\n")
print("after")
"""


def write(path, **options):
    return subprocess.run([sys.executable, "-c", WRITE, path], text=True, check=False, **options)


def test_the_null_device_takes_all_and_stays():
    write_atomic(pathlib.Path("/dev/null"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert not list(pathlib.Path("/dev").glob(".null*"))


def test_a_full_device_is_told_and_stays():
    with pytest.raises(UserError, match=r"cannot write /dev/full: No space left on device; make room"):
        write_atomic(pathlib.Path("/dev/full"), b"x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_written_into_wherever_it_goes(tmp_path, path):
    assert write(path, capture_output=True).stdout == "before\ncontent\nafter\n"
    with open(tmp_path / "out", "w") as file:
        file.write("there already\n")
        file.flush()
        assert write(path, stdout=file).returncode == 0
    assert (tmp_path / "out").read_text() == "there already\nbefore\ncontent\nafter\n"


def test_a_pipe_that_is_read_gets_the_content_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    while True:  # until the reader is there
        try:
            check_file(pipe)
            break
        except UserError:
            continue
    reader.join()  # the check opened and closed it
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    while True:
        try:
            write_atomic(pipe, b"x" * 200_000)
            break
        except UserError:
            continue
    reader.join()
    assert got[-1] == b"x" * 200_000
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_pipe_that_nobody_reads_and_a_socket_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    for name, message in (("pipe", "a pipe that nobody reads"), ("socket", "neither a file nor a stream")):
        for attempt in (check_file, lambda path: write_atomic(path, b"x")):
            with pytest.raises(UserError, match=message):
                attempt(tmp_path / name)
        with pytest.raises(UserError, match="not a regular file"):
            Ledger(tmp_path / name, measures="x", depends_on="y")
    server.close()
    assert sorted(os.listdir(tmp_path)) == ["pipe", "socket"]


def test_a_link_to_a_file_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    check_file(tmp_path / "link")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def bad_paths(folder):
    (folder / "file").write_text("kept")
    (folder / "loop").symlink_to("loop2")
    (folder / "loop2").symlink_to("loop")
    return {
        "loop": folder / "loop",
        "in loop": folder / "loop/out",
        "NUL": folder / "a\0b",
        "long": folder / ("x" * 300),
        "long path": pathlib.Path(folder, *["x" * 200] * 30),
        "long folder": folder / ("x" * 300) / "out",
        "in a file": folder / "file/out",
        "below a file": folder / "file/deep/out",
        "/proc": pathlib.Path("/proc/nope"),
    }


@pytest.mark.parametrize("check", [check_file, check_directory])
@pytest.mark.parametrize("kind", ["loop", "in loop", "NUL", "long", "long path", "long folder", "in a file"])
def test_places_that_cannot_be_are_told_beforehand(tmp_path, kind, check):
    path = bad_paths(tmp_path)[kind]
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(UserError, match="cannot write") as told:
        check(path)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="cannot write"):
        write_atomic(path, b"x")
    with pytest.raises(UserError, match="cannot write"), staged_directory(path, overwrite=True):
        raise AssertionError("the work must not begin")
    remove_partials(path)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_directory_for_a_file_and_a_file_for_a_directory(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match="it is a directory; name a file"):
        check_file(tmp_path)
    with pytest.raises(UserError, match="it is a file; name a directory"):
        check_directory(tmp_path / "file")
    for attempt in (check_file, check_directory):
        with pytest.raises(UserError, match="cannot write"):
            attempt(pathlib.Path("/proc/nope"))


def test_the_root_is_not_replaced():
    for attempt in (check_file, check_directory, lambda path: staged_directory(path, overwrite=True).__enter__()):
        with pytest.raises(UserError, match="cannot write /: it is the root of all folders; name another place"):
            attempt(pathlib.Path("/"))


@pytest.mark.parametrize("name", ["x" * 255, "\u00e9" * 127, b"caf\xe9".decode("utf-8", "surrogateescape")])
def test_names_that_the_system_takes_work(tmp_path, name):
    check_file(tmp_path / name)
    write_atomic(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"
    (tmp_path / name).unlink()
    check_directory(tmp_path / name)
    for _ in range(2):
        with staged_directory(tmp_path / name, overwrite=True) as folder:
            (folder / "model.tflite").write_text("x")
    assert os.listdir(tmp_path) == [name]


def test_a_check_leaves_nothing(tmp_path):
    check_file(tmp_path / "a/b/c")
    check_directory(tmp_path / "a/b/c")
    assert os.listdir(tmp_path) == []
