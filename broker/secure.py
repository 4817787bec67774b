"""The broker's ROUTER towards clients that have to show a key (CURVE). An IO shell.

It has a ZeroMQ context of its own, so that the encryption of these clients takes no time from
others' I/O thread. What the core knows a client by is given out here: rights hang on the key, which
libzmq names with each message (``User-Id``, 0.9 us), never on a routing id, which anybody may
choose. Keys are asked for by ZAP, which is answered here as any message is, without a thread.

ROUTER can't close a connection, but libzmq tells its descriptor, in its monitor and with each
message: `shutdown` of that ends it. So the connections of a key that was revoked end at once, and
so do those of which nobody knows yet whose they are.

Mirror: tests/broker/test_secure.py.
"""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from math import inf
from struct import Struct as Layout
from time import monotonic

import zmq
from zmq.backend import Socket as BackendSocket

from .audit import Audit, Refusal
from .connections import Connections, greediest
from .events import Denied, Event, Received, ReceivedJson
from .frontend import (
    HANDSHAKE_MS,
    Delivery,
    bind_endpoint,
    make_router,
    seed_routing_ids,
    send_frame,
    send_frames,
    set_heartbeats,
)
from .ingress import Ingress
from .poller import Poller
from .rights import CHOSEN_ROUTING_ID, Gatekeeper, Permit
from .sessions import OWNER_BYTES
from .sources import FolderWatch
from .wire.errors import InvalidArgumentError
from .wire.keyfiles import KeyFolder
from .wire.keys import Entry, fingerprint
from .wire.limits import Limits
from .wire.link import Buffer
from .zap import DOMAIN, answer

_log = logging.getLogger(__name__)
_audit_log = logging.getLogger("pronghorn.broker.audit")

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"  # libzmq asks there
_MONITORED = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_ACCEPT_FAILED
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_LOOK_S = 0.1  # between looks at what those send who have shown no key yet
_YOUNG_S = HANDSHAKE_MS / 1000 + 0.5  # who is there for longer has shown one
_TCP_INFO_BYTES = 136
_RECEIVED = Layout("=128xQ")  # `tcpi_bytes_received` of Linux's struct tcp_info
_HAPPENED = Layout("=Hi")  # which event, and its descriptor or error

_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK = int(zmq.NOBLOCK)


@dataclass(slots=True, eq=False)
class _Peer:
    """A client that has sent something."""

    name: bytes  # what the core knows it by
    routing_id: bytes
    entry: Entry
    permit: Permit
    fd: int  # of its connection
    address: str


