"""Groups of subjects taking turns."""

import pytest

from pronghorn.bench.rounds import Plan, run
from pronghorn.bench.subject import Subject


def test_each_subject_has_one_measurement_a_round() -> None:
    said: list[str] = []
    group = [
        Subject(name="call", factory="floors.local:function_call"),
        Subject(name="codec", factory="floors.local:codec", share=3),
    ]
    rounds = run(group, Plan(rounds=2, slices=2, calls=100, warm_up=100), said.append)
    assert [one.calls for one in rounds["call"]] == [200, 200]
    assert [one.calls for one in rounds["codec"]] == [600, 600]
    assert said == ["round 1 of 2: call, codec", "round 2 of 2: call, codec"]


def test_names_of_a_group_must_differ() -> None:
    subject = Subject(name="same", factory="floors.local:codec")
    with pytest.raises(ValueError, match="names"):
        run([subject, subject], Plan(), lambda message: None)


@pytest.mark.parametrize("field", ["rounds", "slices", "calls", "warm_up"])
def test_a_plan_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Plan(**{field: 0})
