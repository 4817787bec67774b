"""Reads a node's signature once: its parameters with their types and defaults, or why it can't be.

Knows Python's and msgspec's types and nothing of bytes. A definition that can't be served is
refused here, with a message that says where it stands and what to do.

Mirror: tests/worker/test_signature.py.
"""

import inspect
import re
from collections.abc import Callable
from copy import deepcopy
from types import FunctionType, NoneType, SimpleNamespace
from typing import Any, Final, Literal, get_type_hints

import msgspec

from pronghorn.broker.wire.limits import NODE_NAME_BYTES_MAX
from pronghorn.broker.wire.table import NodeKind
from pronghorn.broker.wire.values import class_name, collected_type, foreign_types

from .context import Context
from .node import NodeDefinitionError, NodeSpec, Retry, innermost, spec_of

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_DEFAULT_TEXT_MAX: Final = 80

EMPTY: Final = inspect.Parameter.empty
"""Stands where there is no default or no return annotation, as in `inspect`."""

POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Parameter(msgspec.Struct, frozen=True):
    """One parameter that a caller gives.

    Attributes:
        name: As the function and the caller name it.
        field: Attribute of the decoded params that holds it: a name of our own, so that no
            parameter's name can be a wrong one for a struct.
        annotation: Its type, resolved; `Any` when it has none.
        default: What it is when the caller leaves it out; `EMPTY` when it is required.
        copied: Whether each call gets its own copy of the default.
        by_position: Whether the caller may give it by position.
    """

    name: str
    field: str
    annotation: Any
    default: Any
    copied: bool
    by_position: bool

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is EMPTY

    def fresh_default(self) -> Any:
        """Give the default for one call."""
        return deepcopy(self.default) if self.copied else self.default


class Signature(msgspec.Struct, frozen=True):
    """A node as its callers and the dispatch table see it.

    Attributes:
        name: Full name, ``module.function``.
        kind: How it runs.
        function: What was marked with the decorator.
        parameters: What a caller gives, in the function's order.
        arguments: Source of the call's arguments, such as ``p.p0, ctx, key=p.p1``.
        streams: Whether it is a generator, and yields parts.
        takes_context: Whether a `Context` is injected.
        awaits_wrapped: Whether a plain wrapper stands around an ``async def``, so that only the
            result tells whether there is something to await.
        result: The return annotation, `EMPTY` when there is none or it can't be typed; of a
            generator, the list of its parts.
        text: As it would be written in Python, without the context.
        identity: Equal for two processes that have the same node with the same types.
        retry: How it is tried again, if it is.
        max_concurrency: Most of its requests that run at once.
        rate: Most of its requests that begin in a second.
        labels: What a worker must have to run it, sorted.
        durability: That of calls which don't say one.
        at_most_once: Whether a recorded run of it is never begun twice.
    """

    name: str
    kind: NodeKind
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    arguments: str
    takes_context: bool
    awaits_wrapped: bool
    result: Any
    text: str
    identity: str
    retry: Retry | None = None
    streams: bool = False
    max_concurrency: int | None = None
    rate: float | None = None
    labels: tuple[str, ...] = ()
    durability: Literal["batched", "sync"] | None = None
    at_most_once: bool = False

    @property
    def by_position(self) -> tuple[Parameter, ...]:
        """The parameters that can be given by position, in order."""
        return tuple(parameter for parameter in self.parameters if parameter.by_position)

    @property
    def required_names(self) -> tuple[str, ...]:
        """Names of the parameters that have no default."""
        return tuple(parameter.name for parameter in self.parameters if parameter.required)


def read_signature(name: str, function: Callable[..., Any]) -> Signature:
    """Read the signature of a marked function.

    Raises:
        NodeDefinitionError: It can't be served; the message names function, place and parameter.
    """
    return _SignatureReader(name, function).read()


