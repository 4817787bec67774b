"""The `node` decorator: marks a function as one that is served, and changes nothing else.

Marking only writes an attribute on the function. Nothing is registered, imported or checked here,
so that a module of nodes costs no more to import than its own code; signatures are read when a
worker builds its dispatch table, where a definition can be refused without harming its neighbours.

Must not import anything heavy (no asyncio, zmq, msgspec): users' programs import this module.

Mirror: tests/worker/test_node.py.
"""

import re
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any, Literal, NamedTuple, TypeVar, overload

_ATTRIBUTE = "__pronghorn_node__"
_LABEL = re.compile(r"[\w.-]{1,64}")
_NAME = re.compile(r"[^\W\d][\w-]*")  # no dot: a dot parts the module from the function

_ATTEMPTS_MAX = 100
_BACKOFF_MAX_S = 3600.0

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


class NodeDefinitionError(TypeError):
    """A function can't be served as it is defined; the message says where and what to do."""


class Retry(NamedTuple):
    """Lets a node be tried again, which it says is safe: a second run does no harm.

    It is tried again when its worker has died, and when it has raised one of `on`; not after its
    caller's deadline, and not more often than a budget allows: in the long run one retry for five
    calls that end well. The items of a map are tried again only when their worker has died, all of
    a chunk together; a call that runs within its caller (see `Context.call`), and any in a
    `LocalPool`, not at all.

    Attributes:
        attempts: Runs in all, 2 to 100.
        backoff_s: Delay before the second run, seconds; it doubles with each.
        backoff_max_s: Longest delay.
        on: Exceptions that another run may spare, such as `ConnectionError`.
    """

    attempts: int = 3
    backoff_s: float = 0.05
    backoff_max_s: float = 5.0
    on: tuple[type[Exception], ...] = ()


class NodeSpec(NamedTuple):
    """What the decorator was told about a function.

    Attributes:
        name: The bare name; the full name puts the module before it.
        thread: Whether it runs in the worker's threads instead of on its loop.
        retry: How it is tried again, if it is.
        max_concurrency: Most of its requests that run at once.
        rate: Most of its requests that begin in a second, in the long run.
        labels: What a worker must have to run it.
        durability: That of calls which don't say one.
        at_most_once: Whether a recorded run of it is never begun twice.
    """

    name: str
    thread: bool
    retry: Retry | None = None
    max_concurrency: int | None = None
    rate: float | None = None
    labels: tuple[str, ...] = ()
    durability: Literal["batched", "sync"] | None = None
    at_most_once: bool = False


@overload
def node(function: AnyFunction, /) -> AnyFunction: ...
@overload
def node(
    *,
    name: str | None = None,
    thread: bool = False,
    retry: Retry | None = None,
    max_concurrency: int | None = None,
    rate: float | None = None,
    labels: Collection[str] = (),
    durability: Literal["batched", "sync"] | None = None,
    at_most_once: bool = False,
) -> Callable[[AnyFunction], AnyFunction]: ...
def node(
    function: AnyFunction | None = None,
    /,
    *,
    name: str | None = None,
    thread: bool = False,
    retry: Retry | None = None,
    max_concurrency: int | None = None,
    rate: float | None = None,
    labels: Collection[str] = (),
    durability: Literal["batched", "sync"] | None = None,
    at_most_once: bool = False,
) -> AnyFunction | Callable[[AnyFunction], AnyFunction]:
    """Mark a function as a node and give back the same function.

    Use it bare, ``@node``, or with options, ``@node(name="sum", thread=True)``.

    Args:
        function: A ``def`` or ``async def`` of a module, or a wrapper around one
            (`functools.wraps`, `functools.lru_cache`).
        name: Bare name to be called by, where the function's own won't do.
        thread: Run a ``def`` in a thread of the worker, so that it may wait without holding up the
            worker's loop. A ``def`` without it runs in the loop's thread, which is fastest. Either
            way it sees no running loop, as in a script, and may use `asyncio.run`.
        retry: Try it again when its worker has died; see `Retry`.
        max_concurrency: Run at most so many of its requests at once, on all workers together; the
            others wait and keep nobody else from a worker. The items of a map count as one where
            they run one after the other. Calls that nodes make are counted, and never wait for it.
        rate: Begin at most so many of its requests in a second, items of maps counted singly; after
            a pause up to a tenth of a second's worth at once.
        labels: Run it only in workers that have these, see ``Pool(labels=...)``.
        durability: Record calls that don't say otherwise in the broker's journal, as if they had
            said ``batched`` or ``sync`` (`Client.within`); not maps, nor calls whose parts are
            taken. Such a pool needs a journal.
        at_most_once: Never begin a recorded run of it, one that was started or has a key, a second
            time: what a crash has cut off ends as ``interrupted`` instead of running again.

    Raises:
        NodeDefinitionError: `function` is no function, `name` is no name, or one of the others
            makes no sense.
    """

    def mark(function: AnyFunction) -> AnyFunction:
        return _mark(
            function,
            name,
            thread,
            retry,
            max_concurrency,
            rate,
            labels,
            durability,
            at_most_once,
        )

    return mark if function is None else mark(function)


