"""Makes the code that calls a node with decoded params: compiled once, as if written by hand.

``fn(p.p0, p.p1)`` in a compiled loop costs 20 ns over the call itself; `operator.attrgetter` and
``fn(*values)`` cost 60, ``fn(**values)`` 100. Guarded by `scripts/bench map`.

Mirror: tests/worker/test_invoker.py.
"""

from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Final, NamedTuple

from .signature import Signature

# Frames of this code are left out of tracebacks by their module's name.
_MODULE: Final = f"{__name__}.compiled"

_PLAIN: Final = """\
def invoke(p{ctx}):
    return fn({arguments})

def invoke_items(params, values{ctx}):
    append = values.append
    for p in params:
        append(fn({arguments}))
"""

_AWAITING: Final = """\
async def invoke(p{ctx}):
    result = fn({arguments})
    return await result if isawaitable(result) else result

def invoke_items(params, values{ctx}):
    append = values.append
    for p in params:
        append(invoke(p{ctx}))
"""


class Invoker(NamedTuple):
    """The two ways to call a node, see `Entry.invoke` and `Entry.invoke_items`."""

    invoke: Callable[..., Any]
    invoke_items: Callable[..., None]


def compile_invoker(signature: Signature) -> Invoker:
    """Compile the calls of a node. The source holds only names that Python itself has checked."""
    template = _AWAITING if signature.awaits_wrapped else _PLAIN
    source = template.format(
        arguments=signature.arguments, ctx=", ctx" if signature.takes_context else ""
    )
    names: dict[str, Any] = {
        "__name__": _MODULE,
        "fn": signature.function,
        "isawaitable": isawaitable,
    }
    exec(compile(source, f"<invoker of {signature.name}>", "exec"), names)
    return Invoker(names["invoke"], names["invoke_items"])
