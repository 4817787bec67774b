"""The items of one task: windows, outcomes, running them again."""

import pytest

from pronghorn.worker.flow.events import ItemEnded, ItemToRun, Outcome
from pronghorn.worker.flow.items import Feed, ItemsState


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


def test_a_feed_is_asked_for_as_many_as_may_run_at_once() -> None:
    items = ItemsState.of([], 4, None, "continue", Feed("a", None))
    assert (items.is_open, items.waiting, items.ask(), items.ask()) == (True, False, 4, 0)
    items.give([ItemToRun(index, "a", None) for index in range(3)], is_last=False)
    assert [item.index for item in items.take()] == [0, 1, 2]
    assert items.ask() == 3, "one was asked for that has not come"
    items.give([ItemToRun(index, "a", None) for index in range(3, 7)], is_last=True)
    assert [item.index for item in items.take()] == [3]
    assert (items.is_open, items.ask()) == (False, 0)
    items.check_invariants()
    for index in range(7):
        items.take()
        items.end(ItemEnded(index, "succeeded", index))
    assert (items.outcome(), items.results) == ("succeeded", list(range(7)))


@pytest.mark.parametrize("status", ["failed", "timeout", "canceled"])
def test_a_feed_that_fails_fails_the_task_and_is_begun_again(status: Outcome) -> None:
    items = ItemsState.of([], 4, None, "continue", Feed("a", None))
    items.close(status)
    assert (items.is_open, items.outcome()) == (False, status)
    again = items.again()
    assert (again.is_open, again.ask(), again.outcome()) == (True, 4, "succeeded")


def test_nothing_is_asked_for_once_no_item_is_started_any_more() -> None:
    items = ItemsState.of([], 2, None, "stop", Feed("a", None))
    items.give([ItemToRun(0, "a", None)], is_last=False)
    items.take()
    items.end(ItemEnded(0, "failed"))
    assert (items.is_open, items.ask()) == (False, 0)
