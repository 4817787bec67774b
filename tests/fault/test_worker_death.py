"""A worker that dies: what its callers are told, and who takes its place."""

from collections.abc import Callable

import pytest
from trees import Running, zombies

from pronghorn.client import WorkerLostError

Start = Callable[..., Running]

CAUSES = {
    "SIGKILL": "signal 9 (SIGKILL)",
    "SIGABRT": "signal 6 (SIGABRT)",
    "SIGTERM": "signal 15 (SIGTERM)",
    "segfault": "signal 11 (SIGSEGV)",
    "exit": "exit status 3",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", CAUSES)
def test_caller_is_told_how_its_worker_ended_and_another_serves(start: Start, how: str) -> None:
    running = start()
    first = running.client.call("pid")
    with pytest.raises(WorkerLostError) as caught:
        running.client.call("die", how)
    assert caught.value.details.cause == CAUSES[how]
    assert caught.value.outcome == "maybe_executed"
    assert str(caught.value) == f"faulty.die: its worker ended with {CAUSES[how]}"
    assert running.client.call("pid") != first
    assert zombies(running.supervisor) == []
