"""Mirror of broker/restart.py."""

import pytest

from pronghorn.broker.restart import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    BACKOFF_READY_MAX_S,
    INTENSITY,
    PERIOD_S,
    SETTLED_S,
    RestartPolicy,
)


@pytest.fixture
def policy() -> RestartPolicy:
    return RestartPolicy()


def test_who_has_served_for_a_while_is_replaced_at_once(policy: RestartPolicy) -> None:
    for _ in range(10 * INTENSITY):
        assert policy.died(100.0, ready_at=100.0 - SETTLED_S) == 0.0
    assert not policy.exhausted(100.0)


def test_one_early_death_after_ready_is_no_pattern(policy: RestartPolicy) -> None:
    assert policy.died(1.0, ready_at=0.5) == 0.0
    assert policy.died(2.0, ready_at=1.5) == 2 * BACKOFF_FIRST_S


def test_what_gets_ready_again_and_again_is_not_waited_for_long(policy: RestartPolicy) -> None:
    waits = [policy.died(1.0, ready_at=0.5) for _ in range(2 * INTENSITY)]
    assert max(waits) == waits[-1] == BACKOFF_READY_MAX_S


def test_a_death_before_ready_is_waited_for_from_the_first(policy: RestartPolicy) -> None:
    assert policy.died(1.0, ready_at=None) == BACKOFF_FIRST_S


def test_early_deaths_double_the_wait_up_to_a_limit(policy: RestartPolicy) -> None:
    waits = [policy.died(1.0, ready_at=None) for _ in range(12)]
    assert waits[:4] == [BACKOFF_FIRST_S * 2**number for number in range(4)]
    assert waits[-1] == BACKOFF_MAX_S


def test_more_early_deaths_than_the_intensity_exhaust_it(policy: RestartPolicy) -> None:
    for _ in range(INTENSITY):
        policy.died(1.0, ready_at=None)
    assert not policy.exhausted(1.0)
    policy.died(1.0, ready_at=None)
    assert policy.exhausted(1.0)


def test_deaths_of_long_ago_are_forgotten(policy: RestartPolicy) -> None:
    for _ in range(INTENSITY + 1):
        policy.died(1.0, ready_at=None)
    assert policy.exhausted(1.0 + PERIOD_S)
    assert not policy.exhausted(1.5 + PERIOD_S)
    assert policy.died(1.5 + PERIOD_S, ready_at=None) == BACKOFF_FIRST_S
