"""Workflows as subjects: each does what it says and is checked."""

from typing import Any

import pytest

from pronghorn.bench.subjects import flow
from pronghorn.worker.flow.validation import validate


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (flow.chain, {"nodes": 3, "variables": 2}),
        (flow.splits, {"count": 3}),
        (flow.naps, {"count": 2, "seconds": 0.001}),
        (flow.items, {"few": 2, "many": 5, "results": 2}),
        (flow.items, {"few": 2, "many": 5, "results": 2, "lists": True}),
        (flow.substitution, {"keys": 5}),
        (flow.validation, {"tasks": 3}),
    ],
)
def test_measures(factory: Any, options: dict[str, Any]) -> None:
    with factory(**options) as measure:
        measured = measure(2)
    assert len(measured.latencies_ns) == measured.calls == 2


def test_condition_is_measured_in_bursts() -> None:
    with flow.condition(variables=5, text_bytes=5) as measure:
        assert measure(100).calls == 100


def test_definitions_are_what_they_say() -> None:
    assert len(validate(flow.chain_of(20)).tasks) == 20
    assert len(validate(flow.guarded_chain_of(30)).tasks) == 30
    assert sum(name.startswith("s") for name in validate(flow.splits_of(25)).tasks) == 26
    assert len(flow.context_of(2, lists=True)[1]) == flow.RESULT_BYTES
