"""Large values, and how inputs look that are lent to workers."""

from collections.abc import Mapping
from typing import Any

from msgspec.msgpack import Ext, decode

from pronghorn.broker.wire.references import EXT_REFERENCE
from pronghorn.broker.wire.values import encode_inline
from pronghorn.worker.flow.lending import Lending
from pronghorn.worker.flow.sharing import LEAST_ALONE_BYTES, LEAST_BYTES

ROWS = list(range(LEAST_BYTES))
LONG = list(range(LEAST_ALONE_BYTES))


def shape(given: Mapping[str, Any]) -> Any:
    """Give an input with `True` where a reference stands."""

    def of(value: Any) -> Any:
        if isinstance(value, Ext) and value.code == EXT_REFERENCE:
            return True
        return {name: of(each) for name, each in value.items()} if type(value) is dict else value

    return of(decode(encode_inline(given)))


def shapes(lending: Lending) -> list[Any]:
    """Give the shape of each input as it goes to the workers."""
    return [shape(given) for given in lending.inputs]
