"""What a run tells those who watch it: events in order, numbered from 1, without a gap.

Pure: commands of the conductor in, events out. Mirror: tests/worker/flow/test_feed.py.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from .events import (
    Command,
    Failure,
    RunEnded,
    RunItems,
    RunTask,
    StatusChanged,
    TaskEnded,
    WaitFor,
)

Level = Literal["full", "outputs", "terminal"]
"""All events; those of tasks that end and of the run; the end of the run alone."""


class RunEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event.

    Attributes:
        number: From 1, without a gap among those of one level.
        kind: ``status``: the run has another one. ``task_started``, ``task_ended``: an attempt.
            ``items``: how many items have ended. ``ended``: the run has; nothing follows.
        status: Of the run or of the task.
        attempt: Of the task, from 0.
        again: Whether the task will be run again.
        result: Of the task.
        done: Items that have ended.
        failed: Those of them that have failed.
        count: All items.
        output: Of the run.
        errors: Of the run.
    """

    number: int
    kind: Literal["status", "task_started", "task_ended", "items", "ended"]
    status: str | None = None
    task: str | None = None
    execution: int | None = None
    attempt: int = 0
    again: bool = False
    result: Any = None
    done: int = 0
    failed: int = 0
    count: int | None = None
    output: dict[str, Any] | None = None
    errors: tuple[Failure, ...] = ()


class Feed:
    """The events of one run at one level."""

    def __init__(self, level: Level = "full") -> None:
        self._level = level
        self._number = 0
        self._counts: dict[int, int] = {}  # execution with items -> how many it has
        self._names: dict[int, str] = {}  # the same -> its task

    def on_command(self, command: Command) -> list[RunEvent]:
        """Give the events that a command is worth: one or none."""
        match command:
            case StatusChanged() if self._level == "full":
                return self._event("status", status=command.status)
            case RunTask() if self._level == "full":
                return self._started(command.execution, command.task, command.attempt)
            case WaitFor() if self._level == "full":
                return self._started(command.execution, command.task, 0)
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
                    "ended", status=command.status, output=command.output, errors=command.errors
                )
        return []

    def on_items(self, execution: int, done: int, failed: int) -> Sequence[RunEvent]:
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

    def _started(self, execution: int, task: str, attempt: int, **more: Any) -> list[RunEvent]:
        return self._event("task_started", task=task, execution=execution, attempt=attempt, **more)

    def _event(self, kind: Any, **fields: Any) -> list[RunEvent]:
        self._number += 1
        return [RunEvent(self._number, kind, **fields)]
