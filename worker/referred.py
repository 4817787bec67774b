"""Decodes params in which references stand for large values, as run hosts send them.

Nothing here is run for other params: a decoder that does not expect a reference fails at one, and
only then is it looked whether there are some. Params by name, with references at the top level, are
decoded parameter by parameter; all others have the values put where their references stand, and are
decoded as usual. So is what is wrong with them, so that errors are the same as without references.

What a node can't change is decoded once and handed to all its calls: numbers, text and bytes, and
containers whose annotation is read-only (`Sequence`, `Mapping`, `tuple`, ...). Whatever else is
decoded anew for each call.

Mirror: tests/worker/test_referred.py.
"""

import types
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Literal, Protocol, Union, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import Raw
from msgspec.inspect import ExtType, RawType, type_info
from msgspec.msgpack import Ext

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.references import (
    Reference,
    is_reference,
    may_refer,
    read_reference,
    reference_of,
)
from pronghorn.broker.wire.values import (
    NO_BUFFERS,
    Buffer,
    decode_foreign,
    encode_inline,
    extension_hook,
)

from .codec import params_struct
from .signature import Parameter, Signature

ABSENT: Final = object()

_SCALARS: Final = frozenset(
    {type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID}
)
_SMALL: Final = (type(None), bool, int, float)
"""Types of parameters for which no reference comes: they stay as they are."""
_UNIONS: Final = frozenset({Union, types.UnionType})
_READ_ONLY: Final = frozenset({tuple, frozenset, Sequence, Collection, Mapping, Set})


class Values(Protocol):
    """Where the values are that references name."""

    def content(self, reference: Reference) -> Buffer:
        """Give a value, encoded.

        Raises:
            InvalidArgumentError: There is none of that name, or it can't be had.
        """

    def known(self, reference: Reference, form: Hashable) -> Any:
        """Give what was made of a value in a form, `ABSENT` if nothing was."""

    def keep(self, reference: Reference, form: Hashable, value: Any) -> None:
        """Keep what was made of a value, for as long as there is room."""


class ReferredCodec:
    """The decoders of one node's params that hold references, made when the first ones come."""

    def __init__(self, signature: Signature) -> None:
        self._parameters = [
            _Parameter(each) for each in signature.parameters if each.annotation not in _SMALL
        ]
        by_name = params_struct(signature, _annotation_or_raw)
        hook = extension_hook(NO_BUFFERS)
        self._decode = msgspec.msgpack.Decoder(
            by_name, ext_hook=hook, dec_hook=decode_foreign
        ).decode
        self._decode_list = msgspec.msgpack.Decoder(
            types.GenericAlias(list, by_name), ext_hook=hook, dec_hook=decode_foreign
        ).decode

    def decode(self, raw: Any, values: Values) -> Any:
        """Decode params by name; references stand at the top level.

        Raises:
            InvalidArgumentError: A value can't be had.
            Exception: Anything else, if references stand elsewhere or the params are wrong.
        """
        return self.filled(self._decode(raw), values)

    def decode_list(self, raw: Any) -> list[Any]:
        """Decode an array of params by name, each of which is to be `filled`; errors as above."""
        params: list[Any] = self._decode_list(raw)
        return params

    def filled(self, params: Any, values: Values) -> Any:
        """Decode the parameters that were left; errors as in `decode`."""
        for each in self._parameters:
            raw = getattr(params, each.field)
            if type(raw) is Raw:  # else it is the default
                setattr(params, each.field, each.value(raw, values))
        return params


class _Parameter:
    """A parameter that may have a large value."""

    def __init__(self, parameter: Parameter) -> None:
        self.field = parameter.field
        self._annotation = parameter.annotation
        self._decode = msgspec.msgpack.Decoder(
            parameter.annotation, ext_hook=extension_hook(NO_BUFFERS), dec_hook=decode_foreign
        ).decode
        # Of what is no reference itself: some may stand within.
        self._decode_whole = self._decode
        if _takes_extensions(parameter):
            self._decode_whole = refusing_references(self._decode)
        self._is_shared = _may_be_shared(parameter.annotation)
        self._form: Hashable = _form_of(parameter.annotation)

    def value(self, raw: Any, values: Values) -> Any:
        if not is_reference(raw):
            return self._decode_whole(raw)
        reference = read_reference(raw)
        if not self._is_shared:
            return self._decode(values.content(reference))
        value = values.known(reference, self._form)
        if value is ABSENT:
            value = self._decode(values.content(reference))
            if is_read_only(value, self._annotation):
                values.keep(reference, self._form, value)
        return value


def replaced(raw: Any, values: Values) -> bytes | None:
    """Put values where their references stand, at any depth; None if there are none.

    Raises:
        InvalidArgumentError: A value can't be had.
        Exception: It is no msgpack.
    """
    if not may_refer(raw):
        return None
    count = 0

    def hook(code: int, data: memoryview) -> Any:
        nonlocal count
        reference = reference_of(code, data)
        if reference is None:
            return Ext(code, bytes(data))
        count += 1
        return Raw(values.content(reference))

    decoded = msgspec.msgpack.Decoder(ext_hook=hook).decode(raw)
    return encode_inline(decoded) if count else None


