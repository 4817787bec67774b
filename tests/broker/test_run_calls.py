"""Mirror of broker/run_calls.py: a core with a journal that is played here."""

from typing import Any

import msgspec
import pytest
from core_driver import JSON, OTHER, PARAMS, PEER, VALUE, Driver, error_of
from durable_driver import DurableDriver, events, info, replies
from kept_runs import KeptRuns

from pronghorn.broker import run_calls, runs
from pronghorn.broker.events import (
    Assign,
    DrainBegun,
    Drained,
    JournalGone,
    PeerGone,
    Received,
    Send,
    TableKnown,
    WantJournal,
    WorkerGone,
    WorkerSent,
    WriteRecords,
)
from pronghorn.broker.journal.messages import FindKey, ListKeys
from pronghorn.broker.journal.record import Accepted, Ended, decode_record, sequence_of
from pronghorn.broker.journal.rows import format_run_id, parse_run_id
from pronghorn.broker.recorder import GATHER_S
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import CancelRun, Done, Failed, RunCall
from pronghorn.broker.wire.messages import Call, Cancel, Error, MapChunk, Options, Run
from pronghorn.broker.wire.table import NodeInfo, NodeTable

KEYED = Options(durability="sync", key="order-17")


def started(kept: KeptRuns | None = None, generation: int = 1, **more: Any) -> DurableDriver:
    """Give a broker with a journal, a worker and a client."""
    driver = DurableDriver(kept, generation, **more)
    driver.start_worker()
    driver.hello()
    driver.open_journal()
    return driver


@pytest.fixture
def recording() -> DurableDriver:
    return started()


def restarted(driver: DurableDriver) -> DurableDriver:
    """Give the next broker, with what the journal has kept."""
    return started(driver.kept, driver.generation + 1)


def error(told: Any) -> Error:
    assert isinstance(told, Error)
    return told


# --- runs are started ----------------------------------------------------------------------------


def test_a_run_is_answered_and_begins_when_its_acceptance_is_kept(recording: DurableDriver) -> None:
    assert recording.say(Run(1, "add", PARAMS)) == []
    commands = recording.commit()
    given = [command for command in commands if isinstance(command, Assign)]
    assert len(given) == 1
    run = info(replies(commands)[1])
    assert (run.node, run.status, run.durability, run.attempt) == ("m.add", "open", "sync", 1)
    commands = recording.run(commands)
    assert replies(commands) == {}
    assert replies(recording.ask(2, "result", run.id)) == {2: 3}
    done = info(replies(recording.ask(3, "status", run.id))[3])
    assert (done.status, done.run_ns) == ("done", 1000)


def test_who_waits_for_a_result_gets_it_when_it_is_kept(recording: DurableDriver) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    assert recording.ask(2, "result", run.id) == []
    token = recording.begun(commands)
    assert recording.work(Done(token, VALUE, 1)) == []
    assert replies(recording.commit()) == {2: 3}


def test_batched_is_told_at_once_but_begins_only_when_it_is_kept(recording: DurableDriver) -> None:
    assert recording.say(Run(1, "add", PARAMS, Options(durability="batched"))) == []
    commands = recording.commit()
    run = info(replies(commands)[1])
    recording.ask(2, "result", run.id)
    token = recording.begun(commands)
    assert replies(recording.work(Done(token, VALUE, 1))) == {2: 3}
    assert len(recording.written) == 1


def test_the_first_start_has_the_journal_opened() -> None:
    driver = DurableDriver()
    driver.start_worker()
    driver.hello()
    assert driver.say(Run(1, "add", PARAMS)) == [WantJournal()]
    assert set(replies(driver.open_journal())) == {1}