class SecureFrontend:
    """Owns a ZeroMQ context, its ROUTER, what answers ZAP, and the list of keys.

    Args:
        keys: The broker's key and those of clients.
        limits: Towards clients.
        connections: How many there may be.
        prefix: Begins what the core knows these clients by; it must not be guessed.
        ingress: Parses what they send.
        gatekeeper: Holds it against their rights.
        poller: Told of all descriptors.
        gone: Called with what the core knows a client by when it is gone.
        readable: Called when messages may wait, so that `take` has to be called.

    Raises:
        InvalidArgumentError: There is no key for the broker, or others could read it.
    """

    def __init__(
        self,
        keys: KeyFolder,
        *,
        limits: Limits,
        connections: int,
        prefix: bytes,
        ingress: Ingress,
        gatekeeper: Gatekeeper,
        poller: Poller,
        gone: Callable[[bytes], None],
        readable: Callable[[], None],
    ) -> None:
        server = keys.server()
        self._keys = keys
        self._parse = ingress.parse
        self._gatekeeper = gatekeeper
        self.rest = False  # whether messages wait that were not taken
        self._gone = gone
        self._frames_max = limits.frames + 1  # one more, so that the parser sees the excess
        self._prefix = prefix
        self._admitted = 0  # clients so far
        self._audit = Audit()
        self._connections = Connections(connections)
        # descriptor -> monotonic seconds; of connections that may not have shown a key yet
        self._young: dict[int, float] = {}
        self.look_due = inf  # monotonic seconds; when `look` is to be called
        self._by_routing_id: dict[bytes, _Peer] = {}
        self.by_name: dict[bytes, _Peer] = {}  # the same, by what the core knows them by
        self._entries: dict[str, Entry] = {}  # public key -> who may connect with it
        self._poller = poller
        self._watch = FolderWatch([keys.path, keys.clients])
        self.reload()
        self._context = zmq.Context()
        seed_routing_ids(self._context)
        self._zap = self._context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(_ZAP_ENDPOINT)
        self._socket = make_router(self._context, limits)
        set_heartbeats(self._socket)
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, server.secret.encode())
        self._socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._monitor = self._socket.get_monitor_socket(_MONITORED)
        self._recv = BackendSocket.recv.__get__(self._socket)
        self._send = BackendSocket.send.__get__(self._socket)
        self._get = BackendSocket.get.__get__(self._socket)
        self._on_readable = readable
        self._ports: set[int] = set()  # that it listens at

    def bind(self, endpoints: Sequence[str]) -> tuple[str, ...]:
        """Bind endpoints and return them as clients have to name them.

        Raises:
            InvalidArgumentError: One is in use.
        """
        bound = tuple(bind_endpoint(self._socket, endpoint) for endpoint in endpoints)
        self._ports = {int(endpoint.rpartition(":")[2]) for endpoint in bound}
        return bound

    def open(self) -> None:
        """Begin to take clients' messages."""
        watched = (
            (self._zap, self._answer),
            (self._monitor, self._on_monitor),
            (self._socket, self._on_readable),
        )
        for sock, handler in watched:
            self._poller.watch(_descriptor(sock), handler)
        self._poller.watch(self._watch.fileno(), self._on_folder)
        for _, handler in watched:  # what came before does not wake the poll
            handler()

    def take(self, most: int) -> Sequence[Event]:
        """Receive up to so many messages; returns what they are for the core.

        `rest` tells whether more wait.
        """
        recv = self._recv
        events: list[Event] = []
        for _ in range(most):
            try:
                routing_id = recv(_NOBLOCK)
            except zmq.Again:  # the wake-up was for something else
                self.rest = False
                return events
            frame = recv(_NOBLOCK, False)
            peer = self._by_routing_id.get(routing_id)
            if peer is None or frame.get("User-Id") != peer.entry.public:
                peer = self._meet(routing_id, frame)
            frames: list[bytes] = [frame.bytes]
            while frame.more:
                frame = recv(_NOBLOCK, False)
                if len(frames) < self._frames_max:
                    frames.append(frame.bytes)
            if peer is not None:
                events += self._allowed(peer, frames)
            # One call at a time: asking is cheaper than the exception at the end.
            if not self._get(_EVENTS) & _POLLIN:
                self.rest = False
                return events
        self.rest = True
        return events

    def send_one(self, name: bytes, frame: bytes) -> Delivery:
        """Send a message of one small frame; as `send`."""
        peer = self.by_name.get(name)
        if peer is None:
            return Delivery.GONE
        return self._sent(peer, send_frame(self._send, peer.routing_id, frame))

    def send(self, name: bytes, frames: Sequence[Buffer]) -> Delivery:
        """Send one message to a client, or not at all; never blocks."""
        peer = self.by_name.get(name)
        if peer is None:
            return Delivery.GONE
        return self._sent(peer, send_frames(self._send, peer.routing_id, frames))

    def reload(self) -> None:
        """Read the keys anew; connections of those that are gone end."""
        entries: dict[str, Entry] = {}
        for entry in self._keys.entries():
            if isinstance(entry, InvalidArgumentError):
                _log.error("a key is not accepted: %s", entry)
            elif entry.public in entries:
                other = entries[entry.public].name
                _log.error("a key is not accepted: %s has that of %s", entry.name, other)
            else:
                entries[entry.public] = entry
        before, self._entries = self._entries, entries
        if before == entries:
            return
        _log.info("%d clients' keys may connect", len(entries))
        if before.keys() - entries.keys():
            self._revoke()
        for peer in self.by_name.values():
            peer.entry = self._entries[peer.entry.public]
            if not peer.permit.why_not:
                peer.permit = Permit(peer.entry.rights)

    def look(self, now: float) -> None:
        """Close connections over which too much comes before a key was shown."""
        received: dict[int, int] = {}
        for fd, accepted_at in list(self._young.items()):
            if now > accepted_at + _YOUNG_S:
                del self._young[fd]
            else:
                received[fd] = _received(fd)
        for fd in greediest(received):
            del self._young[fd]
            reason = "it sends much before it has shown a key"
            self._refuse("connection", reason, address=_address(fd))
            self._shut(fd)
        self.look_due = now + _LOOK_S if self._young else inf

    def close(self) -> None:
        """Let what was sent leave within the linger time, and close all."""
        self._watch.close()
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()
        self._zap.close()
        self._context.term()

    # --- messages -------------------------------------------------------------------------------

    def _sent(self, peer: _Peer, delivery: Delivery) -> Delivery:
        if delivery is not Delivery.SENT:
            self._forget(peer)
            if delivery is Delivery.FULL:
                self._shut(peer.fd)
        # Sending may have used up the wake-up of the descriptor.
        if self._get(_EVENTS) & _POLLIN:
            self._on_readable()
        return delivery

    def _allowed(self, peer: _Peer, frames: Sequence[bytes]) -> Sequence[Event]:
        """Parse a message; in place of what the client may not do it is said that it may not."""
        check, permit = self._gatekeeper.check, peer.permit
        events = self._parse(peer.name, frames)
        for index, event in enumerate(events):
            denied = check(event, permit)
            if denied is not None:
                self._tell_denied(peer, event, denied)
                events[index] = denied
        return events

    def _meet(self, routing_id: bytes, frame: zmq.Frame) -> _Peer | None:
        """Take in a client from its first message; `None` if its key was revoked meanwhile."""
        self._on_monitor()  # so that the descriptor is that of this connection, not of one before
        before = self._by_routing_id.get(routing_id)
        if before is not None:  # another key's by the same routing id
            self._lose(before)
        public, fd = str(frame.get("User-Id")), int(frame.get(zmq.SRCFD))
        address = str(frame.get("Peer-Address"))
        entry = self._entries.get(public)
        if entry is None:
            self._refuse("call", "its key was revoked", address=address, public=public)
            self._shut(fd)
            return None
        chosen = bool(frame.get("Identity"))
        permit = Permit(entry.rights, CHOSEN_ROUTING_ID if chosen else "")
        self._admitted += 1
        owner = blake2b(entry.public.encode(), digest_size=OWNER_BYTES).digest()
        name = self._prefix + owner + self._admitted.to_bytes(8, "big")
        peer = _Peer(name, routing_id, entry, permit, fd, address)
        self._young.pop(fd, None)
        other = self._connections.own(fd, name)
        if other is not None:
            self._lose_name(other)
        self._by_routing_id[routing_id] = self.by_name[name] = peer
        return peer

    # --- connections ----------------------------------------------------------------------------

    def _answer(self) -> None:
        """Answer libzmq's questions whether keys may connect."""
        while self._zap.getsockopt(zmq.EVENTS) & _POLLIN:  # type: ignore[operator]
            asked = answer(self._zap.recv_multipart(), self._entries.__contains__)
            self._zap.send_multipart(asked.reply)
            if asked.refused:
                address, public = asked.address, asked.public
                self._refuse("connection", asked.refused, address=address, public=public)

    def _on_monitor(self) -> None:
        while self._monitor.getsockopt(zmq.EVENTS) & _POLLIN:  # type: ignore[operator]
            kind, value = _HAPPENED.unpack(self._monitor.recv_multipart()[0])
            if kind == zmq.EVENT_ACCEPTED:
                excess = self._connections.accept(value)
                self._young[value] = now = monotonic()
                self.look_due = min(self.look_due, now + _LOOK_S)
                if excess is not None:
                    self._refuse("connection", "there are too many", address=_address(excess))
                    self._shut(excess)
            elif kind == zmq.EVENT_DISCONNECTED:
                self._young.pop(value, None)
                name = self._connections.lost(value)
                if name is not None:
                    self._lose_name(name)
            elif kind == zmq.EVENT_ACCEPT_FAILED:
                self._refuse("connection", "the broker has too many files open")
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                reason = "it does not speak CURVE with the broker's key"
                self._refuse("connection", f"{reason} (libzmq: {value:#x})")
            else:  # as who only looks whether somebody listens; or who saw what is wanted, and left
                reason = "it ended before it had shown a key"
                self._refuse("connection", reason, level=logging.INFO)

    def _revoke(self) -> None:
        """End the connections of keys that are not, or no longer, accepted."""
        self._on_monitor()
        for peer in list(self.by_name.values()):
            if peer.entry.public not in self._entries:
                reason = "its key was revoked"
                public, client = peer.entry.public, peer.entry.name
                self._refuse(
                    "connection", reason, address=peer.address, public=public, client=client
                )
                self._shut(peer.fd)
                self._lose(peer)
        for fd in self._connections.nameless():  # theirs may be among them; others connect again
            self._shut(fd)

    def _on_folder(self) -> None:
        self._watch.take()
        self.reload()

    def _shut(self, fd: int) -> None:
        """End a connection; should that be another one by now, its client connects again."""
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
            is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
            if is_tcp and connection.getsockname()[1] in self._ports:
                connection.shutdown(socket.SHUT_RDWR)

    def _lose_name(self, name: bytes) -> None:
        peer = self.by_name.get(name)
        if peer is not None:
            self._lose(peer)

    def _lose(self, peer: _Peer) -> None:
        self._forget(peer)
        self._gone(peer.name)

    def _forget(self, peer: _Peer) -> None:
        self.by_name.pop(peer.name, None)
        if self._by_routing_id.get(peer.routing_id) is peer:
            del self._by_routing_id[peer.routing_id]

    # --- audit ----------------------------------------------------------------------------------

    def _tell_denied(self, peer: _Peer, event: Event, denied: Denied) -> None:
        call = ""
        if isinstance(event, Received):
            call = getattr(event.message, "node", "")
        elif isinstance(event, ReceivedJson):
            call = event.request.method
        public, client = peer.entry.public, peer.entry.name
        self._refuse(
            "call",
            denied.error.message,
            address=peer.address,
            public=public,
            client=client,
            call=call,
        )

    def _refuse(
        self,
        refused: str,
        reason: str,
        *,
        address: str = "",
        public: str = "",
        client: str = "",
        call: str = "",
        level: int = logging.WARNING,
    ) -> None:
        refusal = Refusal(refused, reason, address, client, fingerprint(public), call)
        line = self._audit.note(refusal, monotonic())
        if line is not None:
            _audit_log.log(level, "refused: %s", line)


def _descriptor(sock: "zmq.Socket[bytes]") -> int:
    descriptor = sock.getsockopt(zmq.FD)
    assert isinstance(descriptor, int)
    return descriptor


def _received(fd: int) -> int:
    """Tell how many bytes have come over a connection."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(info) == _TCP_INFO_BYTES:
            received: int = _RECEIVED.unpack(info)[0]
            return received
    return 0


def _address(fd: int) -> str:
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
        return str(connection.getpeername()[0])
    return ""
