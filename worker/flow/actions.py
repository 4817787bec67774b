"""Has the actions of one run carried out: here in turn, in the workers, or beside. An IO shell.

Plain nodes that are tiny are called here, one task or a turn's worth of items at a time; all else
runs beside: in the workers, or as a task of the loop where there are none. Nothing is started per
task but for what runs beside, which is called by `beside`; `giving` has nodes give items.

Mirror: tests/worker/flow/test_actions.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from pronghorn.broker.wire.errors import NotFoundError

from ..context import Context
from ..dispatch import Entry
from .batches import Batches
from .beside import STOPPED, Beside
from .builtin import BUILTIN
from .calls import Called, call, call_items, failed_by
from .events import (
    Ended,
    Event,
    ItemEnded,
    ItemsEnded,
    ItemToRun,
    PullItems,
    RunItems,
    RunTask,
)
from .giving import Giving, tell_nobody
from .history import Begun
from .inner import InnerRuns, no_signal
from .plan import NOOP, Plan
from .recording import AnyRecording
from .sharing import Sharing

if TYPE_CHECKING:
    from .runtime import FlowRuntime


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


class Actions:
    """Those of one run.

    Attributes:
        inner: The workflows that its tasks call.

    Args:
        runtime: What all runs share.
        tell: Takes the ends of actions.
        recording: Of the run, if it is recorded.
        within: The call that the run is made for, if it is.
        depth: Workflows that the run lies within.
        sharing: See `Beside`.
    """

    def __init__(
        self,
        runtime: FlowRuntime,
        tell: Callable[[Event], None],
        recording: AnyRecording | None,
        *,
        within: Context | None,
        depth: int,
        sharing: Sharing | None = None,
    ) -> None:
        self._runtime = runtime
        self._tell = tell
        self._recording = recording
        self._ends_sharing = sharing is None
        self._sharing = sharing = sharing or Sharing(runtime.shared)
        self.inner = InnerRuns(runtime, recording, sharing, within=within, depth=depth)
        self._pasts = self.inner.pasts  # the same dict; empty but for a run that was taken up
        self._beside = Beside(runtime, recording, self.inner, sharing, within=within)
        self._giving = Giving(self._beside, tell)
        # Execution -> what runs for it beside us. Each task takes itself out at its end.
        self._tasks: dict[int, set[asyncio.Task[None]]] = {}
        self._here: deque[_Task | _Items] = deque()  # plain nodes to be called here, in turn
        # Execution -> its items that run beside us, or wait for that
        self._batches: dict[int, Batches] = {}
        self._group: asyncio.TaskGroup  # from `begin` on

    @property
    def wait_here(self) -> bool:
        """Whether a plain node is to be called here."""
        return bool(self._here)

    @property
    def waits_only(self) -> bool:
        """Whether nothing is under way but workflows that are called."""
        if self._here:
            return False
        under_way = [task for tasks in self._tasks.values() for task in tasks if not task.done()]
        return len(under_way) == len(self.inner.runs)

    def begin(self, group: asyncio.TaskGroup) -> None:
        """Have what runs beside us run in a group, from now on."""
        self._group = group
        self._beside.begin()

    def cancel_all(self) -> None:
        """Cancel what still runs."""
        for task in [task for tasks in self._tasks.values() for task in tasks]:
            task.cancel()

    def end(self) -> None:
        """Let go of the run once it has ended.

        It has the values of its whole context, and among themselves they'd wait for the collector.
        """
        self._tell = tell_nobody
        self._giving.end()
        self.inner.take_signal = no_signal
        if self._ends_sharing:
            self._sharing.end()

    def run_task(self, command: RunTask) -> Event | None:
        """Have an action run: here in its turn if it is a tiny node, else beside us.

        Returns:
            Its end, if that is known already.
        """
        found = self._find(command.action)
        if self._pasts:
            found = self.inner.plan_at((command.execution, None)) or found
        if isinstance(found, Called):
            return Ended(command.execution, *found)
        leaves = isinstance(found, Entry) and self._leaves(found, command.place, item=False)
        begun = self._begun(found, command.execution, None)
        if isinstance(found, Entry) and found.inline and not leaves and begun is None:
            self._here.append(_Task(command, found))
            return None
        running = self._run_beside(command, found, begun, leaves=leaves)
        self._run(command.execution, running)
        return None

    async def _run_beside(
        self, command: RunTask, found: Entry | Plan, begun: Begun | None, *, leaves: bool
    ) -> None:
        place = command.execution, None
        called = await self._beside.called(
            place, command.task, found, command.input, begun, leaves=leaves
        )
        self._tell(Ended(command.execution, *called))

    def run_items(self, command: RunItems) -> None:
        """Have items run: those of tiny nodes here in their turn, the others beside us."""
        execution, task = command.execution, command.task
        here: _Items | None = None
        for item in self._resume_items(command) if self._pasts else command.items:
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
                running = self._run_item(execution, task, item, found, begun, leaves=leaves)
                self._run(execution, running)
            elif isinstance(found, Entry) and found.inline and not leaves:
                here = _Items(execution, found, item)
                self._here.append(here)
            elif isinstance(found, Entry) and leaves:
                batches = self._batches.get(execution)
                if batches is None:
                    batches = self._batches[execution] = Batches(command.batch_size)
                batches.add(found, item)
            else:
                running = self._run_item(execution, task, item, found, None, leaves=False)
                self._run(execution, running)
        if execution in self._batches:
            self._send_batches(execution, self._batches[execution])

    def _resume_items(self, command: RunItems) -> list[ItemToRun]:
        """Have workflows go on that had begun for items; gives the other items."""
        execution, others = command.execution, []
        for item in command.items:
            plan = self.inner.plan_at((execution, item.index))
            if plan is None:
                others.append(item)
            else:
                running = self._run_item(execution, command.task, item, plan, None, leaves=False)
                self._run(execution, running)
        return others

    def pull_items(self, command: PullItems) -> None:
        """Have a node give items, or more of them."""
        if self._giving.ask(command):
            return
        execution, found = command.execution, self._find(command.action)
        leaves = isinstance(found, Entry) and self._leaves(found, command.place, item=False)
        is_once = not isinstance(found, Called) and self._begun(found, execution, None) is not None
        self._run(execution, self._giving.give(command, found, is_once=is_once, leaves=leaves))

    def run_here(self, until: float) -> Event:
        """Call plain nodes: one task, or items of one until that time, monotonic seconds."""
        first = self._here.popleft()
        begun_ns = perf_counter_ns()
        if isinstance(first, _Task):
            command, entry, count = first.command, first.entry, 1
            context = self._context_of(entry, command.execution)
            called = call(entry, command.input, context, self._sharing)
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
            context = self._context_of(entry, here.execution)
            called = call(entry, item.input, context, self._sharing)
            ended = [ItemEnded(item.index, *called)]
        else:
            ended = call_items(entry, items, done, until, self._sharing)
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
        if self._beside.pool is None or BUILTIN.get(entry.name) is entry:
            return False
        if not entry.is_plain and pin is None:
            return True
        return self._runtime.placing.of(entry.name).place(pin, item=item) == "pool"

    async def _run_item(
        self,
        execution: int,
        task: str,
        item: ItemToRun,
        found: Entry | Plan,
        begun: Begun | None,
        *,
        leaves: bool,
    ) -> None:
        place = execution, item.index
        called = await self._beside.called(
            place, f"{task}[{item.index}]", found, item.input, begun, leaves=leaves
        )
        self._tell(ItemsEnded(execution, [ItemEnded(item.index, *called)]))

    def _send_batches(self, execution: int, batches: Batches) -> None:
        """Send as many of the items that wait as may be in flight."""
        while (taken := batches.take(self._runtime.placing)) is not None:
            entry, items = taken
            self._run(execution, self._run_batch(execution, batches, entry, items))

    async def _run_batch(
        self,
        execution: int,
        batches: Batches,
        entry: Entry,
        items: list[ItemToRun],
    ) -> None:
        try:
            ended = await self._beside.call_items(entry, items)
        except asyncio.CancelledError:
            ended = [ItemEnded(item.index, *STOPPED) for item in items]
        batches.ended(len(items))
        self._tell(ItemsEnded(execution, ended))
        if batches.stopped:
            return
        self._send_batches(execution, batches)

    def stop(self, execution: int) -> None:
        """Stop what runs for an execution, and what waits to run."""
        left: list[ItemToRun] = []
        for here in [each for each in self._here if each.execution == execution]:
            self._here.remove(here)
            if isinstance(here, _Task):
                self._tell(Ended(execution, *STOPPED))
            else:
                left += here.items[here.done :]
        if execution in self._batches:
            left += self._batches[execution].stop()
        if left:
            stopped = [ItemEnded(item.index, *STOPPED) for item in left]
            self._tell(ItemsEnded(execution, stopped))
        for task in self._tasks.get(execution, ()):
            task.cancel()

    def _run(self, execution: int, running: Coroutine[Any, Any, None]) -> None:
        task = self._group.create_task(running)
        self._tasks.setdefault(execution, set()).add(task)
        task.add_done_callback(lambda done: self._forget(execution, done))

    def _context_of(self, entry: Entry, execution: int) -> Context | None:
        return self._beside.context_of(entry, execution) if entry.takes_context else None

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
