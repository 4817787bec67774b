"""What the messages with items hold, and when the next may leave."""

from flow_nodes import TABLE

from pronghorn.worker.flow.batches import Batches
from pronghorn.worker.flow.events import ItemToRun
from pronghorn.worker.flow.placing import CALLS_MAX, CHUNKS_MAX, Placing

ADD, MEET = TABLE.lookup("add"), TABLE.lookup("meet")


def batches(count: int, batch_size: int | None = None) -> Batches:
    made = Batches(batch_size)
    for index in range(count):
        made.add(ADD, ItemToRun(index, "add", None))
    return made


def sizes(made: Batches, placing: Placing) -> list[int]:
    taken = []
    while (one := made.take(placing)) is not None:
        taken.append(len(one[1]))
    return taken


def test_nothing_is_known_of_a_node_at_first() -> None:
    made = batches(CHUNKS_MAX + 1)
    assert sizes(made, Placing()) == [1] * CHUNKS_MAX
    made.ended(1)
    assert sizes(made, Placing()) == [1]


def test_few_items_wait_for_others_while_enough_is_in_flight() -> None:
    placing = Placing()
    placing.of(ADD.name).ran(1000, 1000)
    made = batches(100)
    assert sizes(made, placing) == [25, 25, 25, 25]
    for index in range(24):
        made.add(ADD, ItemToRun(index, "add", None))
    assert sizes(made, placing) == []  # a message would not be full
    made.ended(25)
    assert sizes(made, placing) == [24]
    for count in (25, 25, 25, 24):
        assert not made.is_empty
        made.ended(count)
    assert made.is_empty


def test_a_size_that_is_asked_for_is_kept_to() -> None:
    assert sizes(batches(10, batch_size=4), Placing()) == [4, 4, 2]


def test_what_runs_beside_others_goes_one_by_one() -> None:
    made = Batches(None)
    for index in range(CALLS_MAX + 1):
        made.add(MEET, ItemToRun(index, "meet", None))
    assert sizes(made, Placing()) == [1] * CALLS_MAX


def test_a_message_holds_items_of_one_node() -> None:
    placing = Placing()
    placing.of(ADD.name).ran(1000, 1000)
    made = batches(3, batch_size=5)
    made.add(MEET, ItemToRun(3, "meet", None))
    assert sizes(made, placing) == [3, 1]


def test_stopped_it_gives_back_what_waits() -> None:
    made = batches(3, batch_size=2)
    assert made.take(Placing()) is not None
    assert [item.index for item in made.stop()] == [2]
    assert made.stopped
    assert made.take(Placing()) is None
