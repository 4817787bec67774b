"""The `node` decorator: marks a function as one that is served, and changes nothing else.

Marking only writes an attribute on the function. Nothing is registered, imported or checked here,
so that a module of nodes costs no more to import than its own code; signatures are read when a
worker builds its dispatch table, where a definition can be refused without harming its neighbours.

Must not import anything heavy (no asyncio, zmq, msgspec): users' programs import this module.

Mirror: tests/worker/test_node.py.
"""

import re
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, overload

_ATTRIBUTE = "__pronghorn_node__"
_NAME = re.compile(r"[^\W\d][\w-]*")  # no dot: a dot parts the module from the function

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


class NodeDefinitionError(TypeError):
    """A function can't be served as it is defined; the message says where and what to do."""


class NodeSpec(NamedTuple):
    """What the decorator was told about a function.

    Attributes:
        name: The bare name; the full name puts the module before it.
        thread: Whether it runs in the worker's threads instead of on its loop.
    """

    name: str
    thread: bool


@overload
def node(function: AnyFunction, /) -> AnyFunction: ...
@overload
def node(
    *, name: str | None = None, thread: bool = False
) -> Callable[[AnyFunction], AnyFunction]: ...
def node(
    function: AnyFunction | None = None, /, *, name: str | None = None, thread: bool = False
) -> AnyFunction | Callable[[AnyFunction], AnyFunction]:
    """Mark a function as a node and give back the same function.

    Use it bare, ``@node``, or with options, ``@node(name="sum", thread=True)``.

    Args:
        function: A ``def`` or ``async def`` of a module, or a wrapper around one
            (`functools.wraps`, `functools.lru_cache`).
        name: Bare name to be called by, where the function's own won't do.
        thread: Run a ``def`` in a thread of the worker, so that it may wait without holding up the
            worker's loop. A ``def`` without it runs on the loop itself, which is fastest.

    Raises:
        NodeDefinitionError: `function` is no function, or `name` is no name.
    """
    if function is None:
        return lambda function: _mark(function, name, thread)
    return _mark(function, name, thread)


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


def _mark(function: AnyFunction, name: str | None, thread: bool) -> AnyFunction:
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
    setattr(function, _ATTRIBUTE, NodeSpec(bare, thread))
    return function
