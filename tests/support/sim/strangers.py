"""Clients that say no hello and write their own frames, in msgpack or JSON, well or badly."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.codec import decode_reply, encode_message
from pronghorn.broker.wire.messages import (
    Call,
    Cancel,
    Credit,
    Options,
    Ping,
    RequestId,
    Run,
    Subscribe,
    Welcome,
    bundle_requests,
)

from .connections import Connection
from .dice import Dice
from .nodes import DURABILITIES, NAMES, duration
from .oracle import Record

if TYPE_CHECKING:
    from .world import World

_IDS: tuple[RequestId, ...] = (1, 2, 3, "one", "two", 2**63, "x" * 200)
_ENVELOPES = ((), (), (b"",), (b"id", b""), (b"a", b"b", b""))
_TIMEOUTS_MS = (0.5, 5.0, 100.0, -1.0, 1e300)
_NONSENSE = (
    b"\x00",
    b"{",
    b"[]",
    b"[1, 2]",
    b'{"jsonrpc": "2.0", "method": 5, "id": 7}',
    b'{"jsonrpc": "2.0", "method": "pronghorn.cancel", "params": [["\xff"]], "id": 7}',
    b'{"jsonrpc": "2.0", "method": "pronghorn.cancel", "params": {"id": "\xff"}, "id": 7}',
    b"\x94\x23\x01\xa1",
    b"\x91\x23",
    b"\x92\xcc\xff\x01",
    b"\x93" * 500,
    encode_message(Call(1, "quick", Raw(b"\xc0"), Options(buffers=3))),
)


_Key = tuple[bool, RequestId]  # whether the request is in JSON, its id


class Stranger:
    """One peer without a session. What it sends with an id gets one reply each."""

    def __init__(self, world: "World", dice: Dice) -> None:
        self._world = world
        self._ids = 1000  # the id given out last
        self._missing: dict[_Key, int] = {}  # how many replies are to come
        # the call that the one reply of that key will be about; others are only counted
        self._calls: dict[_Key, Record] = {}
        self.connection: Connection | None = world.reach(self.on_message, self.lost, dice)

    def send(self, dice: Dice) -> None:
        """Send one message with a few requests."""
        if self.connection is None:
            return
        envelope = dice.choose(_ENVELOPES)
        if dice.chance(2):
            objects = [self._json(dice) for _ in range(1 + (0, 0, 3)[dice.below(3)])]
            body = objects[0] if len(objects) == 1 else objects
            requests = [msgspec.json.encode(body)]
        else:
            requests = [encode_message(self._msgpack(dice)) for _ in range(1 + dice.below(3))]
            if len(requests) > 1 and dice.chance(2):
                requests, envelope = [bundle_requests(requests)], ()
        self.connection.to_broker.send([*envelope, *requests])

    def flood(self, dice: Dice) -> None:
        """Send far more than is granted, and read nothing."""
        if self.connection is not None:
            self.connection.to_client.hold_until(float("inf"))
            for number in range(300):
                call = Call(number, "quick", _params(self._unwatched(dice)))
                self.connection.to_broker.send([encode_message(call)])

    def nonsense(self, dice: Dice) -> None:
        """Send what nobody can read, and be gone."""
        if self.connection is not None:
            for _ in range(1 + dice.below(3)):
                frames = [dice.choose(_NONSENSE) for _ in range(1 + dice.below(3))]
                self.connection.to_broker.send([*dice.choose(_ENVELOPES), *frames])
        self.vanish()

    def vanish(self) -> None:
        """End without a word."""
        self.lost("it vanishes")

    def lost(self, why: str) -> None:
        """Notice the end of the connection: nothing is waited for any more."""
        for record in self._calls.values():
            self._world.oracle.abandon(record)
        self._calls.clear()
        self._missing.clear()
        if self.connection is not None:
            self._world.disconnect(self.connection, lose=False)
            self.connection = None

    def on_message(self, frames: Sequence[bytes]) -> None:
        """Take in one message of the broker."""
        rest = list(frames)
        if b"" in rest:
            rest = rest[rest.index(b"") + 1 :]
        for frame in rest:
            if frame[:1] in (b"{", b"["):
                decoded = msgspec.json.decode(frame)
                for reply in decoded if isinstance(decoded, list) else [decoded]:
                    self._take_json(reply)
            elif frame:
                self._take_msgpack(decode_reply(frame))

    def check_drained(self) -> None:
        """Check that nothing is missing once everything has come to its end."""
        assert not any(self._missing.values()), f"no reply to {self._missing}"

    # --- requests -------------------------------------------------------------------------------

    def _json(self, dice: Dice) -> dict[str, Any]:
        kind = dice.below(12)
        request: dict[str, Any] = {"jsonrpc": "2.0"}
        if kind == 0:  # a notification
            return request | {"method": "quick", "params": {"uid": self._unwatched(dice).uid}}
        request["id"] = id_ = None if dice.chance(12) else self._id(dice)
        key = (True, id_)
        if kind == 1:
            self._expect(key)
            return request | {"method": "pronghorn.ping"}
        if kind == 2:
            self._expect(key)
            return request | {"method": "pronghorn.stats"}
        if kind == 3:
            self._expect(key)
            params = {"id": dice.choose([id_ for _, id_ in self._calls] or [5])}
            return request | {"method": "pronghorn.cancel", "params": params}
        record = self._call(key, dice)
        if dice.chance(5):
            request["timeout_ms"] = dice.choose(_TIMEOUTS_MS)
        return request | {"method": record.name, "params": {"uid": record.uid}}

    def _msgpack(self, dice: Dice) -> Any:
        kind = dice.below(12)
        if kind == 0:
            record = self._unwatched(dice)
            return Call(None, record.name, _params(record))
        if kind == 1:
            return Cancel(dice.choose([id_ for _, id_ in self._calls] or [5]))
        if kind == 5 and dice.chance(4):  # which ends a call that is open
            items = dice.choose((1, -1, 2**62))
            bytes_ = dice.choose((1, None))
            return Credit(dice.choose([id_ for _, id_ in self._calls] or [5]), items, bytes_)
        id_ = self._id(dice)
        key = (False, id_)
        if kind == 2:
            self._expect(key)
            return Ping(id_)
        if kind == 3:
            self._expect(key)
            return dice.choose((Run(id_, "flow"), Subscribe(id_, "topic")))
        record = self._call(key, dice)
        options = None
        if kind == 4:
            record.durability = dice.choose(DURABILITIES)
            options = Options(durability=record.durability)
        elif dice.chance(5):
            options = Options(timeout_ms=dice.choose(_TIMEOUTS_MS))
        return Call(id_, record.name, _params(record), options)

    def _id(self, dice: Dice) -> RequestId:
        if dice.chance(4):
            return dice.choose(_IDS)
        self._ids += 1
        return self._ids

    def _unwatched(self, dice: Dice) -> Record:
        """Make a call that nobody waits for."""
        record = self._world.oracle.open("quick", duration("quick", dice))
        self._world.oracle.abandon(record)
        return record

    def _call(self, key: _Key, dice: Dice) -> Record:
        name = dice.choose(NAMES)
        record = self._world.oracle.open(name, duration(name, dice))
        self._expect(key)
        if key[1] is None or self._missing[key] > 1:
            self._world.oracle.abandon(record)
        else:
            self._calls[key] = record
        return record

    def _expect(self, key: _Key) -> None:
        """Wait for a reply; of several to one id nobody can tell which is which."""
        self._missing[key] = self._missing.get(key, 0) + 1
        if self._missing[key] > 1 and key in self._calls:
            self._world.oracle.abandon(self._calls.pop(key))

    # --- replies --------------------------------------------------------------------------------

    def _take_json(self, reply: dict[str, Any]) -> None:
        record = self._count((True, reply["id"]))
        if record is None:
            return
        if "error" in reply:
            error = reply["error"]
            outcome, code = error["data"].get("outcome"), error["data"]["code"]
            self._world.oracle.tell_error(record, code, outcome, error["message"])
        else:
            self._world.oracle.tell_value(record, reply["result"])

    def _take_msgpack(self, reply: Any) -> None:
        if not isinstance(reply, Welcome):
            record = self._count((False, reply.id))
            if record is not None:
                self._world.oracle.tell(record, reply)

    def _count(self, key: _Key) -> Record | None:
        """Count a reply and return the call that it is about, if that is known."""
        assert self._missing.get(key), f"a reply to nothing: {key}"
        self._missing[key] -= 1
        return self._calls.pop(key, None)


def _params(record: Record) -> Raw:
    return Raw(msgspec.msgpack.encode({"uid": record.uid}))
