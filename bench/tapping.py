"""Counts the bytes that a process sends through Python's sockets. Run in it by injected.py.

Those are all between a client that connects by ipc, the broker and its workers; what libzmq sends
by itself is not among them.

Mirror: tests/bench/test_injected.py.
"""

import os
import signal
import socket
from types import FrameType
from typing import Any

FOLDER = "PRONGHORN_BENCH_BYTES"

_count = 0


def take() -> int:
    """Return how many there were since the last time."""
    global _count
    count, _count = _count, 0
    return count


def begin() -> None:
    """Count from now on, in this process and in those that it forks."""
    signal.signal(signal.SIGURG, _tell)
    for name in ("send", "sendmsg"):
        setattr(socket.socket, name, _counted(getattr(socket.socket, name)))


def _counted(send: Any) -> Any:
    def counted(sock: socket.socket, *args: Any) -> int:
        global _count
        sent: int = send(sock, *args)
        _count += sent
        return sent

    return counted


def _tell(signum: int, frame: FrameType | None) -> None:
    with open(os.path.join(os.environ[FOLDER], str(os.getpid())), "w") as fifo:
        fifo.write(str(take()))
