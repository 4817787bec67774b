"""Mirror of client/core.py: what the program asks and what the broker says in, frames out."""

from collections.abc import Sequence
from math import inf
from time import perf_counter
from typing import Any

import pytest
from msgspec import Raw

from pronghorn.broker.wire.codec import decode_bundle, decode_request, encode_message
from pronghorn.broker.wire.errors import ErrorDetails, InvalidArgumentError, ProtocolError
from pronghorn.broker.wire.limits import KIB, Limits
from pronghorn.broker.wire.messages import (
    Ack,
    BrokerMessage,
    Call,
    Cancel,
    Error,
    Event,
    Goodbye,
    Hello,
    MapChunk,
    MapResult,
    Options,
    Part,
    Ping,
    Pong,
    Progress,
    Result,
    Welcome,
    WelcomeInfo,
    bundle_replies,
    bundle_requests,
)
from pronghorn.broker.wire.messages import Credit as CreditMessage
from pronghorn.client.bundling import BUNDLED_BYTES_MAX
from pronghorn.client.completions import Completion
from pronghorn.client.core import BUNDLE_REQUESTS, ClientCore
from pronghorn.client.inbox import Credit, Inbox
from pronghorn.client.waiting import LEFT_MS_MIN

PARAMS = b"\x92\x01\x02"
VALUE = Raw(b"\x03")
LIMITS = Limits(
    request_bytes=8 * KIB, grant_requests=8, grant_bytes=16 * KIB, stranger_requests=4, buffers=2
)


def welcome(id_: int | None = 0, limits: Limits = LIMITS) -> Welcome:
    return Welcome(id_, WelcomeInfo(version=1, epoch="e1", server="s", pid=7, limits=limits))


def call(id_: int, params: bytes = PARAMS, options: Options | None = None) -> bytes:
    return encode_message(Call(id_, "add", Raw(params), options))


def lost(id_: int, outcome: Any, why: str = "gone") -> Error:
    details = ErrorDetails(outcome=outcome, retryable=outcome == "not_started")
    return Error(id_, "BROKER_LOST", why, details)


def ended(
    handle: str, id_: int, code: str = "CANCELLED", why: str = "the call was cancelled"
) -> Completion[str]:
    """Make the end of a call that was never sent."""
    details = ErrorDetails(outcome="not_started", node="add")
    return Completion(handle, Error(id_, code, f"add: {why}", details), ())


class Driver(ClientCore[str]):
    """A core whose handles are texts."""

    def open(
        self,
        handle: str,
        params: bytes = PARAMS,
        buffers: Sequence[bytes] = (),
        *,
        timeout_ms: float | None = None,
        due: float | None = None,
    ) -> int:
        id_ = self.call(handle, "add", (params, buffers), timeout_ms, due)
        self.check_invariants()
        return id_

    def hear(self, *messages: BrokerMessage) -> list[Completion[str]]:
        """Take in messages of the broker, a frame each."""
        completions = self.receive([encode_message(message) for message in messages])
        self.check_invariants()
        return completions

    def sent(self, now: float = -inf) -> list[bytes]:
        """Return the frames of the next message."""
        frames = self.outgoing(now)
        self.check_invariants()
        return [bytes(frame) for frame in frames]


@pytest.fixture
def core() -> Driver:
    return Driver("test/1")


@pytest.fixture
def welcomed(core: Driver) -> Driver:
    """Give a client that the broker has welcomed."""
    core.hello()
    assert core.sent() == [encode_message(Hello(0, "test/1"))]
    assert core.hear(welcome(None), welcome()) == []
    return core


def test_before_the_welcome_calls_wait(core: Driver) -> None:
    core.hello()
    core.open("a")
    assert core.sent() == [encode_message(Hello(0, "test/1"))]
    assert core.info is None
    assert core.has_waiting
    core.hear(welcome(None))  # answers the probe of this very connection
    assert core.sent() == []
    core.hear(welcome())
    assert core.info is not None
    assert core.limits == LIMITS
    assert core.has_outgoing
    assert core.sent() == [call(1)]
    assert not core.has_outgoing
    assert not core.has_waiting


