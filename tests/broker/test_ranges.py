"""Mirror of broker/ranges.py."""

from random import Random

import msgspec
import pytest
from msgspec import Raw

from pronghorn.broker.ranges import IN_FLIGHT_BYTES_MAX, Cut, Ranges
from pronghorn.broker.wire.chunks import CHUNK_BYTES_MAX, IN_FLIGHT_MAX


def ranges(count: int, *missing: tuple[int, int]) -> Ranges:
    items = Raw(msgspec.msgpack.encode([[index] for index in range(count)]))
    return Ranges(items, missing or ((0, count),))


def cut(of: Ranges) -> Cut:
    given = of.cut()
    assert given is not None
    assert msgspec.msgpack.decode(given.params) == [
        [index] for index in range(given.first, given.first + given.count)
    ]
    return given


def all_of(of: Ranges) -> list[tuple[int, int]]:
    """Take all that may be in flight."""
    found = []
    while (one := of.cut()) is not None:
        found.append((one.first, one.count))
    return found


def test_chunks_begin_with_one_item_and_grow() -> None:
    left = ranges(100)
    first = cut(left)
    assert (first.first, first.count, first.deaths) == (0, 1, 0)
    left.ended(first, 1, run_ms=0.001, result_bytes=1)
    second = cut(left)
    assert (second.first, second.count) == (1, 16)
    left.ended(second, 16, run_ms=0.01, result_bytes=16)
    third = cut(left)
    assert (third.first, third.count) == (17, 83)
    assert not left.is_over
    left.ended(third, 83)
    assert left.is_over


def test_only_what_is_missing_is_given() -> None:
    assert all_of(ranges(10, (2, 2), (7, 1))) == [(2, 1), (3, 1), (7, 1)]


def test_nothing_is_missing_of_no_items() -> None:
    left = Ranges(Raw(b"\x90"), ())
    assert left.is_over
    assert left.cut() is None


def test_what_was_not_begun_is_given_first() -> None:
    left = ranges(40)
    left.ended(cut(left), 1, run_ms=0.001, result_bytes=1)
    chunk = cut(left)
    left.ended(chunk, 5)
    again = cut(left)
    assert (again.first, again.count, again.deaths) == (6, 11, 0)


def test_an_item_whose_worker_died_is_given_alone_behind_the_others() -> None:
    left = ranges(20)
    left.ended(cut(left), 1, run_ms=0.001, result_bytes=1)
    left.lost(cut(left), 3, 1)  # 1 to 16, of which 4 was being run
    assert [(one.first, one.count, one.deaths) for one in (cut(left), cut(left))] == [
        (5, 12, 0),
        (17, 3, 0),
    ]
    alone = cut(left)
    assert (alone.first, alone.count, alone.deaths) == (4, 1, 1)
    left.lost(alone, 0, 1)
    assert cut(left).deaths == 2


def test_items_that_were_all_in_doubt_are_given_one_by_one() -> None:
    left = ranges(17)
    left.ended(cut(left), 1, run_ms=0.001, result_bytes=1)
    left.lost(cut(left), 0, 16)
    given = [cut(left) for _ in range(16)]
    assert [(one.first, one.count, one.deaths) for one in given] == [
        (index, 1, 1) for index in range(1, 17)
    ]


def test_so_many_are_in_flight() -> None:
    left = ranges(1000)
    assert len(all_of(left)) == IN_FLIGHT_MAX


def test_chunks_and_what_is_in_flight_are_bounded_in_bytes() -> None:
    item = bytes(CHUNK_BYTES_MAX // 2 + 1)
    left = Ranges(Raw(msgspec.msgpack.encode([1, *[item] * 99])), ((0, 100),))
    first = left.cut()
    assert first is not None
    left.ended(first, 1, run_ms=0.001, result_bytes=1)
    chunks = all_of(left)
    assert {count for _, count in chunks} == {1}
    assert len(chunks) == IN_FLIGHT_BYTES_MAX // len(item) + 1


def test_what_is_stopped_gives_nothing_more_whatever_comes_back() -> None:
    left = ranges(20)
    left.ended(cut(left), 1, run_ms=0.001, result_bytes=1)
    chunk, other = cut(left), cut(left)
    left.stop()
    left.ended(chunk, 3)
    assert not left.is_over
    left.lost(other, 1, 1)
    assert left.is_over
    assert left.cut() is None


@pytest.mark.parametrize("seed", range(30))
def test_every_item_ends_once(seed: int) -> None:
    chance = Random(seed)
    count = chance.randint(1, 200)
    left, ended = ranges(count), [0] * count
    flying: list[Cut] = []
    for _ in range(10_000):
        if left.is_over:
            break
        given = left.cut()
        if given is not None:
            flying.append(given)
            if chance.random() < 0.5:
                continue
        one = flying.pop(chance.randrange(len(flying)))
        done = chance.randint(1, one.count)
        if one.deaths < 3 and chance.random() < 0.1:
            before = chance.randrange(one.count)
            left.lost(one, before, 1)
            done = before
        else:
            left.ended(one, done, run_ms=0.01, result_bytes=done)
        for index in range(one.first, one.first + done):
            ended[index] += 1
    assert ended == [1] * count


@pytest.mark.parametrize("run_ms", [0.0, float("nan")])
def test_what_tells_no_time_changes_nothing_or_little(run_ms: float) -> None:
    left = ranges(100)
    left.ended(cut(left), 1, run_ms=run_ms, result_bytes=1)
    assert cut(left).count in (1, 16)
