"""What the names in an expression stand for, at one place of one run.

`Scope` is what a path getter reads and what Jinja2 looks names up in. Functions go before
variables of the same name, which ``ctx('name')`` still reaches.

Mirror: tests/worker/flow/test_scope.py.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any, Final

import msgspec
from jinja2.runtime import Undefined
from jinja2.sandbox import safe_range
from jinja2.utils import missing

from .context import Context
from .measure import check_elements, check_text

ABSENT: Final = object()
"""In a `Scope`: there is none here, such as no result before a task has ended."""

FAILED_STATUSES: Final = frozenset({"failed", "timeout", "abandoned"})


class ScopeError(ValueError):
    """A name is used where it stands for nothing; the message says which."""


class Scope:
    """The values of one place. Cheap to make; fields not given are absent.

    Attributes:
        context: The variables.
        status: Of the task that has ended: succeeded, failed, timeout, abandoned, canceled.
        result: Of that task.
        item: Of a ``with``; a dict by name where its items have names.
        index: Of the item, from 0.
        status_of: Name of a task to its last status on this route; None where it has none.
    """

    __slots__ = ("context", "index", "item", "result", "status", "status_of")

    def __init__(
        self,
        context: Context,
        *,
        status: str | None = None,
        result: Any = ABSENT,
        status_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self.context = context
        self.status = status
        self.result = result
        self.item: Any = ABSENT
        self.index: Any = ABSENT
        self.status_of = status_of

    def lookup(self, name: str) -> Any:
        """Find what a name stands for, as Jinja2 asks for it; its ``missing`` if nothing."""
        function = _FUNCTIONS.get(name)
        if function is not None:
            return function.__get__(self)
        if name == "index" and self.index is not ABSENT:
            return self.index
        plain_function = _PLAIN_FUNCTIONS.get(name)
        if plain_function is not None:
            return plain_function
        return self.context.get(name, missing)

    def ctx(self, name: str | None = None) -> Any:
        """Give all variables, or one of them."""
        if name is None:
            return Variables(self.context)
        value = self.context.get(name, ABSENT)
        if value is ABSENT:
            raise ScopeError(f"there is no variable {name!r}")
        return value

    def result_(self) -> Any:
        """Give the result of the task that has ended."""
        if self.result is ABSENT:
            raise ScopeError("result() is for what follows a task: next and retry")
        return self.result

    def item_(self, name: str | None = None) -> Any:
        """Give the item, or what it has under a name."""
        item = self.item
        if item is ABSENT:
            raise ScopeError("item() is for the action and the input of a task that has 'with'")
        if name is None:
            return item
        if not isinstance(item, Mapping):
            raise ScopeError(f"item({name!r}): the item is {type(item).__name__}, it has no names")
        if name not in item:
            raise ScopeError(f"the item has nothing named {name!r}, it has {', '.join(item)}")
        return item[name]

    def succeeded(self) -> bool:
        """Tell whether the task has succeeded."""
        return self._ended() == "succeeded"

    def failed(self) -> bool:
        """Tell whether the task has failed, in whatever way."""
        return self._ended() in FAILED_STATUSES

    def completed(self) -> bool:
        """Tell that the task has ended."""
        return bool(self._ended())

    def timed_out(self) -> bool:
        """Tell whether the task's time was up."""
        return self._ended() == "timeout"

    def task_status(self, name: str) -> str | None:
        """Give the status of any task."""
        if self.status_of is None:
            raise ScopeError("task_status() is not available here")
        return self.status_of(name)

    def _ended(self) -> str:
        if self.status is None:
            raise ScopeError(
                "succeeded(), failed(), completed() and timed_out() are for what follows a task: "
                "next and retry"
            )
        return self.status


class Variables(Mapping[str, Any]):
    """What ``ctx()`` gives: all variables, not copied."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def __getitem__(self, name: str) -> Any:
        value = self._context.get(name, ABSENT)
        if value is ABSENT:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._context.get(name, ABSENT) is not ABSENT

    def __iter__(self) -> Iterator[str]:
        return iter(self._context.variables())

    def __len__(self) -> int:
        return len(self._context.variables())


def _zip(*lists: Any, pad: Any = None) -> list[Any]:
    """Put lists side by side, the shorter ones filled up; one alone is given as it is."""
    given = [[] if each is None else each for each in lists]
    check_elements(max(map(len, given), default=0) * len(given))
    if len(given) == 1:
        return list(given[0])
    return [list(together) for together in zip_longest(*given, fillvalue=pad)]


def _json(text: Any) -> Any:
    """Read JSON; what was read already, and is a mapping, is given as it is."""
    if isinstance(text, Mapping):
        return text
    if not isinstance(text, str):
        raise ScopeError(f"json() is for text, got {type(text).__name__}")
    check_text(len(text))
    check_elements(sum(map(text.count, ",[{")))
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ScopeError(f"json(): {error}") from error


def _default(value: Any, otherwise: Any = "") -> Any:
    return otherwise if value is None or isinstance(value, Undefined) else value


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "ctx": Scope.ctx,
    "result": Scope.result_,
    "item": Scope.item_,
    "succeeded": Scope.succeeded,
    "failed": Scope.failed,
    "completed": Scope.completed,
    "timed_out": Scope.timed_out,
    "task_status": Scope.task_status,
}
_PLAIN_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "zip": _zip,
    "json": _json,
    "length": len,
    "default": _default,
    "range": safe_range,
}
FUNCTION_NAMES: Final = frozenset({*_FUNCTIONS, *_PLAIN_FUNCTIONS, "index"})
