"""Tells systemd how a service stands (sd_notify), if it was started by it. An IO shell.

Mirror: tests/client/cli/test_notify.py.
"""

import os
import socket
import time
from contextlib import suppress


def notify(*lines: str) -> None:
    """Send assignments such as ``READY=1``; nothing happens where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        # "@name" is a name without a file. systemd must not hold up what it supervises.
        sock.setblocking(False)
        sock.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1))


def notify_reloading() -> None:
    """Say that a reload has begun; ``READY=1`` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
