"""Mirror of broker/core.py: events in, commands out."""

from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from requests_of import page

from pronghorn.broker.core import BANNED_PEERS_MAX, BrokerCore, CoreConfig
from pronghorn.broker.events import (
    Assign,
    Command,
    Event,
    Kill,
    Malformed,
    Origin,
    PeerGone,
    Probed,
    Received,
    ReceivedJson,
    Send,
    TableKnown,
    Tick,
    WorkerGone,
    WorkerSent,
    WorkerStarting,
)
from pronghorn.broker.verdicts import RETRY_AFTER_MS, Bounds
from pronghorn.broker.window import STALL_S
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.jsonrpc import JsonRequest
from pronghorn.broker.wire.limits import KIB, TIMEOUT_MS_MAX, Limits
from pronghorn.broker.wire.link import (
    CODEC_JSON,
    CODEC_MSGPACK,
    CancelRun,
    ChunkDone,
    Done,
    Failed,
    Ready,
    RunCall,
    RunChunk,
    Skipped,
    ToBroker,
    wrap_json,
)
from pronghorn.broker.wire.messages import (
    NIL,
    Ack,
    Call,
    Cancel,
    ClientMessage,
    Credit,
    Error,
    Goodbye,
    Hello,
    ItemFailure,
    MapChunk,
    MapResult,
    Options,
    Ping,
    Pong,
    RequestId,
    Result,
    Run,
    Subscribe,
    Welcome,
)
from pronghorn.broker.wire.slots import SlotsPage
from pronghorn.broker.wire.table import NodeInfo, NodeTable

PEER, OTHER = b"peer", b"other"
PARAMS, VALUE = Raw(b"\x92\x01\x02"), Raw(b"\x03")
ADD, SLEEP, THREAD = range(3)
TABLE = NodeTable(
    (NodeInfo("m.add", "inline"), NodeInfo("m.sleep", "async"), NodeInfo("m.thread", "thread")),
    "digest",
)
LIMITS = Limits(
    request_bytes=4 * KIB,
    result_bytes=4 * KIB,
    grant_requests=4,
    grant_bytes=8 * KIB,
    stranger_requests=2,
)
JSON = Origin((), CODEC_JSON, silent=False, batch=0)
NOTIFICATION = Origin((), CODEC_JSON, silent=True, batch=0)
REQ = Origin((b"",), CODEC_MSGPACK, silent=False, batch=0)


class Driver:
    """A core with its clock and the pages of its workers."""

    def __init__(self, *, bounds: Bounds | None = None, sessions: int = 10_000) -> None:
        config = CoreConfig(
            epoch="e1", server="test", pid=7, limits=LIMITS, bounds=bounds, sessions=sessions
        )
        self.core = BrokerCore(config)
        self.now = 1000.0
        self.pages: dict[int, SlotsPage] = {}
        self.do(TableKnown(TABLE))

    def do(self, *events: Event) -> list[Command]:
        """Take in a burst of events and return what is to be done."""
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

    def welcome(self, id_: RequestId) -> Welcome:
        return Welcome(id_, self.core._welcome)

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

    def start_worker(self, worker_id: int = 1, digest: str = "digest") -> list[Command]:
        self.pages[worker_id] = page()
        assert self.do(WorkerStarting(worker_id, self.pages[worker_id])) == []
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
        return self.core.statistics().counters[name]

    def make_quick(self) -> None:
        """Let a call show that the node is quick."""
        run = assigned(self.say(Call(1000, "m.add", PARAMS)))
        self.begin(run)
        self.work(Done(run.token, VALUE, 1000))


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def serving(driver: Driver) -> Driver:
    """Give a broker with one worker and one client that said hello."""
    driver.start_worker()
    driver.hello()
    return driver


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


# --- one call ------------------------------------------------------------------------------------


def test_a_call_goes_to_a_worker_and_its_result_back(serving: Driver) -> None:
    run = RunCall(1, 0, ADD, CODEC_MSGPACK, PARAMS, None, 0)
    assert serving.say(Call(5, "add", PARAMS)) == [Assign(1, run)]
    assert serving.begin(run)
    assert serving.work(Done(1, VALUE, 1000)) == [Send(PEER, Result(5, VALUE), batched=True)]
    snapshot = serving.core.statistics()
    assert (snapshot.counters["accepted"], snapshot.counters["completed"]) == (1, 1)
    assert (snapshot.nodes[ADD].calls, snapshot.nodes[ADD].estimate_ns) == (1, 1000.0)
    assert (snapshot.epoch, snapshot.pid, snapshot.sessions, snapshot.queued) == ("e1", 7, 1, 0)
    assert [(one.id, one.pid, one.state, one.held) for one in snapshot.workers] == [
        (1, 101, "ready", 0)
    ]