def test_a_run_is_started_by_a_call_and_in_json(recording: DurableDriver) -> None:
    params = msgspec.Raw(msgspec.msgpack.encode({"node": "add", "params": [1, 2]}))
    commands = recording.say(Call(1, "pronghorn.run.start", params)) + recording.keep()
    assert info(replies(commands)[1]).node == "m.add"
    recording.run(commands)
    text = b'{"node":"add","params":[1,2],"key":"k","durability":"batched"}'
    recording.json("pronghorn.run.start", text, id=2)
    commands = recording.keep()
    (sent,) = (one for one in commands if isinstance(one, Send))
    run = msgspec.json.decode(sent.message.value)  # type: ignore[union-attr]
    assert (run["key"], run["durability"], sent.origin) == ("k", "batched", JSON)
    token = recording.begun(commands)
    recording.work(Done(token, msgspec.Raw(msgspec.msgpack.encode(b'{"sum":3}')), 1))
    recording.keep()
    # Each gets the result in the language that he speaks.
    assert replies(recording.ask(3, "result", run["id"])) == {3: {"sum": 3}}
    recording.json("pronghorn.run.result", b'["%s"]' % run["id"].encode(), id=4)
    (sent,) = (one for one in recording.keep() if isinstance(one, Send))
    assert bytes(sent.message.value) == b'{"sum":3}'  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        (Run(1, "ad", PARAMS), "NOT_FOUND", "did you mean"),
        (Run(1, "add", PARAMS, Options(durability="none")), "INVALID_ARGUMENT", "is recorded"),
        (Run(1, "add", PARAMS, Options(key="")), "INVALID_ARGUMENT", "1 to 255 bytes"),
        (Run(1, "add", PARAMS, Options(key="x" * 256)), "INVALID_ARGUMENT", "this one has 256"),
        (Run(1, "add", PARAMS, Options(priority=9)), "INVALID_ARGUMENT", "priority"),
        (Run(1, "rows", PARAMS, Options(stream=(1, 1))), "UNIMPLEMENTED", "parts are taken"),
        (Call(1, "add", PARAMS, Options(key="k")), "INVALID_ARGUMENT", "needs a durability"),
        (Call(1, "add", PARAMS, Options(key="k", durability="none")), "INVALID_ARGUMENT", "needs"),
        (
            Call(1, "add", PARAMS, Options(key="k", durability="sync", events=3)),
            "UNIMPLEMENTED",
            "takes no events",
        ),
        (MapChunk(1, "pronghorn.run.start", PARAMS), "INVALID_ARGUMENT", "not mapped"),
        (Call(1, "pronghorn.run.start", PARAMS), "INVALID_ARGUMENT", "object"),
        (Call(1, "pronghorn.run.status"), "INVALID_ARGUMENT", "missing required field `id`"),
    ],
)
def test_what_can_not_be_started_or_asked_is_refused(
    recording: DurableDriver, message: Any, code: str, why: str
) -> None:
    refused = error_of(recording.say(message))
    assert (refused.code, refused.details.outcome) == (code, "not_started")
    assert why in refused.message
    assert not recording.written


def test_only_so_many_runs_are_open(
    recording: DurableDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_calls, "RUNS_MAX", 1)
    recording.start()
    refused = error(replies(recording.start(2))[2])
    assert (refused.code, refused.details.retryable) == ("RESOURCE_EXHAUSTED", True)
    assert recording.core.statistics(0.0).refused == {}  # it was accepted, and has failed


def test_a_node_may_have_a_durability_of_its_own(recording: DurableDriver) -> None:
    nodes = (NodeInfo("m.add", "inline", durability="batched"), NodeInfo("m.sleep", "async"))
    recording.do(TableKnown(NodeTable(nodes, "digest")))
    commands = recording.say(Call(1, "add", PARAMS))
    token = recording.begun(commands)
    assert replies(recording.work(Done(token, VALUE, 1))) == {1: 3}
    recording.tick(recording.now + GATHER_S)
    accepted, ended = (record for record, _ in recording.written)
    assert isinstance(accepted, Accepted)
    assert isinstance(ended, Ended)
    assert (accepted.durability, accepted.attempts_max) == ("batched", 1)
    recording.keep()
    # What says otherwise, and what can't be recorded, is not.
    for message in (
        Call(2, "add", PARAMS, Options(durability="none")),
        MapChunk(3, "add", PARAMS),
    ):
        recording.say(message)
        recording.do(WorkerGone(1, "signal 9 (SIGKILL)"))
        recording.start_worker()
        assert not recording.written
    assert info(replies(recording.start(4))[4]).durability == "batched"


