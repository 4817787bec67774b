"""What a task is to do, from its plan and the variables of its branch.

Mirror: tests/worker/flow/test_tasks.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from .context import Context
from .document import dotted
from .events import ItemToRun
from .expressions import EvaluationError, Template
from .items import Feed, ItemsState
from .limits import DELAY_MAX_S, ITEMS_MAX
from .plan import ItemsPlan, RetryPlan, SourcePlan, TaskPlan
from .scope import Scope

WAIT: Final = "core.wait"

StatusOf = Callable[[str], str | None]


class RenderError(ValueError):
    """A field of a task has no usable value.

    Attributes:
        field: Which: ``input.url``.
        message: Why.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class RetryState(msgspec.Struct):
    """How often a task may be run again still.

    Attributes:
        left: Times.
        delay_s: Before the next time.
        max_delay_s: To which it grows.
        step_s: By which it grows with ``linear``.
    """

    left: int
    delay_s: float
    max_delay_s: float
    step_s: float


class Rendered(msgspec.Struct):
    """What to do.

    Attributes:
        input: None where the task has none.
        items: None for a task without ``with``.
        wait_for: Name of the signal that the task waits for, None for all other tasks.
    """

    action: str
    input: dict[str, Any] | None
    items: ItemsState | None
    delay_s: float
    timeout_s: float | None
    retry: RetryState | None
    wait_for: str | None = None


def render(task: TaskPlan, context: Context, status_of: StatusOf) -> Rendered:
    """Evaluate all that a start of the task needs.

    Raises:
        RenderError: A field has no usable value.
    """
    scope = Scope(context, status_of=status_of)
    delay_s = 0.0 if task.delay is None else _seconds(task.delay, scope, "delay")
    timeout_s = None if task.timeout is None else _seconds(task.timeout, scope, "timeout")
    retry = None if task.retry is None else _retry(task.retry, scope)
    if task.items is not None:
        items = _items(task, task.items, scope)
        return Rendered("", None, items, delay_s, timeout_s, retry)
    action = _action(task, scope)
    given = _input(task, scope)
    wait_for = _signal_name(given) if action == WAIT else None
    return Rendered(action, given, None, delay_s, timeout_s, retry, wait_for)


def render_given(
    task: TaskPlan, context: Context, status_of: StatusOf, values: list[Any], first: int
) -> list[ItemToRun]:
    """Evaluate what items are to do that a node has given, the first of which has that index.

    Raises:
        RenderError: One has no usable value, or there are too many.
    """
    assert task.items is not None
    if first + len(values) > ITEMS_MAX:
        raise RenderError("with.items", f"more than {ITEMS_MAX} items")
    scope = Scope(context, status_of=status_of)
    return _render_items(task, values, task.items.names, scope, first)


def evaluate(template: Template, scope: Scope, field: str) -> Any:
    """Evaluate a field.

    Raises:
        RenderError: It can't be.
    """
    try:
        return template.evaluate(scope)
    except EvaluationError as error:
        path = dotted((field, *error.path))
        raise RenderError(path, error.message) from error


def retry_delay(retry: RetryState, backoff: str) -> float:
    """Give the seconds before the next attempt, and have the one after it wait longer."""
    delay_s = min(retry.delay_s, retry.max_delay_s)
    if backoff == "exponential":
        retry.delay_s = min(retry.delay_s * 2, DELAY_MAX_S)
    elif backoff == "linear":
        retry.delay_s = min(retry.delay_s + retry.step_s, DELAY_MAX_S)
    return delay_s


def _action(task: TaskPlan | SourcePlan, scope: Scope, field: str = "action") -> str:
    action = evaluate(task.action, scope, field)
    if not isinstance(action, str) or not action:
        raise RenderError(field, f"expected the name of a node, got {action!r:.60}")
    return action


def _input(
    task: TaskPlan | SourcePlan, scope: Scope, field: str = "input"
) -> dict[str, Any] | None:
    given = evaluate(task.input, scope, field)
    if given is not None and not isinstance(given, dict):
        raise RenderError(field, f"expected parameters by name, got {given!r:.60}")
    return given


