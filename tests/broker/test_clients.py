"""Mirror of broker/clients.py: what clients say, as the core answers it."""

from math import inf

import msgspec
import pytest
from core_driver import (
    ADD,
    JSON,
    LIMITS,
    NOTIFICATION,
    OTHER,
    PARAMS,
    PEER,
    REQ,
    SLEEP,
    VALUE,
    Driver,
    assigned,
    cancelled,
    error_of,
)
from msgspec import Raw

from pronghorn.broker.events import (
    Assign,
    Denied,
    Malformed,
    MemoryTight,
    Origin,
    PeerGone,
    Probed,
    Received,
    Report,
    Send,
)
from pronghorn.broker.sessions import BANNED_PEERS_MAX
from pronghorn.broker.verdicts import RETRY_AFTER_MS
from pronghorn.broker.wire.errors import ErrorDetails, PermissionDeniedError
from pronghorn.broker.wire.limits import DEFAULT_BOUNDS, KIB, TIMEOUT_MS_MAX, Bounds
from pronghorn.broker.wire.link import (
    CODEC_JSON,
    CancelRun,
    Done,
    RunCall,
    wrap_json,
)
from pronghorn.broker.wire.messages import (
    NIL,
    Ack,
    Call,
    Cancel,
    Error,
    Goodbye,
    Hello,
    MapChunk,
    Options,
    Ping,
    Pong,
    RequestId,
    Result,
    Run,
    Subscribe,
)

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
    assert driver.core.statistics(driver.now).sessions == 0


def test_hello_ping_and_goodbye(driver: Driver) -> None:
    assert driver.say(Hello("h"), origin=REQ) == [Send(PEER, driver.welcome("h"), REQ)]
    assert driver.say(Ping(3)) == [Send(PEER, Pong(3, "e1"))]
    assert driver.core.statistics(driver.now).sessions == 1
    assert driver.say(Goodbye()) == []
    assert driver.core.statistics(driver.now).sessions == 0


def test_a_reserved_kind_is_refused(driver: Driver) -> None:
    text = "messages of kind 'subscribe' are reserved, not served yet"
    error = Error(5, "UNIMPLEMENTED", text, ErrorDetails(outcome="not_started"))
    assert driver.say(Subscribe(5, "topic")) == [Send(PEER, error)]
    assert driver.count("refused") == 1


def test_no_run_is_started_while_the_memory_is_tight(driver: Driver) -> None:
    driver.do(MemoryTight(True))
    error = error_of(driver.say(Run(5, "add")))
    assert (error.code, error.details.outcome) == ("RESOURCE_EXHAUSTED", "not_started")


def test_what_can_not_be_read_is_answered_and_counted(driver: Driver) -> None:
    error = Error(None, "PROTOCOL_ERROR", "not a request", ErrorDetails(outcome="not_started"))
    assert driver.do(Malformed(PEER, error, REQ)) == [Send(PEER, error, REQ)]
    assert driver.count("malformed") == 1


def test_what_a_key_may_not_do_is_refused_and_counted(driver: Driver) -> None:
    error = PermissionDeniedError("no right", ErrorDetails(node="m.add"))
    refused = error_of(driver.do(Denied(PEER, 5, error, REQ)))
    assert (refused.id, refused.code) == (5, "PERMISSION_DENIED")
    assert driver.do(Denied(PEER, None, error)) == []
    assert driver.core.statistics(driver.now).refused == {"permission_denied": 2}
    driver.do(PeerGone(PEER, banned=True))
    assert driver.do(Denied(PEER, 5, error)) == []


def test_an_unknown_node_is_refused(serving: Driver) -> None:
    error = error_of(serving.say(Call(5, "ad", PARAMS)))
    assert (error.id, error.code) == (5, "NOT_FOUND")
    assert "did you mean 'add'" in error.message
    assert error.details == ErrorDetails(outcome="not_started", node="ad")
    # Nobody waits for a reply to this one.
    assert serving.say(Call(None, "ad", PARAMS)) == []
    assert serving.count("refused") == 2


def test_the_statistics_are_for_the_shell_to_tell(driver: Driver) -> None:
    assert driver.say(Call(5, "pronghorn.stats")) == [Report(PEER, 5)]
    assert driver.json("pronghorn.stats", id=5) == [Report(PEER, 5, JSON)]
    assert driver.say(Call(None, "pronghorn.stats")) == []


def test_the_statistics_count_as_a_reply_to_acknowledge(driver: Driver) -> None:
    driver.hello()
    for id_ in range(LIMITS.grant_requests):
        driver.say(Call(id_, "pronghorn.stats"))
    assert driver.count("refused") == 0
    assert error_of(driver.say(Call(99, "m.add", PARAMS))).code == "RESOURCE_EXHAUSTED"
    assert driver.core.statistics(driver.now).refused == {"grant_requests": 1}


