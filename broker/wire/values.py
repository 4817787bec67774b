"""Params and results as bytes: msgpack, with large values in buffer frames of their own.

Shared by clients and workers; specified in PROTOCOL.md, "Values". A body (the params of a call, or
a result) is plain msgpack with two extension types:

**Ext 1, buffer reference.** The data is one msgpack unsigned integer: the index of the buffer frame
of the same message that holds the bytes; it stands where a ``bin`` would stand. It may be used only
for the *top-level* values of a body: the members of the params map or array, or the result itself.
Our encoder lifts ``bytes``, ``bytearray`` and ``memoryview`` values of `BUFFER_BYTES_MIN` or more;
deeper or smaller byte strings stay inline. An index without its buffer is an error.

**Ext 2, array.** The data is a msgpack array ``[dtype, shape, data]``: `dtype` is numpy's array
protocol string (byte order, kind, item size, such as ``<f8``, ``|u1`` or ``<M8[ns]``; kinds b i u f
c m M S U and no other, so never objects), `shape` an array of unsigned integers (empty: a single
value), `data` the elements in C order: ``bin``, or an unsigned integer that is the index of a
buffer frame. Only a top-level array refers to a buffer, and does from `BUFFER_BYTES_MIN` on.

A buffer is not copied here: the sender must leave it as it is until the message has been sent, and
what is decoded over a buffer (an array, a memoryview) is read-only.

In JSON, byte strings are base64 text and arrays are nested lists; there are no buffers.

numpy is optional. To encode, it is only looked up among the modules that are loaded already: an
array can't exist without it.

Mirror: tests/broker/wire/test_values.py.
"""

import re
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from importlib import import_module
from math import prod
from types import GenericAlias, NoneType
from typing import Any, Final, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec.inspect import CustomType, type_info
from msgspec.msgpack import Ext

from .errors import ErrorDetails, ProtocolError
from .limits import BUFFER_BYTES_MIN

Buffer = bytes | bytearray | memoryview

EXT_BUFFER: Final = 1
EXT_ARRAY: Final = 2

NO_BUFFERS: Final[tuple[Buffer, ...]] = ()

NEVER_LIFTED: Final[frozenset[type]] = frozenset(
    {NoneType, bool, int, float, str, list, dict, tuple, set, frozenset}
    | {datetime, date, time, timedelta, Decimal, UUID}
)
"""Types of which no value is lifted, so that the scan of small params is one lookup per value."""
_NATIVE_TO_MSGPACK: Final = (bytes, bytearray, memoryview, datetime)
_DTYPE: Final = re.compile(r"[<>|][biufcmMSU][1-9]\d{0,8}(\[\d{0,9}[A-Za-z\u03bc]{1,2}\])?")
_DTYPE_KINDS: Final = "biufcmMSU"
_GENERATORS: Final = frozenset(
    {Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator}
)
_ARRAY_DIMENSIONS_MAX: Final = 32  # numpy 1's limit; numpy 2 has 64


class NodeDescription(msgspec.Struct, frozen=True):
    """What a node is, for people and for programs: an item of the result of ``pronghorn.nodes``.

    Attributes:
        name: Its full name.
        aliases: Other names that it can be called by.
        kind: ``inline``, ``thread`` or ``async``.
        signature: As it would be written in Python, without an injected context.
        doc: Its docstring, unindented; empty when it has none.
        params: JSON Schema of the params map.
        result: JSON Schema of the result, empty where it is not annotated; of a streaming node,
            that of the array of its parts.
        streams: Whether it is a streaming node.
    """

    name: str
    aliases: tuple[str, ...]
    kind: str
    signature: str
    doc: str
    params: dict[str, Any]
    result: dict[str, Any]
    streams: bool = False


def encode_params(params: Mapping[str, Any] | Sequence[Any]) -> tuple[bytes, Sequence[Buffer]]:
    """Encode the params of a call, by name or by position, lifting what is large.

    Costs one set lookup per value more than msgspec alone. Guarded by `scripts/bench rtt`.

    Raises:
        TypeError, OverflowError, RecursionError: A value can't be encoded; see `unencodable_path`.
    """
    cls = type(params)
    if cls is not dict and cls is not tuple and cls is not list:
        return _encode_lifting(params)  # another mapping or sequence, which msgspec may not know
    for value in params.values() if cls is dict else params:  # type: ignore[union-attr]
        if type(value) not in NEVER_LIFTED:
            return _encode_lifting(params)
    return encode_inline(params), NO_BUFFERS


