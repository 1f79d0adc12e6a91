"""A device for tests without a phone: the real adb client connects to it, pushes, runs and pulls on 127.0.0.1.

    with TestDevice(tmp_path / "phone", abi="arm64-v8a", faults=[DropPush(after_bytes=1_000_000)]) as device:
        subprocess.run(["adb", "connect", device.serial], check=True)

Give the adb server of tests a port of their own (`adb -P PORT`, or ANDROID_ADB_SERVER_PORT) and end it afterwards. A
restarted device stays "offline" until `adb disconnect` and `adb connect`, as a phone on the network does. What the
shell can and cannot do stands in `shell.py`, what can go wrong in `faults.py`.
"""

from android_bench.testing.device import PROPERTIES, SERVICES, TestDevice
from android_bench.testing.faults import (
    Corrupt,
    Disconnect,
    DropPush,
    Fault,
    Hang,
    Kill,
    Offline,
    Reboot,
    Slow,
    StorageFull,
    Unauthorized,
)

__all__ = [
    "PROPERTIES",
    "SERVICES",
    "Corrupt",
    "Disconnect",
    "DropPush",
    "Fault",
    "Hang",
    "Kill",
    "Offline",
    "Reboot",
    "Slow",
    "StorageFull",
    "TestDevice",
    "Unauthorized",
]
