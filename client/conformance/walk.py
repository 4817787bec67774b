"""A broker for one client that takes the walk of scripts/examples/clients. Pure.

It keeps to PROTOCOL.md in ways that a client may not have thought of: grants of a few requests,
replies to a session always in a bundle and its header wider than need be, further elements, keys
and members that nobody has heard of, a pong that nobody asked for. And it writes down what the
client does that PROTOCOL.md does not allow.

Mirror: tests/client/conformance/test_walk.py.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.msgpack import decode, encode

from pronghorn.broker.events import Event, Malformed, Origin, Probed, Received, ReceivedJson
from pronghorn.broker.ingress import Ingress
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.messages import (
    NO_OPTIONS,
    Ack,
    Call,
    Cancel,
    Credit,
    Goodbye,
    Hello,
    MapChunk,
    Options,
    Ping,
    Run,
    Subscribe,
)

from .findings import Finding


class Step(NamedTuple):
    """A step of the walk: its name, the section that it is about, and the line that it prints."""

    name: str
    section: int
    line: str


STEPS = (
    Step("call", 5, "call 3"),
    Step("stream", 10, "stream 200 parts, sum 19900"),
    Step("cancel", 11, "cancel CANCELLED"),
    Step("deadline", 11, "deadline DEADLINE_EXCEEDED"),
    Step("error", 12, "error NODE_ERROR ZeroDivisionError"),
    Step("open", 15, "open"),
    Step("reconnect", 15, "lost BROKER_LOST"),
    Step("again", 15, "again 3"),
)
OPEN = "open"
"""What a client prints when it has a call open and waits for the loss of its broker."""

READABLE = "all that it sends can be read"
IDS = "ids of open requests differ"
GRANT = "it keeps to the grant"
ACKS = "acks tell how many replies came"
CREDIT = "credit is right"
ANSWERED = "over REQ it sends only what is answered"
HELLO = "hello is said again on a new connection"
GOODBYE = "a session ends with goodbye"
_SECTIONS = {
    READABLE: 3,
    IDS: 4,
    GRANT: 10,
    ACKS: 10,
    CREDIT: 10,
    ANSWERED: 5,
    HELLO: 15,
    GOODBYE: 5,
}
"""What is looked at all the time -> section of PROTOCOL.md."""

_LIMITS = Limits(grant_requests=8, stranger_requests=4)
_KINDS_UNANSWERED = (Goodbye, Cancel, Credit, Ack)
_BUNDLE_START = b"\x92\x38\xdd\x00\x00\x00"
_JSON_NUMBERS = {
    "NOT_FOUND": -32601,
    "UNIMPLEMENTED": -32601,
    "INVALID_ARGUMENT": -32602,
    "NODE_ERROR": -32000,
    "DEADLINE_EXCEEDED": -32001,
    "CANCELLED": -32002,
    "RESOURCE_EXHAUSTED": -32003,
}

Frames = list[bytes]


class _Open:
    """A request that has no terminal reply yet."""

    __slots__ = ("items", "origin", "parts", "sent", "takes_bytes", "until")

    def __init__(self, origin: Origin | None, until: float | None) -> None:
        self.origin = origin
        self.until = until  # when its time is over
        self.parts = 0  # how many it has
        self.sent = 0  # how many of them were sent
        self.items = 0  # for how many there is credit
        self.takes_bytes = True  # whether the client counts their bytes


class _Session:
    """What is known of one connection."""

    __slots__ = ("acked", "hello", "is_req", "left", "open", "replies")

    def __init__(self) -> None:
        self.hello = False
        self.left = False  # whether it has said goodbye
        self.is_req = False
        self.replies = 0  # since the welcome to its hello
        self.acked = 0
        self.open: dict[Any, _Open] = {}  # id, with whether it is JSON -> request


class WalkBroker:
    """All lives of the broker: `lose` ends one and begins the next."""

    def __init__(self) -> None:
        self._ingress = Ingress(_LIMITS)
        self._sessions: dict[bytes, _Session] = {}  # routing id -> connection of this life
        self._life = 1
        self._had_hello = False  # whether hello was said in an earlier life
        self._has_hello = False  # or ever
        self._wrong: dict[str, str] = {}  # what is looked at -> the first thing that was wrong
        self._out: list[Frames] = []  # messages to be sent, the routing id first

    def take(self, peer: bytes, frames: Sequence[bytes], now: float) -> list[Frames]:
        """Take in a message; returns what is to be sent, each with the routing id before it."""
        for event in self._ingress.parse(peer, frames):
            self._handle(peer, event, now)
        return self._sent()

    def tick(self, now: float) -> list[Frames]:
        """End what is out of time; returns what is to be sent."""
        for peer, session in self._sessions.items():
            for key, request in list(session.open.items()):
                if request.until is not None and request.until <= now:
                    self._fail(peer, session, key, "DEADLINE_EXCEEDED", "maybe_executed")
        return self._sent()

    def next_due(self) -> float | None:
        """Tell when the next request is out of time."""
        times = [
            request.until
            for session in self._sessions.values()
            for request in session.open.values()
            if request.until is not None
        ]
        return min(times, default=None)

    def lose(self) -> None:
        """Forget everything, as a broker does that has ended, and begin anew."""
        self._had_hello = self._has_hello
        self._sessions.clear()
        self._life += 1

    def findings(self) -> list[Finding]:
        """Say what was right and what was wrong, once the client has ended."""
        if any(session.hello and not session.left for session in self._sessions.values()):
            self._note(GOODBYE, "it has ended without")
        found = []
        for name, section in _SECTIONS.items():
            if name in self._wrong:
                found.append(Finding(name, section, "failed", self._wrong[name]))
            elif name in (ACKS, HELLO, GOODBYE) and not self._has_hello:
                found.append(Finding(name, section, "skipped", "it never says hello"))
            else:
                found.append(Finding(name, section, "passed"))
        return found

    # --- what comes ------------------------------------------------------------------------------

    def _handle(self, peer: bytes, event: Event, now: float) -> None:
        session = self._sessions.setdefault(peer, _Session())
        if isinstance(event, Probed):
            self._out.append([peer, encode([48, None, self._info(), "further"])])
        elif isinstance(event, Malformed):
            self._note(READABLE, event.error.message)
            error = event.error
            reply = [53, error.id, error.code, error.message, {"outcome": "not_started"}]
            self._out.append([peer, *_envelope(event.origin), encode(reply)])
        elif isinstance(event, ReceivedJson):
            session.is_req |= bool(event.origin.envelope)
            self._take_json(peer, session, event, now)
        elif isinstance(event, Received):
            session.is_req |= event.origin is not None
            self._take_msgpack(peer, session, event, now)

    def _take_msgpack(self, peer: bytes, session: _Session, event: Received, now: float) -> None:
        message, origin = event.message, event.origin
        if session.is_req and isinstance(message, _KINDS_UNANSWERED):
            self._note(ANSWERED, f"it sends {type(message).__name__.lower()}")
        match message:
            case Hello():
                session.hello = self._has_hello = True
                session.left = False
                session.replies = session.acked = 0
                self._out.append([peer, encode([54, None, self._epoch()])])
                welcome = encode([48, message.id, self._info(), "further"])
                self._out.append([peer, *_envelope(origin), welcome])
            case Goodbye():
                session.left = True
                session.hello = False
                session.open.clear()
            case Ping():
                pong = encode([54, message.id, self._epoch(), "further"])
                self._out.append([peer, *_envelope(origin), pong])
            case Ack():
                self._take_ack(session, message)
            case Cancel():
                if (False, message.id) in session.open:
                    self._fail(peer, session, (False, message.id), "CANCELLED", "maybe_executed")
            case Credit():
                self._take_credit(peer, session, message)
            case Run() | Subscribe():
                self._note(READABLE, f"{type(message).__name__.lower()} is reserved")
                self._refuse(peer, session, (False, message.id), origin, "UNIMPLEMENTED")
            case Call() | MapChunk():
                key = (False, message.id)
                options = message.options or NO_OPTIONS
                if not self._admits(peer, session, key, origin, options):
                    return
                if isinstance(message, MapChunk):
                    values = decode(message.items)
                    self._reply(peer, session, key, [50, message.id, [None] * len(values)])
                    return
                self._begin(peer, session, key, message.node, decode(message.params), options, now)

    def _take_json(self, peer: bytes, session: _Session, event: ReceivedJson, now: float) -> None:
        request, origin = event.request, event.origin
        if request.is_notification:
            if origin.envelope:
                self._out.append([peer, *origin.envelope, b""])
            return
        key = (True, request.id)
        params = msgspec.json.decode(request.params)
        if request.method == "pronghorn.cancel":
            target = (True, (params or {}).get("id"))
            is_open = target in session.open
            if is_open:
                self._fail(peer, session, target, "CANCELLED", "maybe_executed")
            session.open[key] = _Open(origin, None)
            self._result(peer, session, key, is_open)
        elif self._admits(peer, session, key, origin, request.options):
            self._begin(peer, session, key, request.method, params, request.options, now)

    def _admits(
        self,
        peer: bytes,
        session: _Session,
        key: Any,
        origin: Origin | None,
        options: Options,
    ) -> bool:
        """Whether a request may be: if not it is refused."""
        if self._had_hello and not session.hello:
            self._note(HELLO, "it calls without")
        if key[1] is not None and key in session.open:
            self._note(IDS, f"{key[1]!r} is open already")
            self._refuse(peer, session, key, origin, "INVALID_ARGUMENT")
            return False
        if options.value_ref is not None:
            self._note(READABLE, "value_ref is reserved")
            self._refuse(peer, session, key, origin, "UNIMPLEMENTED")
            return False
        held = len(session.open) + (session.replies - session.acked if session.hello else 0)
        grant = _LIMITS.grant_requests if session.hello else _LIMITS.stranger_requests
        if held >= grant:
            self._note(
                GRANT, f"it has {held} requests open or not acknowledged, and {grant} granted"
            )
            self._refuse(peer, session, key, origin, "RESOURCE_EXHAUSTED")
            return False
        session.open[key] = _Open(origin, None)
        return True

    def _take_ack(self, session: _Session, message: Ack) -> None:
        if not session.hello:
            self._note(ACKS, "it acknowledges without hello")
        elif not session.acked <= message.replies <= session.replies:
            said = f"ack of {message.replies} after one of {session.acked}"
            self._note(ACKS, f"{said}, and {session.replies} replies")
        else:
            session.acked = message.replies

    def _take_credit(self, peer: bytes, session: _Session, message: Credit) -> None:
        request = session.open.get((False, message.id))
        if request is None:
            return  # it has ended meanwhile
        if min(message.items, message.bytes or 0, message.events) < 0 or not message.items:
            self._note(CREDIT, f"credit of {message.items} parts and {message.bytes} bytes")
        elif (message.bytes is not None) != request.takes_bytes:
            self._note(CREDIT, "bytes are counted in another way than the call has begun with")
        elif request.items + message.items > _LIMITS.grant_parts:
            self._note(CREDIT, f"credit of {request.items + message.items} parts is too much")
        request.items += message.items
        self._send_parts(peer, session, (False, message.id))

    # --- what nodes do ---------------------------------------------------------------------------

    def _begin(
        self,
        peer: bytes,
        session: _Session,
        key: Any,
        node: str,
        params: Any,
        options: Options,
        now: float,
    ) -> None:
        request = session.open[key]
        if options.timeout_ms is not None:
            request.until = now + options.timeout_ms / 1000
        name = node.removeprefix("nodes.")
        if name == "add":
            a, b = _arguments(params, "a", "b")
            self._result(peer, session, key, a + b)
        elif name == "divide":
            more = {"exception": "ZeroDivisionError", "node": "nodes.divide"}
            self._fail(peer, session, key, "NODE_ERROR", "executed", more)
        elif name == "count":
            (request.parts,) = _arguments(params, "n")
            if options.stream is None:
                self._result(peer, session, key, list(range(request.parts)))
                return
            request.items, bytes_ = options.stream
            request.takes_bytes = bytes_ is not None
            self._send_parts(peer, session, key)
        elif name != "wait":
            self._fail(peer, session, key, "NOT_FOUND", "not_started")

    def _send_parts(self, peer: bytes, session: _Session, key: Any) -> None:
        """Send as many parts as there is credit for, and the result behind the last one."""
        request = session.open[key]
        while request.items > 0 and request.sent < request.parts:
            self._send(peer, session, request.origin, [51, key[1], request.sent, request.sent, 0])
            request.items -= 1
            request.sent += 1
        if request.sent == request.parts:
            self._result(peer, session, key, None)

    # --- what goes -------------------------------------------------------------------------------

    def _result(self, peer: bytes, session: _Session, key: Any, value: Any) -> None:
        is_json, id_ = key
        if is_json:
            reply: Any = {"invented": None, "result": value, "id": id_, "jsonrpc": "2.0"}
        else:
            reply = [49, id_, value, 0, "further"]
        self._reply(peer, session, key, reply)

    def _fail(
        self,
        peer: bytes,
        session: _Session,
        key: Any,
        code: str,
        outcome: str,
        more: dict[str, Any] | None = None,
    ) -> None:
        is_json, id_ = key
        details = {"invented": [1], "outcome": outcome, **(more or {})}
        message = f"conformance: {code}"
        if is_json:
            data = {"code": code, **details}
            error = {"message": message, "data": data, "code": _JSON_NUMBERS[code]}
            reply: Any = {"id": id_, "error": error, "jsonrpc": "2.0", "invented": {}}
        else:
            reply = [53, id_, code, message, details, "further"]
        self._reply(peer, session, key, reply)

    def _refuse(
        self, peer: bytes, session: _Session, key: Any, origin: Origin | None, code: str
    ) -> None:
        """Answer a request that is not admitted, whatever else is open."""
        others = session.open.get(key)
        session.open[key] = _Open(origin, None)
        self._fail(peer, session, key, code, "not_started", {"retryable": True})
        if others is not None:
            session.open[key] = others

    def _reply(self, peer: bytes, session: _Session, key: Any, reply: Any) -> None:
        """Send a terminal reply."""
        request = session.open.pop(key)
        if key[1] is None and not key[0]:
            return
        session.replies += 1
        self._send(peer, session, request.origin, reply)

    def _send(self, peer: bytes, session: _Session, origin: Origin | None, reply: Any) -> None:
        if isinstance(reply, dict):
            frame = msgspec.json.encode(reply)
        elif session.hello and origin is None:
            frame = _BUNDLE_START + b"\x01" + encode(reply)
        else:
            frame = encode(reply)
        self._out.append([peer, *_envelope(origin), frame])

    def _sent(self) -> list[Frames]:
        sent, self._out = self._out, []
        return sent

    def _info(self) -> dict[str, Any]:
        limits = {**msgspec.to_builtins(_LIMITS), "invented": 7}
        return {
            "invented": {"deeply": [None]},
            "version": 1,
            "epoch": self._epoch(),
            "server": "conformance/1",
            "pid": 0,
            "limits": limits,
        }

    def _epoch(self) -> str:
        return f"life {self._life}"

    def _note(self, name: str, reason: str) -> None:
        self._wrong.setdefault(name, reason)


def step_findings(lines: Sequence[str]) -> list[Finding]:
    """Hold what a client has printed against the lines of the walk."""
    found = []
    for index, (name, section, line) in enumerate(STEPS):
        printed = lines[index] if index < len(lines) else None
        if printed == line:
            found.append(Finding(f"walk: {name}", section, "passed"))
        else:
            said = "it did not come to this" if printed is None else f"it prints {printed!r}"
            found.append(Finding(f"walk: {name}", section, "failed", f"{said}, not {line!r}"))
    return found


def _envelope(origin: Origin | None) -> tuple[bytes, ...]:
    return origin.envelope if origin is not None else ()


def _arguments(params: Any, *names: str) -> list[int]:
    """Take integers by name or by position; what is missing is 0."""
    if isinstance(params, dict):
        return [params.get(name, 0) for name in names]
    given = params if isinstance(params, list) else []
    return [given[index] if index < len(given) else 0 for index in range(len(names))]
