"""Has the actions of one run carried out: here in turn, in the workers, or beside. An IO shell.

Plain nodes that are tiny are called here, one task or a turn's worth of items at a time; all else
runs beside: in the workers, or as a task of the loop where there are none. Nothing is started per
task but for what runs beside.

Of a recorded run an action whose worker is lost is tried again, as any recorded request is; what
must not run twice is recorded before it begins.

Mirror: tests/worker/flow/test_actions.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from pronghorn.broker.wire.errors import (
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PronghornError,
)
from pronghorn.broker.wire.flows import RunReport
from pronghorn.client.stopwatch import Extras

from ..context import Context
from ..dispatch import Entry
from .batches import Batches
from .builtin import BUILTIN
from .calls import Called, call, call_async, call_items, context_of, failed, failed_by
from .events import (
    Ended,
    Event,
    ItemEnded,
    ItemsEnded,
    ItemsGiven,
    ItemToRun,
    PullItems,
    RunItems,
    RunTask,
)
from .feeding import Demand, from_here, from_workers, items_of
from .history import Begun
from .limits import FLOW_DEPTH_MAX
from .plan import NOOP, Plan
from .pooling import WorkerPool
from .recording import Recording

if TYPE_CHECKING:
    from .live import LiveRun
    from .runtime import FlowRuntime

LOST_MAX: Final = 3
"""Times that an action of a recorded run is begun whose workers are lost."""

_AGAIN_S: Final = 0.05  # before it is begun again; it doubles


class _Task(NamedTuple):
    """A plain node to be called for a task."""

    command: RunTask
    entry: Entry

    @property
    def execution(self) -> int:
        return self.command.execution


class _Items:
    """A plain node to be called for items that are of one action."""

    __slots__ = ("action", "done", "entry", "execution", "items")

    def __init__(self, execution: int, entry: Entry, first: ItemToRun) -> None:
        self.execution = execution
        self.entry = entry
        self.action = first.action
        self.items = [first]
        self.done = 0  # of them


class _EndedError(Exception):
    """A node that was to give items has ended otherwise."""

    def __init__(self, called: Called) -> None:
        super().__init__(called.message)
        self.called = called


class Actions:
    """Those of one run.

    Args:
        runtime: What all runs share.
        tell: Takes the ends of actions.
        recording: Of the run, if it is recorded.
        within: The call that the run is made for, if it is.
        depth: Workflows that the run lies within.
    """

    def __init__(
        self,
        runtime: FlowRuntime,
        tell: Callable[[Event], None],
        recording: Recording | None,
        *,
        within: Context | None,
        depth: int,
    ) -> None:
        self._runtime = runtime
        self._tell = tell
        self._recording = recording
        self._within = within
        self._depth = depth
        traceparent = None if within is None else within.traceparent
        self._extras = None if traceparent is None else Extras(traceparent)
        # Execution -> what runs for it beside us. Each task takes itself out at its end.
        self._tasks: dict[int, set[asyncio.Task[None]]] = {}
        self._here: deque[_Task | _Items] = deque()  # plain nodes to be called here, in turn
        # Execution -> its items that run beside us, or wait for that
        self._batches: dict[int, Batches] = {}
        # Execution -> what may be given to it, from the first time that it asks for items on
        self._demands: dict[int, Demand] = {}
        self._inner: set[LiveRun] = set()  # workflows that run for tasks of this one
        self._pause: Event | None = None  # what they are told when they begin
        self._pool: WorkerPool | None = None  # None where all runs in this process
        self._group: asyncio.TaskGroup  # from `begin` on

    @property
    def wait_here(self) -> bool:
        """Whether a plain node is to be called here."""
        return bool(self._here)

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Have what runs beside us run in a group, from now on."""
        self._group = group
        self._pool = self._runtime.pool()

    def cancel_all(self) -> None:
        """Cancel what still runs."""
        for task in [task for tasks in self._tasks.values() for task in tasks]:
            task.cancel()

    def end(self) -> None:
        """Let go of the run once it has ended.

        It has the values of its whole context, and among themselves they'd wait for the collector.
        """
        self._tell = _tell_nobody

    def tell_inner(self, event: Event) -> None:
        """Have the workflows within this one do the same."""
        for inner in self._inner:
            inner.tell(event)

    def paused(self, pause: Event | None) -> None:
        """Set what workflows within this one are told when they begin."""
        self._pause = pause

    def run_task(self, command: RunTask) -> Event | None:
        """Have an action run: here in its turn if it is a tiny node, else beside us.

        Returns:
            Its end, if that is known already.
        """
        found = self._find(command.action)
        if isinstance(found, Called):
            return Ended(command.execution, *found)
        leaves = isinstance(found, Entry) and self._leaves(found, command.place, item=False)
        begun = self._begun(found, command.execution, None)
        if isinstance(found, Entry) and found.inline and not leaves and begun is None:
            self._here.append(_Task(command, found))
            return None
        running = self._run_beside(command, found, begun, leaves=leaves)
        self._beside(command.execution, running)
        return None

    async def _run_beside(
        self, command: RunTask, found: Entry | Plan, begun: Begun | None, *, leaves: bool
    ) -> None:
        called = await self._called(command.execution, found, command.input, begun, leaves=leaves)
        self._tell(Ended(command.execution, *called))

    def run_items(self, command: RunItems) -> None:
        """Have items run: those of tiny nodes here in their turn, the others beside us."""
        execution = command.execution
        here: _Items | None = None
        for item in command.items:
            if here is not None and item.action == here.action:  # as mostly
                here.items.append(item)
                continue
            found = self._find(item.action)
            if isinstance(found, Called):
                self._tell(ItemsEnded(execution, [ItemEnded(item.index, *found)]))
                continue
            leaves = isinstance(found, Entry) and self._leaves(found, command.place, item=True)
            begun = self._begun(found, execution, item.index)
            if begun is not None:
                running = self._run_item(execution, item, found, begun, leaves=leaves)
                self._beside(execution, running)
            elif isinstance(found, Entry) and found.inline and not leaves:
                here = _Items(execution, found, item)
                self._here.append(here)
            elif isinstance(found, Entry) and leaves:
                batches = self._batches.get(execution)
                if batches is None:
                    batches = self._batches[execution] = Batches(command.batch_size)
                batches.add(found, item)
            else:
                running = self._run_item(execution, item, found, None, leaves=False)
                self._beside(execution, running)
        if execution in self._batches:
            self._send_batches(execution, self._batches[execution])

    def pull_items(self, command: PullItems) -> None:
        """Have a node give items, or more of them."""
        demand = self._demands.get(command.execution)
        if demand is not None:
            demand.ask(command.count)
            return
        demand = self._demands[command.execution] = Demand(command.count)
        self._beside(command.execution, self._give_items(command, demand))

    async def _give_items(self, command: PullItems, demand: Demand) -> None:
        execution, given, tries = command.execution, command.skip, 1
        found = self._find(command.action)
        while True:
            before = 0  # of what it gives now
            try:
                async with aclosing(self._batches_of(found, command, demand)) as batches:
                    async for batch in batches:
                        new = batch[max(0, given - before) :]
                        before += len(batch)
                        if new:
                            given += len(new)
                            demand.take(len(new))
                            self._tell(ItemsGiven(execution, new, is_last=False))
                self._tell(ItemsGiven(execution, [], is_last=True))
                return
            except _EndedError as ended:
                called = ended.called
            except PronghornError as error:
                called = failed_by(error)
            except Exception as error:  # users' code raises what it likes
                assert isinstance(found, Entry), "nothing else runs users' code here"
                called = failed(found, error)
            if called.status != "abandoned" or self._recording is None or tries == LOST_MAX:
                break
            await asyncio.sleep(_AGAIN_S * 2 ** (tries - 1))
            tries += 1
        status, result, message = called
        self._tell(
            ItemsGiven(execution, [], is_last=True, status=status, result=result, message=message)
        )

    async def _batches_of(
        self, found: Entry | Plan | Called, command: PullItems, demand: Demand
    ) -> AsyncGenerator[list[Any], None]:
        """Give items as they come, as many as are asked for.

        Raises:
            Exception: What the node raises, or an error of ours.
        """
        if isinstance(found, Called):
            raise _EndedError(found)
        if self._begun(found, command.execution, None) is not None:
            raise InvalidArgumentError(
                f"{command.action} must not run twice: it can't give items of a recorded run"
            )
        leaves = isinstance(found, Entry) and self._leaves(found, command.place, item=False)
        if isinstance(found, Plan) or not found.streams or (leaves and self._is_nested(found)):
            called = await self._call(command.execution, found, command.input, leaves=leaves)
            if called.status != "succeeded":
                raise _EndedError(called)
            yield items_of(command.action, called.result)
            return
        if leaves:
            assert self._pool is not None, "nodes leave only where there are workers"
            batches = from_workers(self._pool, found, command.input, demand, self._extras)
        else:
            context = self._context_of(found, command.execution)
            batches = from_here(found, command.input, context, demand)
        async with aclosing(batches):
            async for batch in batches:
                yield batch

    def run_here(self, until: float) -> Event:
        """Call plain nodes: one task, or items of one until that time, monotonic seconds."""
        first = self._here.popleft()
        begun_ns = perf_counter_ns()
        if isinstance(first, _Task):
            command, entry, count = first.command, first.entry, 1
            context = self._context_of(entry, command.execution)
            called = call(entry, command.input, context)
            event: Event = Ended(command.execution, *called)
        else:
            entry = first.entry
            ended = self._call_items(first, until)
            count = len(ended)
            event = ItemsEnded(first.execution, ended)
            if first.done < len(first.items):
                self._here.append(first)  # behind what other tasks have to do
        self._runtime.placing.of(entry.name).ran(perf_counter_ns() - begun_ns, count)
        return event

    def _call_items(self, here: _Items, until: float) -> list[ItemEnded]:
        entry, items, done = here.entry, here.items, here.done
        if entry.takes_context:
            item = items[done]
            called = call(entry, item.input, self._context_of(entry, here.execution))
            ended = [ItemEnded(item.index, *called)]
        else:
            ended = call_items(entry, items, done, until)
        here.done += len(ended)
        return ended

    def _find(self, action: str) -> Entry | Plan | Called:
        if action == NOOP:
            return Called("succeeded", None)
        try:
            return self._runtime.lookup(action)
        except NotFoundError as error:
            return failed_by(error)

    def _leaves(self, entry: Entry, pin: Any, *, item: bool) -> bool:
        """Whether a node runs in the workers."""
        if self._pool is None or BUILTIN.get(entry.name) is entry:
            return False
        if not entry.is_plain and pin is None:
            return True
        return self._runtime.placing.of(entry.name).place(pin, item=item) == "pool"

    async def _run_item(
        self,
        execution: int,
        item: ItemToRun,
        found: Entry | Plan,
        begun: Begun | None,
        *,
        leaves: bool,
    ) -> None:
        called = await self._called(execution, found, item.input, begun, leaves=leaves)
        self._tell(ItemsEnded(execution, [ItemEnded(item.index, *called)]))

    def _send_batches(self, execution: int, batches: Batches) -> None:
        """Send as many of the items that wait as may be in flight."""
        while (taken := batches.take(self._runtime.placing)) is not None:
            entry, items = taken
            self._beside(execution, self._run_batch(execution, batches, entry, items))

    async def _run_batch(
        self,
        execution: int,
        batches: Batches,
        entry: Entry,
        items: list[ItemToRun],
    ) -> None:
        try:
            ended = await self._call_batch(entry, items)
            tries = 1
            while self._recording is not None and (lost := _lost(ended)) and tries < LOST_MAX:
                await asyncio.sleep(_AGAIN_S * 2 ** (tries - 1))
                tries += 1
                begun = [each for each in items if each.index in lost]
                again = await self._call_batch(entry, begun)
                ended = [each for each in ended if each.index not in lost] + again
        except asyncio.CancelledError:
            ended = [ItemEnded(item.index, *_STOPPED) for item in items]
        batches.ended(len(items))
        self._tell(ItemsEnded(execution, ended))
        if batches.stopped:
            return
        self._send_batches(execution, batches)

    async def _call_batch(self, entry: Entry, items: list[ItemToRun]) -> list[ItemEnded]:
        record = self._runtime.placing.of(entry.name)
        pool = self._pool
        assert pool is not None, "items leave only where there are workers"
        if entry.is_plain:
            return await pool.items(entry, items, record, self._extras)
        (item,) = items
        if self._is_nested(entry):
            called = await self._call_nested(entry, item.input)
        else:
            called = await pool.call(entry, item.input, record, self._extras)
        return [ItemEnded(item.index, *called)]

    def stop(self, execution: int) -> None:
        """Stop what runs for an execution, and what waits to run."""
        left: list[ItemToRun] = []
        for here in [each for each in self._here if each.execution == execution]:
            self._here.remove(here)
            if isinstance(here, _Task):
                self._tell(Ended(execution, *_STOPPED))
            else:
                left += here.items[here.done :]
        if execution in self._batches:
            left += self._batches[execution].stop()
        if left:
            stopped = [ItemEnded(item.index, *_STOPPED) for item in left]
            self._tell(ItemsEnded(execution, stopped))
        for task in self._tasks.get(execution, ()):
            task.cancel()

    def _beside(self, execution: int, running: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(running)
        self._tasks.setdefault(execution, set()).add(task)
        task.add_done_callback(lambda done: self._forget(execution, done))

    async def _called(
        self,
        execution: int,
        found: Entry | Plan,
        given: dict[str, Any] | None,
        begun: Begun | None,
        *,
        leaves: bool,
    ) -> Called:
        """Call a node or a workflow beside us, whatever becomes of it."""
        try:
            if begun is not None:
                assert self._recording is not None
                await self._recording.begin(begun)
            called = await self._call(execution, found, given, leaves=leaves)
            tries = 1
            while self._recording is not None and called.status == "abandoned":
                if begun is not None or tries == LOST_MAX:
                    break
                await asyncio.sleep(_AGAIN_S * 2 ** (tries - 1))
                tries += 1
                called = await self._call(execution, found, given, leaves=leaves)
            return called
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if isinstance(found, Entry) and task is not None and not task.cancelling():
                return failed(found, error)  # raised by the node, as any other error
            return _STOPPED

    async def _call(
        self, execution: int, found: Entry | Plan, given: dict[str, Any] | None, *, leaves: bool
    ) -> Called:
        if isinstance(found, Plan):
            return await self._call_workflow(found, given)
        if leaves:
            if self._is_nested(found):
                return await self._call_nested(found, given)
            assert self._pool is not None, "tasks leave only where there are workers"
            record = self._runtime.placing.of(found.name)
            return await self._pool.task(found, given, record, self._extras)
        context = self._context_of(found, execution)
        if found.kind == "async":
            return await call_async(found, given, context)
        return await asyncio.to_thread(call, found, given, context)

    def _is_nested(self, entry: Entry) -> bool:
        """Whether a call must not wait for room that the callers of this run may hold.

        So it is in a run that a node has called, where a node runs beside others: callers of this
        kind may hold all the room there is for it. The broker then leaves it to this process.
        """
        within = self._within
        is_called = within is not None and within.depth > 0 and self._runtime.caller is not None
        return is_called and entry.kind != "inline"

    async def _call_nested(self, entry: Entry, given: dict[str, Any] | None) -> Called:
        caller, within = self._runtime.caller, self._within
        assert caller is not None
        assert within is not None
        try:
            arguments = {"params": given or {}}
            return Called("succeeded", await caller.call(within, entry.name, ((), arguments)))
        except PronghornError as error:
            return failed_by(error)

    async def _call_workflow(self, plan: Plan, given: dict[str, Any] | None) -> Called:
        if self._depth >= FLOW_DEPTH_MAX:
            message = f"workflows lie within each other {FLOW_DEPTH_MAX} deep, that is the limit"
            return failed_by(OverloadedError(message))
        inner = self._runtime.start(
            plan, given, level="terminal", within=self._within, depth=self._depth + 1
        )
        if self._pause is not None:
            inner.tell(self._pause)
        self._inner.add(inner)
        try:
            report = await inner.run()
        finally:
            self._inner.discard(inner)
        return outcome_of(report)

    def _context_of(self, entry: Entry, execution: int) -> Context | None:
        return context_of(entry, execution, self._runtime.caller, self._within)

    def _forget(self, execution: int, task: asyncio.Task[None]) -> None:
        tasks = self._tasks.get(execution)
        if tasks is not None:
            tasks.discard(task)
            if not tasks:
                del self._tasks[execution]
                batches = self._batches.get(execution)
                if batches is not None and batches.is_empty:
                    del self._batches[execution]

    def _begun(self, found: Entry | Plan, execution: int, index: int | None) -> Begun | None:
        """Make what is to be recorded before an action begins that must not run twice."""
        if self._recording is None or isinstance(found, Plan):
            return None
        return Begun(execution, index) if found.signature.at_most_once else None


def outcome_of(report: RunReport) -> Called:
    """Make the outcome of a task from that of the workflow that it has called."""
    if report.status == "succeeded":
        return Called("succeeded", report.output)
    errors = [_plain(each) for each in report.errors]
    status: Any = report.status
    return Called(status, {"output": report.output, "errors": errors}, report.reason())


def _tell_nobody(event: Event) -> None:
    pass


def _lost(items: list[ItemEnded]) -> set[int]:
    """Give the indexes of items whose worker was lost."""
    return {each.index for each in items if each.status == "abandoned"}


def _plain(failure: Any) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(failure)
    return made


_STOPPED: Final = Called("canceled", None, "it was stopped")
