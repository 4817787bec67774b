"""Mirror of worker/writing.py: a link whose other end is read here."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import NoReturn

import pytest
from msgspec import Raw

from pronghorn.broker.wire.link import Done, Skipped, broker_end
from pronghorn.worker.writing import LinkWriter

LARGE = bytes(1_000_000)  # more than a socket takes at once


class Left(Exception):
    """The process would have ended."""


class Link:
    """A writer, the other end of its link, and what the writer has told."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.loop = loop
        self.reader = broker_end()
        self.was_broken = loop.create_future()
        self.was_written = loop.create_future()
        self.writer = LinkWriter(
            self.ours,
            loop,
            broken=lambda: self.was_broken.set_result(None),
            written=lambda: self.was_written.set_result(None),
            leave=self.leave,
        )

    def leave(self) -> NoReturn:
        raise Left

    def read(self) -> list[tuple[object, list[bytes]]]:
        """Read what is there by now."""
        try:
            data = self.theirs.recv(1_000_000)
        except BlockingIOError:
            return []
        return [(message, [*map(bytes, parts)]) for message, parts in self.reader.feed(data)]

    def close(self) -> None:
        self.writer.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    link = Link(asyncio.get_running_loop())
    yield link
    link.close()


def done(token: int, buffers: int = 0) -> Done:
    return Done(token, Raw(b"\x01"), 5, buffers)


async def test_what_the_link_takes_is_written_at_once(link: Link) -> None:
    link.writer.send(Skipped(1))
    assert link.read() == [(Skipped(1), [])]
    link.writer.send(done(2, 1), [b"buffer"])
    link.writer.send_for_node(Skipped(3), ())
    assert link.read() == [(done(2, 1), [b"buffer"]), (Skipped(3), [])]
    assert link.writer.pending_bytes == 0
    assert not link.was_written.done()


async def test_messages_of_threads_leave_together(link: Link) -> None:
    link.writer.send_all([(Skipped(1), ()), (done(2, 1), [b"buffer"])])
    assert link.read() == [(Skipped(1), []), (done(2, 1), [b"buffer"])]


async def test_what_a_full_link_does_not_take_follows_in_order(link: Link) -> None:
    link.writer.send(done(1, 1), [LARGE])
    link.writer.send(Skipped(2))
    link.writer.send_all([(Skipped(3), ())])
    assert link.writer.pending_bytes
    read: list[tuple[object, list[bytes]]] = []
    while not link.was_written.done():
        read += link.read()
        await asyncio.sleep(0)
    while len(read) < 3:
        read += link.read()
    assert read == [(done(1, 1), [LARGE]), (Skipped(2), []), (Skipped(3), [])]
    assert link.writer.pending_bytes == 0


async def test_who_waits_for_the_link_writes_the_rest_himself(link: Link) -> None:
    link.writer.send(done(1, 1), [LARGE])
    read: list[tuple[object, list[bytes]]] = []
    while link.writer.pending_bytes:
        read += link.read()
        link.writer.write_rest()
    assert link.was_written.done()
    while not read:
        read += link.read()
    assert read == [(done(1, 1), [LARGE])]


async def test_that_nobody_reads_is_told(link: Link) -> None:
    link.theirs.close()
    link.writer.send(Skipped(1))
    assert link.was_broken.done()


async def test_that_nobody_reads_any_more_is_told(link: Link) -> None:
    link.writer.send(done(1, 1), [LARGE])
    assert not link.was_broken.done()
    link.theirs.close()
    await link.was_broken
    assert not link.was_written.done()


async def test_after_an_exception_the_process_is_left(link: Link) -> None:
    unsendable = done(1)
    with pytest.raises(Left):
        link.writer.send_for_node(unsendable, [object()])  # type: ignore[list-item]
    with pytest.raises(Left):
        link.writer.send_all([(unsendable, [object()])])  # type: ignore[list-item]
