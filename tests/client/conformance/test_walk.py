"""Mirror of client/conformance/walk.py: what it answers, and what it notices."""

from typing import Any

import msgspec
import pytest
from msgspec.msgpack import decode, encode

from pronghorn.client.conformance.walk import (
    ACKS,
    ANSWERED,
    CREDIT,
    GOODBYE,
    GRANT,
    HELLO,
    IDS,
    READABLE,
    STEPS,
    WalkBroker,
    step_findings,
)

PEER = b"peer"


class Client:
    """A client of the walk's broker, at a time that stands still."""

    def __init__(self) -> None:
        self.broker = WalkBroker()
        self.now = 0.0

    def say(self, *frames: Any, peer: bytes = PEER) -> list[Any]:
        """Send a message; returns the replies, decoded, bundles taken apart."""
        data = [one if isinstance(one, bytes) else encode(one) for one in frames]
        return self.read(self.broker.take(peer, data, self.now))

    def read(self, messages: list[list[bytes]]) -> list[Any]:
        found: list[Any] = []
        for peer, *frames in messages:
            assert peer == PEER
            last = frames[-1]
            message: Any = msgspec.json.decode(last) if last[:1] == b"{" else last and decode(last)
            is_bundle = isinstance(message, list) and message[0] == 56
            found += message[1] if is_bundle else [message]
        return found

    def json(self, id_: Any, method: str, params: Any = None, **more: Any) -> list[Any]:
        request = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params, **more}
        return self.say(msgspec.json.encode(request))

    def wrong(self) -> dict[str, str]:
        return {one.name: one.reason for one in self.broker.findings() if one.verdict == "failed"}


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_good_session_has_no_findings(client: Client) -> None:
    [greeting] = client.say(b"")
    assert greeting[:2] == [48, None]
    pong, welcome = client.say([33, 0, "c"])
    assert (pong[:2], welcome[:2]) == ([54, None], [48, 0])
    assert client.say([35, 1, "add", {"a": 1, "b": 2}]) == [[49, 1, 3, 0, "further"]]
    parts = client.say([35, 2, "count", [3], {"stream": [2, None]}])
    assert [part[:4] for part in parts] == [[51, 2, 0, 0], [51, 2, 1, 1]]
    assert [reply[0] for reply in client.say([38, 2, 2])] == [51, 49]
    assert client.say([35, 3, "wait"]) == []
    assert client.say([37, 3])[0][:3] == [53, 3, "CANCELLED"]
    assert client.say([35, 4, "divide", [1, 0]])[0][2] == "NODE_ERROR"
    assert client.say([35, 5, "other"])[0][2] == "NOT_FOUND"
    assert client.say([35, 6, "count", [3]]) == [[49, 6, [0, 1, 2], 0, "further"]]
    assert client.say([36, 7, "add", [None]])[0][:2] == [50, 7]
    assert client.say([40, 8])[0][:2] == [54, 8]
    assert client.say([39, 7]) == []
    assert client.say([34]) == []
    assert client.wrong() == {}


def test_sessions_get_bundles_and_strangers_do_not(client: Client) -> None:
    [message] = client.broker.take(PEER, [encode([35, 1, "add", [1, 2]])], 0.0)
    assert decode(message[1])[0] == 49
    client.say([33, 0])
    [message] = client.broker.take(PEER, [encode([35, 1, "add", [1, 2]])], 0.0)
    assert decode(message[1]) == [56, [[49, 1, 3, 0, "further"]]]


def test_time_ends_a_call(client: Client) -> None:
    assert client.say([35, 1, "wait", None, {"timeout_ms": 50}]) == []
    assert client.broker.next_due() == pytest.approx(0.05)
    assert client.read(client.broker.tick(0.04)) == []
    assert client.read(client.broker.tick(0.06))[0][:3] == [53, 1, "DEADLINE_EXCEEDED"]
    assert client.broker.next_due() is None


def test_json_and_envelopes(client: Client) -> None:
    assert client.json(1, "add", [1, 2])[0]["result"] == 3
    assert client.json(2, "wait") == []
    cancelled, done = client.json(3, "pronghorn.cancel", {"id": 2})
    assert (cancelled["error"]["data"]["code"], done["result"]) == ("CANCELLED", True)
    assert client.json(4, "pronghorn.cancel", {"id": 2})[0]["result"] is False
    assert client.say(b"", b'{"jsonrpc":"2.0","method":"add"}') == [b""]
    [message] = client.broker.take(PEER, [b"hop", b"", encode([40, 1])], 0.0)
    assert message[:3] == [PEER, b"hop", b""]
    assert client.wrong() == {}


def test_hello_is_missed_after_a_loss(client: Client) -> None:
    client.say([33, 0])
    client.broker.lose()
    client.say([35, 1, "add", [1, 2]])
    assert client.wrong() == {HELLO: "it calls without"}


def test_goodbye_is_missed(client: Client) -> None:
    client.say([33, 0])
    assert list(client.wrong()) == [GOODBYE]


@pytest.mark.parametrize(
    ("messages", "name"),
    [
        ([b"\xc1"], READABLE),
        ([[41, 1, "flow", None]], READABLE),
        ([[35, 1, "add", [1, 2], {"value_ref": "x"}]], READABLE),
        ([[35, 1, "wait"], [35, 1, "add", [1, 2]]], IDS),
        ([[35, number, "wait"] for number in range(5)], GRANT),
        ([[33, 0], *([35, number, "add", [1, 2]] for number in range(9)), [34]], GRANT),
        ([[33, 0], [39, 1], [34]], ACKS),
        ([[39, 0]], ACKS),
        ([[35, 1, "count", [9], {"stream": [1, None]}], [38, 1, -1]], CREDIT),
        ([[35, 1, "count", [9], {"stream": [1, None]}], [38, 1, 1, 100]], CREDIT),
        ([[35, 1, "count", [9], {"stream": [1, 100]}], [38, 1, 1]], CREDIT),
        ([[35, 1, "count", [9], {"stream": [1, None]}], [38, 1, 99_999]], CREDIT),
    ],
)
def test_what_is_wrong_is_noticed(client: Client, messages: list[Any], name: str) -> None:
    for message in messages:
        client.say(message)
    assert list(client.wrong()) == [name]


def test_req_is_told_what_is_not_answered(client: Client) -> None:
    client.say(b"", [37, 1])
    assert list(client.wrong()) == [ANSWERED]


def test_steps_are_held_against_lines() -> None:
    lines = [step.line for step in STEPS]
    assert {one.verdict for one in step_findings(lines)} == {"passed"}
    lines[1] = "stream 3 parts, sum 3"
    found = step_findings(lines[:-1])
    assert [one.verdict for one in found].count("failed") == 2
    assert found[1].reason == "it prints 'stream 3 parts, sum 3', not 'stream 200 parts, sum 19900'"
    assert found[-1].reason == "it did not come to this, not 'again 3'"
