"""One Android device through the plain `adb` program: commands, files and their hashes, properties, storage.

Only a lost connection is tried again, never a command that failed by itself. Three habits of adb shape this file:

- `adb shell` joins its arguments with blanks and hands the text to the device's sh: each is quoted here.
- `adb shell` exits with 0 when the connection is lost halfway: the end of a command is known by a mark that the
  device prints after it, with the exit code.
- after a restart or a lost connection a network device stays "offline", and `adb connect` says "already connected":
  it takes a `disconnect` first. A USB device comes back by itself.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tfq_bench.adb_answers import (
    DeviceError,
    DeviceLostError,
    DeviceTimeoutError,
    reason,
    run_adb,
    said_by,
    without_daemon,
)
from tfq_bench.adb_files import batches, files_below
from tfq_bench.adb_scripts import LOOK, START
from tfq_bench.job import file_sha256

from tfq.errors import UserError

_T = TypeVar("_T")
# What the device prints after a command; the record separator keeps it apart from what the command printed.
_MARK = re.compile(rb"\x1etfq-exit (\d+)\r?\n\Z")
# Kept free on the device besides what is pushed: a full /data makes Android kill apps and stop services.
_RESERVE_BYTES = 64 << 20


@dataclass(frozen=True)
class Result:
    """What a command on the device gave: its own exit code (128 + signal for a killed one), stdout and stderr."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Adb:
    """One device.

    Attributes:
      serial: as `adb devices` prints it; HOST:PORT is connected to where it is not yet.
      program: the adb program, a name on PATH or a path.
      server_port: port of the adb server; None: adb's own choice.
      tries: how often an operation is begun before a lost connection is an error.
      patience: seconds to wait for a lost device to come back; a restarted phone takes about a minute.
      answer_seconds: how long a small question (a property, a listing) may take before the connection counts as lost.
    """

    serial: str
    program: str = "adb"
    server_port: int | None = None
    tries: int = 3
    patience: float = 90.0
    answer_seconds: float = 30.0

    def connect(self) -> None:
        """Waits, for no longer than `patience`, until the device takes commands.

        Raises:
          DeviceError: it does not; with what adb said last. At once where waiting cannot help (unauthorized).
        """
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return self._connect_once()
            except (DeviceLostError, DeviceTimeoutError):
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.5)

    def shell(
        self,
        command: Sequence[str],
        *,
        timeout: float = 30.0,
        folder: str | None = None,
        tries: int | None = None,
    ) -> Result:
        """Runs a program of the device with these arguments, each quoted, in `folder`, and waits for its end.

        Args:
          timeout: seconds; what has been started on the device is not ended by it.
          tries: 1 for a command that must not run twice.

        Raises:
          DeviceLostError: the connection was lost in every try.
          DeviceTimeoutError: the command has not ended in time.
          DeviceError: the device does not let this computer in.
        """
        text = shlex.join(command)
        if folder is not None:
            text = f"cd {shlex.quote(folder)} && {text}"
        return self._again(lambda: self._shell_once(text, timeout), tries)

    def run_detached(
        self, command: Sequence[str], *, folder: str, name: str, timeout: float, interval: float = 1.0
    ) -> Result:
        """Runs a program that goes on while the connection is lost, and waits for its end; for long measurements.

        Its stdout, stderr, process id and exit code stand in `folder`/`name`, and both paths are absolute. A call
        with a name that is there already starts nothing and waits for, or reads, what that call had started; remove
        that folder to run anew.

        Args:
          timeout: seconds from this call, the device's absences included; then the program is killed.
          interval: seconds between two looks.

        Raises:
          DeviceTimeoutError: it has not ended in time.
          DeviceError: it was killed together with its shell, or the device restarted; or as `shell`.
        """
        deadline = time.monotonic() + timeout
        state = posixpath.join(folder, name)
        self.make_folders([folder])
        self._ask(["sh", "-c", START, "sh", state, folder, *command])
        unborn = 0
        while True:
            seen = self._output(["sh", "-c", LOOK, "sh", state]).strip()
            if seen.isdigit():
                break
            # Between the lock and the process id there is a moment in which neither a process nor a code is there.
            unborn = unborn + 1 if seen == "gone" else 0
            if unborn > 10 or seen.startswith("gone "):
                self.remove(state)
                raise self._error(shlex.join(command), "its shell was killed or the device restarted", "run it again")
            if time.monotonic() > deadline:
                self._ask(["sh", "-c", 'kill -9 "-$(cat "$1/pid")"', "sh", state])
                self.remove(state)
                raise self._error(
                    shlex.join(command), f"not done within {timeout:g} s; killed", "allow more", kind=DeviceTimeoutError
                )
            time.sleep(interval)
        stdout, stderr = (self._output(["cat", f"{state}/{output}"]) for output in ("stdout", "stderr"))
        return Result(int(seen), stdout, stderr)

    def push(self, local: Path, remote: str) -> None:
        """Copies a file, or a folder with all it holds, to exactly the path `remote`, and verifies every hash.

        What is there already with the right hash is not sent again, so a second call finishes what the first began.
        A lost connection counts as one of the `tries` only if no file has arrived since the last one.

        Raises:
          UserError: `local` cannot be read.
          DeviceError: too little space, no right to write there, or hashes that stay wrong.
        """
        if not remote.startswith("/"):
            raise UserError(f"{remote}: expected an absolute path of the device, such as /data/local/tmp/job")
        files = dict(files_below(local, remote))
        wanted = {path: file_sha256(source) for path, source in files.items()}
        sizes = {path: source.stat().st_size for path, source in files.items()}
        self.make_folders({posixpath.dirname(path) for path in files} | ({remote} if local.is_dir() else set()))
        there = self._hashes(files)
        left, lost = self.tries, None
        while missing := [path for path in there if there[path] != wanted[path]]:
            left = self.tries if len(missing) < len(there) else left
            if not left:
                raise lost or self._mismatch("push", missing[0], wanted[missing[0]], there[missing[0]])
            left, lost = left - 1, None
            self._require_space(posixpath.dirname(missing[0]), sum(sizes[path] for path in missing))
            try:
                self._again(functools.partial(self._push_once, {path: files[path] for path in missing}), tries=1)
            except DeviceLostError as e:
                lost = e
            there = self._hashes(missing)

    def pull(self, remote: str, local: Path) -> None:
        """Copies one file of the device to `local` and verifies its hash; `local` is whole or not there at all.

        Raises:
          DeviceError: it is not there, or the hashes stay different.
          UserError: `local` cannot be written.
        """
        if local.is_dir() or not local.parent.is_dir():
            raise UserError(f"{local}: expected the path of a file in a folder that exists, to pull {remote} to")
        wanted = self.sha256(remote)
        part = local.with_name(local.name + ".part")
        try:
            for _ in range(self.tries):
                self._again(lambda: self._transfer(["pull", remote, str(part)], f"pull {remote}", self._size(remote)))
                got = file_sha256(part)
                if got == wanted:
                    part.replace(local)
                    return
            raise self._mismatch("pull", remote, wanted, got)
        finally:
            part.unlink(missing_ok=True)

    def properties(self) -> dict[str, str]:
        """What getprop lists, as {"ro.product.model": "Pixel 8", ...}."""
        found = re.findall(r"^\[(.+?)\]: \[(.*?)\]\r?$", self._output(["getprop"]), re.MULTILINE | re.DOTALL)
        return dict(found)

    def free_bytes(self, path: str) -> int:
        """Free space of the file system that `path`, which must exist, lies on."""
        # The last line is "device 1K-blocks used available use% mounted-on"; a long device has a line of its own.
        fields = self._output(["df", "-k", path]).split("\n", 1)[-1].split()
        if len(fields) < 6 or not fields[-3].isdigit():
            raise self._error(f"df -k {path}", " ".join(fields) or "nothing", "check `adb shell df -k`")
        return int(fields[-3]) * 1024

    def sha256(self, path: str) -> str:
        """Hash of a file as 64 hexadecimal digits."""
        found = self._hashes([path])[path]
        if not found:
            raise self._error(f"sha256sum {path}", "no such file, or one that cannot be read", "check the path")
        return found

    def make_folders(self, paths: Iterable[str]) -> None:
        """Makes folders and what they lie in; those that are there already are left alone."""
        for some in batches(sorted(paths)):
            self._output(["mkdir", "-p", *some])

    def remove(self, path: str) -> None:
        """Removes a file or a folder with all it holds, where it is there."""
        self._output(["rm", "-rf", path])

    def _ask(self, command: Sequence[str], timeout: float | None = None) -> Result:
        """As `shell`, for what may run twice: no answer in time counts as a lost connection."""
        text, seconds = shlex.join(command), timeout or self.answer_seconds
        return self._again(lambda: self._lost_after_timeout(lambda: self._shell_once(text, seconds)))

    def _output(self, command: Sequence[str]) -> str:
        """What a short command prints, which must succeed and may run twice."""
        result = self._ask(command)
        if result.code:
            said = result.stderr.strip() or result.stdout.strip() or "no message"
            advice, _ = reason(said, command)
            raise self._error(shlex.join(command), f"exit code {result.code}: {said}", advice)
        return result.stdout

    def _hashes(self, paths: Iterable[str]) -> dict[str, str]:
        """Hash of each file; empty for one that is not there."""
        # By standard input, because what sha256sum prints of names differs between devices.
        script = (
            'command -v sha256sum >/dev/null || { echo "no sha256sum: Android 8 or newer is needed" >&2; exit 127; }; '
            'for path do { [ -f "$path" ] && sha256sum <"$path"; } || echo missing; done'
        )
        hashes: dict[str, str] = {}
        for some in batches(paths):
            # A hash takes up to a second per 20 MB on a slow phone.
            result = self._ask(["sh", "-c", script, "sh", *some], timeout=600.0)
            lines = [line.split()[0] for line in result.stdout.splitlines() if line]
            if result.code or len(lines) != len(some):
                raise self._error(
                    f"sha256sum of {some[0]}", result.stderr.strip() or result.stdout, "check the device's storage"
                )
            hashes.update(zip(some, ("" if line == "missing" else line for line in lines), strict=True))
        return hashes

    def _size(self, path: str) -> int:
        return int(self._output(["stat", "-c", "%s", path]))

    def _require_space(self, path: str, needed: int) -> None:
        free = self.free_bytes(path)
        if needed + _RESERVE_BYTES > free:
            raise self._error(
                f"push to {path}",
                f"{needed / 1e6:.1f} MB are to be sent and {free / 1e6:.1f} MB are free",
                f"free space on the device ({_RESERVE_BYTES / 1e6:.0f} MB must remain)",
            )

    def _push_once(self, files: Mapping[str, Path]) -> None:
        """One `adb push` per folder for the files that keep their name, one for each other file."""
        folders: dict[str, list[Path]] = {}
        for remote, local in files.items():
            same = posixpath.basename(remote) == local.name
            folders.setdefault(posixpath.dirname(remote) + "/" if same else remote, []).append(local)
        for target, sources in folders.items():
            size = sum(source.stat().st_size for source in sources)
            self._transfer(["push", *map(os.path.abspath, sources), target], f"push to {target}", size)

    def _transfer(self, arguments: Sequence[str], what: str, size: int) -> None:
        command = ["-s", self.serial, *arguments]
        # Half a megabyte a second is slower than any cable and most networks.
        done = self._lost_after_timeout(lambda: self._adb(command, timeout=60.0 + size / 500e3, what=what))
        if done.returncode:
            said = said_by(done)
            advice, lost = reason(said, arguments[1:])
            errors = [line for line in said.splitlines() if "error:" in line] or [said]
            raise self._error(what, errors[0], advice, kind=DeviceLostError if lost else DeviceError)

    def _shell_once(self, text: str, timeout: float) -> Result:
        script = f"({text}); printf '\\036tfq-exit %d\\n' $?"
        done = self._adb(["-s", self.serial, "shell", script], timeout=timeout, what=text)
        mark = _MARK.search(done.stdout)
        if mark is None:
            # Without a message of adb's own the device's shell has been cut off or killed, as in a restart.
            own = re.search(r"^(error|adb): .*", without_daemon(done.stderr), re.MULTILINE | re.DOTALL)
            said = own[0] if done.returncode and own else "the connection ended before the command did"
            advice, lost = reason(said)
            raise self._error(text, said, advice, kind=DeviceLostError if lost else DeviceError)
        return Result(int(mark[1]), done.stdout[: mark.start()].decode(errors="replace"), without_daemon(done.stderr))

    def _lost_after_timeout(self, work: Callable[[], _T]) -> _T:
        """A connection that stands still looks alive to adb, so it is given up here and made anew by `connect`."""
        try:
            return work()
        except DeviceTimeoutError as e:
            give_up = ["disconnect", self.serial] if self._on_network() else ["-s", self.serial, "reconnect"]
            self._adb(give_up, timeout=10.0, what=" ".join(give_up))
            raise DeviceLostError(str(e)) from e

    def _on_network(self) -> bool:
        return re.search(r":\d+$", self.serial) is not None

    def _connect_once(self) -> None:
        if self._state()[0]:
            return
        said = ""
        if self._on_network():
            self._adb(["disconnect", self.serial], timeout=10.0, what="disconnect")
            # adb waits ten seconds for a device that takes the connection and does not answer.
            said = said_by(self._adb(["connect", self.serial], timeout=20.0, what="connect"))
        ready, state = self._state()
        if not ready:
            said = f"{said}; {state}" if said else state
            advice, lost = reason(said)
            raise self._error("connect", said, advice, kind=DeviceLostError if lost else DeviceError)

    def _state(self) -> tuple[bool, str]:
        done = self._adb(["-s", self.serial, "get-state"], timeout=10.0, what="get-state")
        said = said_by(done)
        return not done.returncode and said == "device", said

    def _again(self, work: Callable[[], _T], tries: int | None = None) -> _T:
        for left in reversed(range(tries or self.tries)):
            self.connect()
            try:
                return work()
            except DeviceLostError:
                if not left:
                    raise
            # A restarting device ends its programs before its connections; adb takes a moment to note the latter.
            time.sleep(0.5)
        raise AssertionError("tries must be at least 1")

    def _adb(self, arguments: Sequence[str], *, timeout: float, what: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return run_adb(self.program, self.server_port, arguments, timeout)
        except subprocess.TimeoutExpired as e:
            raise self._error(
                what,
                f"no answer within {timeout:g} s",
                "check the device's screen, then try again",
                kind=DeviceTimeoutError,
            ) from e

    def _mismatch(self, verb: str, path: str, wanted: str, got: str) -> DeviceError:
        return self._error(
            f"{verb} {path}",
            f"the copy's sha256 is {got or 'missing'}, the original's {wanted}, after {self.tries} tries",
            "check the device's storage and the cable",
        )

    def _error(self, what: str, said: str, advice: str, *, kind: type[DeviceError] = DeviceError) -> DeviceError:
        short = what if len(what) <= 200 else what[:200] + "..."
        return kind(f"device {self.serial}: {short}: {' '.join(said.split())}; {advice}")
