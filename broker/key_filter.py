"""Which idempotency keys no run has, as far as that is known without asking the journal. Pure.

A Bloom filter, of keys by their hashes (`rows.key_hash`): one that was added is never said to be
new; one that was not may, rarely, not be said to be. So a call with a new key, which is nearly
every one, waits for no question to the journal, and each that may have a run already is looked up
there.

Guard: ``scripts/bench durable``. Mirror: tests/broker/test_key_filter.py.
"""

from struct import Struct as Layout
from typing import Final

_BITS: Final = 2**25
"""4 MiB. With a million keys one new one in five thousand is looked up in vain, with four million
one in forty."""

_positions_of = Layout("<4I").unpack  # of the 16 bytes of a hash


class KeyFilter:
    """The keys that the journal may have.

    Attributes:
        is_complete: Whether all that the journal had at the start were added.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_BITS // 8)
        self.is_complete = False

    def add(self, hashed: bytes) -> None:
        """Take note that a key has a run, or is about to."""
        bits = self._bits
        for position in _positions_of(hashed):
            position %= _BITS
            bits[position >> 3] |= 1 << (position & 7)

    def is_new(self, hashed: bytes) -> bool:
        """Whether it is certain that a key has no run."""
        return self.is_complete and not self._may_have(hashed)

    def _may_have(self, hashed: bytes) -> bool:
        bits = self._bits
        for position in _positions_of(hashed):
            position %= _BITS
            if not bits[position >> 3] >> (position & 7) & 1:
                return False
        return True
