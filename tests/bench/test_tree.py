"""Who is who in a pool's tree of processes."""

import pytest

from pronghorn.bench.subject import Subject, started
from pronghorn.bench.tree import Tree


@pytest.mark.slow
def test_each_process_of_a_pool_has_its_role() -> None:
    subject = Subject(name="pool", factory="subjects.calls:sync_round_trip", options={"workers": 3})
    with started(subject) as running:
        tree = Tree.below(running._process.pid)
        stop_clock = tree.cpu_us_per_call(200)
        running.measure(200)
        costs = stop_clock()
        held = tree.memory_mib()
    assert {role: len(pids) for role, pids in tree.pids.items()} == {
        "client": 1,
        "broker": 1,
        "worker": 3,
        "supervisor": 1,
        "template": 1,
    }
    labels = [label for label, _ in tree.members()]
    assert labels == [
        "client",
        "broker",
        "worker 1",
        "worker 2",
        "worker 3",
        "supervisor",
        "template",
    ]
    assert costs["broker CPU per call, us"] > 0
    assert costs["template CPU per call, us"] == 0
    assert held["broker memory pss, MiB"] >= held["broker memory uss, MiB"] > 1
