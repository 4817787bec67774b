"""Mirror of broker/journal/batch.py."""

from math import inf

import pytest

from pronghorn.broker.journal.batch import (
    BATCH_BYTES,
    BATCH_RECORDS,
    LINGER_RECORDS,
    LINGER_S,
    LOGGED_AT_ONCE,
    LOGGED_RECORDS,
    LOGGED_S,
    QUEUE_BYTES,
    CommitQueue,
)

NOW = 1000.0


@pytest.fixture
def queue() -> CommitQueue[int]:
    return CommitQueue()


def fill(queue: CommitQueue[int], count: int, size: int = 100, now: float = NOW) -> None:
    for number in range(count):
        queue.extend([number], size, now)


def test_an_empty_queue_has_no_batch(queue: CommitQueue[int]) -> None:
    assert queue.take() == []
    assert len(queue) == queue.queued_bytes == 0


def test_one_entry_waits_for_no_other(queue: CommitQueue[int]) -> None:
    fill(queue, 1)
    assert queue.take() == [0]


def test_a_hundred_that_come_together_are_one_commit(queue: CommitQueue[int]) -> None:
    fill(queue, 100)
    assert queue.take() == list(range(100))
    queue.committed()
    assert queue.take() == []


def test_what_comes_during_a_commit_is_of_the_next(queue: CommitQueue[int]) -> None:
    fill(queue, 2)
    queue.take()
    queue.extend([7], 100, NOW)
    queue.committed()
    assert queue.take() == [7]
    queue.committed()
    assert len(queue) == queue.queued_bytes == 0


def test_a_batch_that_failed_is_the_first_of_the_next(queue: CommitQueue[int]) -> None:
    fill(queue, 2)
    queue.take()
    queue.extend([7], 100, NOW)
    queue.failed()
    assert queue.take() == [0, 1, 7]


def test_batches_are_bounded_in_count(queue: CommitQueue[int]) -> None:
    fill(queue, BATCH_RECORDS + 1)
    assert len(queue.take()) == BATCH_RECORDS
    queue.committed()
    assert queue.take() == [BATCH_RECORDS]


