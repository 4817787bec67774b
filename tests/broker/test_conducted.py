"""Mirror of broker/conducted.py: what hosts tell of runs is recorded, and told who goes on."""

from typing import Any

import msgspec
import pytest
from core_driver import PARAMS, VALUE, Driver, error_of
from durable_driver import DurableDriver, events, info, replies
from kept_runs import KeptRuns
from msgspec import Raw

from pronghorn.broker.events import Assign, Command, JournalAnswered, WorkerGone
from pronghorn.broker.journal.record import (
    Accepted,
    Advanced,
    AttemptLost,
    Ended,
    Record,
    Reopened,
    Started,
)
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.flows import CONTROL
from pronghorn.broker.wire.link import (
    Advance,
    AdvanceKept,
    AskHistory,
    Done,
    Failed,
    History,
    HistoryPart,
    Recorded,
    Rest,
    ToBroker,
)
from pronghorn.broker.wire.messages import Call, Cancel, Options
from pronghorn.broker.wire.table import HOST_LABEL, NodeInfo, NodeTable

FLOW = NodeTable(
    tuple(NodeInfo(name, "async", labels=(HOST_LABEL,)) for name in ("m.flow", CONTROL)), "digest"
)
BATCHED = Options(durability="batched")


def driver(kept: KeptRuns | None = None, generation: int = 1) -> DurableDriver:
    made = DurableDriver(kept, generation, table=FLOW)
    made.start_worker()
    made.hello()
    made.open_journal()
    return made


def given(commands: list[Command]) -> tuple[Recorded, Any]:
    """Give what a host is handed: what tells that it is recorded, and the call."""
    recorded, call = [one.message for one in commands if isinstance(one, Assign)]
    assert isinstance(recorded, Recorded)
    assert recorded.token == call.token
    return recorded, call


def begun(made: Driver, commands: list[Command], worker_id: int = 1) -> int:
    _, call = given(commands)
    assert made.begin(call, worker_id)
    return int(call.token)


def advance(token: int, value: int = 1, *, moved: bool = True, asks: bool = False) -> ToBroker:
    tasks = ((f"t{value}", "succeeded"),)
    return Advance(token, Raw(msgspec.msgpack.encode([value])), tasks, moved, asks)


def call(made: DurableDriver, id_: int = 1, **options: Any) -> list[Command]:
    return made.say(Call(id_, "m.flow", PARAMS, Options(durability="batched", **options)))


def records(made: DurableDriver) -> list[Record]:
    (kept,) = made.kept.records.values()
    return [record for _, record in kept]


def kinds(made: DurableDriver) -> list[type[Record]]:
    return [type(record) for record in records(made)]


def lose(made: DurableDriver, worker_id: int = 1) -> list[Command]:
    """Have the host die, and another one go on in time."""
    made.do(WorkerGone(worker_id, "signal 9 (SIGKILL)"))
    made.keep()
    commands = made.start_worker(worker_id + 1)
    return commands + made.tick(made.core._delayed.next_due)


def parts_of(commands: list[Command]) -> list[HistoryPart]:
    (told,) = [one.message for one in commands if isinstance(one, Assign)]
    assert isinstance(told, History)
    assert (told.is_last, told.problem) == (True, "")
    return msgspec.msgpack.decode(told.parts, type=list[HistoryPart])


def test_a_workflow_that_is_called_begins_at_once() -> None:
    made = driver()
    recorded, _ = given(commands := call(made))
    assert not recorded.has_history
    assert [type(record) for record, _ in made.written] == [Accepted]
    assert not made.hurried, "nobody waits for that"
    token = begun(made, commands)
    made.work(advance(token))
    told = replies(made.work(Done(token, VALUE, 1)))
    assert told == {1: 3}, "it is told before anything is kept"
    assert not made.hurried
    made.keep()
    assert kinds(made) == [Accepted, Advanced, Ended]
    made.core.check_invariants()


def test_a_sync_one_is_told_when_its_end_is_kept() -> None:
    made = driver()
    commands = made.say(Call(1, "m.flow", PARAMS, Options(durability="sync")))
    token = begun(made, commands)
    made.work(advance(token))
    assert replies(made.work(Done(token, VALUE, 1))) == {}
    assert made.hurried
    assert replies(made.keep()) == {1: 3}


def test_one_with_a_key_begins_when_it_is_kept_that_it_is_accepted() -> None:
    made = driver()
    assert made.say(Call(1, "m.flow", PARAMS, msgspec.structs.replace(BATCHED, key="k"))) == []
    given(made.keep())


