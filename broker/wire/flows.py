"""Runs of workflows as they travel: how one has ended, and what it tells on its way.

A run host answers the calls `RUN`, `FOLLOW`, `FLOW` and `CONTROL` with these; PROTOCOL.md has their
parameters ("Workflows").

Mirror: tests/broker/wire/test_flows.py.
"""

from typing import Any, Final, Literal

import msgspec

from .table import BUILTIN_PREFIX

RUN: Final = f"{BUILTIN_PREFIX}run"
"""Runs a workflow to its end and gives a `RunReport`."""

FOLLOW: Final = f"{BUILTIN_PREFIX}follow"
"""Runs a workflow and streams its `FlowEvent`, the last of which tells the end."""

FLOW: Final = f"{BUILTIN_PREFIX}workflow"
"""Runs a workflow as a node: gives its output, and fails as it fails. It can be recorded."""

CONTROL: Final = f"{BUILTIN_PREFIX}control"
"""Pauses, resumes, cancels or signals a run that goes on."""

RUN_ID_MAX: Final = 128
"""Characters of a run's id: as an affinity, by which its orders find its host."""

RunLevel = Literal["full", "outputs", "terminal"]
"""All events; those of tasks that end and of the run; the end of the run alone."""

RunOrder = Literal["pause", "resume", "cancel", "signal"]


class RunFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that went wrong in a run.

    Attributes:
        kind: ``task``: its action failed; ``timeout``, ``abandoned``: it did not answer;
            ``expression``: one could not be evaluated, or gave a wrong type; ``join``: met only in
            part; ``command``: ``fail``; ``run``: a limit of the run itself.
        message: What went wrong.
        task: Name of the task concerned.
        field: Its field: ``next[0].publish.info``.
        item: Index of the item concerned.
        result: What the failed action gave.
    """

    kind: Literal["task", "timeout", "abandoned", "expression", "join", "command", "run"]
    message: str
    task: str | None = None
    field: str | None = None
    item: int | None = None
    result: Any = None

    def __str__(self) -> str:
        place = [] if self.task is None else [self.task]
        if self.item is not None:
            place.append(f"item {self.item}")
        if self.field is not None:
            place.append(self.field)
        return f"{', '.join(place)}: {self.message}" if place else self.message


class ContextSize(msgspec.Struct, frozen=True, omit_defaults=True):
    """How large the variables of a run are, about: the bytes that they take on the wire.

    Attributes:
        bytes: Of all that it has begun with and published. What was published over counts too, for
            it may still be seen by other branches.
        growth: Of them what it has published.
        largest: The variable that has the largest value.
        largest_bytes: Of that value.
    """

    bytes: int = 0
    growth: int = 0
    largest: str = ""
    largest_bytes: int = 0


class RunReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a run has ended.

    Attributes:
        status: ``succeeded``, ``failed`` or ``canceled``.
        output: By name, also of a run that has failed; None where there is none.
        errors: What went wrong, also what was handled.
        id: Names the run.
        context: How large its variables are.
    """

    status: str
    output: dict[str, Any] | None = None
    errors: tuple[RunFailure, ...] = ()
    id: str = ""
    context: ContextSize = ContextSize()

    def reason(self) -> str:
        """Say why it did not succeed: its last errors."""
        return "; ".join(map(str, self.errors[-3:])) or f"it is {self.status}"


class FlowEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of a run.

    Attributes:
        number: From 1, without a gap among those of one level.
        kind: ``begun``: the run can be controlled, the first at every level. ``status``: the run
            has another one. ``task_started``, ``task_ended``: an attempt. ``items``: how many items
            have ended; of those that nobody has taken yet only the last is kept. ``ended``: the run
            has; nothing follows.
        status: Of the run or of the task.
        attempt: Of the task, from 0.
        again: Whether the task will be run again.
        result: Of the task.
        done: Items that have ended.
        failed: Those of them that have failed.
        count: All items.
        output: Of the run.
        errors: Of the run.
        at_s: When it has happened, seconds since the run began.
        run: Its id, with ``begun`` and ``ended``.
        context: With ``ended``: how large its variables are.
    """

    number: int
    kind: Literal["begun", "status", "task_started", "task_ended", "items", "ended"]
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
    errors: tuple[RunFailure, ...] = ()
    at_s: float = 0.0
    run: str | None = None
    context: ContextSize = ContextSize()
