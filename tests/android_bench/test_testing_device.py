"""The test device under the real adb client: what adbd does, and each fault."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

from android_bench.testing import (
    Corrupt,
    Disconnect,
    DropPush,
    Hang,
    Kill,
    Offline,
    Reboot,
    Slow,
    StorageFull,
    TestDevice,
    Unauthorized,
    emulation,
)

Client = Callable[..., subprocess.CompletedProcess[str]]
TMP = "/data/local/tmp"
ODD_NAME = """a b'c"d ü $HOME `id` * \\ ;&.bin"""
# So much that a fault inside a push has something to cut off.
LARGE = 3_000_000
# Linux's names of the bits of AT_HWCAP on arm64, bit 0 first.
HWCAPS = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 "
    "sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)


def connect(adb: Client, device: TestDevice) -> Callable[..., subprocess.CompletedProcess[str]]:
    assert adb("connect", device.serial).stdout == f"connected to {device.serial}\n"
    return lambda *arguments, **options: adb("-s", device.serial, *arguments, **options)


def state(adb: Client, device: TestDevice) -> str:
    lines = [line.split("\t") for line in adb("devices").stdout.splitlines() if "\t" in line]
    return dict(lines)[device.serial]


def large_file(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "large.bin"
    path.write_bytes(os.urandom(LARGE))
    return path


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_devices_connect_and_answer_with_their_own_properties(adb: Client, tmp_path: pathlib.Path) -> None:
    with (
        TestDevice(tmp_path / "a", properties={"ro.soc.model": "SM8650", "ro.product.model": "Phone One"}) as a,
        TestDevice(tmp_path / "b", properties={"ro.soc.model": "GS201"}) as b,
    ):
        one, two = connect(adb, a), connect(adb, b)
        assert {a.serial, b.serial} <= set(adb("devices").stdout.split())
        assert "model:Phone_One" in adb("devices", "-l").stdout
        assert one("shell", "getprop ro.soc.model").stdout == "SM8650\n"
        assert two("shell", "getprop ro.soc.model").stdout == "GS201\n"
        assert two("shell", "getprop ro.product.cpu.abi").stdout == "x86_64\n"
        assert two("shell", "getprop no.such.property").stdout == "\n"
        assert "[ro.build.version.sdk]: [34]\n" in one("shell", "getprop").stdout
        assert "  level: 87\n" in one("shell", "dumpsys battery").stdout


def test_two_devices_run_commands_at_the_same_time(adb: Client, adb_port: int, tmp_path: pathlib.Path) -> None:
    # Each waits for the other's file through the host, so neither could end if they ran one after the other.
    with TestDevice(tmp_path / "a") as a, TestDevice(tmp_path / "b") as b:
        connect(adb, a), connect(adb, b)
        script = "touch {0}/{1}; until [ -e {0}/{2} ]; do sleep 0.05; done; echo met"
        runs = []
        for device, names in ((a, ("a.met", "b.met")), (b, ("b.met", "a.met"))):
            text = script.format(tmp_path, *names)
            command = ["adb", "-P", str(adb_port), "-s", device.serial, "shell", text]
            runs.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True))
        assert [run.communicate(timeout=30)[0] for run in runs] == ["met\n", "met\n"]


def test_shell_keeps_exit_code_stdout_stderr_and_stdin_apart(
    adb: Client, adb_port: int, tmp_path: pathlib.Path
) -> None:
    with TestDevice(tmp_path / "phone") as device:
        client = connect(adb, device)
        done = client("shell", "echo out; echo err >&2; exit 7")
        assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
        assert client("shell", "kill -9 $$").returncode == 137
        assert client("shell", "python3").returncode == 127  # a phone has none
        assert client("exec-out", "echo out; echo err >&2").stdout == "out\nerr\n"
        piped = subprocess.run(
            ["adb", "-P", str(adb_port), "-s", device.serial, "shell", "tr a-z A-Z; echo end"],
            input=b"lower" * 50_000 + b"\n",
            capture_output=True,
            timeout=30,
        )
        assert piped.stdout == b"LOWER" * 50_000 + b"\nend\n"


