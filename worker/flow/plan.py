"""A workflow compiled: everything that is the same for each of its runs.

Plans are shared by all runs of a process and never changed. `PlanCache` keeps them by content,
so that a definition that is sent with each run is compiled once.

Mirror: tests/worker/flow/test_plan.py.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from .expressions import Template, compile_template
from .graph import Graph
from .limits import COMMAND_RETRIES, ITEMS_IN_FLIGHT
from .model import COMMANDS, Named, OnItemError, Place, Retry, Source, Task, Workflow, content_hash

PLANS_MAX: Final = 256

NOOP: Final = "core.noop"


class TransitionPlan:
    """What follows a task, compiled.

    Attributes:
        when: The condition; None is always.
        publish: Name, template.
        targets: Numbers of tasks, commands by name.
        index: In ``next``.
    """

    __slots__ = ("index", "publish", "targets", "when")

    def __init__(
        self,
        index: int,
        when: Template | None,
        publish: tuple[tuple[str, Template], ...],
        targets: tuple[int | str, ...],
    ) -> None:
        self.index = index
        self.when = when
        self.publish = publish
        self.targets = targets


class RetryPlan:
    """When a task is run again, compiled; templates give numbers.

    Attributes:
        when: None is when it has failed.
    """

    __slots__ = ("backoff", "count", "delay", "max_delay", "when")

    def __init__(self, retry: Retry) -> None:
        self.count = compile_template(retry.count)
        self.delay = compile_template(retry.delay)
        self.max_delay = compile_template(retry.max_delay)
        self.backoff = retry.backoff or "constant"
        self.when = _condition(retry.when)


class SourcePlan:
    """A node that gives items, compiled."""

    __slots__ = ("action", "input")

    def __init__(self, source: Source) -> None:
        self.action = compile_template(source.action)
        self.input = compile_template(source.input)


class ItemsPlan:
    """What a task runs once for each of, compiled."""

    __slots__ = ("batch_size", "concurrency", "names", "on_item_error", "source")

    def __init__(
        self,
        source: "Template | SourcePlan",
        names: tuple[str, ...],
        concurrency: Template,
        batch_size: Template,
        on_item_error: OnItemError,
    ) -> None:
        self.source = source
        self.names = names
        self.concurrency = concurrency
        self.batch_size = batch_size
        self.on_item_error: OnItemError = on_item_error


class TaskPlan:
    """One task, compiled.

    Attributes:
        number: Its place among the plan's tasks.
        action: ``core.noop`` where the definition names none.
        join: Tasks to wait for; None starts it by each arrival.
        sources: Numbers of the tasks that lead here, each once.
        splits: Whether each arrival gets a route of its own.
    """

    __slots__ = (
        "action",
        "delay",
        "input",
        "items",
        "join",
        "name",
        "next",
        "number",
        "place",
        "retry",
        "sources",
        "splits",
        "timeout",
    )

    def __init__(self, number: int, name: str, task: Task, graph: Graph, numbers: Any) -> None:
        self.number = number
        self.name = name
        self.action = compile_template(task.action or NOOP)
        self.input = compile_template(task.input)
        self.delay = None if task.delay is None else compile_template(task.delay)
        self.timeout = None if task.timeout is None else compile_template(task.timeout)
        self.items = _items(task)
        sources = graph.sources(name)
        self.sources: tuple[int, ...] = tuple(numbers[source] for source in sources)
        self.join = len(sources) if task.join == "all" else task.join
        self.splits = name in graph.splits
        self.place: Place | None = task.place
        retry = _retry(task)
        self.retry = None if retry is None else RetryPlan(retry)
        self.next: tuple[TransitionPlan, ...] = tuple(
            TransitionPlan(
                index,
                _condition(transition.when),
                _named(transition.publish),
                targets,
            )
            for index, transition in enumerate(task.next)
            if (targets := tuple(_targets(transition.do, numbers)))
        )


class Plan:
    """A workflow compiled.

    Attributes:
        digest: Equal for definitions that mean the same.
        tasks: By number. They are numbered by name, which is the order in which tasks that are
            ready at the same time start.
        starts: Numbers of the tasks that start by themselves.
    """

    __slots__ = (
        "digest", "input", "numbers", "output", "starts", "tasks", "timeout", "vars",
        "workflow",
    )  # fmt: skip

    def __init__(self, workflow: Workflow) -> None:
        graph = Graph(workflow)
        self.workflow = workflow
        self.digest = content_hash(workflow)
        self.numbers = {name: number for number, name in enumerate(sorted(workflow.tasks))}
        self.tasks = tuple(
            TaskPlan(number, name, workflow.tasks[name], graph, self.numbers)
            for name, number in self.numbers.items()
        )
        self.starts = tuple(sorted(self.numbers[name] for name in graph.starts))
        self.input = _named(workflow.input)
        self.vars = _named(workflow.vars)
        self.output = _named(workflow.output)
        self.timeout = workflow.timeout


_IDENTITIES: Final = 4  # workflows of equal content that are known, for each plan, in the long run


class PlanCache:
    """The plans of a process, those used last."""

    def __init__(self, plans_max: int = PLANS_MAX) -> None:
        self._plans: OrderedDict[str, Plan] = (
            OrderedDict()
        )  # by digest, the one used last at the end
        self._plans_max = plans_max
        # id of a workflow -> it and its plan, so that one that is kept anyway is not hashed again.
        self._by_identity: dict[int, tuple[Workflow, Plan]] = {}

    def plan_of(self, workflow: Workflow) -> Plan:
        """Return the plan of a workflow, compiled now if it is not kept."""
        known = self._by_identity.get(id(workflow))
        if known is not None:
            self._plans.move_to_end(known[1].digest)
            return known[1]
        plan = self._plans.get(content_hash(workflow)) or Plan(workflow)
        self.keep(workflow, plan)
        return plan

    def keep(self, workflow: Workflow, plan: Plan) -> None:
        """Keep the plan of a workflow, which may have been compiled elsewhere."""
        self._plans[plan.digest] = plan
        self._plans.move_to_end(plan.digest)
        self._by_identity[id(workflow)] = (workflow, plan)
        if len(self._plans) > self._plans_max:
            _, dropped = self._plans.popitem(last=False)
            gone = [
                key for key, (_, each) in self._by_identity.items() if each.digest == dropped.digest
            ]
            for key in gone:
                del self._by_identity[key]
        if len(self._by_identity) > _IDENTITIES * self._plans_max:  # of few contents
            self._by_identity = {id(workflow): (workflow, plan)}


def _named(variables: tuple[Named, ...]) -> tuple[tuple[str, Template], ...]:
    return tuple((name, compile_template(value)) for name, value in variables)


def _condition(value: str | bool | None) -> Template | None:
    return None if value is None else compile_template(value)


def _items(task: Task) -> ItemsPlan | None:
    items = task.items
    if items is None:
        return None
    concurrency = ITEMS_IN_FLIGHT if items.concurrency is None else items.concurrency
    given = items.source
    return ItemsPlan(
        SourcePlan(given) if isinstance(given, Source) else compile_template(given),
        items.names,
        compile_template(concurrency),
        compile_template(items.batch_size),
        items.on_item_error or "continue",
    )


def _targets(do: tuple[str, ...], numbers: dict[str, int]) -> Iterable[int | str]:
    """Give what follows; ``retry`` does not follow, it is decided before."""
    for name in do:
        if name not in COMMANDS:
            yield numbers[name]
        elif name != "retry":
            yield name


def _retry(task: Task) -> Retry | None:
    """Give when the task is run again: the command ``retry`` goes before the field."""
    for transition in task.next:
        if "retry" in transition.do:
            when = True if transition.when is None else transition.when
            return Retry(count=COMMAND_RETRIES, when=when)
    return task.retry
