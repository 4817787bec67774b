"""Mirror of broker/parts.py: parts, progress and events, and the credit that they are sent by."""

from typing import Any

import pytest
from core_driver import (
    GRACE_S,
    LIMITS,
    OTHER,
    PARAMS,
    PEER,
    ROWS,
    VALUE,
    Driver,
    assigned,
    cancelled,
)
from msgspec import Raw

from pronghorn.broker.events import Assign, Command, Kill, PeerGone, Send, WorkerGone
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import (
    CancelRun,
    Done,
    Emitted,
    Failed,
    MoreCredit,
    Progressed,
    RunCall,
    RunStream,
    Yielded,
)
from pronghorn.broker.wire.messages import (
    Call,
    Cancel,
    Credit,
    Error,
    Event,
    Hello,
    MapChunk,
    Options,
    Part,
    Progress,
    Result,
)

FLOW = Options(stream=(2, 1000), events=3)
RETRYABLE = ErrorDetails(outcome="executed", retryable=True)


def begun(driver: Driver, options: Options = FLOW, node: str = "rows") -> RunStream:
    """Have a client's call begin in worker 1, and return it."""
    run: Any = assigned(driver.say(Call(5, node, PARAMS, options)))
    assert isinstance(run, RunStream)
    assert driver.begin(run)
    return run


def to_client(message: Any) -> list[Command]:
    return [Send(PEER, message, None, (), batched=True)]


def error_of(commands: list[Command]) -> Error:
    (found,) = [one.message for one in commands if isinstance(one, Send)]
    assert isinstance(found, Error)
    return found


def test_the_worker_is_told_what_the_caller_takes(serving: Driver) -> None:
    run = begun(serving)
    assert (run.node, run.params) == (ROWS, PARAMS)
    assert (run.takes_parts, run.items, run.bytes, run.events) == (True, 2, 1000, 3)


def test_a_call_that_asks_for_nothing_is_a_plain_one(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "rows", PARAMS, Options(events=0))))
    assert type(run) is RunCall


def test_events_alone_may_be_taken_of_any_node(serving: Driver) -> None:
    run: Any = assigned(serving.say(Call(5, "add", PARAMS, Options(events=3))))
    assert (run.takes_parts, run.items, run.events) == (False, 0, 3)


def test_parts_are_numbered_and_followed_by_one_terminal(serving: Driver) -> None:
    run = begun(serving)
    for seq in range(2):
        assert serving.work(Yielded(run.token, VALUE)) == to_client(Part(5, seq, VALUE))
    assert serving.work(Done(run.token, Raw(b"\xc0"), 7)) == to_client(Result(5, Raw(b"\xc0")))
    assert serving.work(Yielded(run.token, VALUE)) == []
    assert serving.core.statistics(serving.now).workers[0].held == 0


def test_a_part_may_have_a_buffer(serving: Driver) -> None:
    run = begun(serving)
    assert serving.work(Yielded(run.token, VALUE, 1), buffers=[b"b" * 999]) == [
        Send(PEER, Part(5, 0, VALUE, 1), None, [b"b" * 999], batched=True)
    ]
    assert serving.work(Yielded(run.token, VALUE)) == [
        Kill(1, "it sent a part without credit (I8)")
    ], "the first one has used up the bytes"


def test_a_part_without_credit_ends_the_worker(serving: Driver) -> None:
    run = begun(serving)
    serving.work(Yielded(run.token, VALUE))
    serving.work(Yielded(run.token, VALUE))
    assert serving.work(Yielded(run.token, VALUE)) == [
        Kill(1, "it sent a part without credit (I8)")
    ]


def test_more_credit_goes_to_the_worker(serving: Driver) -> None:
    run = begun(serving)
    serving.work(Yielded(run.token, VALUE))
    serving.work(Yielded(run.token, VALUE))
    assert serving.say(Credit(5, 1, 10, 2)) == [Assign(1, MoreCredit(run.token, 1, 10, 2))]
    assert serving.work(Yielded(run.token, VALUE)) == to_client(Part(5, 2, VALUE))


def test_credit_of_what_waits_is_told_with_the_call(driver: Driver) -> None:
    driver.hello()
    driver.say(Call(5, "rows", PARAMS, FLOW))
    assert driver.say(Credit(5, 3, 10, 1)) == []
    run: Any = assigned(driver.start_worker())
    assert (run.items, run.bytes, run.events) == (5, 1010, 4)