def test_commands_see_the_devices_paths_and_print_them(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone") as device:
        client = connect(adb, device)
        script = f"mkdir -p {TMP}/x && cd '{TMP}/x' && pwd && echo 1 >{TMP}/x/f && cat {TMP}/x/f; cat {TMP}/nothing"
        done = client("shell", script)
        assert done.stdout == f"{TMP}/x\n1\n"
        assert done.stderr == f"cat: {TMP}/nothing: No such file or directory\n"
        assert (device.host_path(f"{TMP}/x/f")).read_text() == "1\n"
        # A prefix that is cut by the end of a block of output is still put back.
        wanted = "".join(f"{n} {TMP}/x\n" for n in range(3000))
        assert client("shell", f'for n in $(seq 0 2999); do echo "$n {TMP}/x"; done').stdout == wanted
        assert client("shell", f"chmod 700 {TMP}/x/f; stat -c %a {TMP}/x/f; rm -rf {TMP}/x; ls {TMP}").stdout == "700\n"


def test_large_file_goes_and_comes_back_with_the_same_hash(adb: Client, tmp_path: pathlib.Path) -> None:
    local, back = tmp_path / "large", tmp_path / "back"
    local.write_bytes(os.urandom(50_000_000))
    local.chmod(0o750)
    wanted = hashlib.sha256(local.read_bytes()).hexdigest()
    with TestDevice(tmp_path / "phone") as device:
        client = connect(adb, device)
        assert client("push", local, f"{TMP}/deep/er/large").returncode == 0
        assert client("shell", f"sha256sum {TMP}/deep/er/large").stdout == f"{wanted}  {TMP}/deep/er/large\n"
        assert client("shell", f"[ -x {TMP}/deep/er/large ] && echo executable").stdout == "executable\n"
        assert client("pull", f"{TMP}/deep/er/large", back).returncode == 0
        assert hashlib.sha256(back.read_bytes()).hexdigest() == wanted
        missing = client("pull", f"{TMP}/nothing", back)
        assert missing.returncode == 1
        assert "No such file or directory" in missing.stdout + missing.stderr


def test_folder_with_odd_names_goes_and_comes_back(adb: Client, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "source" / ODD_NAME
    (folder / "sub folder").mkdir(parents=True)
    contents = {ODD_NAME: b"1", "sub folder/" + ODD_NAME: b"22", "empty": b""}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with TestDevice(tmp_path / "phone") as device:
        client = connect(adb, device)
        assert client("push", folder, f"{TMP}/").returncode == 0
        assert client("pull", f"{TMP}/{ODD_NAME}", tmp_path / "back").returncode == 0
    back = {
        str(p.relative_to(tmp_path / "back")): p.read_bytes() for p in (tmp_path / "back").rglob("*") if p.is_file()
    }
    assert back == contents


def test_paths_cannot_leave_the_root(adb: Client, tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("host")
    with TestDevice(tmp_path / "phone") as device:
        client = connect(adb, device)
        assert client("pull", "/data/../../secret", tmp_path / "back").returncode == 1
        assert client("push", secret, "/../../pushed").returncode == 0
        assert (device.root / "pushed").exists()
    assert not (tmp_path / "pushed").exists()


def test_storage_is_counted_and_a_push_that_does_not_fit_fails(adb: Client, tmp_path: pathlib.Path) -> None:
    local = large_file(tmp_path)
    with TestDevice(tmp_path / "phone", storage=LARGE + LARGE // 2) as device:
        client = connect(adb, device)
        assert client("push", local, f"{TMP}/first").returncode == 0
        free = int(client("shell", f"df -k {TMP}").stdout.split()[-3]) * 1024
        assert LARGE // 4 < free < LARGE // 2
        failed = client("push", local, f"{TMP}/second")
        assert failed.returncode == 1
        assert "No space left on device" in failed.stdout + failed.stderr
        assert client("shell", f"ls {TMP}; rm {TMP}/first").stdout == "first\n"
        assert client("push", local, f"{TMP}/second").returncode == 0


def test_reboot_keeps_files_ends_processes_and_needs_a_new_connection(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone", reboot_seconds=0.2) as device:
        client = connect(adb, device)
        client("shell", f"setsid nohup sh -c 'while :; do date >{TMP}/now; sleep 0.02; done' >/dev/null 2>&1 &")
        now = device.host_path(f"{TMP}/now")
        wait_until(now.exists)
        assert client("reboot").returncode == 0
        wait_until(lambda: state(adb, device) == "offline")
        assert client("shell", "true").stderr == "error: device offline\n"

        def back() -> bool:
            adb("disconnect", device.serial)
            return adb("connect", device.serial).stdout.startswith("connected")

        wait_until(back)
        before = now.stat().st_mtime_ns
        time.sleep(0.2)
        assert now.stat().st_mtime_ns == before


def test_the_end_of_a_device_leaves_no_process(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone") as device:
        client = connect(adb, device)
        client("shell", "setsid nohup sleep 1000 >/dev/null 2>&1 &")
        number = int(client("shell", "setsid nohup sleep 1000 >/dev/null 2>&1 & echo $!").stdout)
        assert pathlib.Path(f"/proc/{number}").exists()
    wait_until(lambda: not _alive(number))


def _alive(process: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(bool(emulation.missing()), reason=f"no {emulation.missing()} (apt install qemu-user gcc)")
@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-gcc") is None, reason="no aarch64-linux-gnu-gcc")
def test_arm64_programs_run_under_qemu_and_see_an_arm_cpu(adb: Client, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "probe.c"
    source.write_text(
        """
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/auxv.h>
        #include <sys/utsname.h>
        int main(int count, char **arguments) {
          struct utsname name;
          uname(&name);
          printf("%s %lx %s", name.machine, getauxval(AT_HWCAP), getenv("LD_PRELOAD") ? "preloaded" : "clean");
          for (int i = 0; i < count; i++) printf(" <%s>", arguments[i]);
          puts("");
          char line[300];
          FILE *file = fopen("/proc/cpuinfo", "r");
          while (fgets(line, sizeof line, file)) fputs(line, stdout);
          return 3;
        }
        """
    )
    subprocess.run(["aarch64-linux-gnu-gcc", "-o", tmp_path / "probe", source], check=True)
    with TestDevice(tmp_path / "phone", abi="arm64-v8a") as device:
        client = connect(adb, device)
        assert client("shell", "getprop ro.product.cpu.abi").stdout == "arm64-v8a\n"
        assert client("push", tmp_path / "probe", f"{TMP}/probe").returncode == 0
        done = client("shell", f"cd {TMP} && ./probe 'a b' ''")
        first, *cpuinfo = done.stdout.splitlines()
        machine, hwcap, clean, arguments = first.split(" ", 3)
        assert (done.returncode, done.stderr) == (3, "")
        assert (machine, clean, arguments) == ("aarch64", "clean", "<./probe> <a b> <>")
        # cpuinfo claims what the emulated CPU has, no more and no less.
        names = HWCAPS.split()
        offered = {name for bit, name in enumerate(names) if int(hwcap, 16) >> bit & 1}
        (claimed,) = {line.split(":")[1].strip() for line in cpuinfo if line.startswith("Features")}
        assert set(claimed.split()) == offered
        for wrapper in ("nohup", "setsid -w", "env", "timeout 9", "taskset 1"):
            through = client("shell", f"cd {TMP}; {wrapper} ./probe x")
            assert (through.returncode, through.stdout.split()[0]) == (3, "aarch64"), wrapper
        assert client("push", "/bin/true", f"{TMP}/true").returncode == 0
        assert client("shell", f"{TMP}/true; echo $?").stdout == "0\n"  # this machine's programs are left alone


def test_fault_offline(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone", faults=[Offline()]) as device:
        assert adb("connect", device.serial).stdout == f"failed to connect to {device.serial}\n"
        assert state(adb, device) == "offline"
        adb("disconnect", device.serial)
        connect(adb, device)


def test_fault_unauthorized(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone", faults=[Unauthorized(times=2)]) as device:
        for _ in range(2):
            assert adb("connect", device.serial).stdout == f"failed to authenticate to {device.serial}\n"
            wait_until(lambda: state(adb, device) == "unauthorized")
            assert "device unauthorized" in adb("-s", device.serial, "shell", "true").stderr
            adb("disconnect", device.serial)
        connect(adb, device)


def test_fault_connection_dropped_in_a_push(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone", faults=[DropPush(after_bytes=LARGE // 2)]) as device:
        client = connect(adb, device)
        assert client("push", large_file(tmp_path), f"{TMP}/large").returncode == 1
        wait_until(lambda: state(adb, device) == "offline")
        assert list(device.host_path(TMP).iterdir()) == []
        adb("disconnect", device.serial)
        assert connect(adb, device)("push", tmp_path / "large.bin", f"{TMP}/large").returncode == 0


def test_fault_storage_full(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone", faults=[StorageFull(after_bytes=LARGE // 2)]) as device:
        client = connect(adb, device)
        assert int(client("shell", f"df -k {TMP}").stdout.split()[-3]) > 1_000_000
        failed = client("push", large_file(tmp_path), f"{TMP}/large")
        assert failed.returncode == 1
        assert "remote write failed: No space left on device" in failed.stdout + failed.stderr
        assert int(client("shell", f"df -k {TMP}").stdout.split()[-3]) * 1024 < LARGE
        device.empty_storage()
        assert client("push", tmp_path / "large.bin", f"{TMP}/large").returncode == 0


def test_fault_corrupt_file(adb: Client, tmp_path: pathlib.Path) -> None:
    local = large_file(tmp_path)
    with TestDevice(tmp_path / "phone", faults=[Corrupt()]) as device:
        client = connect(adb, device)
        for differing_bits in (1, 0):
            assert client("push", local, f"{TMP}/large").returncode == 0
            there = int.from_bytes(device.host_path(f"{TMP}/large").read_bytes(), "little")
            assert (there ^ int.from_bytes(local.read_bytes(), "little")).bit_count() == differing_bits


def test_fault_slow(adb: Client, tmp_path: pathlib.Path) -> None:
    local = tmp_path / "small"
    local.write_bytes(bytes(200_000))
    with TestDevice(tmp_path / "phone", faults=[Slow(bytes_per_second=400_000)]) as device:
        client = connect(adb, device)
        with pytest.raises(subprocess.TimeoutExpired):
            client("push", local, f"{TMP}/small", timeout=0.25)
        assert client("push", local, f"{TMP}/small").returncode == 0


def test_fault_hang(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone", faults=[Hang("runner")]) as device:
        client = connect(adb, device)
        assert client("shell", "echo other").stdout == "other\n"
        with pytest.raises(subprocess.TimeoutExpired):
            client("shell", "echo runner", timeout=0.5)
        assert client("shell", "echo runner").stdout == "runner\n"


def test_fault_disconnect_lets_the_command_go_on(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone", faults=[Disconnect("runner", after_seconds=0.1)]) as device:
        client = connect(adb, device)
        done = client("shell", f": runner; echo begun; sleep 0.5; touch {TMP}/done; echo done; exit 5")
        # The client's own behaviour, which everything built on it must know: no error, exit code 0.
        assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", "")
        wait_until(device.host_path(f"{TMP}/done").exists)


def test_fault_kill_leaves_the_shell(adb: Client, tmp_path: pathlib.Path) -> None:
    with TestDevice(tmp_path / "phone", faults=[Kill("sleep", after_seconds=0.2)]) as device:
        done = connect(adb, device)("shell", "sleep 100; echo $?; exit 5")
        assert (done.returncode, done.stdout) == (5, "137\n")


def test_fault_reboot_during_a_command(adb: Client, tmp_path: pathlib.Path) -> None:
    faults = [Reboot("sleep", after_seconds=0.2)]
    with TestDevice(tmp_path / "phone", faults=faults, reboot_seconds=0.1) as device:
        client = connect(adb, device)
        assert client("shell", f"touch {TMP}/before; sleep 1; touch {TMP}/after").returncode == 0
        wait_until(lambda: state(adb, device) == "offline")
        time.sleep(1)
        assert [path.name for path in device.host_path(TMP).iterdir()] == ["before"]


def test_bad_arguments_are_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="abi 'mips'"):
        TestDevice(tmp_path / "phone", abi="mips")
    with pytest.raises(ValueError, match="only letters"):
        TestDevice(tmp_path / "my phone")