# --- keys ----------------------------------------------------------------------------------------


def test_of_a_key_there_is_one_run_while_it_is_open(recording: DurableDriver) -> None:
    commands = recording.say(Call(1, "add", PARAMS, KEYED), Run(2, "add", PARAMS, KEYED))
    commands += recording.keep()
    run = info(replies(commands)[2])
    assert info(replies(recording.start(3, key="order-17"))[3]).id == run.id
    assert replies(recording.run(commands)) == {1: 3}
    assert len(recording.kept.states) == 1


def test_of_a_key_there_is_one_run_when_it_has_ended_and_after_a_crash(
    recording: DurableDriver,
) -> None:
    commands = recording.say(Call(1, "add", PARAMS, KEYED)) + recording.keep()
    assert replies(recording.run(commands)) == {1: 3}
    for driver in (recording, restarted(recording)):
        told = replies(driver.say(Call(2, "add", PARAMS, KEYED)) + driver.keep())
        assert told == {2: 3}
        assert info(replies(driver.start(3, key="order-17"))[3]).status == "done"
        driver.acknowledge(3 if driver is recording else 2)


def test_an_open_run_of_a_key_is_taken_up_before_others_ask_for_it(
    recording: DurableDriver,
) -> None:
    commands = recording.say(Call(1, "add", PARAMS, KEYED)) + recording.keep()
    recording.begun(commands)
    driver = DurableDriver(recording.kept, 2)
    driver.start_worker()
    driver.hello()
    driver.say(Call(1, "add", PARAMS, KEYED))  # before the journal is there
    commands = driver.open_journal()
    assert replies(driver.run(commands)) == {1: 3}
    (state,) = driver.kept.states.values()
    assert (state.status, state.attempt) == ("done", 2)


@pytest.mark.parametrize("ends", [False, True])
def test_a_key_never_has_two_different_runs(recording: DurableDriver, ends: bool) -> None:
    commands = recording.say(Call(1, "add", PARAMS, KEYED)) + recording.keep()
    if ends:
        recording.run(commands)
    for id_, node, params in ((2, "add", b"\x92\x01\x03"), (3, "sleep", b"\x92\x01\x02")):
        call = Call(id_, node, msgspec.Raw(params), KEYED)
        wrong = error(replies(recording.say(call) + recording.keep())[id_])
        assert (wrong.code, wrong.details.outcome) == ("INVALID_ARGUMENT", "not_started")
        assert "the key 'order-17' has a run already" in wrong.message
    assert len(recording.kept.states) == 1


def test_large_params_are_compared_too() -> None:
    recording = started(KeptRuns(apart_bytes=1))
    commands = recording.say(Call(1, "add", PARAMS, KEYED)) + recording.keep()
    recording.run(commands)
    told = replies(recording.say(Call(2, "add", PARAMS, KEYED)) + recording.keep())
    assert told == {2: 3}
    other = Call(3, "add", msgspec.Raw(b"\x92\x02\x02"), KEYED)
    assert error(replies(recording.say(other) + recording.keep())[3]).code == "INVALID_ARGUMENT"


def test_many_that_come_with_a_key_at_once_get_one_run(recording: DurableDriver) -> None:
    recording.hello(OTHER)
    recording.say(Call(1, "add", PARAMS, KEYED), Call(2, "add", PARAMS, KEYED))
    recording.say(Call(1, "add", PARAMS, KEYED), peer=OTHER)
    assert [type(asked) for asked in recording.asked] == [FindKey, ListKeys]
    recording.say(Cancel(1))  # the run goes on for the others
    commands = recording.run(recording.keep())
    assert replies(commands) == {2: 3}
    assert replies(commands, OTHER) == {1: 3}


