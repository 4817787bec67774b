"""A pool left alone: every thread of its tree is watched."""

import pytest

from pronghorn.bench.subject import Subject, started


@pytest.mark.slow
def test_every_process_of_the_tree_is_watched() -> None:
    with started(Subject(name="idle", factory="subjects.idle_pool:silence")) as running:
        measured = running.measure(1)
    watched = {label.partition(" / ")[0] for label in measured.extra}
    assert watched >= {"supervisor", "broker", "template", "worker 1", "worker 2", "client"}
