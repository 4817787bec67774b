"""Mirror of broker/worker_links.py: workers' ends of links are played here."""

import os
import socket
from collections.abc import Iterator

import pytest
from msgspec import Raw

from pronghorn.broker.events import Assign
from pronghorn.broker.poller import Poller
from pronghorn.broker.wire.channel import make_pair
from pronghorn.broker.wire.link import CancelRun, RunCall, ToWorker, worker_end
from pronghorn.broker.wire.slots import PAGE_BYTES
from pronghorn.broker.worker_links import LinkedWorker, NoLinkError, WorkerLinks


class Bench:
    """The links of a broker, the workers' ends of them, and who had something to be read."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.links = WorkerLinks(self.poller, self._read)
        self.ends: dict[int, socket.socket] = {}
        self.heard: list[int] = []

    def _read(self, worker: LinkedWorker) -> None:
        self.heard.append(worker.link.worker_id)
        worker.link.receive()
        if not worker.link.alive:
            self.poller.unwatch(worker.link.fileno())

    def add(self, worker_id: int) -> LinkedWorker:
        ours, theirs = make_pair()
        theirs.setblocking(False)
        self.ends[worker_id] = theirs
        page = os.memfd_create("page", os.MFD_CLOEXEC)
        os.ftruncate(page, PAGE_BYTES)
        self.links.add(worker_id, 1, (ours.detach(), page))
        return self.links.by_id[worker_id]

    def turn(self) -> None:
        """Call the handlers of all that is ready, as the server does."""
        for fd, _ in self.poller.poll(0, 64):
            self.poller.handlers[fd]()

    def read(self, worker_id: int, *, turns: int = 1) -> list[ToWorker]:
        """Read as a worker does what there is, while the broker has turns."""
        reader, messages = worker_end(), list[ToWorker]()
        for _ in range(turns):
            try:
                data = self.ends[worker_id].recv(1 << 20)
            except BlockingIOError:
                break
            messages += [message for message, _ in reader.feed(data)]
            self.turn()
        return messages

    def close(self) -> None:
        self.links.close()
        self.poller.close()
        for end in self.ends.values():
            end.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def cancel(worker_id: int, token: int) -> Assign:
    return Assign(worker_id, CancelRun(token))


def test_what_a_turn_has_for_workers_leaves_at_its_end(bench: Bench) -> None:
    bench.add(1)
    bench.add(2)
    for token in (1, 2):
        bench.links.write(cancel(1, token))
    bench.links.write(cancel(2, 3))
    bench.links.write(cancel(9, 4))  # of which nobody has heard
    assert bench.read(1) == []
    assert set(bench.links.dirty) == {1, 2}
    bench.links.flush()
    assert not bench.links.dirty
    assert bench.read(1) == [CancelRun(1), CancelRun(2)]
    assert bench.read(2) == [CancelRun(3)]


def test_who_has_something_to_be_read_is_told(bench: Bench) -> None:
    bench.add(1)
    bench.add(2)
    bench.turn()
    assert bench.heard == []
    bench.ends[2].send(b"\x01")
    bench.turn()
    assert bench.heard == [2]


def test_what_does_not_fit_is_written_when_the_worker_reads(bench: Bench) -> None:
    worker = bench.add(1)
    large = Raw(b"\xc6" + (3_000_000).to_bytes(4) + bytes(3_000_000))
    bench.links.write(Assign(1, RunCall(7, 0, 0, 0, large, None, 0)))
    bench.links.flush()
    assert worker.waits_to_write
    bench.links.write(cancel(1, 8))
    bench.links.flush()
    (call, cancelled) = bench.read(1, turns=1000)
    assert isinstance(call, RunCall)
    assert call.params == large
    assert cancelled == CancelRun(8)
    assert not worker.waits_to_write
    bench.heard.clear()
    bench.turn()  # the poll does not wait to write any more
    assert bench.heard == []


def test_a_worker_that_can_t_be_had_leaves_nothing_open(bench: Bench) -> None:
    with pytest.raises(NoLinkError, match="too many files open"):
        bench.links.add(1, 1, ())
    ours, theirs = make_pair()
    no_page, other = os.pipe()
    with pytest.raises(NoLinkError, match="can't map its page"):
        bench.links.add(1, 1, (ours.detach(), no_page))
    with theirs:
        assert theirs.recv(1) == b""
    os.close(other)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(no_page)
    assert not bench.links.by_id


@pytest.mark.parametrize("is_told", [True, False])
def test_a_removed_worker_is_let_go_of(bench: Bench, *, is_told: bool) -> None:
    """Both where its end of the link was seen to be closed, and where that was not."""
    worker = bench.add(1)
    bench.links.write(cancel(1, 1))
    if is_told:
        bench.ends[1].shutdown(socket.SHUT_RDWR)
        bench.turn()
        assert not worker.link.alive
    bench.links.remove(1)
    assert not bench.links.by_id
    assert not bench.links.dirty
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(worker.file)
    assert bench.ends[1].recv(1) == b""
    bench.turn()
