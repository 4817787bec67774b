"""Mirror of broker/workers.py: what workers say, and their end."""

from math import inf
from typing import Any
from unittest.mock import ANY as ANY_RUN

import pytest
from core_driver import (
    ADD,
    GRACE_S,
    PARAMS,
    PEER,
    VALUE,
    Driver,
    assigned,
    cancelled,
    error_of,
)
from msgspec import Raw
from msgspec.msgpack import decode
from requests_of import Page

from pronghorn.broker.events import (
    Assign,
    Command,
    Kill,
    Look,
    Send,
    TableComing,
    TableKnown,
    WorkerGone,
    WorkerRetired,
    WorkerStarting,
)
from pronghorn.broker.window import STALL_S
from pronghorn.broker.wire.errors import ErrorDetails, NodeError
from pronghorn.broker.wire.link import (
    ChunkDone,
    Done,
    Failed,
    Nested,
    Ready,
    RunHere,
    Skipped,
    Stop,
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
from pronghorn.broker.wire.table import NodeInfo, NodeTable


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
    assert serving.core.statistics(serving.now).nodes[ADD].errors == {"WORKER_LOST": 1}
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
    assert serving.core.statistics(serving.now).queued == 2
    assert serving.say(Cancel(2)) == [
        Send(PEER, cancelled(2, "m.add", "not_started"), batched=True)
    ]
    assert len(serving.tick(1000.05)) == 1
    assert serving.core.statistics(serving.now).queued == 0


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


# --- generations, and workers that make way ----------------------------------------------------

NEW = NodeTable((NodeInfo("m.sleep", "async"), NodeInfo("m.add", "inline")), "new")


def told(commands: list[Command], worker_id: int) -> list[Any]:
    """Return what a worker is told."""
    return [
        one.message for one in commands if isinstance(one, Assign) and one.worker_id == worker_id
    ]


def replies(commands: list[Command]) -> list[Any]:
    """Return what clients are told."""
    return [one.message for one in commands if isinstance(one, Send)]


def errors(commands: list[Command]) -> list[Error]:
    return [message for message in replies(commands) if isinstance(message, Error)]


def test_a_retired_worker_ends_what_it_has_begun_and_the_rest_goes_to_others(
    serving: Driver,
) -> None:
    serving.make_quick()
    first, second = (assigned(serving.say(Call(id_, "m.add", PARAMS))) for id_ in (1, 2))
    assert serving.begin(first)
    serving.start_worker(2)
    commands = serving.do(WorkerRetired(1))
    assert told(commands, 1) == [Stop()]
    (again,) = told(commands, 2)
    assert again.token != second.token
    assert not serving.begin(second), "it was taken back"
    assert serving.do(WorkerRetired(1)) == [], "once is enough"
    assert replies(serving.work(Done(first.token, VALUE, 1000))) == [Result(1, VALUE)]
    assert serving.work(Skipped(second.token)) == []
    assert serving.do(WorkerGone(1, "exit status 0")) == []
    assert serving.count("workers_lost") == 0
    assert serving.begin(again, 2)
    assert replies(serving.work(Done(again.token, VALUE, 1000), 2)) == [Result(2, VALUE)]


def test_a_retired_worker_gets_nothing_more(serving: Driver) -> None:
    serving.do(WorkerRetired(1))
    assert serving.say(Call(1, "m.add"), Call(2, "m.sleep")) == []
    assert len(serving.start_worker(2)) == 2


def test_a_retired_worker_that_dies_loses_what_it_had_begun(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "m.add", PARAMS)))
    serving.begin(run)
    serving.do(WorkerRetired(1))
    (error,) = errors(serving.do(WorkerGone(1, "signal 9 (SIGKILL)")))
    assert (error.code, error.details.outcome) == ("WORKER_LOST", "maybe_executed")
    assert serving.count("workers_lost") == 1


def test_a_worker_retired_before_it_is_ready_never_serves(driver: Driver) -> None:
    driver.do(WorkerStarting(1, Page()))
    assert told(driver.do(WorkerRetired(1)), 1) == [Stop()]
    assert driver.work(Ready(1, 101, "digest")) == []
    assert driver.say(Call(1, "m.add")) == []
    assert driver.do(WorkerRetired(7)) == [], "it is gone"


def test_a_retired_worker_that_does_not_let_go_of_what_was_given_up_is_killed(
    serving: Driver,
) -> None:
    run = assigned(serving.say(Call(1, "m.add", PARAMS, Options(timeout_ms=1000.0))))
    serving.begin(run)
    serving.do(WorkerRetired(1))
    serving.tick(serving.now + 1.0)
    (command,) = serving.tick(serving.now + GRACE_S)
    assert isinstance(command, Kill)


def test_workers_of_a_generation_to_come_are_warm_until_it_is_served(serving: Driver) -> None:
    serving.do(TableComing(NEW, 1))
    assert serving.start_worker(2, "new", 1) == []
    assert serving.say(Call(1, "m.add")) == [Assign(1, ANY_RUN)]
    assert serving.say(Call(2, "m.add")) == [], "a warm worker gets nothing"
    states = {one.id: one.state for one in serving.core.statistics(serving.now).workers}
    assert states == {1: "ready", 2: "warm"}
    commands = serving.do(TableKnown(NEW, 1))
    assert told(commands, 1) == [Stop()]
    first, second = told(commands, 2)[0], told(commands, 2)[1:]
    assert first.node == 1, "its index in the new table"
    assert second == []


