"""What an ELF file (a program or a library) is made for: the processor's ABI and the C library, from its headers.

Source: System V ABI, "Object Files" and "Program Loading and Dynamic Linking". Scope: little-endian, as all of
Android's ABIs are.
"""

from __future__ import annotations

import dataclasses
import platform
import struct
from pathlib import Path

from tfq.errors import UserError

ABIS = {(62, 2): "x86_64", (183, 2): "arm64-v8a", (40, 1): "armeabi-v7a", (3, 1): "x86"}
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5


@dataclasses.dataclass(frozen=True)
class Target:
    """What programs are made for.

    Attributes:
      abi: Android's name of it: x86_64, arm64-v8a, armeabi-v7a or x86.
      system: "android" (its C library is bionic) or "linux" (any other).
    """

    abi: str
    system: str

    def __str__(self) -> str:
        return f"{self.abi} {'Android' if self.system == 'android' else 'Linux'}"


def host_target() -> Target:
    """This machine's. Raises UserError on a processor that the runner is not written for."""
    abi = {"x86_64": "x86_64", "aarch64": "arm64-v8a"}.get(platform.machine())
    if abi is None or platform.system() != "Linux":
        raise UserError(
            f"tfq-bench runs models on x86-64 and arm64 Linux; this is {platform.machine()} {platform.system()}"
        )
    return Target(abi, "linux")


def elf_target(path: Path) -> Target:
    """What a program or library is made for. Raises UserError for a file that is none of them."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected an ELF program or library") from error
    try:
        return _target(content)
    except (struct.error, ValueError, KeyError) as error:
        raise UserError(f"{path}: no ELF program or library for Android or Linux, or cut off") from error


def _target(content: bytes) -> Target:
    if content[:4] != b"\x7fELF" or content[5] != 1:
        raise ValueError
    wide = content[4] == 2
    (machine,) = struct.unpack_from("<H", content, 18)
    abi = ABIS[machine, content[4]]
    table, size, count = (
        (*struct.unpack_from("<Q", content, 32), *struct.unpack_from("<HH", content, 54))
        if wide
        else (*struct.unpack_from("<I", content, 28), *struct.unpack_from("<HH", content, 42))
    )
    segments = []  # (type, offset in the file, address, size in the file)
    for start in range(table, table + size * count, size):
        if wide:
            kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", content, start)
        else:
            kind, offset, address, _, length = struct.unpack_from("<IIIII", content, start)
        segments.append((kind, offset, address, length))
    needed: list[int] = []
    strings = 0
    for kind, offset, _, length in segments:
        if kind == _PT_DYNAMIC:
            if offset + length > len(content):
                raise ValueError
            entries = struct.iter_unpack("<qQ" if wide else "<iI", content[offset : offset + length])
            for tag, value in entries:
                if tag == _DT_NEEDED:
                    needed.append(value)
                elif tag == _DT_STRTAB:
                    strings = value
    place = next((o + strings - a for kind, o, a, n in segments if kind == _PT_LOAD and a <= strings < a + n), None)
    if needed and place is None:
        raise ValueError
    names = {content[(place or 0) + n : content.index(b"\0", (place or 0) + n)] for n in needed}
    # bionic is called libc.so, glibc libc.so.6; a program without either is static and runs on both.
    return Target(abi, "android" if b"libc.so" in names else "linux")
