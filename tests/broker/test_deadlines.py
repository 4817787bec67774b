"""Mirror of broker/deadlines.py."""

from math import inf

import pytest

from pronghorn.broker.deadlines import ROOM_MIN, Deadlines


class Item:
    def __init__(self) -> None:
        self.ended = False


@pytest.fixture
def deadlines() -> Deadlines[Item]:
    return Deadlines(lambda item: item.ended)


def test_nothing_is_due_at_first(deadlines: Deadlines[Item]) -> None:
    assert deadlines.next_due == inf
    assert deadlines.pop_due(1e9) == []
    assert deadlines.next_due == inf


def test_items_come_when_they_are_due_earliest_first(deadlines: Deadlines[Item]) -> None:
    late, early, middle = Item(), Item(), Item()
    for due, item in ((3.0, late), (1.0, early), (2.0, middle)):
        deadlines.push(due, item)
    assert deadlines.next_due == 1.0
    assert deadlines.pop_due(0.999) == []
    assert deadlines.pop_due(2.0) == [early, middle]
    assert deadlines.next_due == 3.0
    assert deadlines.pop_due(3.0) == [late]
    assert (deadlines.next_due, len(deadlines)) == (inf, 0)


def test_items_of_one_time_come_as_they_were_added(deadlines: Deadlines[Item]) -> None:
    items = [Item() for _ in range(5)]
    for item in items:
        deadlines.push(1.0, item)
    assert deadlines.pop_due(1.0) == items


def test_what_has_ended_is_left_out(deadlines: Deadlines[Item]) -> None:
    items = [Item() for _ in range(3)]
    for number, item in enumerate(items):
        deadlines.push(1.0 + number, item)
    items[0].ended = items[1].ended = True
    assert deadlines.pop_due(1.0) == []
    # Nobody is woken for the second one: it has ended too.
    assert (deadlines.next_due, len(deadlines)) == (3.0, 1)


def test_ended_items_of_far_deadlines_do_not_pile_up(deadlines: Deadlines[Item]) -> None:
    """A client that gives each of its quick calls an hour costs no memory for an hour."""
    waits = Item()
    deadlines.push(10.0, waits)
    for _ in range(20 * ROOM_MIN):
        item = Item()
        deadlines.push(3600.0, item)
        item.ended = True
    assert len(deadlines) <= ROOM_MIN
    assert deadlines.pop_due(10.0) == [waits]


def test_all_that_is_open_is_kept(deadlines: Deadlines[Item]) -> None:
    items = [Item() for _ in range(3 * ROOM_MIN)]
    for number, item in enumerate(items):
        deadlines.push(float(number), item)
    assert len(deadlines) == len(items)
    assert deadlines.next_due == 0.0
    assert deadlines.pop_due(inf) == items
