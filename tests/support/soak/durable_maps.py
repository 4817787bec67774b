"""Recorded maps among what is asked for while all that keeps them is killed; see durable.py.

M1  An item that was told, or whose range is kept, is not begun again.
M2  A result that was told is the one that is kept, and the same whenever it is told.
M3  A map that is done has each item once, in the order of the items.
M4  A map has one run, which ends once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from random import Random
from time import monotonic_ns
from typing import Any, Final, Literal

import msgspec

from pronghorn.broker.journal.fold import RunState
from pronghorn.broker.journal.reading import read_backwards, value_of
from pronghorn.broker.journal.record import Accepted, Ended, Reopened, Started, TaskDone
from pronghorn.broker.journal.store import View
from pronghorn.client import (
    CancelledError,
    Client,
    InterruptedRunError,
    PronghornError,
    RunHandle,
    WorkerLostError,
)

from .durable_nodes import item_line

_ITEMS: Final = (1, 20, 200, 1000)  # at most, of a map
_MS: Final = (0.0, 0.0, 0.0, 1.0, 5.0)
_ENDINGS: Final = (CancelledError, InterruptedRunError, WorkerLostError)

Ending = Literal["read", "begun", "left", "cancelled"]


class ToldMap(msgspec.Struct, kw_only=True):
    """What a client was told of a map.

    Attributes:
        token: Of the map.
        count: Of its items.
        run_ids: Ids that were told.
        results: Index of an item -> what was told of it, each time.
        told_ns: Index of an item -> when it was told first, on the monotonic clock.
        ends: Names of errors that tell of an end before all items had ended.
        is_whole: Whether all items were told at once.
    """

    token: str
    count: int
    run_ids: set[str] = msgspec.field(default_factory=set)
    results: dict[int, set[str]] = msgspec.field(default_factory=dict)
    told_ns: dict[int, int] = msgspec.field(default_factory=dict)
    ends: set[str] = msgspec.field(default_factory=set)
    is_whole: bool = False

    def read(self, run: RunHandle[Any], limit: int | None = None) -> None:
        """Read results, all or so many, in order.

        Raises:
            PronghornError: It is not known what became of the rest.
        """
        index = -1
        try:
            results = run.items(return_exceptions=True)
            for index, result in enumerate(islice(results, limit)):
                self._note(index, result)
            self.is_whole |= limit is None and index + 1 == self.count
        except _ENDINGS as error:
            self.ends.add(type(error).__name__)

    def _note(self, index: int, result: Any) -> None:
        told = type(result).__name__ if isinstance(result, PronghornError) else result
        self.results.setdefault(index, set()).add(told)
        self.told_ns.setdefault(index, monotonic_ns())


class KeptMap(msgspec.Struct):
    """What the journal has of a map.

    Attributes:
        state: Of its run.
        run_id: Its id.
        results: Index of an item -> what is kept of it, each time.
        attempts: Index of an item -> attempt in which it was kept.
        ends: How many ends are kept.
    """

    state: RunState
    run_id: str
    results: dict[int, list[str]] = msgspec.field(default_factory=dict)
    attempts: dict[int, int] = msgspec.field(default_factory=dict)
    ends: int = 0

    @classmethod
    def of(cls, view: View, state: RunState, run_id: str) -> "KeptMap":
        """Read it."""
        kept = cls(state, run_id)
        attempt = 0
        for _, record, _ in reversed(list(read_backwards(view, state))):
            match record:
                case Accepted() | Reopened():
                    attempt += 1
                case Started():
                    attempt = record.attempt
                case TaskDone():
                    kept._take(view, record, attempt)
                case Ended():
                    kept.ends += 1
        return kept

    def _take(self, view: View, record: TaskDone, attempt: int) -> None:
        values = msgspec.msgpack.decode(value_of(view, record).content)
        failed = {one.index: one.code for one in record.failures or ()}
        assert len(values) == record.count, "a range has a value for each of its items"
        for offset, value in enumerate(values):
            index = record.first + offset
            told = _NAMES.get(failed[offset], failed[offset]) if offset in failed else value
            self.results.setdefault(index, []).append(told)
            self.attempts[index] = attempt


_NAMES: Final = {one.code: one.__name__ for one in _ENDINGS}


class Begun(msgspec.Struct, frozen=True):
    """An item that has begun: in which attempt and when, on the monotonic clock."""

    attempt: int
    at_ns: int


def ask(client: Client, told: ToldMap, random: Random, stopped: Callable[[], bool]) -> None:
    """Start a map, with a key until it is sure that it is there, and read some of it.

    Raises:
        PronghornError: It is not known what became of it.
    """
    items = [
        {"token": told.token, "index": index, "ms": random.choice(_MS)}
        for index in range(told.count)
    ]
    key = told.token if random.random() < 0.5 else None
    level: Literal["sync", "batched"] = random.choice(("sync", "batched"))
    while not stopped():
        try:
            run = client.start_map("act_item", items, durability=level, key=key)
        except PronghornError:
            if key is None:
                raise
            continue
        told.run_ids.add(run.id)
        break
    else:
        return
    what: Ending = random.choice(("read", "begun", "left", "left", "cancelled"))
    if what == "cancelled":
        run.cancel()
    elif what != "left":
        with suppress(StopIteration):
            told.read(run, None if what == "read" else random.randrange(told.count))


def new(token: str, random: Random) -> ToldMap:
    """Choose a map."""
    return ToldMap(token=token, count=1 + random.randrange(random.choice(_ITEMS)))


def read_effects(lines: Sequence[str]) -> dict[tuple[str, int], list[Begun]]:
    """Sort what nodes have noted: token and index -> each time that the item has begun."""
    begun: dict[tuple[str, int], list[Begun]] = {}
    for line in lines:
        token, index, attempt, at_ns = line.split()
        begun.setdefault((token, int(index)), []).append(Begun(int(attempt), int(at_ns)))
    return begun


def violations(
    told: ToldMap, kept: Sequence[KeptMap], begun: dict[tuple[str, int], list[Begun]]
) -> Iterator[str]:
    """Say what is wrong with one map."""
    ids = {one.run_id for one in kept}
    if len(kept) > 1:
        yield f"M4: it has {len(kept)} runs: {ids}"
    if not told.run_ids <= ids:
        yield f"M4: {told.run_ids - ids} was told and is not kept"
    if told.is_whole and told.ends:
        yield f"M4: it was told whole, and that it ended by {told.ends}"
    for one in kept:
        yield from _violations_of(told, one, begun)
    if not kept and told.results:
        yield "M2: results were told, and it is not kept"


def _violations_of(
    told: ToldMap, kept: KeptMap, begun: dict[tuple[str, int], list[Begun]]
) -> Iterator[str]:
    if kept.ends != 1:
        yield f"M4: run {kept.run_id} is {kept.state.status} and has {kept.ends} ends"
    if kept.state.status == "done" and sorted(kept.results) != list(range(told.count)):
        yield f"M3: it is done, and of {told.count} items {len(kept.results)} are kept"
    if told.is_whole and kept.state.status != "done":
        yield f"M4: it was told whole, and is {kept.state.status}"
    for index, results in kept.results.items():
        times = begun.get((told.token, index), [])
        if len(results) != 1:
            yield f"M3: item {index} is kept {len(results)} times"
        elif results[0] not in _NAMES.values():
            if not results[0].startswith(f"{item_line(told.token, index)} "):
                yield f"M3: item {index} is kept as {results[0]}"
            if not times:
                yield f"M3: item {index} is kept and has never begun"
        late = [one for one in times if one.attempt > kept.attempts[index]]
        if late:
            yield f"M1: item {index}, kept in attempt {kept.attempts[index]}, began in {late}"
    for index, at_ns in told.told_ns.items():
        if told.results[index] != set(kept.results.get(index, ())):
            yield f"M2: {told.results[index]} told, {kept.results.get(index)} kept of item {index}"
        late = [one for one in begun.get((told.token, index), []) if one.at_ns > at_ns]
        if late:
            yield f"M1: item {index} was told, and has begun after that: {late}"
