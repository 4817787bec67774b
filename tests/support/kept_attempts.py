"""An attempt of a recorded run whose journal keeps things when the test says so."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Raw

from pronghorn.broker.wire.link import (
    Advance,
    AdvanceKept,
    AskHistory,
    Buffer,
    Recorded,
    Rest,
    ToBroker,
)
from pronghorn.worker.recorded import Attempt, Past


class Told(NamedTuple):
    """What was told of a run."""

    value: Raw
    buffers: list[bytes]
    tasks: tuple[tuple[str, str], ...]
    moved: bool
    asks: bool


class KeptAttempt(Attempt):
    """Plays the broker too: what is told is the history of the next attempt."""

    def __init__(self, told: Sequence[Told] = ()) -> None:
        super().__init__(
            Recorded(1, "ab" * 24, has_history=bool(told)), self._on_sent, self._on_sent
        )
        self.told: list[Told] = list(told)
        self.rests: list[float | None] = []  # that were asked for: for how long
        self._waiting = 0

    async def history(self) -> list[Past]:
        return [Past(told.value, told.buffers) for told in self.told]

    def keep(self) -> None:
        """Keep all that was told."""
        for _ in range(self._waiting):
            self.take(AdvanceKept(1), ())
        self._waiting = 0

    def reopen(self) -> None:
        self.told.append(Told(Raw(b"\xc0"), [], (), moved=False, asks=False))

    def _on_sent(self, message: ToBroker, buffers: Sequence[Buffer]) -> None:
        assert not isinstance(message, AskHistory)
        if isinstance(message, Rest):
            self.rests.append(message.left_s)
            return
        assert isinstance(message, Advance)
        kept: Any = [bytes(buffer) for buffer in buffers]
        self.told.append(Told(message.value, kept, message.tasks, message.moved, message.asks))
        self._waiting += message.asks
