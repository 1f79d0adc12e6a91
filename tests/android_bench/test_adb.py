"""The client side of adb: real client, test devices, every fault survived or told."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import hypothesis.strategies as st
import pytest
from tfq_bench.adb import Adb, Result
from tfq_bench.adb_answers import Attached, DeviceError, DeviceLostError, DeviceTimeoutError, devices

from android_bench.testing import (
    Corrupt,
    Disconnect,
    DropPush,
    Fault,
    Hang,
    Kill,
    Offline,
    Reboot,
    StorageFull,
    TestDevice,
    Unauthorized,
)
from tfq.errors import UserError

TMP = "/data/local/tmp"
ODD = """a b'c"d ü $HOME `id` * \\ ;&|\n<x>"""
LARGE = 3_000_000

Phone = Callable[..., tuple[TestDevice, Adb]]


@pytest.fixture
def phone(adb_port: int, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Phone:
    """Starts a device with these faults, and gives it with its client."""
    count = iter(range(100))

    def start(*faults: Fault, **options: object) -> tuple[TestDevice, Adb]:
        device = TestDevice(tmp_path / f"phone{next(count)}", faults=faults, **options)
        request.addfinalizer(lambda: device.__exit__(None, None, None))
        device.__enter__()
        return device, Adb(device.serial, server_port=adb_port, patience=20)

    return start


@pytest.fixture
def large(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(LARGE))
    return path


def sha256(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_arguments_reach_the_device_as_they_are(phone: Phone) -> None:
    _, adb = phone()
    assert adb.shell(["printf", "<%s>", ODD, "", "-n"]) == Result(0, f"<{ODD}><><-n>", "")


def test_any_argument_reaches_the_device_as_it_is(phone: Phone) -> None:
    _, adb = phone()

    # What a process can be given at all: no NUL; half surrogate pairs are not text.
    @hypothesis.settings(max_examples=40, deadline=None)
    @hypothesis.given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))
    def holds(arguments: list[str]) -> None:
        assert adb.shell(["printf", "<%s>", *arguments]).stdout == "".join(f"<{a}>" for a in arguments or [""])

    holds()


def test_exit_codes_and_outputs_are_the_commands_own(phone: Phone) -> None:
    _, adb = phone()
    assert adb.shell(["sh", "-c", "echo out; echo err >&2; exit 7"]) == Result(7, "out\n", "err\n")
    assert adb.shell(["sh", "-c", "kill -9 $$"]).code == 137
    assert adb.shell(["no_such_program"]).code == 127
    assert adb.shell(["sh", "-c", "printf no-newline"]).stdout == "no-newline"
    assert adb.shell(["pwd"], folder=TMP).stdout == TMP + "\n"
    assert adb.shell(["pwd"], folder=f"{TMP}/none").code != 0


def test_a_failing_command_runs_once(phone: Phone) -> None:
    device, adb = phone()
    assert adb.shell(["sh", "-c", f"echo x >>{TMP}/runs; echo error: device offline >&2; exit 1"]).code == 1
    assert device.host_path(f"{TMP}/runs").read_text() == "x\n"


def test_properties_free_space_and_hash(phone: Phone) -> None:
    device, adb = phone(properties={"ro.soc.model": "SM8650", "two.lines": "a [b]"}, storage=1 << 30)
    found = adb.properties()
    assert found["ro.product.cpu.abi"] == "x86_64"
    assert (found["ro.soc.model"], found["two.lines"]) == ("SM8650", "a [b]")
    assert (1 << 30) - (1 << 20) < adb.free_bytes(TMP) <= 1 << 30
    device.host_path(f"{TMP}/f").write_bytes(b"abc")
    assert adb.sha256(f"{TMP}/f") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(DeviceError, match=rf"{device.serial}: sha256sum {TMP}/none: no such file"):
        adb.sha256(f"{TMP}/none")
    with pytest.raises(DeviceError, match=f"df -k {TMP}/none: exit code 1: .*No such file"):
        adb.free_bytes(f"{TMP}/none")


