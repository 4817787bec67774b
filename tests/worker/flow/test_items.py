"""The items of one task: windows, outcomes, running them again."""

import pytest

from pronghorn.worker.flow.events import ItemEnded, ItemToRun
from pronghorn.worker.flow.items import ItemsState


def state(count: int, concurrency: int = 2, *, stop: bool = False) -> ItemsState:
    todo = [ItemToRun(index, "a", {"n": index}) for index in range(count)]
    return ItemsState.of(todo, concurrency, None, "stop" if stop else "continue")


def indexes(taken: list[ItemToRun]) -> list[int]:
    return [item.index for item in taken]


def test_as_many_run_as_may() -> None:
    items = state(5)
    assert indexes(items.take()) == [0, 1]
    assert items.take() == []
    assert items.end(ItemEnded(1, "succeeded", "x"))
    assert indexes(items.take()) == [2]
    items.check_invariants()


def test_each_item_ends_once() -> None:
    items = state(2)
    items.take()
    assert items.end(ItemEnded(0, "succeeded", 1))
    for late in (ItemEnded(0, "failed", 2), ItemEnded(-1, "failed"), ItemEnded(2, "failed")):
        assert not items.end(late)
    assert (items.results, items.failed) == ([1, None], 0)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["succeeded", "succeeded"], "succeeded"),
        (["succeeded", "failed"], "failed"),
        (["timeout", "succeeded"], "failed"),
        (["failed", "canceled"], "canceled"),
    ],
)
def test_outcome(outcomes: list[str], expected: str) -> None:
    items = state(2)
    items.take()
    for index, outcome in enumerate(outcomes):
        items.end(ItemEnded(index, outcome))  # type: ignore[arg-type]
        items.check_invariants()
    assert items.outcome() == expected


def test_failure_stops_the_rest_where_that_is_wanted() -> None:
    items = state(3, stop=True)
    items.take()
    items.end(ItemEnded(0, "failed"))
    assert not items.waiting
    assert items.take() == []


def test_again_runs_what_has_not_succeeded() -> None:
    items = state(4)
    items.take()
    items.end(ItemEnded(0, "succeeded", 5))
    items.end(ItemEnded(1, "failed", 6))
    again = items.again()
    again.check_invariants()
    assert indexes(again.take()) == [1, 2]
    assert again.results[0] == 5
    assert (again.failed, again.todo[0]) == (0, None)
