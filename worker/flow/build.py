"""Makes definitions in Python: the same as YAML, with names, types and completion in an editor.

    flow = Flow("deploy", input=["app", {"regions": []}])
    check = flow.task("check", "http.get", {"url": "{{ ctx().app.url }}"}, timeout=30)
    roll = flow.task("roll", cloud.deploy, {"region": "{{ item('region') }}"},
                     items=each("region", "{{ ctx().regions }}", concurrency=8))
    check.then(roll, when="{{ succeeded() }}", publish={"info": "{{ result().body }}"})
    flow.output(regions="{{ ctx().done }}")
    client.run(flow, app="shop")

Nothing is checked here but names of tasks: `Flow.workflow` checks the whole, as whoever runs it
does.

Mirror: tests/worker/flow/test_build.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pronghorn.client.invocation import target_of

from .model import Backoff, OnItemError, Place, Workflow
from .validation import validate

Action = str | Callable[..., Any]
"""A node or a workflow by name, a node by its function, or an expression that gives a name."""

Command = Literal["continue", "noop", "fail", "retry"]

Named = str | Mapping[str, Any]
"""A variable, or one with its default."""


class Given(NamedTuple):
    """A node that gives items; made by `given_by`."""

    definition: dict[str, Any]


class Task:
    """A task of a flow; made by `Flow.task`."""

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self._fields = fields
        self._next: list[dict[str, Any]] = []

    def then(
        self,
        *targets: Task | Command,
        when: str | bool | None = None,
        publish: Mapping[str, Any] | None = None,
    ) -> Task:
        """Say what follows, behind what was said before; gives the task itself.

        Args:
            *targets: Tasks and commands; none is ``continue``.
            when: Fires if that is true; by default always, after a failure too.
            publish: Variables for what follows, in order.
        """
        transition: dict[str, Any] = {}
        if when is not None:
            transition["when"] = when
        if publish:
            transition["publish"] = [{name: value} for name, value in publish.items()]
        if targets:
            transition["do"] = [each.name if isinstance(each, Task) else each for each in targets]
        self._next.append(transition)
        return self

    def on_success(
        self, *targets: Task | Command, publish: Mapping[str, Any] | None = None
    ) -> Task:
        """Say what follows if it has succeeded; as `then`."""
        return self.then(*targets, when="{{ succeeded() }}", publish=publish)

    def on_failure(
        self, *targets: Task | Command, publish: Mapping[str, Any] | None = None
    ) -> Task:
        """Say what follows if it has failed; as `then`."""
        return self.then(*targets, when="{{ failed() }}", publish=publish)

    def definition(self) -> dict[str, Any]:
        """Write it."""
        return {**self._fields, "next": list(self._next)} if self._next else dict(self._fields)


class Flow:
    """A workflow in the making.

    Args:
        name: Its name.
        description: What it is for.
        input: Variables that a caller gives; a mapping gives their defaults too.
        vars: Further variables, in order; each sees those before it.
        timeout: Seconds that a run may take.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str | None = None,
        input: Sequence[Named] = (),  # noqa: A002
        vars: Mapping[str, Any] | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> None:
        self.name = name
        self._fields = _given(description=description, timeout=timeout)
        self._input = [each if isinstance(each, str) else dict(each) for each in input]
        self._vars = dict(vars or {})
        self._tasks: dict[str, Task] = {}
        self._output: dict[str, Any] = {}

    def task(
        self,
        name: str,
        action: Action | None = None,
        input: Mapping[str, Any] | str | None = None,  # noqa: A002
        *,
        items: Mapping[str, Any] | None = None,
        join: int | Literal["all"] | None = None,
        delay: float | str | None = None,
        timeout: float | str | None = None,
        retry: Mapping[str, Any] | None = None,
        place: Place | None = None,
        description: str | None = None,
    ) -> Task:
        """Add a task.

        Args:
            name: Its name.
            action: What it runs; nothing by default.
            input: Its parameters by name, or an expression that gives them.
            items: Run it once for each of these; see `each`.
            join: Wait for so many of the tasks that lead here, or for all.
            delay: Seconds before it starts.
            timeout: Seconds that it may take.
            retry: When it is run again; see `again`.
            place: Where it has to run.
            description: What it is for.

        Raises:
            ValueError: There is a task of that name.
        """
        if name in self._tasks:
            raise ValueError(f"there is a task {name!r} already")
        fields = _given(
            action=None if action is None else _name_of(action),
            input=dict(input) if isinstance(input, Mapping) else input,
            join=join,
            delay=delay,
            timeout=timeout,
            retry=None if retry is None else dict(retry),
            place=place,
            description=description,
        )
        if items is not None:
            fields["with"] = dict(items)
        task = self._tasks[name] = Task(name, fields)
        return task

    def output(self, **named: Any) -> Flow:
        """Say what a run results in, behind what was said before; gives the flow itself."""
        self._output.update(named)
        return self

    def definition(self) -> dict[str, Any]:
        """Write it as a definition."""
        made: dict[str, Any] = {"version": 1, "name": self.name, **self._fields}
        if self._input:
            made["input"] = list(self._input)
        if self._vars:
            made["vars"] = [{name: value} for name, value in self._vars.items()]
        made["tasks"] = {name: task.definition() for name, task in self._tasks.items()}
        if self._output:
            made["output"] = [{name: value} for name, value in self._output.items()]
        return made

    def workflow(self) -> Workflow:
        """Check it and give it as a value.

        Raises:
            DefinitionError: It is wrong; holds all problems.
        """
        return validate(self.definition())


def each(
    names: str | None,
    source: str | Sequence[Any] | Given,
    *,
    concurrency: int | str | None = None,
    batch_size: int | str | None = None,
    on_item_error: OnItemError | None = None,
) -> dict[str, Any]:
    """Say what a task is run once for each of.

    Args:
        names: Of what is in an item: ``region``, or ``a, b`` for the elements of each; none if the
            item itself is meant.
        source: An expression that gives a list, or what `given_by` says; where no names are given
            it may be the list.
        concurrency: Items that run at once.
        batch_size: Items in one message to a worker.
        on_item_error: Whether a failed item lets those that wait run.

    Raises:
        ValueError: Names are given for what is no expression.
    """
    options = _given(concurrency=concurrency, batch_size=batch_size, on_item_error=on_item_error)
    if isinstance(source, Given):
        chosen = None if names is None else [name.strip() for name in names.split(",")]
        return {"items": source.definition, **_given(**{"as": chosen}), **options}
    if names is not None and not isinstance(source, str):
        raise ValueError("items have names only where an expression gives them")
    items = source if names is None else f"{names} in {source}"
    return {"items": items if isinstance(items, str) else list(items), **options}


def given_by(
    action: Action,
    input: Mapping[str, Any] | str | None = None,  # noqa: A002
) -> Given:
    """Say which node gives items: a generator does so as it yields them."""
    return Given(_given(action=_name_of(action), input=input))


def again(
    count: int | str,
    *,
    delay: float | str | None = None,
    backoff: Backoff | None = None,
    max_delay: float | str | None = None,
    when: str | bool | None = None,
) -> dict[str, Any]:
    """Say when a task is run again: `count` times more, if `when` is true or it has failed."""
    return _given(count=count, delay=delay, backoff=backoff, max_delay=max_delay, when=when)


def _name_of(action: Action) -> str:
    return action if isinstance(action, str) else target_of(action).name


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
