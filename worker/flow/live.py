"""One run as it goes on: carries out what its conductor says. An IO shell, on one event loop.

Plain nodes are called here for `TURN_S` before others get their turn; what runs them, and all else,
is in `actions`. A recorded run tells its recording what its conductor is told, turn by turn, and
begins with what that knows of it.

Mirror: tests/worker/flow/test_live.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from pronghorn.broker.wire.errors import NotFoundError
from pronghorn.broker.wire.flows import ContextSize, FlowEvent, RunReport
from pronghorn.broker.wire.limits import MIB

from ..context import Context
from .actions import Actions
from .conductor import Conductor
from .events import (
    Cancel,
    Command,
    Event,
    ItemsEnded,
    Pause,
    PullItems,
    Refused,
    Rerun,
    Resume,
    RunEnded,
    RunItems,
    RunTask,
    Signal,
    Start,
    StatusChanged,
    Stop,
    TakeSignal,
    TakeUp,
    TaskEnded,
    Tick,
    WaitFor,
)
from .feed import Watch
from .inner import no_signal
from .limits import CONTEXT_WARN_BYTES
from .plan import Plan
from .recording import AnyRecording
from .resuming import InnerPasts, Resumed
from .sharing import Sharing

if TYPE_CHECKING:
    from .runtime import FlowRuntime

TURN_S: Final = 0.001
"""Seconds of plain nodes after which others get their turn."""

REST_S: Final = 1.0
"""After so long without anything to do a recorded run is let go, until there is an order to it."""

REST_LEAST_S: Final = 5.0
"""To take a run up costs something, so that it does not rest for less."""

_log = logging.getLogger(__name__)

_PAUSING: Final = (Pause, Resume, Cancel)
_BEGINNING: Final = (RunTask, RunItems, PullItems)
_SHOWN: Final = frozenset({TaskEnded, StatusChanged})  # commands by which nothing is to be done

Watcher = Callable[[FlowEvent], None]


class _Order(NamedTuple):
    """An event from outside, and who wants to know whether it was refused."""

    event: Event
    answer: asyncio.Future[str | None]


class RestError(Exception):
    """A recorded run is let go, for it has nothing to do.

    Attributes:
        left_s: Seconds until it has; None if only an order changes that.
    """

    def __init__(self, left_s: float | None) -> None:
        super().__init__("it rests")
        self.left_s = left_s


class LiveRun:
    """One run; made by `FlowRuntime.start`.

    Attributes:
        id: Names it.
        report: How it has ended; None until it has.
        outer_signal: Takes a signal that is kept by what the run lies within, if it does.
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
        recording: AnyRecording | None,
        sharing: Sharing | None,
    ) -> None:
        self.id = run_id
        self.report: RunReport | None = None
        self.outer_signal: Callable[[str], Signal | None] = no_signal
        self._plan = plan
        self._begin = begin
        self._conductor = Conductor(plan)
        self._recording = recording
        self._clock = monotonic if recording is None else recording.clock
        self._actions = Actions(
            runtime, self.tell, recording, within=within, depth=depth, sharing=sharing
        )
        self._watch: Watch | None = None if on_event is None else watch
        self._unwatched = watch
        self._on_event = on_event
        self._inbox: deque[Event | _Order] = deque()
        self._is_over = False  # whether no order is taken any more
        self._loop: asyncio.AbstractEventLoop | None = None  # where it runs; None before it does
        self._wake = asyncio.Event()
        if recording is not None and recording.may_rest:
            self._actions.inner.on_begun = self._wake.set  # nothing else may be under way now
        self._actions.inner.take_signal = self.take_signal
        self._told = asyncio.Event()  # set when there may be events to take, or the run has ended
        self._taken = asyncio.Event()  # set when there is room for further ones
        self._commands: deque[Command] = deque()
        self._progress: dict[int, tuple[int, int]] = {}  # execution -> items done, failed
        self._warns_at: float = CONTEXT_WARN_BYTES  # of the variables
        self._rests_s: float | None = None  # how long it may be let go; None: until an order
        self._turn_began = 0.0
        self._began = 0.0

    def tell(self, event: Event) -> None:
        """Pause, resume, cancel or signal; from the loop on which it runs."""
        self._inbox.append(event)
        self._wake.set()

    def deliver(self, signal: Signal) -> bool:
        """Give a signal to a task of the run, or else within it, that waits; False if none does."""
        if signal.name in self._conductor.waits_for():
            self._tell_conductor(signal)
            self._wake.set()
            return True
        return self._deliver_within(signal)

    def take_signal(self, name: str) -> Signal | None:
        """Take out a signal that is kept here, or by what the run lies within, for one within."""
        signal = self._conductor.kept_signal(name)
        if signal is None:
            return self.outer_signal(name)
        self._tell_conductor(TakeSignal(name))
        return signal

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
        """Run to the end. Cancelling this cancels what runs.

        Raises:
            RestError: It is a recorded one, and has nothing to do for a while.
        """
        self._loop = asyncio.get_running_loop()
        self._began = monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                self._actions.begin(group)
                self._turn_began = monotonic()
                if self._recording is None or not self._recording.past:
                    self._handle(self._begin)
                else:
                    self._resume(self._recording)
                while True:
                    ended = await self._work_off()
                    if ended is not None or not await self._wait():
                        break
                self._actions.cancel_all()  # what was stopped and has not ended
        finally:
            self._is_over = True
            self._actions.end()
            self._refuse_orders()
            self._told.set()
        if self._recording is not None:
            self._recording.end()
        if ended is None:
            raise RestError(self._rests_s)
        self.report = RunReport(ended.status, ended.output, ended.errors, self.id, ended.context)
        return self.report

    @property
    def is_resting(self) -> bool:
        """Whether there is nothing to do before a time or an order.

        What runs is workflows within at most, of which the same is true. A task that may take only
        so long is not left alone: whoever took it up would give it all of that time again.
        """
        executions = self._conductor.state.executions.values()
        return (
            not self._commands
            and not self._inbox
            and self._actions.waits_only
            and all(run.is_resting for run in self._actions.inner.runs)
            and not any(
                each.state == "running" and each.deadline is not None for each in executions
            )
        )

    def next_due(self) -> float | None:
        """Tell when there is something to do in it or within it, None if time changes nothing."""
        dues = [self._conductor.deadline(), *(run.next_due() for run in self._actions.inner.runs)]
        return min((due for due in dues if due is not None), default=None)

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

    def _resume(self, recording: AnyRecording) -> None:
        """Go on where the run was, or tell how it had ended."""
        resumed = Resumed(self._plan, self._begin, recording.past)
        recording.past.clear()
        self._conductor, inner = resumed.conductor, resumed.inner
        if resumed.ended is None:
            for event in resumed.interrupted:
                self._handle(event)
            if not self._conductor.ended:
                # What follows on those is begun with all else that is to run now, not twice.
                told = [each for each in self._commands if not isinstance(each, _BEGINNING)]
                self._commands = deque(told)
                self._handle(TakeUp())
        elif not resumed.reopened:
            self._commands.append(resumed.ended)
        elif self._conductor.can_rerun:
            self._handle(Rerun())
            inner.rerun(self._conductor)
        else:  # over again
            self._conductor, inner = Conductor(self._plan), InnerPasts()
            self._handle(self._begin)
        self._actions.inner.pasts.update(inner.open)
        self._note_pause()
        for name in self._conductor.waits_for():  # what came meanwhile is kept further out
            self._look_further_out(name)

    async def _work_off(self) -> RunEnded | None:
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
                self._do(command)
                if monotonic() - self._turn_began > TURN_S:
                    await self._let_others()
            if self._inbox:
                self._handle(self._next_event())
            elif self._actions.wait_here:
                self._handle(self._actions.run_here(self._turn_began + TURN_S))
                if monotonic() - self._turn_began > TURN_S:
                    await self._let_others()
            else:
                return None

    async def _wait(self) -> bool:
        """Wait until something has ended or is due; False if the run can be let go."""
        recording, may_rest = self._recording, False
        if recording is not None:
            await recording.keep_up()
            may_rest = recording.may_rest and self._actions.waits_only
        deadline = self._conductor.deadline()
        if deadline is None and not may_rest:
            await self._wake.wait()
        else:
            due_s = inf if deadline is None else max(0.0, deadline - self._clock())
            try:
                async with asyncio.timeout(min(due_s, REST_S) if may_rest else due_s):
                    await self._wake.wait()
            except TimeoutError:
                if not may_rest or due_s <= REST_S:
                    self._inbox.append(Tick())
                elif self.is_resting and self._may_be_let_go():
                    return False
        self._wake.clear()
        self._turn_began = monotonic()
        return True

    def _may_be_let_go(self) -> bool:
        """Note how long nothing is to be done, and tell whether that is long enough."""
        due = self.next_due()
        self._rests_s = None if due is None else due - self._clock()
        return self._rests_s is None or self._rests_s > REST_LEAST_S

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
            self._actions.inner.tell(event)
        elif isinstance(event, Signal) and self._goes_within(event):
            return Tick()
        return event

    def _take_order(self, order: _Order) -> None:
        within = isinstance(order.event, Signal) and self._goes_within(order.event)
        commands = [] if within else self._tell_conductor(order.event)
        refusals = [each.reason for each in commands if isinstance(each, Refused)]
        if not refusals and isinstance(order.event, Pause | Resume | Cancel):
            self._actions.inner.tell(order.event)
        if not order.answer.done():
            order.answer.set_result(refusals[0] if refusals else None)

    def _goes_within(self, signal: Signal) -> bool:
        """Give a signal to a workflow within that waits for it, if no task of the run does."""
        if signal.name in self._conductor.waits_for():
            return False
        return self._deliver_within(signal)

    def _deliver_within(self, signal: Signal) -> bool:
        return any(run.deliver(signal) for run in self._actions.inner.runs)

    def _look_further_out(self, name: str) -> None:
        """Take a signal for a task that waits, if what the run lies within keeps one."""
        signal = self.outer_signal(name)
        if signal is not None:
            self._handle(signal)

    def _refuse_orders(self) -> None:
        for each in self._inbox:
            if isinstance(each, _Order) and not each.answer.done():
                each.answer.set_exception(self._over())

    def _over(self) -> NotFoundError:
        return NotFoundError(f"run {self.id} has ended")

    def _handle(self, event: Event) -> None:
        if isinstance(event, ItemsEnded) and self._watch is not None:
            self._show_progress(event)
        self._tell_conductor(event)

    def _tell_conductor(self, event: Event) -> list[Command]:
        """Tell the conductor, and the recording what it was told; gives what is to be done."""
        conductor, now = self._conductor, self._clock()
        if self._recording is None:
            commands = conductor.handle(event, now)
        else:
            due = conductor.deadline()
            commands = conductor.handle(event, now)
            if type(event) is not Tick or (due is not None and due <= now):
                # What only begins what runs is done again by whoever takes the run up.
                moved = type(event) not in (Start, TakeUp) or conductor.is_idle
                self._recording.note(event, now, commands, moved=moved)
        self._commands.extend(commands)
        if conductor.state.context_bytes > self._warns_at:
            self._warn(conductor.context_size)
        if type(event) in _PAUSING:
            self._note_pause()
        return commands

    def _warn(self, context: ContextSize) -> None:
        """Tell once that the variables have become large."""
        self._warns_at = inf
        _log.warning(
            "run %s: its variables have %.0f MiB, the largest is %r with %.0f MiB",
            self.id,
            context.bytes / MIB,
            context.largest,
            context.largest_bytes / MIB,
        )

    def _note_pause(self) -> None:
        paused = self._conductor.status in ("pausing", "paused")
        self._actions.inner.paused(Pause() if paused else None)

    def _do(self, command: Command) -> None:
        if type(command) in _SHOWN:
            return
        if isinstance(command, RunTask):
            ended = self._actions.run_task(command)
            if ended is not None:
                self._handle(ended)
        elif isinstance(command, RunItems):
            self._actions.run_items(command)
        elif isinstance(command, PullItems):
            self._actions.pull_items(command)
        elif isinstance(command, Stop):
            self._actions.stop(command.execution)
        elif isinstance(command, WaitFor) and command.name in self._conductor.waits_for():
            self._look_further_out(command.name)

    async def _let_others(self) -> None:
        """Let what runs beside us, and timers, have their turn."""
        if self._recording is not None:
            await self._recording.keep_up()
        await asyncio.sleep(0)
        self._turn_began = monotonic()
        deadline = self._conductor.deadline()
        if deadline is not None and deadline <= self._clock():
            self._inbox.append(Tick())

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