def test_what_a_host_tells_is_told_to_the_next_one() -> None:
    made = driver()
    commands = made.start(node="m.flow", durability="batched")
    run = info(replies(commands)[1]).id
    token = begun(made, commands)
    made.work(advance(token, 1))
    made.work(advance(token, 2))
    made.keep()
    recorded, _ = given(commands := lose(made))
    assert recorded == Recorded(recorded.token, run, has_history=True)
    token = begun(made, commands, 2)
    made.work(AskHistory(token, 0), worker_id=2)
    parts = parts_of(made.keep())
    assert [bytes(part.value) for part in parts] == [b"\x91\x01", b"\x91\x02"]
    made.work(AskHistory(token, parts[0].sequence), worker_id=2)
    assert parts_of(made.keep()) == parts[1:]
    made.work(Done(token, VALUE, 1), worker_id=2)
    made.keep()
    assert kinds(made) == [Accepted, Advanced, Advanced, AttemptLost, Started, Ended]
    tokens = {record.token for record in records(made) if isinstance(record, Advanced)}
    assert tokens == {records(made)[0].run}


def test_a_history_is_told_by_the_next_broker() -> None:
    made = driver()
    commands = made.start(node="m.flow", durability="batched")
    made.work(advance(begun(made, commands)))
    made.keep()
    after = DurableDriver(made.kept, 2, table=FLOW)
    after.start_worker()
    token = begun(after, after.open_journal())
    after.work(AskHistory(token, 0))
    assert len(parts_of(after.keep())) == 1


def test_a_host_that_was_given_up_says_nothing_more() -> None:
    made = driver()
    commands = made.start(node="m.flow", durability="batched")
    run = info(replies(commands)[1]).id
    token = begun(made, commands)
    made.ask(2, "cancel", run)
    for message in (advance(token), AskHistory(token, 0), advance(token + 1)):
        assert made.work(message) == []
    assert made.keep() == []
    assert kinds(made) == [Accepted, Ended]


def test_what_gets_a_run_further_gives_it_its_attempts_again() -> None:
    made = driver()
    commands = made.start(node="m.flow", durability="batched")
    for worker_id in (1, 2, 3, 4, 5):
        token = begun(made, commands, worker_id)
        made.work(advance(token), worker_id=worker_id)
        commands = lose(made, worker_id)
    (state,) = made.kept.states.values()
    assert (state.status, state.attempt, state.deaths) == ("open", 6, 1)
    for worker_id in (6, 7):
        token = begun(made, commands, worker_id)
        made.work(advance(token, moved=False), worker_id=worker_id)
        made.do(WorkerGone(worker_id, "signal 9"))
        made.keep()
        commands = made.start_worker(worker_id + 1)
        if worker_id == 6:
            commands += made.tick(made.core._delayed.next_due)
    (state,) = made.kept.states.values()
    assert (state.status, state.deaths) == ("poisoned", 3)


def test_who_asks_is_told_when_it_is_kept() -> None:
    made = driver()
    token = begun(made, made.start(node="m.flow", durability="batched"))
    made.work(advance(token, 1))
    assert not made.hurried
    made.work(advance(token, 2, asks=True))
    assert made.hurried
    (told,) = made.keep()
    assert told == Assign(1, AdvanceKept(token))
    made.work(advance(token, 3, asks=True))
    made.work(Done(token, VALUE, 1))
    assert not [one for one in made.keep() if isinstance(one, Assign)], "it has ended"


def test_a_journal_that_can_not_tell_is_told_of() -> None:
    made = driver()
    begun(made, made.start(node="m.flow", durability="batched"))
    token = begun(made, lose(made), 2)
    made.work(AskHistory(token, 0), worker_id=2)
    (told,) = made.lose_journal("there is no folder")
    assert isinstance(told, Assign)
    assert isinstance(told.message, History)
    assert told.message.problem == "the journal can't be asked: there is no folder"


def test_what_has_happened_is_told_as_it_is_kept() -> None:
    made = driver()
    commands = made.start(node="m.flow", durability="batched")
    run = info(replies(commands)[1]).id
    token = begun(made, commands)
    told = events(replies(made.ask(2, "events", run, 0))[2])
    made.ask(3, "events", run, told.events[-1].seq + 1)
    made.work(advance(token))
    (event,) = events(replies(made.keep())[3]).events
    assert (event.event, event.tasks) == ("part", (("t1", "succeeded"),))


@pytest.mark.parametrize("is_kept", [False, True])
def test_what_happens_while_the_journal_is_asked_is_told_too(is_kept: bool) -> None:
    made = driver()
    commands = made.start(node="m.flow", durability="batched")
    run = info(replies(commands)[1]).id
    token = begun(made, commands)
    seq = events(replies(made.ask(2, "events", run, 0))[2]).events[-1].seq + 1
    params = Raw(msgspec.msgpack.encode([run, seq]))
    assert made.say(Call(3, "pronghorn.run.events", params)) == []
    (question,) = made.asked
    found = JournalAnswered(*made.kept.answer(question))
    made.asked.clear()
    made.work(advance(token))
    if is_kept:
        made.commit()
    assert made.do(found) == []
    assert made.hurried or is_kept
    (event,) = events(replies(made.keep())[3]).events
    assert (event.event, event.tasks) == ("part", (("t1", "succeeded"),))
    made.core.check_invariants()


RESTS = ErrorDetails(outcome="maybe_executed")