def encode_with_buffer(
    params: Mapping[str, Any], name: str, content: Buffer
) -> tuple[bytes, Sequence[Buffer]]:
    """Encode params by name, a further one of them as a buffer; errors as in `encode_params`."""
    return encode_inline({**params, name: Ext(EXT_BUFFER, encode_inline(0))}), [content]


def encode_value(value: Any) -> tuple[bytes, Sequence[Buffer]]:
    """Encode a result, lifting it when it is large; errors as in `encode_params`."""
    if type(value) in NEVER_LIFTED:
        return encode_inline(value), NO_BUFFERS
    buffers: list[Buffer] = []
    return encode_inline(_lift(value, buffers)), buffers


def decode_value(raw: Any, buffers: Sequence[Buffer] = NO_BUFFERS, type: Any = Any) -> Any:  # noqa: A002
    """Decode a result.

    Args:
        raw: Its bytes, or a `msgspec.Raw`.
        buffers: The buffer frames of its message.
        type: What it should be; checked, and converted to as msgspec does. Arrays and byte strings
            come as `bytes` and as numpy arrays when it is `Any`.

    Raises:
        ProtocolError: The bytes can't be decoded, are not of the type, refer to a buffer that did
            not come, or hold an array and numpy is not installed.
    """
    try:
        if type is Any and not buffers:
            return _decode_any(raw)
        if buffers and memoryview(raw)[:1].tobytes() in _EXT_FIRST_BYTES:
            hook = partial(_extension, buffers, _import_numpy)
            value = msgspec.msgpack.Decoder(ext_hook=hook).decode(raw)
            return convert_lifted(value, type)
        return _decoder(type).decode(raw)
    except Exception as error:  # msgspec's, numpy's, or whatever a user's own type raises
        raise ProtocolError(
            f"the result can't be decoded: {str(error) or error.__class__.__name__}",
            ErrorDetails(outcome="executed"),
        ) from error


def extension_hook(buffers: Sequence[Buffer]) -> Callable[[int, memoryview], Any]:
    """Make the `ext_hook` that a worker decodes params with.

    It gives a buffer as it came, and arrays only when numpy has been loaded: a worker does not
    import what the user's modules don't use.
    """
    return partial(_extension, buffers, _loaded_numpy)


def convert_lifted(value: Any, annotation: Any) -> Any:
    """Convert a top-level value, which may be a buffer, to the type that was asked for.

    `Any` gives `bytes`, as for a value that was not lifted. Copies only where the type needs one.
    """
    if annotation is Any:
        return bytes(value) if isinstance(value, memoryview | bytearray) else value
    return msgspec.convert(
        value, annotation, builtin_types=_NATIVE_TO_MSGPACK, dec_hook=decode_foreign
    )


def decode_foreign(annotation: Any, value: Any) -> Any:
    """Be the `dec_hook`: make the numpy array that a type like ``NDArray[np.float64]`` asks for.

    Lists are taken too, as JSON has nothing else.
    """
    if not is_array_type(annotation):
        raise NotImplementedError(f"values of type {annotation!r} can't be decoded")
    numpy = sys.modules["numpy"]
    scalar = _element_type(numpy, annotation)
    if isinstance(value, list):
        value = numpy.asarray(value, dtype=scalar)
        if value.dtype.kind not in _DTYPE_KINDS:
            raise ValueError("Expected an array of numbers, text or bytes")
    if not isinstance(value, numpy.ndarray):
        raise ValueError(f"Expected `ndarray`, got `{value.__class__.__name__}`")
    if scalar not in (None, value.dtype.type) and value.dtype != numpy.dtype(scalar):
        raise ValueError(f"Expected `ndarray` of {scalar.__name__}, got {value.dtype}")
    return value


def is_array_type(annotation: Any) -> bool:
    """Tell whether an annotation is `numpy.ndarray`, bare or with shape and element type."""
    numpy = sys.modules.get("numpy")
    cls = get_origin(annotation) or annotation
    return numpy is not None and cls is getattr(numpy, "ndarray", None)


def foreign_types(annotation: Any) -> Iterator[type]:
    """Give the classes in a type, however deep, of which values can't travel.

    Raises:
        TypeError: msgspec does not take the type at all; resolving a user's class may raise others.
    """
    return _foreign_types(type_info(annotation), set())


def encode_foreign(value: Any) -> Any:
    """Be the msgpack `enc_hook`: numpy arrays inline, numpy scalars as Python's.

    Raises:
        TypeError: For all else that msgspec does not know.
    """
    if _is_array(value):
        return _array_extension(value, _array_bytes(value))
    return _plain_scalar(value)


