"""Imports node graphs as node editors save them: ``{"nodes": […], "edges": […]}``.

A node ``{"id", "type", "data"}`` becomes a task: its action is ``data.action``, else ``type``; its
input is ``data.input``, else ``data`` without ``action`` and ``label``, with placeholders turned
into expressions. An edge ``{"source", "sourceHandle", "target", "targetHandle"}`` leads from one
task to the other, by its handles:

- `sourceHandle` ``success`` (or none), ``failure``, ``always``, ``true`` or ``false`` says when it
  is taken. Any other is the name of an output of the node, a key of its result.
- `targetHandle`, unless it is none or ``input``, is the parameter of the target that gets the
  result, or that output of it.

The result of a node is published under the name of its task. A node to which several others lead
waits for all of them, unless it lies in a cycle: so ways that exclude each other must not meet
again. What comes out is a definition for `validate`.

Mirror: tests/worker/flow/test_nodegraph.py.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .document import DefinitionError, Problem, check_value
from .limits import DEFINITION_NODES_MAX, TASKS_MAX
from .model import COMMANDS
from .placeholders import find_keys, to_expressions

_CONDITIONS: Final[Mapping[str, str | None]] = {
    "success": "{{ succeeded() }}",
    "failure": "{{ failed() }}",
    "error": "{{ failed() }}",
    "always": None,
    "true": "{{ succeeded() and result() }}",
    "false": "{{ succeeded() and not result() }}",
}
_PLAIN_HANDLES: Final = frozenset({"", "input", "in", "target"})
_PLAIN_OUTPUTS: Final = frozenset({"", "output", "out", "source"})
_OUTSIDE_NAMES: Final = re.compile(r"\W+")


def from_node_graph(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Make a definition of a node graph; `validate` checks it further.

    Raises:
        DefinitionError: It is no node graph; holds all problems.
    """
    return _Import(graph).definition()


class _Import:
    def __init__(self, graph: Mapping[str, Any]) -> None:
        check_value(graph)
        self._problems: list[Problem] = []
        self._nodes = self._list(graph, "nodes", TASKS_MAX)
        self._edges = self._list(graph, "edges", DEFINITION_NODES_MAX)
        self._name = graph.get("name")
        self._names: dict[str, str] = {}  # id of a node -> name of its task
        for index, node in enumerate(self._nodes):
            self._take_name(index, node)

    def definition(self) -> dict[str, Any]:
        tasks = {
            self._names[node["id"]]: self._task(index, node)
            for index, node in enumerate(self._nodes)
            if self._name_of(node.get("id")) is not None
        }
        for index, edge in enumerate(self._edges):
            self._lead(tasks, index, edge)
        self._join(tasks)
        if self._problems:
            raise DefinitionError(self._problems)
        keys = find_keys([node.get("data") for node in self._nodes])
        definition: dict[str, Any] = {
            "version": 1,
            "input": [key for key in keys if key not in tasks],
            "tasks": tasks,
        }
        if isinstance(self._name, str):
            definition["name"] = self._name
        return definition

    def _list(self, graph: Mapping[str, Any], field: str, most: int) -> Sequence[Mapping[str, Any]]:
        value = graph.get(field)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise DefinitionError([Problem(f"a node graph has a list of objects {field!r}", field)])
        if len(value) > most:
            raise DefinitionError(
                [Problem(f"{len(value)} are too many, the limit is {most}", field)]
            )
        return value

    def _take_name(self, index: int, node: Mapping[str, Any]) -> None:
        identity = node.get("id")
        if not isinstance(identity, str) or not identity:
            self._refuse(f"nodes[{index}].id", "every node needs an id, a text")
            return
        if identity in self._names:
            self._refuse(f"nodes[{index}].id", f"{identity!r} is the id of another node already")
            return
        name = _OUTSIDE_NAMES.sub("_", identity)
        while name in COMMANDS or name in self._names.values():
            name += "_"
        self._names[identity] = name

    def _name_of(self, identity: Any) -> str | None:
        """Find the task of a node, for what may be no id at all."""
        return self._names.get(identity) if isinstance(identity, str) else None

    def _task(self, index: int, node: Mapping[str, Any]) -> dict[str, Any]:
        data = node.get("data") or {}
        if not isinstance(data, dict):
            self._refuse(f"nodes[{index}].data", "expected an object")
            data = {}
        action = data.get("action", node.get("type"))
        if not isinstance(action, str):
            self._refuse(f"nodes[{index}]", "no action: neither data.action nor type is a text")
        rest = {name: each for name, each in data.items() if name not in ("action", "label")}
        given = data.get("input", rest)
        if not isinstance(given, dict):
            self._refuse(f"nodes[{index}].data.input", "expected an object")
            given = {}
        return {"action": action, "input": to_expressions(given), "next": []}

    def _lead(self, tasks: dict[str, Any], index: int, edge: Mapping[str, Any]) -> None:
        """Take an edge in: a transition of its source, maybe a parameter of its target."""
        ends = []
        for end in ("source", "target"):
            name = self._name_of(edge.get(end))
            if name is None:
                self._refuse(f"edges[{index}].{end}", f"there is no node {edge.get(end)!r}")
            else:
                ends.append(name)
        if len(ends) < 2:
            return
        source, target = ends
        output = str(edge.get("sourceHandle") or "")
        parameter = str(edge.get("targetHandle") or "")
        condition = _CONDITIONS.get(output, "{{ succeeded() }}")
        transition = _transition(tasks[source]["next"], condition, source)
        if target not in transition["do"]:
            transition["do"].append(target)
        if parameter not in _PLAIN_HANDLES:
            key = "" if output in _CONDITIONS or output in _PLAIN_OUTPUTS else f"[{output!r}]"
            tasks[target]["input"][parameter] = f"{{{{ ctx({source!r}){key} }}}}"

    def _join(self, tasks: dict[str, Any]) -> None:
        sources: dict[str, set[str]] = {name: set() for name in tasks}
        for name, task in tasks.items():
            for target in _targets(task):
                sources[target].add(name)
        for name, task in tasks.items():
            if len(sources[name]) > 1 and not _leads_back(tasks, name):
                task["join"] = "all"

    def _refuse(self, path: str, message: str) -> None:
        self._problems.append(Problem(message, path))


def _transition(
    transitions: list[dict[str, Any]], condition: str | None, source: str
) -> dict[str, Any]:
    """Find the transition with a condition, or add it."""
    for transition in transitions:
        if transition.get("when") == condition:
            return transition
    made: dict[str, Any] = {"publish": [{source: "{{ result() }}"}], "do": []}
    if condition is not None:
        made = {"when": condition, **made}
    transitions.append(made)
    return made


def _targets(task: Mapping[str, Any]) -> Iterator[str]:
    for transition in task["next"]:
        yield from transition["do"]


def _leads_back(tasks: Mapping[str, Any], name: str) -> bool:
    seen: set[str] = set()
    pending = list(_targets(tasks[name]))
    while pending:
        each = pending.pop()
        if each == name:
            return True
        if each not in seen:
            seen.add(each)
            pending += _targets(tasks[each])
    return False