def test_credit_for_what_has_ended_or_never_was_is_ignored(serving: Driver) -> None:
    run = begun(serving)
    serving.work(Done(run.token, VALUE, 7))
    assert serving.say(Credit(5, 1, 1), Credit(77, -1, -1)) == []


@pytest.mark.parametrize(
    ("credit", "text"),
    [
        (Credit(5, -1, 10), "is negative"),
        (Credit(5, 1, -10), "is negative"),
        (Credit(5, 0, 0, -1), "is negative"),
        (Credit(5, 0, 10), "is for no part and no event"),
        (Credit(5, 0, 0), "is for no part and no event"),
        (Credit(5, 2**62, 0), "more than 20, its grant"),
        (Credit(5, 1, 2**62), "more than 4096, its grant"),
        (Credit(5, 0, 0, 16), "more than 20, its grant"),
    ],
)
def test_bad_credit_ends_the_call(serving: Driver, credit: Credit, text: str) -> None:
    run = begun(serving)
    commands = serving.say(credit)
    assert commands[0] == Assign(1, CancelRun(run.token))
    error = error_of(commands)
    assert (error.code, error.details.outcome) == ("INVALID_ARGUMENT", "maybe_executed")
    assert text in error.message
    assert serving.work(Yielded(run.token, VALUE)) == []


def test_bytes_may_be_counted_by_the_broker(serving: Driver) -> None:
    run = begun(serving, Options(stream=(4, None)))
    assert (run.items, run.bytes) == (4, LIMITS.grant_part_bytes), "it is less than the usual"
    for size in (10, 20, 30):
        serving.work(Yielded(run.token, VALUE, 1), buffers=[b"b" * size])
    own = len(VALUE)
    assert serving.say(Credit(5, 2)) == [Assign(1, MoreCredit(run.token, 2, 30 + 2 * own, 0))]
    assert serving.say(Credit(5, 2)) == [Assign(1, MoreCredit(run.token, 2, 30 + own, 0))], (
        "for what was not sent there are no bytes to give back"
    )
    assert serving.say(Credit(5, 0, 0, 1)) == [Assign(1, MoreCredit(run.token, 0, 0, 1))]


@pytest.mark.parametrize(("stream", "credit"), [((2, 1000), None), ((2, None), 1000)])
def test_who_counts_the_bytes_is_said_with_the_call(
    serving: Driver, stream: tuple[int, int | None], credit: int | None
) -> None:
    begun(serving, Options(stream=stream))
    assert "counts the bytes" in error_of(serving.say(Credit(5, 1, credit))).message


@pytest.mark.parametrize("options", [None, Options(events=1)])
def test_credit_for_parts_that_nobody_asked_for_ends_the_call(
    serving: Driver, options: Options | None
) -> None:
    serving.begin(assigned(serving.say(Call(5, "sleep", PARAMS, options))))
    assert "did not ask for" in error_of(serving.say(Credit(5, 1, 1))).message


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Call(5, "add", PARAMS, FLOW), "it is no generator"),
        (Call(5, "rows", PARAMS, Options(stream=(-1, 5))), "never negative"),
        (Call(5, "rows", PARAMS, Options(events=-1)), "never negative"),
        (Call(5, "rows", PARAMS, Options(stream=(1, 5000))), "for all of its calls"),
        (Call(5, "rows", PARAMS, Options(stream=(19, 5), events=2)), "for all of its calls"),
        (MapChunk(5, "rows", PARAMS), "can be called, not mapped"),
        (MapChunk(5, "add", PARAMS, Options(events=1)), "sends neither parts nor events"),
    ],
)
def test_what_can_not_be_sent_is_refused(serving: Driver, message: Any, text: str) -> None:
    error = error_of(serving.say(message))
    assert (error.code, error.details.outcome) == ("INVALID_ARGUMENT", "not_started")
    assert text in error.message


def test_without_an_id_there_are_no_parts(serving: Driver) -> None:
    assert serving.say(Call(None, "rows", PARAMS, FLOW)) == []
    assert serving.count("refused") == 1


def test_credit_of_all_calls_is_bounded(serving: Driver) -> None:
    begun(serving, Options(stream=(10, 1000), events=5))
    error = error_of(serving.say(Call(6, "rows", PARAMS, Options(stream=(6, 1000)))))
    assert (error.code, error.details.retryable) == ("RESOURCE_EXHAUSTED", True)
    assert error.details.limit == LIMITS.grant_parts
    error = error_of(serving.say(Call(6, "rows", PARAMS, Options(stream=(1, 4000)))))
    assert error.details.limit == LIMITS.grant_part_bytes
    serving.say(Cancel(5))
    assert assigned(serving.say(Call(6, "rows", PARAMS, Options(stream=(20, 4096)))))


