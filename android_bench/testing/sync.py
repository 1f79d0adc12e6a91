"""The `sync:` service: push, pull, stat and listing, as adbd's file_sync_service.cpp does them (version 1 requests).

A request is a four-byte name, the length of a path and the path. Answers: STAT (mode, size, mtime), LST2 and STA2 (the
whole of struct stat with an errno), DENT per entry of a LIST, DATA blocks of a RECV, OKAY or FAIL with a text for a
SEND. After FAIL the client's remaining DATA are read and thrown away until its DONE, as adbd does.

Scope: regular files and folders. Symbolic links cannot be pushed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from android_bench.testing.faults import Corrupt, DropPush, Slow, StorageFull
from android_bench.testing.transport import ConnectionLostError, Stream

if TYPE_CHECKING:
    from android_bench.testing.device import TestDevice

_BLOCK = 64 * 1024
_LONGEST_PATH = 1024


def serve(stream: Stream, device: TestDevice) -> None:
    """Answers requests until QUIT, a broken request or the end of the stream."""
    pushed = 0
    while True:
        request, length = struct.unpack("<4sI", stream.read(8))
        if request == b"QUIT":
            return
        if length > _LONGEST_PATH:
            _fail(stream, "path too long")
            return
        path = os.fsdecode(stream.read(length))
        if request == b"STAT":
            _stat(stream, device.host_path(path))
        elif request in (b"STA2", b"LST2"):
            _stat2(stream, request, device.host_path(path))
        elif request == b"LIST":
            _list(stream, device.host_path(path))
        elif request == b"RECV":
            _send_file(stream, device, device.host_path(path))
        elif request == b"SEND":
            path, _, mode = path.rpartition(",")
            pushed = _receive_file(stream, device, device.host_path(path), int(mode), pushed)
        else:
            _fail(stream, f"unknown command {int.from_bytes(request, 'little'):08x}")
            return


def _fail(stream: Stream, text: str) -> None:
    encoded = text.encode()
    stream.write(struct.pack("<4sI", b"FAIL", len(encoded)) + encoded)


def _stat(stream: Stream, path: Path) -> None:
    try:
        found = path.lstat()
        answer = struct.pack("<III", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
    except OSError:
        answer = bytes(12)
    stream.write(b"STAT" + answer)


def _stat2(stream: Stream, request: bytes, path: Path) -> None:
    shape = "<4sIQQIIIIQqqq"
    try:
        s = path.lstat() if request == b"LST2" else path.stat()
    except OSError as e:
        stream.write(struct.pack(shape, request, e.errno or errno.EIO, *[0] * 10))
        return
    times = (int(s.st_atime), int(s.st_mtime), int(s.st_ctime))
    numbers = (s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size, *times)
    stream.write(struct.pack(shape, request, 0, *numbers))


def _list(stream: Stream, path: Path) -> None:
    try:
        entries = sorted(path.iterdir())
    except OSError:
        entries = []
    for entry in entries:
        s, name = entry.lstat(), os.fsencode(entry.name)
        stream.write(
            struct.pack("<4sIIII", b"DENT", s.st_mode, s.st_size & 0xFFFFFFFF, int(s.st_mtime), len(name)) + name
        )
    stream.write(b"DONE" + bytes(16))


def _send_file(stream: Stream, device: TestDevice, path: Path) -> None:
    slow = device.faults.strike(Slow)
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                stream.write(struct.pack("<4sI", b"DATA", len(block)) + block)
                if slow:
                    time.sleep(len(block) / slow.bytes_per_second)
    except OSError as e:
        _fail(stream, f"open failed: {os.strerror(e.errno or errno.EIO)}")
        return
    stream.write(struct.pack("<4sI", b"DONE", 0))


def _receive_file(stream: Stream, device: TestDevice, path: Path, mode: int, pushed: int) -> int:
    """Takes one pushed file; returns how many bytes the session has pushed with it, for the faults that count them."""
    failure = "" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "symlink failed: Operation not supported"
    complete = False
    slow = device.faults.strike(Slow)
    target = None
    if not failure:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            target = path.open("wb")
        except OSError as e:
            failure = f"couldn't create file: {os.strerror(e.errno or errno.EIO)}"
    try:
        free = device.free_bytes()
        while True:
            kind, number = struct.unpack("<4sI", stream.read(8))
            if kind == b"DONE":
                break
            if kind != b"DATA" or number > _BLOCK:
                raise ConnectionLostError
            block = stream.read(number)
            pushed += number
            if slow:
                time.sleep(number / slow.bytes_per_second)
            if device.faults.strike(DropPush, pushed=pushed):
                device.disconnect()
                raise ConnectionLostError
            if target is None or failure:
                continue
            if device.faults.strike(StorageFull, pushed=pushed):
                device.fill_storage()
                free = 0
            if number > free:
                failure = f"write failed: {os.strerror(errno.ENOSPC)}"
                continue
            free -= number
            target.write(block)
        complete = not failure
    finally:
        if target is not None:
            target.close()
            if not complete:
                path.unlink()
    if failure:
        _fail(stream, failure)
        return pushed
    if path.stat().st_size and device.faults.strike(Corrupt):
        with path.open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
    # As in adbd, the group may what the owner may and the others what the group may.
    mode |= (mode >> 3) & 0o070
    mode |= (mode >> 3) & 0o007
    path.chmod(mode & 0o777)
    os.utime(path, (number, number))
    stream.write(struct.pack("<4sI", b"OKAY", 0))
    return pushed
