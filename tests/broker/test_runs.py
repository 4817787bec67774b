"""Mirror of broker/runs.py: what becomes of runs; asked for by clients in test_run_answers.py."""

from typing import Any

import pytest
from core_driver import PARAMS, VALUE
from durable_driver import DurableDriver, info, replies, started
from kept_runs import KeptRuns

from pronghorn.broker import runs
from pronghorn.broker.events import Assign, Command, TableKnown, WorkerGone
from pronghorn.broker.journal.fold import RunState
from pronghorn.broker.journal.messages import Failed as CanNotTell
from pronghorn.broker.journal.record import (
    Accepted,
    AttemptLost,
    Ended,
    Record,
    Reopened,
    Started,
    sequence_of,
)
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import Done, Failed
from pronghorn.broker.wire.messages import Call, Error, Options, Run
from pronghorn.broker.wire.table import NodeInfo, NodeTable, RetryPolicy

KILLED = "signal 9 (SIGKILL)"


def crashed(driver: DurableDriver) -> tuple[DurableDriver, list[Command]]:
    """Give the next broker, with what the journal has kept, and what it begins."""
    after = DurableDriver(driver.kept, driver.generation + 1)
    after.start_worker()
    after.hello()
    return after, after.open_journal()


def begun(driver: DurableDriver, commands: list[Command], worker_id: int = 1) -> int:
    (given,) = (one.message for one in commands if isinstance(one, Assign))
    run: Any = given
    assert driver.begin(run, worker_id)
    return int(run.token)


def lose(driver: DurableDriver, worker_id: int = 1) -> list[Command]:
    """Have the worker die that runs the only run, and another one start."""
    commands = driver.do(WorkerGone(worker_id, KILLED)) + driver.keep()
    return commands + driver.start_worker(worker_id + 1)


def due(driver: DurableDriver) -> float:
    """Tell when an attempt is begun that waits for that."""
    return driver.core._delayed.next_due


def story(driver: DurableDriver) -> list[type[Record]]:
    (records,) = driver.kept.records.values()
    return [type(record) for _, record in records]


def state(driver: DurableDriver) -> RunState:
    (only,) = driver.kept.states.values()
    return only


def serve(driver: DurableDriver, *nodes: NodeInfo, generation: int = 0) -> None:
    driver.do(TableKnown(NodeTable(nodes, "digest"), generation))


# --- deaths --------------------------------------------------------------------------------------


def test_a_run_whose_worker_dies_is_tried_again_after_a_while(recording: DurableDriver) -> None:
    begun(recording, recording.start())
    assert [one for one in lose(recording) if isinstance(one, Assign)] == []
    assert story(recording) == [Accepted, AttemptLost, Started]
    assert 0 < due(recording) - recording.now <= runs.LOST.backoff_s
    token = begun(recording, recording.tick(due(recording)), 2)
    recording.work(Done(token, VALUE, 1), 2)
    recording.keep()
    assert (state(recording).status, state(recording).attempt) == ("done", 2)


def test_a_run_that_kills_its_workers_is_parked(recording: DurableDriver) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    recording.ask(2, "result", run.id)
    for worker_id in (1, 2, 3):
        begun(recording, commands, worker_id)
        commands = lose(recording, worker_id)
        if worker_id < 3:
            commands = recording.tick(due(recording))
    parked = replies(commands)[2]
    assert isinstance(parked, Error)
    assert (parked.code, parked.message) == (
        "WORKER_LOST",
        "3 workers died running m.add for it",
    )
    assert (state(recording).status, state(recording).deaths) == ("poisoned", 3)
    # On demand it gets as many attempts again.
    commands = recording.ask(3, "retry", run.id)
    assert info(replies(commands)[3]).deaths == 0
    assert begun(recording, commands, 4)