def test_batches_are_bounded_in_bytes(queue: CommitQueue[int]) -> None:
    fill(queue, 3, BATCH_BYTES // 2)
    assert queue.take() == [0, 1]


def test_an_entry_above_all_bounds_goes_alone(queue: CommitQueue[int]) -> None:
    queue.extend([0], BATCH_BYTES + 1, NOW)
    queue.extend([1], 1, NOW)
    assert queue.take() == [0]
    queue.committed()
    assert queue.take() == [1]


def test_a_full_queue_says_so_until_a_commit(queue: CommitQueue[int]) -> None:
    assert not queue.is_full
    queue.extend([0], QUEUE_BYTES, NOW)
    assert queue.is_full
    queue.take()
    assert queue.is_full
    queue.committed()
    assert not queue.is_full
    fill(queue, 4 * BATCH_RECORDS)
    assert queue.is_full


def test_what_is_cut_off_leaves_what_was_before_it(queue: CommitQueue[int]) -> None:
    fill(queue, 3)
    queue.take()
    queue.failed()
    queue.cut(1)
    assert (len(queue), queue.queued_bytes, queue.due) == (1, 100, 0.0)
    assert queue.take() == [0]
    queue.failed()
    queue.cut(0)
    assert len(queue) == queue.queued_bytes == 0
    assert queue.due == inf
    assert queue.take() == []


def test_what_nobody_waits_for_gathers_for_a_while(queue: CommitQueue[int]) -> None:
    assert queue.due == inf
    fill(queue, 1)
    fill(queue, 1, now=NOW + LINGER_S / 2)
    assert queue.due == NOW + LINGER_S  # from the first one on
    queue.take()
    queue.committed()
    assert queue.due == inf


def test_what_somebody_waits_for_is_due_at_once(queue: CommitQueue[int]) -> None:
    queue.hurry()  # somebody was quicker: there is nothing to hurry for
    fill(queue, 1)
    assert queue.due == NOW + LINGER_S
    queue.hurry()
    assert queue.due == 0.0
    queue.take()
    queue.failed()
    assert queue.due == 0.0
    queue.take()
    queue.committed()
    fill(queue, 1)
    assert queue.due == NOW + LINGER_S


def test_many_wait_for_no_more(queue: CommitQueue[int]) -> None:
    fill(queue, LINGER_RECORDS - 1)
    assert queue.due > 0.0
    fill(queue, 1)
    assert queue.due == 0.0


def log(queue: CommitQueue[int], now: float = NOW) -> list[int]:
    """Log what is to be logged."""
    entries = list(queue.to_log(now))
    if entries:
        queue.add_logged(now)
    return entries


def test_what_somebody_waits_for_is_to_be_logged(queue: CommitQueue[int]) -> None:
    fill(queue, 2)
    assert log(queue) == []
    queue.hurry()  # it is not to gather, but nobody waits
    assert log(queue) == []
    queue.hurry(waited_for=True)
    queue.hurry()
    assert log(queue) == [0, 1]
    assert log(queue) == []
    assert queue.logged == len(queue) == 2


def test_what_is_logged_is_committed_soon(queue: CommitQueue[int]) -> None:
    fill(queue, 1)
    queue.hurry(waited_for=True)
    log(queue)
    assert queue.due == NOW + LOGGED_S
    later = NOW + LOGGED_S / 2
    fill(queue, 1, now=later)
    queue.hurry(waited_for=True)
    assert log(queue, later) == [0]
    assert queue.due == NOW + LOGGED_S  # from the first one on
    assert queue.take() == [0, 0]
    queue.committed()
    assert queue.due == inf
    assert queue.logged == 0


def test_what_comes_after_what_is_logged_gathers_as_ever(queue: CommitQueue[int]) -> None:
    fill(queue, 1)
    queue.hurry(waited_for=True)
    log(queue)
    fill(queue, 1, now=NOW + LOGGED_S / 2)
    assert queue.due == NOW + LOGGED_S / 2 + LINGER_S
    assert log(queue) == []
    queue.hurry()
    assert queue.due == 0.0


def test_many_that_are_logged_are_committed_at_once(queue: CommitQueue[int]) -> None:
    for _ in range(2):
        fill(queue, LOGGED_RECORDS // 2)
        assert queue.due > 0.0
        queue.hurry(waited_for=True)
        log(queue)
    assert queue.due == 0.0


@pytest.mark.parametrize(("count", "after_s"), [(LOGGED_RECORDS, 0.0), (1, LOGGED_S)])
def test_nothing_more_is_logged_before_a_commit_that_is_due(
    queue: CommitQueue[int], count: int, after_s: float
) -> None:
    for _ in range(count):
        fill(queue, 1)
        queue.hurry(waited_for=True)
        assert log(queue) == [0]
    fill(queue, 1)
    queue.hurry(waited_for=True)
    assert log(queue, NOW + after_s) == []
    assert queue.due == 0.0
    assert len(queue.take()) == count + 1
    queue.committed()
    fill(queue, 1)
    queue.hurry(waited_for=True)
    assert log(queue, NOW + after_s) == [0]


def test_many_at_once_are_committed_and_not_logged(queue: CommitQueue[int]) -> None:
    fill(queue, LOGGED_AT_ONCE + 1)
    queue.hurry(waited_for=True)
    assert log(queue) == []
    assert queue.due == 0.0
    assert len(queue.take()) == LOGGED_AT_ONCE + 1
    queue.committed()
    fill(queue, 1)
    assert log(queue) == []  # nobody waits for that


def test_a_batch_may_end_among_what_is_logged(queue: CommitQueue[int]) -> None:
    for number in range(3):
        queue.extend([number], BATCH_BYTES // 2, NOW)
    queue.hurry(waited_for=True)
    assert log(queue) == [0, 1, 2]
    assert queue.take() == [0, 1]
    queue.committed()
    assert queue.logged == 1
    assert queue.due == NOW + LOGGED_S


def test_what_is_logged_is_not_cut_off(queue: CommitQueue[int]) -> None:
    fill(queue, 2)
    queue.hurry(waited_for=True)
    log(queue)
    fill(queue, 3)
    queue.hurry(waited_for=True)
    with pytest.raises(AssertionError):
        queue.cut(1)
    queue.cut(2)
    assert len(queue) == queue.logged == 2
    assert queue.queued_bytes == 200
    assert log(queue) == []
    assert queue.take() == [0, 1]
    queue.committed()
    assert queue.due == inf