def test_a_call_and_its_result(welcomed: Driver) -> None:
    assert welcomed.open("a") == 1
    assert welcomed.open_requests == 1
    assert welcomed.sent() == [call(1)]
    assert welcomed.sent() == []
    assert welcomed.hear(Result(1, VALUE)) == [Completion("a", Result(1, VALUE), ())]
    assert welcomed.open_requests == 0


def test_options_are_sent_where_there_are_some(welcomed: Driver) -> None:
    welcomed.call("a", "add", (PARAMS, ()), 50.0)
    assert welcomed.sent() == [call(1, options=Options(timeout_ms=50.0))]
    welcomed.chunk("b", "add", PARAMS, None)
    welcomed.chunk("c", "add", PARAMS, 50.0)
    chunks = [
        encode_message(MapChunk(2, "add", Raw(PARAMS))),
        encode_message(MapChunk(3, "add", Raw(PARAMS), Options(timeout_ms=50.0))),
    ]
    assert welcomed.sent() == [bundle_requests(chunks)]


@pytest.mark.parametrize(
    "reply",
    [
        Result(1, VALUE),
        MapResult(1, VALUE, None, 2.0),
        Error(1, "NODE_ERROR", "boom", ErrorDetails(outcome="executed")),
    ],
)
def test_each_terminal_reply_ends_its_request_once(welcomed: Driver, reply: Any) -> None:
    welcomed.open("a")
    assert welcomed.hear(reply, reply) == [Completion("a", reply, ())]


def test_replies_come_in_any_order(welcomed: Driver) -> None:
    for handle in "abc":
        welcomed.open(handle)
    heard = welcomed.hear(Result(3, VALUE), Result(1, VALUE), Result(2, VALUE))
    assert [completion.handle for completion in heard] == ["c", "a", "b"]


def test_replies_come_in_bundles(welcomed: Driver) -> None:
    for handle in "ab":
        welcomed.open(handle)
    frames = [encode_message(Result(id_, VALUE)) for id_ in (1, 2)]
    completions = welcomed.receive([bundle_replies(frames)])
    assert [completion.handle for completion in completions] == ["a", "b"]


def test_a_ping_needs_no_grant(core: Driver) -> None:
    core.ping("a")
    assert core.sent() == [encode_message(Ping(1))]
    assert core.hear(Pong(1, "e1"), Pong(1, "e1"), Pong("x", "e1")) == [
        Completion("a", Pong(1, "e1"), ())
    ]


def test_a_pong_ends_no_call(welcomed: Driver) -> None:
    welcomed.open("a")
    assert welcomed.hear(Pong(1, "e1")) == []
    assert [one.handle for one in welcomed.hear(Result(1, VALUE))] == ["a"]


def test_what_is_not_for_us_is_passed_over(welcomed: Driver) -> None:
    assert welcomed.hear(Result("text", VALUE), Result(77, VALUE), Event(1, 0, "e", VALUE)) == []


def test_what_the_protocol_does_not_allow_is_an_error(welcomed: Driver) -> None:
    with pytest.raises(ProtocolError):
        welcomed.receive([b"garbage"])


# --- what leaves together ------------------------------------------------------------------------


def test_small_frames_are_bundled_and_large_ones_are_not(welcomed: Driver) -> None:
    large = b"\xc5\x13\x88" + bytes(5000)
    welcomed.open("a")
    welcomed.open("b")
    welcomed.open("c", large)
    welcomed.open("d")
    welcomed.open("e", PARAMS, [b"buffer"])
    welcomed.open("f")
    welcomed.ping("g")
    assert len(call(3, large)) > BUNDLED_BYTES_MAX
    assert welcomed.sent() == [
        bundle_requests([call(1), call(2)]),
        call(3, large),
        call(4),
        call(5, options=Options(buffers=1)),
        b"buffer",
        bundle_requests([call(6), encode_message(Ping(7))]),
    ]


def test_a_message_has_so_many_requests(core: Driver) -> None:
    core.hear(welcome(limits=Limits()))
    assert not core.is_full_or_alone
    for number in range(BUNDLE_REQUESTS + 3):
        core.open(str(number))
        assert core.is_full_or_alone == (number == 0 or number + 1 >= BUNDLE_REQUESTS)
    first, second = core.sent(), core.sent()
    assert first == [bundle_requests([call(id_ + 1) for id_ in range(BUNDLE_REQUESTS)])]
    assert second == [bundle_requests([call(BUNDLE_REQUESTS + id_) for id_ in (1, 2, 3)])]
    assert core.sent() == []


