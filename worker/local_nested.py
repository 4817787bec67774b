"""Calls that nodes make in an in-process pool: as any client of it makes them.

Mirror: tests/worker/test_local_nested.py.
"""

import asyncio
from typing import Any

from pronghorn.client.invocation import result_of
from pronghorn.client.stopwatch import Extras

from .context import Context, NodeLike
from .local_aio import LocalAsyncTransport
from .local_host import LocalHost
from .local_transport import LocalTransport
from .nested import Arguments, check_depth, left_ms, prepared, refuse_in_loop


class LocalCalls:
    """Makes the calls of the nodes of one pool."""

    def __init__(self, host: LocalHost) -> None:
        self._host = host
        self._sync = LocalTransport(host)
        self._async = LocalAsyncTransport(host)

    async def call(self, context: Context, node: NodeLike, arguments: Arguments) -> Any:
        """Make a call for an ``async def``, on its loop."""
        target, params, due = prepared(context, node, arguments)
        check_depth(context, target)
        reply, buffers = await self._async.call(
            target.name, params, left_ms(due), context.depth + 1, extras=_extras(context)
        )
        return result_of(target, reply, buffers)

    def call_sync(self, context: Context, node: NodeLike, arguments: Arguments) -> Any:
        """Make a call for a ``def``, in its thread."""
        refuse_in_loop()
        target, params, due = prepared(context, node, arguments)
        check_depth(context, target)
        depth, extras = context.depth + 1, _extras(context)
        if self._host.is_async(target.name):
            # On a loop of its own, for the pool's may be what the caller holds up.
            reply, buffers = asyncio.run(
                self._async.call(target.name, params, left_ms(due), depth, extras=extras)
            )
        else:
            reply, buffers = self._sync.call(
                target.name, params, left_ms(due), depth, extras=extras
            )
        return result_of(target, reply, buffers)


def _extras(context: Context) -> Extras | None:
    return None if context.traceparent is None else Extras(context.traceparent)
