"""Counting in the server's processes, with a software event."""

import pytest

from pronghorn.bench.instructions import unsupported
from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.counted import EXTRA

SOFTWARE_EVENT = "context-switches"


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["ours", "floor"])
def test_a_call_wakes_each_server_process(factory: str) -> None:
    why_not = unsupported(SOFTWARE_EVENT)
    if why_not is not None:
        pytest.skip(why_not)
    subject = Subject(
        name="counted",
        factory=f"subjects.counted:{factory}",
        options={"event": SOFTWARE_EVENT},
    )
    with started(subject) as running:
        running.measure(50)
        measured = running.measure(50)
    assert measured.extra[EXTRA] >= 1