def test_a_worker_with_other_nodes_than_its_generation_s_is_killed(serving: Driver) -> None:
    serving.do(TableComing(NEW, 1))
    (command,) = serving.start_worker(2, "digest", 1)
    assert command == Kill(2, "its nodes differ from those of the template")


def test_a_late_worker_of_an_earlier_generation_is_told_to_stop(serving: Driver) -> None:
    serving.do(WorkerStarting(2, Page()))
    serving.do(TableKnown(NEW, 1))
    assert serving.work(Ready(2, 102, "digest"), 2) == []
    assert told(serving.start_worker(3, "digest", 0), 3) == [Stop()]


def test_what_waits_for_a_node_that_is_gone_is_not_found(driver: Driver) -> None:
    driver.hello()
    driver.say(Call(1, "m.add"), Call(2, "m.thread"), Call(3, "m.sleep"))
    (error,) = errors(driver.do(TableKnown(NEW, 1)))
    assert (error.id, error.code, error.details.outcome) == (2, "NOT_FOUND", "not_started")
    assert "no node named 'm.thread'" in error.message
    runs = told(driver.start_worker(1, "new", 1), 1)
    assert sorted(run.node for run in runs) == [0, 1]


def test_what_waits_for_a_node_that_runs_otherwise_now_waits_in_the_other_rotation(
    driver: Driver,
) -> None:
    driver.say(Call(1, "m.add"))
    driver.do(TableKnown(NodeTable((NodeInfo("m.add", "async"),), "new"), 1))
    (waiting,) = driver.core._life.queue.waiting()
    assert not waiting.inline
    (run,) = told(driver.start_worker(1, "new", 1), 1)
    assert run.node == 0


def test_what_an_old_worker_had_not_begun_of_a_node_that_is_gone_is_not_found(
    serving: Driver,
) -> None:
    serving.say(Call(1, "m.thread", PARAMS))
    commands = serving.do(TableKnown(NEW, 1))
    (error,) = errors(commands)
    assert (error.id, error.code) == (1, "NOT_FOUND")
    assert Stop() in told(commands, 1)


def test_what_an_old_worker_has_begun_ends_there(serving: Driver) -> None:
    run = assigned(serving.say(Call(1, "m.thread", PARAMS)))
    serving.begin(run)
    serving.do(TableKnown(NEW, 1))
    assert replies(serving.work(Done(run.token, VALUE, 1000))) == [Result(1, VALUE)]


def test_calls_of_nodes_of_an_old_generation_run_in_their_callers(serving: Driver) -> None:
    serving.start_worker(2)
    run = assigned(serving.say(Call(1, "m.thread", PARAMS)))
    serving.begin(run)
    waiting = Nested(1, run.token, "m.add", PARAMS, None, False, 1)
    assert told(serving.work(waiting), 2), "it was given to the other"
    commands = serving.do(TableKnown(NEW, 1))
    assert RunHere(1) in told(commands, 1), "taken back from there it is its caller's"
    assert serving.work(Nested(2, run.token, "m.thread", PARAMS, None, False, 1)) == [
        Assign(1, RunHere(2))
    ]
    assert replies(serving.work(Done(run.token, VALUE, 1000))) == [Result(1, VALUE)]


def test_a_retry_that_waits_while_its_node_goes_is_not_found_and_may_have_run(
    serving: Driver,
) -> None:
    run = assigned(serving.say(Call(1, "m.again", PARAMS)))
    serving.begin(run)
    assert serving.do(WorkerGone(1, "signal 9 (SIGKILL)")) == []
    serving.do(TableKnown(NEW, 1))
    (error,) = errors(serving.tick(serving.now + 10.0))
    assert (error.code, error.details.outcome) == ("NOT_FOUND", "maybe_executed")


def test_the_supervisor_is_told_once_of_a_number_of_requests_given(driver: Driver) -> None:
    driver.start_worker(look_requests=2)
    told_: list[Command] = []
    for id_ in range(4):
        run = assigned(driver.say(Call(id_, "m.add", PARAMS)))
        driver.begin(run)
        told_ += driver.tick(driver.core.next_due())
        driver.work(Done(run.token, VALUE, 1000))
    assert told_ == [Look(1, 2)]


def test_the_supervisor_is_told_from_time_to_time_but_never_of_one_that_gets_nothing(
    driver: Driver,
) -> None:
    driver.start_worker(look_s=1.0)
    assert driver.core.next_due() == inf
    told_: list[Command] = []
    for id_ in range(4):
        driver.now += 0.5
        run = assigned(driver.say(Call(id_, "m.add", PARAMS)))
        driver.begin(run)
        told_ += driver.tick(driver.core.next_due())
        driver.work(Done(run.token, VALUE, 1000))
    assert told_ == [Look(1, 2), Look(1, 4)]
    assert driver.core.next_due() == inf
