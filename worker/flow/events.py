"""What a conductor is told, and what it tells to do: plain values.

Seconds are monotonic. Values (inputs, results) are plain ones, as `measure` names them; they are
shared, so whoever gets one must not change it.

Mirror: tests/worker/flow/test_conductor.py.
"""

from typing import Any, Literal

import msgspec

from pronghorn.broker.wire.flows import ContextSize, RunFailure

from .model import Place

Failure = RunFailure  # which travels as it is

RunStatus = Literal[
    "new", "running", "pausing", "paused", "canceling", "succeeded", "failed", "canceled"
]
Outcome = Literal["succeeded", "failed", "timeout", "abandoned", "canceled"]
"""How an action has ended. All but the first and the last count as failed."""


class Start(msgspec.Struct, frozen=True, gc=False):
    """Begin the run.

    Attributes:
        inputs: Values of its input by name; those that the workflow does not declare are ignored.
        context: Variables that the caller passes beside them.
    """

    inputs: dict[str, Any] = {}
    context: dict[str, Any] = {}


class Ended(msgspec.Struct, frozen=True, gc=False):
    """An action has ended.

    Attributes:
        execution: As the command said; unknown ones are ignored, for they may be late.
        message: Why it failed.
    """

    execution: int
    status: Outcome
    result: Any = None
    message: str = ""


class ItemEnded(msgspec.Struct, frozen=True, gc=False):
    """One item has ended; see `ItemsEnded`."""

    index: int
    status: Outcome
    result: Any = None
    message: str = ""


class ItemsEnded(msgspec.Struct, frozen=True, gc=False):
    """Items of one execution have ended; told in one go they cost less."""

    execution: int
    items: list[ItemEnded]


class ItemsGiven(msgspec.Struct, frozen=True, gc=False):
    """A node that gives items has given some, or ended.

    Attributes:
        values: The next, in order.
        is_last: Whether it has ended.
        status: How it has ended.
        result: What it has failed with.
        message: Why it has failed.
    """

    execution: int
    values: list[Any]
    is_last: bool
    status: Outcome = "succeeded"
    result: Any = None
    message: str = ""


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed; due at `Conductor.deadline`, harmless at any time."""


class Pause(msgspec.Struct, frozen=True, gc=False):
    """Start nothing more until it is resumed."""


class Resume(msgspec.Struct, frozen=True, gc=False):
    """Go on."""


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """End the run; what runs is let finish or stopped.

    Attributes:
        stop_running: Whether it is stopped.
    """

    stop_running: bool = False


class Rerun(msgspec.Struct, frozen=True, gc=False):
    """Take an ended run up again: run tasks again that have failed and were not handled.

    Attributes:
        tasks: Names; None for all of them.
    """

    tasks: tuple[str, ...] | None = None


class TakeUp(msgspec.Struct, frozen=True, gc=False):
    """Go on with a run whose host was lost: what ran has come to nothing, and is run again."""


class Signal(msgspec.Struct, frozen=True, gc=False):
    """An event from outside, for the task that has waited for that name the longest."""

    name: str
    value: Any = None


class TakeSignal(msgspec.Struct, frozen=True, gc=False):
    """A signal that is kept goes to a workflow within the run that waits for one of that name."""

    name: str


Event = (
    Start
    | Ended
    | ItemsEnded
    | ItemsGiven
    | Tick
    | Pause
    | Resume
    | Cancel
    | Rerun
    | TakeUp
    | Signal
    | TakeSignal
)


class RunTask(msgspec.Struct, frozen=True, gc=False):
    """Run an action and answer with `Ended`.

    Attributes:
        execution: Number; each attempt has its own, so that a late answer is known as such.
        input: Parameters by name; None for none.
        attempt: From 0.
    """

    execution: int
    task: str
    action: str
    input: dict[str, Any] | None
    attempt: int
    place: Place | None


class ItemToRun(msgspec.Struct, frozen=True, gc=False):
    """One item; see `RunItems`."""

    index: int
    action: str
    input: dict[str, Any] | None


class RunItems(msgspec.Struct, frozen=True, gc=False):
    """Run an action for items and answer with `ItemsEnded`, all at once or as they end.

    Attributes:
        batch_size: Items that one message to a worker should hold; None leaves it open.
        count: Of all items of the execution; None while more of them may come.
    """

    execution: int
    task: str
    items: list[ItemToRun]
    attempt: int
    place: Place | None
    batch_size: int | None
    count: int | None


class PullItems(msgspec.Struct, frozen=True, gc=False):
    """Take values from a node that gives items; answer with `ItemsGiven`, as they come.

    Attributes:
        input: Of the node, which is begun with the first of these for an execution.
        count: How many more may be given.
        skip: How many were given before, which are left out when the node is begun.
    """

    execution: int
    task: str
    action: str
    input: dict[str, Any] | None
    attempt: int
    place: Place | None
    count: int
    skip: int


class WaitFor(msgspec.Struct, frozen=True, gc=False):
    """Nothing to run: a task waits for a `Signal` of that name."""

    execution: int
    task: str
    name: str


class Stop(msgspec.Struct, frozen=True, gc=False):
    """Stop what runs for an execution. If it is still known then, answer as ever."""

    execution: int


class TaskEnded(msgspec.Struct, frozen=True, gc=False):
    """To be shown: a task has ended.

    Attributes:
        again: Whether it will be run again.
    """

    execution: int
    task: str
    status: Outcome
    result: Any
    again: bool


class StatusChanged(msgspec.Struct, frozen=True, gc=False):
    """To be shown: the run has another status."""

    status: RunStatus


class RunEnded(msgspec.Struct, frozen=True, gc=False):
    """The run has ended; nothing more comes unless it is run again.

    Attributes:
        output: By name; None where the workflow has none or nothing of it could be evaluated.
        errors: In the order in which they came.
        errors_left_out: Further ones that were not kept.
        context: How large the variables are.
    """

    status: Literal["succeeded", "failed", "canceled"]
    output: dict[str, Any] | None
    errors: tuple[Failure, ...]
    errors_left_out: int = 0
    context: ContextSize = ContextSize()


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The event can't be taken now and has changed nothing."""

    reason: str


Command = (
    RunTask | RunItems | PullItems | WaitFor | Stop | TaskEnded | StatusChanged | RunEnded | Refused
)
