"""Events for those who watch: numbered, by level."""

import pytest

from pronghorn.worker.flow.events import (
    Command,
    Failure,
    ItemToRun,
    PullItems,
    Refused,
    RunEnded,
    RunItems,
    RunTask,
    StatusChanged,
    Stop,
    TaskEnded,
    WaitFor,
)
from pronghorn.worker.flow.feed import Feed, FlowEvent, Level

COMMANDS: list[Command] = [
    StatusChanged("running"),
    RunTask(1, "a", "x", {"n": 1}, 0, None),
    WaitFor(2, "w", "go"),
    RunItems(3, "i", [ItemToRun(0, "x", None)], 1, None, None, 4),
    RunItems(3, "i", [ItemToRun(1, "x", None)], 1, None, None, 4),
    Stop(1),
    Refused("no"),
    TaskEnded(1, "a", "failed", "why", again=True),
    TaskEnded(3, "i", "succeeded", [1], again=False),
    RunEnded("failed", {"o": 1}, (Failure("task", "m", "a"),)),
]


def events(level: Level) -> list[FlowEvent]:
    feed = Feed(level)
    return [event for command in COMMANDS for event in feed.on_command(command)]


def test_full() -> None:
    assert events("full") == [
        FlowEvent(1, "status", status="running"),
        FlowEvent(2, "task_started", task="a", execution=1),
        FlowEvent(3, "task_started", task="w", execution=2),
        FlowEvent(4, "task_started", task="i", execution=3, attempt=1, count=4),
        FlowEvent(
            5, "task_ended", task="a", execution=1, status="failed", again=True, result="why"
        ),
        FlowEvent(6, "task_ended", task="i", execution=3, status="succeeded", result=[1]),
        FlowEvent(
            7, "ended", status="failed", output={"o": 1}, errors=(Failure("task", "m", "a"),)
        ),
    ]


@pytest.mark.parametrize(
    ("level", "kinds"),
    [("outputs", ["task_ended", "task_ended", "ended"]), ("terminal", ["ended"])],
)
def test_less(level: Level, kinds: list[str]) -> None:
    told = events(level)
    assert [event.kind for event in told] == kinds
    assert [event.number for event in told] == list(range(1, len(kinds) + 1))


def test_progress_of_items_is_told_while_they_run() -> None:
    feed = Feed()
    assert feed.on_items(3, 1, 0) == ()
    feed.on_command(COMMANDS[3])
    assert feed.on_items(3, 2, 1) == [
        FlowEvent(2, "items", task="i", execution=3, done=2, failed=1, count=4)
    ]
    feed.on_command(COMMANDS[8])
    assert feed.on_items(3, 3, 1) == ()


def test_items_that_a_node_gives_have_no_count_yet() -> None:
    feed = Feed("full")
    pull = PullItems(3, "i", "rows", None, 1, None, 2, 0)
    run = RunItems(3, "i", [ItemToRun(0, "x", None)], 1, None, None, None)
    told = [event for command in (pull, run, pull) for event in feed.on_command(command)]
    assert told == [FlowEvent(1, "task_started", task="i", execution=3, attempt=1)]
    (items,) = feed.on_items(3, 1, 0)
    assert (items.done, items.count) == (1, None)
