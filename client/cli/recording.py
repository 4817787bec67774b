"""The file that ``serve --record`` writes: opened before the tree starts, filled by a thread.

An IO shell. The broker sends packets of whole records (TRACE.md), so the file can be cut at the end
of one when it is full or can't be written, and is a trace all the same.

Mirror: tests/client/cli/test_recording.py.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.trace import count_calls, whole_records

PACKET_BYTES_MAX: Final = 256 * 1024
"""More than the broker puts into one: one that is cut off would be a torn record."""

RECORD_BYTES: Final = 1024**3
"""How long a trace gets by default: some ten million calls with small parameters."""

_END_S: Final = 5.0


class Recorded(msgspec.Struct, frozen=True):
    """What has become of a recording; `reason` says why it ended before its time, if it did."""

    path: str
    calls: int
    bytes: int
    reason: str | None


class TraceFile:
    """A trace that is being written.

    Args:
        path: The file, which must not be there.
        bytes_max: It does not get longer than that.

    Raises:
        InvalidArgumentError: It can't be made, or is there already.
    """

    def __init__(self, path: str, bytes_max: int) -> None:
        self._path = os.path.abspath(os.path.expanduser(path))
        self._bytes_max = bytes_max
        try:
            self._file = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
        except FileExistsError as error:
            raise InvalidArgumentError(
                f"{path} is there already: a trace gets a file of its own"
            ) from error
        except OSError as error:
            raise InvalidArgumentError(
                f"calls can't be recorded in {path}: {error.strerror}"
            ) from error
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._thread: threading.Thread | None = None  # None until `begin`
        self._bytes = self._calls = 0
        self._reason: str | None = None

    def begin(self, record: Callable[[int], None], ended_early: Callable[[Recorded], None]) -> None:
        """Have what comes written from now on.

        Args:
            record: Given the socket that packets are to be written to, of which it keeps a copy.
            ended_early: Called, by another thread, if the file is full or can't be written.
        """
        record(self._writer.fileno())
        self._writer.close()  # so that the end of the others is the end
        self._thread = threading.Thread(
            target=self._run, args=(ended_early,), name="pronghorn-record", daemon=True
        )
        self._thread.start()

    def close(self) -> Recorded:
        """Write what the broker, which has ended, has sent last; a file with nothing is removed."""
        self._writer.close()
        if self._thread is not None:
            self._thread.join(_END_S)
        self._reader.close()
        os.close(self._file)
        if not self._bytes:
            with suppress(OSError):
                os.unlink(self._path)
        return self._recorded()

    def _recorded(self) -> Recorded:
        return Recorded(self._path, self._calls, self._bytes, self._reason)

    def _run(self, ended_early: Callable[[Recorded], None]) -> None:
        while self._reason is None:
            try:
                packet = self._reader.recv(PACKET_BYTES_MAX)
            except OSError:
                return
            if not packet:
                return
            self._keep(packet)
        self._reader.shutdown(socket.SHUT_RD)  # which tells the broker
        ended_early(self._recorded())

    def _keep(self, packet: bytes) -> None:
        """Write a packet, or as many records of it as can be."""
        room = self._bytes_max - self._bytes
        if len(packet) > room:
            packet = packet[: whole_records(packet[: max(0, room)])]
            self._reason = f"it has come to {self._bytes_max:,} bytes"
        written = 0
        try:
            while written < len(packet):
                written += os.write(self._file, packet[written:])
        except OSError as error:
            self._reason = error.strerror or str(error)
            packet = packet[: whole_records(packet[:written])]
            with suppress(OSError):
                os.ftruncate(self._file, self._bytes + len(packet))
        self._bytes += len(packet)
        self._calls += count_calls(packet)