def test_buffers_go_along_both_ways(serving: Driver) -> None:
    call = Call(5, "m.add", PARAMS, Options(buffers=1))
    commands = serving.do(Received(PEER, call, 20, None, [b"in"]))
    run = RunCall(1, 0, ADD, CODEC_MSGPACK, PARAMS, None, 1)
    assert commands == [Assign(1, run, [b"in"])]
    assert serving.work(Done(1, VALUE, 1000, 1), buffers=[b"out"]) == [
        Send(PEER, Result(5, VALUE, 1), None, [b"out"], batched=True)
    ]


def test_a_reply_goes_back_through_the_envelope(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS), peer=OTHER, origin=REQ))
    assert serving.work(Done(run.token, VALUE, 1000)) == [Send(OTHER, Result(5, VALUE), REQ)]


def test_a_chunk_goes_to_a_worker_and_its_results_back(serving: Driver) -> None:
    run = RunChunk(1, 0, ADD, PARAMS, None)
    assert serving.say(MapChunk(5, "m.add", PARAMS)) == [Assign(1, run)]
    failures = (ItemFailure(1, "NODE_ERROR", "boom", ErrorDetails()),)
    assert serving.work(ChunkDone(1, VALUE, 3_000_000, 3, failures)) == [
        Send(PEER, MapResult(5, VALUE, failures, 3.0), batched=True)
    ]
    node = serving.core.statistics().nodes[ADD]
    assert (node.calls, node.estimate_ns) == (3, 1_000_000.0)


def test_an_empty_chunk_says_nothing_of_the_run_time(serving: Driver) -> None:
    run = assigned(serving.say(MapChunk(5, "m.add", PARAMS)))
    assert len(serving.work(ChunkDone(run.token, VALUE, 10, 0))) == 1
    assert serving.core.statistics().nodes[ADD].estimate_ns is None


def test_a_failure_goes_back_as_it_came(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS)))
    details = ErrorDetails(outcome="executed", exception="ValueError")
    assert serving.work(Failed(run.token, "NODE_ERROR", "boom", details)) == [
        Send(PEER, Error(5, "NODE_ERROR", "boom", details), batched=True)
    ]
    assert serving.count("failed") == 1
    assert serving.core.statistics().nodes[ADD].failures == 1


def test_a_call_waits_until_a_worker_is_ready(driver: Driver) -> None:
    assert driver.say(Call(5, "m.add", PARAMS)) == []
    assert (driver.core.statistics().queued, driver.core.statistics().queued_bytes) == (1, 10)
    assert assigned(driver.start_worker()).token == 1
    assert driver.core.statistics().queued == 0


def test_a_burst_is_dealt_out_in_turn(serving: Driver) -> None:
    serving.hello(OTHER)
    run = assigned(serving.say(Call(1, "m.add", PARAMS)))
    for id_ in (2, 3, 4):
        serving.say(Call(id_, "m.add", PARAMS))
    serving.say(Call(9, "m.add", PARAMS), peer=OTHER)
    served = []
    for _ in range(5):
        result, *rest = serving.work(Done(run.token, VALUE, 10**9))
        assert isinstance(result, Send)
        assert isinstance(result.message, Result)
        served.append(result.message.id)
        run = assigned(rest) if rest else run
    assert served == [1, 2, 9, 3, 4]


def test_sleeping_calls_do_not_hold_up_a_quick_one(serving: Driver) -> None:
    """They had filled the worker's room for them, and all calls behind them waited as well."""
    peers = [b"sleeper %d" % number for number in range(17)]
    for peer in peers:
        serving.say(Call(1, "sleep", PARAMS), Call(2, "sleep", PARAMS), peer=peer)
    assert serving.core.statistics().queued == 2
    assert assigned(serving.say(Call(5, "m.add", PARAMS))).node == ADD


# --- JSON-RPC ------------------------------------------------------------------------------------