def test_who_gives_up_does_not_stop_a_run_with_a_key(recording: DurableDriver) -> None:
    timed = Options(durability="sync", key="order-17", timeout_ms=1000.0)
    commands = recording.say(Call(1, "add", PARAMS, timed)) + recording.keep()
    token = recording.begun(commands)
    late = error(replies(recording.tick(recording.now + 1.0))[1])
    assert (late.code, late.details.outcome) == ("DEADLINE_EXCEEDED", "maybe_executed")
    recording.say(Call(2, "add", PARAMS, KEYED))
    recording.do(PeerGone(PEER))
    assert recording.work(Done(token, VALUE, 1)) + recording.keep() == []
    recording.hello()
    told = replies(recording.say(Call(3, "add", PARAMS, KEYED)) + recording.keep())
    assert told == {3: 3}


def test_a_key_that_nobody_waits_for_any_more_is_not_accepted(recording: DurableDriver) -> None:
    recording.say(Call(1, "add", PARAMS, KEYED))
    recording.say(Cancel(1))
    assert recording.keep() == []
    assert not recording.kept.states


def with_key(key: str, id_: int = 1) -> Call:
    return Call(id_, "add", PARAMS, Options(durability="sync", key=key))


def test_a_key_that_is_certainly_new_is_not_looked_up(recording: DurableDriver) -> None:
    recording.run(recording.say(with_key("first")) + recording.keep())
    commands = recording.say(with_key("second", 2))
    assert not recording.asked
    assert replies(recording.run(commands + recording.keep())) == {2: 3}
    recording.say(with_key("first", 3))
    assert [type(asked) for asked in recording.asked] == [FindKey]
    assert replies(recording.keep()) == {3: 3}
    assert len(recording.kept.states) == 2


def test_keys_of_earlier_starts_are_learnt_a_few_at_a_time(
    recording: DurableDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_calls, "KEYS_AT_ONCE", 2)
    for number in range(5):
        recording.run(recording.say(with_key(f"key-{number}")) + recording.keep())
        recording.acknowledge(number + 1)
    driver = restarted(recording)
    driver.say(with_key("key-0"))
    for _ in range(2):  # two pages, and there is one more
        assert any(isinstance(asked, ListKeys) for asked in driver.asked)
        driver.answer()
    driver.lose_journal()
    driver.say(with_key("another", 2))
    driver.open_journal()
    assert replies(driver.say(with_key("key-1", 3)) + driver.keep()) == {3: 3}
    driver.acknowledge(2)
    driver.say(with_key("third", 4))
    assert not driver.asked
    assert len(driver.written) == 1
    for number in range(5):
        told = replies(driver.say(with_key(f"key-{number}", 10)) + driver.keep())
        assert told == {10: 3}
        driver.acknowledge(number + 3)
    assert len(driver.kept.states) == 7


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


def test_events_are_told_as_they_are_kept(recording: DurableDriver) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    told = events(replies(recording.ask(2, "events", run.id))[2])
    assert [one.event for one in told.events] == ["accepted"]
    assert not told.ended
    seq = told.events[-1].seq + 1
    assert recording.ask(3, "events", run.id, seq) == []
    assert events(replies(recording.ask(4, "events", run.id, seq, False))[4]).events == ()
    recording.acknowledge(3)
    told = events(replies(recording.run(commands))[3])
    assert [(one.event, one.status) for one in told.events] == [("ended", "done")]
    assert told.ended
    told = events(replies(recording.ask(5, "events", run.id))[5])
    assert [one.event for one in told.events] == ["accepted", "ended"]
    assert told.ended


