"""Connections that calls are sent over: nothing is bundled, every call gets its one end."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import zmq
from bare_service import bare_service
from pools import served

from pronghorn.bench.load.lanes import FrameLane, PronghornLane, Sent, probe
from pronghorn.broker.wire.errors import BrokerLostError
from pronghorn.broker.wire.link import Buffer

pytestmark = pytest.mark.slow

BODY = msgspec.msgpack.encode([1, 2])
WITHIN_S = 20.0


class Ends:
    """Takes in how calls end."""

    def __init__(self) -> None:
        self.ends: list[tuple[Sent, str | None]] = []
        self.events: list[str] = []
        self._news = asyncio.Event()

    def deliver(self, call: Sent, code: str | None) -> None:
        self.ends.append((call, code))
        self._news.set()

    def on_event(self, what: str) -> None:
        self.events.append(what)
        self._news.set()

    async def until(self, *, ends: int = 0, events: int = 0) -> None:
        async with asyncio.timeout(WITHIN_S):
            while len(self.ends) < ends or len(self.events) < events:
                self._news.clear()
                await self._news.wait()


async def test_each_call_leaves_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[int] = []
    with served(tmp_path) as pool:
        ends = Ends()
        lane = PronghornLane(pool.endpoint, 5.0, ends.deliver, ends.on_event)
        await lane.connect()
        socket = lane._connection._socket
        send = socket.send

        def counted(frames: Sequence[Buffer]) -> None:
            messages.append(len(frames))
            send(frames)

        monkeypatch.setattr(socket, "send", counted)
        sent = [Sent(number, number, 0) for number in range(20)]
        assert all(lane.send(call, "add", BODY) for call in sent)
        assert messages == [1] * 20
        assert sorted(lane.open_calls()) == sent
        await ends.until(ends=20)
        assert sorted(ends.ends) == [(call, None) for call in sent]
        assert lane.open_calls() == []
        lane.close()


async def test_lost_broker_ends_open_calls_and_is_connected_to_again(tmp_path: Path) -> None:
    with served(tmp_path) as pool:
        ends = Ends()
        lane = PronghornLane(pool.endpoint, 5.0, ends.deliver, ends.on_event)
        await lane.connect()
        keeping = asyncio.ensure_future(lane.keep())
        assert lane.send(Sent(0, 0, 0), "wait_for_ever", msgspec.msgpack.encode([]))
        os.kill(pool.client().stats().pid, signal.SIGKILL)
        await ends.until(ends=1, events=2)
        assert [code for _, code in ends.ends] == ["BROKER_LOST"]
        assert ends.events == ["the connection to the broker was lost", "connected again"]
        assert lane.send(Sent(1, 1, 0), "add", BODY)
        await ends.until(ends=2)
        assert ends.ends[1] == (Sent(1, 1, 0), None)
        keeping.cancel()
        lane.close()


@pytest.fixture
async def bare() -> AsyncIterator[tuple[str, "zmq.Context[zmq.Socket[bytes]]"]]:
    """Give a service that answers every third request first, and a context."""
    delayed = bare_service(lambda number: 0.0 if number % 3 == 0 else 0.2)
    with delayed as endpoint, zmq.Context() as context:
        yield endpoint, context


async def test_envelope_tells_which_reply_is_whose(
    bare: tuple[str, "zmq.Context[zmq.Socket[bytes]]"],
) -> None:
    endpoint, context = bare
    ends = Ends()
    lane = FrameLane(context, endpoint, ends.deliver, envelope=True)
    for number in range(6):
        lane.send(Sent(number, number, 0), "frame", b"hello")
    await ends.until(ends=6)
    assert [call.planned_ns for call, _ in ends.ends[:2]] == [0, 3]
    assert sorted(call.planned_ns for call, _ in ends.ends) == list(range(6))
    lane.close()


async def test_without_envelope_replies_are_taken_in_order(
    bare: tuple[str, "zmq.Context[zmq.Socket[bytes]]"],
) -> None:
    endpoint, context = bare
    ends = Ends()
    lane = FrameLane(context, endpoint, ends.deliver, envelope=False)
    for number in range(3):
        lane.send(Sent(number, number, 0), "frame", b"hello")
    assert len(lane.open_calls()) == 3
    await ends.until(ends=3)
    assert [call.planned_ns for call, _ in ends.ends] == [0, 1, 2]
    lane.close()


def test_probe_tells_who_does_not_answer() -> None:
    with bare_service(answers=False) as endpoint:
        probe(endpoint, b"hello", envelope=True)  # the first is answered
        with pytest.raises(BrokerLostError, match="no service"):
            probe(endpoint, b"hello", envelope=False)
