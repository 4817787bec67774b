"""Who is connected: sessions of clients, who is ignored, who may be gone. Pure.

A stranger's session lives while something of it is open. That of a client that said hello lives
until its goodbye, or until something can't be sent to it: nobody tells the broker when a connection
ends. So that clients which went without goodbye leave nothing behind for ever, `hello` names some
that were silent for long, once there are many; what is sent to them tells whether they are there.
Who is there keeps its session: it would not know that it has lost it, and go on as one that has.

Mirror: tests/broker/test_sessions.py.
"""

from collections import OrderedDict

from .requests import Session
from .wire.limits import Limits

BANNED_PEERS_MAX = 1024  # routing ids that are remembered; a new connection has a new one

OWNER_BYTES = 16
"""Of what stands for a key in the routing id of a client: a digest, so none is like another's."""

REMOTE_OWNER = "remote"
"""Whose the runs are of clients that may be anywhere; those on this host have another owner, "",
and each that has shown a key one of its own.

So who comes over tcp, where nobody has to say who he is, has nothing to do with the runs and
idempotency keys of others.
"""

LOOKS_PER_HELLO = 4
"""Sessions looked at when one more comes. One that is gone is found out at the second look, so that
beyond those kept unasked there are, in the long run, no more of the gone than of the others."""


class Sessions:
    """All sessions, by routing id."""

    def __init__(
        self,
        limits: Limits,
        kept: int,
        local: tuple[bytes, ...] = (b"",),
        keyed: bytes = b"",
    ) -> None:
        """Begin without any.

        Args:
            limits: Towards clients.
            kept: Most sessions of clients that said hello before any is asked.
            local: How the routing ids of those begin who are known to be on this host; b"": all.
            keyed: How those of clients begin that have shown a key, `OWNER_BYTES` that stand for it
                behind that; b"": there are none.
        """
        self._local = local
        self._keyed = keyed
        self._has_owners = b"" not in local or bool(keyed)
        self._limits = limits
        self._kept = kept  # most sessions of clients that said hello before any is asked
        # routing id -> session, of strangers too; for look-ups, everything else is done here
        self.by_peer: dict[bytes, Session] = {}
        # the same of clients that said hello, those first that were looked at longest ago
        self._known: OrderedDict[bytes, Session] = OrderedDict()
        self._banned: dict[bytes, None] = {}  # routing ids that are ignored, oldest first

    def open(self, peer: bytes) -> Session | None:
        """Make a stranger's session; `None` if the peer is banned."""
        if peer in self._banned:
            return None
        session = self.by_peer[peer] = Session(peer, self._limits.stranger_requests)
        if self._has_owners:
            session.owner = self._owner_of(peer)
        return session

    def _owner_of(self, peer: bytes) -> str:
        """Tell whose the runs of a client are."""
        if self._keyed and peer.startswith(self._keyed):
            begin = len(self._keyed)
            return f"key:{peer[begin : begin + OWNER_BYTES].hex()}"
        return "" if peer.startswith(self._local) else REMOTE_OWNER

    def hello(self, session: Session) -> list[Session]:
        """Make a session that of a known client, and count its replies from now on.

        Returns:
            Sessions to whose clients something has to be sent, so that it shows who is gone.
        """
        session.known = True
        session.grant = self._limits.grant_requests
        session.acknowledged = session.unacknowledged = 0
        session.replies_seen = -1
        self._known[session.peer] = session
        self._known.move_to_end(session.peer)
        return self._suspects()

    def goodbye(self, session: Session) -> None:
        """Make a session a stranger's again."""
        session.known = False
        session.grant = self._limits.stranger_requests
        session.acknowledged = session.unacknowledged = 0
        self._known.pop(session.peer, None)

    def forget(self, session: Session) -> None:
        """Drop the session of a stranger of whom nothing is open."""
        self.by_peer.pop(session.peer, None)

    def gone(self, peer: bytes) -> Session | None:
        """Drop the session of a client that is gone and return it, if there was one."""
        self._known.pop(peer, None)
        return self.by_peer.pop(peer, None)

    def ban(self, peer: bytes) -> None:
        """Ignore a peer from now on."""
        self._banned[peer] = None
        if len(self._banned) > BANNED_PEERS_MAX:
            del self._banned[next(iter(self._banned))]

    def pardon(self, peer: bytes) -> None:
        """Ignore a peer no longer."""
        self._banned.pop(peer, None)

    def is_banned(self, peer: bytes) -> bool:
        """Whether a peer is ignored."""
        return peer in self._banned

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        for peer, session in self.by_peer.items():
            assert session.peer == peer
            assert session.open_bytes == sum(request.size for request in session.open.values())
            flows = [request.flow for request in session.open.values() if request.flow is not None]
            assert session.parts == sum(flow.window for flow in flows)
            assert session.part_bytes == sum(flow.window_bytes for flow in flows)
            assert all(flow.items + flow.events <= flow.window for flow in flows)
            assert all(session.open[request.key] is request for request in session.open.values())
            assert session.known or session.open, "a stranger with nothing open holds no state"
            assert session.known or not session.replies
        known = {peer for peer, session in self.by_peer.items() if session.known}
        assert known == set(self._known)
        assert all(self.by_peer[peer] is session for peer, session in self._known.items())
        assert not self._banned.keys() & self.by_peer.keys()
        assert len(self._banned) <= BANNED_PEERS_MAX

    def _suspects(self) -> list[Session]:
        """Look at some sessions; name those that had no reply since they were looked at before."""
        suspects: list[Session] = []
        for _ in range(min(LOOKS_PER_HELLO, len(self._known) - self._kept)):
            peer, session = next(iter(self._known.items()))
            self._known.move_to_end(peer)
            if not session.open and session.replies == session.replies_seen:
                suspects.append(session)
            session.replies_seen = session.replies
        return suspects
