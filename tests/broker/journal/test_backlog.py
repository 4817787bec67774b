"""Mirror of broker/journal/backlog.py; at the end with the queue of a writer that dies."""

from random import Random

import pytest
from journal_records import FIRST, Story, accepted, ended, step

from pronghorn.broker.journal.backlog import REFUSE, WAIT, Backlog, Standing
from pronghorn.broker.journal.batch import CommitQueue
from pronghorn.broker.journal.fold import advance, fold
from pronghorn.broker.journal.messages import Void, encode_message
from pronghorn.broker.journal.record import (
    INDEX_MAX,
    Ended,
    Record,
    Started,
    decode_record,
    encode_body,
    sequence_of,
)


@pytest.fixture
def backlog() -> Backlog[str]:
    return Backlog(3)


def test_records_are_numbered_from_the_first_of_the_generation(backlog: Backlog[str]) -> None:
    assert backlog.acknowledged == sequence_of(3, 0)
    assert [backlog.append([b"x"], 0.0) for _ in range(3)] == [
        sequence_of(3, index) for index in (1, 2, 3)
    ]
    assert len(backlog) == 3


def test_waiters_are_given_out_when_their_record_is_kept(backlog: Backlog[str]) -> None:
    first, second = backlog.append([b"x"], 0.0), backlog.append([b"y"], 0.0)
    assert backlog.wait(second, "b")
    assert backlog.wait(first, "a")
    assert backlog.acknowledge(first) == ["a"]
    assert not backlog.wait(first, "late")
    assert backlog.acknowledge(first) == []
    assert backlog.acknowledge(second) == ["b"]
    assert len(backlog) == backlog.outstanding_bytes == 0


def test_nothing_is_acknowledged_that_was_not_written(backlog: Backlog[str]) -> None:
    with pytest.raises(AssertionError):
        backlog.acknowledge(sequence_of(3, 1))
    with pytest.raises(AssertionError):
        backlog.wait(sequence_of(3, 1), "a")


def test_a_new_writer_is_given_what_it_has_not(backlog: Backlog[str]) -> None:
    for frame in (b"1", b"2", b"3"):
        backlog.append([frame, b"buffer"], 0.0)
    backlog.acknowledge(sequence_of(3, 1))
    assert backlog.unacknowledged() == [[b"2", b"buffer"], [b"3", b"buffer"]]


def test_a_refused_record_is_given_up_with_all_later_ones_of_its_run() -> None:
    backlog: Backlog[str] = Backlog(1)
    other, lost = accepted(FIRST), accepted(FIRST + 1)
    records: list[Record] = [other, lost, ended(advance(None, FIRST, other))]
    records += [Started(lost.run, lost.run, 1, 5), Ended(lost.run, lost.run + 2, 0, 5, "cancelled")]
    for record in records:
        sequence = backlog.append([encode_message(record), b"buffer"], 0.0)
        assert backlog.wait(sequence, f"{record.run - FIRST}")
    size = backlog.outstanding_bytes
    assert backlog.acknowledge(FIRST) == ["0"]
    assert backlog.give_up(FIRST + 3, other.run) == (0, []), "it is of another run"
    assert backlog.give_up(FIRST + 3, lost.run) == (lost.run, ["1", "1"])
    void = (encode_message(Void()),)
    kept = [[encode_message(record), b"buffer"] for record in records[1:3]]
    assert backlog.unacknowledged() == [*kept, void, void]
    assert backlog.waiters() == ["1", "0"]
    assert backlog.give_up(FIRST + 4) == (0, []), "it was given up before"
    assert backlog.acknowledge(FIRST + 4) == ["1", "0"]
    assert backlog.outstanding_bytes == 0 < size
    assert backlog.next_sequence == FIRST + 5


def test_standing_by_count(backlog: Backlog[str]) -> None:
    standings = []
    for number in range(1, REFUSE.records + 1):
        backlog.append([b""], 0.0)
        if number in (WAIT.records - 1, WAIT.records, REFUSE.records - 1, REFUSE.records):
            standings.append(backlog.standing(0.0))
    assert standings == [Standing.OPEN, Standing.WAIT, Standing.WAIT, Standing.REFUSE]
    backlog.acknowledge(backlog.next_sequence - 1)
    assert backlog.standing(1e9) is Standing.OPEN


