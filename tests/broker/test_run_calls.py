"""Mirror of broker/run_calls.py: a core with a journal that is played here."""

from typing import Any

import msgspec
import pytest
from core_driver import PARAMS, VALUE, Driver, error_of
from durable_driver import KEYED, DurableDriver, error, events, info, of_run, replies, restarted

from pronghorn.broker import runs
from pronghorn.broker.events import (
    Assign,
    DrainBegun,
    Drained,
    JournalGone,
    WantJournal,
    WorkerSent,
    WriteRecords,
)
from pronghorn.broker.journal.record import Accepted, Ended, decode_record, sequence_of
from pronghorn.broker.journal.rows import parse_run_id
from pronghorn.broker.wire.link import Done, RunCall
from pronghorn.broker.wire.messages import Call, Options, Run

# --- what is asked of runs -----------------------------------------------------------------------


def test_records_are_written_in_order_where_somebody_asks_about_one_of_two_that_end(
    recording: DurableDriver,
) -> None:
    recording.start_worker(2)
    runs = {}
    for id_ in (1, 2):
        commands = recording.start(id_)
        (given,) = (one for one in commands if isinstance(one, Assign))
        message: Any = given.message
        assert recording.begin(message, given.worker_id)
        runs[info(replies(commands)[id_]).id] = given.worker_id, Done(message.token, VALUE, 1000)
    assert recording.ask(3, "events", next(iter(runs)), 2**62) == []
    done = [WorkerSent(worker_id, message, ()) for worker_id, message in runs.values()]
    written = [
        decode_record.decode(frames[0])
        for command in recording.do_all(*done)
        if isinstance(command, WriteRecords)
        for frames in command.records
    ]
    assert [(type(record), record.run) for record in written] == [
        (Ended, parse_run_id(run_id)[0]) for run_id in runs
    ]


# --- the journal, and the end --------------------------------------------------------------------


def test_another_writer_is_asked_what_the_one_before_has_not_answered(
    recording: DurableDriver,
) -> None:
    recording.say(Call(1, "add", PARAMS, KEYED))
    assert recording.lose_journal() == []
    commands = recording.open_journal()
    assert replies(recording.run(commands)) == {1: 3}