def test_json_travels_wrapped(serving: Driver) -> None:
    run = RunCall(1, 0, ADD, CODEC_JSON, wrap_json(b"[1,2]"), None, 0)
    assert serving.json("add", id=5, peer=OTHER) == [Assign(1, run)]
    assert serving.work(Done(1, wrap_json(b"3"), 1000)) == [Send(OTHER, Result(5, Raw(b"3")), JSON)]


def test_a_null_id_is_answered_and_a_missing_one_is_not(serving: Driver) -> None:
    run = assigned(serving.json("add", id=None))
    assert serving.work(Done(run.token, wrap_json(b"3"), 10**9)) == [
        Send(PEER, Result(None, Raw(b"3")), JSON, batched=True)
    ]
    run = assigned(serving.json("add", origin=NOTIFICATION))
    # The writer sees that it is silent: a REQ socket has to get an empty message.
    assert serving.work(Done(run.token, wrap_json(b"3"), 10**9)) == [
        Send(PEER, Result(None, Raw(b"3")), NOTIFICATION)
    ]


def test_many_may_have_no_id(serving: Driver) -> None:
    for _ in range(2):
        serving.json("sleep", id=None)
        serving.json("sleep", origin=NOTIFICATION)
    assert serving.count("accepted") == 4


def test_a_json_ping_is_answered_by_the_broker(driver: Driver) -> None:
    assert driver.json("pronghorn.ping", id=5) == [Send(PEER, Pong(5, "e1"), JSON)]


def test_a_json_cancel_tells_whether_it_found_something(driver: Driver) -> None:
    driver.json("sleep", id="a")
    assert driver.json("pronghorn.cancel", b'{"id":"a"}', id=2) == [
        Send(PEER, cancelled("a", "m.sleep", "not_started"), JSON),
        Send(PEER, Result(2, Raw(b"true")), JSON),
    ]
    assert driver.json("pronghorn.cancel", b'{"id":"a"}', id=3) == [
        Send(PEER, Result(3, Raw(b"false")), JSON)
    ]


@pytest.mark.parametrize(
    "params",
    [b"null", b"[1]", b'{"id":[]}', b'{"id":1e400}', b'{"id":"\xff"}', b"{}", b'{"id":null}'],
)
def test_a_json_cancel_of_nonsense_finds_nothing(driver: Driver, params: bytes) -> None:
    driver.json("sleep", id=None)
    assert driver.json("pronghorn.cancel", params, id=2) == [
        Send(PEER, Result(2, Raw(b"false")), JSON)
    ]


@pytest.mark.parametrize("method", ["add", "pronghorn.ping", "pronghorn.cancel"])
def test_a_banned_peer_is_ignored_in_json_too(driver: Driver, method: str) -> None:
    driver.do(PeerGone(PEER, banned=True))
    assert driver.json(method, b'{"id":1}', id=5) == []


# --- what the broker answers itself --------------------------------------------------------------


def test_a_probe_is_answered_by_a_welcome_without_an_id(driver: Driver) -> None:
    assert driver.do(Probed(PEER)) == [Send(PEER, driver.welcome(None))]
    assert driver.core.statistics().sessions == 0


def test_hello_ping_and_goodbye(driver: Driver) -> None:
    assert driver.say(Hello("h"), origin=REQ) == [Send(PEER, driver.welcome("h"), REQ)]
    assert driver.core._welcome.limits == LIMITS
    assert driver.say(Ping(3)) == [Send(PEER, Pong(3, "e1"))]
    assert driver.core.statistics().sessions == 1
    assert driver.say(Goodbye()) == []
    assert driver.core.statistics().sessions == 0


@pytest.mark.parametrize("message", [Credit(5, 1, 1), Run(5, "flow"), Subscribe(5, "topic")])
def test_reserved_kinds_are_refused(driver: Driver, message: ClientMessage) -> None:
    kind = type(message).__name__.lower()
    text = f"messages of kind '{kind}' are reserved, not served yet"
    error = Error(5, "UNIMPLEMENTED", text, ErrorDetails(outcome="not_started"))
    assert driver.say(message) == [Send(PEER, error)]
    assert driver.count("refused") == 1


def test_what_can_not_be_read_is_answered_and_counted(driver: Driver) -> None:
    error = Error(None, "PROTOCOL_ERROR", "not a request", ErrorDetails(outcome="not_started"))
    assert driver.do(Malformed(PEER, error, REQ)) == [Send(PEER, error, REQ)]
    assert driver.count("malformed") == 1


