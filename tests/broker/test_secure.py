"""Mirror of broker/secure.py, on real sockets."""

import json
import logging
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq
from key_folders import Keys, dealer, new_key
from raw_sockets import RawSockets

from pronghorn.broker.events import Denied, Event, Probed, Received
from pronghorn.broker.frontend import Delivery
from pronghorn.broker.ingress import Ingress
from pronghorn.broker.poller import Poller
from pronghorn.broker.rights import CHOSEN_ROUTING_ID, Gatekeeper
from pronghorn.broker.secure import SecureFrontend
from pronghorn.broker.wire.codec import encode_message
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.keys import PrivateKey
from pronghorn.broker.wire.limits import KIB, Limits
from pronghorn.broker.wire.messages import NIL, Call

LIMITS = Limits(request_bytes=64 * KIB, result_bytes=64 * KIB, grant_bytes=64 * KIB)
PREFIX = b"secure--"
NAMES = ("shop.add", "x.add")
PATIENCE_S = 10.0
REFUSED_WITHIN_S = 1.0

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE".ljust(55, b"\0")  # of ZMTP 3.0
LONG_COMMAND = b"\x06" + (200_000).to_bytes(8, "big")  # so many bytes are to follow


def call(name: str) -> bytes:
    return encode_message(Call(1, name, NIL))


class Door:
    """A frontend, a poll around it, and what it has handed on."""

    def __init__(self, keys: Keys, *, connections: int = 100) -> None:
        self._poller = Poller()
        self.events: list[Event] = []
        self.gone: list[bytes] = []
        self._readable = False
        self.frontend = SecureFrontend(
            keys.folder,
            limits=LIMITS,
            connections=connections,
            prefix=PREFIX,
            ingress=Ingress(LIMITS),
            gatekeeper=Gatekeeper(dict(zip(NAMES, NAMES, strict=True)).get),
            poller=self._poller,
            gone=self.gone.append,
            readable=self._note,
        )
        [self.endpoint] = self.frontend.bind(["tcp://127.0.0.1:0"])
        self.frontend.open()

    def until(self, happened: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
        due = monotonic() + seconds
        while not happened():
            left = due - monotonic()
            assert left > 0, "it did not happen"
            for fd, _ in self._poller.poll(0 if self._readable else min(left, 0.01), 16):
                self._poller.handlers[fd]()
            if self.frontend.look_due <= monotonic():
                self.frontend.look(monotonic())
            if self._readable:
                self.events += self.frontend.take(16)
                self._readable = self.frontend.rest

    def next(self, kind: type[Any]) -> Any:
        """Wait for an event of a kind; those before it are taken too."""
        self.until(lambda: any(type(one) is kind for one in self.events))
        while True:
            event = self.events.pop(0)
            if type(event) is kind:
                return event

    def close(self) -> None:
        self.frontend.close()
        self._poller.close()

    def _note(self) -> None:
        self._readable = True


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys")


@pytest.fixture
def ada(keys: Keys) -> PrivateKey:
    return keys.add("ada", nodes=("shop.*",))


@pytest.fixture
def door(keys: Keys, ada: PrivateKey) -> Iterator[Door]:
    door = Door(keys)
    yield door
    door.close()


@pytest.fixture
def sockets() -> Iterator[RawSockets]:
    sockets = RawSockets()
    yield sockets
    sockets.close()


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, "pronghorn.broker.audit")

    def read() -> list[dict[str, Any]]:
        lines = [one.getMessage() for one in caplog.records if one.name.endswith(".audit")]
        return [json.loads(line.removeprefix("refused: ")) for line in lines]

    return read


Audited = Callable[[], list[dict[str, Any]]]


def test_a_client_with_a_key_calls_and_is_answered(
    door: Door, sockets: RawSockets, ada: PrivateKey
) -> None:
    client = dealer(sockets, door.endpoint, ada, PROBE_ROUTER=1)
    peer = door.next(Probed).peer
    assert peer.startswith(PREFIX)
    client.send(call("shop.add"))
    received = door.next(Received)
    assert (received.peer, received.message.node) == (peer, "shop.add")
    assert door.frontend.send(peer, (b"one", b"two")) is Delivery.SENT
    assert client.recv_multipart() == [b"one", b"two"]


