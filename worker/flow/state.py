"""All that a conductor knows of one run, apart from its plan.

Everything here is plain data; `snapshot` turns it into bytes and back. Contexts are shared by
reference.

Mirror: tests/worker/flow/test_snapshot.py.
"""

from typing import Any, Literal

import msgspec

from .context import Context
from .events import Failure, RunStatus
from .items import ItemsState
from .rendering import RetryState

Spot = tuple[int, int]
"""Number of a task, number of a route."""

RouteKey = tuple[int, int, int]
"""Source, transition and target of an edge to a split task."""

ExecutionState = Literal["delayed", "running", "waiting"]


class Execution(msgspec.Struct):
    """One start of a task that has not ended; each attempt is a new one.

    Attributes:
        number: That no other execution of the run has.
        order: Number of the first attempt: tells which task started earlier.
        context: What its branch sees.
        state: Whether it waits for its delay, runs, or waits for a signal.
        due: When its delay is over; None if it is, also while it is paused.
        deadline: When its time is up.
        on_fail: Whether it may run although the run has failed, because ``fail`` stood beside it.
        action: To run once the delay is over.
        wait_for: Name of the signal.
    """

    number: int
    order: int
    task: int
    route: int
    attempt: int
    context: Context
    state: ExecutionState
    on_fail: bool
    action: str = ""
    input: dict[str, Any] | None = None
    items: ItemsState | None = None
    retry: RetryState | None = None
    timeout_s: float | None = None
    due: float | None = None
    deadline: float | None = None
    wait_for: str | None = None


class Arrival(msgspec.Struct):
    """What has reached a task that has not started yet.

    Attributes:
        contexts: Of the branches, in the order in which they arrived.
        on_fail: As for `Execution`.
        items: Of the execution that is run again, whose items have partly succeeded.
        order: Of the execution that is run again.
    """

    contexts: list[Context]
    on_fail: bool = False
    items: ItemsState | None = None
    order: int | None = None


class Latest(msgspec.Struct):
    """The last execution of a task on a route.

    Attributes:
        status: ``running`` until it has ended.
        fired: Numbers of the tasks to which it has led on.
    """

    status: str
    fired: set[int]


class Route(msgspec.Struct, frozen=True):
    """A way through splits.

    Attributes:
        parent: The route that it left at a split; None for the first.
        keys: The edges to splits that were taken, outermost first.
    """

    parent: int | None
    keys: tuple[RouteKey, ...]


class Lost(msgspec.Struct, frozen=True):
    """A task that has failed and was not handled, kept to be run again."""

    order: int
    context: Context
    items: ItemsState | None


class Terminal(msgspec.Struct, frozen=True):
    """A branch that has ended.

    Attributes:
        position: Branches are merged by it; a later one goes over an earlier one.
        order: Of the execution at its end.
        context: What it saw, with what was published at its end.
    """

    position: int
    order: int
    context: Context


class RunState(msgspec.Struct):
    """One run.

    Attributes:
        executions: Number -> a start that has not ended.
        ready: Tasks that may start as soon as the run lets them.
        waiting: Joins that were reached and still wait for others.
        latest: The last execution at each spot; there once a task has started.
        routes: By number.
        terminals: The branches that have ended.
        last: The task that has ended last, if its branch goes on: that ends there if all that it
            leads to is a join which can't be met.
        lost: Spot -> a failed task that ended the run.
        signals: Name, value; not yet waited for, in the order in which they came.
        numbers: Given out: to executions and to changes of contexts.
        starts: Of tasks, attempts counted.
        deadline: When the run's time is up.
        closed: Whether it was cancelled after it had failed: not even what stands beside a
            ``fail`` starts any more.
        ended: Whether `RunEnded` was told.
        context_bytes: About how many all variables have that the run has begun with or published.
        first_bytes: Of them what it has begun with.
        largest: The variable with the largest value.
        largest_bytes: Of that.
    """

    status: RunStatus = "new"
    executions: dict[int, Execution] = {}
    ready: dict[Spot, Arrival] = {}
    waiting: dict[Spot, Arrival] = {}
    latest: dict[Spot, Latest] = {}
    routes: list[Route] = msgspec.field(default_factory=lambda: [Route(None, ())])
    terminals: list[Terminal] = []
    last: Terminal | None = None
    lost: dict[Spot, Lost] = {}
    signals: list[tuple[str, Any]] = []
    errors: list[Failure] = []
    errors_left_out: int = 0
    numbers: int = 0
    starts: int = 0
    deadline: float | None = None
    closed: bool = False
    ended: bool = False
    context_bytes: int = 0
    first_bytes: int = 0
    largest: str = ""
    largest_bytes: int = 0
