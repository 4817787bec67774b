"""From what a program passes to `call` to a node's name, its params and the type of its result.

Mirror: tests/client/test_invocation.py.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, get_type_hints

import msgspec

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    DeadlineExceededError,
    ErrorDetails,
    InvalidArgumentError,
    PronghornError,
    ProtocolError,
    error_from_wire,
)
from pronghorn.broker.wire.limits import TIMEOUT_MS_MAX
from pronghorn.broker.wire.link import Buffer
from pronghorn.broker.wire.messages import Error, Result
from pronghorn.broker.wire.values import (
    collected_type,
    decode_value,
    encode_params,
    foreign_types,
    part_type,
)

from .inbox import OnEvent
from .stopwatch import Extras, with_options

Params = tuple[bytes, Sequence[Buffer]]
"""Encoded params and their buffers."""

NodeLike = str | Callable[..., Any]

LIST_NODES = "pronghorn.nodes"

REPEATS_MAX = 3
"""How often a call is made again whose broker was lost."""

_CONTEXT = "pronghorn.worker.context.Context"


class Target(NamedTuple):
    """A node as a caller names it, and the types its results and parts are decoded to.

    Of a node given by its function `signature` is what a caller may give it, no injected context,
    and `may_repeat` whether it says that a second run does no harm (``@node(retry=...)``).
    """

    name: str
    result_type: Any
    signature: inspect.Signature | None
    may_repeat: bool = False
    part_type: Any = Any


def target_of(node: NodeLike) -> Target:
    """Find the name of a node given by name or as the decorated function.

    Raises:
        InvalidArgumentError: It is neither, or a name that is no text.
    """
    try:
        return _target(node)
    except TypeError:  # not hashable
        raise _no_node(node) from None


@lru_cache(maxsize=1024)
def _target(node: NodeLike) -> Target:
    if not isinstance(node, str):
        return _target_of_function(node)
    try:
        node.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"{node!r} is no node's name: {error}") from error
    return Target(node, Any, None)


def _target_of_function(function: Callable[..., Any]) -> Target:
    spec = getattr(function, "__pronghorn_node__", None)
    if spec is None:
        raise _no_node(function)
    module = function.__module__
    if module == "__main__":  # served under its file's name
        file = getattr(sys.modules["__main__"], "__file__", None)
        module = Path(file).stem if file else module
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    result_type = hints.get("return", Any)
    parts = Any
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        parts, result_type = part_type(result_type), collected_type(result_type)
        parts = parts if _can_decode(parts) else Any
    if result_type is not Any and not _can_decode(result_type):
        result_type = Any
    signature = _signature(function, hints)
    return Target(f"{module}.{spec.name}", result_type, signature, spec.retry is not None, parts)


def _no_node(node: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{node!r} is not a node: mark it with @node and serve its module, or give a name"
    )


def _signature(function: Callable[..., Any], hints: Mapping[str, Any]) -> inspect.Signature:
    signature = inspect.signature(function)
    given = [
        parameter
        for name, parameter in signature.parameters.items()
        if _full_name(hints.get(name)) != _CONTEXT
    ]
    return signature.replace(parameters=given)


def _full_name(annotation: object) -> str:
    module = getattr(annotation, "__module__", "")
    return f"{module}.{getattr(annotation, '__qualname__', '')}"


def _can_decode(annotation: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(annotation)
        return not any(foreign_types(annotation))
    except Exception:  # TypeError from msgspec; resolving a user's class may raise anything
        return False


def take_options(
    target: Target, named: dict[str, Any], timeout_s: float | None
) -> tuple[float | None, Mapping[str, Any] | None]:
    """Take the call's options, ``timeout_s`` and ``params``, out of its named arguments.

    What the function itself has a parameter for, if it is known, is for that.

    Args:
        target: The node.
        named: The arguments.
        timeout_s: The timeout if none is among them.
    """
    params = None
    if "timeout_s" in named or "params" in named:
        own = () if target.signature is None else target.signature.parameters
        if "timeout_s" not in own:
            timeout_s = named.pop("timeout_s", timeout_s)
        if "params" not in own:
            params = named.pop("params", None)
    return timeout_s, params


def take_recording(
    target: Target, named: dict[str, Any], extras: Extras | None, *, starts: bool = False
) -> Extras | None:
    """Take ``durability``, and ``key`` beside it, out of a call's named arguments.

    Many nodes have a parameter ``key``, so that is an option only where ``durability`` is given,
    too, or where a run is started. What the function itself has a parameter for is for that.

    Args:
        target: The node.
        named: The arguments.
        extras: Of the client.
        starts: Whether a run is started.

    Raises:
        InvalidArgumentError: One makes no sense.
    """
    own = () if target.signature is None else target.signature.parameters
    changes: dict[str, Any] = {}
    if "durability" in named and "durability" not in own:
        changes["durability"] = named.pop("durability")
    if "key" in named and "key" not in own and (changes or starts):
        changes["key"] = named.pop("key")
    return with_options(extras, **changes)


def take_on_event(target: Target, named: dict[str, Any]) -> OnEvent | None:
    """Take the option ``on_event`` out of a call's named arguments, as `take_options` does others.

    Raises:
        InvalidArgumentError: It can't be called.
    """
    if "on_event" not in named:
        return None
    if target.signature is not None and "on_event" in target.signature.parameters:
        return None
    on_event: OnEvent | None = named.pop("on_event")
    if on_event is not None and not callable(on_event):
        raise InvalidArgumentError(f"on_event is {on_event!r}; give a function of one argument")
    return on_event


def encode_arguments(
    target: Target,
    arguments: Sequence[Any],
    named: Mapping[str, Any],
    params: Mapping[str, Any] | None,
) -> Params:
    """Encode the arguments of a call: all by position or all by name.

    With a function the two may be mixed, for then the names of its parameters are known.

    Raises:
        InvalidArgumentError: They are mixed for a node known by name only, or can't be encoded.
    """
    if params is not None:
        if arguments or named:
            raise InvalidArgumentError("give params=… or arguments, not both")
        named = params
    elif arguments and named:
        if target.signature is None:
            raise InvalidArgumentError(
                f"{target.name}: give all arguments by position or all by name; only a call by "
                "function object may mix them"
            )
        return _encode(target, _bound(target, arguments, named))
    return _encode(target, arguments if arguments else named)


def check_arguments(target: Target, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Refuse arguments that the function's signature does not take, if it is known.

    Raises:
        TypeError: As calling the function itself would.
    """
    if target.signature is not None:
        target.signature.bind(*arguments, **named)


