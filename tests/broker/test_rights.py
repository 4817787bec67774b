"""Mirror of broker/rights.py."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from pronghorn.broker.events import Denied, Event, Origin, Probed, Received, ReceivedJson
from pronghorn.broker.rights import CHOSEN_ROUTING_ID, Gatekeeper, Permit
from pronghorn.broker.wire.errors import PermissionDeniedError
from pronghorn.broker.wire.jsonrpc import JsonRequest
from pronghorn.broker.wire.keys import Rights
from pronghorn.broker.wire.link import CODEC_JSON
from pronghorn.broker.wire.messages import NIL, Ack, Call, Cancel, Hello, MapChunk, Run

PEER = b"peer"
NAMES = {"add": "shop.add", "shop.add": "shop.add", "shop.pay": "shop.pay", "x.add": "x.add"}
KEEPER = Gatekeeper(NAMES.get)
JSON = Origin((), CODEC_JSON, False, 0)


def call(name: str) -> Received:
    return Received(PEER, Call(5, name, NIL), 10)


def chunk(name: str) -> Received:
    return Received(PEER, MapChunk(5, name, Raw(b"\x90")), 10)


def as_json(name: str, id_: Any = 5) -> ReceivedJson:
    return ReceivedJson(PEER, JsonRequest("2.0", name, Raw(b"{}"), id_), 10, JSON)


def allowed(event: Event, rights: Rights) -> bool:
    return KEEPER.check(event, Permit(rights)) is None


def run(name: str) -> Received:
    return Received(PEER, Run(5, name, NIL), 10)


def start(name: str) -> Received:
    params = Raw(msgspec.msgpack.encode({"node": name}))
    return Received(PEER, Call(5, "pronghorn.run.start", params), 10)


def start_as_json(name: str) -> ReceivedJson:
    params = Raw(msgspec.json.encode({"node": name, "params": {}}))
    return ReceivedJson(PEER, JsonRequest("2.0", "pronghorn.run.start", params, 5), 10, JSON)


def test_a_start_that_can_not_be_read_is_for_the_core_to_tell() -> None:
    assert allowed(call("pronghorn.run.start"), Rights(nodes=()))


@pytest.mark.parametrize("make", [call, chunk, as_json, run, start, start_as_json])
def test_patterns_are_held_against_full_names(make: Any) -> None:
    shop = Rights(nodes=("shop.*",))
    assert allowed(make("add"), shop), "a short name stands for the node"
    assert allowed(make("shop.pay"), shop)
    assert not allowed(make("x.add"), shop)
    assert not allowed(make("shop.pay"), Rights(nodes=("shop.add", "x.*")))
    assert allowed(make("x.add"), Rights(nodes=("shop.add", "x.*")))
    assert allowed(make("x.add"), Rights())
    assert not allowed(make("x.add"), Rights(nodes=()))


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [("*.add", True), ("shop.a*d", True), ("shop", False), ("shop.ad", False), ("s.*", False),
     ("SHOP.*", False), ("shop?add", False), ("[s]hop.add", False), ("*", True), ("**", True)],
)  # fmt: skip
def test_a_star_is_all_that_is_special(pattern: str, fits: bool) -> None:
    assert Permit(Rights(nodes=(pattern,))).may_call("shop.add") is fits


@pytest.mark.parametrize(
    ("name", "plain", "reads", "administers"),
    [
        ("pronghorn.nodes", True, True, True),
        ("pronghorn.stats", False, True, True),
        ("pronghorn.workers", False, True, True),
        ("pronghorn.scale", False, False, True),
        ("pronghorn.reload", False, False, True),
        ("pronghorn.recycle", False, False, True),
        ("pronghorn.drain", False, False, True),
        ("pronghorn.unheard", False, False, False),
        ("pronghorn.run.status", True, True, True),
        ("pronghorn.run.cancel", True, True, True),
        ("pronghorn.run.retry", False, False, True),
    ],
)
def test_our_own_calls_need_rights_of_their_own(
    name: str, plain: bool, reads: bool, administers: bool
) -> None:
    assert allowed(call(name), Rights()) is plain
    assert allowed(as_json(name), Rights()) is plain
    assert allowed(call(name), Rights(reads=True)) is reads
    assert allowed(call(name), Rights(nodes=(), administers=True)) is administers


@pytest.mark.parametrize("name", ["pronghorn.run", "pronghorn.follow", "pronghorn.control"])
def test_runs_are_for_who_may_call_every_node(name: str) -> None:
    assert allowed(call(name), Rights())
    assert not allowed(call(name), Rights(nodes=("shop.*", "**"), administers=True))


def test_of_an_unknown_name_the_core_says_that_it_is_none() -> None:
    assert allowed(call("nowhere"), Rights(nodes=()))


@pytest.mark.parametrize(
    "event",
    [
        Probed(PEER),
        Received(PEER, Hello(1, "c"), 1),
        Received(PEER, Cancel(1), 1),
        Received(PEER, Ack(3), 1),
        as_json("pronghorn.cancel"),
        as_json("pronghorn.ping"),
    ],
)
def test_all_else_is_everybodys(event: Event) -> None:
    assert allowed(event, Rights(nodes=()))


def test_a_refusal_has_the_request_that_it_is_for() -> None:
    denied = KEEPER.check(as_json("shop.pay"), Permit(Rights(nodes=())))
    assert isinstance(denied, Denied)
    assert (denied.peer, denied.id, denied.origin) == (PEER, 5, JSON)
    assert isinstance(denied.error, PermissionDeniedError)
    assert denied.error.details.node == "shop.pay"
    assert "no right to call shop.pay" in denied.error.message
    notification = KEEPER.check(as_json("shop.pay", UNSET), Permit(Rights(nodes=())))
    assert notification is not None
    assert notification.id is None


def test_a_permit_without_a_use_refuses_all_calls() -> None:
    permit = Permit(Rights(administers=True), CHOSEN_ROUTING_ID)
    for event in (call("shop.add"), call("pronghorn.nodes"), call("nowhere"), as_json("add")):
        denied = KEEPER.check(event, permit)
        assert denied is not None
        assert denied.error.message == CHOSEN_ROUTING_ID
