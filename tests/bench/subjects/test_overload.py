"""Open loops beyond the capacity, for a second."""

import pytest
from msgspec import Raw

from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.overload import GOODPUT, MEMORY, _is_refusal
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.messages import Error, Result


@pytest.mark.slow
def test_calls_beyond_the_capacity_are_refused_and_timed() -> None:
    options = {"factor": 10.0, "grant": 2}
    subject = Subject(name="10x", factory="subjects.overload:overloaded", options=options)
    with started(subject) as running:
        measured = running.measure(1)
    assert measured.calls == pytest.approx(10 * measured.extra["capacity, calls/s"], rel=0.05)
    assert len(measured.latencies_ns) / measured.calls == measured.extra["refused of offered"]
    assert measured.extra["refused of offered"] > 0.5
    assert measured.extra[GOODPUT] > 0.5
    assert measured.extra[MEMORY] < 64


def test_a_refusal_says_when_to_come_again() -> None:
    says = ErrorDetails(outcome="not_started", retry_after_ms=50.0)
    assert _is_refusal(Error(1, "RESOURCE_EXHAUSTED", "full", says))
    assert not _is_refusal(Result(1, Raw(b"\xc0")))


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("INTERNAL", ErrorDetails(outcome="not_started", retry_after_ms=50.0)),
        ("RESOURCE_EXHAUSTED", ErrorDetails(outcome="not_started")),
        ("RESOURCE_EXHAUSTED", ErrorDetails(outcome="maybe_executed", retry_after_ms=50.0)),
    ],
)
def test_anything_else_is_wrong(code: str, details: ErrorDetails) -> None:
    with pytest.raises(AssertionError, match="overloaded broker"):
        _is_refusal(Error(1, code, "full", details))
