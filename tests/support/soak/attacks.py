"""What hostile clients send: frames that are wrong in each way that we know, and bad connections.

Each attack sends so many frames, or makes so many connections, and answers for nothing: what the
broker should have done is seen by who watches it. What is valid among what is sent is there to be
used wrongly: to be cut, repeated, and said in the wrong order.
"""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from time import monotonic, sleep
from typing import Any, NamedTuple

import zmq
from msgspec.msgpack import encode

from pronghorn.broker.wire.limits import KIB, Limits

LIMITS = Limits(request_bytes=64 * KIB, result_bytes=64 * KIB)
VICTIM = b"victim"
"""Routing id that the bystander has chosen, and others want to have."""

_FRAMES_PER_MESSAGE = 16
_MESSAGES_PER_PING = 16
_SOCKETS = 4
_PATIENCE_MS = 20_000
_LATE_S = 0.001  # what was missed of the pace is not made up for beyond this
_HELD = 200  # connections that are open at a time without a handshake

REQUESTS = [
    encode(message)
    for message in (
        [33, 0, "attacker", None],
        [35, 1, "add", {"a": 1, "b": 2}],
        [35, 2, "add", [1, 2], {"timeout_ms": 250}],
        [35, 3, "count", [5], {"stream": [2, 100]}],
        [35, 4, "count", [5], {"stream": [2, None]}],
        [35, 5, "wait", None, {"timeout_ms": 50}],
        [35, 6, "add", [1, 2], {"times": True, "priority": 3, "affinity": "x"}],
        [36, 7, "add", [[1, 2], {"a": 3}, None]],
        [37, 5],
        [38, 3, 1, 100],
        [38, 4, 1],
        [39, 1],
        [40, 8],
        [43, [[35, 9, "add", [1, 2]], [40, 10]]],
        [34],
    )
]
_OF_BROKERS = [
    encode(message)
    for message in (
        [48, None, {"version": 1, "epoch": "0123456789abcdef", "limits": {}}],
        [48, 1, {"version": 1, "epoch": "another", "limits": {}}],
        [49, 1, 3, 0],
        [50, 1, [1], None, 0.5],
        [51, 1, 0, 0, 0],
        [52, 1, 1.0, None, ""],
        [53, 1, "NODE_ERROR", "no", {"outcome": "executed"}],
        [54, None, "another epoch"],
        [55, 1, 0, "name", None],
        [56, [[49, 1, 3]]],
        [57, 1, 0, 0, 0, 0, 0],
        # As workers speak, and the journal.
        [16, 1, 4711, "digest"],
        [17, 1, 3, 1000, 0],
        [19, 1, "NODE_ERROR", "no", {}, 5],
        [21, 4, 9, "add", [1, 2], 2.5, True, 1],
        [33, 5],
    )
]
JSON_REQUESTS = [
    b'{"jsonrpc":"2.0","id":1,"method":"add","params":{"a":1,"b":2}}',
    b'{"jsonrpc":"2.0","id":"x","method":"add","params":[1,2],"timeout_ms":250}',
    b'[{"jsonrpc":"2.0","id":1,"method":"pronghorn.ping"},{"jsonrpc":"2.0","method":"add"}]',
    b'{"jsonrpc":"2.0","id":2,"method":"pronghorn.cancel","params":{"id":1}}',
]
_GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32)

_DEPTHS = (500, 1_100, 5_000, 30_000)

Maker = Callable[[Random], bytes]


class Pace:
    """How much is left to be sent, and when: a flood as fast as can be shows who has the cores."""

    def __init__(self, count: int, per_s: float) -> None:
        self.left = count
        self._per_s = per_s
        self._due = monotonic()

    def spend(self, count: int) -> None:
        """Wait until so many may be sent, and count them."""
        self.left -= count
        now = monotonic()
        if self._due > now:
            sleep(self._due - now)
        self._due = max(self._due, now - _LATE_S) + count / self._per_s


class Target(NamedTuple):
    """Where a broker listens: by ipc and tcp endpoints."""

    ipc: str
    tcp: str

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.tcp.removeprefix("tcp://").rpartition(":")
        return host, int(port)


class Attack(NamedTuple):
    """One way to be hostile.

    Attributes:
        name: For people.
        share: Of all frames, how many are of this kind.
        per_s: Frames or connections a second.
        run: Sends those frames, or makes those connections.
    """

    name: str
    share: float
    per_s: float
    run: Callable[[Target, Random, Pace], None]


# --- frames --------------------------------------------------------------------------------------


def truncated(random: Random) -> bytes:
    frame = random.choice(REQUESTS)
    return frame[: random.randrange(1, len(frame))]


