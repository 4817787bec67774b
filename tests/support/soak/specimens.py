"""One encoded value of each message of a type: what a fuzzer begins with."""

import math
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from pronghorn.broker.wire.limits import Bounds, Limits


def specimens(kind: Any) -> Iterator[bytes]:
    """Encode one value of each type of a union, or one of the type, as msgpack.

    Every field is there, and has something in it.
    """
    info = inspect.type_info(kind)
    types = info.types if isinstance(info, inspect.UnionType) else (info,)
    for one in types:
        yield msgspec.msgpack.encode(_value(one))


def _value(info: Any) -> Any:
    match info:
        case inspect.StructType():
            return _struct(info)
        case inspect.UnionType():
            return _value(next(one for one in info.types if not isinstance(one, inspect.NoneType)))
        case inspect.IntType():
            return 1
        case inspect.FloatType():
            return math.tau
        case inspect.BoolType():
            return True
        case inspect.StrType():
            return "a.b"
        case inspect.BytesType():
            return bytes(16)
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType():
            return [_value(info.item_type)]
        case inspect.FrozenSetType():
            return [_value(info.item_type)]
        case inspect.TupleType():
            return [_value(one) for one in info.item_types]
        case inspect.DictType():
            return {_value(info.key_type): _value(info.value_type)}
        case inspect.LiteralType():
            return info.values[0]
        case inspect.EnumType():
            return next(iter(info.cls)).value
        case inspect.NoneType():
            return None
        case _:  # whatever may stand there
            return {"a": [1, "b", b"c", None]}


def _struct(info: inspect.StructType) -> Any:
    if info.cls in (Limits, Bounds):  # which have to fit each other
        return msgspec.to_builtins(info.cls())
    if info.array_like:
        tag = [] if info.tag is None else [info.tag]
        return [*tag, *(_value(field.type) for field in info.fields)]
    named = {} if info.tag_field is None else {info.tag_field: info.tag}
    return named | {field.encode_name: _value(field.type) for field in info.fields}