def test_an_unknown_node_is_refused(serving: Driver) -> None:
    error = error_of(serving.say(Call(5, "ad", PARAMS)))
    assert (error.id, error.code) == (5, "NOT_FOUND")
    assert "did you mean 'add'" in error.message
    assert error.details == ErrorDetails(outcome="not_started", node="ad")
    # Nobody waits for a reply to this one.
    assert serving.say(Call(None, "ad", PARAMS)) == []
    assert serving.count("refused") == 2


def test_the_status_is_told(driver: Driver) -> None:
    (command,) = driver.say(Call(5, "pronghorn.status"))
    assert isinstance(command, Send)
    assert isinstance(command.message, Result)
    assert msgspec.msgpack.decode(command.message.value)["epoch"] == "e1"
    (command,) = driver.json("pronghorn.status", id=5)
    assert isinstance(command, Send)
    assert isinstance(command.message, Result)
    assert msgspec.json.decode(command.message.value)["epoch"] == "e1"
    assert driver.say(Call(None, "pronghorn.status")) == []


# --- refusals ------------------------------------------------------------------------------------


def overloaded(id_: RequestId, message: str, limit: int) -> Error:
    details = ErrorDetails(
        outcome="not_started", retryable=True, retry_after_ms=RETRY_AFTER_MS, limit=limit
    )
    return Error(id_, "RESOURCE_EXHAUSTED", message, details)


def test_a_stranger_has_a_small_grant(driver: Driver) -> None:
    assert driver.say(Call(1, "m.add"), Call(2, "m.add")) == []
    error = overloaded(3, "2 requests of this client are open, its grant", 2)
    assert driver.say(Call(3, "m.add")) == [Send(PEER, error)]
    assert driver.say(Call(3, "m.add"), peer=OTHER) == []


def test_replies_that_were_not_acknowledged_count(serving: Driver) -> None:
    for id_ in range(3):
        run = assigned(serving.say(Call(id_, "m.add")))
        serving.work(Done(run.token, VALUE, 10**9))
    serving.say(Ack(1))
    run = assigned(serving.say(Call(3, "m.add")))
    assert serving.say(Call(4, "m.add")) == []
    error = overloaded(5, "4 requests of this client are open, its grant", 4)
    assert serving.say(Call(5, "m.add")) == [Send(PEER, error)]
    # The refusal is a reply too, and is acknowledged with the others.
    serving.work(Done(run.token, VALUE, 10**9))
    serving.say(Ack(5))
    assert serving.say(Call(6, "m.add"), Call(7, "m.add"), Call(8, "m.add")) == []
    assert serving.count("malformed") == 0


def test_an_ack_of_what_was_never_sent_is_ignored(serving: Driver) -> None:
    for replies in (1, -1):
        serving.say(Ack(replies))
    assert serving.count("malformed") == 2
    serving.say(Ack(0))
    serving.say(Ack(7), peer=OTHER)  # a stranger's means nothing
    assert serving.count("malformed") == 2


def test_replies_without_a_message_are_not_waited_for(serving: Driver) -> None:
    """A refused notification was counted as a reply, and what was left of the grant grew less."""
    for _ in range(10):
        serving.json("nobody", origin=NOTIFICATION)
        serving.json("pronghorn.cancel", origin=NOTIFICATION)
        serving.say(Call(None, "nobody"))
    assert assigned(serving.say(Call(1, "m.add"))).node == ADD


def test_bytes_are_granted(serving: Driver) -> None:
    serving.do(Received(PEER, Call(1, "sleep"), 6 * KIB))
    error = overloaded(2, "8192 bytes of this client's requests are open, its grant", 8 * KIB)
    assert serving.do(Received(PEER, Call(2, "sleep"), 2 * KIB + 1)) == [Send(PEER, error)]
    assert assigned(serving.do(Received(PEER, Call(3, "sleep"), 2 * KIB))).node == SLEEP


def test_the_queue_has_a_length() -> None:
    driver = Driver(bounds=Bounds(grant_bytes=8 * KIB, queue_requests=2))
    driver.say(Call(1, "m.add"), Call(2, "m.sleep"))
    error = overloaded(3, "2 requests wait for a worker, the limit", 2)
    assert driver.say(Call(3, "m.add"), peer=OTHER) == [Send(OTHER, error)]