def test_a_node_that_runs_at_most_once_is_not_tried_again(recording: DurableDriver) -> None:
    serve(recording, NodeInfo("m.add", "inline", at_most_once=True))
    commands = recording.start()
    recording.ask(2, "result", info(replies(commands)[1]).id)
    assert story(recording) == [Accepted, Started]
    begun(recording, commands)
    ended = replies(lose(recording))[2]
    assert isinstance(ended, Error)
    assert (ended.code, ended.details.outcome) == ("INTERRUPTED", "maybe_executed")
    assert story(recording) == [Accepted, Started, AttemptLost, Ended]


def test_what_a_worker_has_not_begun_costs_no_attempt(recording: DurableDriver) -> None:
    recording.start()
    commands = lose(recording)
    assert story(recording) == [Accepted]
    assert begun(recording, commands, 2)


def test_a_node_in_quarantine_is_waited_for(recording: DurableDriver) -> None:
    begun(recording, recording.start())
    recording.core._life.catalog.by_name["m.add"].refused_until = recording.now + 30.0
    lose(recording)
    assert due(recording) == recording.now + 30.0


def test_a_node_says_how_often_it_may_be_tried(recording: DurableDriver) -> None:
    serve(recording, NodeInfo("m.add", "inline", RetryPolicy(5, 2.0, 2.0)))
    begun(recording, recording.start())
    lose(recording)
    assert state(recording).attempts_max == 5
    assert 1.0 <= due(recording) - recording.now <= 2.0


def test_what_it_raises_is_tried_again_as_the_node_says(recording: DurableDriver) -> None:
    serve(recording, NodeInfo("m.add", "inline", RetryPolicy(2, 1.0, 1.0)))
    token = begun(recording, recording.start())
    details = ErrorDetails(outcome="executed", retryable=True)
    recording.work(Failed(token, "NODE_ERROR", "boom", details))
    token = begun(recording, recording.tick(due(recording)))
    recording.work(Failed(token, "NODE_ERROR", "boom", details))
    recording.keep()
    assert story(recording) == [Accepted, Ended]


# --- crashes -------------------------------------------------------------------------------------


def test_nothing_begins_before_its_acceptance_is_kept(recording: DurableDriver) -> None:
    assert recording.say(Run(1, "add", PARAMS)) == []
    after, commands = crashed(recording)
    assert commands == []
    assert not after.kept.states


@pytest.mark.parametrize("durability", ["sync", "batched"])
def test_open_runs_are_taken_up_as_another_attempt(
    recording: DurableDriver, durability: Any
) -> None:
    token = begun(recording, recording.start(durability=durability))
    recording.work(Done(token, VALUE, 1))  # and its end is lost
    after, commands = crashed(recording)
    assert story(after) == [Accepted, Started]
    after.run(commands)
    assert (state(after).status, state(after).attempt) == ("done", 2)


def test_a_run_is_begun_so_often_and_no_more(recording: DurableDriver) -> None:
    commands = recording.start()
    driver = recording
    for _ in range(2):
        begun(driver, commands)
        driver, commands = crashed(driver)
    begun(driver, commands)
    driver, commands = crashed(driver)
    assert not [one for one in commands if isinstance(one, Assign)]
    assert (state(driver).status, state(driver).code) == ("interrupted", "INTERRUPTED")


def test_at_most_once_ends_as_interrupted_after_a_crash(recording: DurableDriver) -> None:
    serve(recording, NodeInfo("m.add", "inline", at_most_once=True))
    recording.start()
    after, commands = crashed(recording)
    assert not [one for one in commands if isinstance(one, Assign)]
    assert state(after).status == "interrupted"


def test_at_most_once_begins_once_if_only_its_acceptance_was_kept(
    recording: DurableDriver,
) -> None:
    serve(recording, NodeInfo("m.add", "inline", at_most_once=True))
    recording.say(Run(1, "add", PARAMS))
    assert recording.commit(1) == []
    after, commands = crashed(recording)
    assert story(after) == [Accepted, Started]
    after.run(commands)
    assert (state(after).status, state(after).attempt) == ("done", 1)