# --- the grant -----------------------------------------------------------------------------------


def test_beyond_the_grant_requests_wait(welcomed: Driver) -> None:
    for number in range(10):
        welcomed.open(str(number))
    assert welcomed.open_requests == 10
    assert welcomed.sent() == [bundle_requests([call(id_) for id_ in range(1, 9)])]
    welcomed.hear(Result(1, VALUE))
    assert welcomed.sent() == []  # the reply counts until it is acknowledged
    welcomed.hear(Result(2, VALUE))
    assert welcomed.sent() == [bundle_requests([encode_message(Ack(2)), call(9), call(10)])]


def test_who_comes_later_does_not_overtake_those_that_wait(welcomed: Driver) -> None:
    big = b"\xc5\x17\x70" + bytes(6000)
    for handle in "abc":
        welcomed.open(handle, big)
    welcomed.open("small")
    assert welcomed.sent() == [call(1, big), call(2, big)]
    welcomed.hear(Result(1, VALUE))
    assert welcomed.sent() == [call(3, big), call(4)]


def test_a_request_over_the_limits_is_refused_here(welcomed: Driver) -> None:
    with pytest.raises(InvalidArgumentError, match="has 8203 bytes, the broker's limit is 8192"):
        welcomed.open("a", b"\xc5\x20\x00" + bytes(8 * KIB))
    with pytest.raises(InvalidArgumentError, match="limit is 8192"):
        welcomed.open("a", PARAMS, [bytes(8 * KIB)])
    with pytest.raises(InvalidArgumentError, match="has 3 buffers, the broker's limit is 2"):
        welcomed.open("a", PARAMS, [b"1", b"2", b"3"])
    assert welcomed.open_requests == 0
    assert welcomed.sent() == []


def test_limits_that_were_not_known_are_kept_all_the_same(core: Driver) -> None:
    """What was too large for the grant waited for ever, and all that came after it."""
    core.open("a", b"\xc5\x27\x10" + bytes(10_000))
    core.open("b", PARAMS, [b"1", b"2", b"3"])
    core.open("c")
    gone = core.open("d", b"\xc5\x27\x10" + bytes(10_000))
    assert core.cancel(gone) == ended("d", gone)
    completions = core.hear(welcome())
    assert [(one.handle, one.reply) for one in completions] == [
        (
            "a",
            Error(
                1,
                "INVALID_ARGUMENT",
                "the request has 10011 bytes, the broker's limit is 8192",
                ErrorDetails(outcome="not_started", node="add", limit=8192),
            ),
        ),
        (
            "b",
            Error(
                2,
                "INVALID_ARGUMENT",
                "the request has 3 buffers, the broker's limit is 2",
                ErrorDetails(outcome="not_started", node="add", limit=2),
            ),
        ),
    ]
    assert core.open_requests == 1
    assert core.sent() == [call(3)]


def test_acks_count_what_came_since_the_welcome(welcomed: Driver) -> None:
    welcomed.open("a")
    welcomed.hear(Result(1, VALUE))
    welcomed.sent()
    welcomed.lost("gone")
    welcomed.hello()
    welcomed.sent()
    welcomed.hear(Result(55, VALUE), welcome())  # the first one belongs to no session
    welcomed.hear(Result(56, VALUE), Error(None, "PROTOCOL_ERROR", "", ErrorDetails()))
    assert welcomed.sent() == [encode_message(Ack(2))]


# --- cancels -------------------------------------------------------------------------------------


def test_a_cancel_follows_its_call(welcomed: Driver) -> None:
    """It overtook the call in one message, and the call ran."""
    id_ = welcomed.open("a")
    assert welcomed.cancel(id_) is None
    assert welcomed.sent() == [bundle_requests([call(1), encode_message(Cancel(1))])]
    details = ErrorDetails(outcome="not_started")
    error = Error(1, "CANCELLED", "", details)
    assert welcomed.hear(error) == [Completion("a", error, ())]


def test_a_call_that_waits_is_cancelled_here(core: Driver) -> None:
    first, second = core.open("a"), core.open("b")
    assert core.cancel(first) == ended("a", first)
    assert core.cancel(first) is None
    assert core.open_requests == 1
    core.hear(welcome())
    assert core.sent() == [call(second)]
    core.check_invariants()


