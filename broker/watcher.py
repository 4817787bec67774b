"""What a supervisor waits for: descriptors, times, signals and the ends of children. An IO shell.

One thread, one epoll. Handlers run one after the other and may watch, unwatch and close anything.

Mirror: tests/broker/test_watcher.py.
"""

import os
import select
import selectors
import signal
import socket
from collections.abc import Callable
from math import inf
from time import monotonic

from .processes import children, kill, reap
from .wire.channel import make_pair


class Watcher:
    """The loop of the supervisor. Owns the descriptors of children and of signals."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        # name -> (when, monotonic seconds; what to do)
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}
        self._children: dict[int, int] = {}  # pid of a watched child -> its pidfd, until reaped
        # Ids of workers that are about to become children, and whose processes are not known yet.
        # While there are any no unwatched child is reaped: it may be such a worker, whose end is to
        # be reported with its cause.
        self.expected: set[int] = set()
        self._signals: tuple[socket.socket, socket.socket] | None = None  # reader, writer

    def turn(self, until: float = inf) -> None:
        """Wait until something happens, `until` at the latest, and have it handled."""
        due = min([until, *(when for when, _ in self._timers.values())])
        timeout = None if due == inf else max(0.0, due - monotonic())
        for key, _ in self._selector.select(timeout):
            # An earlier handler may have closed it, and another may have its number by now.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        now = monotonic()
        for name, timer in list(self._timers.items()):
            if timer[0] <= now and self._timers.get(name) is timer:
                del self._timers[name]
                timer[1]()

    def watch(self, fd: int, handler: Callable[[], object]) -> None:
        """Have a handler called whenever the descriptor is readable.

        Raises:
            OSError: The system lacks what it takes.
        """
        self._selector.register(fd, selectors.EVENT_READ, handler)

    def unwatch(self, fd: int) -> None:
        """Call the descriptor's handler no more; one that is not watched is passed over."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def at(self, name: str, when: float, action: Callable[[], None]) -> None:
        """Have something done once at a time, monotonic seconds; replaces the timer of the name."""
        self._timers[name] = (when, action)

    def cancel(self, name: str) -> None:
        """Forget the timer of the name, if there is one."""
        self._timers.pop(name, None)

    def watch_signals(self, *numbers: int, handler: Callable[[bytes], None]) -> None:
        """Have a handler called with the numbers of signals that have come."""
        self._signals = reader, writer = make_pair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)  # the wake-up descriptor does the work
        self.watch(reader.fileno(), lambda: handler(reader.recv(4096)))

    # --- children -------------------------------------------------------------------------------

    def watch_child(self, pid: int, on_exit: Callable[[str], None]) -> None:
        """Reap a child when it ends and have a handler called with how it did.

        Raises:
            OSError: It can't be watched for want of something; it was killed and reaped.
        """
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)  # a child's id stays its own until we reap it
            self.watch(pidfd, lambda: self._on_end(pid, on_exit))
        except OSError:
            if pidfd >= 0:
                os.close(pidfd)
            kill(pid)
            reap(pid)
            raise
        self._children[pid] = pidfd

    def end_child(self, pid: int) -> None:
        """Reap a child that was killed, without its handler."""
        self._unwatch_child(pid)
        reap(pid)

    def reap_others(self) -> None:
        """Reap the children that have ended and that nobody watches, unless some are expected."""
        if self.expected:
            return
        try:
            pids = children()
        except OSError:  # no descriptor is free to list them: with the next signal then
            return
        for pid in pids:
            if pid not in self._children:
                os.waitpid(pid, os.WNOHANG)

    def kill_children(self, *, spared: int = 0) -> None:
        """Kill all children that are watched, but for one of that process id."""
        for pid in self._children:
            if pid != spared:
                kill(pid)

    def wait_for_children(self, seconds: float, *, spared: int = 0) -> None:
        """Reap the watched children, without their handlers, until all have ended or so long.

        The one of the process id `spared` is not waited for.
        """
        deadline = monotonic() + seconds
        poll = select.poll()  # an epoll would need a descriptor
        pids = {pidfd: pid for pid, pidfd in self._children.items() if pid != spared}
        for pidfd in pids:
            poll.register(pidfd, select.POLLIN)
        while pids and (left := deadline - monotonic()) > 0:
            for pidfd, _ in poll.poll(left * 1000):
                poll.unregister(pidfd)
                self.end_child(pids.pop(pidfd))

    def close(self) -> None:
        """Let go of everything; children are left to themselves."""
        for pid in list(self._children):
            self._unwatch_child(pid)
        if self._signals is not None:
            signal.set_wakeup_fd(-1)
            for end in self._signals:
                end.close()
        self._selector.close()

    def _on_end(self, pid: int, on_exit: Callable[[str], None]) -> None:
        self._unwatch_child(pid)
        on_exit(reap(pid))

    def _unwatch_child(self, pid: int) -> None:
        pidfd = self._children.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)