def result_of(target: Target, reply: object, buffers: Sequence[bytes]) -> Any:
    """Decode the value of a reply, or raise the error that it is.

    Raises:
        PronghornError: The reply is an error, or can't be decoded.
    """
    if isinstance(reply, Result):
        return decode_value(reply.value, buffers, target.result_type)
    if isinstance(reply, Error):
        raise error_of(reply)
    raise ProtocolError(f"{target.name}: unexpected reply {type(reply).__name__}")


def is_worth_repeating(target: Target, reply: object, extras: Extras | None = None) -> bool:
    """Whether a call that ended so is made again: its broker was lost, and that does no harm.

    With a key it does none; a run that is started without one may be another then.
    """
    if type(reply) is not Error or reply.code != BrokerLostError.code:
        return False
    outcome = reply.details.outcome
    may_repeat = target.may_repeat
    if extras is not None and (extras.starts or extras.key is not None):
        may_repeat = extras.key is not None
    return outcome == "not_started" or (may_repeat and outcome == "maybe_executed")


def chosen_by_broker(target: Target) -> InvalidArgumentError:
    """Make the error for a recorded map that is given the size of its chunks."""
    return InvalidArgumentError(
        f"{target.name}: the broker chooses the chunks of a recorded map: leave out chunk_size"
    )


def check_pong(reply: object) -> None:
    """Raise the error that a reply to a ping is, if it is one."""
    if isinstance(reply, Error):
        raise error_of(reply)


def refused(error: PronghornError) -> Error:
    """Make the reply to a request that was refused before it was sent."""
    return Error(None, error.code, error.message, error.details)


def error_of(reply: Error) -> PronghornError:
    """Make the exception for an error reply."""
    return error_from_wire(reply.code, reply.message, reply.details)


def left_of(timeout_ms: float | None, begun: float, *, again: bool = False) -> float | None:
    """Tell how much of a timeout is left for a call that is about to be sent.

    Args:
        timeout_ms: The timeout of the call, milliseconds.
        begun: When it was made, `time.monotonic`.
        again: Whether it was sent before, and is worth another attempt.

    Raises:
        DeadlineExceededError: Nothing is.
    """
    if timeout_ms is None:
        return None
    left_ms = timeout_ms - (monotonic() - begun) * 1000
    if left_ms <= 0:
        raise DeadlineExceededError(
            f"the deadline has passed before the call could be sent{' again' if again else ''}",
            ErrorDetails(outcome="maybe_executed" if again else "not_started"),
        )
    return left_ms


def timeout_ms_of(timeout_s: float | None) -> float | None:
    """Turn a timeout into the header field.

    Raises:
        InvalidArgumentError: It is not above 0, or beyond what the protocol allows.
    """
    if timeout_s is None:
        return None
    timeout_ms = timeout_s * 1000
    if not 0 < timeout_ms <= TIMEOUT_MS_MAX:
        raise InvalidArgumentError(
            f"timeout_s is {timeout_s}; it must be above 0 and at most "
            f"{TIMEOUT_MS_MAX / 1000:.0f}, or None"
        )
    return timeout_ms


def _bound(target: Target, arguments: Sequence[Any], named: Mapping[str, Any]) -> Mapping[str, Any]:
    assert target.signature is not None
    try:
        return target.signature.bind_partial(*arguments, **named).arguments
    except TypeError as error:
        raise InvalidArgumentError(f"{target.name}: {error}") from error


def _encode(target: Target, values: Mapping[str, Any] | Sequence[Any]) -> Params:
    try:
        return encode_params(values)
    except (TypeError, *DECODE_ERRORS) as error:
        raise InvalidArgumentError(f"{target.name}: can't encode the arguments: {error}") from error
