"""A page of slots whose fence is a place where others may act.

A claim and a revoke are two steps each, with a fence between. What may come between them on other
cores comes here at the fence, so the real methods run, and in every order that has an effect.
"""

from collections.abc import Callable

from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage


def make_memory() -> bytearray:
    """Make what a worker and the broker share."""
    return bytearray(PAGE_BYTES)


class InterleavedPage(SlotsPage):
    """One side's view of a page."""

    __slots__ = ()

    def __init__(self, memory: bytearray, between: Callable[[], None]) -> None:
        super().__init__(memoryview(memory))
        self._acquire = between  # type: ignore[assignment]  # in the place of the fence
        self._release = _nothing  # type: ignore[assignment]


def _nothing() -> None:
    pass
