"""Reads the results of maps from the journal: range by range, or all of them as one list. Pure.

Who reads all that a long map has left asks again and again, and the journal finds the records of a
run from the last one backwards; so what it has found and was not told at once is kept for the next
question.

Mirror: tests/broker/test_map_results.py.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from .journal.fold import RunState
from .journal.messages import Answer, FoundEvents, FoundValue, Question, ReadEvents, ReadValue
from .journal.record import Record, TaskDone
from .wire.codec import array_body
from .wire.errors import ErrorDetails, PronghornError, UnimplementedError, error_from_wire
from .wire.limits import MIB
from .wire.messages import ItemFailure, array_start
from .wire.runs import RunPart

EVENTS_MAX: Final = 1000  # of one question
PARTS_BYTES_MAX: Final = MIB
"""Results of one answer; the last range may go beyond."""

RESULT_BYTES_MAX: Final = 16 * MIB
"""Largest list of all results."""

_PAGES_MAX: Final = 16

Reading = Generator[Question, tuple[Answer, Sequence[bytes]], tuple[tuple[RunPart, ...], bool]]
ReadingAll = Generator[Question, tuple[Answer, Sequence[bytes]], Raw]
Events = Sequence[tuple[int, Record]]


class MapResults:
    """What was read and is not told yet.

    Args:
        is_open: Whether more may happen to the run of a number.
    """

    def __init__(self, is_open: Callable[[int], bool]) -> None:
        self._is_open = is_open
        # run and number of the next event -> events from it on, and whether these are the last
        self._pages: dict[tuple[int, int], tuple[Events, bool]] = {}

    def parts(self, run: int, start: int) -> Reading:
        """Give some ranges from a number on, and whether there are no more as things stand.

        Raises:
            JournalError: They can't be read.
        """
        while True:
            events, is_last = self._pages.pop((run, start), ((), False))
            if not events:
                events, is_last = yield from self._read(run, start)
            parts: list[RunPart] = []
            size = 0
            for index, (sequence, record) in enumerate(events, 1):
                if isinstance(record, TaskDone):
                    values = yield from _values(run, sequence, record)
                    parts.append(
                        RunPart(
                            seq=sequence,
                            first=record.first,
                            values=values,
                            failures=record.failures or (),
                        )
                    )
                    size += len(values)
                if size >= PARTS_BYTES_MAX and index < len(events):
                    self._put_aside(run, sequence + 1, events[index:], is_last)
                    return tuple(parts), False
            if parts or len(events) < EVENTS_MAX:
                return tuple(parts), is_last
            start = events[-1][0] + 1

    def whole(self, state: RunState) -> ReadingAll:
        """Give the list of all results.

        Raises:
            PronghornError: That of the first item that has failed.
            UnimplementedError: They are too many bytes.
            JournalError: They can't be read.
        """
        found: list[tuple[int, bytes]] = []
        failed: list[tuple[int, ItemFailure]] = []
        start, size, is_last = 0, 0, False
        while not is_last:
            events, is_last = yield from self._read(state.run, start)
            for sequence, record in events:
                start = sequence + 1
                if not isinstance(record, TaskDone):
                    continue
                values = yield from _values(state.run, sequence, record)
                found.append((record.first, array_body(values)))
                failed += ((record.first + one.index, one) for one in record.failures or ())
                size += len(values)
                if size > RESULT_BYTES_MAX:
                    raise _too_large(state.node)
        if failed:
            raise _error_of(*min(failed, key=lambda one: one[0]))
        found.sort()
        assert state.items is not None
        return Raw(array_start(state.items) + b"".join(values for _, values in found))

    def _read(
        self, run: int, start: int
    ) -> Generator[Question, tuple[Answer, Sequence[bytes]], tuple[Events, bool]]:
        found, _ = yield ReadEvents(0, run, start, EVENTS_MAX)
        assert isinstance(found, FoundEvents)
        return found.events, len(found.events) < EVENTS_MAX and not self._is_open(run)

    def _put_aside(self, run: int, start: int, events: Events, is_last: bool) -> None:
        while len(self._pages) >= _PAGES_MAX:
            del self._pages[next(iter(self._pages))]
        self._pages[run, start] = events, is_last


def _values(
    run: int, sequence: int, record: TaskDone
) -> Generator[Question, tuple[Answer, Sequence[bytes]], Raw]:
    if not record.apart:
        return record.value
    found, _ = yield ReadValue(0, run, sequence)
    assert isinstance(found, FoundValue)
    return found.value


def _error_of(item: int, failure: ItemFailure) -> PronghornError:
    details = replace(failure.details, item=item)
    return error_from_wire(failure.code, failure.message, details)


def _too_large(node: str) -> UnimplementedError:
    details = ErrorDetails(outcome="executed", node=node, limit=RESULT_BYTES_MAX)
    why = f"the results have more than {RESULT_BYTES_MAX} bytes: ask for them range by range"
    return UnimplementedError(f"{node}: {why}", details)
