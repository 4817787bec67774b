"""Mirror of broker/map_results.py: what is asked of the journal, and what comes of its answers."""

from collections.abc import Generator
from typing import Any

import msgspec
import pytest
from kept_runs import KeptRuns
from msgspec import Raw

from pronghorn.broker import map_results
from pronghorn.broker.journal.messages import Question, ReadEvents, ReadValue
from pronghorn.broker.journal.record import Accepted, Ended, TaskDone
from pronghorn.broker.map_results import MapResults
from pronghorn.broker.wire.errors import ErrorDetails, NodeError, UnimplementedError
from pronghorn.broker.wire.messages import ItemFailure

RUN = 100
FAILURE = ItemFailure(1, "NODE_ERROR", "no", ErrorDetails(outcome="executed"))


def kept_map(
    ranges: list[list[Any]], *, failures: dict[int, ItemFailure] | None = None
) -> KeptRuns:
    """Have a map kept of which these ranges have ended, one after the other."""
    kept = KeptRuns()
    items = sum(map(len, ranges))
    kept.keep(RUN, Accepted(RUN, 0, bytes(16), "m.add", "me", 1, items=items))
    first = 0
    for number, values in enumerate(ranges, 1):
        raw = Raw(msgspec.msgpack.encode(values))
        failed = (failures or {}).get(number)
        record = TaskDone(
            RUN,
            RUN + number - 1,
            RUN,
            1,
            first=first,
            count=len(values),
            value=raw,
            failures=failed and (failed,),
        )
        kept.keep(RUN + number, record)
        first += len(values)
    kept.keep(RUN + len(ranges) + 1, Ended(RUN, RUN + len(ranges), RUN, 1, "done"))
    return kept


class Reader:
    """Answers what is asked, and notes it."""

    def __init__(self, kept: KeptRuns, *, is_open: bool = False) -> None:
        self.kept = kept
        self.results = MapResults(lambda run: is_open)
        self.asked: list[type[Question]] = []

    def read(self, steps: Generator[Any, Any, Any]) -> Any:
        try:
            question = next(steps)
            while True:
                self.asked.append(type(question))
                question = steps.send(self.kept.answer(question))
        except StopIteration as end:
            return end.value

    def parts(self, start: int = 0) -> Any:
        return self.read(self.results.parts(RUN, start))

    def whole(self) -> Any:
        return msgspec.msgpack.decode(self.read(self.results.whole(self.kept.states[RUN])))


def test_all_ranges_are_given_with_their_values() -> None:
    reader = Reader(kept_map([[1, 2], ["x" * 2000], [4]], failures={1: FAILURE}))
    parts, ended = reader.parts()
    assert ended
    assert [(one.seq, one.first, msgspec.msgpack.decode(one.values)) for one in parts] == [
        (RUN + 1, 0, [1, 2]),
        (RUN + 2, 2, ["x" * 2000]),
        (RUN + 3, 3, [4]),
    ]
    assert parts[0].failures == (FAILURE,)
    assert reader.asked == [ReadEvents, ReadValue]


def test_of_an_open_run_more_may_come() -> None:
    parts, ended = Reader(kept_map([[1]]), is_open=True).parts()
    assert (len(parts), ended) == (1, False)


def test_from_a_number_on_there_may_be_nothing() -> None:
    assert Reader(kept_map([[1]])).parts(RUN + 2) == ((), True)


def test_what_is_too_much_for_one_answer_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_results, "PARTS_BYTES_MAX", 10)
    reader = Reader(kept_map([[index] * 6 for index in range(5)]))
    found, start, ended = [], 0, False
    while not ended:
        parts, ended = reader.parts(start)
        assert len(parts) <= 2
        found += [one.first for one in parts]
        start = parts[-1].seq + 1 if parts else start
    assert found == [0, 6, 12, 18, 24]
    assert reader.asked == [ReadEvents]


def test_of_what_was_read_and_not_asked_for_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_results, "PARTS_BYTES_MAX", 1)
    reader = Reader(kept_map([[index] for index in range(40)]))
    for start in range(RUN, RUN + 30):
        reader.parts(start)
    assert len(reader.results._pages) <= 16


def test_pages_without_ranges_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_results, "EVENTS_MAX", 1)
    reader = Reader(kept_map([[1], [2]]))
    parts, ended = reader.parts()
    assert ([one.first for one in parts], ended) == ([0], False)
    assert reader.asked == [ReadEvents, ReadEvents]


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_the_whole_result_is_a_list(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_results, "EVENTS_MAX", page)
    ranges = [[0], list(range(1, 40)), ["y" * 3000], [41, 42]]
    assert Reader(kept_map(ranges)).whole() == [value for one in ranges for value in one]
    assert Reader(kept_map([])).whole() == []


def test_the_first_failure_is_raised() -> None:
    reader = Reader(kept_map([[1], [1, None], [None, None]], failures={2: FAILURE, 3: FAILURE}))
    with pytest.raises(NodeError, match="no") as raised:
        reader.whole()
    assert raised.value.details.item == 2


def test_what_is_too_large_as_a_whole_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_results, "RESULT_BYTES_MAX", 3)
    with pytest.raises(UnimplementedError, match="range by range"):
        Reader(kept_map([[1], [2], [3]])).whole()
