"""The audit log: who was refused, and why, as one JSON object for each line. Pure.

The same again is told once a second at most, with how often it was: a client that was turned away
tries again and again. No secret is in it: of a key only the beginning of the public half.

Mirror: tests/broker/test_audit.py.
"""

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

KINDS_MAX = 1024  # refusals that are kept in mind, to tell which are the same

_AGAIN_S = 1.0


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was refused to whom.

    Attributes:
        refused: ``connection`` or ``call``.
        reason: Why.
        address: Where it came from, without the port.
        client: What its key is called; "" for one that is not known.
        key: The beginning of its public key.
        call: What it has called.
        times: How often since this was told before.
    """

    refused: str
    reason: str
    address: str = ""
    client: str = ""
    key: str = ""
    call: str = ""
    times: int = 1


@dataclass(slots=True)
class _Kind:
    told_at: float  # monotonic seconds
    untold: int = 0


class Audit:
    """Decides what is told, and when."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Refusal, _Kind] = OrderedDict()  # told last at the end

    def note(self, refusal: Refusal, now: float) -> str | None:
        """Take in a refusal; returns the line to log, if it is to be told now."""
        kind = self._kinds.get(refusal)
        if kind is None:
            self._kinds[refusal] = _Kind(now)
            if len(self._kinds) > KINDS_MAX:
                self._kinds.popitem(last=False)
            return _line(refusal)
        kind.untold += 1
        if now < kind.told_at + _AGAIN_S:
            return None
        times, kind.untold, kind.told_at = kind.untold, 0, now
        self._kinds.move_to_end(refusal)
        return _line(msgspec.structs.replace(refusal, times=times))


def _line(refusal: Refusal) -> str:
    return msgspec.json.encode(refusal).decode()
