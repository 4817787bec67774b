"""Mirror of broker/workers.py: what workers say, and their end."""

import pytest
from core_driver import ADD, PARAMS, PEER, VALUE, Driver, assigned, cancelled, error_of

from pronghorn.broker.events import (
    Assign,
    Kill,
    Send,
    WorkerGone,
)
from pronghorn.broker.window import STALL_S
from pronghorn.broker.wire.errors import ErrorDetails
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
