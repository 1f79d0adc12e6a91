"""The ADB transport as adbd speaks it over TCP: messages, and streams on top of them.

A message is six little-endian 32-bit words - command, arg0, arg1, payload length, payload checksum, command XOR
0xffffffff - and the payload. After CNXN in both directions the client opens streams (OPEN: arg0 its id, the payload
the service's name); each WRTE must be answered by OKAY before the next one on the same stream; CLSE ends a stream.
From version 0x01000001 on nobody looks at the checksum. Source: packages/modules/adb/protocol.txt of Android.

Scope: one transport per TCP connection, no TLS, no delayed acknowledgements. AUTH is only asked for, never granted.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
from collections.abc import Callable

VERSION = 0x01000001
MAX_PAYLOAD = 1 << 20
AUTH_TOKEN, AUTH_SIGNATURE = 1, 2
_HEADER = struct.Struct("<6I")


class ConnectionLostError(Exception):
    """The stream or the connection under it has been closed by the other side or by a fault."""


class Stream:
    """One service's two-way byte stream. Reads are for one thread; writes may come from several."""

    def __init__(self, connection: Connection, local: int, remote: int):
        self._connection = connection
        self._local, self._remote = local, remote
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._arrived = bytearray()
        self._owed = 0
        self._acknowledged = True
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        return self._take(size, size)

    def read_some(self) -> bytes:
        """At least one byte, and all that has arrived."""
        return self._take(1, None)

    def _take(self, least: int, most: int | None) -> bytes:
        while True:
            with self._changed:
                if len(self._arrived) >= least:
                    data = bytes(self._arrived[:most])
                    del self._arrived[: len(data)]
                    return data
                if self._closed:
                    raise ConnectionLostError
                if not self._owed:
                    self._changed.wait()
                    continue
                self._owed -= 1
            # Only who wants more asks for it: a slow reader holds the client back, as on a phone.
            self._connection.send(b"OKAY", self._local, self._remote)

    def write(self, data: bytes) -> None:
        with self._writing:
            for start in range(0, len(data), self._connection.max_payload):
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._acknowledged)
                    if self._closed:
                        raise ConnectionLostError
                    self._acknowledged = False
                payload = data[start : start + self._connection.max_payload]
                self._connection.send(b"WRTE", self._local, self._remote, payload)

    def close(self) -> None:
        """Ends the stream once the last write has been acknowledged, as a client may drop what comes with CLSE."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._acknowledged)
            already, self._closed = self._closed, True
            self._changed.notify_all()
        if not already:
            with contextlib.suppress(ConnectionLostError):
                self._connection.send(b"CLSE", self._local, self._remote)

    def wait_closed(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed)

    def feed(self, payload: bytes) -> None:
        with self._changed:
            self._arrived += payload
            self._owed += 1
            self._changed.notify_all()

    def acknowledge(self) -> None:
        with self._changed:
            self._acknowledged = True
            self._changed.notify_all()

    def abandon(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Connection:
    """One client's connection; every stream it opens is served by `serve(service, stream)` in a thread of its own."""

    def __init__(self, peer: socket.socket, banner: bytes, serve: Callable[[bytes, Stream], None]):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peer = peer
        self._banner = banner
        self._serve = serve
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count(1)
        self.max_payload = 4096

    def run(self, *, silent: bool = False, authorized: bool = True) -> None:
        """Answers until the connection ends. `silent`: nothing is ever answered; not `authorized`: only AUTH is."""
        threads: list[threading.Thread] = []
        try:
            while True:
                command, first, second, payload = self._receive()
                if silent:
                    continue
                if not authorized:
                    # After every signature another token; the public key, sent last, waits for the user.
                    if command == b"CNXN" or (command == b"AUTH" and first == AUTH_SIGNATURE):
                        self.send(b"AUTH", AUTH_TOKEN, 0, os.urandom(20))
                    continue
                if command == b"CNXN":
                    self.max_payload = min(second, MAX_PAYLOAD)
                    self.send(b"CNXN", VERSION, MAX_PAYLOAD, self._banner)
                elif command == b"OPEN":
                    stream = Stream(self, next(self._numbers), first)
                    self._streams[stream._local] = stream
                    self.send(b"OKAY", stream._local, first)
                    service = payload.rstrip(b"\0")
                    thread = threading.Thread(target=self._run_service, args=(service, stream), daemon=True)
                    threads.append(thread)
                    thread.start()
                elif second in self._streams:
                    stream = self._streams[second]
                    if command == b"WRTE":
                        stream.feed(payload)
                    elif command == b"OKAY":
                        stream.acknowledge()
                    elif command == b"CLSE":
                        stream.abandon()
                        del self._streams[second]
        except ConnectionLostError:
            pass
        finally:
            self.drop()
            for stream in list(self._streams.values()):
                stream.abandon()
            for thread in threads:
                thread.join()

    def send(self, command: bytes, first: int, second: int, payload: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        header = _HEADER.pack(number, first, second, len(payload), sum(payload) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._sending:
            try:
                self._peer.sendall(header + payload)
            except OSError as e:
                raise ConnectionLostError from e

    def drop(self) -> None:
        """Ends the connection at once, whatever is under way; safe to call from any thread and more than once."""
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)
        self._peer.close()

    def _run_service(self, service: bytes, stream: Stream) -> None:
        try:
            self._serve(service, stream)
        except ConnectionLostError:
            pass
        finally:
            stream.close()

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        number, first, second, length, _, magic = _HEADER.unpack(self._exactly(_HEADER.size))
        if magic != number ^ 0xFFFFFFFF or length > MAX_PAYLOAD:
            raise ConnectionLostError
        return number.to_bytes(4, "little"), first, second, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view, got = memoryview(data), 0
        while got < size:
            try:
                count = self._peer.recv_into(view[got:])
            except OSError as e:
                raise ConnectionLostError from e
            if not count:
                raise ConnectionLostError
            got += count
        return bytes(data)