def resting(left_s: float | None) -> tuple[DurableDriver, str]:
    """Give a broker with a run that rests, and the id of that."""
    made = driver()
    commands = made.start(node="m.flow", durability="batched")
    run = info(replies(commands)[1]).id
    token = begun(made, commands)
    made.work(advance(token))
    made.work(Rest(token, left_s))
    assert made.work(Failed(token, "CANCELLED", "it rests", RESTS)) == []
    assert made.keep() == []
    assert not made.core._placement.workers[1].held, "it takes no place"
    assert not made.core._durable.is_busy, "nobody waits for it who ends all"
    assert kinds(made) == [Accepted, Advanced]
    return made, run


def goes_on(made: DurableDriver, commands: list[Command], run: str) -> None:
    """See a run that rested to its end."""
    recorded, _ = given(commands)
    assert recorded == Recorded(recorded.token, run, has_history=True)
    token = begun(made, commands)
    made.work(AskHistory(token, 0))
    assert len(parts_of(made.keep())) == 1
    made.work(Done(token, VALUE, 1))
    made.keep()
    assert kinds(made) == [Accepted, Advanced, Ended], "it is no other attempt"
    made.core.check_invariants()


def test_a_run_that_rests_goes_on_before_an_order_to_it() -> None:
    made, run = resting(None)
    other = Options(affinity="another")
    assert len(made.say(Call(2, CONTROL, PARAMS, other))) == 1, "the order alone"
    *commands, order = made.say(Call(3, CONTROL, PARAMS, Options(affinity=run)))
    assert isinstance(order, Assign)
    goes_on(made, commands, run)


def test_an_order_to_a_run_that_waits_for_a_place_comes_behind_it() -> None:
    made = DurableDriver(table=FLOW)
    made.hello()
    made.open_journal()
    run = info(replies(made.start(node="m.flow", durability="batched"))[1]).id
    assert made.say(Call(2, CONTROL, PARAMS, Options(affinity=run))) == []
    made.core.check_invariants()
    commands = made.start_worker()
    messages: list[Any] = [one.message for one in commands if isinstance(one, Assign)]
    assert [one.node for one in messages if not isinstance(one, Recorded)] == [0, 1]
    made.core.check_invariants()


def test_an_order_to_a_run_that_has_no_place_for_long_is_answered_all_the_same() -> None:
    made = DurableDriver(table=FLOW)
    made.hello()
    made.open_journal()
    run = info(replies(made.start(node="m.flow", durability="batched"))[1]).id
    for id_ in (2, 3):
        assert made.say(Call(id_, CONTROL, PARAMS, Options(affinity=run))) == []
    assert error_of(made.say(Cancel(3))).code == "CANCELLED"
    (order,) = made.core._delayed.items()
    made.core.check_invariants()
    made.tick(made.core._delayed.next_due)
    assert order in made.core._life.queue.waiting(), (
        "whoever would have the run says that it has not"
    )
    made.core.check_invariants()


def test_a_run_that_rests_goes_on_when_its_time_has_come() -> None:
    made, run = resting(10.0)
    due = made.core._delayed.next_due
    assert made.tick(due - 1.0) == []
    goes_on(made, made.tick(due), run)


def test_a_run_that_rests_is_cancelled_like_one_that_was_begun() -> None:
    made, run = resting(None)
    assert info(replies(made.ask(2, "cancel", run))[2]).status == "cancelled"
    (*_, ended) = records(made)
    assert isinstance(ended, Ended)
    assert ended.failure is not None
    assert ended.failure.details.outcome == "maybe_executed"
    made.core.check_invariants()


def test_a_run_that_rests_is_taken_up_by_the_next_broker() -> None:
    made, run = resting(None)
    after = DurableDriver(made.kept, 2, table=FLOW)
    after.start_worker()
    recorded, _ = given(after.open_journal())
    assert recorded == Recorded(recorded.token, run, has_history=True)


def test_a_host_that_dies_before_it_has_let_go_costs_an_attempt() -> None:
    made = driver()
    token = begun(made, made.start(node="m.flow", durability="batched"))
    made.work(Rest(token, None))
    commands = lose(made)
    assert kinds(made) == [Accepted, AttemptLost, Started]
    token = begun(made, commands, 2)
    made.work(Failed(token, "NODE_ERROR", "no", ErrorDetails()), worker_id=2)
    made.keep()
    assert kinds(made)[-1] is Ended, "the rest of before is forgotten"


def test_a_run_that_has_failed_goes_on_when_it_is_reopened() -> None:
    made = driver()
    commands = made.start(node="m.flow", durability="batched")
    run = info(replies(commands)[1]).id
    token = begun(made, commands)
    made.work(advance(token))
    made.work(Failed(token, "NODE_ERROR", "no", ErrorDetails()))
    made.keep()
    token = begun(made, made.ask(2, "retry", run))
    made.work(AskHistory(token, 0))
    assert [bytes(part.value) for part in parts_of(made.keep())] == [b"\x91\x01", b"\xc0"]
    assert kinds(made) == [Accepted, Advanced, Ended, Reopened]


def test_events_of_a_recorded_workflow_are_not_taken_live() -> None:
    made = driver()
    (told,) = replies(call(made, events=5)).values()
    assert told.code == "UNIMPLEMENTED"
