"""States as bytes: what is kept, what is refused. Crashes at any event: test_simulation.py."""

import pytest
from flow_runs import Play, plan

from pronghorn.worker.flow.events import RunTask, Tick
from pronghorn.worker.flow.snapshot import SnapshotError, freeze, thaw

DEFINITION = """
input: [big]
tasks:
  a: {action: a, next: [{publish: [{x: 1}], do: [b, c]}]}
  b: {action: a, delay: 5, input: {x: "{{ x }}"}, next: [{publish: [{y: 2}], do: d}]}
  c: {action: a, timeout: 7, next: [{publish: [{x: 3}], do: d}]}
  d: {join: all, action: a, input: {x: "{{ x }}", y: "{{ y }}"}}
output: [{x: "{{ x }}"}]
"""


def test_run_goes_on_elsewhere_with_another_clock() -> None:
    play = Play(DEFINITION, big="x")
    play.now = 10.0
    play.end("a")
    data = freeze(play.conductor, now=11.0)
    play.conductor = thaw(data, plan(DEFINITION), now=1000.0)
    assert play.conductor.deadline() == 1004.0, "of the five seconds one is over"
    play.now = 1004.0
    play.tell(Tick())
    assert play.inputs() == [{"x": 1}]
    play.end("c").end("b")
    assert play.commands(RunTask)[0].input == {"x": 3, "y": 2}
    assert play.end("d").output == {"x": 3}


def test_value_that_many_branches_share_is_written_once() -> None:
    play = Play(DEFINITION, big="x" * 100_000)
    play.end("a").end("c")
    assert len(freeze(play.conductor, 0.0)) < 102_000


def test_foreign_bytes_are_refused() -> None:
    play = Play(DEFINITION, big=None)
    data = freeze(play.conductor, 0.0)
    with pytest.raises(SnapshotError, match="another workflow"):
        thaw(data, plan("tasks: {a: }"), 0.0)
    for wrong in (b"", b"\xc1", data[:-3], b"\x93\x01\x02\x03"):
        with pytest.raises(SnapshotError):
            thaw(wrong, plan(DEFINITION), 0.0)