def _signal_name(given: dict[str, Any] | None) -> str:
    name = (given or {}).get("event")
    if not isinstance(name, str):
        raise RenderError("input.event", f"{WAIT} needs the name of an event, got {name!r:.60}")
    return name


def _items(task: TaskPlan, plan: ItemsPlan, scope: Scope) -> ItemsState:
    feed, source = None, []
    if isinstance(plan.source, SourcePlan):
        action = _action(plan.source, scope, "with.items.action")
        feed = Feed(action, _input(plan.source, scope, "with.items.input"))
    else:
        source = _given_items(plan.source, scope)
    concurrency = _number(plan.concurrency, scope, "with.concurrency", least=1)
    assert concurrency is not None, "the plan has a default"
    batch_size = _number(plan.batch_size, scope, "with.batch_size", least=1)
    todo = _render_items(task, source, plan.names, scope)
    return ItemsState.of(todo, concurrency, batch_size, plan.on_item_error, feed)


def _given_items(template: Template, scope: Scope) -> list[Any]:
    source = evaluate(template, scope, "with.items")
    if not isinstance(source, list):
        raise RenderError("with.items", f"expected a list, got {type(source).__name__}")
    if len(source) > ITEMS_MAX:
        raise RenderError("with.items", f"{len(source)} items, the limit is {ITEMS_MAX}")
    return source


def _render_items(
    task: TaskPlan, source: list[Any], names: Sequence[str], scope: Scope, first: int = 0
) -> list[ItemToRun]:
    """Render all items. One scope serves them all: guarded by ``scripts/bench workflow``."""
    todo: list[ItemToRun] = []
    action: str | None = _action(task, scope) if task.action.constant else None
    if action == WAIT:
        raise RenderError("action", f"{WAIT} waits once: it has no items")
    only = names[0] if len(names) == 1 else None
    for index, item in enumerate(source, first):
        if only is not None:
            scope.item = {only: item}
        elif names:
            scope.item = _by_name(names, item, index)
        else:
            scope.item = item
        scope.index = index
        try:
            todo.append(
                ItemToRun(
                    index,
                    _action(task, scope) if action is None else action,
                    _input(task, scope),
                )
            )
        except RenderError as error:
            raise RenderError(error.field, f"item {index}: {error.message}") from error
    return todo


def _by_name(names: Sequence[str], item: Any, index: int) -> dict[str, Any]:
    if not isinstance(item, list):
        raise RenderError(
            "with.items",
            f"item {index}: expected a list with {', '.join(names)}, got {type(item).__name__}",
        )
    return dict(zip(names, item, strict=False))


def _retry(plan: RetryPlan, scope: Scope) -> RetryState:
    count = _number(plan.count, scope, "retry.count", least=0)
    delay_s = _optional_seconds(plan.delay, scope, "retry.delay", 0.0)
    max_delay_s = _optional_seconds(plan.max_delay, scope, "retry.max_delay", DELAY_MAX_S)
    return RetryState(count or 0, delay_s, max_delay_s, delay_s)


def _number(template: Template, scope: Scope, field: str, *, least: int) -> int | None:
    value = evaluate(template, scope, field)
    if value is not None and (type(value) is not int or value < least):
        raise RenderError(field, f"expected a whole number from {least}, got {value!r:.60}")
    return value


def _optional_seconds(template: Template, scope: Scope, field: str, default: float) -> float:
    if template.constant and template.evaluate(scope) is None:
        return default
    return _seconds(template, scope, field)


def _seconds(template: Template, scope: Scope, field: str) -> float:
    value = evaluate(template, scope, field)
    if type(value) not in (int, float) or not 0 <= value <= DELAY_MAX_S:
        raise RenderError(field, f"expected seconds from 0 to {DELAY_MAX_S:g}, got {value!r:.60}")
    return float(value)
