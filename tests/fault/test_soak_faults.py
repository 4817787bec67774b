"""The soak of faults, shortened; and that its oracle notices each broken promise."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from soak.campaign import Findings, plan, run
from soak.faults import EVERYTHING, KINDS
from soak.ledger import CALLS_PER_CALLER, Ledger
from soak.nodes import answer
from soak.records import Event, Log, Outcome, Record, Told, read
from soak.report import findings_table
from soak.served import environment
from soak.verdict import HANG_S, LATE_S, Listeners, Verdict, judge

from pronghorn.client import BrokerLostError, NodeError, WorkerLostError

SECOND = 10**9
SECONDS_OF_EVERYTHING = 6.0

FEW = {"kill": 25, "stop": 4, "hang": 3, "exit": 8, "hog": 8, "broker": 2, "client": 5}
FEW["template"] = 2


def test_every_kind_of_fault_is_tried() -> None:
    assert FEW.keys() == KINDS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FEW)
def test_one_kind_of_faults_breaks_no_promise(kind: str) -> None:
    findings = run(kind, seed=1, faults=FEW[kind])
    assert findings.violations == []
    assert findings.faults == {kind: FEW[kind]}
    assert findings.verdict.told["result"] > 100


@pytest.mark.slow
def test_everything_at_once_breaks_no_promise() -> None:
    findings = run(EVERYTHING, seed=1, faults=sys.maxsize, seconds=SECONDS_OF_EVERYTHING)
    assert findings.violations == []
    assert sum(findings.faults.values()) > SECONDS_OF_EVERYTHING
    assert findings.verdict.told["result"] > 100


# --- the oracle ----------------------------------------------------------------------------------

RESULT = Told(Outcome.RESULT)
NOT_STARTED = Told(Outcome.NOT_STARTED, "DEADLINE_EXCEEDED")
MAYBE = Told(Outcome.MAYBE_EXECUTED, "WORKER_LOST")
EXECUTED = Told(Outcome.EXECUTED, "NODE_ERROR")
WITHDRAWN = Told(Outcome.WITHDRAWN)


def story(*events: Event | Told, call: int = 1, timeout_s: float = 0.0) -> list[Record]:
    """Tell what happened to a call, a millisecond between any two events."""
    records = []
    for index, event in enumerate(events):
        ns = SECOND + index * SECOND // 1000
        if isinstance(event, Told):
            records.append(Record(call, Event.TOLD, event.as_value(), ns))
        else:
            value = round(timeout_s * 1e6) if event is Event.OPENED else 0
            records.append(Record(call, event, value, ns))
    return records


@pytest.mark.parametrize(
    "events",
    [
        (Event.OPENED, Event.BEGUN, Event.ENDED, RESULT),
        (Event.OPENED, Event.BEGUN, Event.ENDED, EXECUTED),
        (Event.OPENED, NOT_STARTED),
        (Event.OPENED, MAYBE),
        (Event.OPENED, Event.BEGUN, MAYBE),
        (Event.OPENED, MAYBE, Event.BEGUN, Event.ENDED),
        (Event.OPENED, Event.BEGUN, WITHDRAWN),
        (Event.OPENED, Event.BEGUN, Event.ENDED, WITHDRAWN, RESULT),  # it was on its way
    ],
)
def test_a_kept_promise_is_none_that_is_broken(events: Sequence[Event | Told]) -> None:
    verdict = judge(story(*events), Listeners())
    assert verdict.violations == []
    assert verdict.calls == 1


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ((Event.OPENED,), "was never answered"),
        ((Event.OPENED, Event.BEGUN, Event.ENDED), "was never answered"),
        ((Event.OPENED, Event.BEGUN, Event.ENDED, RESULT, RESULT), "was answered 2 times"),
        ((Event.OPENED, Event.BEGUN, Event.ENDED, Event.BEGUN, MAYBE), "ran 2 times"),
        ((Event.OPENED, Event.ENDED, MAYBE), "ended without having begun"),
        ((Event.BEGUN, Event.ENDED), "was never made"),
        (
            (Event.OPENED, Event.BEGUN, NOT_STARTED),
            "was told NOT_STARTED, code DEADLINE_EXCEEDED, and ran",
        ),
        (
            (Event.OPENED, NOT_STARTED, Event.BEGUN),
            "was told NOT_STARTED, code DEADLINE_EXCEEDED, and ran",
        ),
        ((Event.OPENED, Event.BEGUN, RESULT), "was told RESULT, and was not run to its end"),
        (
            (Event.OPENED, EXECUTED),
            "was told EXECUTED, code NODE_ERROR, and was not run to its end",
        ),
        ((Event.OPENED, Told(Outcome.WRONG_RESULT)), "was told WRONG_RESULT"),
        ((Event.OPENED, Told(Outcome.NO_OUTCOME, "other")), "was told NO_OUTCOME, code other"),
        (
            (Event.OPENED, Told(Outcome.NOT_STARTED, "INVALID_ARGUMENT")),
            "was told NOT_STARTED, code INVALID_ARGUMENT, for which there is no reason",
        ),
        (
            (Event.OPENED, Told(Outcome.MAYBE_EXECUTED, "BROKER_LOST")),
            "was told MAYBE_EXECUTED, code BROKER_LOST, for which there is no reason",
        ),
    ],
)
def test_a_broken_promise_is_noticed(events: Sequence[Event | Told], problem: str) -> None:
    problems = judge(story(*events), Listeners()).violations
    assert f"1 calls: each {problem} (1)" in problems


def test_a_lost_broker_is_a_reason_where_one_has_died() -> None:
    records = story(Event.OPENED, Told(Outcome.MAYBE_EXECUTED, "BROKER_LOST"))
    assert judge(records, Listeners(broker_died=True)).violations == []


def test_who_vanished_has_to_be_told_nothing() -> None:
    call = 3 * CALLS_PER_CALLER + 1
    records = story(Event.OPENED, Event.BEGUN, call=call)
    assert judge(records, Listeners(vanished_ns={3: SECOND}))
    assert judge(records, Listeners(vanished_ns={3: SECOND})).violations == []


def test_what_a_vanished_client_has_open_does_not_begin_later() -> None:
    call = 3 * CALLS_PER_CALLER + 1
    records = [
        Record(call, Event.OPENED, 0, SECOND),
        Record(call, Event.BEGUN, 0, 60 * SECOND),
    ]
    (problem,) = judge(records, Listeners(vanished_ns={3: 2 * SECOND})).violations
    assert "after its client was gone" in problem


@pytest.mark.parametrize(
    ("timeout_s", "took_s", "problem"),
    [
        (0.5, 0.5 + LATE_S + 0.1, f"was told more than {LATE_S:g} s after its deadline"),
        (0.0, HANG_S + 0.1, f"lasted more than {HANG_S:g} s"),
    ],
)
def test_what_is_told_too_late_is_noticed(timeout_s: float, took_s: float, problem: str) -> None:
    call = 3 * CALLS_PER_CALLER + 1
    records = [
        Record(call, Event.OPENED, round(timeout_s * 1e6), SECOND),
        Record(call, Event.TOLD, MAYBE.as_value(), SECOND + round(took_s * SECOND)),
    ]
    (found,) = judge(records, Listeners()).violations
    assert problem in found
    assert judge(records, Listeners(stopped={3})).violations == []


def test_who_was_told_what_is_counted() -> None:
    records = story(Event.OPENED, Event.BEGUN, Event.ENDED, RESULT, timeout_s=0.001)
    records += story(Event.OPENED, MAYBE, call=2) + story(Event.OPENED, MAYBE, call=3)
    verdict = judge(records, Listeners())
    assert verdict.told == {"result": 1, "maybe_executed": 2}
    assert verdict.codes == {"WORKER_LOST": 2}
    assert verdict.late_s == pytest.approx(0.002)


# --- its logs ------------------------------------------------------------------------------------


def test_a_ledger_says_what_its_caller_was_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", 7)
    calls = [ledger.open(0.25) for _ in range(6)]
    ledger.tell_value(calls[0], answer(calls[0]))
    ledger.tell_value(calls[1], answer(calls[0]))
    ledger.tell_error(calls[2], WorkerLostError("gone"))
    ledger.tell_error(calls[3], NodeError("wrong"))
    ledger.tell_error(calls[4], BrokerLostError("closed"), own_close=True)
    ledger.tell_error(calls[5], RuntimeError("what is this?"))
    ledger.close()
    records = list(read(ledger.path))
    assert calls == [7 * CALLS_PER_CALLER + number for number in range(1, 7)]
    assert [one.value for one in records[:6]] == [250_000] * 6
    assert [Told.of_value(one.value) for one in records[6:]] == [
        RESULT,
        Told(Outcome.WRONG_RESULT),
        MAYBE,
        EXECUTED,
        Told(Outcome.NO_OUTCOME, "own close"),
        Told(Outcome.NO_OUTCOME, "other"),
    ]


def test_logs_of_several_writers_do_not_mix(tmp_path: Path) -> None:
    logs = [Log(tmp_path / "log") for _ in range(2)]
    for call in range(1000):
        logs[call % 2].write(call, Event.BEGUN)
    for log in logs:
        log.close()
    assert [record.call for record in read(tmp_path / "log")] == list(range(1000))


# --- the command line ----------------------------------------------------------------------------


def test_shorter_runs_have_fewer_faults_of_each_kind() -> None:
    assert plan(10.0) == plan(60.0) == {name: kind.number for name, kind in KINDS.items()}
    assert plan(1.0)["kill"] == 100
    assert min(plan(0.001).values()) == 1


def test_the_table_has_a_row_for_each_run() -> None:
    findings = Findings(kind="kill", seed=1, faults={"kill": 3}, verdict=Verdict(calls=9))
    assert findings_table([findings, findings]).row_count == 2
    findings.verdict.violations.append("broken")
    findings.left.append("left")
    assert findings.violations == ["broken", "left"]


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["faults", "--only", "nonsense"]])
def test_wrong_usage(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "soak", *arguments], env=environment({}), capture_output=True
    )
    assert done.returncode == 2
    assert b"usage:" in done.stderr