def test_a_cancel_of_what_has_ended_is_nothing(welcomed: Driver) -> None:
    id_ = welcomed.open("a")
    welcomed.sent()
    welcomed.hear(Result(id_, VALUE))
    assert welcomed.cancel(id_) is None
    assert welcomed.sent() == []


def test_many_that_wait_are_cancelled_in_any_order(core: Driver) -> None:
    """Each cancel looked through all that waited: this took a minute."""
    ids = [core.call(str(number), "add", (PARAMS, ()), None) for number in range(50_000)]
    begun = perf_counter()
    for id_ in reversed(ids):
        assert core.cancel(id_) is not None
    assert perf_counter() - begun < 10.0
    assert core.open_requests == 0
    assert not core.has_waiting


# --- deadlines -----------------------------------------------------------------------------------


def test_a_call_that_has_waited_has_less_time_left(core: Driver) -> None:
    """It was sent with all its time, as if it had not waited."""
    core.open("a", timeout_ms=50.0, due=1000.05)
    core.chunk("b", "add", PARAMS, 100.0, 1000.1)
    core.open("c", PARAMS, [b"buffer"], timeout_ms=50.0, due=1000.05)
    core.hear(welcome())
    first, buffer, second = core.sent(now=1000.03125), core.sent(), core.sent()
    assert (buffer, second) == ([], [])
    bundle, third, buffer = first
    left = [20.0 - 1.25, 70.0 - 1.25]
    (call_, chunk) = decode_bundle(bundle)
    for message, expected in zip(
        (call_, chunk, decode_request(third)), [*left, left[0]], strict=True
    ):
        assert message.options.timeout_ms == pytest.approx(expected)
    assert buffer == b"buffer"
    assert decode_request(third).options.buffers == 1


def test_a_call_that_has_waited_for_too_long_is_not_sent(core: Driver) -> None:
    """It was sent after its caller had given up."""
    core.open("a", timeout_ms=50.0, due=1000.05)
    core.open("b")
    core.open("c", timeout_ms=20.0, due=1000.02)
    assert core.next_due() == 1000.02
    assert core.expire(1000.019) == []
    why = "the deadline has passed before it could be sent"
    assert core.expire(1000.02) == [ended("c", 3, "DEADLINE_EXCEEDED", why)]
    assert core.next_due() == 1000.05
    assert core.expire(1001.0) == [ended("a", 1, "DEADLINE_EXCEEDED", why)]
    assert (core.next_due(), core.expire(1002.0)) == (inf, [])
    assert core.open_requests == 1
    core.hear(welcome())
    assert core.sent(now=1002.0) == [call(2)]


def test_what_is_sent_at_once_has_all_its_time(welcomed: Driver) -> None:
    welcomed.open("a", timeout_ms=50.0, due=1000.05)
    assert welcomed.next_due() == inf
    assert welcomed.sent(now=1000.04) == [call(1, options=Options(timeout_ms=50.0))]
    assert welcomed.expire(2000.0) == []  # it is the broker's to say


def test_the_time_of_a_call_without_a_due_time_does_not_run_here(core: Driver) -> None:
    core.open("a", timeout_ms=50.0)
    core.open("b", timeout_ms=50.0, due=1000.05)
    core.hear(welcome())
    options = Options(timeout_ms=50.0)
    assert core.sent() == [bundle_requests([call(1, options=options), call(2, options=options)])]


def test_the_time_left_is_never_nothing(core: Driver) -> None:
    """The broker takes no request without any, and would call it malformed."""
    core.open("a", timeout_ms=50.0, due=1000.05)
    core.hear(welcome())
    assert core.sent(now=1000.06) == [call(1, options=Options(timeout_ms=LEFT_MS_MIN))]


def test_less_time_takes_no_more_bytes(welcomed: Driver) -> None:
    """What had 50 ms just fitted, and was too large for the broker with 12.5 of them left."""
    size = len(call(1, b"", Options(timeout_ms=50)))
    body = b"\xc5\x1f\x00" + bytes(LIMITS.request_bytes - size - 3)
    with pytest.raises(InvalidArgumentError):
        welcomed.open("a", body, timeout_ms=50)


