"""What an expression may return: plain values of bounded size.

Values are those that the wire has: None, booleans, 64-bit integers, floats, text, bytes, lists and
dicts whose keys are text. All else is turned into these where nothing is lost, or refused.

Mirror: tests/worker/flow/test_measure.py.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Final

from jinja2.runtime import Undefined

from .limits import DEFINITION_DEPTH_MAX, ELEMENTS_MAX, TEXT_MAX

INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 64) - 1

_SCALARS: Final = frozenset({str, float, bool, type(None), bytes})


class SizeError(ValueError):
    """A value is larger than an expression may make it, or of a kind that nothing can hold."""


def plain(value: Any) -> Any:
    """Turn what an expression has made into a plain value, copying only what has to change.

    Raises:
        SizeError: It is too large, too deep, or no value, such as a function.
    """
    return _Plain().value(value, 0)


def text_of(value: Any) -> str:
    """Give the text that stands for a value within a text, as ``str`` would.

    Raises:
        SizeError: It is too large.
    """
    if type(value) is str:
        return value
    if type(value) in _SCALARS or type(value) is int:
        return str(value)
    return str(plain(value))


def check_text(length: int) -> None:
    """Refuse to make a text of so many characters.

    Raises:
        SizeError: It is too long.
    """
    if length > TEXT_MAX:
        raise SizeError(f"a text of {length} characters is too long, the limit is {TEXT_MAX}")


def check_elements(count: int) -> None:
    """Refuse to make a list of so many elements.

    Raises:
        SizeError: It is too long.
    """
    if count > ELEMENTS_MAX:
        raise SizeError(f"a list of {count} elements is too long, the limit is {ELEMENTS_MAX}")


class _Plain:
    """One walk over a value, with what it has seen so far."""

    __slots__ = ("_elements", "_text")

    def __init__(self) -> None:
        self._elements = 0
        self._text = 0  # characters

    def value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str or kind is bytes:
            self._text += len(value)
            check_text(self._text)
            return value
        if kind in _SCALARS:
            return value
        if kind is int:
            if not INTEGER_MIN <= value <= INTEGER_MAX:
                raise SizeError(f"a number of {value.bit_length()} bits does not fit into 64 bits")
            return value
        if depth >= DEFINITION_DEPTH_MAX:
            raise SizeError(f"values are nested more than {DEFINITION_DEPTH_MAX} deep")
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, (list, tuple, set, frozenset)) or _is_lazy(value):
            return self._list(value, depth)
        return self._foreign(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        self._count(len(value))
        for key in value:
            if not isinstance(key, str):
                raise SizeError(f"a key is {type(key).__name__} {key!r:.40}: only text can be one")
        made = {str(key): self.value(each, depth + 1) for key, each in value.items()}
        if type(value) is dict and all(map(_is, made.values(), value.values())):
            return value  # shared, not copied
        return made

    def _list(self, value: Iterable[Any], depth: int) -> list[Any]:
        made: list[Any] = []
        for each in islice(value, ELEMENTS_MAX + 1):
            self._count(1)
            made.append(self.value(each, depth + 1))
        if type(value) is list and all(map(_is, made, value)):
            return value
        return made

    def _count(self, elements: int) -> None:
        self._elements += elements
        check_elements(self._elements)

    def _foreign(self, value: Any) -> Any:
        """Take Jinja2's own kinds for what they stand for."""
        if isinstance(value, Undefined):
            return str(value)  # raises, and says what is undefined
        if isinstance(value, datetime) or hasattr(value, "__array_interface__"):
            return value  # the wire has these, and nobody makes them here
        if isinstance(value, str):  # Markup
            return self.value(str.__str__(value), 0)
        raise SizeError(f"it gives {_kind(value)}, which is no value")


def _is(one: Any, other: Any) -> bool:
    return one is other


def _is_lazy(value: Any) -> bool:
    return (
        hasattr(value, "__iter__")
        and not isinstance(value, (str, bytes))
        and (isinstance(value, range) or hasattr(value, "__next__") or isinstance(value, _VIEWS))
    )


_VIEWS: Final[tuple[type, ...]] = (type({}.keys()), type({}.values()), type({}.items()))


def _kind(value: Any) -> str:
    if callable(value):
        return f"the function {getattr(value, '__name__', '?')} itself: call it"
    return f"{type(value).__name__!r}"
