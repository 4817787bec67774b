"""Runs through a client as subjects: each does what it says and is checked."""

from typing import Any

import pytest

from pronghorn.bench.subjects import flow_runs
from pronghorn.worker.flow.validation import validate


def test_definitions_are_what_they_say() -> None:
    assert len(validate(flow_runs.mixed()).tasks) == flow_runs.MIXED_TASKS
    assert len(validate(flow_runs.slopes_on("pool")).tasks) == 21


@pytest.mark.slow  # each starts a pool of its own
@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (flow_runs.run_of_20, {}),
        (flow_runs.items, {"few": 2, "many": 5, "results": 2, "place": "pool"}),
        *(
            (flow_runs.items, {"few": 2, "many": 5, "results": 0, "place": "pool", "given": given})
            for given in ("text", "list", "sequence")
        ),
        (flow_runs.whole_items, {"count": 3}),
        (flow_runs.orders, {"order": "resume"}),
    ],
)
def test_measures(factory: Any, options: dict[str, Any]) -> None:
    with factory(**options) as measure:
        measured = measure(2)
    assert len(measured.latencies_ns) == measured.calls == 2


@pytest.mark.slow
def test_peak_memory_is_that_of_all_processes() -> None:
    with flow_runs.peak(count=2, results=1) as measure:
        assert measure(1).extra[flow_runs.PEAK] > 100e6


@pytest.mark.slow
def test_an_item_has_its_input_and_its_result_sent_over_two_hops() -> None:
    with flow_runs.wire(few=50, many=550, results=2) as measure:
        assert 20 < measure(1).extra[flow_runs.WIRE] < 200


@pytest.mark.slow
def test_a_large_value_is_not_sent_for_each_item() -> None:
    with flow_runs.wire(few=50, many=550, results=0, given="text") as measure:
        assert 20 < measure(1).extra[flow_runs.WIRE] < 400
