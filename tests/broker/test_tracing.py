"""Mirror of broker/tracing.py, and what the core does for requests that ask for it."""

import pytest
from core_driver import ADD, PARAMS, PEER, REQ, VALUE, Driver, assigned

from pronghorn.broker.events import Assign, Send, WorkerGone
from pronghorn.broker.tracing import Tracing
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import ChunkDone, Done, Failed, Nested, RunCall, TraceContext
from pronghorn.broker.wire.messages import (
    NO_OPTIONS,
    Call,
    Cancel,
    MapChunk,
    Options,
    Result,
    Times,
)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TIMES = Options(times=True)
RECEIVED_NS = 1000 * 10**9
BEGUN_NS = RECEIVED_NS + 2_000_000


def begin(driver: Driver, run: RunCall, worker_id: int = 1) -> None:
    """Be a worker that claims a request 2 ms after the test's begin."""
    assert driver.pages[worker_id].claim(run.slot, run.token, BEGUN_NS)


def times_of(commands: list) -> Times:
    """Return the times that are sent, before the one terminal reply."""
    first, second = commands
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert not first.batched, "so that it is not overtaken"
    assert isinstance(first.message, Times)
    assert not isinstance(second.message, Times)
    assert first.message.id == second.message.id
    return first.message


@pytest.mark.parametrize("options", [NO_OPTIONS, Options(trace="nonsense"), Options(timeout_ms=5)])
def test_most_requests_have_none(options: Options) -> None:
    assert Tracing.of(options, 1.0) is None


def test_a_call_without_it_is_as_ever(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS, Options(timeout_ms=1e3))))
    assert [type(one.message) for one in serving.work(Done(run.token, VALUE, 9))] == [Result]


def test_times_come_before_the_result(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS, TIMES)))
    begin(serving, run)
    serving.now += 0.010
    told = times_of(serving.work(Done(run.token, VALUE, 1000)))
    expected = Times(5, RECEIVED_NS, RECEIVED_NS, BEGUN_NS, BEGUN_NS + 1000, RECEIVED_NS + 10**7)
    assert told == expected


def test_the_wait_in_the_queue_is_between(driver: Driver) -> None:
    driver.say(Call(5, "m.add", PARAMS, TIMES))
    driver.now += 0.004
    run = assigned(driver.start_worker())
    begin(driver, run)
    told = times_of(driver.work(Done(run.token, VALUE, 9)))
    assert (told.received, told.given) == (RECEIVED_NS, RECEIVED_NS + 4_000_000)


def test_times_of_an_error(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS, TIMES)))
    begin(serving, run)
    told = times_of(serving.work(Failed(run.token, "NODE_ERROR", "boom", ErrorDetails(), 7)))
    assert told.ended == BEGUN_NS + 7


def test_times_of_a_chunk(serving: Driver) -> None:
    run = assigned(serving.say(MapChunk(5, "m.add", PARAMS, TIMES)))
    begin(serving, run)
    told = times_of(serving.work(ChunkDone(run.token, VALUE, 30, 3)))
    assert told.ended == BEGUN_NS + 30


def test_what_was_not_reached_is_not_told(driver: Driver) -> None:
    driver.say(Call(5, "m.add", PARAMS, TIMES))
    told = times_of(driver.say(Cancel(5)))
    assert told == Times(5, RECEIVED_NS, None, None, None, RECEIVED_NS)


def test_of_a_lost_worker_nobody_knows_when_it_ended(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS, TIMES)))
    begin(serving, run)
    told = times_of(serving.do(WorkerGone(1, "signal 9 (SIGKILL)")))
    assert (told.given, told.begun, told.ended) == (RECEIVED_NS, None, None)


def test_over_an_envelope_there_is_room_for_one_reply_only(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS, TIMES), origin=REQ))
    (command,) = serving.work(Done(run.token, VALUE, 9))
    assert isinstance(command, Send)
    assert isinstance(command.message, Result)


def test_who_is_gone_gets_no_times(serving: Driver) -> None:
    run = assigned(serving.say(Call(None, "m.add", PARAMS, TIMES)))
    assert serving.work(Done(run.token, VALUE, 9)) == []


def test_a_worker_is_told_of_the_trace_before_the_call(serving: Driver) -> None:
    told, run = serving.say(Call(5, "m.add", PARAMS, Options(trace=TRACEPARENT)))
    assert isinstance(run, Assign)
    assert isinstance(run.message, RunCall)
    assert told == Assign(1, TraceContext(run.message.token, TRACEPARENT))
    assert run.message.node == ADD
    (reply,) = serving.work(Done(run.message.token, VALUE, 9))
    assert isinstance(reply, Send)
    assert reply.peer == PEER


def test_a_nested_call_carries_it_on(serving: Driver) -> None:
    serving.start_worker(2)
    run = assigned(serving.say(Call(5, "m.sleep", PARAMS)))
    serving.begin(run)
    nested = Nested(1, run.token, "m.add", PARAMS, None, False, 1, 0, TRACEPARENT)
    told, nested_run = serving.work(nested)
    assert isinstance(told, Assign)
    assert told.message == TraceContext(nested_run.message.token, TRACEPARENT)