def test_the_queue_has_a_size() -> None:
    driver = Driver(bounds=Bounds(grant_bytes=8 * KIB, queue_bytes=15))
    driver.say(Call(1, "m.add"))
    error = overloaded(2, "15 bytes of requests wait for a worker, the limit", 15)
    assert driver.say(Call(2, "m.add")) == [Send(PEER, error)]


def test_an_id_that_is_open_is_refused(serving: Driver) -> None:
    serving.say(Call(1, "m.sleep"), Call("1", "m.sleep"))
    error = error_of(serving.say(Call(1, "m.sleep")))
    assert (error.id, error.code) == (1, "INVALID_ARGUMENT")
    assert error.message == "a request with id 1 is open already"
    assert error.details.outcome == "not_started"


def test_an_id_has_so_many_characters(driver: Driver) -> None:
    assert driver.say(Call("x" * 128, "m.add")) == []
    error = error_of(driver.say(Call("x" * 129, "m.add")))
    assert error.message == "an id has at most 128 characters"


@pytest.mark.parametrize("timeout_ms", [0.0, -1.0, TIMEOUT_MS_MAX * 1.1, inf, float("nan")])
def test_an_absurd_deadline_is_refused(driver: Driver, timeout_ms: float) -> None:
    error = error_of(driver.say(Call(1, "m.add", NIL, Options(timeout_ms=timeout_ms))))
    assert (error.code, error.details.outcome) == ("INVALID_ARGUMENT", "not_started")
    assert error.message.startswith(f"timeout_ms is {timeout_ms};")
    assert driver.core.next_due() == inf


@pytest.mark.parametrize(
    "options", [Options(durability="sync"), Options(value_ref="x"), Options(stream=(1, 1))]
)
def test_reserved_options_are_refused(driver: Driver, options: Options) -> None:
    assert error_of(driver.say(Call(1, "m.add", NIL, options))).code == "UNIMPLEMENTED"


def test_options_that_change_nothing_are_taken(driver: Driver) -> None:
    options = Options(durability="none", key="k", priority=1, trace="t")
    assert driver.say(Call(1, "m.add", NIL, options)) == []
    assert driver.count("accepted") == 1


# --- cancels and deadlines -----------------------------------------------------------------------


def test_what_waits_is_cancelled_at_once(driver: Driver) -> None:
    driver.say(Call(5, "m.add"))
    assert driver.say(Cancel(5)) == [Send(PEER, cancelled(5, "m.add", "not_started"))]
    assert driver.core.statistics().queued == 0
    assert driver.start_worker() == []


def test_a_stranger_may_cancel_the_last_that_it_has_open(driver: Driver) -> None:
    """The broker died: the end of its last request had removed the stranger's session already."""
    driver.say(Call(5, "m.add"))
    driver.say(Cancel(5))
    assert driver.core.statistics().sessions == 0
    driver.say(Call(5, "m.add"))
    driver.say(Goodbye())
    assert driver.core.statistics().sessions == 0


def test_a_call_and_its_cancel_may_come_together(driver: Driver) -> None:
    for id_ in range(1000):
        assert driver.say(Call(id_, "m.add"), Cancel(id_)) == [
            Send(PEER, cancelled(id_, "m.add", "not_started"))
        ]
    assert driver.core.statistics().queued == 0


def test_what_a_worker_has_not_begun_is_taken_back(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add")))
    assert serving.say(Cancel(5)) == [
        Send(PEER, cancelled(5, "m.add", "not_started"), batched=True)
    ]
    assert not serving.begin(run)
    assert serving.work(Skipped(run.token)) == []
    assert serving.core.statistics().workers[0].held == 0


def test_what_has_begun_is_cancelled_where_it_runs(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "sleep")))
    serving.begin(run)
    assert serving.say(Cancel(5)) == [
        Assign(1, CancelRun(run.token)),
        Send(PEER, cancelled(5, "m.sleep", "maybe_executed"), batched=True),
    ]
    # It is held until the worker's last word, which nobody waits for.
    assert serving.core.statistics().workers[0].held == 1
    assert serving.say(Cancel(5)) == []
    details = ErrorDetails(outcome="maybe_executed")
    assert serving.work(Failed(run.token, "CANCELLED", "cancelled", details)) == []
    assert serving.core.statistics().workers[0].held == 0
    assert (serving.count("late_results"), serving.count("failed")) == (1, 1)


