"""More calls than can be served: many clients, each an open loop that heeds nobody.

The node sleeps 5 ms, a `def` in two workers. Capacity is what a closed loop over the same
connections gets done in the same pool, just before. Then the calls are planned at a multiple of
that rate, spread evenly over the connections, and sent whatever became of those before: beyond the
client's grant too, for that is what is refused. Latency runs from the planned time of a call to the
reply, so a broker that is slow to read counts as slow. Load and server share the cores.

Mirror: tests/bench/subjects/test_overload.py.
"""

import contextlib
import select
import socket
from collections.abc import Iterator, Sequence
from time import perf_counter

from pronghorn.broker.wire.codec import decode_reply, encode_message
from pronghorn.broker.wire.limits import Limits
from pronghorn.broker.wire.link import FrameReader
from pronghorn.broker.wire.messages import Ack, Call, Error, Hello, ReplyBundle, Result, Welcome
from pronghorn.broker.wire.places import stream_path
from pronghorn.broker.wire.stream import FrameWriter
from pronghorn.client import Pool

from ..figures import Measurement
from ..processes import resident_bytes
from ..timing import Measure
from .calls import NODES

WORKERS = 2
CONNECTIONS = 64
GRANT = 16
"""Open calls of one client: with 64 of them 1,024 calls wait, as long as 2.6 s."""

CAPACITY_OUTSTANDING = 32  # of the closed loop: both workers always have a next call
GOODPUT, MEMORY = "goodput of capacity", "broker's memory growth, MiB"

_NODE = "nap_5ms"
_READ_BYTES = 256 * 1024
_LOOK_AT_MEMORY_S = 0.05
_CONNECT_S = 10.0

Reply = Result | Error


class Peer:
    """One client on a stream, which keeps to no grant."""

    def __init__(self, path: str, acknowledge_every: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_CONNECT_S)
        self._socket.connect(path)
        self._writer = FrameWriter(self._socket)
        self._reader = FrameReader()
        self._acknowledge_every = acknowledge_every
        self._replies = self._acknowledged = 0
        self._writer.write(encode_message(Hello(0, "overload")))
        self._wait_for_welcome()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def call(self, id_: int) -> None:
        """Send a call."""
        self._writer.write(encode_message(Call(id_, _NODE)))

    def receive(self) -> list[Reply]:
        """Take in what has come, and acknowledge it now and then."""
        replies = self._take_in(self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT))
        self._replies += len(replies)
        if self._replies - self._acknowledged >= self._acknowledge_every:
            self._acknowledged = self._replies
            self._writer.write(encode_message(Ack(self._replies)))
        return replies

    def close(self) -> None:
        """Leave without goodbye; what is open is cancelled."""
        self._socket.close()

    def _wait_for_welcome(self) -> None:
        while True:
            for frame in self._reader.feed(self._socket.recv(_READ_BYTES)):
                reply = decode_reply(frame)
                if isinstance(reply, Welcome) and reply.id is not None:
                    return

    def _take_in(self, data: bytes) -> list[Reply]:
        if not data:
            raise ConnectionError("the broker has closed a connection")
        replies: list[Reply] = []
        for frame in self._reader.feed(data):
            reply = decode_reply(frame)
            several = reply.messages if isinstance(reply, ReplyBundle) else (reply,)
            replies += [one for one in several if isinstance(one, (Result, Error))]
        return replies


@contextlib.contextmanager
def overloaded(
    factor: float, *, grant: int | None = GRANT, workers: int = WORKERS
) -> Iterator[Measure]:
    """Offer `factor` times the capacity for so many seconds (the `calls` of the plan).

    Args:
        factor: Of the capacity, which is measured anew each time.
        grant: Open calls of one client; `None` for the limits that a broker has by default, where
            so many wait that a minute may pass before the first is refused.
        workers: Number of worker processes.
    """
    limits = Limits() if grant is None else Limits(grant_requests=grant)
    with Pool(NODES, workers=workers, limits=limits) as pool:
        path = stream_path(pool.endpoint)
        assert path is not None
        every = max(1, limits.grant_requests // 4)
        with pool.client() as client:
            broker: int = client.call("pronghorn.stats")["pid"]

        def measure(seconds: int) -> Measurement:
            with _connected(path, every) as peers:
                capacity = closed_loop(peers, max(1.0, seconds / 5))
                return open_loop(peers, capacity, factor, seconds, broker)

        yield measure


def closed_loop(peers: Sequence[Peer], seconds: float) -> float:
    """Keep some calls outstanding for so long; returns how many ended a second."""
    calls = replies = 0
    for peer in peers[:CAPACITY_OUTSTANDING]:
        peer.call(calls)
        calls += 1
    begin = perf_counter()
    end = begin + seconds
    elapsed = seconds
    while replies < calls:
        for peer in select.select(peers, (), ())[0]:
            for reply in peer.receive():
                if isinstance(reply, Error):
                    raise AssertionError(f"refused within the capacity: {reply}")
                replies += 1
                if perf_counter() < end:
                    peer.call(calls)
                    calls += 1
        elapsed = perf_counter() - begin
    return replies / elapsed


def open_loop(
    peers: Sequence[Peer], capacity: float, factor: float, seconds: float, broker: int
) -> Measurement:
    """Make calls at the times planned for them; what is open at the end is left to its fate.

    Returns:
        As latencies those of the refused calls.
    """
    rate = capacity * factor
    total = round(rate * seconds)
    memory_before = memory_most = resident_bytes(broker)
    accepted_s: list[float] = []
    refused_s: list[float] = []
    sent = 0
    begin = perf_counter()
    end = begin + seconds
    look_at = begin
    while (now := perf_counter()) < end:
        while sent < total and begin + sent / rate <= now:
            peers[sent % len(peers)].call(sent)
            sent += 1
        if now >= look_at:
            memory_most = max(memory_most, resident_bytes(broker))
            look_at = now + _LOOK_AT_MEMORY_S
        wait = min(begin + sent / rate, end) - perf_counter()
        for peer in select.select(peers, (), (), max(0.0, wait))[0]:
            for reply in peer.receive():
                assert isinstance(reply.id, int)
                took = perf_counter() - (begin + reply.id / rate)
                (refused_s if _is_refusal(reply) else accepted_s).append(took)
    goodput = len(accepted_s) / seconds
    return Measurement(
        calls=sent,
        elapsed_ns=round(seconds * 1e9),
        latencies_ns=[round(one * 1e9) for one in refused_s],
        extra={
            "capacity, calls/s": capacity,
            "offered, calls/s": sent / seconds,
            GOODPUT: goodput / capacity,
            "refused of offered": len(refused_s) / sent,
            "longest wait of a result, s": max(accepted_s, default=0.0),
            MEMORY: (memory_most - memory_before) / 2**20,
        },
    )


@contextlib.contextmanager
def _connected(path: str, acknowledge_every: int) -> Iterator[list[Peer]]:
    """Connect all; at the end what they have open is cancelled, as they are gone."""
    with contextlib.ExitStack() as stack:
        peers = [Peer(path, acknowledge_every) for _ in range(CONNECTIONS)]
        for peer in peers:
            stack.callback(peer.close)
        yield peers


def _is_refusal(reply: Reply) -> bool:
    """Tell a refusal from a result; anything else is wrong.

    Raises:
        AssertionError: It is neither, or does not say what to do.
    """
    if isinstance(reply, Result):
        return False
    details = reply.details
    if (
        reply.code != "RESOURCE_EXHAUSTED"
        or details.outcome != "not_started"
        or not details.retry_after_ms
    ):
        raise AssertionError(f"not what an overloaded broker should say: {reply}")
    return True
