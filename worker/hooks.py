"""The `on_start` and `on_stop` decorators: what a worker does before its first call and at its end.

As with `node`, marking only writes an attribute. A worker runs the marked functions that it finds
in the modules it serves, those included that a module has imported by name from elsewhere.

Must not import anything heavy (no asyncio, zmq, msgspec): users' programs import this module.

Mirror: tests/worker/test_hooks.py.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal, TypeVar

from .node import NodeDefinitionError, innermost

When = Literal["start", "stop"]

AnyHook = TypeVar("AnyHook", bound=Callable[[], Any])

_GENERATOR_FLAGS = 0x20 | 0x200  # CO_GENERATOR and CO_ASYNC_GENERATOR of inspect, which is heavy


def on_start(function: AnyHook, /) -> AnyHook:
    """Mark a function to be run once in each worker before its first call, and give it back.

    Here belongs what every worker needs of its own: connections, a model, a seed. Start hooks run
    in the order of the modules that are served, and within one in that of their definition. A
    ``def`` runs as in a script (it may use `asyncio.run`), an ``async def`` on the loop that the
    worker's async nodes run on. What it returns is dropped. When it raises, the worker does not
    serve: it ends, and is started again after a while.

    Args:
        function: A ``def`` or ``async def`` that can be called without arguments.

    Raises:
        NodeDefinitionError: It is none.
    """
    return _mark(function, "start")


def on_stop(function: AnyHook, /) -> AnyHook:
    """Mark a function to be run once in each worker at its orderly end, and give it back.

    Stop hooks run in the reverse order of start hooks, after the last call. All of them together
    have a few seconds (`lifecycle.STOP_S`); what takes longer is broken off. One that raises is
    logged, and the next one runs. None is run when a worker is killed or crashes, nor when a start
    hook has failed.

    Args:
        function: As for `on_start`.

    Raises:
        NodeDefinitionError: It is none.
    """
    return _mark(function, "stop")


def is_hook(candidate: object, when: When) -> bool:
    """Tell whether a function was marked; anything else was not."""
    try:  # without running code of the candidate's own, as in `node.spec_of`
        return object.__getattribute__(candidate, _attribute(when)) is True
    except AttributeError:
        return False


def _attribute(when: When) -> str:
    return f"__pronghorn_on_{when}__"


def _mark(function: AnyHook, when: When) -> AnyHook:
    core = innermost(function)
    if not isinstance(function, FunctionType) or not isinstance(core, FunctionType):
        raise NodeDefinitionError(
            f"@on_{when} marks functions, and {function!r} is none: write a def or async def"
        )
    place = f"{core.__code__.co_filename}:{core.__code__.co_firstlineno}"
    name = f"hook {core.__module__}.{core.__qualname__} ({place})"
    if core.__code__.co_flags & _GENERATOR_FLAGS:
        raise NodeDefinitionError(f"{name}: it has a yield: write a start hook and a stop hook")
    if missing := _required(core):
        raise NodeDefinitionError(f"{name}: hooks are called without arguments: drop {missing}")
    setattr(function, _attribute(when), True)
    return function


def _required(function: FunctionType) -> str:
    """List the parameters without a default, by name."""
    code = function.__code__
    by_position = code.co_argcount - len(function.__defaults__ or ())
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    defaults = function.__kwdefaults__ or {}
    required = [*code.co_varnames[:by_position]]
    required += [name for name in keyword_only if name not in defaults]
    return ", ".join(required)
