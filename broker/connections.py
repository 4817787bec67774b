"""Connections of clients with keys, by descriptor: how many there may be, and whose they are. Pure.

libzmq tells which descriptor a connection has when it is accepted and when it ends, and with each
message; so a connection has an owner from its first message on. Before, it is anybody's: those who
never authenticate must not keep others out, so when there are too many of them the oldest goes.

Mirror: tests/broker/test_connections.py.
"""

from collections import OrderedDict
from collections.abc import Mapping

from .wire.limits import MIB

STRANGERS_BYTES = 64 * MIB
"""What all connections without an owner, in their first seconds, may have sent together: libzmq
keeps up to a whole frame of each before it knows whether that is of a handshake."""

NAMELESS_SHARE = 2
"""One in so many of all connections may be without an owner."""


class Connections:
    """Open connections.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._nameless_most = max(1, most // NAMELESS_SHARE)
        self._owners: dict[int, bytes] = {}  # descriptor -> what the core knows its client by
        self._nameless: OrderedDict[int, None] = OrderedDict()  # the others, oldest first

    def __len__(self) -> int:
        return len(self._owners) + len(self._nameless)

    def accept(self, fd: int) -> int | None:
        """Take in a new connection; returns the one that has to be closed for it, maybe itself."""
        if len(self) >= self._most and not self._nameless:
            self._nameless[fd] = None  # until its end is told
            return fd
        excess: int | None = None
        if len(self) >= self._most or len(self._nameless) >= self._nameless_most:
            excess, _ = self._nameless.popitem(last=False)
        self._nameless[fd] = None
        return excess

    def own(self, fd: int, peer: bytes) -> bytes | None:
        """Note whose a connection is; returns whose it was before, if it was somebody else's."""
        self._nameless.pop(fd, None)
        before = self._owners.get(fd)
        self._owners[fd] = peer
        return None if before == peer else before

    def lost(self, fd: int) -> bytes | None:
        """Take it that a connection has ended; returns whose it was."""
        self._nameless.pop(fd, None)
        return self._owners.pop(fd, None)

    def nameless(self) -> list[int]:
        """Return those of which nobody knows whose they are."""
        return list(self._nameless)


def greediest(received: Mapping[int, int]) -> list[int]:
    """Name the connections to close so that the others have sent no more than is allowed.

    Args:
        received: Descriptor -> bytes that have come over it.
    """
    excess = sum(received.values()) - STRANGERS_BYTES
    closed: list[int] = []
    for fd in sorted(received, key=received.__getitem__, reverse=True):
        if excess <= 0:
            break
        excess -= received[fd]
        closed.append(fd)
    return closed