class _SignatureReader:
    """What is known while one signature is read."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        self._function = function
        self._core = innermost(function)
        self._spec = spec_of(function) or NodeSpec(name, thread=False)

    def read(self) -> Signature:
        if len(self._name.encode("utf-8", "surrogatepass")) > NODE_NAME_BYTES_MAX:
            raise self._refusal(f"its name is longer than {NODE_NAME_BYTES_MAX} bytes")
        streams = self._streams()
        kind = self._kind()
        try:
            written = inspect.signature(self._function)
        except Exception as error:  # annotations run users' code when they are looked at
            raise self._refusal(f"its signature can't be read: {error}") from error
        parameters: list[Parameter] = []
        resolved: list[inspect.Parameter] = []
        arguments: list[str] = []
        for parameter in written.parameters.values():
            annotation = self._annotation(parameter)
            keyword = "" if parameter.kind in POSITIONAL else f"{parameter.name}="
            if annotation is Context:
                arguments.append(f"{keyword}ctx")
                continue
            field = f"p{len(parameters)}"
            arguments.append(f"{keyword}p.{field}")
            parameters.append(self._parameter(parameter, annotation, field))
            resolved.append(parameter.replace(annotation=annotation))
        takes_context = len(parameters) < len(arguments)
        if len(arguments) - len(parameters) > 1:
            raise self._refusal("it has more than one parameter of type Context: keep one")
        returns = self._returns(written)
        result = self._result(returns, streams=streams)
        return Signature(
            name=self._name,
            kind=kind,
            function=self._function,
            parameters=tuple(parameters),
            arguments=", ".join(arguments),
            takes_context=takes_context,
            awaits_wrapped=kind == "async" and not (streams or _is_async(self._function)),
            result=result,
            text=_text(self._name, written, resolved, returns if streams else result),
            identity=_identity(self._name, kind, streams, parameters, result),
            retry=self._spec.retry,
            streams=streams,
            max_concurrency=self._spec.max_concurrency,
            rate=self._spec.rate,
            durability=self._spec.durability,
            at_most_once=self._spec.at_most_once,
            labels=self._spec.labels,
        )

    def _streams(self) -> bool:
        """Tell whether a call gives a generator; a wrapper around one may make a list of it."""
        if isinstance(self._function, FunctionType):
            return _is_generator(self._function)
        # A wrapper that is no function (functools.lru_cache) runs what it wraps.
        if _is_generator(self._core):
            raise self._refusal("a cache around a generator hands it out twice: remove it")
        return False

    def _kind(self) -> NodeKind:
        is_async = _is_async(self._function) or _is_async(self._core)
        is_async = is_async or inspect.isasyncgenfunction(self._function)
        if is_async and not isinstance(self._function, FunctionType):
            raise self._refusal(
                "a cache around an async def hands out a coroutine twice: remove it"
            )
        if is_async and self._spec.thread:
            raise self._refusal("thread=True is for a def: an async def runs on the worker's loop")
        if is_async:
            return "async"
        return "thread" if self._spec.thread else "inline"

    def _annotation(self, parameter: inspect.Parameter) -> Any:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            raise self._refusal("can't be served: take a list instead", f"*{parameter.name}")
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise self._refusal(
                "can't be served: name the parameters, or take a dict", f"**{parameter.name}"
            )
        if parameter.annotation is EMPTY:
            return Any
        try:
            annotation = self._resolve(parameter.annotation)
        except Exception as error:  # evaluating it runs users' code
            raise self._refusal(
                f"its annotation can't be resolved: {error}: import what it names at run time, "
                "not only under TYPE_CHECKING",
                parameter.name,
            ) from error
        return Any if annotation is object else annotation

    def _resolve(self, annotation: Any) -> Any:
        """Evaluate strings in an annotation, wherever they are in it."""
        holder = SimpleNamespace(__annotations__={"it": annotation})
        names = {each.__name__: each for each in getattr(self._core, "__type_params__", ())}
        scope = getattr(self._core, "__globals__", {})
        return get_type_hints(holder, globalns=scope, localns=names, include_extras=True)["it"]

    def _parameter(self, written: inspect.Parameter, annotation: Any, field: str) -> Parameter:
        reason = _reason_against(annotation)
        if reason is not None:
            raise self._refusal(reason, written.name)
        return Parameter(
            name=written.name,
            field=field,
            annotation=annotation,
            default=written.default,
            copied=self._needs_copy(written.name, written.default),
            by_position=written.kind in POSITIONAL,
        )

    def _needs_copy(self, name: str, default: Any) -> bool:
        """Tell mutable defaults from others, by what Python itself says: they have no hash.

        Python shares a default between all calls, and what one call does to it the next one sees.
        In a warm worker that would be forever, so an unhashable default is copied for each call.
        One that hashes by identity (a sentinel, a function) stays the very same object.
        """
        try:
            hash(default)
        except Exception:
            try:
                deepcopy(default)
            except Exception as error:
                raise self._refusal(
                    f"its default can't be copied for each call ({error}): "
                    "use None and make the value in the function",
                    name,
                ) from error
            return True
        return False

    def _returns(self, written: inspect.Signature) -> Any:
        """Resolve the return annotation; only callers are told it, so nothing is refused for it."""
        if written.return_annotation is EMPTY:
            return EMPTY
        try:
            return self._resolve(written.return_annotation)
        except Exception:
            return EMPTY

    @staticmethod
    def _result(returns: Any, *, streams: bool) -> Any:
        annotation = collected_type(returns) if streams else returns
        return EMPTY if annotation is EMPTY or _reason_against(annotation) else annotation

    def _refusal(self, reason: str, parameter: str | None = None) -> NodeDefinitionError:
        code = getattr(self._core, "__code__", None)
        place = f"{code.co_filename}:{code.co_firstlineno}" if code else "unknown place"
        of = f"parameter `{parameter}`: " if parameter is not None else ""
        return NodeDefinitionError(f"node {self._name} ({place}): {of}{reason}")


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function)


def _is_generator(function: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _reason_against(annotation: Any) -> str | None:
    """Say why values of a type can't be decoded, `None` when they can."""
    try:
        msgspec.msgpack.Decoder(annotation)
        strange = next(foreign_types(annotation), None)
    except (
        Exception
    ) as error:  # TypeError from msgspec; resolving a user's class may raise anything
        return f"its annotation can't be typed: {error}"
    if strange is None:
        return None
    return (
        f"its annotation can't be typed: values of `{class_name(strange)}` can't travel: use a "
        "builtin type, a dataclass, msgspec.Struct, TypedDict, NamedTuple or Enum, or Any"
    )