def test_a_drain_leaves_what_has_not_begun_to_the_next_start(
    recording: DurableDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = info(replies(recording.start())[1])
    monkeypatch.setattr(runs, "AGAIN_MAX", 0)
    after = restarted(recording)
    assert after.ask(1, "result", run.id) == []
    assert after.ask(2, "events", run.id, 2**62) == []
    *told, drained = after.do(DrainBegun())
    assert drained == Drained()
    assert {error(one).code for one in replies(told).values()} == {"RESOURCE_EXHAUSTED"}
    after.acknowledge(2)
    refused = error_of(after.say(Run(9, "add", PARAMS)))
    assert (refused.code, refused.details.outcome) == ("RESOURCE_EXHAUSTED", "not_started")
    assert error(replies(after.ask(3, "result", run.id))[3]).code == "RESOURCE_EXHAUSTED"
    assert after.kept.states[int(run.id[:16], 16)].status == "open"


def test_a_drain_waits_for_the_attempts_that_are_under_way(recording: DurableDriver) -> None:
    commands = recording.start()
    token = recording.begun(commands)
    assert recording.do(DrainBegun()) == []
    assert recording.work(Done(token, VALUE, 1)) == []
    assert recording.keep() == [Drained()]


def test_plain_drivers_have_no_journal(driver: Driver) -> None:
    driver.start_worker()
    driver.hello()
    assert driver.say(Run(1, "add", PARAMS)) == [WantJournal()]


def test_what_waited_for_a_journal_hears_that_there_is_none(driver: Driver) -> None:
    driver.start_worker()
    driver.hello()
    driver.say(Run(1, "add", PARAMS), Call(2, "add", PARAMS, KEYED))
    driver.say(Call(3, "pronghorn.run.status", msgspec.Raw(msgspec.msgpack.encode(["0" * 48]))))
    told = replies(driver.do(JournalGone("no folder")))
    assert {id_: error(one).message for id_, one in told.items()} == {
        1: "m.add can't be recorded: no folder",
        2: "m.add can't be recorded: no folder",
        3: "the journal can't be asked: no folder",
    }
    assert [told[id_].details.outcome for id_ in (1, 2)] == ["not_started"] * 2


# --- what the journal refuses --------------------------------------------------------------------


def test_a_run_whose_end_is_refused_goes_on_as_after_a_crash(recording: DurableDriver) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    for id_, asks in ((2, "result"), (3, "events")):
        recording.ask(id_, asks, run.id)
    recording.work(Done(recording.begun(commands), VALUE, 1))
    ((ended, _),) = recording.written
    assert isinstance(ended, Ended)
    commands = recording.refuse()
    assert 2 not in replies(commands)
    recording.core.check_invariants()
    commands = recording.run(commands)
    assert replies(commands)[2] == 3
    (state,) = recording.kept.states.values()
    assert (state.status, state.attempt) == ("done", 2)
    assert recording.count("records_refused") == 1
    assert recording.count("journal_broken") == 0


def test_others_are_not_concerned_by_what_is_refused(recording: DurableDriver) -> None:
    recording.say(Run(1, "add", PARAMS), Run(2, "add", PARAMS, Options(key="b")))
    recording.say(Run(3, "add", PARAMS))
    (first, _), *_ = recording.written
    assert isinstance(first, Accepted)
    commands = recording.refuse(first.run, "it is wrong")
    told = replies(commands)
    refused = error(told[1])
    assert (refused.code, refused.details.outcome) == ("JOURNAL_ERROR", "not_started")
    assert "its acceptance can't be kept: it is wrong" in refused.message
    numbers = [parse_run_id(info(told[id_]).id)[0] for id_ in (2, 3)]
    assert recording.kept.states.keys() == set(numbers) == {first.run + 1, first.run + 2}
    given = [one.message for one in commands if isinstance(one, Assign)]
    assert {one.token for one in given if isinstance(one, RunCall)}


def test_the_end_of_a_call_that_is_refused_is_told_as_executed(recording: DurableDriver) -> None:
    for id_ in (1, 2):
        call = Call(id_, "m.add", PARAMS, Options(durability="sync"))
        recording.work(Done(recording.begun(recording.say(call)), VALUE, 1))
    commands = recording.refuse()
    told = replies(commands)
    assert told[2] == 3
    refused = error(told[1])
    assert (refused.code, refused.details.outcome) == ("JOURNAL_ERROR", "executed")
    assert len(recording.kept.states) == 1


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_run_that_is_looked_for_can_be_asked_for_and_cancelled(
    recording: DurableDriver, *, cancelled: bool
) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    recording.work(Done(recording.begun(commands), VALUE, 1))
    recording.refused(sequence_of(recording.generation, recording.index + 1))
    recording.acknowledge(1)
    for id_, name in enumerate(("status", "cancel" if cancelled else "retry", "events"), 2):
        assert recording.say(Call(id_, f"pronghorn.run.{name}", of_run(run.id))) == []
    recording.core.check_invariants()
    told = replies(recording.open_journal())
    assert info(told[2]).id == run.id
    assert events(told[4]).events[0].event == "accepted"
    if cancelled:
        assert info(told[3]).status == "cancelled"
    else:
        assert error(told[3]).message.endswith("is open")
    (state,) = recording.kept.states.values()
    assert state.status == ("cancelled" if cancelled else "open")


def test_a_run_is_looked_for_with_the_next_journal_if_there_is_none(
    recording: DurableDriver,
) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    recording.ask(2, "result", run.id)
    recording.work(Done(recording.begun(commands), VALUE, 1))
    recording.refused(sequence_of(recording.generation, recording.index + 1))
    told = error(replies(recording.lose_journal("no folder"))[2])
    assert (told.code, told.details.outcome) == ("JOURNAL_ERROR", "maybe_executed")
    recording.run(recording.open_journal())
    (state,) = recording.kept.states.values()
    assert (state.status, state.attempt) == ("done", 2)
