"""Subjects in processes of their own, told by lines what to do."""

import io
import os
import sys

import msgspec
import pytest

from pronghorn.bench.children import ChildError
from pronghorn.bench.figures import Measurement
from pronghorn.bench.subject import Subject, resolve, serve, started

CALL = Subject(name="call", factory="floors.local:function_call")


def test_a_subject_answers_each_order() -> None:
    with started(CALL) as running:
        assert [running.measure(calls).calls for calls in (100, 300)] == [100, 300]


def test_a_subject_is_pinned_before_it_starts() -> None:
    cpu = min(os.sched_getaffinity(0))
    pinned = Subject(name="pinned", factory="floors.local:function_call", cpus=(cpu,))
    with started(pinned) as running:
        assert os.sched_getaffinity(running._process.pid) == {cpu}
    assert len(os.sched_getaffinity(0)) >= 1


def test_a_subject_that_fails_to_start_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    broken = Subject(name="broken", factory="floors.local:no_such_factory")
    with pytest.raises(ChildError, match="broken did not become ready"), started(broken):
        pytest.fail("must not get here")
    assert "no_such_factory" in capfd.readouterr().err


def test_a_subject_that_fails_in_a_measurement_is_reported(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with started(CALL) as running, pytest.raises(ChildError, match="call ended with status 1"):
        running.measure("many")  # type: ignore[arg-type]
    assert "ValueError" in capfd.readouterr().err


def test_a_silent_subject_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronghorn.bench.subject.ANSWER_TIMEOUT_S", 0.0)
    with started(CALL) as running, pytest.raises(ChildError, match="no answer"):
        running.measure(1_000_000)


def test_factories_are_found_by_name() -> None:
    with resolve("floors.local:function_call")() as measure:
        assert measure(200).calls == 200


def test_serving_writes_one_line_per_order(capfd: pytest.CaptureFixture[str]) -> None:
    standard_output = os.dup(sys.stdout.fileno())
    try:
        serve("floors.local:function_call", {}, io.StringIO("100\n200\n"))
    finally:
        os.dup2(standard_output, sys.stdout.fileno())
        os.close(standard_output)
    ready, *answers = capfd.readouterr().out.splitlines()
    assert ready == "ready"
    decoded = [msgspec.json.decode(answer, type=Measurement) for answer in answers]
    assert [one.calls for one in decoded] == [100, 200]