class _Shown:
    """Stands in the text of a signature for a default or annotation, with a text of its own."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _text(name: str, written: inspect.Signature, read: list[inspect.Parameter], result: Any) -> str:
    shown = [
        parameter.replace(
            annotation=_shown_annotation(
                written.parameters[parameter.name].annotation, parameter.annotation
            ),
            default=_shown_default(parameter.default),
        )
        for parameter in read
    ]
    returns = written.return_annotation
    if isinstance(returns, str) and result is EMPTY:
        returns = _Shown(returns)
    signature = inspect.Signature(shown, return_annotation=_shown_annotation(returns, result))
    return _ADDRESS.sub("", f"{name.rpartition('.')[2]}{signature}")


def _shown_annotation(written: Any, resolved: Any) -> Any:
    if written is EMPTY or resolved is EMPTY:
        return written
    return None if resolved is NoneType else resolved


def _shown_default(default: Any) -> Any:
    """Show a default shortly; what has no text of its own gets one without an address."""
    if default is EMPTY:
        return EMPTY
    try:
        text = repr(default)
    except Exception:  # a user's own __repr__
        text = f"<{class_name(type(default))}>"
    return _Shown(text if len(text) <= _DEFAULT_TEXT_MAX else f"{text[:_DEFAULT_TEXT_MAX]}...")


def _identity(name: str, kind: str, streams: bool, parameters: list[Parameter], result: Any) -> str:
    """Spell out what two processes must agree on; never a default's repr, which may differ."""
    parts = [
        f"{each.name}:{inspect.formatannotation(each.annotation)}"
        f":{each.required}:{each.by_position}"
        for each in parameters
    ]
    returns = "" if result is EMPTY else inspect.formatannotation(result)
    how = f"{kind} stream" if streams else kind
    return _ADDRESS.sub("", f"{name} {how} ({', '.join(parts)}) {returns}")