def test_what_is_recorded_at_its_end_is_never_run_by_us(recording: DurableDriver) -> None:
    """Both its records may be cut apart by the end of a batch, and of the tree."""
    token = begun(recording, recording.say(Call(1, "add", PARAMS, Options(durability="sync"))))
    recording.work(Done(token, VALUE, 1))
    recording.commit(1)
    after, commands = crashed(recording)
    assert not [one for one in commands if isinstance(one, Assign)]
    assert state(after).status == "interrupted"


def test_a_run_waits_for_nodes_to_be_served(recording: DurableDriver) -> None:
    recording.start()
    after = DurableDriver(recording.kept, 2, table=None)
    after.open_journal()
    assert story(after) == [Accepted]
    serve(after, NodeInfo("m.add", "inline"))
    after.keep()
    assert story(after) == [Accepted, Started]


def test_a_run_whose_node_is_gone_ends_with_an_error(recording: DurableDriver) -> None:
    run = info(replies(recording.start())[1])
    after = DurableDriver(recording.kept, 2)
    serve(after, NodeInfo("m.other", "inline"))
    after.hello()
    after.open_journal()
    gone = replies(after.ask(1, "result", run.id))[1]
    assert (gone.code, gone.details.outcome) == ("NOT_FOUND", "maybe_executed")
    assert replies(after.ask(2, "retry", run.id))[2].code == "NOT_FOUND"
    serve(after, NodeInfo("m.add", "inline"))
    assert info(replies(after.ask(3, "retry", run.id))[3]).status == "open"
    assert story(after)[-1] is Reopened


def test_large_params_are_read_when_they_are_needed() -> None:
    first = started(KeptRuns(apart_bytes=1))
    first.start()
    _, commands = crashed(first)
    (given,) = (one.message for one in commands if isinstance(one, Assign))
    run: Any = given
    assert run.params == PARAMS


def test_params_that_are_damaged_are_the_end_of_their_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = started(KeptRuns(apart_bytes=1))
    run = info(replies(first.start())[1])
    monkeypatch.setattr(KeptRuns, "_value", lambda self, id_, *_: (CanNotTell(id_, "damaged"), ()))
    after, _ = crashed(first)
    told = replies(after.ask(1, "status", run.id))[1]
    assert (info(told).status, info(told).code) == ("failed", "JOURNAL_ERROR")


def test_only_so_many_are_begun_again_at_once(
    recording: DurableDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "AGAIN_MAX", 2)
    for id_ in (1, 2, 3):
        recording.start(id_)
    after, commands = crashed(recording)
    attempts = [one.attempt for one in after.kept.states.values()]
    assert attempts == [2, 2, 1]  # the next crash costs it none
    after.run(commands)
    assert [one.attempt for one in after.kept.states.values()] == [2, 2, 2]


def test_options_are_those_that_it_was_started_with(recording: DurableDriver) -> None:
    begun(recording, recording.start())
    recording.start(2, priority=0, affinity="a")
    (request,) = recording.core._life.queue.waiting()
    assert (request.priority, request.affinity) == (0, "a")
    after, _ = crashed(recording)
    requests = after.core._durable.runs_session.open.values()
    assert [(one.priority, one.affinity) for one in requests] == [(1, None), (0, "a")]


def test_records_without_options_can_be_taken_up() -> None:
    kept, run = KeptRuns(), sequence_of(1, 1)
    kept.keep(run, Accepted(run, 0, b"s" * 16, "m.add", "", 0, PARAMS))
    driver = started(kept, 2)
    assert kept.states[run].attempt == 2
    assert driver.core._durable.runs_session.open


def test_ids_can_not_be_guessed(recording: DurableDriver) -> None:
    ids = {info(replies(recording.start(id_))[id_]).id for id_ in (1, 2)}
    secrets = {run_id[16:] for run_id in ids}
    assert len(secrets) == 2
    assert {len(secret) for secret in secrets} == {32}
