"""Checks a definition in one pass and makes a `Workflow` of it: all that is wrong, with its place.

What the shape of single fields can tell is checked here; what only the graph can tell in `graph`.

Mirror: tests/worker/flow/test_validation.py.
"""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, Final, get_args

from .document import DefinitionError, Document, Path, Problem, check_value, dotted, read_document
from .expressions import ExpressionError, compile_template, is_expression
from .graph import find_graph_problems
from .limits import DELAY_MAX_S, TASKS_MAX
from .model import (
    COMMANDS,
    Backoff,
    Items,
    Named,
    OnItemError,
    Place,
    Retry,
    Source,
    Task,
    Transition,
    Workflow,
)

_WORKFLOW_FIELDS: Final = (
    "version", "name", "description", "input", "vars", "output", "tasks", "timeout",
)  # fmt: skip
_TASK_FIELDS: Final = (
    "action", "input", "join", "with", "delay", "timeout", "retry", "next", "place", "description",
)  # fmt: skip
_ITEMS_FIELDS: Final = ("items", "as", "concurrency", "batch_size", "on_item_error")
_SOURCE_FIELDS: Final = ("action", "input")
_RETRY_FIELDS: Final = ("count", "delay", "backoff", "max_delay", "when")
_TRANSITION_FIELDS: Final = ("when", "publish", "do")

_TASK_NAME: Final = re.compile(r"\w[\w-]*")
_VARIABLE_NAME: Final = re.compile(r"\w+")
_ITEMS: Final = re.compile(r"\s*(\w+(?:\s*,\s*\w+)*)\s+in\s+(\{\{.*\}\})\s*", re.DOTALL)


def validate(
    definition: str | bytes | Mapping[str, Any],
    *,
    actions: Collection[str] | None = None,
    context: Collection[str] = (),
) -> Workflow:
    """Check a definition and return it as a value.

    Args:
        definition: YAML or JSON as text, or what it stands for.
        actions: Names of all nodes and workflows there are; None if any name may be right.
        context: Names of variables that a caller passes beside the input.

    Raises:
        DefinitionError: It is wrong; holds all problems.
    """
    if isinstance(definition, str | bytes):
        document = read_document(definition)
    else:
        document = Document(definition, {})
    if document.value is None and document.problems:  # it could not be read to its end
        raise DefinitionError(document.problems)
    check_value(document.value)
    checker = _Checker(document, actions)
    workflow = checker.workflow(document.value)
    problems = [*document.problems, *checker.problems]
    if workflow is not None:
        found = find_graph_problems(workflow, context)
        problems += [checker.problem_at(path, message) for path, message in found]
    if problems:
        raise DefinitionError(problems)
    assert workflow is not None, "nothing is wrong with it"
    return workflow


