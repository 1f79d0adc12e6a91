"""A device for tests without a phone: the real adb client connects to it, pushes, runs and pulls on 127.0.0.1."""

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
