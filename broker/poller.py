"""Which descriptor is ready, and who wants to know. An IO shell around epoll.

Mirror: tests/broker/test_poller.py.
"""

import select
from collections.abc import Callable

Handler = Callable[[], None]

_READS = select.EPOLLIN
_BOTH = select.EPOLLIN | select.EPOLLOUT


class Poller:
    """Descriptors and their handlers. Level-triggered: a handler need not take all there is.

    `poll` is epoll's own; whoever calls it looks the handlers up in `handlers`.
    """

    __slots__ = ("_epoll", "handlers", "poll")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.poll = self._epoll.poll
        self.handlers: dict[int, Handler] = {}  # descriptor -> what to do when it is ready

    def watch(self, fd: int, handler: Handler) -> None:
        """Have a descriptor's handler called when it can be read."""
        self.handlers[fd] = handler
        self._epoll.register(fd, _READS)

    def watch_both(self, fd: int, handler: Handler) -> None:
        """Change the handler of a watched one, to be called when it can be written to as well."""
        self.handlers[fd] = handler
        self._epoll.modify(fd, _BOTH)

    def watch_reads(self, fd: int, handler: Handler) -> None:
        """Change the handler of a watched one, to be called only when it can be read."""
        self.handlers[fd] = handler
        self._epoll.modify(fd, _READS)

    def unwatch(self, fd: int) -> None:
        """Watch a descriptor no more; to be called before it is closed."""
        self._epoll.unregister(fd)
        self.handlers[fd] = nothing  # this turn's poll may have given it out too

    def close(self) -> None:
        """Let go of everything."""
        self._epoll.close()


def nothing() -> None:
    """Handle a descriptor that only wakes the poll."""
