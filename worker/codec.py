"""Decodes a node's params, from msgpack or JSON, by name or by position, with or without buffers.

Built once for each node from its signature. Two types stand for the same params, so that one call
of msgspec takes either form: a struct for a map and a named tuple for an array. Both hold parameter
i under the same attribute, so whoever calls the node need not know which came.

Raises whatever msgspec, numpy and users' types raise; `refusal` makes one clear error of it.

Mirror: tests/worker/test_codec.py.
"""

from collections import namedtuple
from collections.abc import Callable, Sequence
from types import GenericAlias
from typing import Any, Final

import msgspec
from msgspec.inspect import (
    AnyType,
    ByteArrayType,
    BytesType,
    CustomType,
    MemoryViewType,
    Metadata,
    UnionType,
    type_info,
)

from pronghorn.broker.wire.values import (
    NO_BUFFERS,
    Buffer,
    convert_lifted,
    decode_foreign,
    extension_hook,
)

from .signature import Parameter, Signature

_MODULE: Final = f"{__name__}.params"
_EMPTY_MAP: Final = b"\x80"
_LEFT_OUT: Final = object()  # in a named tuple, where a default must be made anew
_BUFFER_TYPES: Final = (AnyType, BytesType, ByteArrayType, MemoryViewType, CustomType)


class ParamsCodec:
    """The decoders of one node's params.

    Attributes:
        by_name: The struct that stands for params given by name.
        decode_msgpack: Bytes to params; `None` for nil.
        decode_json: The same from JSON.
        decode_list: Bytes of an array of params, maps and arrays mixed as they come, in one go.
    """

    __slots__ = (
        "_signature",
        "_spare",
        "by_name",
        "decode_json",
        "decode_list",
        "decode_msgpack",
    )

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        # Decoders that nobody uses now, each with the (empty) list where it looks for buffers;
        # making one costs 100 us, so they are kept. As many as were ever in use at once.
        self._spare: list[tuple[Callable[[Any], Any], list[Buffer]]] = []
        self.by_name = params_struct(signature, _annotation)
        form = _form(signature, self.by_name, _annotation)
        hook = extension_hook(NO_BUFFERS)
        self.decode_msgpack: Callable[[Any], Any] = msgspec.msgpack.Decoder(
            form | None, ext_hook=hook, dec_hook=decode_foreign
        ).decode
        self.decode_json: Callable[[Any], Any] = msgspec.json.Decoder(
            form | None, dec_hook=decode_foreign
        ).decode
        self.decode_list: Callable[[Any], list[Any]] = msgspec.msgpack.Decoder(
            GenericAlias(list, form), ext_hook=hook, dec_hook=decode_foreign
        ).decode

    def decode_with_buffers(self, raw: Any, buffers: Sequence[Buffer]) -> Any:
        """Decode params some of which lie in buffers; 1.5 us more than without, nothing is copied.

        May be called in several threads, and by the code of a user's type while it is decoded.
        """
        try:
            decode, seen = self._spare.pop()
        except IndexError:
            decode, seen = self._decoder_with_buffers()
        seen[:] = buffers
        try:
            return decode(raw)
        finally:
            seen.clear()
            self._spare.append((decode, seen))

    def _decoder_with_buffers(self) -> tuple[Callable[[Any], Any], list[Buffer]]:
        """Make a decoder and the list in which it looks for the buffers."""
        by_name = params_struct(self._signature, _annotation_for_buffers)
        form = _form(self._signature, by_name, _annotation_for_buffers)
        seen: list[Buffer] = []
        decoder = msgspec.msgpack.Decoder(
            form | None, ext_hook=extension_hook(seen), dec_hook=_decode_from_buffer
        )
        return decoder.decode, seen

    def defaults(self) -> Any:
        """Give the params of a call without any; refused like an empty map."""
        return self.decode_msgpack(_EMPTY_MAP)


def params_struct(
    signature: Signature, annotation_of: Callable[[Parameter], Any]
) -> type[msgspec.Struct]:
    """Make the struct that stands for a node's params given by name, with these types."""
    fields: list[tuple[str, Any, Any]] = []
    for each in signature.parameters:
        if each.required:
            default = msgspec.field()
        elif each.copied:
            default = msgspec.field(default_factory=each.fresh_default)
        else:
            default = msgspec.field(default=each.default)
        fields.append((each.field, annotation_of(each), default))
    return msgspec.defstruct(
        signature.name.rpartition(".")[2],
        fields,
        rename={each.field: each.name for each in signature.parameters},
        module=_MODULE,
        kw_only=True,
        forbid_unknown_fields=True,
        eq=False,
        gc=False,  # nothing refers to it but the frame that makes the call
    )


def _form(
    signature: Signature,
    by_name: type[msgspec.Struct],
    annotation_of: Callable[[Parameter], Any],
) -> Any:
    """Give the type of params in any form; by name alone when a keyword-only one is required."""
    if any(each.required and not each.by_position for each in signature.parameters):
        return by_name
    return by_name | _tuple(signature, annotation_of)


def _tuple(signature: Signature, annotation_of: Callable[[Parameter], Any]) -> Any:
    taken = signature.by_position
    defaults = [_LEFT_OUT if each.copied else each.default for each in taken if not each.required]
    make: Any = namedtuple  # a class for fields known at run time only, which mypy can't follow
    cls: Any = make("Params", [each.field for each in taken], defaults=defaults)
    cls.__annotations__ = {each.field: annotation_of(each) for each in taken}
    for index, each in enumerate(taken):
        if each.copied:
            setattr(cls, each.field, property(_item_or_default(index, each)))
    for each in signature.parameters:
        if not each.by_position:
            setattr(cls, each.field, property(_default(each)))
    return cls


def _item_or_default(index: int, parameter: Parameter) -> Callable[[Any], Any]:
    def get(params: Any) -> Any:
        value = params[index]
        return parameter.fresh_default() if value is _LEFT_OUT else value

    return get


def _default(parameter: Parameter) -> Callable[[Any], Any]:
    return lambda params: parameter.fresh_default()


def _annotation(parameter: Parameter) -> Any:
    return parameter.annotation


def _annotation_for_buffers(parameter: Parameter) -> Any:
    """Give the type to decode a parameter as when it may lie in a buffer.

    msgspec has no way to see an extension type where it expects ``bin``, but leaves a class it does
    not know to the hook: so a class is made that remembers the type.
    """
    info = type_info(parameter.annotation)
    if isinstance(info, Metadata):
        info = info.type
    choices = info.types if isinstance(info, UnionType) else (info,)
    if not any(isinstance(choice, _BUFFER_TYPES) for choice in choices):
        return parameter.annotation
    return _Anything("FromBuffer", (_FromBuffer,), {"annotation": parameter.annotation})


class _Anything(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True  # msgspec asks when the hook has answered, which has checked the real type


class _FromBuffer(metaclass=_Anything):
    annotation: Any  # of the parameter


def _decode_from_buffer(cls: Any, value: Any) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, _FromBuffer)):
        return decode_foreign(cls, value)
    try:
        return convert_lifted(value, cls.annotation)
    except msgspec.ValidationError as error:  # as a ValueError msgspec puts the path behind it
        raise ValueError(str(error).partition(" - at ")[0]) from error
