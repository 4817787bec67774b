"""Runs as they travel."""

import msgspec

from pronghorn.broker.wire.flows import RUN_ID_MAX, FlowEvent, RunFailure, RunReport
from pronghorn.broker.wire.limits import AFFINITY_CHARACTERS_MAX


def test_a_report_says_why_by_its_last_errors() -> None:
    errors = tuple(RunFailure("task", f"m{number}", "t", item=number) for number in range(5))
    assert RunReport("failed", None, errors).reason() == (
        "t, item 2: m2; t, item 3: m3; t, item 4: m4"
    )
    assert RunReport("canceled").reason() == "it is canceled"
    assert str(RunFailure("expression", "no x", "t", "input.a")) == "t, input.a: no x"
    assert str(RunFailure("run", "late")) == "late"


def test_what_is_as_ever_does_not_travel() -> None:
    event = FlowEvent(1, "begun", run="id")
    assert msgspec.to_builtins(event) == {"number": 1, "kind": "begun", "run": "id"}
    assert msgspec.convert({"number": 1, "kind": "begun", "run": "id"}, FlowEvent) == event


def test_an_id_can_be_an_affinity() -> None:
    assert RUN_ID_MAX <= AFFINITY_CHARACTERS_MAX