def test_what_a_key_has_no_right_for_is_denied_and_audited(
    door: Door, sockets: RawSockets, ada: PrivateKey, audited: Audited
) -> None:
    dealer(sockets, door.endpoint, ada).send(call("x.add"))
    denied = door.next(Denied)
    assert denied.id == 1
    assert "no right" in denied.error.message
    [line] = audited()
    reason = line.pop("reason")
    assert "no right to call x.add" in reason
    assert line == {
        "refused": "call",
        "address": "127.0.0.1",
        "client": "ada",
        "key": ada.public[:8],
        "call": "x.add",
    }


def test_a_wrong_key_is_refused_and_audited(
    door: Door, sockets: RawSockets, keys: Keys, audited: Audited
) -> None:
    stranger = new_key(keys.server.public)
    dealer(sockets, door.endpoint, stranger).send(call("shop.add"))
    door.until(audited)
    [line] = audited()
    assert line["refused"] == "connection"
    assert line["key"] == stranger.public[:8]
    assert "not, or no longer" in line["reason"]
    assert door.events == []
    assert stranger.secret not in str(line)


@pytest.mark.parametrize("without_a_key", [True, False])
def test_who_has_no_key_or_another_brokers_is_refused_and_audited(
    door: Door, sockets: RawSockets, ada: PrivateKey, audited: Audited, without_a_key: bool
) -> None:
    if without_a_key:
        sockets.dealer(door.endpoint).send(call("shop.add"))
    else:
        wrong = PrivateKey(ada.public, ada.secret, new_key().public)
        dealer(sockets, door.endpoint, wrong).send(call("shop.add"))
    door.until(audited)
    # Without a key it sees what is wanted, and may be gone before the broker has read it.
    reasons = ("it does not speak CURVE", "it ended before it had shown a key")
    assert audited()[0]["reason"].startswith(reasons)
    assert door.events == []


def test_a_key_is_accepted_as_soon_as_its_file_is_there(
    door: Door, sockets: RawSockets, keys: Keys
) -> None:
    eve = keys.add("eve")
    dealer(sockets, door.endpoint, eve).send(call("shop.add"))
    assert door.next(Received).message.node == "shop.add"


def test_a_revoked_key_ends_its_open_connection_and_no_other(
    door: Door, sockets: RawSockets, keys: Keys, ada: PrivateKey, audited: Audited
) -> None:
    bob = keys.add("bob")
    clients = [dealer(sockets, door.endpoint, key, PROBE_ROUTER=1) for key in (ada, bob)]
    peers = [door.next(Probed).peer for _ in clients]
    for client in clients:
        client.send(call("shop.add"))
    by_ada = {door.next(Received).peer for _ in clients}
    assert by_ada == set(peers)
    monitor = clients[0].get_monitor_socket(zmq.EVENT_DISCONNECTED)
    keys.folder.remove("ada")
    door.until(lambda: door.gone, seconds=1.0)
    [gone] = door.gone
    assert monitor.poll(1000), "the connection has ended too"
    monitor.close(linger=0)
    clients[0].disable_monitor()
    assert door.frontend.send(gone, (b"x",)) is Delivery.GONE
    door.until(lambda: len(audited()) == 2)
    assert [line["reason"].split(",")[0] for line in audited()] == [
        "its key was revoked",
        "its key is not",
    ]
    clients[1].send(call("shop.add"))
    assert door.next(Received).peer != gone
    assert door.gone == [gone]


def test_a_connection_that_has_said_nothing_yet_ends_with_a_revocation(
    door: Door, sockets: RawSockets, keys: Keys, ada: PrivateKey
) -> None:
    client = dealer(sockets, door.endpoint, ada)
    monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
    door.until(lambda: monitor.poll(0))
    monitor.recv_multipart()
    keys.folder.remove("ada")
    door.until(lambda: monitor.poll(0), seconds=1.0)
    monitor.close(linger=0)
    client.disable_monitor()
    assert door.events == []


