"""One run while it is conducted: its plan and state, the commands so far, what is due when.

What all parts of the conductor do to a run in the same way is here. Pure, as they are.

Mirror: tests/worker/flow/test_conductor.py.
"""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Final

from .events import Command, Failure, Outcome, RunStatus, StatusChanged
from .limits import ERRORS_MAX
from .plan import Plan, TaskPlan
from .sizes import size_of
from .state import Execution, RunState

MOVING: Final = frozenset({"running", "pausing", "paused"})
ENDED: Final = frozenset({"succeeded", "failed", "canceled"})

OF_THE_RUN: Final = -1
"""Stands for the run among the numbers of executions that timers have."""

_SCALARS: Final = frozenset({int, float, bool, type(None)})
_SCALAR_BYTES: Final = 9  # at most


class Run:
    """One run.

    Attributes:
        plan: What is run.
        state: What the conductor knows of it.
        commands: Of the event that is being handled.
    """

    __slots__ = ("_timers", "commands", "plan", "state")

    def __init__(self, plan: Plan, state: RunState) -> None:
        self.plan = plan
        self.state = state
        self.commands: list[Command] = []
        # (when, execution or `OF_THE_RUN`); those that do not matter any more stay until due.
        self._timers: list[tuple[float, int]] = []
        self.begin_timers()

    def next_timer(self) -> tuple[float, int] | None:
        """Give the timer that is due first, None if there is none."""
        timers = self._timers
        while timers and not self._is_live(*timers[0]):
            heappop(timers)
        return timers[0] if timers else None

    def add_timer(self, when: float, number: int) -> None:
        """Have something be due; `when` is the due or the deadline of an execution."""
        heappush(self._timers, (when, number))

    def drop_timer(self) -> None:
        """Take away the timer that `next_timer` has given."""
        heappop(self._timers)

    def status_of(self, name: str, route: int | None) -> str | None:
        """Find the last status of a task on a route or on the one that it came from."""
        task = self.plan.numbers.get(name)
        while task is not None and route is not None:
            latest = self.state.latest.get((task, route))
            if latest is not None:
                return latest.status
            route = self.state.routes[route].parent
        return None

    def note_failure(
        self,
        execution: Execution,
        status: Outcome,
        message: str,
        *,
        item: int | None = None,
        result: Any = None,
    ) -> None:
        """Note that the action of a task or an item has failed."""
        kind: Any = "task" if status == "failed" else status
        name = self.plan.tasks[execution.task].name
        text = message or ("it failed" if status == "failed" else f"it ended as {status}")
        self.note(Failure(kind, text, task=name, item=item, result=result))

    def note(self, failure: Failure) -> None:
        """Keep an error, or count it when many are kept."""
        errors = self.state.errors
        if len(errors) < ERRORS_MAX:
            errors.append(failure)
        else:
            self.state.errors_left_out += 1

    def fail_by_expression(self, task: TaskPlan, field: str, message: str) -> None:
        """Fail the run because a field of a task has no usable value."""
        self.note(Failure("expression", message, task=task.name, field=field))
        self.fail()

    def fail(self) -> None:
        """Let the run fail, if it is not about to end otherwise; what runs still ends."""
        if self.state.status in MOVING:
            self.become("failed")

    def measure(self, variables: Mapping[str, Any]) -> int:
        """Add variables to the size of the context; gives how much. Hot: once for each publish."""
        state, total = self.state, 0
        for name, value in variables.items():
            size = len(name) + (_SCALAR_BYTES if type(value) in _SCALARS else size_of(value))
            total += size
            if size > state.largest_bytes:
                state.largest, state.largest_bytes = name, size
        state.context_bytes += total
        return total

    def become(self, status: RunStatus) -> None:
        """Change the run's status and tell it."""
        self.state.status = status
        self.commands.append(StatusChanged(status))

    def number(self) -> int:
        """Give a number that nothing else in the run has."""
        self.state.numbers += 1
        return self.state.numbers

    def _is_live(self, when: float, number: int) -> bool:
        if number < 0:
            return self.state.deadline == when
        execution = self.state.executions.get(number)
        return execution is not None and when in (execution.due, execution.deadline)

    def begin_timers(self) -> None:
        """Collect the times that matter anew."""
        state = self.state
        self._timers = [] if state.deadline is None else [(state.deadline, OF_THE_RUN)]
        for number, execution in state.executions.items():
            for when in (execution.due, execution.deadline):
                if when is not None:
                    self._timers.append((when, number))
        heapify(self._timers)
