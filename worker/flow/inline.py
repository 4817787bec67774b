"""Runs workflows in this process, over a dispatch table. An IO shell around the conductor.

``def`` nodes are called where their turn comes, ``async def`` nodes and those with ``thread=True``
run side by side, and a workflow is called like a node. Nothing is started per task but for nodes
that are not plain ``def``.

    runtime = InlineRuntime(DispatchTable(load(["nodes.py"]).entries))
    runtime.run(validate(Path("deploy.yaml").read_text()), {"app": "shop"}).output

Mirror: tests/worker/flow/test_inline.py.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final

import msgspec

from pronghorn.broker.wire.errors import NotFoundError, OverloadedError

from ..context import Caller
from ..dispatch import DispatchTable, Entry
from .builtin import BUILTIN
from .calls import Called, call, call_async, call_items, context_of, failed, failed_by
from .conductor import Conductor
from .events import (
    Command,
    Ended,
    Event,
    Failure,
    ItemEnded,
    ItemsEnded,
    RunEnded,
    RunItems,
    RunTask,
    Start,
    Stop,
    Tick,
)
from .feed import Feed, Level, RunEvent
from .model import Workflow
from .plan import NOOP, Plan, PlanCache

DEPTH_MAX: Final = 100
"""Workflows within workflows, as calls within calls."""

TURN_S: Final = 0.001
"""Seconds of plain nodes after which others get their turn."""

Watcher = Callable[[RunEvent], None]


class RunResult(msgspec.Struct, frozen=True):
    """How a run has ended.

    Attributes:
        status: ``succeeded``, ``failed`` or ``canceled``.
        output: By name; None where there is none.
        errors: What went wrong, also what was handled.
    """

    status: str
    output: dict[str, Any] | None
    errors: tuple[Failure, ...]


class InlineRuntime:
    """The nodes and workflows of this process.

    Args:
        table: The nodes.
        workflows: Those that can be called like nodes, by name; a node goes before a workflow.
        caller: Makes the calls of nodes that call others.
    """

    def __init__(
        self,
        table: DispatchTable,
        workflows: Mapping[str, Workflow] | None = None,
        *,
        caller: Caller | None = None,
    ) -> None:
        self.caller = caller
        self._table = table
        self._plans = PlanCache()
        self._workflows = {name: self._plan(each) for name, each in (workflows or {}).items()}
        # Action -> what it is; filled as they are used. Names come from definitions, so that it is
        # bounded by what the table and the workflows hold.
        self._found: dict[str, Entry | Plan] = {}

    def run(
        self,
        workflow: Workflow,
        inputs: Mapping[str, Any] | None = None,
        *,
        on_event: Watcher | None = None,
        level: Level = "full",
    ) -> RunResult:
        """Run a workflow to its end, on an event loop of its own."""
        return asyncio.run(self.start(workflow, inputs, on_event=on_event, level=level).run())

    def start(
        self,
        workflow: Workflow,
        inputs: Mapping[str, Any] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        on_event: Watcher | None = None,
        level: Level = "full",
        depth: int = 0,
    ) -> "InlineRun":
        """Make a run, which begins when its `InlineRun.run` is awaited.

        Args:
            workflow: Compiled if it is not kept.
            inputs: Its input; what it does not declare is ignored.
            context: Variables beside the input.
            on_event: Called for each event, in order.
            level: Which events.
            depth: Workflows that this one lies within.
        """
        begin = Start(dict(inputs or {}), dict(context or {}))
        return InlineRun(self, self._plan(workflow), begin, Feed(level), on_event, depth)

    def lookup(self, action: str) -> Entry | Plan:
        """Find what an action is.

        Raises:
            NotFoundError: There is neither a node nor a workflow of that name.
        """
        found = self._found.get(action)
        if found is None:
            found = self._found[action] = self._lookup(action)
        return found

    def _lookup(self, action: str) -> Entry | Plan:
        if action in BUILTIN:
            return BUILTIN[action]
        try:
            return self._table.lookup(action)
        except NotFoundError:
            if action in self._workflows:
                return self._workflows[action]
            raise

    def _plan(self, workflow: Workflow) -> Plan:
        return self._plans.plan_of(workflow)


class InlineRun:
    """One run."""

    def __init__(
        self,
        runtime: InlineRuntime,
        plan: Plan,
        begin: Start,
        feed: Feed,
        on_event: Watcher | None,
        depth: int,
    ) -> None:
        self._runtime = runtime
        self._conductor = Conductor(plan)
        self._feed = feed
        self._on_event = on_event
        self._depth = depth
        self._inbox: deque[Event] = deque([begin])
        self._wake = asyncio.Event()
        self._commands: deque[Command] = deque()
        # Execution -> what runs for it beside us. Each task takes itself out at its end.
        self._tasks: dict[int, set[asyncio.Task[None]]] = {}
        self._progress: dict[int, tuple[int, int]] = {}  # execution -> items done, failed
        self._turn_began = 0.0

    def tell(self, event: Event) -> None:
        """Pause, resume, cancel or signal; from the loop on which it runs."""
        self._inbox.append(event)
        self._wake.set()

    async def run(self) -> RunResult:
        """Run to the end. Cancelling this cancels what runs."""
        async with asyncio.TaskGroup() as group:
            self._turn_began = monotonic()
            while True:
                ended = await self._work_off(group)
                if ended is not None:
                    break
                await self._wait()
            for task in [task for tasks in self._tasks.values() for task in tasks]:
                task.cancel()  # what was stopped and has not ended
        return RunResult(ended.status, ended.output, ended.errors)

    async def _work_off(self, group: asyncio.TaskGroup) -> RunEnded | None:
        """Do all that can be done now; return the end of the run if that comes."""
        while self._inbox or self._commands:
            while self._commands:
                command = self._commands.popleft()
                self._show(command)
                if isinstance(command, RunEnded):
                    return command
                await self._do(command, group)
            if self._inbox:
                self._handle(self._next_event())
        return None

    async def _wait(self) -> None:
        """Wait until something has ended or is due."""
        deadline = self._conductor.deadline()
        timeout_s = None if deadline is None else max(0.0, deadline - monotonic())
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            self._inbox.append(Tick())
        self._wake.clear()

    def _next_event(self) -> Event:
        """Take an event; items of one execution that have ended meanwhile are taken together."""
        event = self._inbox.popleft()
        if isinstance(event, ItemsEnded):
            while self._inbox and isinstance(other := self._inbox[0], ItemsEnded):
                if other.execution != event.execution:
                    break
                event.items.extend(other.items)
                self._inbox.popleft()
        return event

    def _handle(self, event: Event) -> None:
        if isinstance(event, ItemsEnded):
            self._show_progress(event)
        self._commands.extend(self._conductor.handle(event, monotonic()))

    async def _do(self, command: Command, group: asyncio.TaskGroup) -> None:
        if isinstance(command, RunTask):
            called = self._begin(command.execution, command.action, command.input, None, group)
            if called is not None:
                self._handle(Ended(command.execution, *called))
        elif isinstance(command, RunItems):
            await self._run_items(command, group)
        elif isinstance(command, Stop):
            for task in self._tasks.get(command.execution, ()):
                task.cancel()
        if monotonic() - self._turn_began > TURN_S:
            await self._let_others()

    async def _run_items(self, command: RunItems, group: asyncio.TaskGroup) -> None:
        """Run items; plain nodes answer together, in turns, the others as they end."""
        items = command.items
        done = 0
        while done < len(items):
            item = items[done]
            plain = self._plain_node(item.action)
            if plain is None:
                called = self._begin(command.execution, item.action, item.input, item.index, group)
                ended = [] if called is None else [ItemEnded(item.index, *called)]
                done += 1
            else:
                ended = call_items(plain, items, done, self._turn_began + TURN_S)
                done += len(ended)
            if ended:
                self._handle(ItemsEnded(command.execution, ended))
            if monotonic() - self._turn_began > TURN_S:
                await self._let_others()

    def _plain_node(self, action: str) -> Entry | None:
        """Find a node that is only a function to be called; None if it is anything else."""
        if action == NOOP:
            return None
        try:
            found = self._runtime.lookup(action)
        except NotFoundError:
            return None
        if isinstance(found, Entry) and found.kind == "inline" and not found.takes_context:
            return found
        return None

    def _begin(
        self,
        execution: int,
        action: str,
        given: dict[str, Any] | None,
        index: int | None,
        group: asyncio.TaskGroup,
    ) -> Called | None:
        """Run an action: to its end if it is a plain node, else beside us."""
        if action == NOOP:
            return Called("succeeded", None)
        try:
            found = self._runtime.lookup(action)
        except NotFoundError as error:
            return failed_by(error)
        if isinstance(found, Entry) and found.kind == "inline":
            return call(found, given, context_of(found, execution, self._runtime.caller))
        task = group.create_task(self._beside(execution, found, given, index))
        self._tasks.setdefault(execution, set()).add(task)
        task.add_done_callback(lambda done: self._forget(execution, done))
        return None

    async def _beside(
        self, execution: int, found: Entry | Plan, given: dict[str, Any] | None, index: int | None
    ) -> None:
        try:
            called = await self._call(execution, found, given)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if isinstance(found, Entry) and task is not None and not task.cancelling():
                called = failed(found, error)  # raised by the node, as any other error
            else:
                called = Called("canceled", None, "it was stopped")
        if index is None:
            self.tell(Ended(execution, *called))
        else:
            self.tell(ItemsEnded(execution, [ItemEnded(index, *called)]))

    async def _call(
        self, execution: int, found: Entry | Plan, given: dict[str, Any] | None
    ) -> Called:
        if isinstance(found, Plan):
            return await self._call_workflow(found, given)
        context = context_of(found, execution, self._runtime.caller)
        if found.kind == "thread":
            return await asyncio.to_thread(call, found, given, context)
        return await call_async(found, given, context)

    async def _call_workflow(self, plan: Plan, given: dict[str, Any] | None) -> Called:
        if self._depth >= DEPTH_MAX:
            message = f"workflows lie within each other {DEPTH_MAX} deep, that is the limit"
            return failed_by(OverloadedError(message))
        inner = self._runtime.start(plan.workflow, given, level="terminal", depth=self._depth + 1)
        ended = await inner.run()
        if ended.status == "succeeded":
            return Called("succeeded", ended.output)
        errors = [msgspec.to_builtins(each) for each in ended.errors]
        message = "; ".join(each.message for each in ended.errors[-3:])
        status: Any = ended.status
        return Called(status, {"output": ended.output, "errors": errors}, message)

    async def _let_others(self) -> None:
        """Let what runs beside us, and timers, have their turn."""
        await asyncio.sleep(0)
        self._turn_began = monotonic()

    def _forget(self, execution: int, task: asyncio.Task[None]) -> None:
        tasks = self._tasks.get(execution)
        if tasks is not None:
            tasks.discard(task)
            if not tasks:
                del self._tasks[execution]

    def _show(self, command: Command) -> None:
        if self._on_event is not None:
            for event in self._feed.on_command(command):
                self._on_event(event)

    def _show_progress(self, event: ItemsEnded) -> None:
        if self._on_event is None:
            return
        done, failed = self._progress.get(event.execution, (0, 0))
        done += len(event.items)
        failed += sum(each.status not in ("succeeded", "canceled") for each in event.items)
        self._progress[event.execution] = done, failed
        for each in self._feed.on_items(event.execution, done, failed):
            self._on_event(each)