def test_the_statistics_are_not_mapped(driver: Driver) -> None:
    """It was answered as if it had been called."""
    error = error_of(driver.say(MapChunk(5, "pronghorn.stats", Raw(b"\x92\x80\x80"))))
    assert (error.id, error.code) == (5, "INVALID_ARGUMENT")
    assert error.message == "pronghorn.stats can be called, not mapped"
    assert error.details.outcome == "not_started"
    assert driver.count("refused") == 1


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
    driver = Driver(bounds=Bounds(queue_requests=2))
    driver.say(Call(1, "m.add"), Call(2, "m.sleep"))
    error = overloaded(3, "2 requests wait for a worker, the limit", 2)
    assert driver.say(Call(3, "m.add"), peer=OTHER) == [Send(OTHER, error)]


def test_the_queue_has_a_size() -> None:
    driver = Driver(bounds=Bounds(queue_bytes=15))
    driver.say(Call(1, "m.add"))
    error = overloaded(2, "15 bytes of requests wait for a worker, the limit", 15)
    assert driver.say(Call(2, "m.add")) == [Send(PEER, error)]


def test_without_memory_left_requests_are_refused_and_all_else_goes_on(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "m.add", PARAMS)))
    serving.begin(run)
    assert serving.do(MemoryTight(True)) == []
    error = error_of(serving.say(Call(2, "m.add", PARAMS)))
    assert (error.code, error.details.outcome) == ("RESOURCE_EXHAUSTED", "not_started")
    assert error.details.limit == DEFAULT_BOUNDS.memory_bytes
    assert error.details.retry_after_ms == RETRY_AFTER_MS
    assert serving.work(Done(run.token, VALUE, 1000)) == [
        Send(PEER, Result(1, VALUE), batched=True)
    ]
    assert serving.do(MemoryTight(False)) == []
    assert assigned(serving.say(Call(3, "m.add", PARAMS)))


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


def test_reserved_options_are_refused(driver: Driver) -> None:
    refused = Call(1, "m.add", NIL, Options(value_ref="x"))
    assert error_of(driver.say(refused)).code == "UNIMPLEMENTED"


def test_options_that_change_nothing_are_taken(driver: Driver) -> None:
    options = Options(durability="none", priority=1, trace="t")
    assert driver.say(Call(1, "m.add", NIL, options)) == []
    assert driver.count("accepted") == 1


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
    assert serving.core.statistics(serving.now).sessions == 0


def test_a_client_that_is_gone_has_its_calls_cancelled(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "sleep"), Call(2, "nobody"))[:1])
    serving.begin(run)
    serving.json("add", id=2)
    assert serving.do(PeerGone(PEER)) == [Assign(1, CancelRun(run.token))]
    assert serving.core.statistics(serving.now).sessions == 0
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
    assert driver.core.statistics(driver.now).sessions == 0
    driver.say(Call(5, "m.add"))
    assert driver.core.statistics(driver.now).sessions == 1
    run = assigned(driver.start_worker())
    driver.work(Done(run.token, VALUE, 1000))
    assert driver.core.statistics(driver.now).sessions == 0


def test_a_hello_later_makes_a_stranger_known(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "sleep"), peer=OTHER))
    serving.hello(OTHER)
    for id_ in range(2, 5):
        assert assigned(serving.say(Call(id_, "sleep"), peer=OTHER)).node == SLEEP
    assert serving.work(Done(run.token, VALUE, 1000)) == [
        Send(OTHER, Result(1, VALUE), batched=True)
    ]


def test_clients_that_went_without_a_word_are_forgotten_once_there_are_many() -> None:
    driver = Driver(sessions=2)
    for peer in (b"gone", b"there", b"third", b"fourth"):
        driver.hello(peer)
    asked = [Send(peer, Pong(None, "e1")) for peer in (b"gone", b"there")]
    welcome = Send(b"fifth", driver.welcome(0))
    assert driver.say(Hello(0), peer=b"fifth") == [welcome, *asked]
    driver.do(PeerGone(b"gone"))
    assert driver.core.statistics(driver.now).sessions == 4


def test_a_client_that_is_asked_keeps_its_session() -> None:
    """It was made a stranger without a word, and refused within the grant it knew of."""
    driver = Driver(sessions=1)
    driver.hello()
    for number in range(10):
        driver.say(Hello(0), peer=b"%d" % number)
    for id_ in range(LIMITS.grant_requests):
        assert driver.say(Call(id_, "m.add")) == []
    assert driver.count("refused") == 0
