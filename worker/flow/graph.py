"""What only the whole graph of a workflow can tell: ways, cycles, splits, joins, variables.

A *split* task has several transitions that lead to it and no join: it runs once for each that
fires, on a route of its own. In a cycle there are no splits: a task is run again on the same route.

Mirror: tests/worker/flow/test_graph.py.
"""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple

from .document import Path
from .expressions import ExpressionError, Reference, compile_template
from .model import COMMANDS, Named, Source, Task, Transition, Workflow


class Edge(NamedTuple):
    """One way from a task to another."""

    source: str
    transition: int
    target: str


class Graph:
    """The ways of a workflow.

    Attributes:
        inbound: Task -> the edges that lead to it, by source and transition.
        outbound: Task -> the edges that leave it, in order.
        starts: Tasks to which nothing leads, in order of the definition.
        cyclic: Tasks that can come after themselves.
        splits: Tasks that run once for each edge.
    """

    def __init__(self, workflow: Workflow) -> None:
        tasks = workflow.tasks
        self.inbound: dict[str, list[Edge]] = {name: [] for name in tasks}
        self.outbound: dict[str, list[Edge]] = {name: [] for name in tasks}
        for edge in _edges(workflow):
            self.inbound[edge.target].append(edge)
            self.outbound[edge.source].append(edge)
        self.starts = [name for name in tasks if not self.inbound[name]]
        self.cyclic = _cyclic(self.outbound)
        self.splits = {
            name
            for name, task in tasks.items()
            if task.join is None and len(self.inbound[name]) > 1 and name not in self.cyclic
        }

    def sources(self, task: str) -> list[str]:
        """Give the tasks that lead to a task, each once."""
        return list({edge.source: None for edge in self.inbound[task]})


def find_graph_problems(workflow: Workflow, context: Collection[str]) -> Iterator[tuple[Path, str]]:
    """Find what is wrong with a workflow whose fields are right by themselves."""
    if not workflow.tasks:
        return
    graph = Graph(workflow)
    reached = _reachable(graph)
    if not graph.starts:
        yield ("tasks",), "no task can start: to each of them another leads"
    yield from (
        (("tasks", name), "it never starts: no way leads here from a task that starts by itself")
        for name in workflow.tasks
        if graph.starts and name not in reached
    )
    yield from _join_problems(workflow, graph)
    yield from _Variables(workflow, graph, context).problems()


def _edges(workflow: Workflow) -> Iterator[Edge]:
    for name, task in workflow.tasks.items():
        for index, transition in enumerate(task.next):
            for target in transition.do:
                if target in workflow.tasks and target not in COMMANDS:
                    yield Edge(name, index, target)


