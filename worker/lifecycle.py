"""Runs the hooks of a worker, or of the pool that is one: at its start, and at its end in bounds.

Mirror: tests/worker/test_lifecycle.py.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from time import monotonic
from typing import Any, Final, NamedTuple

from .loops import outside_loop

_log = logging.getLogger(__name__)

STOP_S: Final = 5.0
"""Seconds that all stop hooks of a worker have together."""

Hook = Callable[[], Any]

RunCoroutine = Callable[[Coroutine[Any, Any, None]], object]
"""Runs a coroutine to its end on the loop of async nodes, and raises what it raises."""


class Hooks(NamedTuple):
    """The hooks of the modules that are served, in the order of modules and definitions."""

    start: tuple[Hook, ...] = ()
    stop: tuple[Hook, ...] = ()


class StartHookError(Exception):
    """A start hook, called `name`, has raised `error`."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(f"start hook {name} failed")
        self.name = name
        self.error = error


def run_start_hooks(hooks: Hooks, run: RunCoroutine) -> bool:
    """Run the start hooks, up to the first that fails.

    Returns:
        Whether coroutines were run, so that there may be more of theirs on the loop from now on.

    Raises:
        StartHookError: One has raised.
    """
    awaited = False
    for hook in hooks.start:
        try:
            result = outside_loop(hook)
            if isawaitable(result):
                awaited = True
                run(_finished(result))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise StartHookError(_name(hook), error) from error
    return awaited


def run_stop_hooks(hooks: Hooks, run: RunCoroutine, *, seconds: float = STOP_S) -> None:
    """Run the stop hooks, last one first; log those that fail.

    An ``async def`` that does not end in time is cancelled and left alone. A ``def`` can't be
    stopped; those behind one that took all of the time are left out.

    Args:
        hooks: All hooks.
        run: See `RunCoroutine`.
        seconds: What they have together.
    """
    due = monotonic() + seconds
    for hook in reversed(hooks.stop):
        left_s = due - monotonic()
        if left_s <= 0:
            _log.warning("stop hook %s is left out: %g s are up", _name(hook), seconds)
            continue
        try:
            result = outside_loop(hook)
            if isawaitable(result):
                run(_ended_within(result, left_s, _name(hook)))
        except KeyboardInterrupt:
            raise
        except BaseException:
            _log.exception("stop hook %s failed", _name(hook))


async def _finished(result: Awaitable[Any]) -> None:
    await result


async def _ended_within(result: Awaitable[Any], seconds: float, name: str) -> None:
    task = asyncio.ensure_future(result)
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        task.result()
        return
    task.cancel()
    _log.warning("stop hook %s is broken off: it did not end within %.3g s", name, seconds)


def _name(hook: Hook) -> str:
    return f"{hook.__module__}.{hook.__qualname__}"
