"""Administration of a pool: look at its workers, replace, scale and drain them, reload its code.

Mirror: tests/client/test_admin.py.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pronghorn.broker.wire.administration import (
    Drain,
    DrainedWorker,
    ListWorkers,
    Order,
    Recycle,
    Recycled,
    Reload,
    Reloaded,
    Scale,
    Scaled,
    WorkerReport,
)

Call = Callable[..., Any]
AsyncCall = Callable[..., Awaitable[Any]]


class Admin:
    """What `Client.admin` offers. Each method waits until it is done.

    Allowed for clients on the broker's host; over tcp only where the broker was started so
    (``remote_admin``).

    Raises:
        PermissionDeniedError: This client may not.
        NotFoundError: There is no such worker.
    """

    def __init__(self, call: Call) -> None:
        self._call = call

    def workers(self) -> list[WorkerReport]:
        """List the workers, those included that are starting or draining."""
        return msgspec.convert(self._order(ListWorkers()), list[WorkerReport])

    def recycle(self, *worker_ids: int) -> Recycled:
        """Replace workers, one after the other, each by one that is ready before; by default all.

        Returns as soon as the last one gets no more requests; what it has begun it still ends.
        """
        return msgspec.convert(self._order(Recycle(worker_ids)), Recycled)

    def scale(self, workers: int) -> Scaled:
        """Have so many workers, 1 to 1,000; returns when they are ready."""
        return msgspec.convert(self._order(Scale(workers)), Scaled)

    def drain(self, worker_id: int) -> DrainedWorker:
        """Take a worker out of service at once; returns when it has ended what it had begun.

        Another takes its place meanwhile.
        """
        return msgspec.convert(self._order(Drain(worker_id)), DrainedWorker)

    def reload(self) -> Reloaded:
        """Import the modules anew and serve what they hold then; no call fails for it.

        Raises:
            NodeError: They can't be imported, or their workers do not start; the message says why.
                What was served before still is.
        """
        return msgspec.convert(self._order(Reload()), Reloaded)

    def _order(self, order: Order) -> Any:
        return self._call(*_request(order))


class AsyncAdmin:
    """What `AsyncClient.admin` offers; see `Admin`."""

    def __init__(self, call: AsyncCall) -> None:
        self._call = call

    async def workers(self) -> list[WorkerReport]:
        """List the workers, those included that are starting or draining."""
        return msgspec.convert(await self._order(ListWorkers()), list[WorkerReport])

    async def recycle(self, *worker_ids: int) -> Recycled:
        """Replace workers, by default all, one after the other, each by one that is ready."""
        return msgspec.convert(await self._order(Recycle(worker_ids)), Recycled)

    async def scale(self, workers: int) -> Scaled:
        """Have so many workers, 1 to 1,000; returns when they are ready."""
        return msgspec.convert(await self._order(Scale(workers)), Scaled)

    async def drain(self, worker_id: int) -> DrainedWorker:
        """Take a worker out of service at once; returns when it has ended what it had begun."""
        return msgspec.convert(await self._order(Drain(worker_id)), DrainedWorker)

    async def reload(self) -> Reloaded:
        """Import the modules anew and serve what they hold then; no call fails for it."""
        return msgspec.convert(await self._order(Reload()), Reloaded)

    async def _order(self, order: Order) -> Any:
        return await self._call(*_request(order))


def _request(order: Order) -> tuple[Any, ...]:
    """Give the name of the call and its arguments by position."""
    return (str(type(order).__struct_config__.tag), *msgspec.structs.astuple(order))
