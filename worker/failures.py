"""Turns exceptions into the errors that a caller gets: refused params, raising nodes, odd results.

Every text is bounded and can be encoded, whatever an exception holds. Users' code is run for it
(``__str__``, ``__getattr__``) and may raise anything, `SystemExit` too: nothing of it leaves here.

Mirror: tests/worker/test_failures.py.
"""

import re
import traceback
from collections.abc import Callable
from types import CoroutineType, TracebackType
from typing import Any, Final

import msgspec

from pronghorn.broker.wire.errors import (
    CancelledError,
    ErrorDetails,
    InvalidArgumentError,
    NodeError,
)
from pronghorn.broker.wire.limits import KIB
from pronghorn.broker.wire.values import class_name, unencodable_path

from .signature import Signature

MESSAGE_BYTES_MAX: Final = 8 * KIB
TRACEBACK_BYTES_MAX: Final = 32 * KIB
"""A stack that is deeper has its beginning and its end, which tell most."""

_NAMES_SHOWN_MAX: Final = 20
_NAME_BYTES_MAX: Final = 256

# Frames that stand between the worker's loop, or its loader, and users' code.
_MACHINERY: Final = (
    *("pronghorn.", "asyncio.", "uvloop.", "concurrent.futures.", "threading", "importlib."),
)

# msgspec's messages about the params themselves; those about a value inside have a path at the end.
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_COUNT: Final = re.compile(r"Expected `array` of length [\d to]+(, got \d+)?")
_FORM: Final = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_PATH: Final = re.compile(r" - at `(\$[^`]*)`$")
_POSITION: Final = re.compile(r"\$\[(\d+)\]")


def refusal(
    error: BaseException, signature: Signature, *, of_items: bool = False
) -> InvalidArgumentError:
    """Explain why params, or an array of params, can't be decoded.

    The message names the node and the field, such as ``nodes.add: Expected `int`, got `str` - at
    `$.a```; `details.field` is the JSONPath alone. `details.exception` tells what is no
    `Exception`: it may have come from outside, as Ctrl-C does.
    """
    text = bounded(message_of(error), MESSAGE_BYTES_MAX) or type(error).__name__
    field: str | None = None
    if isinstance(error, msgspec.ValidationError):
        text, field = _explain_items(text) if of_items else _explain(text, signature)
    elif isinstance(error, RecursionError):
        text = "the params are nested too deeply"
    elif isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        text = f"the params can't be decoded: {text}"
    elif not isinstance(error, ValueError):  # raised by the code of a user's type
        text = f"the params can't be decoded: {_type_name(error)}: {text}"
    return InvalidArgumentError(
        f"{signature.name}: {text}",
        ErrorDetails(
            outcome="not_started", node=signature.name, field=field, exception=_interrupt(error)
        ),
    )


def node_error(
    error: BaseException, *, node: str, retry_on: tuple[type[Exception], ...] = ()
) -> NodeError:
    """Make the error that a caller gets for an exception a node raised, of whatever class it is.

    The traceback begins in the user's code. Exceptions of `retry_on` are marked as such that
    another run may spare.
    """
    message, exception = message_of(error), _type_name(error)
    if isinstance(error, NodeError):  # of a node that it has called: told once, however deep
        message, exception = error.message, error.details.exception or exception
    return NodeError(
        bounded(message, MESSAGE_BYTES_MAX),
        ErrorDetails(
            outcome="executed",
            node=node,
            exception=bounded(exception, _NAME_BYTES_MAX),
            traceback=bounded(format_traceback(error), TRACEBACK_BYTES_MAX),
            retryable=True if isinstance(error, retry_on) else None,
        ),
    )


def cancelled(node: str) -> CancelledError:
    """Make the error of a node that was cancelled while it ran."""
    details = ErrorDetails(outcome="maybe_executed", node=node)
    return CancelledError(f"{node}: the call was cancelled", details)


