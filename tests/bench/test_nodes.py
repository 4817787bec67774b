"""The nodes of the benchmarks, called as functions."""

import time

from pronghorn.bench import nodes


def test_they_do_what_they_say() -> None:
    assert nodes.add(1, 2) == nodes.add_after(1, 2, 0) == 3
    assert nodes.echo(b"x") == b"x"
    assert nodes.concat("a", "b") == "ab"
    assert nodes.cpu_1ms(100) == 100
    assert nodes.quick_or_slow() == 0.0
    assert nodes.quick_or_slow(0.001) == 0.001
    nodes.nothing()


def test_a_nap_and_a_spin_take_their_time() -> None:
    begin = time.perf_counter_ns()
    nodes.nap_100us()
    nodes.nap_2ms()
    nodes.nap_5ms()
    nodes.add_after(1, 2, 500_000)
    assert time.perf_counter_ns() - begin >= 7_600_000
