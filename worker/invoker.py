"""Makes the code that calls a node with decoded params: compiled once, as if written by hand.

``fn(p.p0, p.p1)`` in a compiled loop costs 20 ns over the call itself; `operator.attrgetter` and
``fn(*values)`` cost 60, ``fn(**values)`` 100. To keep each item's result where it survives the
worker costs 130 ns more than to encode them all at the end. Guarded by `scripts/bench map`.

Mirror: tests/worker/test_invoker.py.
"""

from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Final, NamedTuple

from pronghorn.broker.wire.items import ITEM

from .signature import Signature

# Frames of this code are left out of tracebacks by their module's name.
_MODULE: Final = f"{__name__}.compiled"

_PLAIN: Final = """\
def invoke(p{ctx}):
    return fn({arguments})
"""

_AWAITING: Final = """\
async def invoke(p{ctx}):
    result = fn({arguments})
    return await result if isawaitable(result) else result
"""

# Each result is in the area before the mark counts it; see wire/items.py.
_ITEMS: Final = """\
def invoke_items(params, results{ctx}):
    area, words, word = results.area, results.words, results.word
    encode, limit = results.encode, results.limit
    mark = words[word]
    position = mark % ITEM
    for p in params:
        value = fn({arguments})
        try:
            body = encode(value)
        except BaseException as error:
            results.refuse(value, error)
            mark = words[word]
            position = mark % ITEM
            continue
        size = len(body)
        end = position + size
        if end > limit:
            results.put_last(body)
            return
        area[position:end] = body
        position = end
        mark += ITEM + size
        words[word] = mark
"""


class Invoker(NamedTuple):
    """The two ways to call a node, see `Entry.invoke` and `Entry.invoke_items`."""

    invoke: Callable[..., Any]
    invoke_items: Callable[..., None]


def compile_invoker(signature: Signature) -> Invoker:
    """Compile the calls of a node. The source holds only names that Python itself has checked."""
    template = (_AWAITING if signature.awaits_wrapped else _PLAIN) + _ITEMS
    source = template.format(
        arguments=signature.arguments, ctx=", ctx" if signature.takes_context else ""
    )
    names: dict[str, Any] = {
        "__name__": _MODULE,
        "ITEM": ITEM,
        "fn": signature.function,
        "isawaitable": isawaitable,
    }
    exec(compile(source, f"<invoker of {signature.name}>", "exec"), names)
    return Invoker(names["invoke"], names["invoke_items"])