def test_another_key_under_the_same_name_is_another_client(
    door: Door, sockets: RawSockets, keys: Keys, ada: PrivateKey
) -> None:
    dealer(sockets, door.endpoint, ada).send(call("shop.add"))
    first = door.next(Received).peer
    keys.folder.remove("ada")
    again = keys.add("ada")
    door.until(lambda: door.gone == [first])
    dealer(sockets, door.endpoint, again).send(call("shop.add"))
    assert door.next(Received).peer != first


def test_changed_rights_count_for_the_next_call(
    door: Door, sockets: RawSockets, keys: Keys, ada: PrivateKey
) -> None:
    client = dealer(sockets, door.endpoint, ada)
    client.send(call("shop.add"))
    peer = door.next(Received).peer
    (keys.folder.clients / "ada.toml").write_text(f'public = "{ada.public}"\nnodes = ["x.*"]\n')

    def is_denied() -> bool:
        client.send(call("shop.add"))
        return any(type(one) is Denied for one in door.events)

    door.until(lambda: door.frontend.by_name[peer].permit.rights.nodes == ("x.*",))
    door.events.clear()
    door.until(is_denied)
    assert door.gone == [], "its connection goes on"


def test_a_list_that_can_not_be_trusted_lets_nobody_in(
    door: Door, sockets: RawSockets, keys: Keys, ada: PrivateKey
) -> None:
    dealer(sockets, door.endpoint, ada).send(call("shop.add"))
    peer = door.next(Received).peer
    keys.folder.clients.chmod(0o777)
    door.until(lambda: door.gone == [peer])


def test_a_chosen_routing_id_gets_nothing_but_that_answer(
    door: Door, sockets: RawSockets, ada: PrivateKey, audited: Audited
) -> None:
    dealer(sockets, door.endpoint, ada, ROUTING_ID=b"mine").send(call("shop.add"))
    assert door.next(Denied).error.message == CHOSEN_ROUTING_ID
    assert audited()[0]["reason"] == CHOSEN_ROUTING_ID


def test_a_stolen_routing_id_has_the_rights_of_the_key_that_shows_it(
    door: Door, sockets: RawSockets, keys: Keys, ada: PrivateKey
) -> None:
    """The first client has gone before the second comes with its id, and was not missed yet."""
    bob = keys.add("bob", nodes=("x.*",))
    first = dealer(sockets, door.endpoint, ada, ROUTING_ID=b"same")
    first.send(call("shop.add"))
    peer = door.next(Denied).peer
    first.close(linger=0)
    door.until(lambda: door.gone == [peer])
    dealer(sockets, door.endpoint, bob, ROUTING_ID=b"same").send(call("x.add"))
    denied = door.next(Denied)
    assert denied.peer != peer
    assert door.frontend.by_name[denied.peer].entry.name == "bob"


@pytest.mark.parametrize(
    "how",
    ["wrong key", "revoked", "revoked before", "another node", "right withdrawn", "chosen id"],
)
def test_all_that_is_refused_is_refused_and_audited_within_a_second(
    how: str, door: Door, sockets: RawSockets, keys: Keys, ada: PrivateKey, audited: Audited
) -> None:
    key, options, reason = ada, {}, "key has no right"
    if how in ("revoked", "right withdrawn"):  # on a connection that is open
        open_ = dealer(sockets, door.endpoint, ada)
        open_.send(call("shop.add"))
        peer = door.next(Received).peer
    begun = monotonic()
    if how == "wrong key":
        key, reason = new_key(keys.server.public), "its key is not"
    elif how.startswith("revoked"):
        keys.folder.remove("ada")
        reason = "its key was revoked" if how == "revoked" else "its key is not"
    elif how == "right withdrawn":
        keys.set_rights("ada", nodes=("x.*",))
        door.until(
            lambda: door.frontend.by_name[peer].permit.rights.nodes == ("x.*",), REFUSED_WITHIN_S
        )
    elif how == "chosen id":
        options, reason = {"ROUTING_ID": b"mine"}, CHOSEN_ROUTING_ID
    if how == "revoked":
        door.until(lambda: door.gone == [peer], REFUSED_WITHIN_S)
    elif how == "right withdrawn":
        open_.send(call("shop.add"))
    else:
        name = "x.add" if how == "another node" else "shop.add"
        dealer(sockets, door.endpoint, key, **options).send(call(name))
    door.until(lambda: any(reason in line["reason"] for line in audited()), REFUSED_WITHIN_S)
    assert monotonic() - begun < REFUSED_WITHIN_S
    assert not any(isinstance(event, Received) for event in door.events)


