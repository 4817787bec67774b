"""Nodes of workflows that leave a line for each time they begin; served by flows.py."""

import asyncio
import os
import time
from typing import Final

from pronghorn.worker import node

EFFECTS: Final = "PRONGHORN_SOAK_EFFECTS"


@node
def step(token: str, task: str, ms: float) -> str:
    """Return what names this task of this run."""
    name = _begun(token, task)
    time.sleep(ms / 1e3)
    return name


@node
async def later(token: str, task: str, ms: float) -> str:
    """Do the same beside others."""
    name = _begun(token, task)
    await asyncio.sleep(ms / 1e3)
    return name


def _begun(token: str, task: str) -> str:
    name = f"{token}/{task}"
    descriptor = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{name} {time.time_ns()}\n".encode())  # whole, whoever else writes
    finally:
        os.close(descriptor)
    return name