def spec_of(candidate: object) -> NodeSpec | None:
    """Give the `NodeSpec` of a marked function, `None` for anything else."""
    # Read without running code of the candidate's own: any object of a module comes through here,
    # and a mock or a lazy proxy answers to every name.
    try:
        spec = object.__getattribute__(candidate, _ATTRIBUTE)
    except AttributeError:
        return None
    return spec if isinstance(spec, NodeSpec) else None


def innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Follow `__wrapped__` from a wrapper to the function that the user wrote."""
    seen = {id(function)}
    while (wrapped := getattr(function, "__wrapped__", None)) is not None:
        if id(wrapped) in seen:
            break
        seen.add(id(wrapped))
        function = wrapped
    return function


def _mark(
    function: AnyFunction,
    name: str | None,
    thread: bool,
    retry: Retry | None,
    max_concurrency: int | None,
    rate: float | None,
    labels: Collection[str],
    durability: Literal["batched", "sync"] | None,
    at_most_once: bool,
) -> AnyFunction:
    of_a_class = isinstance(function, type | staticmethod | classmethod)
    if of_a_class or not isinstance(innermost(function), FunctionType):
        raise NodeDefinitionError(
            f"@node marks functions, and {function!r} is none: write a def or async def in a module"
        )
    bare = innermost(function).__name__ if name is None else name
    if not _NAME.fullmatch(bare):
        raise NodeDefinitionError(
            f"{bare!r} can't be a node's name: give one of letters, digits, _ and -, "
            'as in @node(name="double")'
        )
    if retry is not None:
        _check_retry(bare, retry)
    _check_limits(bare, max_concurrency, rate)
    _check_labels(bare, labels)
    _check_recording(bare, durability, at_most_once, retry)
    needs = tuple(sorted(set(labels)))
    spec = NodeSpec(bare, thread, retry, max_concurrency, rate, needs, durability, at_most_once)
    setattr(function, _ATTRIBUTE, spec)
    return function


def _check_limits(name: str, max_concurrency: int | None, rate: float | None) -> None:
    is_count = type(max_concurrency) is int and max_concurrency >= 1
    if max_concurrency is not None and not is_count:
        raise NodeDefinitionError(
            f"{name}: max_concurrency is {max_concurrency!r}; give a number of requests, at least 1"
        )
    is_rate = isinstance(rate, int | float) and 0 < rate < float("inf")
    if rate is not None and not is_rate:
        raise NodeDefinitionError(
            f"{name}: rate is {rate!r}; give requests per second, a number above 0"
        )


def _check_labels(name: str, labels: Collection[str]) -> None:
    given = [] if isinstance(labels, str) else list(labels)
    if isinstance(labels, str) or not all(
        isinstance(label, str) and _LABEL.fullmatch(label) and not label.startswith("pronghorn.")
        for label in given
    ):
        raise NodeDefinitionError(
            f'{name}: labels is {labels!r}; give a list of words, as in labels=["gpu"]'
        )


def _check_recording(
    name: str, durability: str | None, at_most_once: bool, retry: Retry | None
) -> None:
    if durability not in (None, "batched", "sync"):
        raise NodeDefinitionError(
            f'{name}: durability is {durability!r}; give "batched" or "sync", or leave it out'
        )
    if type(at_most_once) is not bool:
        raise NodeDefinitionError(f"{name}: at_most_once is {at_most_once!r}; give True or False")
    if at_most_once and retry is not None:
        raise NodeDefinitionError(
            f"{name}: a node that may be retried runs more than once: give retry or at_most_once"
        )


def _check_retry(name: str, retry: Retry) -> None:
    if not isinstance(retry, Retry):
        raise NodeDefinitionError(f"{name}: retry is {retry!r}, give retry=Retry(...)")
    if not (isinstance(retry.attempts, int) and 2 <= retry.attempts <= _ATTEMPTS_MAX):
        raise NodeDefinitionError(
            f"{name}: retry.attempts is {retry.attempts!r}; it counts all runs, 2 to "
            f"{_ATTEMPTS_MAX}"
        )
    delays = (retry.backoff_s, retry.backoff_max_s)
    are_numbers = all(isinstance(one, int | float) for one in delays)
    if not (are_numbers and 0 <= retry.backoff_s <= retry.backoff_max_s <= _BACKOFF_MAX_S):
        raise NodeDefinitionError(
            f"{name}: retry.backoff_s is {retry.backoff_s!r}, backoff_max_s "
            f"{retry.backoff_max_s!r}; 0 <= backoff_s <= backoff_max_s <= {_BACKOFF_MAX_S}"
        )
    if not (isinstance(retry.on, tuple) and all(map(_is_exception, retry.on))):
        raise NodeDefinitionError(f"{name}: retry.on is {retry.on!r}, a tuple of exception classes")


def _is_exception(candidate: object) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, Exception)
