"""Mirror of broker/run_starts.py: a core with a journal that is played here."""

from typing import Any

import msgspec
import pytest
from core_driver import OTHER, PARAMS, PEER, VALUE, error_of
from durable_driver import KEYED, DurableDriver, error, info, replies, restarted, started
from kept_runs import KeptRuns

from pronghorn.broker import run_starts
from pronghorn.broker.events import Assign, PeerGone, TableKnown, WantJournal, WorkerGone
from pronghorn.broker.journal.messages import FindKey, ListKeys
from pronghorn.broker.journal.record import Accepted, Ended
from pronghorn.broker.recorder import GATHER_S
from pronghorn.broker.wire.link import Done
from pronghorn.broker.wire.messages import Call, Cancel, MapChunk, Options, Run
from pronghorn.broker.wire.table import NodeInfo, NodeTable

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


def test_the_first_start_has_the_journal_opened() -> None:
    driver = DurableDriver()
    driver.start_worker()
    driver.hello()
    assert driver.say(Run(1, "add", PARAMS)) == [WantJournal()]
    assert set(replies(driver.open_journal())) == {1}


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
    monkeypatch.setattr(run_starts, "RUNS_MAX", 1)
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
    monkeypatch.setattr(run_starts, "KEYS_AT_ONCE", 2)
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
