"""What adb and a device answer: how it is asked for, what it means, and what to do about it."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tfq.errors import UserError
from tfq.execution.parent import die_with_parent


class DeviceError(UserError):
    """A device did not do what was asked of it; names its serial, what was tried, what came back and what to do."""


class DeviceLostError(DeviceError):
    """The connection to the device was lost or could not be made; what ran may or may not have finished."""


class DeviceTimeoutError(DeviceError):
    """The device has not answered in the time given; what ran there may still be running."""


# What adb or the device says, what to do about it, and whether a new connection may help. The first match counts.
_REASONS = (
    (r"unauthorized|failed to authenticate", "unlock the device and allow debugging from this computer", False),
    (r"(no|insufficient) permissions", "give this user access to the USB device (udev rules), then replug it", False),
    (
        r"check server version|connect to daemon|start daemon|protocol fault \(status",
        "free the port of the adb server or give another (`adb kill-server`)",
        False,
    ),
    (r"more than one device", "say which with --serials", False),
    (r"No space left on device", "free space on the device", False),
    (r"Read-only file system|Permission denied|Operation not permitted", "use a folder under /data/local/tmp", False),
    (r"No such file or directory|does not exist|[Ii]s a directory|[Nn]ot a directory", "check the path", False),
    (
        r"ended before|closed|couldn't (read|write)|reset|refused|failed to (connect|read|get feature set)|"
        r"protocol fault|[Bb]roken pipe|EOF|No route|unreachable|timed out|disconnected",
        "check the cable or the network",
        True,
    ),
    (r"device.* not found|no devices", "plug it in or switch it on, and look at `adb devices`", True),
    (r"offline|still connecting|still authorizing", "replug it or restart its debugging", True),
)


def run_adb(
    program: str, server_port: int | None, arguments: Sequence[str], timeout: float
) -> subprocess.CompletedProcess[bytes]:
    port = [] if server_port is None else ["-P", str(server_port)]
    command = [program, *port, *arguments]
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),  # the server that it may start lives on
        )
    except OSError as e:
        raise UserError(
            f"{program}: {e.strerror}; install adb (Android SDK platform-tools, Debian: apt install adb) "
            "or give its path"
        ) from e


def reason(said: str, names: Sequence[str] = ()) -> tuple[str, bool]:
    """What to do about a message of adb's or the device's, and whether a new connection may help.

    `names` are those of files in the message, which might read like a reason.
    """
    bare = functools.reduce(lambda text, name: text.replace(name, "") if name else text, names, said)
    for pattern, advice, lost in _REASONS:
        if re.search(pattern, bare):
            return advice, lost
    return "look at the message", False


def said_by(done: subprocess.CompletedProcess[bytes]) -> str:
    return (without_daemon(done.stderr) + done.stdout.decode(errors="replace")).strip() or "no message"


def without_daemon(stderr: bytes) -> str:
    """Without what the client says when it starts its server first."""
    return re.sub(r"^\* daemon .*\n", "", stderr.decode(errors="replace"), flags=re.MULTILINE)


@dataclass(frozen=True)
class Attached:
    """One line of `adb devices -l`.

    Attributes:
      state: "device" where it can be used; "offline", "unauthorized", "no permissions ..." and others where not.
      model: as the device calls itself, empty where it does not tell.
    """

    serial: str
    state: str
    model: str


def devices(*, program: str = "adb", server_port: int | None = None) -> tuple[Attached, ...]:
    """Every device that adb knows, those that cannot be used too.

    Raises:
      UserError: adb is missing, or its server does not start.
    """
    try:
        done = run_adb(program, server_port, ["devices", "-l"], 30.0)
    except subprocess.TimeoutExpired as e:
        raise UserError(f"{program} devices: no answer within 30 s; end the adb server (adb kill-server)") from e
    if done.returncode:
        raise UserError(f"{program} devices: {' '.join(said_by(done).split())}; {reason(said_by(done))[0]}")
    # "SERIAL  STATE [usb:..] product:.. model:.. device:.. transport_id:N"; a state may be of several words.
    lines = re.findall(r"^(\S+)\s+(.+?)((?:\s+[a-z_]+:\S+)*)$", done.stdout.decode(errors="replace"), re.MULTILINE)
    described = [(s, state, re.search(r"\bmodel:(\S+)", rest)) for s, state, rest in lines if s != "List"]
    return tuple(Attached(serial, state, model[1] if model else "") for serial, state, model in described)
