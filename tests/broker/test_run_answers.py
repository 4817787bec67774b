"""Mirror of broker/run_answers.py: a core with a journal that is played here."""

import msgspec
import pytest
from core_driver import OTHER, PARAMS, PEER, VALUE
from durable_driver import DurableDriver, error, events, info, of_run, replies, started

from pronghorn.broker.events import Assign, PeerGone, Received, WorkerGone, WorkerSent
from pronghorn.broker.journal.record import Accepted
from pronghorn.broker.journal.rows import format_run_id, parse_run_id
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import CancelRun, Done, Failed
from pronghorn.broker.wire.messages import Call, Options, Run


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


def ended_run(driver: DurableDriver) -> str:
    """Have a run that has failed; returns its id."""
    commands = driver.start()
    run = info(replies(commands)[1])
    details = ErrorDetails(outcome="executed")
    driver.work(Failed(driver.begun(commands), "NODE_ERROR", "it raised", details))
    driver.keep()
    return run.id


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
