"""A broker's core with its clock, and clients and workers that speak in one line each."""

from collections.abc import Sequence
from typing import Any

from msgspec import Raw, structs
from requests_of import Page

from pronghorn.broker.core import BrokerCore, CoreConfig
from pronghorn.broker.events import (
    Assign,
    Command,
    Event,
    HurryJournal,
    Origin,
    Received,
    ReceivedJson,
    Send,
    TableKnown,
    Tick,
    WorkerSent,
    WorkerStarting,
)
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.jsonrpc import JsonRequest
from pronghorn.broker.wire.limits import DEFAULT_BOUNDS, KIB, Bounds, Limits
from pronghorn.broker.wire.link import (
    CODEC_JSON,
    CODEC_MSGPACK,
    Done,
    Ready,
    RunCall,
    RunChunk,
    ToBroker,
)
from pronghorn.broker.wire.messages import (
    Ack,
    Call,
    ClientMessage,
    Error,
    Hello,
    RequestId,
    Welcome,
    WelcomeInfo,
)
from pronghorn.broker.wire.table import NodeInfo, NodeTable, RetryPolicy

PEER, OTHER = b"peer", b"other"
PARAMS, VALUE = Raw(b"\x92\x01\x02"), Raw(b"\x03")
ADD, SLEEP, THREAD, AGAIN, RETRY, ROWS, AROWS = range(7)
TABLE = NodeTable(
    (
        NodeInfo("m.add", "inline"),
        NodeInfo("m.sleep", "async"),
        NodeInfo("m.thread", "thread"),
        NodeInfo("m.again", "inline", RetryPolicy(3, 1.0, 1.5)),
        NodeInfo("m.retry", "async", RetryPolicy(3, 1.0, 1.5)),
        NodeInfo("m.rows", "inline", RetryPolicy(3, 1.0, 1.5), streams=True),
        NodeInfo("m.arows", "async", streams=True),
    ),
    "digest",
)
LIMITS = Limits(
    request_bytes=4 * KIB,
    result_bytes=4 * KIB,
    grant_requests=4,
    grant_bytes=8 * KIB,
    stranger_requests=2,
    grant_parts=20,
    grant_part_bytes=4 * KIB,
)
GRACE_S = 0.5
JSON = Origin((), CODEC_JSON, silent=False, batch=0)
NOTIFICATION = Origin((), CODEC_JSON, silent=True, batch=0)
REQ = Origin((b"",), CODEC_MSGPACK, silent=False, batch=0)


class Driver:
    """A core with its clock and the pages of its workers."""

    def __init__(
        self,
        *,
        bounds: Bounds = DEFAULT_BOUNDS,
        sessions: int = 10_000,
        labels: frozenset[str] = frozenset(),
        administrators: tuple[bytes, ...] = (b"",),
        table: NodeTable | None = TABLE,
    ) -> None:
        config = CoreConfig(
            epoch="e1",
            server="test",
            pid=7,
            limits=LIMITS,
            bounds=structs.replace(bounds, kill_grace_s=GRACE_S),
            sessions=sessions,
            labels=labels,
            administrators=administrators,
        )
        self.core = BrokerCore(config)
        self.now = 1000.0
        self.hurried = False  # whether the last burst has had the journal hurried
        self.waited_for = False  # and whether because somebody waits
        self.pages: dict[int, Page] = {}
        if table is not None:
            self.do(TableKnown(table))

    def do(self, *events: Event) -> list[Command]:
        """Take in a burst of events and return what is to be done.

        What the journal is told of hurry is only noted, in `hurried` and `waited_for`.
        """
        commands = self.do_all(*events)
        told = [command for command in commands if isinstance(command, HurryJournal)]
        assert len(told) < 2
        self.hurried = bool(told)
        self.waited_for = any(command.waited_for for command in told)
        return [command for command in commands if command not in told]

    def do_all(self, *events: Event) -> list[Command]:
        """Take in a burst of events and return all that is to be done."""
        for event in events:
            self.core.handle(event, self.now)
            self.core.check_invariants()
        commands = self.core.settle(self.now)
        self.core.check_invariants()
        return commands

    def say(
        self, *messages: ClientMessage, peer: bytes = PEER, origin: Origin | None = None
    ) -> list[Command]:
        """Be a client that sends messages, each of 10 bytes."""
        return self.do(*(Received(peer, message, 10, origin) for message in messages))

    def hello(self, peer: bytes = PEER) -> None:
        assert self.say(Hello(0), peer=peer) == [Send(peer, self.welcome(0))]

    def acknowledge(self, replies: int) -> None:
        """Be a client that has read so many replies."""
        assert self.say(Ack(replies)) == []

    def welcome(self, id_: RequestId) -> Welcome:
        info = WelcomeInfo(version=1, epoch="e1", server="test", pid=7, limits=LIMITS)
        return Welcome(id_, info)

    def json(
        self,
        method: str,
        params: bytes = b"[1,2]",
        *,
        origin: Origin = JSON,
        peer: bytes = PEER,
        **more: Any,
    ) -> list[Command]:
        """Be a client that sends a JSON-RPC request of 10 bytes."""
        request = JsonRequest("2.0", method, Raw(params), **more)
        return self.do(ReceivedJson(peer, request, 10, origin))

    def start_worker(
        self, worker_id: int = 1, digest: str = "digest", generation: int = 0, **more: Any
    ) -> list[Command]:
        self.pages[worker_id] = Page()
        starting = WorkerStarting(worker_id, self.pages[worker_id], generation, **more)
        assert self.do(starting) == []
        return self.work(Ready(worker_id, 100 + worker_id, digest), worker_id)

    def work(
        self, message: ToBroker, worker_id: int = 1, buffers: Sequence[bytes] = ()
    ) -> list[Command]:
        """Be a worker that sends a message."""
        return self.do(WorkerSent(worker_id, message, buffers))

    def begin(self, run: RunCall | RunChunk, worker_id: int = 1) -> bool:
        """Be a worker that claims a request."""
        return self.pages[worker_id].claim(run.slot, run.token, 1)

    def tick(self, at: float) -> list[Command]:
        self.now = at
        return self.do(Tick())

    def count(self, name: str) -> int:
        return self.core.statistics(self.now).counters[name]

    def make_quick(self) -> None:
        """Let a call show that the node is quick."""
        run = assigned(self.say(Call(1000, "m.add", PARAMS)))
        self.begin(run)
        self.work(Done(run.token, VALUE, 1000))


def assigned(commands: list[Command]) -> Any:
    """Return the request that the one command gives to a worker."""
    (command,) = commands
    assert isinstance(command, Assign)
    return command.message


def error_of(commands: list[Command]) -> Error:
    """Return the error that the one command sends."""
    (command,) = commands
    assert isinstance(command, Send)
    assert isinstance(command.message, Error)
    return command.message


def cancelled(id_: RequestId, node: str, outcome: Any) -> Error:
    message = f"{node}: the call was cancelled"
    return Error(id_, "CANCELLED", message, ErrorDetails(outcome=outcome, node=node))
