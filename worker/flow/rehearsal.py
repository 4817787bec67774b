"""Rehearsals: a workflow run against results that are written down beforehand.

Nothing is called and no time passes: a delay is over at once, and a task times out only if its
result says so. What a case is::

    {"workflow": {…}, "inputs": {…}, "context": {…},
     "mocks": [{"task": "t", "occurrence": 0, "item": null, "status": "succeeded", "result": 1}],
     "default_mock": {"status": "succeeded", "result": null},
     "expected": [{"completion_order": "fifo", "status": "succeeded", "output": {…},
                   "executions": [{"task", "item", "input", "status"}], "errors": [{"task_id"}]}]}

``occurrence`` counts the starts of a task: first run, retries and cycles; ``item`` is the index of
an item. Items that a node gives are the ``result`` of the mock whose ``item`` is null. Tasks end in
the order in which they started (``fifo``) or in the reverse (``lifo``).

Mirror: tests/worker/flow/test_rehearsal.py.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from .conductor import Conductor
from .document import DefinitionError, Problem
from .events import (
    Command,
    Ended,
    Failure,
    ItemEnded,
    ItemsEnded,
    ItemsGiven,
    Outcome,
    PullItems,
    RunEnded,
    RunItems,
    RunTask,
    Start,
    Tick,
    WaitFor,
)
from .plan import Plan
from .validation import validate

Order = Literal["fifo", "lifo"]


class CaseError(ValueError):
    """A case can't be read."""


class Mock(msgspec.Struct, frozen=True):
    """What one start of a task gives.

    Attributes:
        occurrence: Which start of the task, from 0.
        item: Index of the item; None for a task without items.
    """

    task: str
    occurrence: int = 0
    item: int | None = None
    status: Outcome = "succeeded"
    result: Any = None


class DefaultMock(msgspec.Struct, frozen=True):
    """What every start gives for which there is no `Mock`."""

    status: Outcome = "succeeded"
    result: Any = None


class Case(msgspec.Struct, frozen=True):
    """One rehearsal with what has to come of it.

    Attributes:
        workflow: Its definition, as text or as what the text stands for.
        inputs: The run's input.
        context: Variables that a caller passes beside it.
        expected: What may come of it, any of these; nothing where nothing is expected.
    """

    workflow: dict[str, Any] | str
    name: str = ""
    inputs: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    mocks: tuple[Mock, ...] | None = None
    default_mock: DefaultMock | None = None
    expected: tuple[dict[str, Any], ...] | None = None


class Played(msgspec.Struct):
    """A task or an item that was started.

    Attributes:
        task: Its name.
        item: Index; None for a task without items.
        input: As it was rendered.
        status: How it ended; None if it has not.
        result: What it gave.
    """

    task: str
    item: int | None
    input: dict[str, Any] | None
    status: Outcome | None = None
    result: Any = None


class Rehearsed(msgspec.Struct, frozen=True):
    """What came of a rehearsal.

    Attributes:
        status: ``succeeded``, ``failed``, ``canceled``; ``stuck`` if tasks wait for what no mock
            gives.
        executions: In the order in which they started.
        problems: Why the definition was refused; then nothing was run.
    """

    status: str
    output: dict[str, Any] | None = None
    executions: tuple[Played, ...] = ()
    errors: tuple[Failure, ...] = ()
    problems: tuple[Problem, ...] = ()

    def report(self) -> dict[str, Any]:
        """Give it in the form of a case's ``expected``."""
        if self.problems:
            return {"inspection_errors": [str(problem) for problem in self.problems]}
        return {
            "status": self.status,
            "output": self.output,
            "executions": [
                {
                    "task": each.task,
                    "item": each.item,
                    "input": each.input,
                    "status": each.status,
                }
                for each in self.executions
            ],
            "errors": [_error(each) for each in self.errors],
        }


def read_case(source: bytes | str | Mapping[str, Any]) -> Case:
    """Read a case from JSON, or from what it stands for.

    Raises:
        CaseError: It is none.
    """
    try:
        if isinstance(source, bytes | str):
            return msgspec.json.decode(source, type=Case)
        return msgspec.convert(source, Case)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CaseError(f"not a case: {error}") from error