def test_what_has_ended_otherwise_does_not_expire(core: Driver) -> None:
    cancelled = core.open("a", timeout_ms=50.0, due=1000.05)
    core.open("b", timeout_ms=60.0, due=1000.06)
    assert core.cancel(cancelled) is not None
    assert core.next_due() == 1000.06
    assert len(core.lost("gone")) == 1
    assert (core.next_due(), core.expire(2000.0)) == (inf, [])


# --- buffers -------------------------------------------------------------------------------------


def test_the_buffers_of_a_result_are_the_frames_behind_it(welcomed: Driver) -> None:
    for handle in "ab":
        welcomed.open(handle)
    owner, plain = Result(1, VALUE, 2), Result(2, VALUE)
    frames = [encode_message(owner), b"one", b"two", encode_message(plain)]
    assert welcomed.receive(frames) == [
        Completion("a", owner, [b"one", b"two"]),
        Completion("b", plain, ()),
    ]


def test_buffers_may_come_later(welcomed: Driver) -> None:
    welcomed.open("a")
    owner = Result(1, VALUE, 2)
    assert welcomed.receive([encode_message(owner), b"one"]) == []
    assert welcomed.receive([b"two"]) == [Completion("a", owner, [b"one", b"two"])]


def test_a_bundle_may_end_with_the_owner_of_buffers(welcomed: Driver) -> None:
    for handle in "ab":
        welcomed.open(handle)
    owner = Result(2, VALUE, 1)
    bundle = bundle_replies([encode_message(Result(1, VALUE)), encode_message(owner)])
    completions = welcomed.receive([bundle, b"one"])
    assert [(one.handle, list(one.buffers)) for one in completions] == [("a", []), ("b", [b"one"])]


def test_buffers_of_a_lost_connection_are_forgotten(welcomed: Driver) -> None:
    welcomed.open("a")
    welcomed.receive([encode_message(Result(1, VALUE, 2)), b"one"])
    assert len(welcomed.lost("gone")) == 1
    assert welcomed.hear(welcome()) == []
    assert welcomed.info is not None


# --- the end of connections ----------------------------------------------------------------------


def test_a_lost_connection_ends_all_that_is_open(welcomed: Driver) -> None:
    for number in range(9):
        welcomed.open(str(number))
    waiting = welcomed.open("given up")
    assert welcomed.cancel(waiting) == ended("given up", waiting)
    welcomed.ping("ping")
    completions = welcomed.lost("gone")
    welcomed.check_invariants()
    expected = [Completion(str(n), lost(n + 1, "maybe_executed"), ()) for n in range(8)]
    expected.append(Completion("ping", lost(11, "maybe_executed"), ()))
    expected.append(Completion("8", lost(9, "not_started"), ()))
    assert completions == expected
    assert (welcomed.open_requests, welcomed.info) == (0, None)
    assert welcomed.sent() == []
    assert welcomed.lost("gone again") == []


def test_after_a_loss_calls_wait_for_the_next_welcome(welcomed: Driver) -> None:
    welcomed.lost("gone")
    assert welcomed.open("a") == 1
    assert welcomed.sent() == []
    welcomed.hello()
    welcomed.hear(welcome(None), welcome())
    assert welcomed.sent() == [bundle_requests([encode_message(Hello(0, "test/1")), call(1)])]


def test_the_answer_to_a_probe_tells_of_a_new_connection(welcomed: Driver) -> None:
    """What was sent on it before is taken back, or its replies would count in the new session."""
    welcomed.open("a")
    welcomed.sent()
    why = "the connection to the broker was lost and made anew"
    assert welcomed.hear(welcome(None)) == [Completion("a", lost(1, "maybe_executed", why), ())]
    assert welcomed.sent() == [
        bundle_requests([encode_message(Goodbye()), encode_message(Hello(0, "test/1"))])
    ]
    assert welcomed.info is None
    assert welcomed.hear(Result(1, VALUE)) == []


def test_a_pong_that_nobody_asked_for_changes_nothing(welcomed: Driver) -> None:
    """The broker sends it to a client of which it has long heard nothing, to see it is there."""
    welcomed.open("a")
    welcomed.sent()
    welcomed.open("b")
    assert welcomed.hear(Pong(None, "e1")) == []
    assert welcomed.info is not None
    assert welcomed.open_requests == 2
    assert welcomed.sent() == [call(2)]
    assert welcomed.hear(Result(1, VALUE)) == [Completion("a", Result(1, VALUE), ())]


