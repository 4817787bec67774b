"""The broker's end of one worker's link and page, for tests that talk to a worker directly."""

import mmap
import os
import select
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from msgspec import Raw
from msgspec.msgpack import decode, encode

from pronghorn.broker.wire.channel import make_pair
from pronghorn.broker.wire.limits import MIB
from pronghorn.broker.wire.link import (
    CODEC_MSGPACK,
    Buffer,
    Done,
    Ready,
    RunCall,
    RunChunk,
    ToBroker,
    ToWorker,
    broker_end,
    pack,
)
from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage, stack_at

PATIENCE_S = 20.0  # shows a hang, is no budget


class BrokerEnd:
    """A link and a page whose other ends, `link_fd` and `page_fd`, are for a worker to take."""

    def __init__(self) -> None:
        self.socket, worker_end = make_pair()
        self.socket.settimeout(PATIENCE_S)
        self.link_fd = worker_end.detach()
        self.page_fd = os.memfd_create("pronghorn-slots", os.MFD_CLOEXEC)
        os.ftruncate(self.page_fd, stack_at(64 * MIB))
        self._memory = mmap.mmap(self.page_fd, PAGE_BYTES)
        self.page = SlotsPage(memoryview(self._memory))
        self._reader = broker_end()
        self._read: list[tuple[ToBroker, list[bytes]]] = []

    def give_away(self) -> None:
        """Close what has been handed to another process."""
        os.close(self.link_fd)
        os.close(self.page_fd)

    def send(self, message: ToWorker, buffers: Sequence[Buffer] = ()) -> None:
        self.socket.sendall(pack(message, buffers))

    def send_together(self, *messages: ToWorker) -> None:
        """Send messages so that they are read in one go."""
        self.socket.sendall(b"".join(pack(message) for message in messages))

    def receive(self) -> tuple[ToBroker, list[bytes]]:
        """Wait for the next message of the worker, with its buffers."""
        while not self._read:
            data = self.socket.recv(65536)
            assert data, "the worker has closed its link"
            self._read += self._reader.feed(data)
        return self._read.pop(0)

    def message(self) -> ToBroker:
        """Wait for the next message, which has no buffers."""
        message, buffers = self.receive()
        assert not buffers
        return message

    def ready(self) -> Ready:
        """Wait for the first message."""
        message = self.message()
        assert isinstance(message, Ready)
        return message

    def value(self) -> tuple[int, Any]:
        """Wait for the next result: its token and value."""
        message = self.message()
        assert isinstance(message, Done), message
        return message.token, decode(message.value)

    def wait_for_word(self) -> None:
        """Wait until there is something to read."""
        assert select.select([self.socket], [], [], PATIENCE_S)[0]

    def wait_for_end(self) -> None:
        """Wait until the worker closes its link."""
        deadline = monotonic() + PATIENCE_S
        while monotonic() < deadline:
            try:
                if not self.socket.recv(65536):
                    return
            except ConnectionResetError:  # it left something unread
                return

    def close(self) -> None:
        self.socket.close()
        self.page.close()
        self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def run_call(
    token: int, node: int, *params: Any, slot: int | None = None, left_ms: float | None = None
) -> RunCall:
    """Make a call; each token has a slot of its own."""
    slot = token if slot is None else slot
    return RunCall(token, slot, node, CODEC_MSGPACK, Raw(encode(params)), left_ms)


def run_chunk(token: int, node: int, *items: Any) -> RunChunk:
    """Make a chunk of items."""
    return RunChunk(token, token, node, Raw(encode(items)))