def test_push_and_pull_of_a_file(phone: Phone, large: pathlib.Path, tmp_path: pathlib.Path) -> None:
    device, adb = phone()
    large.chmod(0o700)
    adb.push(large, f"{TMP}/new folder/{ODD}")
    there = device.host_path(f"{TMP}/new folder/{ODD}")
    assert sha256(there) == sha256(large)
    assert there.stat().st_mode & stat.S_IXUSR
    adb.pull(f"{TMP}/new folder/{ODD}", tmp_path / "back")
    assert sha256(tmp_path / "back") == sha256(large)
    assert not (tmp_path / "back.part").exists()
    with pytest.raises(DeviceError, match="no such file"):
        adb.pull(f"{TMP}/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for bad in (tmp_path, tmp_path / "none" / "back"):
        with pytest.raises(UserError, match="expected the path of a file in a folder that exists"):
            adb.pull(f"{TMP}/new folder/{ODD}", bad)
    adb.remove(f"{TMP}/new folder")
    assert not there.parent.exists()


def test_push_of_a_folder_sends_only_what_is_not_there(phone: Phone, tmp_path: pathlib.Path) -> None:
    device, adb = phone()
    folder = tmp_path / "job"
    for name in [*(f"model {n}.tflite" for n in range(100)), "sub/deep/er", f"sub/{ODD}"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    adb.push(folder, f"{TMP}/job")
    there = device.host_path(f"{TMP}/job")

    def contents(of: pathlib.Path) -> dict[str, bytes]:
        return {str(path.relative_to(of)): path.read_bytes() for path in of.rglob("*") if path.is_file()}

    assert contents(there) == contents(folder)
    before = {path: path.stat().st_ino for path in there.rglob("*") if path.is_file()}
    (there / "model 3.tflite").write_bytes(b"damaged")
    (there / "model 4.tflite").unlink()
    adb.push(folder, f"{TMP}/job")
    assert contents(there) == contents(folder)
    kept = {path for path, inode in before.items() if path.stat().st_ino == inode}
    assert before.keys() - kept <= {there / "model 3.tflite", there / "model 4.tflite"}


def test_push_of_nothing_is_told(phone: Phone, tmp_path: pathlib.Path) -> None:
    device, adb = phone()
    with pytest.raises(UserError, match="no such file or folder"):
        adb.push(tmp_path / "none", f"{TMP}/none")
    with pytest.raises(UserError, match="expected an absolute path of the device"):
        adb.push(pathlib.Path(__file__), "file")
    (tmp_path / "empty").mkdir()
    adb.push(tmp_path / "empty", f"{TMP}/empty")
    assert list(device.host_path(f"{TMP}/empty").iterdir()) == []


def test_attached_lists_every_device_with_its_state(phone: Phone, adb_port: int) -> None:
    good, adb = phone(properties={"ro.product.model": "Pixel 8 Pro"})
    bad, shut = phone(Unauthorized(times=99))
    adb.connect()
    with pytest.raises(DeviceError, match="unlock the device"):
        shut.connect()
    deadline = time.monotonic() + 10
    while Attached(bad.serial, "unauthorized", "") not in devices(server_port=adb_port):  # "authorizing" at first
        assert time.monotonic() < deadline
    assert Attached(good.serial, "device", "Pixel_8_Pro") in devices(server_port=adb_port)


def test_two_devices_at_the_same_time(phone: Phone, large: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pairs = [phone(DropPush(after_bytes=LARGE // 2)), phone()]
    # Both must be inside at once for either to pass.
    meeting = threading.Barrier(2, timeout=30)

    def work(pair: tuple[TestDevice, Adb]) -> str:
        device, adb = pair
        adb.push(large, f"{TMP}/large")
        meeting.wait()
        adb.pull(f"{TMP}/large", tmp_path / (device.root.name + ".pulled"))
        return sha256(tmp_path / (device.root.name + ".pulled"))

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(work, pairs)) == [sha256(large)] * 2


def test_survives_a_device_that_is_offline_at_first(phone: Phone) -> None:
    _, adb = phone(Offline())
    assert adb.shell(["echo", "here"]).stdout == "here\n"


def test_unauthorized_is_told_at_once(phone: Phone) -> None:
    device, adb = phone(Unauthorized(times=99))
    with pytest.raises(DeviceError, match=rf"^device {device.serial}: .*auth.*; unlock the device") as raised:
        adb.properties()
    assert not isinstance(raised.value, DeviceLostError)
    assert "\n" not in str(raised.value)


def test_survives_dropped_pushes(phone: Phone, large: pathlib.Path) -> None:
    device, adb = phone(DropPush(after_bytes=LARGE // 2, times=2))
    adb.push(large, f"{TMP}/large")
    assert sha256(device.host_path(f"{TMP}/large")) == sha256(large)


def test_a_folder_gets_through_as_long_as_some_files_do(phone: Phone, tmp_path: pathlib.Path) -> None:
    device, adb = phone(DropPush(after_bytes=250_000, times=5))
    folder = tmp_path / "job"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}").write_bytes(os.urandom(100_000))
    adb.push(folder, f"{TMP}/job")
    there = device.host_path(f"{TMP}/job")
    assert {p.name: sha256(p) for p in there.iterdir()} == {p.name: sha256(p) for p in folder.iterdir()}


def test_gives_up_on_pushes_that_always_drop(phone: Phone, large: pathlib.Path) -> None:
    device, adb = phone(DropPush(after_bytes=LARGE // 2, times=99))
    with pytest.raises(DeviceLostError, match=rf"{device.serial}: push to {TMP}.*couldn't read.*cable or the network"):
        adb.push(large, f"{TMP}/large.bin")


def test_survives_corrupt_files(phone: Phone, large: pathlib.Path) -> None:
    device, adb = phone(Corrupt(times=2))
    adb.push(large, f"{TMP}/large")
    assert sha256(device.host_path(f"{TMP}/large")) == sha256(large)


def test_gives_up_on_storage_that_always_corrupts(phone: Phone, large: pathlib.Path) -> None:
    _, adb = phone(Corrupt(times=99))
    with pytest.raises(DeviceError, match=f"copy's sha256 is [0-9a-f]{{64}}, the original's {sha256(large)}, after 3"):
        adb.push(large, f"{TMP}/large")


def test_too_little_space_is_told_before_the_push(phone: Phone, large: pathlib.Path) -> None:
    device, adb = phone(storage=LARGE)
    with pytest.raises(DeviceError, match=r"3\.0 MB are to be sent and 3\.0 MB are free; free space"):
        adb.push(large, f"{TMP}/large")
    assert not device.host_path(f"{TMP}/large").exists()


def test_storage_that_fills_up_in_a_push_is_told(phone: Phone, large: pathlib.Path) -> None:
    device, adb = phone(StorageFull(after_bytes=LARGE // 2))
    with pytest.raises(DeviceError, match="No space left on device; free space on the device") as raised:
        adb.push(large, f"{TMP}/large")
    assert not isinstance(raised.value, DeviceLostError)
    assert not device.host_path(f"{TMP}/large").exists()


def test_a_reason_in_a_file_name_is_no_reason(phone: Phone, large: pathlib.Path) -> None:
    _, adb = phone(StorageFull(after_bytes=LARGE // 2))
    named = large.rename(large.with_name("device offline closed.bin"))
    with pytest.raises(DeviceError, match="free space on the device") as raised:
        adb.push(named, f"{TMP}/unauthorized")
    assert not isinstance(raised.value, DeviceLostError)


def test_command_that_hangs_is_told(phone: Phone) -> None:
    device, adb = phone(Hang("runner"))
    with pytest.raises(DeviceTimeoutError, match=rf"{device.serial}: echo runner: no answer within 0\.5 s"):
        adb.shell(["echo", "runner"], timeout=0.5)
    assert adb.shell(["echo", "runner"]).stdout == "runner\n"


def test_question_that_hangs_is_asked_again_on_a_new_connection(phone: Phone) -> None:
    _, adb = phone(Hang("getprop", times=2), properties={"ro.soc.model": "SM8650"})
    assert dataclasses.replace(adb, answer_seconds=0.5).properties()["ro.soc.model"] == "SM8650"


def test_half_a_command_is_not_taken_for_a_whole_one(phone: Phone) -> None:
    device, adb = phone(Disconnect("runner", after_seconds=0.2))
    adb.connect()
    with pytest.raises(DeviceLostError, match="the connection ended before the command did"):
        adb.shell(["sh", "-c", f"echo runner >>{TMP}/runs; echo begun; sleep 1; echo end"], tries=1)
    adb.connect()
    assert device.host_path(f"{TMP}/runs").read_text() == "runner\n"


def test_command_that_may_run_again_survives_disconnects_and_reboots(phone: Phone) -> None:
    device, adb = phone(Disconnect("runner", after_seconds=0.1), Reboot("runner", after_seconds=0.1, times=2))
    # The first run meets both faults, the second the other reboot.
    result = adb.shell(["sh", "-c", f"echo runner >>{TMP}/runs; sleep 0.5; echo end"])
    assert result == Result(0, "end\n", "")
    assert device.host_path(f"{TMP}/runs").read_text() == "runner\n" * 3


def test_killed_process_is_an_exit_code(phone: Phone) -> None:
    device, adb = phone(Kill("runner", after_seconds=0.2))
    result = adb.shell(["sh", "-c", f"echo runner >>{TMP}/runs; sleep 100"])
    assert result.code == 137
    assert device.host_path(f"{TMP}/runs").read_text() == "runner\n"


def test_detached_program_gives_code_and_outputs(phone: Phone) -> None:
    _, adb = phone()
    command = ["sh", "-c", 'pwd; echo "$1" >&2; exit 9', "sh", ODD]
    result = adb.run_detached(command, folder=f"{TMP}/job", name="run 1", timeout=20, interval=0.05)
    assert result == Result(9, f"{TMP}/job\n", ODD + "\n")


def test_detached_program_outlives_lost_connections_and_runs_once(phone: Phone) -> None:
    device, adb = phone(Disconnect("run1", after_seconds=0.1, times=3))
    command = ["sh", "-c", f"echo x >>{TMP}/runs; sleep 1.5; echo end"]
    options = {"folder": TMP, "timeout": 30, "interval": 0.1}
    assert adb.run_detached(command, name="run1", **options) == Result(0, "end\n", "")
    # A second call reads what the first has left; another name runs anew.
    assert adb.run_detached(command, name="run1", **options) == Result(0, "end\n", "")
    assert device.host_path(f"{TMP}/runs").read_text() == "x\n"
    assert adb.run_detached(["echo"], name="run2", **options).code == 0


def test_second_host_waits_for_the_program_of_the_first(phone: Phone) -> None:
    device, adb = phone()
    command = ["sh", "-c", f"echo x >>{TMP}/runs; sleep 1; echo end"]
    run = lambda: adb.run_detached(command, folder=TMP, name="run", timeout=20, interval=0.05)  # noqa: E731
    with ThreadPoolExecutor() as pool:
        first, second = pool.submit(run), pool.submit(run)
        assert first.result() == second.result() == Result(0, "end\n", "")
    assert device.host_path(f"{TMP}/runs").read_text() == "x\n"


def test_killed_host_is_followed_by_one_that_finishes_its_job(phone: Phone, adb_port: int) -> None:
    device, adb = phone()
    command = ["sh", "-c", f"echo x >>{TMP}/runs; until [ -e {TMP}/go ]; do sleep 0.05; done; echo end"]
    arguments = f"{command!r}, folder={TMP!r}, name='run', timeout=30, interval=0.05"
    program = f"import tfq_bench.adb as a; a.Adb({device.serial!r}, server_port={adb_port}).run_detached({arguments})"
    first = subprocess.Popen([sys.executable, "-c", program])
    try:
        while not device.host_path(f"{TMP}/runs").exists():
            assert first.poll() is None
            time.sleep(0.02)
    finally:
        first.kill()
        first.wait()
    device.host_path(f"{TMP}/go").touch()
    assert adb.run_detached(command, folder=TMP, name="run", timeout=30, interval=0.05) == Result(0, "end\n", "")
    assert device.host_path(f"{TMP}/runs").read_text() == "x\n"


def test_detached_program_that_the_device_ends_is_told_and_can_run_again(phone: Phone) -> None:
    device, adb = phone(Reboot("first look", after_seconds=0.3))
    options = {"folder": TMP, "name": "run", "timeout": 30, "interval": 0.1}
    with pytest.raises(DeviceError, match="its shell was killed or the device restarted"):
        adb.run_detached(["sh", "-c", ": first look; sleep 100"], **options)
    assert adb.run_detached(["echo", "again"], **options).stdout == "again\n"
    assert device.kill_processes() is False


def test_detached_program_that_takes_too_long_is_killed(phone: Phone) -> None:
    device, adb = phone()
    with pytest.raises(DeviceTimeoutError, match=r"not done within 0\.5 s; killed"):
        adb.run_detached(["sh", "-c", "sleep 100; :"], folder=TMP, name="run", timeout=0.5, interval=0.1)
    assert not device.host_path(f"{TMP}/run").exists()
    deadline = time.monotonic() + 10
    while device.kill_processes():  # a killed process is seen until its parent has taken note
        assert time.monotonic() < deadline


def test_detached_program_in_a_folder_that_cannot_hold_it_is_told(phone: Phone) -> None:
    _, adb = phone()
    adb.shell(["touch", f"{TMP}/file"])
    with pytest.raises(DeviceError, match=f"mkdir -p {TMP}/file/job: exit code 1: .*Not a directory; check the path"):
        adb.run_detached(["true"], folder=f"{TMP}/file/job", name="run", timeout=20)
    with pytest.raises(DeviceError, match=r"exit code \d: .*/file; "):
        adb.run_detached(["true"], folder=TMP, name="file", timeout=20)


def test_device_that_is_not_there_is_told(adb_port: int) -> None:
    network = Adb("127.0.0.1:1", server_port=adb_port, patience=0.1)
    with pytest.raises(DeviceLostError, match=r"^device 127\.0\.0\.1:1: connect: .*refused.*; check the cable"):
        network.shell(["true"])
    usb = Adb("0A1B2C3D", server_port=adb_port, patience=0.1)
    with pytest.raises(DeviceLostError, match=r"^device 0A1B2C3D: connect: .*not found; plug it in"):
        usb.push(pathlib.Path(__file__), f"{TMP}/f")


@pytest.mark.usefixtures("adb_server")
def test_another_program_on_the_port_of_the_adb_server_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):  # closed at the end
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        peer.recv(100)
                        peer.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        try:
            with pytest.raises(DeviceError, match=r"protocol fault.*; free the port of the adb server") as raised:
                Adb("0A1B2C3D", server_port=port).shell(["true"])
            assert not isinstance(raised.value, DeviceLostError)
            with pytest.raises(UserError, match=r"^adb devices: .*protocol fault.*; free the port of the adb server"):
                devices(server_port=port)
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def test_missing_adb_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/adb: No such file or directory; install adb")):
        Adb("x", program=f"{tmp_path}/adb").shell(["true"])
    with pytest.raises(UserError, match="Permission denied; install adb"):
        devices(program=str(tmp_path))


def test_trouble_with_usb_is_told(tmp_path: pathlib.Path) -> None:
    # No USB here: a program that says what adb says (adb/client/usb_libusb.cpp, sysdeps and transport.cpp).
    program = tmp_path / "adb"
    program.write_text(
        """#!/bin/sh
why="user in plugdev group; are your udev rules wrong?" url=http://developer.android.com/tools/device.html
if [ "$1" = devices ]; then
  echo "List of devices attached"
  echo "0A1B2C3D               no permissions ($why); see [$url] usb:1-2 transport_id:1"
  echo "emulator-5554          device product:sdk model:sdk_phone device:emu transport_id:2"
  echo
  exit
fi
printf 'error: insufficient permissions for device: %s\\nSee [%s] for more information\\n' "$why" $url >&2
exit 1
"""
    )
    program.chmod(0o755)
    found = devices(program=str(program))
    assert [device.serial for device in found] == ["0A1B2C3D", "emulator-5554"]
    assert found[0].state.startswith("no permissions (user in plugdev group")
    assert found[1] == Attached("emulator-5554", "device", "sdk_phone")
    with pytest.raises(DeviceError, match=r"^device 0A1B2C3D: .*udev rules wrong\?.*; give this user access"):
        Adb("0A1B2C3D", program=str(program)).properties()