def test_a_client_that_has_gone_is_missed(door: Door, sockets: RawSockets, ada: PrivateKey) -> None:
    client = dealer(sockets, door.endpoint, ada)
    client.send(call("shop.add"))
    peer = door.next(Received).peer
    client.close(linger=0)
    door.until(lambda: door.gone == [peer])
    assert door.frontend.by_name == {}


def test_mute_connections_make_room_for_clients(
    keys: Keys, ada: PrivateKey, sockets: RawSockets, audited: Audited
) -> None:
    door = Door(keys, connections=4)
    port = int(door.endpoint.rpartition(":")[2])
    mute = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    try:
        dealer(sockets, door.endpoint, ada).send(call("shop.add"))
        assert door.next(Received).message.node == "shop.add"
        door.until(audited)
        assert "there are too many" in {line["reason"] for line in audited()}
        assert select.select(mute, [], [], PATIENCE_S)[0], "the oldest were closed"
    finally:
        for one in mute:
            one.close()
        door.close()


def test_who_sends_much_before_a_key_was_shown_is_cut_off_and_no_other(
    door: Door,
    sockets: RawSockets,
    ada: PrivateKey,
    audited: Audited,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pronghorn.broker.connections.STRANGERS_BYTES", 100_000)
    client = dealer(sockets, door.endpoint, ada)
    client.send(call("shop.add"))
    door.next(Received)
    port = int(door.endpoint.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port)) as mute,
        socket.create_connection(("127.0.0.1", port)) as greedy,
    ):
        greedy.sendall(GREETING + LONG_COMMAND + bytes(LIMITS.request_bytes) + bytes(60_000))
        door.until(audited)
        [line] = audited()
        assert line["reason"] == "it sends much before it has shown a key"
        greedy.settimeout(PATIENCE_S)
        assert drained(greedy) == 64, "after the greeting there is only the end"
        assert len(mute.recv(100)) > 0, "it is still greeted"
    client.send(call("shop.add"))
    assert door.next(Received).message.node == "shop.add"


def drained(connection: socket.socket) -> int:
    """Read to the end; returns how many bytes that were."""
    total = 0
    with suppress(ConnectionResetError):
        while data := connection.recv(1000):
            total += len(data)
    return total


def test_what_is_looked_at_ends_with_the_handshakes(door: Door, sockets: RawSockets) -> None:
    assert door.frontend.look_due == inf
    port = int(door.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        door.until(lambda: door.frontend.look_due < inf)
        door.frontend.look(monotonic() + 60)
        assert door.frontend.look_due == inf


def test_a_frame_over_the_limit_ends_the_connection(
    door: Door, sockets: RawSockets, ada: PrivateKey
) -> None:
    client = dealer(sockets, door.endpoint, ada)
    client.send(call("shop.add"))
    peer = door.next(Received).peer
    client.send(bytes(LIMITS.socket_message_bytes + 1))
    door.until(lambda: door.gone == [peer])


def test_without_a_key_of_its_own_there_is_none(tmp_path: Path, keys: Keys) -> None:
    (keys.folder.path / "server.key").unlink()
    with pytest.raises(InvalidArgumentError, match=r"can't read .*server\.key"):
        Door(keys)
