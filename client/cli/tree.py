"""The tasks of a run as people see them: one line for each, with items and times. Pure.

Mirror: tests/client/cli/test_tree.py.
"""

from typing import Final, NamedTuple

from pronghorn.broker.wire.flows import FlowEvent

from .quantities import age_text, duration_text

LINES_MAX: Final = 500
"""Tasks that are shown; a workflow may have 5,000, and a screen 50 lines."""

_BAR: Final = 20  # characters of a bar
_MARKS: Final = {
    "running": "▸",
    "succeeded": "✓",
    "failed": "✗",
    "timeout": "✗",
    "abandoned": "✗",
    "canceled": "-",
}
_BAD: Final = frozenset({"failed", "timeout", "abandoned"})


class Line(NamedTuple):
    """One line: what it says, and the status by which it may be coloured."""

    text: str
    status: str


class _Task:
    """What is shown of one task, of all its starts together."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.status = "running"
        self.starts = 0
        self.running: set[int] = set()  # executions
        self.began = now
        self.took: float | None = None  # seconds; None while it runs
        self.count: int | None = None  # items of the start that had some last
        self.done = 0
        self.failed = 0

    def text(self, now: float) -> str:
        seconds = now - self.began if self.took is None else self.took
        parts = [_MARKS.get(self.status, "?"), self.name]
        if self.starts > 1:
            parts.append(f"({self.starts} times)")
        if self.count is not None:
            parts.append(_bar(self.done, self.count))
        elif self.done:
            parts.append(f"{self.done:,} items")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.status not in ("running", "succeeded"):
            parts.append(self.status)
        parts.append(_time(seconds))
        return " ".join(parts)


class RunTree:
    """What has happened in a run so far.

    Args:
        name: Of the workflow.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._status = "running"
        self._began: float | None = None  # monotonic seconds; None before the first event
        self._took: float | None = None
        self._tasks: dict[str, _Task] = {}  # by name, in the order in which they began
        self._left_out: set[str] = set()  # names beyond `LINES_MAX`

    def take(self, event: FlowEvent, now: float) -> None:
        """Take in an event; `now` is in monotonic seconds.

        Times are those of the events, as long as they tell of some: who reads them may be late.
        """
        if self._began is None:
            self._began = now
        now = self._began + event.at_s
        if event.status is not None and event.kind in ("status", "ended"):
            self._status = event.status
        if event.kind == "ended":
            self._took = now - self._began
        elif event.task is not None:
            self._take_task(event, event.task, now)

    def lines(self, now: float) -> list[Line]:
        """Give the whole tree."""
        took = self._took
        if took is None:
            took = 0.0 if self._began is None else now - self._began
        first = Line(f"{self._name} {self._status} {_time(took)}", self._status)
        last = len(self._tasks) - 1
        lines = [
            Line(f"{'└─' if number == last else '├─'} {task.text(now)}", task.status)
            for number, task in enumerate(self._tasks.values())
        ]
        if self._left_out:
            lines.append(Line(f"   and {len(self._left_out):,} more tasks", "running"))
        return [first, *lines]

    def line_of(self, event: FlowEvent, now: float) -> Line | None:
        """Give the line that tells of an event where nothing can be redrawn: of a task's end."""
        if event.kind != "task_ended" or event.task is None:
            return None
        task = self._tasks.get(event.task)
        return None if task is None else Line(task.text(now), task.status)

    def _take_task(self, event: FlowEvent, name: str, now: float) -> None:
        task = self._tasks.get(name)
        if task is None:
            if len(self._tasks) >= LINES_MAX:
                self._left_out.add(name)
                return
            task = self._tasks[name] = _Task(name, now)
        execution = event.execution or 0
        if event.kind == "task_started":
            if not task.running:
                task.began, task.took = now, None
            task.starts += 1
            task.running.add(execution)
            task.status = "running"
            if event.count is not None:
                task.count, task.done, task.failed = event.count, 0, 0
        elif event.kind == "items":
            task.count, task.done, task.failed = event.count, event.done, event.failed
        elif event.kind == "task_ended":
            task.running.discard(execution)
            if not task.running and not event.again:
                task.took = now - task.began
                task.status = event.status or "?"
            elif event.status in _BAD and not event.again:
                task.status = event.status or "?"


def _bar(done: int, count: int) -> str:
    filled = _BAR if not count else done * _BAR // count
    return f"{'█' * filled}{'░' * (_BAR - filled)} {done:,}/{count:,}"


def _time(seconds: float) -> str:
    return age_text(seconds) if seconds >= 60 else duration_text(seconds * 1e9)
