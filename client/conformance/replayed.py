"""Checks of a broker by the vectors: each is sent, and what has to be answered is.

A call is answered by a result or an error, whether its node is served or not.

Mirror: tests/client/conformance/test_broker.py.
"""

from collections import Counter
from typing import Any

import msgspec

from .findings import Check, Failure, expect_equal, shown
from .frames import ERROR, MAP_RESULT, PART, PONG, RESULT, TIMES, WELCOME
from .json import take
from .peers import Broker, Frames, Peer, decoded
from .vectors import Vector, load, unhex

_ANSWERS: dict[str, tuple[int, ...]] = {
    "hello": (WELCOME,),
    "probe": (WELCOME,),
    "ping": (PONG,),
    "call": (RESULT, ERROR),
    "map_chunk": (MAP_RESULT, ERROR),
    "run": (ERROR,),
    "subscribe": (ERROR,),
}
_UNASKED = (PART, TIMES, 52, 55)
_DEFAULTS = {"buffers": 64, "frames": 4104}  # limits that vectors go beyond


def check_requests(broker: Broker) -> None:
    """Each request gets its one answer, or none if its kind has none."""
    for vector in load("requests"):
        with _Naming(vector):
            peer = broker.dealer()
            peer.send(bytes.fromhex(vector["frame"]))
            meaning = vector["meaning"]
            kinds = _ANSWERS.get(meaning["kind"], ())
            if meaning.get("id") is not None:
                _expect_answers(peer, [(meaning["id"], kinds)] if kinds else [])
            else:
                expect_equal(peer.until_pong(), [], "the answer")
            broker.hang_up()


def check_messages(broker: Broker) -> None:
    """All requests of a message are answered in its envelope."""
    for vector in load("messages"):
        with _Naming(vector):
            peer = broker.dealer()
            peer.send(*unhex(vector["frames"]))
            envelope = unhex(vector["envelope"])
            found: Counter[Any] = Counter()
            for _ in vector["requests"]:
                frames = peer.wire.receive()
                expect_equal(frames[: len(envelope)], envelope, "the envelope")
                found[_id_of(frames[len(envelope) :])] += 1
            wanted = Counter(
                1 if one["kind"] == "json" else one.get("id") for one in vector["requests"]
            )
            expect_equal(found, wanted, "the ids of the answers")
            expect_equal(peer.until_pong(), [], "what else is answered")
            broker.hang_up()


def check_malformed(broker: Broker) -> None:
    """Each mistake is answered once, by the error that it is."""
    for vector in load("malformed"):
        errors = vector["errors"]
        limits = {error["limit"] for error in errors if "limit" in error}
        ours = {broker.limits[name] for name, value in _DEFAULTS.items() if value in limits}
        if limits - ours:
            continue  # this broker has other limits than those that the vectors are for
        with _Naming(vector):
            peer = broker.dealer()
            peer.send(*unhex(vector["frames"]))
            wanted = Counter((error["id"], error["code"]) for error in errors)
            found: Counter[Any] = Counter()
            for _ in range(len(errors) + vector.get("requests_served", 0)):
                frames = peer.wire.receive()
                reply = _without_envelope(frames)
                if reply[0] == ERROR and (reply[1], reply[2]) in wanted:
                    found[reply[1], reply[2]] += 1
                    expect_equal(reply[4].get("outcome"), "not_started", "the outcome")
            expect_equal(found, wanted, "the errors")
            expect_equal(peer.until_pong(), [], "what else is answered")
            broker.hang_up()


def check_json(broker: Broker) -> None:
    """Each request in JSON gets its response object."""
    for vector in load("jsonrpc", "requests"):
        with _Naming(vector):
            peer = broker.dealer()
            peer.send(vector["text"].encode())
            answered = [one for one in vector["requests"] if "notification" not in one]
            if answered:
                reply = take(peer)
                replies = reply if vector["batch"] else [reply]
                wanted = sorted(repr((one["id"], one.get("error"))) for one in answered)
                found = sorted(repr((one["id"], _number(one, answered))) for one in replies)
                expect_equal(found, wanted, "ids and errors of the answers")
            expect_equal(peer.until_pong(), [], "what else is answered")
            broker.hang_up()


def _number(reply: Any, requests: list[Vector]) -> int | None:
    """Give the number of an error that is due to the request's form, not to its node."""
    number: int | None = reply.get("error", {}).get("code")
    return number if number in {one.get("error") for one in requests} else None


def _expect_answers(peer: Peer, wanted: list[tuple[Any, tuple[int, ...]]]) -> None:
    for id_, kinds in wanted:
        while (reply := peer.reply())[0] in _UNASKED:
            expect_equal(reply[1], id_, "the id of what comes before the reply")
        if reply[1] != id_ or reply[0] not in kinds:
            raise Failure(f"the answer is {shown(reply)}")
    expect_equal(peer.until_pong(), [], "what else is answered")


def _without_envelope(frames: Frames) -> list[Any]:
    return decoded(frames[frames.index(b"") + 1 if b"" in frames else 0])


def _id_of(frames: Frames) -> Any:
    """Give the id of a reply, in msgpack or JSON."""
    if frames[0][:1] == b"{":
        return msgspec.json.decode(frames[0])["id"]
    return _without_envelope(frames)[1]


class _Naming:
    """Puts the name of a vector before what is found wrong."""

    def __init__(self, vector: Vector) -> None:
        self._name = vector["name"]

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, Failure):
            raise Failure(f"vector {self._name!r}: {error}") from error


CHECKS: tuple[Check[Broker], ...] = (
    Check("vectors: requests", 5, check_requests),
    Check("vectors: messages", 3, check_messages),
    Check("vectors: malformed", 14, check_malformed),
    Check("vectors: JSON-RPC", 7, check_json),
)
