"""The slow way comes to the same result as the engine."""

from pronghorn.bench.floors.slow_flow import (
    chain,
    definition_of,
    items,
    run_items_slowly,
    run_slowly,
)


def test_it_adds_up() -> None:
    assert run_slowly(definition_of(5), {"x": 1, "step": 2, "other": "$x$"}) == 11
    assert run_items_slowly(4, {"other": "$x$"}) == [0, 2, 4, 6]


def test_it_can_be_measured() -> None:
    with chain(nodes=3, variables=2) as measure:
        assert measure(4).calls == 4
    with items(few=2, many=4, results=1) as measure:
        assert measure(3).calls == len(measure(3).latencies_ns) == 3
