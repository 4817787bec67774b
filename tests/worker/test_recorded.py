"""Mirror of worker/recorded.py: what an attempt says over its link, and what it is answered."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.wire.errors import JournalError
from pronghorn.broker.wire.link import (
    Advance,
    AdvanceKept,
    AskHistory,
    Buffer,
    History,
    HistoryPart,
    Recorded,
    Rest,
    ToBroker,
)
from pronghorn.worker.recorded import Attempt, Attempts, Past

RUN = "ab" * 24


class Link:
    def __init__(self) -> None:
        self.sent: list[tuple[ToBroker, list[bytes]]] = []
        self.put: list[ToBroker] = []
        self.attempts = Attempts(self._send, self._put)

    def open(self, *, has_history: bool = True) -> Attempt:
        self.attempts.open(Recorded(9, RUN, has_history))
        attempt = self.attempts.find(9)
        assert attempt is not None
        return attempt

    def tell(
        self, *parts: HistoryPart, is_last: bool = True, buffers: Sequence[bytes] = ()
    ) -> None:
        raw = Raw(msgspec.msgpack.encode(parts))
        self.attempts.take(History(9, raw, is_last, buffers=len(buffers)), buffers)

    def _put(self, message: ToBroker, buffers: Sequence[Buffer]) -> None:
        self.put.append(message)

    def _send(self, message: ToBroker, buffers: Sequence[Buffer]) -> None:
        self.sent.append((message, [bytes(buffer) for buffer in buffers]))


async def test_a_history_is_asked_for_page_by_page() -> None:
    link = Link()
    asking = asyncio.create_task(link.open().history())
    await asyncio.sleep(0)
    first = HistoryPart(5, Raw(b"\x01"), 2), HistoryPart(7, Raw(b"\xc0"), 0)
    link.tell(*first, is_last=False, buffers=[b"a", b"b"])
    await asyncio.sleep(0)
    link.tell(HistoryPart(8, Raw(b"\x02"), 1), buffers=[b"c"])
    past = await asyncio.wait_for(asking, 5)
    assert past == [
        Past(Raw(b"\x01"), [b"a", b"b"]),
        Past(Raw(b"\xc0"), []),
        Past(Raw(b"\x02"), [b"c"]),
    ]
    assert [message for message, _ in link.sent] == [AskHistory(9, 0), AskHistory(9, 7)]


async def test_a_run_without_a_history_asks_for_none() -> None:
    link = Link()
    assert await link.open(has_history=False).history() == []
    assert link.sent == []


async def test_a_history_that_can_not_be_told_is_an_error() -> None:
    link = Link()
    asking = asyncio.create_task(link.open().history())
    await asyncio.sleep(0)
    link.attempts.take(History(9, Raw(b"\x90"), True, "it is damaged"), ())
    with pytest.raises(JournalError, match="it is damaged"):
        await asyncio.wait_for(asking, 5)


async def test_it_waits_for_what_has_asked() -> None:
    link = Link()
    attempt = link.open()
    attempt.advance(b"\x90", [b"x"], (("a", "succeeded"),), moved=True, asks=True, is_last=False)
    attempt.advance(b"\x90", [], (), moved=False, asks=True, is_last=True)
    assert link.sent[0] == (
        Advance(9, Raw(b"\x90"), (("a", "succeeded"),), True, True, 1),
        [b"x"],
    )
    assert link.put == [Advance(9, Raw(b"\x90"), (), False, True)], "it leaves with the end"
    await asyncio.wait_for(attempt.kept(at_most=2), 5)
    waiting = asyncio.create_task(attempt.kept(at_most=1))
    await asyncio.sleep(0)
    assert not waiting.done()
    link.attempts.take(AdvanceKept(9), ())
    await asyncio.wait_for(waiting, 5)


def test_it_says_that_it_rests() -> None:
    link = Link()
    link.open().rest(7.5)
    assert link.sent == [(Rest(9, 7.5), [])]


def test_what_has_ended_is_told_nothing() -> None:
    link = Link()
    link.open()
    assert link.attempts
    link.attempts.close(9)
    link.attempts.close(9)
    link.attempts.take(AdvanceKept(9), ())
    assert link.attempts.find(9) is None
    assert not link.attempts