def _cyclic(outbound: dict[str, list[Edge]]) -> set[str]:
    """Find all tasks in cycles: Tarjan's components, without recursion."""
    cyclic: set[str] = set()
    order: dict[str, int] = {}  # task -> when it was first seen
    low: dict[str, int] = {}  # task -> the earliest that it leads back to
    stack: list[str] = []
    on_stack: set[str] = set()
    for root in outbound:
        if root in order:
            continue
        walk = [(root, iter(outbound[root]))]
        order[root] = low[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while walk:
            task, edges = walk[-1]
            for edge in edges:
                target = edge.target
                if target == task:
                    cyclic.add(task)
                if target not in order:
                    order[target] = low[target] = len(order)
                    stack.append(target)
                    on_stack.add(target)
                    walk.append((target, iter(outbound[target])))
                    break
                if target in on_stack:
                    low[task] = min(low[task], order[target])
            else:
                walk.pop()
                if walk:
                    above = walk[-1][0]
                    low[above] = min(low[above], low[task])
                if low[task] == order[task]:
                    component = [stack.pop()]
                    while component[-1] != task:
                        component.append(stack.pop())
                    on_stack.difference_update(component)
                    if len(component) > 1:
                        cyclic.update(component)
    return cyclic


def _reachable(graph: Graph) -> set[str]:
    reached = set(graph.starts)
    pending = list(graph.starts)
    while pending:
        for edge in graph.outbound[pending.pop()]:
            if edge.target not in reached:
                reached.add(edge.target)
                pending.append(edge.target)
    return reached


def _join_problems(workflow: Workflow, graph: Graph) -> Iterator[tuple[Path, str]]:
    above = _splits_above(graph)
    for name, task in workflow.tasks.items():
        if task.join is None:
            continue
        path: Path = ("tasks", name, "join")
        sources = graph.sources(name)
        if not sources:
            yield path, "nothing leads to this task, so there is nothing to wait for"
        elif isinstance(task.join, int) and task.join > len(sources):
            yield path, f"waits for {task.join} tasks, but only {len(sources)} lead here"
        for source in sources:
            if above[source] != above[name]:
                differing = ", ".join(sorted(above[source] ^ above[name]))
                yield (
                    path,
                    f"can't tell what to wait for: {differing} runs several times, once for each "
                    f"way that leads there, and {source!r} lies on other ways than the rest",
                )
                break


def _splits_above(graph: Graph) -> dict[str, frozenset[str]]:
    """Find for each task the splits on the ways to it, itself among them."""
    above = {name: frozenset({name} if name in graph.splits else ()) for name in graph.outbound}
    pending = list(above)
    while pending:
        task = pending.pop()
        for edge in graph.outbound[task]:
            union = above[edge.target] | above[task]
            if union != above[edge.target]:
                above[edge.target] = union
                pending.append(edge.target)
    return above


class _Variables:
    """Which variables there may be where: a name that no way sets before its use is a mistake."""

    def __init__(self, workflow: Workflow, graph: Graph, context: Collection[str]) -> None:
        self._workflow = workflow
        self._graph = graph
        self._bits: dict[str, int] = {}  # variable -> its bit in the sets below
        self._context = self._set(context)

    def problems(self) -> Iterator[tuple[Path, str]]:
        workflow = self._workflow
        known = self._context
        for field, variables in (("input", workflow.input), ("vars", workflow.vars)):
            yield from self._sequence(variables, known, (field,))
            known |= self._set(name for name, _ in variables)
        before = self._available(known)
        everything = known
        for name, task in workflow.tasks.items():
            if name in before:
                yield from self._task(name, task, before[name])
            for transition in task.next:
                everything |= self._set(each for each, _ in transition.publish)
        yield from self._sequence(workflow.output, everything, ("output",))

    def _available(self, first: int) -> dict[str, int]:
        """Find for each task that can be reached the variables that may be there at its start."""
        before = dict.fromkeys(self._graph.starts, first)
        pending = list(self._graph.starts)
        while pending:
            task = pending.pop()
            for edge in self._graph.outbound[task]:
                transition = self._workflow.tasks[task].next[edge.transition]
                after = before[task] | self._set(name for name, _ in transition.publish)
                known = before.get(edge.target)
                if known is None or known | after != known:
                    before[edge.target] = after | (known or 0)
                    pending.append(edge.target)
        return before

    def _task(self, name: str, task: Task, known: int) -> Iterator[tuple[Path, str]]:
        path: Path = ("tasks", name)
        fields: list[tuple[Path, Any]] = [
            (("action",), task.action),
            (("input",), task.input),
            (("delay",), task.delay),
            (("timeout",), task.timeout),
        ]
        if task.items is not None:
            source = task.items.source
            if isinstance(source, Source):
                fields += [
                    (("with", "items", "action"), source.action),
                    (("with", "items", "input"), source.input),
                ]
            else:
                fields.append((("with", "items"), source))
            fields += [
                (("with", "concurrency"), task.items.concurrency),
                (("with", "batch_size"), task.items.batch_size),
            ]
        if task.retry is not None:
            fields += [
                (("retry", field), getattr(task.retry, field))
                for field in ("count", "delay", "max_delay", "when")
            ]
        for place, value in fields:
            yield from self._missing(value, known, (*path, *place))
        for index, transition in enumerate(task.next):
            yield from self._transition(transition, known, (*path, "next", index))

    def _transition(
        self, transition: Transition, known: int, path: Path
    ) -> Iterator[tuple[Path, str]]:
        yield from self._missing(transition.when, known, (*path, "when"))
        yield from self._sequence(transition.publish, known, (*path, "publish"))

    def _sequence(
        self, variables: tuple[Named, ...], known: int, path: Path
    ) -> Iterator[tuple[Path, str]]:
        for index, (name, value) in enumerate(variables):
            yield from self._missing(value, known, (*path, index))
            known |= self._set([name])

    def _missing(self, value: Any, known: int, path: Path) -> Iterator[tuple[Path, str]]:
        for name in sorted({each.name for each in _references(value) if each.required}):
            if not known & self._set([name]):
                yield path, f"nothing sets the variable {name!r} before{self._maybe(name, known)}"

    def _maybe(self, name: str, known: int) -> str:
        there = [each for each, bit in self._bits.items() if known & bit]
        close = get_close_matches(name, there, n=1)
        return f", maybe {close[0]!r}?" if close else ""

    def _set(self, names: Any) -> int:
        together = 0
        for name in names:
            bit = self._bits.setdefault(name, 1 << len(self._bits))
            together |= bit
        return together


def _references(value: Any) -> tuple[Reference, ...]:
    if isinstance(value, dict | list | str):
        try:
            return compile_template(value).references
        except ExpressionError:  # told already, by the check of the fields
            return ()
    return ()
