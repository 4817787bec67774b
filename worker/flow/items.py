"""The items of one ``with``: which wait, which run, what they gave. No events, no commands.

Mirror: tests/worker/flow/test_items.py.
"""

from typing import Any

import msgspec

from .events import ItemEnded, ItemToRun, Outcome
from .model import OnItemError

WAITING, RUNNING, SUCCEEDED, FAILED, CANCELED = range(5)

_STATES: dict[Outcome, int] = {
    "succeeded": SUCCEEDED,
    "failed": FAILED,
    "timeout": FAILED,
    "abandoned": FAILED,
    "canceled": CANCELED,
}


class Feed(msgspec.Struct):
    """The node that gives the items.

    Attributes:
        is_open: Whether more may come.
        asked: How many may come before more are asked for.
        status: How it has ended.
    """

    action: str
    input: dict[str, Any] | None
    is_open: bool = True
    asked: int = 0
    status: Outcome = "succeeded"


class ItemsState(msgspec.Struct):
    """All items of one execution.

    Attributes:
        todo: What to run for each, None once it has succeeded; in the order of the items.
        states: Of each: `WAITING` and so on.
        results: Of each; None where there is none.
        concurrency: How many may run at once.
        next: All items before this one have been started.
        running: How many run.
        failed: How many have failed.
        canceled: How many were stopped.
        feed: What gives them; None if all are there from the beginning.
    """

    todo: list[ItemToRun | None]
    states: list[int]
    results: list[Any]
    concurrency: int
    batch_size: int | None
    on_item_error: OnItemError
    next: int = 0
    running: int = 0
    failed: int = 0
    canceled: int = 0
    feed: Feed | None = None

    @classmethod
    def of(
        cls,
        todo: list[ItemToRun],
        concurrency: int,
        batch_size: int | None,
        on_item_error: OnItemError,
        feed: Feed | None = None,
    ) -> "ItemsState":
        """Make the state before anything has started."""
        count = len(todo)
        return cls(
            list(todo),
            [WAITING] * count,
            [None] * count,
            concurrency,
            batch_size,
            on_item_error,
            feed=feed,
        )

    @property
    def waiting(self) -> bool:
        """Whether an item may still be started."""
        return self.next < len(self.todo) and not self.is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether no further item is started."""
        return bool(self.canceled) or (self.on_item_error == "stop" and self.failed > 0)

    @property
    def is_open(self) -> bool:
        """Whether further items may come."""
        return self.feed is not None and self.feed.is_open and not self.is_stopped

    def ask(self) -> int:
        """Tell how many further items to ask for now: as many are ahead as may run at once."""
        if self.feed is None or not self.is_open:
            return 0
        ahead = len(self.todo) - self.next + self.feed.asked
        if 2 * ahead > self.concurrency:
            return 0
        self.feed.asked += self.concurrency - ahead
        return self.concurrency - ahead

    def give(self, items: list[ItemToRun], *, is_last: bool) -> None:
        """Take in further items."""
        assert self.feed is not None
        self.todo += items
        self.states += [WAITING] * len(items)
        self.results += [None] * len(items)
        self.feed.asked = max(0, self.feed.asked - len(items))
        if is_last:
            self.close()

    def close(self, status: Outcome = "succeeded") -> None:
        """Take in that no further items come."""
        assert self.feed is not None
        self.feed.is_open, self.feed.asked, self.feed.status = False, 0, status

    def take(self) -> list[ItemToRun]:
        """Start as many as may run."""
        if not self.waiting:
            return []
        taken: list[ItemToRun] = []
        free = self.concurrency - self.running
        todo, states, count = self.todo, self.states, len(self.todo)
        index = self.next
        while free > 0 and index < count:
            item = todo[index]
            if item is not None and states[index] == WAITING:
                states[index] = RUNNING
                taken.append(item)
                free -= 1
            index += 1
        self.next = index
        self.running += len(taken)
        return taken

    def in_flight(self) -> list[ItemToRun]:
        """Give those that run."""
        pairs = zip(self.todo, self.states, strict=True)
        return [item for item, state in pairs if state == RUNNING and item is not None]

    def end(self, item: ItemEnded) -> bool:
        """Note that an item has ended; False if it was not running, so that it is late."""
        index = item.index
        if not 0 <= index < len(self.states) or self.states[index] != RUNNING:
            return False
        state = _STATES[item.status]
        self.states[index] = state
        self.results[index] = item.result
        self.running -= 1
        if state == SUCCEEDED:
            self.todo[index] = None  # nobody runs it again
        elif state == FAILED:
            self.failed += 1
        else:
            self.canceled += 1
        return True

    def outcome(self) -> Outcome:
        """Tell how the task has ended, once nothing runs and nothing waits."""
        if self.canceled:
            return "canceled"
        if self.failed:
            return "failed"
        return "succeeded" if self.feed is None else self.feed.status

    def again(self) -> "ItemsState":
        """Give the state in which those that have not succeeded are to be run again."""
        states = [state if state == SUCCEEDED else WAITING for state in self.states]
        feed = self.feed
        if feed is not None:  # one that has failed is begun again
            feed = Feed(feed.action, feed.input, feed.is_open or feed.status != "succeeded")
        return ItemsState(
            self.todo,
            states,
            self.results,
            self.concurrency,
            self.batch_size,
            self.on_item_error,
            feed=feed,
        )

    def check_invariants(self) -> None:
        """Check that the counts are those of the states."""
        assert len(self.todo) == len(self.states)
        assert len(self.results) == len(self.states)
        assert self.running == self.states.count(RUNNING)
        assert self.failed == self.states.count(FAILED)
        assert self.canceled == self.states.count(CANCELED)
        assert self.running <= self.concurrency
        assert WAITING not in self.states[: self.next]
