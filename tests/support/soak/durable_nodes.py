"""Nodes that leave a line for each time they begin; served by the campaign in durable.py."""

import os
import secrets
import signal
import time
from typing import Final

from pronghorn.worker import node

EFFECTS: Final = "PRONGHORN_SOAK_EFFECTS"


@node
def act(token: str, ms: float) -> str:
    """Return what no other run of it would."""
    return _act(token, ms)


@node(at_most_once=True)
def act_once(token: str, ms: float) -> str:
    """Be begun once at the most."""
    return _act(token, ms)


@node
def poison(token: str, ms: float) -> str:
    """Take the worker along."""
    _act(token, ms)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _act(token: str, ms: float) -> str:
    descriptor = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{token}\n".encode())  # whole, whoever else writes
    finally:
        os.close(descriptor)
    time.sleep(ms / 1e3)
    return f"{token} {secrets.token_hex(8)}"
