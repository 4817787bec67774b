"""What is going to happen, and the only clock there is."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

EPOCH_S = 1000.0  # no time is zero, so that a forgotten one shows


class Agenda:
    """Entries by their time; those of one time come in the order they were made."""

    def __init__(self) -> None:
        self.now = EPOCH_S
        self._entries: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._made = 0

    def after(self, delay: float, act: Callable[..., None], *arguments: Any) -> None:
        """Plan an act for so many seconds from now."""
        self.at(self.now + delay, act, *arguments)

    def at(self, time: float, act: Callable[..., None], *arguments: Any) -> None:
        """Plan an act for that time, or for now if that is over."""
        self._made += 1
        heappush(self._entries, (max(time, self.now), self._made, act, arguments))

    @property
    def next_at(self) -> float:
        """Time of the next entry, `inf` when there is none."""
        return self._entries[0][0] if self._entries else float("inf")

    def take(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """Let time pass to the next entry and take it."""
        self.now, _, act, arguments = heappop(self._entries)
        return act, arguments
