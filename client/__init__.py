"""Clients: sync, async, embedded pool, in-process pool, executor and command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "pronghorn.client":  # a second copy under another name would have its own classes
    raise ImportError("import pronghorn.client: this folder is mapped into that namespace")

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    CancelledError,
    DeadlineExceededError,
    InternalError,
    InterruptedRunError,
    InvalidArgumentError,
    JournalError,
    NodeError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PronghornError,
    ProtocolError,
    UnimplementedError,
    WorkerLostError,
)

if TYPE_CHECKING:
    from pronghorn.broker.wire.flows import FlowEvent, RunReport
    from pronghorn.broker.wire.keys import PrivateKey
    from pronghorn.broker.wire.limits import Bounds, Limits
    from pronghorn.broker.wire.runs import RunEvent, RunInfo
    from pronghorn.broker.wire.statistics import Statistics
    from pronghorn.worker.local import LocalPool

    from .aio import AsyncClient
    from .flows import AsyncRun, Run, RunFailedError
    from .inbox import Event, Progress
    from .launch import PoolStartError
    from .pool import Pool
    from .runs import AsyncRunHandle, RunHandle
    from .sync import Client

__all__ = [
    "AsyncClient",
    "AsyncRun",
    "AsyncRunHandle",
    "Bounds",
    "BrokerLostError",
    "CancelledError",
    "Client",
    "DeadlineExceededError",
    "Event",
    "FlowEvent",
    "InternalError",
    "InterruptedRunError",
    "InvalidArgumentError",
    "JournalError",
    "Limits",
    "LocalPool",
    "NodeError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "Pool",
    "PoolStartError",
    "PrivateKey",
    "Progress",
    "PronghornError",
    "ProtocolError",
    "Run",
    "RunEvent",
    "RunFailedError",
    "RunHandle",
    "RunInfo",
    "RunReport",
    "Statistics",
    "UnimplementedError",
    "WorkerLostError",
]

# Loaded when first used, so that each program pays only for what it uses; the in-process pool lives
# with the workers, whose code it runs.
_LAZY = {
    "AsyncClient": "pronghorn.client.aio",
    "AsyncRunHandle": "pronghorn.client.runs",
    "AsyncRun": "pronghorn.client.flows",
    "Bounds": "pronghorn.broker.wire.limits",
    "Client": "pronghorn.client.sync",
    "Event": "pronghorn.client.inbox",
    "FlowEvent": "pronghorn.broker.wire.flows",
    "Limits": "pronghorn.broker.wire.limits",
    "LocalPool": "pronghorn.worker.local",
    "Pool": "pronghorn.client.pool",
    "PrivateKey": "pronghorn.broker.wire.keys",
    "PoolStartError": "pronghorn.client.launch",
    "Progress": "pronghorn.client.inbox",
    "RunEvent": "pronghorn.broker.wire.runs",
    "RunHandle": "pronghorn.client.runs",
    "RunInfo": "pronghorn.broker.wire.runs",
    "Run": "pronghorn.client.flows",
    "RunFailedError": "pronghorn.client.flows",
    "RunReport": "pronghorn.broker.wire.flows",
    "Statistics": "pronghorn.broker.wire.statistics",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