@pytest.mark.parametrize("chunk", [False, True])
def test_a_result_after_the_cancel_is_dropped_but_measured(serving: Driver, chunk: bool) -> None:
    message = MapChunk(5, "m.add", PARAMS) if chunk else Call(5, "m.add", PARAMS)
    run = assigned(serving.say(message))
    serving.begin(run)
    serving.say(Cancel(5))
    word = ChunkDone(run.token, VALUE, 1000, 1) if chunk else Done(run.token, VALUE, 1000)
    assert serving.work(word) == []
    assert serving.count("late_results") == 1
    node = serving.core.statistics().nodes[ADD]
    assert (node.calls, node.estimate_ns) == (0, 1000.0)


def test_a_skip_after_the_cancel_is_the_end_of_it(serving: Driver) -> None:
    """Both sides saw each other at the claim: it never ran, but the caller was told it may have."""
    run = assigned(serving.say(Call(5, "m.add")))
    serving.begin(run)
    serving.say(Cancel(5))
    assert serving.work(Skipped(run.token)) == []
    assert serving.core.statistics().queued == 0


def test_a_cancel_of_nothing_is_nothing(serving: Driver) -> None:
    assert serving.say(Cancel(5), Cancel(None)) == []
    assert serving.say(Cancel(5), peer=OTHER) == []


def test_nobody_cancels_what_is_another_client_s(serving: Driver) -> None:
    serving.say(Call(5, "sleep"))
    assert serving.say(Cancel(5), peer=OTHER) == []


def test_a_deadline_ends_what_waits(driver: Driver) -> None:
    driver.say(Call(5, "m.add", NIL, Options(timeout_ms=50.0)))
    assert driver.core.next_due() == 1000.05
    assert driver.tick(1000.049) == []
    details = ErrorDetails(outcome="not_started", node="m.add")
    error = Error(5, "DEADLINE_EXCEEDED", "m.add: the deadline has passed", details)
    assert driver.tick(1000.05) == [Send(PEER, error)]
    assert driver.core.next_due() == inf


def test_a_deadline_ends_what_runs(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "sleep", NIL, Options(timeout_ms=50.0))))
    assert run.left_ms == pytest.approx(50.0)
    serving.begin(run)
    cancel, send = serving.tick(1000.05)
    assert cancel == Assign(1, CancelRun(run.token))
    assert isinstance(send, Send)
    assert isinstance(send.message, Error)
    assert send.message.code == "DEADLINE_EXCEEDED"
    assert send.message.details.outcome == "maybe_executed"


def test_a_worker_is_told_what_is_left_of_the_time(driver: Driver) -> None:
    driver.say(MapChunk(5, "m.add", NIL, Options(timeout_ms=50.0)))
    driver.now += 0.02
    assert assigned(driver.start_worker()).left_ms == pytest.approx(30.0)


def test_a_deadline_of_what_has_ended_is_nothing(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", NIL, Options(timeout_ms=50.0))))
    serving.work(Done(run.token, VALUE, 1000))
    assert serving.tick(1000.05) == []


def test_calls_with_far_deadlines_leave_nothing_behind(serving: Driver) -> None:
    """They were kept, bodies and all, until their deadlines."""
    options = Options(timeout_ms=3_600_000.0)
    for id_ in range(1500):
        run = assigned(serving.say(Call(id_, "m.add", PARAMS, options), Ack(id_)))
        serving.work(Done(run.token, VALUE, 1000))
    deadlines = serving.core._deadlines
    assert len(deadlines) <= 1024
    assert all(request.params == NIL for _, _, request in deadlines._heap)


# --- sessions ------------------------------------------------------------------------------------


def test_goodbye_cancels_all_without_replies(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "sleep")))
    serving.begin(run)
    in_batch = Origin((b"",), CODEC_JSON, silent=False, batch=1, batch_size=1)
    serving.json("add", id=2, origin=in_batch)
    assert serving.say(Goodbye()) == [
        Assign(1, CancelRun(run.token)),
        # An empty reply of the batch, so that what was collected of it is let go.
        Send(
            PEER,
            Error(
                2,
                "CANCELLED",
                "m.add: the client is gone",
                ErrorDetails(outcome="not_started", node="m.add"),
            ),
            msgspec.structs.replace(in_batch, silent=True),
        ),
    ]
    assert serving.core.statistics().sessions == 0


