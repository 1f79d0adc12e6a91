"""The `shell:` and `exec:` services: commands run by this machine's sh, made to look like the device's.

Paths. A phone's /data must stand for a folder under the device's root. A mount namespace or a chroot would do that for
everything, but both need rights that containers and CI machines often refuse, so the text is rewritten: /data in a
command becomes the host's folder, and the host's folder in what the command prints becomes /data again. Hence the
limits: only paths that begin with /data are mapped, never those inside files or put together by the command itself
(hand them over as arguments, or relative to the working directory).

Programs. PATH holds only what toybox has too, as links to this machine's programs, besides the device's own getprop,
dumpsys and df; a command that a phone does not know is not found here either.

Shell protocol, version 2: packets of one byte (0 stdin, 1 stdout, 2 stderr, 3 exit code, 4 close stdin, 5 window
size), a little-endian 32-bit length and the payload. Plain `shell:` and `exec:` carry stdout and stderr unpacked.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from android_bench.testing.transport import ConnectionLostError, Stream

PREFIX = "/data"
MARK = "TFQ_TEST_DEVICE"
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_TOYBOX = """
awk basename cat chmod cmp cp cut date dd dirname du echo env expr false find grep gzip head id kill ln ls md5sum mkdir
mktemp mv nice nohup od printf pwd readlink realpath rm rmdir sed seq setsid sh sha1sum sha256sum sleep sort stat sync
tail taskset tee test timeout touch tr true uniq wc which xargs
"""
# The device's own programs; {system} is the folder of the files they read.
_SCRIPTS = {
    "getprop": """
if [ $# = 0 ]; then sed 's/^\\([^=]*\\)=\\(.*\\)$/[\\1]: [\\2]/' {system}/build.prop; exit; fi
while IFS= read -r line; do
  [ "${{line%%=*}}" = "$1" ] && printf '%s\\n' "${{line#*=}}" && exit
done < {system}/build.prop
printf '%s\\n' "${{2-}}"
""",
    "dumpsys": """
[ -f "{system}/dumpsys/$1" ] || {{ echo "Can't find service: $1" >&2; exit 0; }}
cat "{system}/dumpsys/$1"
""",
    "df": """
for path; do case $path in -*) continue;; esac; [ -e "$path" ] || {{ echo "df: $path: No such file or directory" >&2
  exit 1; }}; done
read -r capacity others < {system}/storage
used=$(( $(du -sb {data} | cut -f1) + others ))
free=$(( capacity > used ? capacity - used : 0 ))
echo 'Filesystem      1K-blocks      Used Available Use% Mounted on'
echo "/dev/block/dm-9 $(( capacity / 1024 )) $(( used / 1024 )) $(( free / 1024 )) $(( used * 100 / capacity ))% /data"
""",
}


class Shell:
    """The commands of one device. `mark` tells its processes from all others of this machine."""

    def __init__(self, root: Path, mark: str, preload: Path | None):
        self._root = root
        self._mark = f"{MARK}={mark}"
        self._data = f"{root}{PREFIX}"
        system = root / "system"
        (system / "bin").mkdir(parents=True)
        for name, text in _SCRIPTS.items():
            script = system / "bin" / name
            script.write_text("#!/bin/sh" + text.format(system=system, data=root / "data"), encoding="utf-8")
            script.chmod(0o755)
        for name in _TOYBOX.split():
            if program := shutil.which(name):
                (system / "bin" / name).symlink_to(program)
        self._environment = {
            "PATH": str(system / "bin"),
            "HOME": str(root),
            "TMPDIR": f"{self._data}/local/tmp",
            "LC_ALL": "C.UTF-8",
            MARK: mark,
            **({"LD_PRELOAD": str(preload)} if preload else {}),
        }

    def start(self, command: str, *, merge: bool) -> subprocess.Popen[bytes]:
        # Nothing that could be part of a longer path or name may stand on either side of the prefix.
        text = re.sub(rf"(?<![\w./-]){PREFIX}(?![\w.-])", self._data, command)
        return subprocess.Popen(
            ["/bin/sh", "-c", text] if text else ["/bin/sh"],
            cwd=self._root,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge else subprocess.PIPE,
            start_new_session=True,
        )

    def serve(self, stream: Stream, process: subprocess.Popen[bytes], *, packets: bool) -> None:
        """Carries stdin, stdout and stderr of a started command until it ends or the client goes away."""

        def packet(number: int) -> Callable[[bytes], None]:
            return lambda data: stream.write(struct.pack("<BI", number, len(data)) + data if packets else data)

        feeder = threading.Thread(target=_feed, args=(stream, process.stdin, packets), daemon=True)
        feeder.start()
        outputs = [(process.stdout, packet(_STDOUT)), (process.stderr, packet(_STDERR))]
        pumps = [threading.Thread(target=self._pump, args=output, daemon=True) for output in outputs if output[0]]
        for pump in pumps:
            pump.start()
        for pump in pumps:
            pump.join()
        code = process.wait()
        if packets:
            packet(_EXIT)(bytes([code if code >= 0 else 128 - code]))
        stream.close()
        feeder.join()

    def kill(self, *, sparing: int | None = None) -> bool:
        """SIGKILLs every process of the device but `sparing`; whether there was any. Background ones are found too,
        since the mark is in the environment they inherit."""
        found = False
        for process in Path("/proc").iterdir():
            # A process may end, or not be ours to read, at any moment.
            with contextlib.suppress(OSError, ValueError):
                number = int(process.name)
                if number != sparing and self._mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(number, signal.SIGKILL)
                    found = True
        return found

    def _pump(self, source: IO[bytes], write: Callable[[bytes], None]) -> None:
        # Closing the pipe when the client is gone gives the command SIGPIPE at its next line, as under adbd.
        with source, contextlib.suppress(ConnectionLostError):
            for data in _renamed(source, self._data.encode(), PREFIX.encode()):
                write(data)


def _feed(stream: Stream, target: IO[bytes], packets: bool) -> None:
    with contextlib.suppress(ConnectionLostError, OSError), target:
        while True:
            if not packets:
                target.write(stream.read_some())
                target.flush()
                continue
            number, length = struct.unpack("<BI", stream.read(5))
            payload = stream.read(length)
            if number == _CLOSE_STDIN:
                return
            if number == _STDIN:
                target.write(payload)
                target.flush()


def _renamed(source: IO[bytes], old: bytes, new: bytes) -> Iterator[bytes]:
    """What `source` gives, as soon as it gives it, with `old` replaced wherever it stands, block borders included."""
    kept = b""
    while block := os.read(source.fileno(), 64 * 1024):
        data = (kept + block).replace(old, new)
        # An end that may be the beginning of `old` waits for the next block.
        cut = next((len(data) - n for n in range(len(old) - 1, 0, -1) if data.endswith(old[:n])), len(data))
        data, kept = data[:cut], data[cut:]
        if data:
            yield data
    if kept:
        yield kept


def write_system(root: Path, properties: Mapping[str, str], services: Mapping[str, str]) -> None:
    """Writes what getprop and dumpsys answer from."""
    (root / "system/dumpsys").mkdir(parents=True)
    lines = [f"{name}={value}\n" for name, value in properties.items()]
    (root / "system/build.prop").write_text("".join(lines), encoding="utf-8")
    for name, text in services.items():
        (root / "system/dumpsys" / name).write_text(text, encoding="utf-8")
