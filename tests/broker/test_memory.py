"""Mirror of broker/memory.py."""

import ctypes
import os
from collections.abc import Callable, Iterator

import pytest

from pronghorn.broker.memory import TIGHT_S, TRIM_S, Memory, Pressure

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Read what is in use; what tests before this one have left free is given back first."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


@pytest.fixture
def bounded() -> Iterator[Callable[[int], Memory]]:
    made: list[Memory] = []

    def make(bound: int) -> Memory:
        made.append(Memory(bound))
        return made[-1]

    yield make
    for memory in made:
        memory.close()


def test_it_tells_on_which_side_of_the_bound_it_is(bounded: Callable[[int], Memory]) -> None:
    now = resident()
    assert bounded(2 * now).look(1.0) is Pressure.NONE
    assert bounded(now * 4 // 5).look(1.0) is Pressure.TIGHT
    assert bounded(now // 2).look(1.0) is Pressure.OVER


def test_above_the_bound_for_long_is_as_bad_as_far_above(bounded: Callable[[int], Memory]) -> None:
    memory = bounded(resident() * 4 // 5)
    assert memory.look(1.0) is Pressure.TIGHT
    assert memory.look(1.0 + TIGHT_S) is Pressure.TIGHT
    assert memory.look(1.1 + TIGHT_S) is Pressure.OVER


def test_memory_that_is_given_back_is_seen(bounded: Callable[[int], Memory]) -> None:
    memory = bounded(resident() + 40_000_000)
    held = [b"x" * 100_000 for _ in range(1000)]
    assert memory.look(1.0) is not Pressure.NONE
    held.clear()
    assert memory.look(1.0 + TRIM_S) is Pressure.NONE


def test_what_was_let_go_of_is_seen_at_once(bounded: Callable[[int], Memory]) -> None:
    memory = bounded(resident() + 40_000_000)
    held = [b"x" * 100_000 for _ in range(1000)]
    assert memory.look(1.0) is not Pressure.NONE
    held.clear()
    memory.expect_less()
    assert memory.look(1.0) is Pressure.NONE
