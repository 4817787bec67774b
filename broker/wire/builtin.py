"""The params of calls that Pronghorn itself answers: by name or by position, checked, small. Pure.

Mirror: tests/broker/wire/test_builtin.py.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from .codec import DECODE_ERRORS
from .errors import ErrorDetails, InvalidArgumentError

PARAMS_BYTES_MAX: Final = 64 * 1024  # of one such call

Asked = TypeVar("Asked", bound=msgspec.Struct)


def kinds_by_name(*kinds: type[Asked]) -> Mapping[str, type[Asked]]:
    """Map the name of each call, its tag, to what it asks for."""
    return {str(kind.__struct_config__.tag): kind for kind in kinds}


def decode_asked(name: str, kind: type[Asked], params: Raw, *, as_json: bool) -> Asked:
    """Decode the params of a call.

    Raises:
        InvalidArgumentError: They are not what it takes; names the field.
    """
    if len(params) > PARAMS_BYTES_MAX:
        limit = PARAMS_BYTES_MAX
        raise InvalidArgumentError(
            f"{name}: the params have {len(params)} bytes, the limit is {limit}",
            ErrorDetails(limit=limit, node=name),
        )
    decode = msgspec.json.decode if as_json else msgspec.msgpack.decode
    try:
        given: Any = decode(params)
        return msgspec.convert({"type": name, **_by_name(kind, given)}, kind)
    except (TypeError, *DECODE_ERRORS) as error:
        raise InvalidArgumentError(f"{name}: {error}", ErrorDetails(node=name)) from error


def _by_name(kind: type[msgspec.Struct], given: Any) -> dict[str, Any]:
    """Give params by name.

    Raises:
        TypeError: There are none of that name, too many, or neither a map nor an array.
    """
    fields = kind.__struct_fields__
    takes = f"it takes {', '.join(fields)}" if fields else "it takes none"
    if given is None:
        return {}
    if isinstance(given, list):
        if len(given) > len(fields):
            raise TypeError(f"{len(given)} parameters are given; {takes}")
        return dict(zip(fields, given, strict=False))
    if not isinstance(given, dict):
        raise TypeError(f"parameters are a map or an array, not {type(given).__name__}")
    for name in given:
        if name not in fields:
            raise TypeError(f"there is no parameter {name!r}; {takes}")
    return given