@pytest.mark.parametrize(
    ("size", "standing"),
    [
        (WAIT.bytes - 1, Standing.OPEN),
        (WAIT.bytes, Standing.WAIT),
        (REFUSE.bytes - 1, Standing.WAIT),
        (REFUSE.bytes, Standing.REFUSE),
    ],
)
def test_standing_by_bytes(backlog: Backlog[str], size: int, standing: Standing) -> None:
    backlog.append([bytes(size)], 0.0)
    assert backlog.standing(0.0) is standing


@pytest.mark.parametrize(
    ("age_s", "standing"),
    [
        (WAIT.age_s / 2, Standing.OPEN),
        (WAIT.age_s, Standing.WAIT),
        (REFUSE.age_s, Standing.REFUSE),
    ],
)
def test_standing_by_age_of_the_oldest(
    backlog: Backlog[str], age_s: float, standing: Standing
) -> None:
    backlog.append([b"x"], 0.0)
    backlog.append([b"x"], age_s)
    assert backlog.standing(age_s) is standing
    backlog.acknowledge(sequence_of(3, 1))
    assert backlog.standing(age_s) is Standing.OPEN


def test_the_last_numbers_of_a_generation_are_for_what_is_open(backlog: Backlog[str]) -> None:
    backlog.next_sequence = sequence_of(3, INDEX_MAX - 1000)
    assert backlog.standing(0.0) is Standing.REFUSE
    assert backlog.append([b"x"], 0.0) < sequence_of(4, 0)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_dies_what_was_acknowledged_is_kept_once_and_in_order(seed: int) -> None:
    """A broker with its backlog, and writers that die at any moment, before or after a commit."""
    random = Random(seed)
    story = Story(1)
    backlog: Backlog[int] = Backlog(1)
    kept: list[bytes] = []  # what is on disk
    in_store = 0  # of these; the others are logged
    queue: CommitQueue[bytes] = CommitQueue()
    waiting: set[int] = set()
    for _ in range(400):
        action = random.random()
        if action < 0.6:
            before = len(story.records)
            step(story, random)
            for sequence, record in story.records[before:]:
                frame = encode_body(record)
                assert backlog.append([frame], 0.0) == sequence
                queue.extend([frame], len(frame), 0.0)
                if random.random() < 0.3:
                    assert backlog.wait(sequence, sequence)
                    waiting.add(sequence)
                    queue.hurry(waited_for=True)
        elif action < 0.9:  # a commit, or a write to the log
            logged = queue.to_log(0.0) if random.random() < 0.7 else ()
            kept += logged
            if logged:
                queue.add_logged(0.0)
            else:
                taken = queue.take()
                new = taken[len(kept) - in_store :]
                assert taken == [*kept[in_store:], *new], "what is logged is committed first"
                kept += new
                in_store += len(taken)
                queue.committed()
            # The acknowledgement may be lost with the writer.
            if random.random() < 0.8:
                released = backlog.acknowledge(sequence_of(1, len(kept)))
                assert all(number <= sequence_of(1, len(kept)) for number in released)
                waiting -= set(released)
        else:  # another writer: a commit that was under way is lost, what is logged goes first
            queue.take()
            queue = CommitQueue()
            in_store = len(kept)
            waiting -= set(backlog.acknowledge(sequence_of(1, len(kept))))
            for frames in backlog.unacknowledged():
                queue.extend([frames[0]], len(frames[0]), 0.0)
        assert backlog.acknowledged <= sequence_of(1, len(kept))
        assert all(number > backlog.acknowledged for number in waiting)
    read: list[tuple[int, Record]] = [
        (sequence_of(1, index), decode_record.decode(body)) for index, body in enumerate(kept, 1)
    ]
    assert len(read) > 100
    assert [number for number, _ in read] == [number for number, _ in story.records[: len(kept)]]
    assert fold(read) == fold(story.records[: len(kept)])


def test_who_waits_is_listed_and_stays(backlog: Backlog[str]) -> None:
    first = backlog.append([b"x"], 0.0)
    second = backlog.append([b"x"], 0.0)
    backlog.wait(second, "b")
    backlog.wait(first, "a")
    assert backlog.waiters() == ["a", "b"]
    assert backlog.acknowledge(first) == ["a"]
    assert backlog.waiters() == ["b"]
