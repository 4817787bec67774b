"""Runs of workflows step by step, for the tests of the conductor."""

from collections.abc import Iterable
from typing import Any

from pronghorn.worker.flow.conductor import Conductor
from pronghorn.worker.flow.events import (
    Command,
    Ended,
    Event,
    ItemEnded,
    ItemsEnded,
    Outcome,
    PullItems,
    RunEnded,
    RunItems,
    RunTask,
    Start,
    WaitFor,
)
from pronghorn.worker.flow.plan import Plan
from pronghorn.worker.flow.validation import validate

TWO = """
input: [n]
tasks:
  a: {action: a, input: {n: "{{ n }}"}, next: [{publish: [{x: "{{ result() }}"}], do: b}]}
  b: {action: a, delay: 10, input: {n: "{{ x }}"}}
output: [{x: "{{ x }}"}]
"""
FAILS = "tasks: {a: {action: a}}"
BEGIN = Start({"n": 7})


def plan(definition: str, context: Iterable[str] = ()) -> Plan:
    return Plan(validate(definition, context=list(context)))


class Play:
    """A run whose actions end when the test says so, by the names of their tasks.

    Attributes:
        conductor: Its.
        now: Time of the next event.
        last: The commands of the last event.
        ended: The end of the run, once it has come.
    """

    def __init__(self, definition: str, /, **inputs: Any) -> None:
        self.conductor = Conductor(plan(definition))
        self.now = 0.0
        self.last: list[Command] = []
        self.ended: RunEnded | None = None
        self._running: list[tuple[str, int]] = []  # task, execution
        self.tell(Start(inputs))

    def tell(self, event: Event) -> "Play":
        self.last = self.conductor.handle(event, self.now)
        self.conductor.check_invariants()
        for command in self.last:
            if isinstance(command, RunTask | RunItems | PullItems | WaitFor):
                self._running.append((command.task, command.execution))
            elif isinstance(command, RunEnded):
                self.ended = command
        return self

    def end(
        self, task: str, result: Any = None, status: Outcome = "succeeded", message: str = ""
    ) -> "Play":
        """End the action of a task, the one that has run the longest."""
        return self.tell(Ended(self._take(task), status, result, message))

    def fail(self, task: str, result: Any = None, message: str = "") -> "Play":
        return self.end(task, result, "failed", message)

    def end_items(self, task: str, *outcomes: tuple[int, Outcome, Any]) -> "Play":
        """End some items of a task."""
        execution = self.execution(task)
        return self.tell(ItemsEnded(execution, [ItemEnded(*each) for each in outcomes]))

    def execution(self, task: str) -> int:
        """Give the number of the last execution of a task."""
        return next(number for name, number in reversed(self._running) if name == task)

    def started(self) -> list[str]:
        """Tell what the last event has started: tasks, or tasks with the indexes of items."""
        names = []
        for command in self.last:
            if isinstance(command, RunTask | WaitFor):
                names.append(command.task)
            elif isinstance(command, RunItems):
                names.append(f"{command.task}{[item.index for item in command.items]}")
        return names

    def inputs(self) -> list[Any]:
        """Give the inputs of what the last event has started."""
        made: list[Any] = []
        for command in self.last:
            if isinstance(command, RunTask):
                made.append(command.input)
            elif isinstance(command, RunItems):
                made += [item.input for item in command.items]
        return made

    def commands(self, kind: type[Any]) -> list[Any]:
        """Give those of the last commands that are of a kind."""
        return [command for command in self.last if isinstance(command, kind)]

    @property
    def status(self) -> str:
        return self.conductor.status

    @property
    def output(self) -> dict[str, Any] | None:
        assert self.ended is not None, "the run has not ended"
        return self.ended.output

    @property
    def errors(self) -> list[tuple[str, str | None, str | None]]:
        """Kind, task and field of each error, at the end of the run or so far."""
        errors = self.conductor.state.errors if self.ended is None else self.ended.errors
        return [(each.kind, each.task, each.field) for each in errors]

    def _take(self, task: str) -> int:
        for entry in self._running:
            if entry[0] == task:
                self._running.remove(entry)
                return entry[1]
        raise AssertionError(f"{task} does not run; running: {self._running}")