def test_a_run_is_cancelled_while_it_waits_and_while_it_runs(recording: DurableDriver) -> None:
    commands = recording.start()
    first = info(replies(commands)[1])
    recording.begun(commands)
    second = info(replies(recording.start(2))[2])  # the worker is busy
    assert recording.ask(3, "result", second.id) == []
    told = replies(recording.ask(4, "cancel", second.id))
    assert info(told[4]).status == "cancelled"
    assert error(told[3]).details.outcome == "not_started"
    recording.acknowledge(4)
    commands = recording.ask(5, "cancel", first.id)
    assert [type(one.message) for one in commands if isinstance(one, Assign)] == [CancelRun]
    assert info(replies(commands)[5]).status == "cancelled"
    result = error(replies(recording.ask(6, "result", first.id))[6])
    assert (result.code, result.details.outcome) == ("CANCELLED", "maybe_executed")
    assert info(replies(recording.ask(7, "cancel", first.id))[7]).status == "cancelled"


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_can_be_cancelled_in_the_turn_in_which_its_attempt_ends(
    recording: DurableDriver, dies: bool
) -> None:
    """Found by the campaign of kills."""
    commands = recording.start()
    run = info(replies(commands)[1])
    token = recording.begun(commands)
    end = WorkerGone(1, "signal 9 (SIGKILL)") if dies else WorkerSent(1, Done(token, VALUE, 1))
    raw = msgspec.Raw(msgspec.msgpack.encode([run.id]))
    cancel = Call(2, "pronghorn.run.cancel", raw)
    recording.do(end, Received(PEER, cancel, 10))
    told = info(replies(recording.keep())[2])
    assert told.status == ("cancelled" if dies else "done")


def test_a_run_can_be_cancelled_before_its_acceptance_is_kept(recording: DurableDriver) -> None:
    recording.say(Run(1, "add", PARAMS))
    (accepted, _), *_ = recording.written
    assert isinstance(accepted, Accepted)
    run_id = format_run_id(accepted.run, accepted.secret)
    commands = recording.ask(2, "cancel", run_id)
    assert not [one for one in commands if isinstance(one, Assign)]
    assert {info(told).status for told in replies(commands).values()} == {"cancelled"}


def test_a_run_that_has_failed_is_tried_again_on_demand(recording: DurableDriver) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    assert error(replies(recording.ask(2, "retry", run.id))[2]).message.endswith("is open")
    token = recording.begun(commands)
    failed = Failed(token, "NODE_ERROR", "boom", ErrorDetails(outcome="executed"))
    recording.work(failed)
    recording.keep()
    assert error(replies(recording.ask(3, "result", run.id))[3]).code == "NODE_ERROR"
    recording.acknowledge(3)
    commands = recording.ask(4, "retry", run.id)
    again = info(replies(commands)[4])
    assert (again.status, again.attempt) == ("open", 2)
    recording.run(commands)
    assert replies(recording.ask(5, "result", run.id)) == {5: 3}
    assert "is done" in error(replies(recording.ask(6, "retry", run.id))[6]).message


def test_unknown_runs_and_those_of_others_are_told_apart() -> None:
    recording = started(administrators=(b"pe",))
    recording.hello(OTHER)
    run = info(replies(recording.start())[1])
    other_secret = run.id[:-1] + ("0" if run.id[-1] != "0" else "1")
    for id_, asked, code in (
        (2, "0" * 48, "NOT_FOUND"),
        (3, other_secret, "NOT_FOUND"),
        (4, "nonsense", "INVALID_ARGUMENT"),
    ):
        assert error(replies(recording.ask(id_, "status", asked))[id_]).code == code
        recording.acknowledge(id_)
    for name in ("status", "cancel", "result", "events", "retry"):
        raw = msgspec.Raw(msgspec.msgpack.encode([run.id]))
        call = Call(name, f"pronghorn.run.{name}", raw)
        told = replies(recording.say(call, peer=OTHER) + recording.keep(), OTHER)
        assert error(told[name]).code == "PERMISSION_DENIED"
        if name == "result":
            break  # its grant is used up
    # A key of one is not a key of the other.
    recording.do(PeerGone(OTHER))
    recording.hello(OTHER)
    recording.start(5, key="k")
    recording.say(Run(1, "sleep", PARAMS, Options(key="k")), peer=OTHER)
    assert info(replies(recording.keep(), OTHER)[1]).node == "m.sleep"


