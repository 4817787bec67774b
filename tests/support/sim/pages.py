"""A page of slots whose fence is a place where others may act.

A claim and a revoke are two steps each, with a fence between. What may come between them on other
cores comes here at the fence, so the real methods run, and in every order that has an effect.
"""

from collections.abc import Callable

from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage

ITEMS_BYTES_MAX = 100
"""Bytes of a chunk's results, so few that some chunks end early."""

_AREA_BYTES = 64 * 1024  # the errors of items that fail count in them too


def make_memory() -> bytearray:
    """Make what a worker and the broker share: a page and the area behind it."""
    return bytearray(PAGE_BYTES + _AREA_BYTES)


class InterleavedPage(SlotsPage):
    """One side's view of a page."""

    __slots__ = ("area",)

    def __init__(self, memory: bytearray, between: Callable[[], None]) -> None:
        self.area = memoryview(memory)[PAGE_BYTES:]
        super().__init__(memoryview(memory), lambda size: bytes(self.area[:size]))
        self._acquire = between  # type: ignore[assignment]  # in the place of the fence
        self._release = _nothing  # type: ignore[assignment]


def _nothing() -> None:
    pass
