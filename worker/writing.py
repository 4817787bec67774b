"""The writing half of a worker's link: at once, and what a full link does not take when it does.

Mirror: tests/worker/test_writing.py.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import NoReturn

from pronghorn.broker.wire.link import Buffer, ToBroker, encode_link
from pronghorn.broker.wire.stream import FrameWriter

from .generators import Outgoing


class LinkWriter:
    """Writes messages to the broker, in the loop's thread.

    Args:
        link: Its end of the link, which does not block.
        loop: Tells when a full link takes more.
        broken: Called when nobody reads the link any more.
        written: Called when what had waited is written.
        leave: Ends the process for the exception that is being handled: it may have left half a
            frame on the link.
    """

    def __init__(
        self,
        link: socket.socket,
        loop: asyncio.AbstractEventLoop,
        *,
        broken: Callable[[], None],
        written: Callable[[], None],
        leave: Callable[[], NoReturn],
    ) -> None:
        self._link = link
        self._loop = loop
        self._broken = broken
        self._written = written
        self._leave = leave
        self._writer = FrameWriter(link)

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait until the link takes them."""
        return self._writer.pending_bytes

    def send(self, message: ToBroker, buffers: Sequence[Buffer] = ()) -> None:
        """Write a message at once; what a full link does not take waits until it does."""
        writer = self._writer
        if buffers or writer.pending_bytes:
            writer.put((encode_link(message), *buffers))
            done = writer.flush()
        else:
            done = writer.write(encode_link(message))
        if not done:
            self._not_written()

    def send_for_node(self, message: ToBroker, buffers: Sequence[Buffer]) -> None:
        """Write a message for a node, which must not go on with half of one written."""
        try:
            self.send(message, buffers)
        except BaseException:
            self._leave()

    def put_for_node(self, message: ToBroker, buffers: Sequence[Buffer]) -> None:
        """Have a message written with the next one, which is to follow soon."""
        self._writer.put((encode_link(message), *buffers))

    def send_all(self, outgoing: list[Outgoing]) -> None:
        """Write what nodes in threads have to say, in one go."""
        try:
            for message, buffers in outgoing:
                self._writer.put((encode_link(message), *buffers))
            if not self._writer.flush():
                self._not_written()
        except BaseException:
            self._leave()

    def write_rest(self) -> None:
        """Write what the full link did not take before."""
        if self._writer.flush():
            self._loop.remove_writer(self._link.fileno())
            self._written()
        else:
            self._not_written()

    def close(self) -> None:
        """Wait for the link no more; it is closed by its owner, behind this."""
        self._loop.remove_writer(self._link.fileno())

    def _not_written(self) -> None:
        if self._writer.is_broken:
            self._broken()
        else:
            self._loop.add_writer(self._link.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        try:
            self.write_rest()
        except BaseException:
            self._leave()
