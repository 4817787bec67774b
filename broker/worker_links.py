"""The links to all workers, with their pages: had, watched and written to. An IO shell.

Mirror: tests/broker/test_worker_links.py.
"""

import mmap
import os
import socket
from collections.abc import Callable
from functools import partial

import msgspec

from .events import Assign
from .links import WorkerLink
from .poller import Poller
from .wire.slots import PAGE_BYTES, SlotsPage


class NoLinkError(Exception):
    """A worker can't be had, for want of descriptors or memory."""


class LinkedWorker(msgspec.Struct):
    """What the broker holds of a worker."""

    link: WorkerLink
    page: SlotsPage
    memory: mmap.mmap
    file: int  # descriptor of what the page is the begin of
    generation: int
    waits_to_write: bool = False


class WorkerLinks:
    """All workers that were not reaped yet. Owns their links and pages.

    Attributes:
        by_id: They, by their ids.
        dirty: Those with something to write in this turn.

    Args:
        poller: Watches the links.
        read: Is called with a worker that has something to be read.
    """

    def __init__(self, poller: Poller, read: Callable[[LinkedWorker], None]) -> None:
        self._poller = poller
        self._read = read
        self.by_id: dict[int, LinkedWorker] = {}
        self.dirty: dict[int, LinkedWorker] = {}

    def add(self, worker_id: int, generation: int, descriptors: tuple[int, ...]) -> SlotsPage:
        """Take in a worker by the descriptors of its link and its page; returns the page.

        Raises:
            NoLinkError: It can't be had.
        """
        if not descriptors:  # they did not arrive
            raise NoLinkError("the broker has too many files open")
        link_fd, page_fd = descriptors
        try:
            memory = mmap.mmap(page_fd, PAGE_BYTES)
        except OSError as error:
            os.close(link_fd)
            os.close(page_fd)
            raise NoLinkError(f"the broker can't map its page: {error}") from error
        page = SlotsPage(memoryview(memory), lambda size: os.pread(page_fd, size, PAGE_BYTES))
        link = WorkerLink(worker_id, socket.socket(fileno=link_fd))
        worker = LinkedWorker(link, page, memory, page_fd, generation)
        self.by_id[worker_id] = worker
        self._poller.watch(link_fd, partial(self._read, worker))
        return page

    def remove(self, worker_id: int) -> None:
        """Let go of a worker."""
        worker = self.by_id.pop(worker_id)
        self.dirty.pop(worker_id, None)
        if worker.link.alive:
            self._poller.unwatch(worker.link.fileno())
        _release(worker)

    def close(self) -> None:
        """Let go of all workers, whom that tells to end."""
        for worker in self.by_id.values():
            _release(worker)

    def write(self, command: Assign) -> None:
        """Have a message written at the end of the turn."""
        worker = self.by_id.get(command.worker_id)
        if worker is not None:
            worker.link.hold(command.message, command.buffers)
            self.dirty[command.worker_id] = worker

    def flush(self) -> None:
        """Write to the links what this turn produced."""
        for worker in self.dirty.values():
            self.flush_one(worker)
        self.dirty.clear()

    def flush_one(self, worker: LinkedWorker) -> None:
        """Write what is there for one worker; what does not fit waits for the poll."""
        link = worker.link
        waits = not (link.flush() or link.is_broken)
        if waits == worker.waits_to_write or not link.alive:
            return
        worker.waits_to_write = waits
        if waits:
            self._poller.watch_both(link.fileno(), partial(self._write_and_read, worker))
        else:
            self._poller.watch_reads(link.fileno(), partial(self._read, worker))

    def _write_and_read(self, worker: LinkedWorker) -> None:
        self.flush_one(worker)
        self._read(worker)


def _release(worker: LinkedWorker) -> None:
    worker.link.close()
    worker.page.close()
    worker.memory.close()
    os.close(worker.file)