class _Checker:
    """One check; every method takes a value with its path and notes what is wrong with it."""

    def __init__(self, document: Document, actions: Collection[str] | None) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._actions = actions
        self._targets_known: set[str] = set(COMMANDS)  # and all tasks, once their names are known

    def problem_at(self, path: Path, message: str) -> Problem:
        mark = self._document.mark(path)
        place = (None, None) if mark is None else (mark.line, mark.column)
        return Problem(message, dotted(path), *place)

    def workflow(self, value: Any) -> Workflow | None:
        if not isinstance(value, dict):
            self._refuse((), f"expected a mapping with 'tasks', got {_kind(value)}")
            return None
        self._check_fields(value, (), _WORKFLOW_FIELDS)
        version = value.get("version", 1)
        if version not in (1, 1.0, "1", "1.0"):
            self._refuse(("version",), f"version {version!r} is not known, this is version 1")
        tasks = self._tasks(value.get("tasks"))
        return Workflow(
            name=self._text(value.get("name"), ("name",)),
            description=self._text(value.get("description"), ("description",)),
            input=self._variables(value.get("input"), ("input",), bare_names=True),
            vars=self._variables(value.get("vars"), ("vars",)),
            output=self._variables(value.get("output"), ("output",)),
            tasks=tasks,
            timeout=self._seconds_given(value.get("timeout"), ("timeout",)),
        )

    def _tasks(self, value: Any) -> dict[str, Task]:
        path: Path = ("tasks",)
        if not isinstance(value, dict) or not value:
            self._refuse(path, "a workflow needs at least one task, by name")
            return {}
        if len(value) > TASKS_MAX:
            self._refuse(path, f"{len(value)} tasks are too many, the limit is {TASKS_MAX}")
            return {}
        self._targets_known.update(name for name in value if isinstance(name, str))
        return {str(name): self._task(name, each, (*path, name)) for name, each in value.items()}

    def _task(self, name: Any, value: Any, path: Path) -> Task:
        if not isinstance(name, str) or not _TASK_NAME.fullmatch(name):
            self._refuse(path, "a task's name has letters, digits, _ and - only")
        if name in COMMANDS:
            self._refuse(path, f"{name!r} is a command: give the task another name")
        if value is None:
            return Task()
        if not isinstance(value, dict):
            self._refuse(path, f"expected a mapping, got {_kind(value)}")
            return Task()
        self._check_fields(value, path, _TASK_FIELDS)
        items = self._items(value.get("with"), (*path, "with"))
        if items is not None and value.get("action") is None:
            self._refuse((*path, "with"), "a task that has 'with' needs an action")
        return Task(
            action=self._action(value.get("action"), (*path, "action")),
            input=self._input(value.get("input"), (*path, "input")),
            join=self._join(value.get("join"), (*path, "join")),
            items=items,
            delay=self._seconds(value.get("delay"), (*path, "delay")),
            timeout=self._seconds(value.get("timeout"), (*path, "timeout")),
            retry=self._retry(value.get("retry"), (*path, "retry")),
            next=self._next(value.get("next"), (*path, "next")),
            place=self._one_of(value.get("place"), (*path, "place"), get_args(Place)),
            description=self._text(value.get("description"), (*path, "description")),
        )

    def _action(self, value: Any, path: Path) -> str | None:
        action = self._expression_text(value, path)
        if action is None or is_expression(action):
            return action
        if not action or action.split() != [action]:
            self._refuse(path, f"{action!r} is no name of a node: parameters belong into 'input'")
        elif self._actions is not None and action not in self._actions:
            self._refuse(path, f"there is no node named {action!r}{_maybe(action, self._actions)}")
        return action

    def _input(self, value: Any, path: Path) -> dict[str, Any] | str | None:
        if value is None:
            return None
        if isinstance(value, str) and is_expression(value):
            return self._expression_text(value, path)
        if not isinstance(value, dict):
            self._refuse(path, f"expected parameters by name or an expression, got {_kind(value)}")
            return None
        return {str(name): self._value(each, (*path, name)) for name, each in value.items()}

    def _join(self, value: Any, path: Path) -> Any:
        if value is None or value == "all":
            return value
        if type(value) is not int or value < 1:
            self._refuse(path, f"expected 'all' or a number from 1, got {value!r}")
            return None
        return value

    def _items(self, value: Any, path: Path) -> Items | None:
        if value is None:
            return None
        given = value if isinstance(value, dict) else {"items": value}
        self._check_fields(given, path, _ITEMS_FIELDS)
        names: tuple[str, ...]
        source: Any
        if isinstance(given.get("items"), dict):
            source = self._node_source(given["items"], (*path, "items"))
            names = self._names(given.get("as"), (*path, "as"))
        else:
            names, source = self._source(given.get("items"), (*path, "items"))
            if "as" in given:
                self._refuse((*path, "as"), "is for items that a node gives: write 'x in …'")
        return Items(
            source=source,
            names=names,
            concurrency=self._count(given.get("concurrency"), (*path, "concurrency"), least=1),
            batch_size=self._count(given.get("batch_size"), (*path, "batch_size"), least=1),
            on_item_error=self._one_of(
                given.get("on_item_error"), (*path, "on_item_error"), get_args(OnItemError)
            ),
        )

    def _source(self, value: Any, path: Path) -> tuple[tuple[str, ...], Any]:
        if isinstance(value, list):
            return (), self._value(value, path)
        if not isinstance(value, str) or not is_expression(value):
            self._refuse(
                path, "expected a list, an expression such as 'x in {{ ctx().xs }}', or a node"
            )
            return (), []
        match = _ITEMS.fullmatch(value)
        if match is None:
            return (), self._expression_text(value, path)
        names = tuple(name.strip() for name in match[1].split(","))
        if len(set(names)) < len(names):
            self._refuse(path, f"a name is there twice: {match[1]}")
        return names, self._expression_text(match[2], path)

    def _node_source(self, value: dict[Any, Any], path: Path) -> Source:
        self._check_fields(value, path, _SOURCE_FIELDS)
        action = self._action(value.get("action"), (*path, "action"))
        if action is None:
            self._refuse(path, "which node gives the items? 'action' is missing")
        return Source(action=action or "", input=self._input(value.get("input"), (*path, "input")))

    def _names(self, value: Any, path: Path) -> tuple[str, ...]:
        names = [value] if isinstance(value, str) else value
        if names is None:
            return ()
        if not isinstance(names, list) or not all(
            isinstance(name, str) and _VARIABLE_NAME.fullmatch(name) for name in names
        ):
            self._refuse(path, f"expected a name or a list of names, got {value!r:.40}")
            return ()
        if len(set(names)) < len(names):
            self._refuse(path, f"a name is there twice: {', '.join(names)}")
        return tuple(names)

    def _retry(self, value: Any, path: Path) -> Retry | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            self._refuse(path, f"expected a mapping with 'count', got {_kind(value)}")
            return None
        self._check_fields(value, path, _RETRY_FIELDS)
        count = self._count(value.get("count"), (*path, "count"), least=0)
        if "count" not in value:
            self._refuse(path, "how often? 'count' is missing")
        return Retry(
            count=0 if count is None else count,
            delay=self._seconds(value.get("delay"), (*path, "delay")),
            backoff=self._one_of(value.get("backoff"), (*path, "backoff"), get_args(Backoff)),
            max_delay=self._seconds(value.get("max_delay"), (*path, "max_delay")),
            when=self._condition(value.get("when"), (*path, "when")),
        )

    def _next(self, value: Any, path: Path) -> tuple[Transition, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self._refuse(path, f"expected a list, got {_kind(value)}")
            return ()
        return tuple(self._transition(each, (*path, i)) for i, each in enumerate(value))

    def _transition(self, value: Any, path: Path) -> Transition:
        if not isinstance(value, dict):
            self._refuse(path, f"expected a mapping with when, publish, do; got {_kind(value)}")
            return Transition()
        self._check_fields(value, path, _TRANSITION_FIELDS)
        return Transition(
            when=self._condition(value.get("when"), (*path, "when")),
            publish=self._variables(value.get("publish"), (*path, "publish")),
            do=self._targets(value.get("do"), (*path, "do")),
        )

    def _targets(self, value: Any, path: Path) -> tuple[str, ...]:
        if value is None:
            return ("continue",)
        given = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            self._refuse(path, f"expected names of tasks, got {value!r:.60}")
            return ()
        for name in sorted({name for name in given if given.count(name) > 1}):
            self._refuse(path, f"{name!r} is there twice")
        for name in given:
            if name not in self._targets_known:
                hint = _maybe(name, self._targets_known)
                self._refuse(path, f"there is no task named {name!r}{hint}")
        return tuple(name for name in given if name in self._targets_known) or ("continue",)

    def _variables(self, value: Any, path: Path, *, bare_names: bool = False) -> tuple[Named, ...]:
        """Take a mapping, or a list of mappings with one entry each, or bare names."""
        if value is None:
            return ()
        if isinstance(value, dict):
            pairs = [(name, each, (*path, name)) for name, each in value.items()]
        elif isinstance(value, list):
            pairs = []
            for i, each in enumerate(value):
                if bare_names and isinstance(each, str):
                    pairs.append((each, None, (*path, i)))
                elif isinstance(each, dict) and len(each) == 1:
                    pairs += [(name, inner, (*path, i, name)) for name, inner in each.items()]
                else:
                    self._refuse((*path, i), f"expected one name with its value, got {each!r:.60}")
        else:
            self._refuse(path, f"expected a list of names with values, got {_kind(value)}")
            return ()
        return tuple(self._variable(*pair) for pair in pairs)

    def _variable(self, name: Any, value: Any, path: Path) -> Named:
        if not isinstance(name, str) or not _VARIABLE_NAME.fullmatch(name):
            self._refuse(path, "a variable's name has letters, digits and _ only")
        return str(name), self._value(value, path)

    def _value(self, value: Any, path: Path) -> Any:
        """Take any value; the expressions in it have to be right."""
        if isinstance(value, dict):
            return {str(name): self._value(each, (*path, name)) for name, each in value.items()}
        if isinstance(value, list):
            return [self._value(each, (*path, i)) for i, each in enumerate(value)]
        if isinstance(value, str):
            return self._expression_text(value, path)
        return value

    def _expression_text(self, value: Any, path: Path) -> str | None:
        text = self._text(value, path)
        if text is not None:
            try:
                compile_template(text)
            except ExpressionError as error:
                self._refuse(path, error.message)
        return text

    def _condition(self, value: Any, path: Path) -> str | bool | None:
        return value if isinstance(value, bool) else self._expression_text(value, path)

    def _text(self, value: Any, path: Path) -> str | None:
        if value is None or isinstance(value, str):
            return value
        self._refuse(path, f"expected text, got {_kind(value)}")
        return None

    def _count(self, value: Any, path: Path, *, least: int) -> int | str | None:
        if value is None or (isinstance(value, str) and is_expression(value)):
            return self._expression_text(value, path)
        if type(value) is not int or value < least:
            self._refuse(path, f"expected a whole number from {least}, got {value!r:.40}")
            return None
        return value

    def _seconds(self, value: Any, path: Path) -> float | str | None:
        if isinstance(value, str) and is_expression(value):
            return self._expression_text(value, path)
        return self._seconds_given(value, path)

    def _seconds_given(self, value: Any, path: Path) -> float | None:
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 <= value <= DELAY_MAX_S:
            self._refuse(path, f"expected seconds from 0 to {DELAY_MAX_S:g}, got {value!r:.40}")
            return None
        return float(value)

    def _one_of(self, value: Any, path: Path, choices: tuple[Any, ...]) -> Any:
        if value is not None and value not in choices:
            self._refuse(path, f"expected {' or '.join(choices)}, got {value!r:.40}")
            return None
        return value

    def _check_fields(self, value: Mapping[Any, Any], path: Path, known: tuple[str, ...]) -> None:
        for name in value:
            if name not in known:
                hint = _maybe(name, known) or f": known are {', '.join(known)}"
                self._refuse((*path, name), f"there is no such field{hint}")

    def _refuse(self, path: Path, message: str) -> None:
        self.problems.append(self.problem_at(path, message))


def _maybe(name: Any, known: Collection[str]) -> str:
    close = get_close_matches(str(name), known, n=1)
    return f", maybe {close[0]!r}?" if close else ""


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    names: dict[type, str] = {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), f"the number {value}")