def rehearse(case: Case | Mapping[str, Any], order: Order = "fifo") -> Rehearsed:
    """Run a case.

    Raises:
        CaseError: It is none.
    """
    read = case if isinstance(case, Case) else read_case(case)
    try:
        workflow = validate(read.workflow, context=read.context or ())
    except DefinitionError as error:
        return Rehearsed("refused", problems=error.problems)
    return _Stage(Conductor(Plan(workflow)), read, order).play()


class _Stage:
    """One rehearsal that goes on."""

    def __init__(self, conductor: Conductor, case: Case, order: Order) -> None:
        self._conductor = conductor
        self._case = case
        self._order = order
        mocks = case.mocks or ()
        self._mocks = {(each.task, each.occurrence, each.item): each for each in mocks}
        self._default = case.default_mock or DefaultMock()
        self._starts: dict[str, int] = {}  # task -> starts so far
        self._batches: dict[int, int] = {}  # execution with items -> which start of its task it is
        self._played: list[Played] = []
        self._running: list[tuple[int, Played, int]] = []  # execution, what, occurrence
        self._given: deque[ItemsGiven] = deque()  # by nodes that give items
        self._ended: RunEnded | None = None

    def play(self) -> Rehearsed:
        case, conductor = self._case, self._conductor
        now = 0.0
        self._do(conductor.handle(Start(case.inputs or {}, case.context or {}), now))
        while self._ended is None:
            due = conductor.delay_deadline()
            if self._given:
                self._do(conductor.handle(self._given.popleft(), now))
            elif due is not None:
                now = max(now, due)
                self._do(conductor.handle(Tick(), now))
            elif self._running:
                self._do(conductor.handle(self._next_end(), now))
            else:
                return Rehearsed("stuck", None, tuple(self._played))
        ended = self._ended
        return Rehearsed(ended.status, ended.output, tuple(self._played), ended.errors)

    def _do(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, RunTask):
                played = Played(command.task, None, command.input)
                self._begin(command.execution, played, self._count(command.task))
                self._played.append(played)
            elif isinstance(command, RunItems):
                if command.execution not in self._batches:
                    self._batches[command.execution] = self._count(command.task)
                for item in command.items:
                    played = Played(command.task, item.index, item.input)
                    self._played.append(played)
                    self._begin(command.execution, played, self._batches[command.execution])
            elif isinstance(command, PullItems):
                if command.execution not in self._batches:
                    self._batches[command.execution] = self._count(command.task)
                    self._given.append(self._give(command))
            elif isinstance(command, WaitFor):
                played = Played(command.task, None, {"event": command.name})
                self._begin(command.execution, played, self._count(command.task))
                self._played.append(played)
            elif isinstance(command, RunEnded):
                self._ended = command

    def _give(self, command: PullItems) -> ItemsGiven:
        """Have a task's own mock, which is of no item, give all its items."""
        mock = self._mocks.get(
            (command.task, self._batches[command.execution], None), self._default
        )
        if mock.status == "succeeded":
            values = mock.result if isinstance(mock.result, list) else []
            return ItemsGiven(command.execution, values, is_last=True)
        return ItemsGiven(
            command.execution, [], is_last=True, status=mock.status, result=mock.result
        )

    def _begin(self, execution: int, played: Played, occurrence: int) -> None:
        self._running.append((execution, played, occurrence))

    def _count(self, task: str) -> int:
        occurrence = self._starts.get(task, 0)
        self._starts[task] = occurrence + 1
        return occurrence

    def _next_end(self) -> Ended | ItemsEnded:
        execution, played, occurrence = self._running.pop(0 if self._order == "fifo" else -1)
        mock = self._mocks.get((played.task, occurrence, played.item), self._default)
        played.status, played.result = mock.status, mock.result
        if played.item is None:
            return Ended(execution, mock.status, mock.result)
        return ItemsEnded(execution, [ItemEnded(played.item, mock.status, mock.result)])


def _error(failure: Failure) -> dict[str, Any]:
    """Give an error as Orquesta does: its ``task_id`` names a task that has failed by itself.

    A task that did not answer is told by the status of its execution, and named in the message.
    """
    unheard = failure.kind in ("timeout", "abandoned")
    message = f"{failure.task}: {failure.message}" if unheard else failure.message
    error: dict[str, Any] = {"type": failure.kind, "message": message}
    if failure.task is not None and not unheard:
        error["task_id"] = failure.task
    for name in ("field", "item", "result"):
        value = getattr(failure, name)
        if value is not None:
            error[name] = value
    return error
