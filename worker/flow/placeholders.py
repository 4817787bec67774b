"""Imports texts with placeholders of other systems: they become expressions.

=================  =========================================================================
``$key$``          ``{{ ctx('key') }}``
``~~key~~``        the same
``$key.of.it$``    ``{{ ctx('key').of.it }}``
``$guid$``         ``{{ ctx('guid') }}``: an identifier that whoever starts the run passes
``$processguid$``  ``{{ ctx('processguid') }}``: the same, of the whole process
=================  =========================================================================

It is one pass over each text, whatever the number of keys; a text that is one placeholder keeps the
type of its value. What looks like an expression in an imported text stays text.

Mirror: tests/worker/flow/test_placeholders.py.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

_KEY: Final = r"([A-Za-z_]\w*(?:\.\w+)*)"
_PLACEHOLDER: Final = re.compile(rf"\${_KEY}\$|~~{_KEY}~~|\{{\{{|\{{%")


def to_expressions(value: Any) -> Any:
    """Turn the placeholders in all texts of a value into expressions; returns a new value."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(_expression, value)
    if isinstance(value, dict):
        return {name: to_expressions(each) for name, each in value.items()}
    if isinstance(value, list):
        return [to_expressions(each) for each in value]
    return value


def find_keys(value: Any) -> list[str]:
    """Give the keys that a value has placeholders for, each once: variables to be passed."""
    return list(dict.fromkeys(_keys(value)))


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        for match in _PLACEHOLDER.finditer(value):
            if match[1] or match[2]:
                yield (match[1] or match[2]).partition(".")[0]
    elif isinstance(value, dict):
        for each in value.values():
            yield from _keys(each)
    elif isinstance(value, list):
        for each in value:
            yield from _keys(each)


def _expression(match: re.Match[str]) -> str:
    key = match[1] or match[2]
    if key is None:
        return f"{{{{ '{match[0]}' }}}}"
    name, dot, path = key.partition(".")
    return f"{{{{ ctx('{name}'){dot}{path} }}}}"
