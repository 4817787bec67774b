"""One run as it goes on: carries out what its conductor says. An IO shell, on one event loop.

Plain nodes that are tiny are called here, in turn, for `TURN_S` before others get theirs; all else
runs beside: in the workers, or as a task of the loop where there are none. Nothing is started per
task but for what runs beside.

Mirror: tests/worker/flow/test_live.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from pronghorn.broker.wire.errors import NotFoundError, OverloadedError, PronghornError
from pronghorn.broker.wire.flows import FlowEvent, RunReport
from pronghorn.client.stopwatch import Extras

from ..context import Context
from ..dispatch import Entry
from .batches import Batches
from .builtin import BUILTIN
from .calls import Called, call, call_async, call_items, context_of, failed, failed_by
from .conductor import Conductor
from .events import (
    Cancel,
    Command,
    Ended,
    Event,
    ItemEnded,
    ItemsEnded,
    ItemToRun,
    Pause,
    Refused,
    Resume,
    RunEnded,
    RunItems,
    RunTask,
    Start,
    Stop,
    Tick,
)
from .feed import Watch
from .limits import FLOW_DEPTH_MAX
from .plan import NOOP, Plan
from .pooling import WorkerPool

if TYPE_CHECKING:
    from .runtime import FlowRuntime

TURN_S: Final = 0.001
"""Seconds of plain nodes after which others get their turn."""

Watcher = Callable[[FlowEvent], None]


class _Order(NamedTuple):
    """An event from outside, and who wants to know whether it was refused."""

    event: Event
    answer: asyncio.Future[str | None]


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


class LiveRun:
    """One run; made by `FlowRuntime.start`.

    Attributes:
        id: Names it.
        report: How it has ended; None until it has.
    """

    def __init__(
        self,
        runtime: FlowRuntime,
        plan: Plan,
        begin: Start,
        watch: Watch,
        on_event: Watcher | None,
        *,
        within: Context | None,
        depth: int,
        run_id: str,
    ) -> None:
        self.id = run_id
        self.report: RunReport | None = None
        self._runtime = runtime
        self._conductor = Conductor(plan)
        self._watch: Watch | None = None if on_event is None else watch
        self._unwatched = watch
        self._on_event = on_event
        self._within = within
        self._depth = depth
        traceparent = None if within is None else within.traceparent
        self._extras = None if traceparent is None else Extras(traceparent)
        self._inbox: deque[Event | _Order] = deque([begin])
        self._is_over = False  # whether no order is taken any more
        self._loop: asyncio.AbstractEventLoop | None = None  # where it runs; None before it does
        self._wake = asyncio.Event()
        self._told = asyncio.Event()  # set when there may be events to take, or the run has ended
        self._taken = asyncio.Event()  # set when there is room for further ones
        self._commands: deque[Command] = deque()
        # Execution -> what runs for it beside us. Each task takes itself out at its end.
        self._tasks: dict[int, set[asyncio.Task[None]]] = {}
        self._here: deque[_Task | _Items] = deque()  # plain nodes to be called here, in turn
        # Execution -> its items that run beside us, or wait for that
        self._batches: dict[int, Batches] = {}
        self._inner: set[LiveRun] = set()  # workflows that run for tasks of this one
        self._progress: dict[int, tuple[int, int]] = {}  # execution -> items done, failed
        self._turn_began = 0.0
        self._began = 0.0
        self._pool: WorkerPool | None = None  # None where all runs in this process

    def tell(self, event: Event) -> None:
        """Pause, resume, cancel or signal; from the loop on which it runs."""
        self._inbox.append(event)
        self._wake.set()

    async def order(self, event: Event) -> str | None:
        """Do the same, from any loop, and wait until it is taken in.

        Returns:
            The reason if it was refused.

        Raises:
            NotFoundError: The run has ended.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            there = asyncio.run_coroutine_threadsafe(self.order(event), self._loop)
            return await asyncio.wrap_future(there)
        if self._is_over:
            raise self._over()
        answer: asyncio.Future[str | None] = loop.create_future()
        self._inbox.append(_Order(event, answer))
        self._wake.set()
        return await answer

    async def run(self) -> RunReport:
        """Run to the end. Cancelling this cancels what runs."""
        self._loop = asyncio.get_running_loop()
        self._began = monotonic()
        self._pool = self._runtime.pool()
        try:
            async with asyncio.TaskGroup() as group:
                self._turn_began = monotonic()
                while True:
                    ended = await self._work_off(group)
                    if ended is not None:
                        break
                    await self._wait()
                for task in [task for tasks in self._tasks.values() for task in tasks]:
                    task.cancel()  # what was stopped and has not ended
        finally:
            self._is_over = True
            self._refuse_orders()
            self._told.set()
        self.report = RunReport(ended.status, ended.output, ended.errors, self.id)
        return self.report

    async def follow(self) -> AsyncGenerator[FlowEvent, None]:
        """Run it, and give its events as they come; to leave this cancels the run.

        While nobody takes them the run goes on until `AHEAD_MAX` of them wait.
        """
        watch = self._watch = self._unwatched
        running = asyncio.create_task(self.run())
        running.add_done_callback(lambda _: self._told.set())
        try:
            yield watch.begun()
            while True:
                self._told.clear()
                while (event := watch.take()) is not None:
                    self._taken.set()
                    yield event
                if running.done():
                    await running  # raises what it has raised
                    return
                await self._told.wait()
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait([running])

    async def _work_off(self, group: asyncio.TaskGroup) -> RunEnded | None:
        """Do all that can be done now; return the end of the run if that comes.

        What runs beside is begun first, so that it runs while plain nodes are called here.
        """
        while True:
            while self._commands:
                command = self._commands.popleft()
                if self._watch is not None:
                    self._show(command)
                    if self._watch.is_full:
                        await self._wait_for_room(self._watch)
                if isinstance(command, RunEnded):
                    return command
                self._do(command, group)
                if monotonic() - self._turn_began > TURN_S:
                    await self._let_others()
            if self._inbox:
                self._handle(self._next_event())
            elif self._here:
                self._run_here()
                if monotonic() - self._turn_began > TURN_S:
                    await self._let_others()
            else:
                return None

    async def _wait(self) -> None:
        """Wait until something has ended or is due."""
        deadline = self._conductor.deadline()
        if deadline is None:
            await self._wake.wait()
        else:
            try:
                async with asyncio.timeout(max(0.0, deadline - monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                self._inbox.append(Tick())
        self._wake.clear()
        self._turn_began = monotonic()

    async def _wait_for_room(self, watch: Watch) -> None:
        while watch.is_full:
            self._taken.clear()
            await self._taken.wait()
        self._turn_began = monotonic()

    def _next_event(self) -> Event:
        """Take an event; items of one execution that have ended meanwhile are taken together."""
        event = self._inbox.popleft()
        if isinstance(event, _Order):
            self._take_order(event)
            return Tick()
        if isinstance(event, ItemsEnded):
            while self._inbox and isinstance(other := self._inbox[0], ItemsEnded):
                if other.execution != event.execution:
                    break
                event.items.extend(other.items)
                self._inbox.popleft()
        elif isinstance(event, Pause | Resume | Cancel):
            self._hand_on(event)
        return event

    def _take_order(self, order: _Order) -> None:
        commands = self._conductor.handle(order.event, monotonic())
        self._commands.extend(commands)
        refusals = [each.reason for each in commands if isinstance(each, Refused)]
        if not refusals and isinstance(order.event, Pause | Resume | Cancel):
            self._hand_on(order.event)
        if not order.answer.done():
            order.answer.set_result(refusals[0] if refusals else None)

    def _hand_on(self, event: Pause | Resume | Cancel) -> None:
        """Have the workflows within this one do the same."""
        for inner in self._inner:
            inner.tell(event)

    def _refuse_orders(self) -> None:
        for each in self._inbox:
            if isinstance(each, _Order) and not each.answer.done():
                each.answer.set_exception(self._over())

    def _over(self) -> NotFoundError:
        return NotFoundError(f"run {self.id} has ended")

    def _handle(self, event: Event) -> None:
        if isinstance(event, ItemsEnded) and self._watch is not None:
            self._show_progress(event)
        self._commands.extend(self._conductor.handle(event, monotonic()))

    def _do(self, command: Command, group: asyncio.TaskGroup) -> None:
        if isinstance(command, RunTask):
            self._run_task(command, group)
        elif isinstance(command, RunItems):
            self._run_items(command, group)
        elif isinstance(command, Stop):
            self._stop(command.execution)

    def _run_task(self, command: RunTask, group: asyncio.TaskGroup) -> None:
        """Have an action run: here in its turn if it is a tiny node, else beside us."""
        found = self._find(command.action)
        if isinstance(found, Called):
            self._handle(Ended(command.execution, *found))
            return
        leaves = isinstance(found, Entry) and self._leaves(found, command.place, item=False)
        if isinstance(found, Entry) and found.inline and not leaves:
            self._here.append(_Task(command, found))
            return
        self._beside(command.execution, self._run_beside(command, found, leaves=leaves), group)

    async def _run_beside(self, command: RunTask, found: Entry | Plan, *, leaves: bool) -> None:
        called = await self._called(command.execution, found, command.input, leaves=leaves)
        self.tell(Ended(command.execution, *called))

    def _run_items(self, command: RunItems, group: asyncio.TaskGroup) -> None:
        """Have items run: those of tiny nodes here in their turn, the others beside us."""
        execution = command.execution
        here: _Items | None = None
        for item in command.items:
            if here is not None and item.action == here.action:  # as mostly
                here.items.append(item)
                continue
            found = self._find(item.action)
            if isinstance(found, Called):
                self.tell(ItemsEnded(execution, [ItemEnded(item.index, *found)]))
                continue
            leaves = isinstance(found, Entry) and self._leaves(found, command.place, item=True)
            if isinstance(found, Entry) and found.inline and not leaves:
                here = _Items(execution, found, item)
                self._here.append(here)
            elif isinstance(found, Entry) and leaves:
                batches = self._batches.get(execution)
                if batches is None:
                    batches = self._batches[execution] = Batches(command.batch_size)
                batches.add(found, item)
            else:
                self._beside(execution, self._run_item(execution, item, found), group)
        if execution in self._batches:
            self._send_batches(execution, self._batches[execution], group)

    def _run_here(self) -> None:
        """Call plain nodes: one task, or items of one until the turn is over."""
        first = self._here.popleft()
        begun_ns = perf_counter_ns()
        if isinstance(first, _Task):
            command, entry, count = first.command, first.entry, 1
            context = self._context_of(entry, command.execution)
            called = call(entry, command.input, context)
            event: Event = Ended(command.execution, *called)
        else:
            entry = first.entry
            ended = self._call_items(first)
            count = len(ended)
            event = ItemsEnded(first.execution, ended)
            if first.done < len(first.items):
                self._here.append(first)  # behind what other tasks have to do
        self._runtime.placing.of(entry.name).ran(perf_counter_ns() - begun_ns, count)
        self._handle(event)

    def _call_items(self, here: _Items) -> list[ItemEnded]:
        entry, items, done = here.entry, here.items, here.done
        if entry.takes_context:
            item = items[done]
            called = call(entry, item.input, self._context_of(entry, here.execution))
            ended = [ItemEnded(item.index, *called)]
        else:
            ended = call_items(entry, items, done, self._turn_began + TURN_S)
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

    async def _run_item(self, execution: int, item: ItemToRun, found: Entry | Plan) -> None:
        called = await self._called(execution, found, item.input, leaves=False)
        self.tell(ItemsEnded(execution, [ItemEnded(item.index, *called)]))

    def _send_batches(self, execution: int, batches: Batches, group: asyncio.TaskGroup) -> None:
        """Send as many of the items that wait as may be in flight."""
        while (taken := batches.take(self._runtime.placing)) is not None:
            entry, items = taken
            self._beside(execution, self._run_batch(execution, batches, entry, items, group), group)

    async def _run_batch(
        self,
        execution: int,
        batches: Batches,
        entry: Entry,
        items: list[ItemToRun],
        group: asyncio.TaskGroup,
    ) -> None:
        record = self._runtime.placing.of(entry.name)
        pool = self._pool
        assert pool is not None, "items leave only where there are workers"
        try:
            if entry.is_plain:
                ended = await pool.items(entry, items, record, self._extras)
            else:
                (item,) = items
                if self._is_nested(entry):
                    called = await self._call_nested(entry, item.input)
                else:
                    called = await pool.call(entry, item.input, record, self._extras)
                ended = [ItemEnded(item.index, *called)]
        except asyncio.CancelledError:
            ended = [ItemEnded(item.index, *_STOPPED) for item in items]
        batches.ended(len(items))
        self.tell(ItemsEnded(execution, ended))
        if batches.stopped:
            return
        self._send_batches(execution, batches, group)

    def _stop(self, execution: int) -> None:
        """Stop what runs for an execution, and what waits to run."""
        left: list[ItemToRun] = []
        for here in [each for each in self._here if each.execution == execution]:
            self._here.remove(here)
            if isinstance(here, _Task):
                self.tell(Ended(execution, *_STOPPED))
            else:
                left += here.items[here.done :]
        if execution in self._batches:
            left += self._batches[execution].stop()
        if left:
            stopped = [ItemEnded(item.index, *_STOPPED) for item in left]
            self.tell(ItemsEnded(execution, stopped))
        for task in self._tasks.get(execution, ()):
            task.cancel()

    def _beside(
        self, execution: int, running: Coroutine[Any, Any, None], group: asyncio.TaskGroup
    ) -> None:
        task = group.create_task(running)
        self._tasks.setdefault(execution, set()).add(task)
        task.add_done_callback(lambda done: self._forget(execution, done))

    async def _called(
        self, execution: int, found: Entry | Plan, given: dict[str, Any] | None, *, leaves: bool
    ) -> Called:
        """Call a node or a workflow beside us, whatever becomes of it."""
        try:
            return await self._call(execution, found, given, leaves=leaves)
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
        if self._conductor.status in ("pausing", "paused"):
            inner.tell(Pause())
        self._inner.add(inner)
        try:
            report = await inner.run()
        finally:
            self._inner.discard(inner)
        return outcome_of(report)

    def _context_of(self, entry: Entry, execution: int) -> Context | None:
        return context_of(entry, execution, self._runtime.caller, self._within)

    async def _let_others(self) -> None:
        """Let what runs beside us, and timers, have their turn."""
        await asyncio.sleep(0)
        self._turn_began = now = monotonic()
        deadline = self._conductor.deadline()
        if deadline is not None and deadline <= now:
            self._inbox.append(Tick())

    def _forget(self, execution: int, task: asyncio.Task[None]) -> None:
        tasks = self._tasks.get(execution)
        if tasks is not None:
            tasks.discard(task)
            if not tasks:
                del self._tasks[execution]
                batches = self._batches.get(execution)
                if batches is not None and batches.is_empty:
                    del self._batches[execution]

    def _show(self, command: Command) -> None:
        assert self._watch is not None
        self._watch.on_command(command, monotonic() - self._began)
        self._tell_watcher()

    def _show_progress(self, event: ItemsEnded) -> None:
        assert self._watch is not None
        done, failed = self._progress.get(event.execution, (0, 0))
        done += len(event.items)
        failed += sum(each.status not in ("succeeded", "canceled") for each in event.items)
        self._progress[event.execution] = done, failed
        self._watch.on_items(event.execution, done, failed, monotonic() - self._began)
        self._tell_watcher()

    def _tell_watcher(self) -> None:
        if self._on_event is None:
            self._told.set()
            return
        assert self._watch is not None
        while (event := self._watch.take()) is not None:
            self._on_event(event)


def outcome_of(report: RunReport) -> Called:
    """Make the outcome of a task from that of the workflow that it has called."""
    if report.status == "succeeded":
        return Called("succeeded", report.output)
    errors = [_plain(each) for each in report.errors]
    status: Any = report.status
    return Called(status, {"output": report.output, "errors": errors}, report.reason())


def _plain(failure: Any) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(failure)
    return made


_STOPPED: Final = Called("canceled", None, "it was stopped")
