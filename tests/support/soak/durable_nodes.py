"""Nodes that leave a line for each time they begin; served by the campaign in durable.py."""

import os
import secrets
import signal
import time
from typing import Final

from pronghorn.worker import Context, node

EFFECTS: Final = "PRONGHORN_SOAK_EFFECTS"
"""Has the file in which nodes note what they have begun, a line each."""


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


@node
def act_item(ctx: Context, token: str, index: int, ms: float) -> str:
    """Be an item of a map; return what no other run of it would."""
    item = item_line(token, index)
    _note(f"{item} {ctx.attempt} {time.monotonic_ns()}")
    time.sleep(ms / 1e3)
    return f"{item} {secrets.token_hex(8)}"


def item_line(token: str, index: int) -> str:
    """Tell which item it is, as its line and its result begin."""
    return f"{token} {index}"


def _act(token: str, ms: float) -> str:
    _note(token)
    time.sleep(ms / 1e3)
    return f"{token} {secrets.token_hex(8)}"


def _note(line: str) -> None:
    descriptor = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{line}\n".encode())  # whole, whoever else writes
    finally:
        os.close(descriptor)
