"""Mirror of broker/gates.py."""

from math import inf

import pytest

from pronghorn.broker.gates import AHEAD_S, Gate


def test_so_many_run_at_once_and_no_more() -> None:
    gate = Gate(2, None)
    for _ in range(2):
        assert gate.wait_s(1.0) == 0
        gate.enter(1)
    assert gate.wait_s(1.0) == inf
    gate.leave()
    assert gate.wait_s(1.0) == 0


def test_so_many_begin_in_a_second() -> None:
    gate = Gate(None, 5.0)
    now, begun = 100.0, []
    while now < 110.0:
        wait_s = gate.wait_s(now)
        if wait_s:
            now += wait_s
        else:
            begun.append(now)
            gate.enter(1)
            gate.leave()
    assert len(begun) == pytest.approx(51, abs=1)
    assert begun[1] - begun[0] == pytest.approx(0.2)


def test_after_a_pause_only_a_little_is_made_up_for() -> None:
    gate = Gate(None, 100.0)
    gate.wait_s(1.0)
    burst = 0
    while not gate.wait_s(60.0):
        gate.enter(1)
        burst += 1
    assert burst == 100.0 * AHEAD_S


def test_a_chunk_counts_with_all_its_items() -> None:
    gate = Gate(None, 10.0)
    assert gate.wait_s(1.0) == 0
    gate.enter(20)
    assert gate.wait_s(1.0) == pytest.approx(2.0)
    assert gate.wait_s(3.0) == 0


def test_both_limits_hold() -> None:
    gate = Gate(1, 10.0)
    assert gate.wait_s(1.0) == 0
    gate.enter(1)
    assert gate.wait_s(5.0) == inf
    gate.leave()
    assert gate.wait_s(5.0) == 0
