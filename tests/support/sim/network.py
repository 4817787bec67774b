"""Channels: each delivers in order, but none knows how fast another one is."""

from collections import deque
from collections.abc import Callable
from typing import Any

from .agenda import Agenda
from .dice import Dice

DELAY_MAX_S = 0.002

_QUICK_S = 0.000_05  # most messages need less


class Channel:
    """A one-way stream of messages with delays."""

    def __init__(self, agenda: Agenda, dice: Dice, deliver: Callable[[Any], None]) -> None:
        self._agenda = agenda
        self._dice = dice
        self._deliver = deliver
        # (time of arrival, message), oldest first; times never go back
        self._under_way: deque[tuple[float, Any]] = deque()
        self._last_at = 0.0  # arrival of the message that was sent last
        self._open = True

    def __len__(self) -> int:
        return len(self._under_way)

    def send(self, message: Any) -> None:
        """Send a message; what is sent after `close` is lost."""
        if not self._open:
            return
        delay = self._dice.between(0.0, DELAY_MAX_S if self._dice.chance(20) else _QUICK_S)
        self._last_at = max(self._last_at, self._agenda.now + delay)
        self._under_way.append((self._last_at, message))
        self._agenda.at(self._last_at, self._arrive)

    def hold_until(self, time: float) -> None:
        """Let nothing arrive before that time: the receiver does not read."""
        self._last_at = max(self._last_at, time)
        self._under_way = deque((max(at, time), message) for at, message in self._under_way)
        for at, _ in self._under_way:
            self._agenda.at(at, self._arrive)

    def hurry(self, count: int) -> None:
        """Deliver so many messages at once."""
        for _ in range(min(count, len(self._under_way))):
            self._deliver(self._under_way.popleft()[1])

    def close(self, *, lose: bool) -> None:
        """Take nothing more; what is under way still arrives or is lost."""
        self._open = False
        if lose:
            self._under_way.clear()

    def _arrive(self) -> None:
        # An entry finds nothing to do when its message was hurried, held up or lost.
        if self._under_way and self._under_way[0][0] <= self._agenda.now:
            self._deliver(self._under_way.popleft()[1])
