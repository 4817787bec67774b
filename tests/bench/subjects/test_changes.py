"""Calls at half of the capacity while their pool changes, for a second."""

import pytest

from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.changes import CHANGES, FAILED


@pytest.mark.slow
@pytest.mark.parametrize("change", [None, "recycle", "reload", "scale"])
def test_no_call_fails_and_each_is_timed(change: str | None) -> None:
    options = {"change": change}
    subject = Subject(name="it", factory="subjects.changes:changed", options=options)
    with started(subject) as running:
        measured = running.measure(1)
    assert measured.calls == len(measured.latencies_ns)
    assert measured.extra[FAILED] == 0
    assert (measured.extra[CHANGES] > 0) == (change is not None)
