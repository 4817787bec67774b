"""The actions that every workflow has: nodes of ours, named ``core.…``.

Two are none of these: for ``core.wait`` the conductor itself waits, and ``core.noop`` is nothing to
call, so that it takes any input.

Mirror: tests/worker/flow/test_builtin.py.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from ..dispatch import Entry
from ..node import node


@node
def echo(message: Any = None) -> Any:
    """Give back what it is given."""
    return message


@node
async def sleep(seconds: float) -> None:
    """Wait for some seconds."""
    await asyncio.sleep(max(0.0, seconds))


class FailedOnPurposeError(Exception):
    """What ``core.fail`` raises."""


@node
def fail(message: str = "core.fail") -> None:
    """Fail with a message."""
    raise FailedOnPurposeError(message)


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "core.echo": echo,
    "core.sleep": sleep,
    "core.fail": fail,
}
BUILTIN: Final = {
    name: Entry.of(index, name, function)
    for index, (name, function) in enumerate(_FUNCTIONS.items())
}
"""Name -> entry, beside those of a dispatch table. A user's node of the same name is not found."""