def damaged(random: Random) -> bytes:
    frame = bytearray(random.choice(REQUESTS))
    for _ in range(random.randrange(1, 4)):
        frame[random.randrange(len(frame))] = random.randrange(256)
    return bytes(frame)


def noise(random: Random) -> bytes:
    return random.randbytes(random.randrange(1, 80))


def nested(random: Random) -> bytes:
    depth = random.choice(_DEPTHS)
    opening = random.choice((b"\x91", b"\x81\xa1a", b"\xdd\0\0\0\1"))
    heads = (b"", b"\x94\x23\x01\xa3add", b"\x95\x23\x01\xa3add\x80", b"\x92\x2b\x91")
    return random.choice(heads) + opening * (depth // len(opening))


def nested_json(random: Random) -> bytes:
    depth = random.choice(_DEPTHS)
    opening = random.choice((b"[", b'{"a":'))
    head = random.choice((b"[", b'{"jsonrpc":"2.0","id":1,"method":"add","params":['))
    return head + opening * (depth // len(opening))


def broken_json(random: Random) -> bytes:
    frame = bytearray(random.choice(JSON_REQUESTS))
    for _ in range(random.randrange(3)):
        frame[random.randrange(1, len(frame))] = random.choice(b'{}[],:"\\\0\xff19eE+-.tfn')
    return bytes(frame[: random.randrange(1, len(frame) + 1)])


def oversized(random: Random) -> bytes:
    size = LIMITS.request_bytes + random.randrange(1, 1000)
    return random.choice(
        (
            b"\x94\x23\x01\xa3add\xc6" + size.to_bytes(4, "big") + bytes(size),
            b"\x94\x23\x01\xa3add\xc6\xff\xff\xff\xff" + bytes(size),
            b'{"jsonrpc":"2.0","id":1,"method":"add","params":["' + b"x" * size + b'"]}',
            b"\x92\x2b\xdd\xff\xff\xff\xff" + b"\xc0" * size,
            bytes(size),
        )
    )


def replayed(random: Random) -> bytes:
    """Say again what was said, whatever has become of it: ids are always the same."""
    return REQUESTS[random.randrange(len(REQUESTS) - 1)] if random.random() < 0.97 else REQUESTS[-1]


def of_others(random: Random) -> bytes:
    """Say what only brokers, workers and the journal say, with epochs that were never there."""
    if random.random() < 0.2:
        return encode([33, 0, "attacker", random.randbytes(8)])
    return random.choice(_OF_BROKERS)


def _flood(make: Maker, most: int = _FRAMES_PER_MESSAGE) -> Callable[[Target, Random, Pace], None]:
    """Send frames of a kind over several connections."""

    def run(target: Target, random: Random, pace: Pace) -> None:
        with zmq.Context() as context:
            sockets = [_dealer(context, target.ipc) for _ in range(_SOCKETS)]
            try:
                messages = 0
                while pace.left > 0:
                    frames = [make(random) for _ in range(min(pace.left, random.randint(1, most)))]
                    pace.spend(len(frames))
                    if random.random() < 0.1:
                        frames[:0] = random.choice(([b""], [b"hop", b""]))
                    sockets[messages % _SOCKETS].send_multipart(frames)
                    messages += 1
                    if messages % (_MESSAGES_PER_PING * _SOCKETS) == 0:
                        for each in sockets:
                            _catch_up(each)
                for each in sockets:
                    _catch_up(each)
            finally:
                for each in sockets:
                    each.close(linger=0)

    return run


def _dealer(context: Any, endpoint: str) -> Any:
    dealer = context.socket(zmq.DEALER)
    dealer.connect(endpoint)
    return dealer


def _catch_up(dealer: Any) -> None:
    """Read all that was answered: who does not is not listened to after a while."""
    dealer.send(encode([40, "caught up"]))
    while dealer.poll(_PATIENCE_MS):
        frames = dealer.recv_multipart()
        if b"caught up" in frames[-1] and b"\x36" in frames[-1][:20]:
            return
    raise TimeoutError(f"a ping of an attacker is not answered within {_PATIENCE_MS / 1000:g} s")


# --- connections ---------------------------------------------------------------------------------


@contextmanager
def _connected(address: str | tuple[str, int]) -> Iterator[socket.socket]:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5.0)
        sock.connect(address)
        yield sock


def _any_address(target: Target, random: Random) -> str | tuple[str, int]:
    path = target.ipc.removeprefix("ipc://")
    return random.choice((path, path + ".stream", target.address))


def _write(sock: socket.socket, data: bytes) -> bool:
    """Write, as long as the other end takes it; whether it did."""
    with suppress(OSError):
        sock.sendall(data)
        return True
    return False


def _drop(sock: socket.socket) -> None:
    """Throw away what has come."""
    with suppress(OSError):
        while select.select([sock], [], [], 0)[0]:
            if not sock.recv(1 << 16):
                return


def streamed(target: Target, random: Random, pace: Pace) -> None:
    """Frames of all kinds on streams, joined and cut anywhere, and lengths that are none."""
    makers = (truncated, damaged, noise, broken_json, of_others)
    while pace.left > 0:
        with _connected(target.ipc.removeprefix("ipc://") + ".stream") as sock:
            for _ in range(random.randint(1, 40)):
                if pace.left <= 0:
                    break
                count = min(pace.left, random.randint(1, _FRAMES_PER_MESSAGE))
                pace.spend(count)
                frames = [random.choice(makers)(random) for _ in range(count)]
                data = b"".join(len(one).to_bytes(4, "little") + one for one in frames)
                if random.random() < 0.02:
                    data = data[: random.randrange(len(data))] + random.randbytes(8)
                at = random.randrange(len(data) + 1)
                if not (_write(sock, data[:at]) and _write(sock, data[at:])):
                    break
                _drop(sock)


def stolen(target: Target, random: Random, pace: Pace) -> None:
    """Connect with the routing id of another, and with such as ROUTER gives, and send calls."""
    while pace.left > 0:
        name = VICTIM if random.random() < 0.7 else b"\0" + random.randbytes(4)
        frames = [random.choice(REQUESTS) for _ in range(min(pace.left, 20))]
        pace.spend(len(frames))
        with _connected(_zmq_address(target, random)) as sock:
            _write(sock, _GREETING + _ready(name))
            _write(sock, b"".join(bytes((0, len(one))) + one for one in frames))
            _drop(sock)


def zmtp(target: Target, random: Random, pace: Pace) -> None:
    """Speak ZMTP wrongly: in the greeting, in the handshake, and in frames behind it."""
    while pace.left > 0:
        pace.spend(1)
        with _connected(_zmq_address(target, random)) as sock:
            data = bytearray(_GREETING + _ready(b""))
            where = random.randrange(3)
            if where == 0:
                data[random.randrange(len(data))] = random.randrange(256)
            elif where == 1:  # a frame that is said to be very long
                data += b"\x02" + (2 ** random.randrange(17, 63)).to_bytes(8, "big") + b"x"
            else:
                data += random.randbytes(random.randint(1, 200))
            _write(sock, bytes(data))
            _drop(sock)


def flooding(target: Target, random: Random, pace: Pace) -> None:
    """Connect and hang up again, with nothing or some of a greeting said."""
    while pace.left > 0:
        pace.spend(1)
        with suppress(OSError), _connected(_any_address(target, random)) as sock:
            _write(sock, _GREETING[: random.randrange(len(_GREETING))])


def half_open(target: Target, random: Random, pace: Pace) -> None:
    """Hold many connections that never end their handshake."""
    while pace.left > 0:
        held: list[socket.socket] = []
        try:
            for _ in range(min(pace.left, _HELD)):
                pace.spend(1)
                sock = socket.create_connection(target.address, timeout=5.0)
                held.append(sock)
                _write(sock, _GREETING[: random.randrange(len(_GREETING))])
        finally:
            for sock in held:
                sock.close()


def _zmq_address(target: Target, random: Random) -> str | tuple[str, int]:
    return random.choice((target.ipc.removeprefix("ipc://"), target.address))


def _ready(identity: bytes) -> bytes:
    """Make the command that ends a handshake."""
    properties = b""
    for name, value in ((b"Socket-Type", b"DEALER"), (b"Identity", identity)):
        properties += bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value
    body = b"\x05READY" + properties
    return bytes((4, len(body))) + body


ATTACKS = (
    Attack("truncated", 0.20, 5_000, _flood(truncated)),
    Attack("damaged", 0.18, 5_000, _flood(damaged)),
    Attack("random", 0.15, 5_000, _flood(noise)),
    Attack("json", 0.12, 5_000, _flood(broken_json)),
    Attack("replayed", 0.05, 2_500, _flood(replayed)),
    Attack("of-others", 0.10, 5_000, _flood(of_others)),
    Attack("streams", 0.12, 5_000, streamed),
    Attack("nested", 0.02, 1_500, _flood(nested, 4)),
    Attack("nested-json", 0.01, 1_500, _flood(nested_json, 4)),
    Attack("oversized", 0.005, 500, _flood(oversized, 2)),
    Attack("identity", 0.03, 5_000, stolen),
    Attack("zmtp", 0.005, 500, zmtp),
    Attack("connections", 0.007, 500, flooding),
    Attack("half-open", 0.003, 500, half_open),
)
"""A million frames take five minutes. At these rates they take less than a fifth of a core from
the broker: beyond that the machine is what others have to wait for."""

assert abs(sum(attack.share for attack in ATTACKS) - 1.0) < 1e-9
