"""How large values are, about: the bytes that they take on the wire.

An estimate whose cost is bounded: of a long list or dict some elements are looked at, evenly
spread, and taken for the others. So it is near where they are alike, as they mostly are. Pure.

Mirror: tests/worker/flow/test_sizes.py.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

_SAMPLES: Final = (16, 6, 2)
"""Elements of a list that are looked at, of one in it, and of one in that; deeper ones have one."""

_SCALAR_BYTES: Final = 9  # of a number that is not small


def size_of(value: Any) -> int:
    """Estimate one value. Guarded by ``scripts/bench workflow``."""
    return round(_size_of(value, 0))


def _size_of(value: Any, depth: int) -> float:
    kind = type(value)
    if kind is str:
        return 1 + len(value) if value.isascii() else 1 + 2 * len(value)
    if kind is int:
        return 1 if -32 <= value < 128 else 1 + (value.bit_length() + 7) // 8
    if kind is list:
        return 1 + _all_of(value[:: len(value) // _samples(depth) + 1], len(value), depth)
    if kind is dict:
        keys = list(islice(value, _samples(depth)))
        names = sum(map(len, keys)) * len(value) / max(1, len(keys))
        return 1 + names + _all_of([value[key] for key in keys], len(value), depth) + len(value)
    if kind is bytes:
        return 2 + len(value)
    if value is None or kind is bool:
        return 1
    nbytes = getattr(value, "nbytes", None)  # of an array
    return nbytes if type(nbytes) is int else _SCALAR_BYTES


def _all_of(chosen: Iterable[Any], count: int, depth: int) -> float:
    sizes = [_size_of(each, depth + 1) for each in chosen]
    return sum(sizes) * count / max(1, len(sizes))


def _samples(depth: int) -> int:
    return _SAMPLES[depth] if depth < len(_SAMPLES) else 1