def test_progress_and_events_are_passed_on_by_credit(serving: Driver) -> None:
    run = begun(serving)
    assert serving.work(Progressed(run.token, 1.0, None, "x")) == to_client(
        Progress(5, 1.0, None, "x")
    )
    assert serving.work(Emitted(run.token, "found", VALUE)) == to_client(
        Event(5, 0, "found", VALUE)
    )
    assert serving.work(Emitted(run.token, "found", VALUE)) == to_client(
        Event(5, 1, "found", VALUE)
    )
    assert serving.work(Emitted(run.token, "found", VALUE)) == [
        Kill(1, "it sent an event without credit (I8)")
    ]


def test_after_a_cancel_nothing_is_passed_on(serving: Driver) -> None:
    run = begun(serving)
    assert serving.say(Cancel(5)) == [
        Assign(1, CancelRun(run.token)),
        Send(PEER, cancelled(5, "m.rows", "maybe_executed"), batched=True),
    ]
    assert serving.work(Yielded(run.token, VALUE)) == []
    assert serving.work(Emitted(run.token, "found", VALUE)) == []
    assert serving.work(Progressed(run.token, 1.0, None, "")) == []


def test_a_client_that_is_gone_has_its_streams_cancelled(serving: Driver) -> None:
    run = begun(serving)
    assert serving.do(PeerGone(PEER)) == [Assign(1, CancelRun(run.token))]


def test_a_stream_that_has_sent_parts_is_not_tried_again(serving: Driver) -> None:
    run = begun(serving)
    serving.work(Yielded(run.token, VALUE))
    error = error_of(serving.work(Failed(run.token, "NODE_ERROR", "no", RETRYABLE)))
    assert error.code == "NODE_ERROR"


def test_a_stream_that_has_sent_none_is_tried_again(serving: Driver) -> None:
    run = begun(serving)
    serving.work(Emitted(run.token, "found", VALUE))
    assert serving.work(Failed(run.token, "NODE_ERROR", "no", RETRYABLE)) == []
    again: Any = assigned(serving.tick(serving.now + 10))
    assert (again.items, again.events) == (2, 2)
    assert serving.work(Yielded(again.token, VALUE)) == to_client(Part(5, 0, VALUE))
    assert serving.work(Emitted(again.token, "found", VALUE)) == to_client(
        Event(5, 1, "found", VALUE)
    ), "numbers have no gaps and are not used twice"


def test_a_stream_whose_worker_dies_ends_behind_its_parts(serving: Driver) -> None:
    run = begun(serving, node="arows")
    serving.work(Yielded(run.token, VALUE))
    error = error_of(serving.do(WorkerGone(1, "signal 9 (SIGKILL)")))
    assert (error.code, error.details.outcome) == ("WORKER_LOST", "maybe_executed")


def test_strangers_get_each_part_by_itself(serving: Driver) -> None:
    run: Any = assigned(serving.say(Call(5, "rows", PARAMS, FLOW), peer=OTHER))
    serving.begin(run)
    assert serving.work(Yielded(run.token, VALUE)) == [Send(OTHER, Part(5, 0, VALUE))]
    assert serving.say(Credit(5, 1, 1), peer=OTHER) == [Assign(1, MoreCredit(run.token, 1, 1, 0))]


def test_a_hello_in_between_changes_nothing(serving: Driver) -> None:
    run = begun(serving)
    serving.say(Hello(0))
    assert serving.work(Yielded(run.token, VALUE)) == to_client(Part(5, 0, VALUE))


def test_a_generator_that_holds_up_its_worker_is_killed(serving: Driver) -> None:
    run = begun(serving)
    serving.pages[1].set_mark(run.slot, 1)  # it runs, and never yields
    serving.say(Cancel(5))
    assert serving.tick(serving.now + GRACE_S) == [Kill(1, "m.rows went on after it was given up")]
    assert serving.count("stuck") == 1


def test_a_generator_that_is_held_up_itself_harms_nobody(serving: Driver) -> None:
    run = begun(serving)
    serving.say(Cancel(5))
    for _ in range(3):
        assert serving.tick(serving.now + GRACE_S) == []
    serving.pages[1].set_mark(run.slot, 1)  # its ``finally`` hangs
    assert serving.tick(serving.now + GRACE_S) == [Kill(1, "m.rows went on after it was given up")]
