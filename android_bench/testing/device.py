"""One test device: adbd's place on 127.0.0.1, its root folder, its processes and its faults."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from android_bench.testing import emulation, sync
from android_bench.testing.faults import Armed, Disconnect, Fault, Hang, Kill, Offline, Reboot, Unauthorized
from android_bench.testing.shell import Shell, write_system
from android_bench.testing.transport import Connection, Stream

ABIS = ("arm64-v8a", "x86_64")
_FEATURES = "shell_v2,cmd,stat_v2,fixed_push_mkdir"
PROPERTIES = {
    "ro.build.fingerprint": "tfq/test_device/test_device:14/TEST/1:userdebug/test-keys",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.hardware": "test",
    "ro.product.device": "test_device",
    "ro.product.manufacturer": "tfq",
    "ro.product.model": "Test Device",
    "ro.product.name": "test_device",
    "ro.soc.manufacturer": "tfq",
    "ro.soc.model": "Test SoC",
    "sys.boot_completed": "1",
}
SERVICES = {
    "battery": """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4257
  temperature: 271
  technology: Li-ion
""",
    "thermalservice": "IsStatusOverride: false\nThermal Status: 0\nHAL Ready: true\n",
}


class TestDevice:
    """A phone for tests, to which the real adb client connects as `serial`; from `with` until its end.

    Attributes:
      root: its own empty folder; "/" of the device. /data/local/tmp exists in it. The path may hold only letters,
        digits and `_ - . /`, since it is written into shell commands.
      abi: "x86_64" runs programs directly, "arm64-v8a" runs arm64 Linux programs under qemu-user.
      properties: what getprop answers, besides and above `PROPERTIES` and the ABI's.
      services: what `dumpsys NAME` prints, besides and above `SERVICES`.
      storage: size of /data in bytes; a push that does not fit fails. What commands write counts but never fails.
      faults: see `faults.py`.
      reboot_seconds: how long a restart takes.
    """

    __test__ = False  # the name is no test class for pytest

    def __init__(
        self,
        root: Path,
        *,
        abi: str = "x86_64",
        properties: Mapping[str, str] | None = None,
        services: Mapping[str, str] | None = None,
        storage: int = 16 << 30,
        faults: Sequence[Fault] = (),
        reboot_seconds: float = 0.5,
    ):
        if abi not in ABIS:
            raise ValueError(f"abi {abi!r}: expected one of {', '.join(ABIS)}")
        self.root = root.resolve()
        if not re.fullmatch(r"[\w./-]+", str(self.root), re.ASCII):
            raise ValueError(f"root {str(self.root)!r}: only letters, digits and _ - . / may be in it")
        self.abi = abi
        self.faults = Armed(faults)
        self._storage = storage
        self._reboot_seconds = reboot_seconds
        self._threads: list[threading.Thread] = []
        self._connections: list[Connection] = []
        self._lock = threading.Lock()
        self._power = threading.RLock()
        self._stopped = threading.Event()

        (self.root / "data/local/tmp").mkdir(parents=True)
        preload = None
        if abi == "arm64-v8a":
            preload = emulation.make_preload(self.root, emulation.make_sysroot(self.root / "sysroot"))
        known = {"ro.product.cpu.abi": abi, "ro.product.cpu.abilist": abi, **PROPERTIES, **(properties or {})}
        write_system(self.root, known, {**SERVICES, **(services or {})})
        self._shell = Shell(self.root, uuid.uuid4().hex, preload)
        self._take_storage(0)
        banner = "".join(f"{name}={known[name]};" for name in known if name.startswith("ro.product."))
        self._banner = f"device::{banner}features={_FEATURES}".encode()
        # Bound once, so that the port stays this device's through every restart.
        self._port = 0
        self._listener = self._listen()
        self._port = self._listener.getsockname()[1]

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> TestDevice:
        self._begin(self._accept, self._listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        with self._power:
            self._go_down()
        for thread in self._threads:
            thread.join()

    def host_path(self, path: str) -> Path:
        """Where a path of the device lies on this machine; never outside the root."""
        return self.root / posixpath.normpath("/" + path).lstrip("/")

    def disconnect(self) -> None:
        """Drops every connection; the device can be reached again at once."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.drop()

    def reboot(self) -> None:
        """Kills every process, drops every connection and is away for `reboot_seconds`; storage stays."""
        with self._power:
            if self._stopped.is_set():
                return
            self._go_down()
            if not self._stopped.wait(self._reboot_seconds):
                self._listener = self._listen()
                self._begin(self._accept, self._listener)

    def kill_processes(self) -> bool:
        """SIGKILLs everything that runs on the device; whether anything did."""
        return self._shell.kill()

    def free_bytes(self) -> int:
        capacity, others = map(int, (self.root / "system/storage").read_text(encoding="utf-8").split())
        return max(0, capacity - others - self._used())

    def fill_storage(self) -> None:
        """Another app takes all that is free."""
        self._take_storage(max(0, self._storage - self._used()))

    def empty_storage(self) -> None:
        """Undoes `fill_storage`."""
        self._take_storage(0)

    def _used(self) -> int:
        # As `du -sb` counts, which the device's df uses.
        found = [self.root / "data", *(self.root / "data").rglob("*")]
        return sum(path.lstat().st_size for path in found if path.exists())

    def _take_storage(self, others: int) -> None:
        (self.root / "system/storage").write_text(f"{self._storage} {others}\n", encoding="utf-8")

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen()
        return listener

    def _go_down(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.disconnect()
        # Again until none is left: a shell may have started one more while the others were being killed.
        while self._shell.kill():
            pass

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            connection = Connection(peer, self._banner, self._serve)
            with self._lock:
                self._connections.append(connection)
            self._begin(self._converse, connection)

    def _converse(self, connection: Connection) -> None:
        silent = self.faults.strike(Offline) is not None
        connection.run(silent=silent, authorized=silent or self.faults.strike(Unauthorized) is None)

    def _serve(self, service: bytes, stream: Stream) -> None:
        name, _, argument = os.fsdecode(service).partition(":")
        kind, *options = name.split(",")
        if kind == "sync":
            sync.serve(stream, self)
        elif kind in ("shell", "exec"):
            self._run(argument, stream, packets="v2" in options)
        elif kind == "reboot":
            self._begin(self.reboot)
        # Any other service: the stream is closed, which the client reports.

    def _run(self, command: str, stream: Stream, *, packets: bool) -> None:
        if self.faults.strike(Hang, command=command):
            stream.wait_closed()
            return
        process = self._shell.start(command, merge=not packets)
        happenings: dict[type[Disconnect] | type[Reboot] | type[Kill], Callable[[], object]] = {
            Disconnect: self.disconnect,
            Reboot: lambda: self._begin(self.reboot),
            Kill: lambda: self._shell.kill(sparing=process.pid),
        }
        for kind, happening in happenings.items():
            if fault := self.faults.strike(kind, command=command):
                self._begin(self._later, fault.after_seconds, happening)
        self._shell.serve(stream, process, packets=packets)

    def _later(self, seconds: float, happening: Callable[[], object]) -> None:
        if not self._stopped.wait(seconds):
            happening()