def result_error(
    error: BaseException,
    *,
    value: Any,
    node: str,
    encode: Callable[[Any], bytes],
    verb: str = "returned",
) -> NodeError:
    """Make the error for a result or part that can't be encoded; says where in it the trouble is.

    `details.exception` as in `refusal`.
    """
    reason = bounded(message_of(error), _NAME_BYTES_MAX) or type(error).__name__
    if isinstance(error, RecursionError):
        reason = "it contains itself, or is nested too deeply"
    elif hasattr(type(value), "__await__"):
        reason = f"{reason}: nothing awaited it: is the node to be an async def?"
        if isinstance(value, CoroutineType):
            value.close()  # or Python warns that it was never awaited
    path = _unencodable_path(value, encode)
    at = f" - at `{path}`" if path != "$" and not isinstance(error, RecursionError) else ""
    return NodeError(
        f"{node} {verb} a `{class_name(type(value))}` that can't be encoded: {reason}{at}",
        ErrorDetails(outcome="executed", node=node, exception=_interrupt(error)),
    )


def format_traceback(error: BaseException) -> str:
    """Format an exception with its causes, without the frames that led to the user's code."""
    try:
        lines = traceback.format_exception(type(error), error, users_traceback(error))
    except BaseException:  # formatting runs __str__, __notes__ and loaders of the user's
        return f"{_type_name(error)}: (its traceback can't be formatted)"
    return "".join(lines)


def users_traceback(error: BaseException) -> TracebackType | None:
    """Drop the frames in front that are not the user's; all of them when none is."""
    place = error.__traceback__
    while place is not None:
        module = place.tb_frame.f_globals.get("__name__", "")
        if not (isinstance(module, str) and module.startswith(_MACHINERY)):
            return place
        place = place.tb_next
    return None


def message_of(error: BaseException) -> str:
    """Give an exception's own text, whatever its ``__str__`` does."""
    try:
        return str(error)
    except BaseException as broken:  # the user's own __str__
        return f"(its __str__ raised {_type_name(broken)})"


def bounded(text: str, bytes_max: int) -> str:
    """Cut the middle out of a text that is too long, and escape what UTF-8 can't hold."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    half = bytes_max // 2 - 32
    head = encoded[:half].decode(errors="ignore")
    tail = encoded[-half:].decode(errors="ignore")
    return f"{head}\n... {len(encoded) - 2 * half} bytes cut ...\n{tail}"


def _explain_items(text: str) -> tuple[str, str | None]:
    match = _PATH.search(text)
    return f"items: {text}", match[1] if match else "$"


def _explain(text: str, signature: Signature) -> tuple[str, str | None]:
    """Say msgspec's message in the words of the signature; give the path it is about."""
    if match := _MISSING.fullmatch(text):
        return f"missing required parameter `{match[1]}`", f"$.{match[1]}"
    if match := _UNKNOWN.fullmatch(text):
        name = bounded(match[1], _NAME_BYTES_MAX)
        accepted = _listed([each.name for each in signature.parameters])
        return f"unknown parameter `{name}`: it takes {accepted}", f"$.{name}"
    if match := _COUNT.fullmatch(text):
        taken = [each.name for each in signature.by_position]
        return f"takes {_counted(signature)} by position ({_listed(taken)}){match[1] or ''}", "$"
    if match := _FORM.fullmatch(text):
        return _explain_form(match[2], signature), "$"
    if not (match := _PATH.search(text)):
        return text, None
    if position := _POSITION.match(match[1]):
        text = f"{text} (parameter `{signature.by_position[int(position[1])].name}`)"
    return text, match[1]


def _explain_form(got: str, signature: Signature) -> str:
    keyword_only = [each.name for each in signature.parameters if not each.by_position]
    if got == "array" and keyword_only:
        return f"params must be given by name, as a map: {_listed(keyword_only)} is keyword-only"
    return f"params must be a map (by name), an array (by position) or nil, got `{got}`"


def _counted(signature: Signature) -> str:
    most = len(signature.by_position)
    least = sum(each.required for each in signature.by_position)
    return f"{most}" if least == most else f"{least} to {most}"


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(f"`{name}`" for name in names[:_NAMES_SHOWN_MAX])
    return shown if len(names) <= _NAMES_SHOWN_MAX else f"{shown}, ... ({len(names)} in all)"


def _unencodable_path(value: Any, encode: Callable[[Any], bytes]) -> str:
    try:
        return bounded(unencodable_path(value, encode), _NAME_BYTES_MAX)
    except BaseException:  # it looks into the value, by what code the user has given it
        return "$"


def _interrupt(error: BaseException) -> str | None:
    """Name what is no `Exception`."""
    return None if isinstance(error, Exception) else bounded(_type_name(error), _NAME_BYTES_MAX)


def _type_name(error: BaseException) -> str:
    return class_name(type(error))
