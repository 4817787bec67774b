"""Nodes that log what they do, by the number of their call: for ``scripts/soak faults``.

Served as a file. The first statement of each says that it has begun, the last that it is at its
end. What they return follows from the number, so that a caller notices another call's result.
"""

import asyncio
import os
import re
import resource
import signal
import time

from pronghorn.worker import node
from soak.records import Event, Log

EFFECTS = "PRONGHORN_SOAK_EFFECTS"
"""Environment variable: the log of effects."""

BULK_BYTES = 64 * 1024

_ANSWER = 0x5A5A5A
_HOG_BYTES = 64 * 1024 * 1024  # that a hog may take beyond what the worker has
_HOG_PART = 4 * 1024 * 1024

_effects = Log(os.environ[EFFECTS]) if EFFECTS in os.environ else None


def answer(call: int) -> int:
    """Return what a node returns for the call of that number."""
    return call ^ _ANSWER


@node
def quick(call: int) -> int:
    _say(call, Event.BEGUN)
    _say(call, Event.ENDED)
    return answer(call)


@node
def nap(call: int, ms: float) -> int:
    _say(call, Event.BEGUN)
    time.sleep(ms / 1000)
    _say(call, Event.ENDED)
    return answer(call)


@node(thread=True)
def threaded(call: int, ms: float) -> int:
    _say(call, Event.BEGUN)
    time.sleep(ms / 1000)
    _say(call, Event.ENDED)
    return answer(call)


@node
async def patient(call: int, ms: float) -> int:
    _say(call, Event.BEGUN)
    try:
        await asyncio.sleep(ms / 1000)
    finally:
        _say(call, Event.ENDED)
    return answer(call)


@node
async def endless(call: int) -> None:
    """Wait until somebody cancels it."""
    _say(call, Event.BEGUN)
    try:
        await asyncio.Event().wait()
    finally:
        _say(call, Event.ENDED)


@node
def bulk(call: int) -> bytes:
    """Return much, for those who do not read it."""
    _say(call, Event.BEGUN)
    _say(call, Event.ENDED)
    return bytes(BULK_BYTES)


@node
def wrong(call: int) -> int:
    _say(call, Event.BEGUN)
    _say(call, Event.ENDED)
    raise ValueError(f"call {call}")


@node
def hang(call: int) -> None:
    """Hold the GIL for hours, in one call of C or in a regular expression."""
    _say(call, Event.BEGUN)
    if call % 2:
        sum(range(10**12))
    else:
        re.match(r"(a+)+$", "a" * 64 + "b")
    _say(call, Event.ENDED)


@node
def leave(call: int) -> None:
    _say(call, Event.BEGUN)
    os._exit(3)


@node
def hog(call: int, killed: bool) -> None:
    """Take all the memory there is; then raise, or end as the kernel ends who took it.

    "All" is a limit of its own, which is lifted again: the machine is needed by others.
    """
    _say(call, Event.BEGUN)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _HOG_BYTES, before[1]))
    parts = []
    try:
        while True:
            parts.append(bytearray(_HOG_PART))
    except MemoryError:
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        parts.clear()
        resource.setrlimit(resource.RLIMIT_AS, before)
        _say(call, Event.ENDED)
        raise


def _say(call: int, event: Event) -> None:
    assert _effects is not None
    _effects.write(call, event)
