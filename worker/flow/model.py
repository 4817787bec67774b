"""A workflow's definition as values: what YAML, JSON and Python definitions all become.

Made by `validation`, which fills in nothing: a field that was not given is None. Values in which
``{{ … }}`` may stand are as they were written.

Mirror: tests/worker/flow/test_validation.py.
"""

from hashlib import sha256
from typing import Any, Literal

import msgspec

Named = tuple[str, Any]
"""A variable and its template."""

OnItemError = Literal["continue", "stop"]
Place = Literal["inline", "pool"]
Backoff = Literal["constant", "linear", "exponential"]

COMMANDS = ("continue", "noop", "fail", "retry")
"""What may stand in ``do`` beside names of tasks, which are no names of tasks therefore."""


class Retry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a task is run again.

    Attributes:
        count: Times at most, the first run not counted.
        delay: Seconds before each.
        backoff: How the delay grows: not at all, by itself each time, or doubling.
        max_delay: Seconds that it grows to at most.
        when: Run again if that is true; without it whenever the task has failed.
    """

    count: int | str
    delay: float | str | None = None
    backoff: Backoff | None = None
    max_delay: float | str | None = None
    when: str | bool | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """A node whose parts are items, as it yields them.

    Attributes:
        action: Its name, or an expression that gives one.
        input: As that of a task.
    """

    action: str
    input: dict[str, Any] | str | None = None


class Items(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a task is run once for each of.

    Attributes:
        source: A list, or an expression that gives one, or a node that does.
        names: Of what is in an item: ``x in …`` has one, ``a, b in …`` one for each element.
        concurrency: Items that run at once.
        batch_size: Items in one message to a worker.
        on_item_error: Whether a failed item lets those that wait run (``continue``) or not.
    """

    source: "str | list[Any] | Source"
    names: tuple[str, ...] = ()
    concurrency: int | str | None = None
    batch_size: int | str | None = None
    on_item_error: OnItemError | None = None


class Transition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What follows a task.

    Attributes:
        when: Fires if that is true; None always.
        publish: Variables for what follows, in order; each sees those before it.
        do: Tasks and commands.
    """

    when: str | bool | None = None
    publish: tuple[Named, ...] = ()
    do: tuple[str, ...] = ("continue",)


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task.

    Attributes:
        action: Name of a node or a workflow, or an expression that gives one; None does nothing.
        input: Its parameters by name, or an expression that gives them.
        join: Wait for so many of the tasks that lead here, or for all.
        delay: Seconds to wait before it starts.
        timeout: Seconds that it may take, all items together.
        place: Where it has to run.
    """

    action: str | None = None
    input: dict[str, Any] | str | None = None
    join: int | Literal["all"] | None = None
    items: Items | None = None
    delay: float | str | None = None
    timeout: float | str | None = None
    retry: Retry | None = None
    next: tuple[Transition, ...] = ()
    place: Place | None = None
    description: str | None = None


class Workflow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole definition.

    Attributes:
        input: Variables that the caller gives, with what they are if it does not.
        vars: Variables that the run begins with; each sees the input and those before it.
        output: What the run results in; each sees the variables at the end and those before it.
        tasks: By name, in the order of the text.
        timeout: Seconds that the run may take.
    """

    name: str | None = None
    description: str | None = None
    input: tuple[Named, ...] = ()
    vars: tuple[Named, ...] = ()
    output: tuple[Named, ...] = ()
    tasks: dict[str, Task]
    timeout: float | None = None


def content_hash(workflow: Workflow) -> str:
    """Give the same text for definitions that mean the same, wherever they came from."""
    return sha256(msgspec.msgpack.encode(workflow)).hexdigest()