def encode_foreign_json(value: Any) -> Any:
    """Be the JSON `enc_hook`: numpy arrays as nested lists, numpy scalars as Python's."""
    if _is_array(value):
        _check_dtype(value)
        return value.tolist()
    return _plain_scalar(value)


encode_inline = msgspec.msgpack.Encoder(enc_hook=encode_foreign).encode
"""Encode a value with nothing lifted, as inside a chunk."""

encode_json = msgspec.json.Encoder(enc_hook=encode_foreign_json).encode


def class_name(cls: type) -> str:
    """Name a class for people: ``module.Class``, or a builtin's bare name."""
    name = cls.__qualname__
    return name if cls.__module__ == "builtins" else f"{cls.__module__}.{name}"


def unencodable_path(value: Any, encode: Callable[[Any], bytes] = encode_inline) -> str:
    """Find what of a value can't be encoded, as a JSONPath; ``$`` when it is the value itself.

    For error messages only: it encodes each level again, up to a depth.
    """
    path = "$"
    for _ in range(_PATH_DEPTH_MAX):
        for step, inner in _members(value):
            try:
                encode(inner)
            except Exception:  # whichever way it fails, this is the member that does
                path, value = path + step, inner
                break
        else:
            return path
    return path


_PATH_DEPTH_MAX: Final = 16


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f".{key}" if isinstance(key, str) else "[...]", value[key]) for key in value]
    if isinstance(value, list | tuple):
        return [(f"[{index}]", inner) for index, inner in enumerate(value)]
    names: Iterable[str] = getattr(value, "__struct_fields__", ())
    names = names or getattr(value, "__dataclass_fields__", ())
    return [(f".{name}", getattr(value, name, None)) for name in names]


