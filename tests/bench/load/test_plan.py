"""Schedules: the same every time, and of the rate that was asked for."""

from itertools import islice, pairwise

import pytest

from pronghorn.bench.load.plan import DURATION_MAX_S, INTERVALS_MAX, RATE_MAX, Plan, choices
from pronghorn.broker.wire.errors import InvalidArgumentError

S = 1_000_000_000


def test_constant_rate_is_evenly_spaced() -> None:
    times = list(Plan(rate=1000, duration_s=2, warmup_s=0).times_ns())
    assert len(times) == 2000
    assert times[:3] == [0, 1_000_000, 2_000_000]
    assert {b - a for a, b in pairwise(times)} <= {999_999, 1_000_000, 1_000_001}


def test_warm_up_comes_first_at_the_first_rate() -> None:
    times = list(Plan(rate=100, duration_s=1, warmup_s=0.5).times_ns())
    assert len(times) == 150
    assert times[50] == S // 2


def test_random_distances_have_the_rate_and_follow_from_the_seed() -> None:
    plan = Plan(profile="poisson", rate=1000, duration_s=20, warmup_s=0, seed=7)
    times = list(plan.times_ns())
    assert times == list(plan.times_ns())
    assert len(times) == pytest.approx(20_000, rel=0.05)
    gaps = [b - a for a, b in pairwise(times)]
    assert sum(gap < 500_000 for gap in gaps) / len(gaps) == pytest.approx(0.393, abs=0.02)
    other = Plan(profile="poisson", rate=1000, duration_s=20, warmup_s=0, seed=8)
    assert times != list(other.times_ns())


@pytest.mark.parametrize(
    ("profile", "calls_by_quarter"),
    [
        ("step", [250, 500, 750, 1000]),
        ("ramp", [212.5, 437.5, 662.5, 887.5]),
    ],
)
def test_rate_rises(profile: str, calls_by_quarter: list[float]) -> None:
    plan = Plan(profile=profile, rate=1000, duration_s=4, warmup_s=0)  # type: ignore[arg-type]
    counted = [0, 0, 0, 0]
    for at_ns in plan.times_ns():
        counted[at_ns // S] += 1
    assert counted == pytest.approx(calls_by_quarter, abs=1)


def test_spike_is_three_times_the_rate_for_a_fifth() -> None:
    times = list(Plan(profile="spike", rate=100, duration_s=10, warmup_s=0).times_ns())
    assert sum(4 * S <= at < 6 * S for at in times) == pytest.approx(600, abs=1)
    assert len(times) == pytest.approx(1400, abs=1)


@pytest.mark.parametrize("profile", ["const", "step", "ramp", "spike"])
@pytest.mark.parametrize("processes", [1, 3])
def test_what_is_left_is_told_without_going_through_it(profile: str, processes: int) -> None:
    plan = Plan(
        profile=profile,  # type: ignore[arg-type]
        rate=777,
        duration_s=3,
        warmup_s=0.3,
        processes=processes,
        clients=processes,
    )
    times = list(plan.times_ns())
    for process in range(processes):
        ours = times[process::processes]
        for at, at_ns in enumerate(ours):
            counted = sum(each >= 0.3 * S for each in ours[at:]) if at % 97 == 0 else None
            assert counted in (None, plan.left(at_ns, process))
        assert plan.left(ours[-1], process) == 1


def test_what_is_left_of_random_calls_is_told_on_average() -> None:
    plan = Plan(profile="poisson", rate=1000, duration_s=10, warmup_s=1, processes=2, clients=2)
    assert plan.left(0, 0) == 5000
    assert plan.left(6 * S, 1) == 2500
    replay = Plan(profile="replay", rate=100, duration_s=4, warmup_s=0)
    assert replay.left(1 * S, 0) == 300


def test_a_day_at_the_highest_rate_is_gone_through_in_no_time() -> None:
    plan = Plan(rate=RATE_MAX, duration_s=DURATION_MAX_S, warmup_s=0)
    assert plan.left(S, 0) == RATE_MAX * (DURATION_MAX_S - 1)


def test_times_never_go_back() -> None:
    for profile in ("const", "step", "ramp", "spike", "poisson"):
        plan = Plan(profile=profile, rate=777, duration_s=3, warmup_s=0.3)  # type: ignore[arg-type]
        times = list(plan.times_ns())
        assert times == sorted(times)
        assert times[-1] < plan.planned_s * S


def test_mix_has_its_weights_and_is_the_same_every_time() -> None:
    drawn = list(islice(choices(3, [3.0, 1.0]), 10_000))
    assert drawn == list(islice(choices(3, [3.0, 1.0]), 10_000))
    assert drawn.count(0) == pytest.approx(7500, rel=0.03)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0.0},
        {"rate": -1.0},
        {"rate": float("inf")},
        {"rate": float("nan")},
        {"rate": 1.0, "duration_s": 0.0},
        {"rate": 1.0, "warmup_s": -1.0},
        {"rate": 1.0, "clients": 0},
        {"rate": 1.0, "clients": 1, "processes": 2},
        {"rate": 1.0, "timeout_s": 0.0},
        {"closed": 0},
        {"closed": 4, "rate": 5.0},
        {"closed": 4, "profile": "ramp"},
        {"rate": 1.0, "profile": "zigzag"},
    ],
)
def test_senseless_plans_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError):
        Plan(**wrong)  # type: ignore[arg-type]


def test_number_of_intervals_is_bounded_however_long_the_run() -> None:
    plan = Plan(rate=2000, duration_s=24 * 3600.0)
    assert plan.duration_s / plan.interval_s <= INTERVALS_MAX
