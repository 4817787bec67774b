"""What a run tells those who watch it: events in order, numbered from 1, without a gap.

Pure: commands of the conductor in, events out. Mirror: tests/worker/flow/test_feed.py.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from pronghorn.broker.wire.flows import FlowEvent, RunLevel

from .events import (
    Command,
    PullItems,
    Refused,
    RunEnded,
    RunItems,
    RunTask,
    StatusChanged,
    Stop,
    TaskEnded,
    WaitFor,
)

Level = RunLevel

AHEAD_MAX = 10_000
"""Events that wait for who watches; a run that has come to so many waits for him too."""


class Feed:
    """The events of one run at one level.

    Attributes:
        at_s: When what is told next has happened, seconds since the run began.

    Args:
        level: Which.
        run: Id of the run, told when it begins and when it ends.
    """

    def __init__(self, level: Level = "full", run: str | None = None) -> None:
        self._level = level
        self._run = run
        self.at_s = 0.0
        self._number = 0
        # execution with items -> how many it has; None where a node gives them
        self._counts: dict[int, int | None] = {}
        self._names: dict[int, str] = {}  # the same -> its task

    def begun(self) -> FlowEvent:
        """Give the first event, for who has to know that the run is there."""
        return self._event("begun", run=self._run)[0]

    def on_command(self, command: Command) -> list[FlowEvent]:
        """Give the events that a command is worth: one or none."""
        match command:
            case StatusChanged() if self._level == "full":
                return self._event("status", status=command.status)
            case RunTask() if self._level == "full":
                return self._started(command.execution, command.task, command.attempt)
            case WaitFor() if self._level == "full":
                return self._started(command.execution, command.task, 0)
            case PullItems() if self._level == "full" and command.execution not in self._counts:
                self._counts[command.execution] = None
                self._names[command.execution] = command.task
                return self._started(command.execution, command.task, command.attempt)
            case RunItems() if self._level == "full" and command.execution not in self._counts:
                self._counts[command.execution] = command.count
                self._names[command.execution] = command.task
                return self._started(
                    command.execution, command.task, command.attempt, count=command.count
                )
            case TaskEnded() if self._level != "terminal":
                self._counts.pop(command.execution, None)
                self._names.pop(command.execution, None)
                return self._event(
                    "task_ended",
                    status=command.status,
                    task=command.task,
                    execution=command.execution,
                    again=command.again,
                    result=command.result,
                )
            case RunEnded():
                return self._event(
                    "ended",
                    status=command.status,
                    output=command.output,
                    errors=command.errors,
                    run=self._run,
                    context=command.context,
                )
        return []

    def on_items(self, execution: int, done: int, failed: int) -> Sequence[FlowEvent]:
        """Give the event that further items are worth that have ended."""
        if execution not in self._counts:
            return ()
        return self._event(
            "items",
            task=self._names[execution],
            execution=execution,
            done=done,
            failed=failed,
            count=self._counts[execution],
        )

    def _started(self, execution: int, task: str, attempt: int, **more: Any) -> list[FlowEvent]:
        return self._event("task_started", task=task, execution=execution, attempt=attempt, **more)

    def _event(self, kind: Any, **fields: Any) -> list[FlowEvent]:
        self._number += 1
        return [FlowEvent(self._number, kind, at_s=self.at_s, **fields)]


class _Progress:
    """Items of an execution that have ended, as of the last time that some did."""

    __slots__ = ("done", "execution", "failed")

    def __init__(self, execution: int, done: int, failed: int) -> None:
        self.execution = execution
        self.done = done
        self.failed = failed


class Watch:
    """What has happened in a run and was not taken yet by the one who watches.

    Progress that was not taken gives way to what is newer, all else is kept.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        # What has happened, and when: seconds since the run began.
        self._ahead: deque[tuple[float, Command | _Progress]] = deque()
        # execution -> what of it is in `_ahead`
        self._progress: dict[int, _Progress] = {}

    @property
    def is_full(self) -> bool:
        """Whether so much was not taken that the run should wait."""
        return len(self._ahead) >= AHEAD_MAX

    def begun(self) -> FlowEvent:
        """Give the first event."""
        return self._feed.begun()

    def on_command(self, command: Command, at_s: float) -> None:
        """Take in a command of the conductor."""
        if not isinstance(command, Stop | Refused):
            self._ahead.append((at_s, command))

    def on_items(self, execution: int, done: int, failed: int, at_s: float) -> None:
        """Take in that items have ended, of which there are so many now."""
        known = self._progress.get(execution)
        if known is not None:
            known.done, known.failed = done, failed
            return
        progress = self._progress[execution] = _Progress(execution, done, failed)
        self._ahead.append((at_s, progress))

    def take(self) -> FlowEvent | None:
        """Give the next event, None if there is none now."""
        while self._ahead:
            self._feed.at_s, first = self._ahead.popleft()
            if isinstance(first, _Progress):
                del self._progress[first.execution]
                events = self._feed.on_items(first.execution, first.done, first.failed)
            else:
                events = self._feed.on_command(first)
            if events:
                return events[0]
        return None
