"""Mirror of broker/workers.py: what workers say, and their end."""

import pytest
from core_driver import ADD, PARAMS, PEER, VALUE, Driver, assigned, cancelled, error_of
from msgspec import Raw
from msgspec.msgpack import decode

from pronghorn.broker.events import (
    Assign,
    Kill,
    Send,
    WorkerGone,
)
from pronghorn.broker.window import STALL_S
from pronghorn.broker.wire.errors import ErrorDetails, NodeError
from pronghorn.broker.wire.link import (
    ChunkDone,
    Done,
    Failed,
    Skipped,
)
from pronghorn.broker.wire.messages import (
    NIL,
    Call,
    Cancel,
    Error,
    MapChunk,
    MapResult,
    Options,
    Result,
)


def test_a_worker_with_other_nodes_is_killed(driver: Driver) -> None:
    assert driver.start_worker(digest="other") == [
        Kill(1, "its nodes differ from those of the template")
    ]
    assert driver.say(Call(1, "m.add")) == []
    assert driver.do(WorkerGone(1, "signal 9 (SIGKILL)")) == []


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
        ErrorDetails(
            outcome="maybe_executed",
            node="m.add",
            cause="signal 9 (SIGKILL)",
            running=("m.add for 1000000.0 ms",),
        ),
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


THREE = Raw(b"\x93\x01\x02\x03")


def lost_chunk(serving: Driver, *values: object, node: str = "add") -> MapResult:
    """Lose a chunk of three items when some of them are over."""
    run = assigned(serving.say(MapChunk(1, node, THREE)))
    serving.begin(run)
    serving.pages[1].put(run.slot, *values)
    (command,) = serving.do(WorkerGone(1, "exit status 1"))
    assert isinstance(command, Send)
    assert isinstance(command.message, MapResult)
    return command.message


@pytest.mark.parametrize("node", ["add", "thread"])
def test_of_a_chunk_one_item_is_in_doubt_and_those_before_it_have_their_results(
    serving: Driver, node: str
) -> None:
    reply = lost_chunk(serving, "a", node=node)
    assert decode(reply.values) == ["a", None]
    assert reply.failures is not None
    (failure,) = reply.failures
    assert (failure.index, failure.code) == (1, "WORKER_LOST")
    assert failure.details.outcome == "maybe_executed"
    assert serving.count("failed") == 1


def test_of_a_chunk_that_was_only_claimed_the_first_item_is_in_doubt(serving: Driver) -> None:
    reply = lost_chunk(serving)
    assert decode(reply.values) == [None]
    assert [failure.index for failure in reply.failures or ()] == [0]


def test_of_a_chunk_whose_items_are_all_over_nothing_is_lost(serving: Driver) -> None:
    reply = lost_chunk(serving, "a", 2, None)
    assert (decode(reply.values), reply.failures) == (["a", 2, None], None)
    assert reply.run_ms == pytest.approx(1e6)  # since the claim
    assert serving.count("completed") == 1


def test_an_item_that_failed_before_its_worker_was_lost_has_its_own_error(
    serving: Driver,
) -> None:
    run = assigned(serving.say(MapChunk(1, "add", THREE)))
    serving.begin(run)
    serving.pages[1].put(run.slot, "a")
    serving.pages[1].results(run.slot).fail(NodeError("no"))
    (command,) = serving.do(WorkerGone(1, "exit status 1"))
    assert isinstance(command, Send)
    assert isinstance(command.message, MapResult)
    codes = [(one.index, one.code) for one in command.message.failures or ()]
    assert codes == [(1, "NODE_ERROR"), (2, "WORKER_LOST")]
    assert decode(command.message.values) == ["a", None, None]


def test_of_an_async_chunk_all_items_are_in_doubt(serving: Driver) -> None:
    """The first was named, and the others, which may have run, were run again."""
    run = assigned(serving.say(MapChunk(1, "sleep", PARAMS)))
    serving.begin(run)
    error = error_of(serving.do(WorkerGone(1, "exit status 1")))
    assert (error.code, error.details.outcome) == ("WORKER_LOST", "maybe_executed")


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
