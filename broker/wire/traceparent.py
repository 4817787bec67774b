"""W3C Trace Context's ``traceparent``, which names a call's place in a distributed trace. Pure.

``00-<trace id: 32 hex digits>-<parent id: 16>-<flags: 2>``. What is malformed is ignored, as the
recommendation has it: a call never fails for what somebody else has put into a header.
https://www.w3.org/TR/trace-context/#traceparent-header

Mirror: tests/broker/wire/test_traceparent.py.
"""

import re
from typing import Final

_VERSION_0: Final = "00"
_LENGTH: Final = 55  # of version 0; later ones may go on behind it, after a dash
_NONE: Final = re.compile(r"0*")
_FORM: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)

SPAN_ID_BYTES: Final = 8

CHARACTERS_MAX: Final = 512
"""A longer one is ignored: nobody has a use for it, and it would travel with every call."""


def well_formed(text: str | None) -> str | None:
    """Return a traceparent as it is, `None` for none and for what is malformed."""
    if text is None or not _LENGTH <= len(text) <= CHARACTERS_MAX:
        return None
    found = _FORM.match(text)
    if found is None or found["version"] == "ff":
        return None
    if _NONE.fullmatch(found["trace"]) or _NONE.fullmatch(found["parent"]):
        return None
    rest = text[_LENGTH:]
    if rest and (found["version"] == _VERSION_0 or not rest.startswith("-")):
        return None
    return text


def child_of(traceparent: str, span_id: str) -> str:
    """Return what names a new span within a well-formed traceparent's trace.

    Args:
        traceparent: That of the caller; of a later version only what version 0 knows is kept.
        span_id: 16 random hex digits, not all of them zero.
    """
    found = _FORM.match(traceparent)
    assert found is not None, "it is well-formed"
    return f"{_VERSION_0}-{found['trace']}-{span_id}-{found['flags']}"
