"""Calls for one run what does not run in its turn: in workers, threads, on the loop. An IO shell.

Of a recorded run an action whose worker is lost is tried again, as any recorded request is; what
must not run twice is recorded before it begins.

Mirror: tests/worker/flow/test_beside.py.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from pronghorn.broker.wire.errors import PronghornError
from pronghorn.client.stopwatch import Extras

from ..context import Context
from ..dispatch import Entry
from .calls import Called, call, call_async, context_of, failed, failed_by
from .events import ItemEnded, ItemToRun
from .history import Begun, Place
from .inner import InnerRuns
from .plan import Plan
from .pooling import WorkerPool
from .recording import AnyRecording
from .sharing import Sharing

if TYPE_CHECKING:
    from .runtime import FlowRuntime

LOST_MAX: Final = 3
"""Times that an action of a recorded run is begun whose workers are lost."""

STOPPED: Final = Called("canceled", None, "it was stopped")

_AGAIN_S: Final = 0.05  # before it is begun again; it doubles


class Beside:
    """The calls of one run.

    Attributes:
        sharing: Has the large values of the run.
        pool: The workers; None where all runs in this process, and before `begin`.
        extras: What goes with each call to them.

    Args:
        runtime: What all runs share.
        recording: Of the run, if it is recorded.
        inner: The workflows that it calls.
        sharing: See above.
        within: The call that the run is made for, if it is.
    """

    def __init__(
        self,
        runtime: FlowRuntime,
        recording: AnyRecording | None,
        inner: InnerRuns,
        sharing: Sharing,
        *,
        within: Context | None,
    ) -> None:
        self._runtime = runtime
        self._recording = recording
        self._inner = inner
        self._within = within
        traceparent = None if within is None else within.traceparent
        self.extras = None if traceparent is None else Extras(traceparent)
        self.sharing = sharing
        self.pool: WorkerPool | None = None

    def begin(self) -> None:
        """Find the workers as the running loop sees them."""
        self.pool = self._runtime.pool()

    async def wait_again(self, status: str, tries: int) -> bool:
        """Tell whether what has ended so is to be begun again, when it is time for that."""
        if status != "abandoned" or self._recording is None or tries == LOST_MAX:
            return False
        await asyncio.sleep(_AGAIN_S * 2 ** (tries - 1))
        return True

    async def called(
        self,
        place: Place,
        task: str,
        found: Entry | Plan,
        given: dict[str, Any] | None,
        begun: Begun | None,
        *,
        leaves: bool,
    ) -> Called:
        """Call a node or a workflow, whatever becomes of it.

        Args:
            place: What for.
            task: The name of that.
            found: What is called.
            given: Its parameters by name.
            begun: What is recorded before.
            leaves: Whether it runs in the workers.
        """
        try:
            if begun is not None:
                assert self._recording is not None
                await self._recording.begin(begun)
            called = await self.call(place, task, found, given, leaves=leaves)
            tries = 1
            while begun is None and await self.wait_again(called.status, tries):
                tries += 1
                called = await self.call(place, task, found, given, leaves=leaves)
            return called
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if isinstance(found, Entry) and current is not None and not current.cancelling():
                return failed(found, error)  # raised by the node, as any other error
            return STOPPED

    async def call(
        self,
        place: Place,
        task: str,
        found: Entry | Plan,
        given: dict[str, Any] | None,
        *,
        leaves: bool,
    ) -> Called:
        """Call it once; see `called`.

        Raises:
            asyncio.CancelledError: Who waits was cancelled, or the node has raised it.
        """
        if isinstance(found, Plan):
            return await self._inner.call(place, task, found, given)
        if leaves:
            if self.is_nested(found):
                return await self._call_nested(found, given)
            assert self.pool is not None, "tasks leave only where there are workers"
            record = self._runtime.placing.of(found.name)
            return await self.pool.task(found, given, record, self.sharing, self.extras)
        context = self.context_of(found, place[0])
        if found.kind == "async":
            return await call_async(found, given, context, self.sharing)
        return await asyncio.to_thread(call, found, given, context, self.sharing)

    async def call_items(self, entry: Entry, items: list[ItemToRun]) -> list[ItemEnded]:
        """Call a node in the workers for items, with one message if it is plain.

        Raises:
            asyncio.CancelledError: Who waits was cancelled.
        """
        ended = await self._call_items(entry, items)
        tries = 1
        while (lost := _lost(ended)) and await self.wait_again("abandoned", tries):
            tries += 1
            begun = [each for each in items if each.index in lost]
            again = await self._call_items(entry, begun)
            ended = [each for each in ended if each.index not in lost] + again
        return ended

    def is_nested(self, entry: Entry) -> bool:
        """Whether a call must not wait for room that the callers of this run may hold.

        So it is in a run that a node has called, where a node runs beside others: callers of this
        kind may hold all the room there is for it. The broker then leaves it to this process.
        """
        within = self._within
        is_called = within is not None and within.depth > 0 and self._runtime.caller is not None
        return is_called and entry.kind != "inline"

    def context_of(self, entry: Entry, execution: int) -> Context | None:
        """Make the `Context` of a node that is called in this process, if it asks for one."""
        return context_of(entry, execution, self._runtime.caller, self._within)

    async def _call_items(self, entry: Entry, items: list[ItemToRun]) -> list[ItemEnded]:
        record = self._runtime.placing.of(entry.name)
        pool = self.pool
        assert pool is not None, "items leave only where there are workers"
        if entry.is_plain:
            return await pool.items(entry, items, record, self.sharing, self.extras)
        (item,) = items
        if self.is_nested(entry):
            called = await self._call_nested(entry, item.input)
        else:
            called = await pool.call(entry, item.input, record, self.sharing, self.extras)
        return [ItemEnded(item.index, *called)]

    async def _call_nested(self, entry: Entry, given: dict[str, Any] | None) -> Called:
        caller, within = self._runtime.caller, self._within
        assert caller is not None
        assert within is not None
        try:
            arguments = {"params": given or {}}
            return Called("succeeded", await caller.call(within, entry.name, ((), arguments)))
        except PronghornError as error:
            return failed_by(error)


def _lost(items: list[ItemEnded]) -> set[int]:
    """Give the indexes of items whose worker was lost."""
    return {each.index for each in items if each.status == "abandoned"}
