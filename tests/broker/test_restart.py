"""Mirror of broker/restart.py."""

from random import Random

import pytest

from pronghorn.broker.restart import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    BACKOFF_READY_MAX_S,
    INTENSITY,
    JITTER,
    PERIOD_S,
    SETTLED_S,
    RestartPolicy,
)


class Even(Random):
    """No chance at all."""

    def random(self) -> float:
        return 0.0


class Late(Random):
    """The longest jitter there can be."""

    def random(self) -> float:
        return 1.0


@pytest.fixture
def policy() -> RestartPolicy:
    return RestartPolicy(Even())


def waits(policy: RestartPolicy, count: int, *, ready_for: float | None = None) -> list[float]:
    """Have a process die again and again, each time as soon as it was started and so on."""
    now, found = 1.0, []
    for _ in range(count):
        ready_at = None if ready_for is None else now - ready_for
        found.append(policy.died(now, ready_at=ready_at))
        now += found[-1] + (ready_for or 0.0)
    return found


def test_who_has_served_for_a_while_is_replaced_at_once(policy: RestartPolicy) -> None:
    assert waits(policy, 10 * INTENSITY, ready_for=SETTLED_S) == [0.0] * 10 * INTENSITY
    assert not policy.exhausted(1.0 + 10 * INTENSITY * SETTLED_S)


def test_one_early_death_after_ready_is_no_pattern(policy: RestartPolicy) -> None:
    assert policy.died(1.0, ready_at=0.5) == 0.0
    assert policy.died(2.0, ready_at=1.5) == 2 * BACKOFF_FIRST_S


def test_what_gets_ready_again_and_again_is_not_waited_for_long(policy: RestartPolicy) -> None:
    found = waits(policy, 2 * INTENSITY, ready_for=0.5)
    assert max(found) == found[-1] == BACKOFF_READY_MAX_S


def test_a_death_before_ready_is_waited_for_from_the_first(policy: RestartPolicy) -> None:
    assert policy.died(1.0, ready_at=None) == BACKOFF_FIRST_S


def test_early_deaths_double_the_wait_up_to_a_limit(policy: RestartPolicy) -> None:
    found = waits(policy, 10)
    assert found[:4] == [BACKOFF_FIRST_S * 2**number for number in range(4)]
    assert found[-1] == BACKOFF_MAX_S


def test_jitter_makes_waits_longer_within_its_share() -> None:
    found = waits(RestartPolicy(Late()), 3)
    assert found == [BACKOFF_FIRST_S * 2**number * (1 + JITTER) for number in range(3)]
    first, second = (waits(RestartPolicy(Random(seed)), 3) for seed in (1, 2))
    assert first != second


def test_those_that_die_together_are_one_failure(policy: RestartPolicy) -> None:
    assert policy.died(1.0, ready_at=None) == BACKOFF_FIRST_S
    for _ in range(10 * INTENSITY):
        assert policy.died(1.0 + BACKOFF_FIRST_S / 4, ready_at=None) == pytest.approx(
            BACKOFF_FIRST_S * 3 / 4
        )
    assert policy.died(1.0 + BACKOFF_FIRST_S, ready_at=None) == 2 * BACKOFF_FIRST_S
    assert not policy.exhausted(2.0)


def test_one_that_was_ready_does_not_wait_as_long_as_others_that_never_were(
    policy: RestartPolicy,
) -> None:
    assert waits(policy, 8)[-1] == BACKOFF_MAX_S
    begun = 1.0 + sum(BACKOFF_FIRST_S * 2**number for number in range(7))
    assert policy.died(begun + 1.0, ready_at=begun) == BACKOFF_READY_MAX_S


def test_more_early_deaths_than_the_intensity_exhaust_it(policy: RestartPolicy) -> None:
    took = sum(waits(policy, INTENSITY))
    assert took == pytest.approx(1.5)
    assert not policy.exhausted(1.0 + took)
    policy.died(1.0 + took, ready_at=None)
    assert policy.exhausted(1.0 + took)


def test_deaths_of_long_ago_are_forgotten(policy: RestartPolicy) -> None:
    took = sum(waits(policy, INTENSITY + 1))
    assert policy.exhausted(1.0 + PERIOD_S)
    assert not policy.exhausted(1.01 + PERIOD_S)
    assert policy.died(1.01 + took + PERIOD_S, ready_at=None) == BACKOFF_FIRST_S