# --- the journal, and the end --------------------------------------------------------------------


def test_another_writer_is_asked_what_the_one_before_has_not_answered(
    recording: DurableDriver,
) -> None:
    recording.say(Call(1, "add", PARAMS, KEYED))
    assert recording.lose_journal() == []
    commands = recording.open_journal()
    assert replies(recording.run(commands)) == {1: 3}


def test_without_a_journal_nothing_can_be_asked(recording: DurableDriver) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    token = recording.begun(commands)
    recording.ask(2, "result", run.id)
    recording.say(Run(3, "add", PARAMS), Call(4, "add", PARAMS, KEYED))
    recording.lose_journal()
    told = replies(recording.lose_journal("no folder"))
    assert {id_: error(one).code for id_, one in told.items()} == dict.fromkeys(
        (3, 4), "JOURNAL_ERROR"
    )
    assert error(told[3]).details.outcome == "maybe_executed"  # when it is there again
    recording.acknowledge(3)
    told = replies(recording.work(Done(token, VALUE, 1)))
    assert (error(told[2]).code, error(told[2]).details.outcome) == ("JOURNAL_ERROR", "executed")
    refused = error_of(recording.ask(5, "status", run.id))
    assert refused.message == "the journal can't be asked: no folder"
    commands = recording.open_journal()
    recording.acknowledge(5)
    recording.run(commands)  # what was accepted meanwhile
    assert replies(recording.ask(6, "result", run.id)) == {6: 3}


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


def ended_run(driver: DurableDriver) -> str:
    """Have a run that has failed; returns its id."""
    commands = driver.start()
    run = info(replies(commands)[1])
    details = ErrorDetails(outcome="executed")
    driver.work(Failed(driver.begun(commands), "NODE_ERROR", "it raised", details))
    driver.keep()
    return run.id


def of_run(run_id: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode([run_id]))


@pytest.mark.parametrize("steps", range(3))
def test_a_run_that_is_removed_while_it_is_opened_again_is_not_found(
    recording: DurableDriver, steps: int
) -> None:
    """At each step of the way: its state was told, its acceptance was, its record was written."""
    run_id = ended_run(recording)
    told = recording.say(Call(2, "pronghorn.run.retry", of_run(run_id)))
    for _ in range(steps):
        told += recording.answer()
    assert bool(recording.written) == (steps == 2)
    recording.kept.remove(parse_run_id(run_id)[0])
    told += recording.keep()
    missing = error(replies(told)[2])
    assert missing.code == "NOT_FOUND"
    assert "kept no longer" in missing.message
    assert recording.count("records_refused") == (steps == 2)
    assert not any(isinstance(command, Assign) for command in told)
    recording.core.check_invariants()
    assert replies(recording.run(recording.start(3))) == {}, "and others go on"


@pytest.mark.parametrize("name", ["result", "events"])
def test_who_asks_for_a_run_that_is_just_removed_is_told_so(
    recording: DurableDriver, name: str
) -> None:
    run_id = ended_run(recording)
    recording.say(Call(2, f"pronghorn.run.{name}", of_run(run_id)))
    recording.answer()
    recording.kept.remove(parse_run_id(run_id)[0])
    assert error(replies(recording.keep())[2]).code == "NOT_FOUND"


def test_a_key_whose_run_is_just_removed_is_free(recording: DurableDriver) -> None:
    commands = recording.say(Call(1, "m.add", PARAMS, KEYED)) + recording.keep()
    recording.run(commands)
    recording.open_journal()
    recording.say(Call(2, "m.add", PARAMS, KEYED))
    recording.answer()
    (run,) = recording.kept.states
    recording.kept.remove(run)
    commands = recording.keep()
    assert replies(recording.run(commands)) == {2: 3}
    (again,) = recording.kept.states
    assert again != run


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