def test_a_client_that_is_gone_has_its_calls_cancelled(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "sleep"), Call(2, "nobody"))[:1])
    serving.begin(run)
    serving.json("add", id=2)
    assert serving.do(PeerGone(PEER)) == [Assign(1, CancelRun(run.token))]
    assert serving.core.statistics().sessions == 0
    assert serving.work(Done(run.token, VALUE, 1000)) == []
    assert serving.do(PeerGone(PEER)) == []


def test_a_banned_client_is_ignored_until_it_connects_anew(serving: Driver) -> None:
    serving.say(Call(1, "sleep"))
    serving.do(PeerGone(PEER, banned=True))
    assert serving.say(Call(2, "m.add"), Ping(3)) == []
    error = Error(None, "PROTOCOL_ERROR", "", ErrorDetails())
    assert serving.do(Malformed(PEER, error)) == []
    assert (serving.count("banned"), serving.count("malformed")) == (1, 1)
    assert serving.do(Probed(PEER)) == [Send(PEER, serving.welcome(None))]
    assert assigned(serving.say(Call(2, "m.add"))).node == ADD


def test_so_many_bans_are_remembered(driver: Driver) -> None:
    for number in range(BANNED_PEERS_MAX + 1):
        driver.do(PeerGone(b"%d" % number, banned=True))
    assert driver.say(Ping(1), peer=b"0") != []
    assert driver.say(Ping(1), peer=b"1") == []


def test_a_stranger_of_whom_nothing_is_open_holds_no_state(driver: Driver) -> None:
    driver.say(Ping(1), Cancel(5), Ack(3), Call(2, "nobody"))
    assert driver.core.statistics().sessions == 0
    driver.say(Call(5, "m.add"))
    assert driver.core.statistics().sessions == 1
    run = assigned(driver.start_worker())
    driver.work(Done(run.token, VALUE, 1000))
    assert driver.core.statistics().sessions == 0


def test_a_hello_later_makes_a_stranger_known(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "sleep"), peer=OTHER))
    serving.hello(OTHER)
    for id_ in range(2, 5):
        assert assigned(serving.say(Call(id_, "sleep"), peer=OTHER)).node == SLEEP
    assert serving.work(Done(run.token, VALUE, 1000)) == [
        Send(OTHER, Result(1, VALUE), batched=True)
    ]


def test_the_oldest_idle_sessions_are_forgotten() -> None:
    driver = Driver(sessions=3)
    for number in range(3):
        driver.hello(b"%d" % number)
    driver.say(Call(1, "m.add"), peer=b"0")
    driver.hello(b"3")
    assert list(driver.core._sessions) == [b"0", b"2", b"3"]
    driver.hello(b"3")
    assert driver.core.statistics().sessions == 3


def test_a_session_that_is_forgotten_at_its_own_hello_does_no_harm() -> None:
    driver = Driver(sessions=1)
    driver.hello()
    driver.say(Call(1, "m.add"))
    driver.hello(OTHER)
    assert list(driver.core._sessions) == [PEER]
    assert driver.say(Ack(3), Goodbye(), peer=OTHER) == []


# --- workers -------------------------------------------------------------------------------------


def test_a_worker_with_other_nodes_is_killed(driver: Driver) -> None:
    assert driver.start_worker(digest="other") == [
        Kill(1, "its nodes differ from those of the template")
    ]
    assert driver.say(Call(1, "m.add")) == []


def test_words_on_nothing_and_of_nobody_are_dropped(serving: Driver) -> None:
    for word in (
        Done(99, VALUE, 1),
        ChunkDone(99, VALUE, 1, 1),
        Failed(99, "NODE_ERROR", "", ErrorDetails()),
        Skipped(99),
    ):
        assert serving.work(word) == []
        assert serving.work(word, worker_id=5) == []
    assert serving.do(WorkerGone(5, "exit status 0")) == []
    assert serving.count("workers_lost") == 0


