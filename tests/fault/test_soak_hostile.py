"""The soak of ``scripts/soak hostile``, short."""

import pytest
from soak import hostile
from soak.attacks import ATTACKS


@pytest.mark.slow
def test_hostile_clients_harm_nobody_and_leave_nothing() -> None:
    results = list(hostile.run(4_000, seed=7, quiet_s=0.1))
    assert [one.attack for one in results] == [attack.name for attack in ATTACKS]
    assert {one.attack: one.violations for one in results if one.violations} == {}
    by_frames = {one.attack: one for one in results}
    for name in ("truncated", "random", "json", "nested"):
        one = by_frames[name]
        assert one.malformed > 0.5 * one.frames, "the broker has read what was sent"
