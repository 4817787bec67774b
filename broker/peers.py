"""Which process a ZeroMQ client on this host is, and when that ends. An IO shell.

ROUTER does not tell that a connection has ended. Of an ipc client libzmq knows the process by the
kernel's word (``Peer-Address`` is ``localhost:uid:gid:pid``), so its end is watched: what it has
open is cancelled then. That of tcp clients, and of connections that are closed while their program
goes on, shows only when something is sent to them.

Mirror: tests/broker/test_peers.py.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from .poller import Poller

PEERS_MAX = 4096
"""Connections that are kept in mind, those first forgotten that came first: a program that makes
one connection for each call must not fill the memory."""


class Peers:
    """The processes of ipc clients.

    Args:
        poller: Told of their descriptors.
        gone: Called with the routing id of each client whose process has ended.
    """

    def __init__(self, poller: Poller, gone: Callable[[bytes], None]) -> None:
        self._poller = poller
        self._gone = gone
        # routing id -> pid, 0 if unknown; to be looked at by who sees a message
        self.known: OrderedDict[bytes, int] = OrderedDict()
        self._of_pid: dict[int, set[bytes]] = {}  # pid -> its routing ids; never empty
        self._pidfds: dict[int, int] = {}  # pid -> its descriptor; the same keys as `_of_pid`

    def see(self, peer: bytes, pid: int) -> None:
        """Take in a client that is not `known` yet, and its process, 0 if that is not known."""
        pid = self._watch(pid)
        self.known[peer] = pid
        if pid:
            self._of_pid[pid].add(peer)
        if len(self.known) > PEERS_MAX:
            self.forget(next(iter(self.known)))

    def forget(self, peer: bytes) -> None:
        """Take it that a client is gone."""
        pid = self.known.pop(peer, 0)
        if pid:
            peers = self._of_pid[pid]
            peers.discard(peer)
            if not peers:
                self._unwatch(pid)

    def close(self) -> None:
        """Let go of all descriptors."""
        for pid in list(self._of_pid):
            self._unwatch(pid)
        self.known.clear()

    def _watch(self, pid: int) -> int:
        """Watch a process; returns 0 if that can't be done."""
        if pid in self._pidfds or not pid:
            return pid
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # of another namespace, gone by now, or there are no descriptors left
            return 0
        self._pidfds[pid] = pidfd
        self._of_pid[pid] = set()
        self._poller.watch(pidfd, partial(self._on_end, pid))
        return pid

    def _unwatch(self, pid: int) -> None:
        del self._of_pid[pid]
        pidfd = self._pidfds.pop(pid)
        self._poller.unwatch(pidfd)
        os.close(pidfd)

    def _on_end(self, pid: int) -> None:
        peers = list(self._of_pid[pid])
        self._unwatch(pid)
        for peer in peers:
            del self.known[peer]
            self._gone(peer)
