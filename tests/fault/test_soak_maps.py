"""Mirror of soak/durable_maps.py: what is wrong with a map is found."""

from collections.abc import Callable

import msgspec
import pytest
from soak.durable_maps import Begun, KeptMap, ToldMap, read_effects, violations

from pronghorn.broker.journal.fold import RunState, advance
from pronghorn.broker.journal.record import Accepted, Ended, TaskDone

RUN = "ab" * 24
Begins = dict[tuple[str, int], list[Begun]]


def done() -> RunState:
    """Give the state of the map's run."""
    values = msgspec.Raw(msgspec.msgpack.encode(["t 0 a", "t 1 b"]))
    state = advance(None, 1, Accepted(1, 0, bytes(16), "m.act_item", "", 5, items=2))
    state = advance(state, 2, TaskDone(1, 1, 1, 6, first=0, count=2, value=values))
    return advance(state, 3, Ended(1, 2, 1, 7, "done"))


def good() -> tuple[ToldMap, KeptMap, Begins]:
    """Give a map of two items, of which the first has begun twice before it was kept."""
    told = ToldMap(token="t", count=2, run_ids={RUN}, is_whole=True)
    told.results = {0: {"t 0 a"}, 1: {"t 1 b"}}
    told.told_ns = {0: 30, 1: 30}
    kept = KeptMap(done(), RUN, {0: ["t 0 a"], 1: ["t 1 b"]}, {0: 2, 1: 1}, ends=1)
    begun = read_effects(["t 0 1 10", "t 0 2 20", "t 1 1 11"])
    return told, kept, begun


def test_a_map_that_keeps_all_promises() -> None:
    told, kept, begun = good()
    assert list(violations(told, [kept], begun)) == []


def told_other(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    told.results[1] = {"t 1 b", "t 1 c"}


def begun_when_told(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    begun["t", 1].append(Begun(1, 31))


def begun_when_kept(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    begun["t", 1].append(Begun(2, 12))


def kept_twice(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    kept.results[0].append("t 0 a")


def kept_elsewhere(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    kept.results = {0: ["t 1 b"], 1: ["t 0 a"]}


def not_whole(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    del kept.results[1], told.results[1], told.told_ns[1]


def never_begun(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    del begun["t", 1]


def open_still(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    kept.ends = 0


def ended_otherwise(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    told.ends.add("CancelledError")


def another_run(told: ToldMap, kept: KeptMap, begun: Begins) -> None:
    told.run_ids.add("cd" * 24)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (begun_when_told, "M1"),
        (begun_when_kept, "M1"),
        (told_other, "M2"),
        (kept_twice, "M3"),
        (kept_elsewhere, "M3"),
        (not_whole, "M3"),
        (never_begun, "M3"),
        (open_still, "M4"),
        (ended_otherwise, "M4"),
        (another_run, "M4"),
    ],
)
def test_a_broken_promise_is_found(
    spoil: Callable[[ToldMap, KeptMap, Begins], None], rule: str
) -> None:
    told, kept, begun = good()
    spoil(told, kept, begun)
    assert rule in {one[:2] for one in violations(told, [kept], begun)}


def test_a_map_that_was_told_and_is_not_kept_is_found() -> None:
    told, kept, begun = good()
    assert {one[:2] for one in violations(told, [], begun)} == {"M2", "M4"}
    assert {one[:2] for one in violations(told, [kept, kept], begun)} == {"M4"}