def test_goodbye(welcomed: Driver) -> None:
    welcomed.goodbye()
    assert welcomed.sent() == [encode_message(Goodbye())]


def test_ids_are_never_used_twice(welcomed: Driver) -> None:
    ids = [welcomed.open("a"), welcomed.ping("b"), welcomed.chunk("c", "add", PARAMS, None)]
    welcomed.lost("gone")
    ids.append(welcomed.open("d"))
    assert ids == [1, 2, 3, 4]


# parts and events


@pytest.fixture
def streaming(welcomed: Driver) -> tuple[Driver, Inbox]:
    """Give a client that has opened a stream, which is not sent yet."""
    welcomed.hear(welcome())
    inbox = Inbox(parts=True, events=True, items=4, bytes_=100, event_count=2)
    assert welcomed.call("a", "rows", (PARAMS, ()), None, None, inbox) == 1
    return welcomed, inbox


def asked(core: Driver) -> list[Any]:
    return [decode_request(bytes(frame)) for frame in core.sent()]


def messages(inbox: Inbox) -> list[Any]:
    return [taken[0] for taken in iter(inbox.take, None)]


def test_a_call_says_what_it_takes(streaming: tuple[Driver, Inbox]) -> None:
    core, _ = streaming
    assert asked(core) == [Call(1, "rows", Raw(PARAMS), Options(stream=(4, 100), events=2))]


def test_parts_and_events_go_into_the_inbox_and_are_no_completions(
    streaming: tuple[Driver, Inbox],
) -> None:
    core, inbox = streaming
    news = [Part(1, 0, VALUE), Event(1, 0, "a", VALUE), Progress(1, 1.0), Part(1, 1, VALUE)]
    assert core.receive([encode_message(news[0])]) == []
    assert core.receive([bundle_replies([encode_message(one) for one in news[1:]])]) == []
    assert messages(inbox) == news
    (completion,) = core.receive([encode_message(Result(1, VALUE))])
    assert completion.handle == "a"
    core.check_invariants()


def test_a_part_may_have_its_bytes_behind_it(streaming: tuple[Driver, Inbox]) -> None:
    core, inbox = streaming
    core.receive([encode_message(Part(1, 0, VALUE, 1))])
    assert not inbox
    core.receive([b"bytes", encode_message(Part(1, 1, VALUE))])
    assert inbox.take() == (Part(1, 0, VALUE, 1), [b"bytes"])
    assert inbox.take() == (Part(1, 1, VALUE), ())


def test_credit_is_given_while_the_call_is_open(streaming: tuple[Driver, Inbox]) -> None:
    core, _ = streaming
    core.outgoing()
    core.credit(1, Credit(2, 30, 1))
    assert asked(core) == [CreditMessage(1, 2, 30, 1)]
    core.receive([encode_message(Result(1, VALUE))])
    core.credit(1, Credit(2, 30, 1))
    assert asked(core) == []


@pytest.mark.parametrize("end", ["result", "cancel", "loss"])
def test_what_comes_of_a_call_that_is_over_is_dropped(
    streaming: tuple[Driver, Inbox], end: str
) -> None:
    core, inbox = streaming
    core.outgoing()
    if end == "result":
        core.receive([encode_message(Result(1, VALUE))])
    elif end == "cancel":
        core.cancel(1)
    else:
        core.lost("gone")
    core.receive([encode_message(Part(1, 0, VALUE)), encode_message(Part(77, 5, VALUE))])
    assert not inbox


def test_parts_are_not_acknowledged(streaming: tuple[Driver, Inbox]) -> None:
    core, _ = streaming
    core.outgoing()
    for seq in range(2 * LIMITS.grant_requests):
        core.receive([encode_message(Part(1, seq, VALUE))])
    assert asked(core) == []


def test_a_part_out_of_order_breaks_the_protocol(streaming: tuple[Driver, Inbox]) -> None:
    core, _ = streaming
    with pytest.raises(ProtocolError, match="part 1 came where 0 was to come"):
        core.receive([encode_message(Part(1, 1, VALUE))])