def refers(raw: Any) -> bool:
    """Whether params hold references."""
    found = False

    def hook(code: int, data: memoryview) -> None:
        nonlocal found
        found = found or reference_of(code, data) is not None

    if may_refer(raw):
        msgspec.msgpack.Decoder(ext_hook=hook).decode(raw)
    return found


def takes_extensions(signature: Signature) -> bool:
    """Whether a decoder of the params would take a reference for a value, as that of `Raw` does."""
    return any(map(_takes_extensions, signature.parameters))


def _takes_extensions(parameter: Parameter) -> bool:
    return _holds_raw(type_info(parameter.annotation), set())


def refusing_references(decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Have a decoder that takes extensions fail at references, as all others do."""

    def decode_others(raw: Any) -> Any:
        if refers(raw):
            raise msgspec.ValidationError("a reference stands for a value")
        return decode(raw)

    return decode_others


class ReferredItems:
    """Params of a chunk, decoded one by one as they are asked for: together they may be huge.

    Args:
        raw: A msgpack array of params.
        singly: Decodes the params of one; raises `InvalidArgumentError`.
        codec: Of the node.
        values: Where the values are.

    Raises:
        Exception: It is no array.
    """

    def __init__(
        self,
        raw: Any,
        singly: Callable[[Raw, Values], Any],
        codec: ReferredCodec,
        values: Values,
    ) -> None:
        self._raw = decode_raws(raw)
        self._singly = singly
        self._codec = codec
        self._values = _HeldValues(values)
        self._params: list[Any] | None = None
        with suppress(Exception):  # those that it can't decode are left to `singly`
            self._params = codec.decode_list(raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __iter__(self) -> Iterator[Any]:
        """Give the params of each item, or the error for which they are refused."""
        for index, raw in enumerate(self._raw):
            try:
                yield self._decoded(index, raw)
            except InvalidArgumentError as error:
                yield error

    def _decoded(self, index: int, raw: Raw) -> Any:
        if self._params is not None:
            with suppress(Exception):  # for the words of the usual decoder
                return self._codec.filled(self._params[index], self._values)
        return self._singly(raw, self._values)


class _HeldValues:
    """The same values, of which each encoded one is looked up once."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._contents: dict[Reference, Buffer] = {}
        self.known = values.known
        self.keep = values.keep

    def content(self, reference: Reference) -> Buffer:
        content = self._contents.get(reference)
        if content is None:
            content = self._contents[reference] = self._values.content(reference)
        return content


def is_read_only(value: Any, annotation: Any) -> bool:
    """Whether a node can't change a value, by its type and what the annotation lets it do.

    O(size), where the annotation leaves open what is in a container.
    """
    kind = type(value)
    if kind in _SCALARS:
        return True
    origin, arguments = _of_what(annotation), get_args(annotation)
    if origin is Annotated:
        return is_read_only(value, arguments[0])
    if origin in _UNIONS:
        containers = [each for each in arguments if each not in _SCALARS]
        return len(containers) == 1 and is_read_only(value, containers[0])
    if origin not in _READ_ONLY:
        return isinstance(value, Enum)
    if origin is Mapping:
        inner = arguments[1] if arguments else Any
        return _are_closed(inner) or all(is_read_only(each, inner) for each in value.values())
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return all(map(is_read_only, value, arguments))
    inner = arguments[0] if arguments else Any
    return _are_closed(inner) or all(is_read_only(each, inner) for each in value)


def _are_closed(annotation: Any) -> bool:
    """Whether all values of a type are read-only, so that none needs to be looked at."""
    origin, arguments = _of_what(annotation), get_args(annotation)
    if origin in _SCALARS or origin is Literal:
        return True
    if origin in _UNIONS or origin in _READ_ONLY:
        inner = [each for each in arguments if each is not Ellipsis]
        return bool(inner) and all(map(_are_closed, inner))
    return False


def _of_what(annotation: Any) -> Any:
    return get_origin(annotation) or annotation


def _may_be_shared(annotation: Any) -> bool:
    """Whether some value of a type is read-only."""
    origin = _of_what(annotation)
    if origin is Annotated:
        return _may_be_shared(get_args(annotation)[0])
    if origin in _UNIONS:
        return any(map(_may_be_shared, get_args(annotation)))
    if origin is Any or origin in _SCALARS or origin in _READ_ONLY:
        return True
    return isinstance(origin, type) and issubclass(origin, Enum)


def _form_of(annotation: Any) -> Hashable:
    try:
        hash(annotation)
    except TypeError:
        return object()  # a form of its own
    form: Hashable = annotation
    return form


def _annotation_or_raw(parameter: Parameter) -> Any:
    return parameter.annotation if parameter.annotation in _SMALL else Raw


def _holds_raw(info: Any, seen: set[int]) -> bool:
    if id(info) in seen:
        return False
    seen.add(id(info))
    if isinstance(info, RawType | ExtType):
        return True
    if isinstance(info, tuple):
        return any(_holds_raw(each, seen) for each in info)
    if isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        names = (each for each in info.__struct_fields__ if each not in _NO_TYPES)
        return any(_holds_raw(getattr(info, name), seen) for name in names)
    return False


_NO_TYPES: Final = ("cls", "default", "default_factory")

decode_raws: Final = msgspec.msgpack.Decoder(list[Raw]).decode
"""Cuts a msgpack array into its elements."""
