"""Mirror of broker/wire/waterfall.py: the stages add up, whatever a call came to."""

from typing import Any

import pytest

from pronghorn.broker.wire.waterfall import Stage, Waterfall


def waterfall(**moments: Any) -> Waterfall:
    whole = {"asked": 0, "sent": 1, "received": 3, "given": 6, "begun": 10, "ended": 15}
    return Waterfall(**whole | {"replied": 21, "answered": 28} | moments)


def test_all_stages() -> None:
    assert waterfall().stages() == [
        Stage("client queue", 1),
        Stage("to broker", 2),
        Stage("broker queue", 3),
        Stage("to worker", 4),
        Stage("run", 5),
        Stage("return", 13),
    ]
    assert waterfall().total_ns == 28


@pytest.mark.parametrize(
    ("unknown", "last", "ns"),
    [
        (("given", "begun", "ended"), "broker queue", 18),
        (("begun", "ended"), "to worker", 15),
        (("ended",), "run", 11),
    ],
)
def test_it_ends_in_the_stage_that_was_not_over(
    unknown: tuple[str, ...], last: str, ns: int
) -> None:
    stages = waterfall(**dict.fromkeys(unknown)).stages()
    assert stages[-2:] == [Stage(last, ns), Stage("return", 7)]
    assert sum(stage.ns for stage in stages) == 28