def _foreign_types(info: Any, seen: set[int]) -> Iterator[type]:
    """Walk msgspec's description of a type for classes that it would leave to a hook."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, CustomType):
        if not is_array_type(info.cls):
            yield info.cls
    elif isinstance(info, tuple):
        for inner in info:
            yield from _foreign_types(inner, seen)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        for name in info.__struct_fields__:
            if name not in ("cls", "default", "default_factory"):
                yield from _foreign_types(getattr(info, name), seen)


def _encode_lifting(
    params: Mapping[str, Any] | Sequence[Any],
) -> tuple[bytes, Sequence[Buffer]]:
    buffers: list[Buffer] = []
    lifted: dict[str, Any] | list[Any]
    if isinstance(params, Mapping):
        lifted = {name: _lift(value, buffers) for name, value in params.items()}
    else:
        lifted = [_lift(value, buffers) for value in params]
    return encode_inline(lifted), buffers


def _lift(value: Any, buffers: list[Buffer]) -> Any:
    """Put a large value into `buffers` and give what stands for it; give others back."""
    if isinstance(value, bytes | bytearray):
        if len(value) < BUFFER_BYTES_MIN:
            return value
        buffers.append(value)
        return Ext(EXT_BUFFER, encode_inline(len(buffers) - 1))
    if isinstance(value, memoryview):
        if not value.c_contiguous:
            return _lift(value.tobytes(), buffers)
        if value.nbytes < BUFFER_BYTES_MIN:
            return value
        buffers.append(value.cast("B"))
        return Ext(EXT_BUFFER, encode_inline(len(buffers) - 1))
    if _is_array(value) and value.nbytes >= BUFFER_BYTES_MIN:
        elements = _array_bytes(value)
        buffers.append(elements)
        return _array_extension(value, len(buffers) - 1)
    return value


def _is_array(value: Any) -> bool:
    # Subclasses from other modules (masked arrays, units) mean more than their elements.
    return type(value).__module__ == "numpy" and isinstance(value, sys.modules["numpy"].ndarray)


def _array_bytes(array: Any) -> memoryview:
    """Give the elements in C order, copied only where they lie otherwise."""
    _check_dtype(array)
    if array.nbytes == 0:
        return memoryview(b"")
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    return memoryview(array.reshape(-1).view("u1"))  # datetimes have no buffer of their own


def _array_extension(array: Any, elements: memoryview | int) -> Ext:
    return Ext(EXT_ARRAY, encode_inline((array.dtype.str, array.shape, elements)))


def _check_dtype(array: Any) -> None:
    if array.dtype.kind not in _DTYPE_KINDS or array.dtype.itemsize == 0:
        raise TypeError(f"Encoding numpy arrays of dtype {array.dtype} is unsupported")


def _plain_scalar(value: Any) -> Any:
    if type(value).__module__ == "numpy" and isinstance(value, sys.modules["numpy"].generic):
        plain = value.item()
        if type(plain) in NEVER_LIFTED or type(plain) is bytes:
            return plain
    raise TypeError(f"Encoding objects of type {class_name(type(value))} is unsupported")


def _extension(
    buffers: Sequence[Buffer], find_numpy: Callable[[], Any], code: int, data: memoryview
) -> Any:
    if code == EXT_BUFFER:
        return _buffer(buffers, _decode_index(data))
    if code == EXT_ARRAY:
        return _array(buffers, find_numpy(), data)
    raise msgspec.ValidationError(f"unknown extension type {code}")


def _buffer(buffers: Sequence[Buffer], index: int) -> Buffer:
    if not 0 <= index < len(buffers):
        raise msgspec.ValidationError(f"there is no buffer {index}: {len(buffers)} came")
    buffer = buffers[index]
    return buffer if isinstance(buffer, bytes) else memoryview(buffer).toreadonly()


def _array(buffers: Sequence[Buffer], numpy: Any, data: memoryview) -> Any:
    text, shape, source = _decode_array(data)
    if not _DTYPE.fullmatch(text):
        raise msgspec.ValidationError(f"{text!r} is no dtype that an array may have")
    if len(shape) > _ARRAY_DIMENSIONS_MAX or min(shape, default=0) < 0:
        raise msgspec.ValidationError("an array's shape is negative or has too many dimensions")
    elements = _buffer(buffers, source) if isinstance(source, int) else source
    try:
        dtype = numpy.dtype(text)
        if prod(shape) * dtype.itemsize != len(elements):
            raise ValueError(f"{len(elements)} bytes can't fill the shape {shape} of {text}")
        if not elements:
            return numpy.empty(shape, dtype)
        array = numpy.frombuffer(elements, dtype).reshape(shape)
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise msgspec.ValidationError(f"malformed array: {error}") from error
    # Inline elements lie at any address and keep the whole message alive; they are small.
    return array if isinstance(source, int) else array.copy()


def _loaded_numpy() -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise msgspec.ValidationError(
            "a numpy array came, and the node's module does not use numpy"
        )
    return numpy


def _import_numpy() -> Any:
    try:
        return import_module("numpy")
    except ImportError as error:
        raise msgspec.ValidationError(
            "it holds a numpy array, and numpy is not installed"
        ) from error


def _element_type(numpy: Any, annotation: Any) -> Any:
    """Read the scalar off ``ndarray[shape, dtype[float64]]``; `None` where it is left open."""
    arguments = get_args(annotation)
    scalars = get_args(arguments[1]) if len(arguments) > 1 else ()
    # The dictionary has the scalars that arrays can really have, and not, say, np.floating.
    return next((each for each in scalars if each in numpy.sctypeDict.values()), None)


@lru_cache(maxsize=256)
def _cached_decoder(annotation: Any) -> msgspec.msgpack.Decoder[Any]:
    hook = partial(_extension, NO_BUFFERS, _import_numpy)
    return msgspec.msgpack.Decoder(annotation, ext_hook=hook, dec_hook=decode_foreign)


def _decoder(annotation: Any) -> msgspec.msgpack.Decoder[Any]:
    try:
        return _cached_decoder(annotation)
    except TypeError:  # not hashable
        return _cached_decoder.__wrapped__(annotation)


_EXT_FIRST_BYTES: Final = frozenset(
    bytes([first]) for first in (*range(0xC7, 0xCA), *range(0xD4, 0xD9))
)
_decode_any = msgspec.msgpack.Decoder(
    ext_hook=partial(_extension, NO_BUFFERS, _import_numpy)
).decode
_decode_index = msgspec.msgpack.Decoder(int).decode
_decode_array = msgspec.msgpack.Decoder(tuple[str, tuple[int, ...], int | memoryview]).decode


def part_type(annotation: Any) -> Any:
    """Give the type of a generator's parts by its return annotation, `Any` where it does not say.

    That is ``T`` for ``Iterator[T]``, ``Generator[T, …]``, ``AsyncIterator[T]`` and their like.
    """
    if get_origin(annotation) not in _GENERATORS:
        return Any
    arguments = get_args(annotation)
    return arguments[0] if arguments else Any


def collected_type(annotation: Any) -> Any:
    """Give the type of all parts together, for a caller who takes them so."""
    return GenericAlias(list, part_type(annotation))
