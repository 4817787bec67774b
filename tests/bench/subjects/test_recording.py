"""Mirror of bench/subjects/recording.py: with a trace and without."""

import pytest

from pronghorn.bench.figures import ALL_CPU
from pronghorn.bench.subject import Subject, started

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("factory", ["round_trip", "burst"])
def test_calls_are_made_whether_they_are_recorded_or_not(factory: str, *, records: bool) -> None:
    subject = Subject(
        name="it", factory=f"subjects.recording:{factory}", options={"records": records}
    )
    with started(subject) as running:
        measured = running.measure(20)
    assert measured.calls == 20
    assert (ALL_CPU in measured.extra) == (factory == "burst")