def test_what_a_dead_worker_had_not_begun_runs_elsewhere_in_order(serving: Driver) -> None:
    serving.make_quick()
    runs = [assigned(serving.say(Call(id_, "m.add"))) for id_ in (1, 2, 3)]
    serving.begin(runs[0])
    lost = error_of(serving.do(WorkerGone(1, "signal 9 (SIGKILL)")))
    assert lost == Error(
        1,
        "WORKER_LOST",
        "m.add: its worker ended with signal 9 (SIGKILL)",
        ErrorDetails(outcome="maybe_executed", node="m.add", cause="signal 9 (SIGKILL)"),
    )
    assert serving.count("workers_lost") == 1
    assert serving.core.statistics().nodes[ADD].failures == 1
    again = serving.start_worker(2)
    tokens = [each.message.token for each in again if isinstance(each, Assign)]
    assert len(tokens) == 2
    assert not {run.token for run in runs} & set(tokens)
    (first, second) = (serving.work(Done(token, VALUE, 1000), 2) for token in tokens)
    assert first == [Send(PEER, Result(2, VALUE), batched=True)]
    assert second == [Send(PEER, Result(3, VALUE), batched=True)]


def test_a_result_that_did_not_come_was_executed(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "m.add")))
    serving.begin(run)
    serving.pages[1].finish(run.slot, run.token)
    assert error_of(serving.do(WorkerGone(1, "exit status 1"))).details.outcome == "executed"


@pytest.mark.parametrize("node", ["add", "thread"])
def test_of_a_chunk_one_item_is_in_doubt(serving: Driver, node: str) -> None:
    run = assigned(serving.say(MapChunk(1, node, PARAMS)))
    serving.begin(run)
    items = serving.pages[1].marked(run.slot, "abc")
    assert [next(items), next(items)] == ["a", "b"]
    details = error_of(serving.do(WorkerGone(1, "exit status 1"))).details
    assert (details.outcome, details.item) == ("maybe_executed", 1)


def test_of_an_async_chunk_all_items_are_in_doubt(serving: Driver) -> None:
    """The first was named, and the others, which may have run, were run again."""
    run = assigned(serving.say(MapChunk(1, "sleep", PARAMS)))
    serving.begin(run)
    details = error_of(serving.do(WorkerGone(1, "exit status 1"))).details
    assert (details.outcome, details.item) == ("maybe_executed", None)


def test_what_was_cancelled_does_not_come_back_when_its_worker_dies(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "sleep")))
    serving.begin(run)
    serving.say(Cancel(1))
    assert serving.do(WorkerGone(1, "exit status 1")) == []
    assert serving.start_worker(2) == []


def test_a_request_whose_worker_has_died_can_be_cancelled(serving: Driver) -> None:
    serving.say(Call(1, "m.add", NIL, Options(timeout_ms=50.0)), Call(2, "m.add"))
    serving.do(WorkerGone(1, "exit status 1"))
    assert serving.core.statistics().queued == 2
    assert serving.say(Cancel(2)) == [
        Send(PEER, cancelled(2, "m.add", "not_started"), batched=True)
    ]
    assert len(serving.tick(1000.05)) == 1
    assert serving.core.statistics().queued == 0


def test_what_a_blocked_worker_has_not_begun_goes_to_another(serving: Driver) -> None:
    serving.make_quick()
    first = assigned(serving.say(Call(1, "m.add")))
    second = assigned(serving.say(Call(2, "m.add")))
    serving.begin(first)
    assert serving.tick(1000.0 + STALL_S) == []
    again = assigned(serving.start_worker(2))
    assert serving.count("taken_back") == 1
    assert again.token != second.token
    assert not serving.begin(second)
    assert serving.work(Skipped(second.token)) == []
    assert serving.work(Done(again.token, VALUE, 1000), 2) == [
        Send(PEER, Result(2, VALUE), batched=True)
    ]


def test_a_skip_puts_a_request_back_when_both_sides_saw_each_other(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "m.add")))
    assert serving.begin(run)
    again = assigned(serving.work(Skipped(run.token)))
    assert (again.slot, again.token != run.token) == (run.slot, True)


def test_a_skip_of_an_earlier_handing_out_does_not_end_the_present_one(serving: Driver) -> None:
    """Tokens were kept, so that one request could be run twice."""
    serving.make_quick()
    first = assigned(serving.say(Call(1, "m.add")))
    second = assigned(serving.say(Call(2, "m.add")))
    serving.begin(first)
    serving.tick(1000.0 + STALL_S)
    serving.start_worker(2)
    serving.do(WorkerGone(2, "exit status 1"))  # before it has begun
    again = assigned(serving.work(Done(first.token, VALUE, 1000))[1:])
    assert serving.work(Skipped(second.token)) == []
    assert serving.begin(again)
    assert serving.work(Done(again.token, VALUE, 1000)) == [
        Send(PEER, Result(2, VALUE), batched=True)
    ]
