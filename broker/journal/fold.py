"""From the records of a run to its state, and from its state to what is done after a crash. Pure.

::

       Started, AttemptLost, TaskDone, Advanced
                     ┌────┐
    Accepted ──► open ◄───┘ ── Ended ──► done | failed | cancelled | interrupted | poisoned
                   ▲                                      │
                   └────────────── Reopened ──────────────┘   (not from done)

`advance` is the only way that a state comes about: the writer keeps what it returns beside the
records, and whoever checks a store folds the records again and compares. Rules:

- A record names the run's record before it, so a record that is missing is noticed by the next.
- What an attempt brings must carry the token of the run's latest attempt. So what a worker that was
  given up does later counts for nothing.
- The ranges of a map's items do not overlap, and a map is done when they cover it.
- What a run of a workflow has got done is not done again, so its attempts count from there.

Mirror: tests/broker/journal/test_fold.py.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec.structs import replace

from .errors import HistoryError
from .record import (
    Accepted,
    Advanced,
    AttemptLost,
    Ended,
    EndStatus,
    KeptDurability,
    Record,
    Reopened,
    Started,
    Status,
    TaskDone,
)

DEATHS_MAX: Final = 3
"""Workers that one run may take with it before it is parked: as a node is put into quarantine."""

Range = tuple[int, int]
"""First item, number of items."""


class RunState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is known of a run; its values are in the records.

    Attributes:
        run: Its number.
        last: Sequence number of its last record.
        records: How many it has.
        status: Whether it is open, or how it ended.
        node: Full name of the node.
        owner: Whose it is.
        accepted_at_ns: When it was accepted, nanoseconds since 1970.
        ended_at_ns: When it ended, 0 while it is open.
        durability: What its caller asked for.
        key: Idempotency key.
        at_most_once: Whether it must not be begun a second time.
        attempts_max: The attempt from which on no other follows.
        attempt: Number of its latest attempt, from 1.
        token: Token of that attempt.
        begun: Whether a record tells of its beginning. Until one does it may have begun all the
            same, unless the run is `at_most_once`.
        deaths: Workers that died of it since it was accepted or reopened, or has got further.
        items: Number of items of a map, `None` for a call.
        ranges: Ranges of items that are done, in order, joined where they meet.
        code: Code of the failure that it ended with, "" where there is none.
        run_ns: Run time of the node in the attempt that ended it.
        moved_in: The last attempt that has got a run of a workflow further; `attempts_max` counts
            from it.
    """

    run: int
    last: int
    records: int
    status: Status
    node: str
    owner: str
    accepted_at_ns: int
    ended_at_ns: int
    durability: KeptDurability
    key: str | None
    at_most_once: bool
    attempts_max: int
    attempt: int
    token: int
    begun: bool
    deaths: int
    items: int | None
    ranges: tuple[Range, ...]
    code: str
    run_ns: int
    moved_in: int = 0

    @property
    def last_attempt(self) -> int:
        """The attempt from which on no other follows, as things stand."""
        return self.moved_in + self.attempts_max

    @property
    def missing(self) -> tuple[Range, ...]:
        """Ranges of a map's items that are not done, in order."""
        found: list[Range] = []
        position = 0
        for first, count in (*self.ranges, (self.items or 0, 0)):
            if first > position:
                found.append((position, first - position))
            position = first + count
        return tuple(found)


class Resume(msgspec.Struct, frozen=True):
    """The run is to be begun, as that attempt; of a map only what is `missing`."""

    attempt: int


class End(msgspec.Struct, frozen=True):
    """The run is to be ended so, without being begun again."""

    status: EndStatus
    reason: str


def advance(state: RunState | None, sequence: int, record: Record) -> RunState:
    """Return what a run's state is after its next record.

    Args:
        state: What it was, `None` before its first record.
        sequence: The record's number.
        record: The record.

    Raises:
        HistoryError: The record can't be the run's next one; nothing is changed.
    """
    if isinstance(record, Accepted):
        return _accept(state, sequence, record)
    if state is None:
        raise HistoryError(f"record {sequence} is of run {record.run}, which was never accepted")
    if record.run != state.run or record.previous != state.last or sequence <= state.last:
        raise HistoryError(
            f"record {sequence} of run {record.run} follows {record.previous}, "
            f"but the last known of run {state.run} is {state.last}"
        )
    if isinstance(record, Reopened):
        changed = _reopen(state, sequence)
    elif state.status != "open":
        raise HistoryError(f"record {sequence}: run {state.run} has ended, {state.status}")
    elif isinstance(record, Ended):
        return _end(state, sequence, record)
    elif isinstance(record, Started):
        changed = _start(state, sequence, record)
    elif isinstance(record, AttemptLost):
        _check_token(state, sequence, record.token)
        changed = replace(state, begun=True, deaths=state.deaths + 1)
    elif isinstance(record, Advanced):
        _check_token(state, sequence, record.token)
        changed = replace(state, begun=True)
        if record.moved:
            changed = replace(changed, deaths=0, moved_in=state.attempt)
    else:
        _check_token(state, sequence, record.token)
        changed = state if record.task else replace(state, ranges=_joined(state, sequence, record))
    return replace(changed, last=sequence, records=state.records + 1)


def ended_at_once(sequence: int, accepted: Accepted, ended: Ended) -> RunState:
    """Return the state of a run after its first two records: as by `advance`, in a third of a time.

    So are all calls without a key recorded.

    Args:
        sequence: Number of the first; the other has the next one.
        accepted: The first.
        ended: The other.

    Raises:
        HistoryError: They can't be these.
    """
    run = accepted.run
    if (
        run != sequence
        or ended.run != run
        or ended.previous != run
        or ended.token != run
        or accepted.previous
        or accepted.items is not None
    ):
        return advance(advance(None, sequence, accepted), sequence + 1, ended)
    failure = ended.failure
    return RunState(
        run,
        run + 1,
        2,
        ended.status,
        accepted.node,
        accepted.owner,
        accepted.at_ns,
        ended.at_ns,
        accepted.durability,
        accepted.key,
        accepted.at_most_once,
        accepted.attempts_max,
        1,
        run,
        False,
        0,
        None,
        (),
        failure.code if failure else "",
        ended.run_ns,
    )


def fold(records: Iterable[tuple[int, Record]]) -> dict[int, RunState]:
    """Fold records in the order of their sequence numbers: run -> its state.

    Raises:
        HistoryError: One does not follow from those before it.
    """
    runs: dict[int, RunState] = {}
    for sequence, record in records:
        runs[record.run] = advance(runs.get(record.run), sequence, record)
    return runs


def recover(state: RunState) -> Resume | End:
    """Say what is to be done with an open run after a crash, or after the death of its worker."""
    assert state.status == "open"
    if state.at_most_once and state.begun:
        return End("interrupted", f"{state.node} may have run, and must not run twice")
    if state.deaths >= DEATHS_MAX:
        return End("poisoned", f"{state.deaths} workers died running {state.node} for it")
    may_have_run = state.begun or not state.at_most_once
    if may_have_run and state.attempt >= state.last_attempt:
        return End("interrupted", f"attempt {state.attempt} of {state.node} was the last one")
    return Resume(state.attempt + 1 if may_have_run else state.attempt)


def _accept(state: RunState | None, sequence: int, record: Accepted) -> RunState:
    if state is not None or record.run != sequence or record.previous:
        raise HistoryError(f"record {sequence} accepts run {record.run}, not itself")
    return RunState(  # by position: that takes half as long
        sequence,  # run
        sequence,  # last
        1,  # records
        "open",
        record.node,
        record.owner,
        record.at_ns,
        0,  # ended_at_ns
        record.durability,
        record.key,
        record.at_most_once,
        record.attempts_max,
        1,  # attempt
        sequence,  # token
        False,  # begun
        0,  # deaths
        record.items,
        (),  # ranges
        "",  # code
        0,  # run_ns
    )


def _start(state: RunState, sequence: int, record: Started) -> RunState:
    first = record.attempt == state.attempt and not state.begun
    if not first and record.attempt != state.attempt + 1:
        raise HistoryError(
            f"record {sequence} begins attempt {record.attempt} of run {state.run}, "
            f"whose latest is {state.attempt}"
        )
    return replace(state, attempt=record.attempt, token=sequence, begun=True)


def _end(state: RunState, sequence: int, record: Ended) -> RunState:
    if record.token or record.status == "done":
        _check_token(state, sequence, record.token)
    if record.status == "done" and state.items and state.missing:
        raise HistoryError(f"record {sequence}: items {state.missing} of run {state.run} are open")
    return RunState(  # by position, as above
        state.run,
        sequence,
        state.records + 1,
        record.status,
        state.node,
        state.owner,
        state.accepted_at_ns,
        record.at_ns,
        state.durability,
        state.key,
        state.at_most_once,
        state.attempts_max,
        state.attempt,
        state.token,
        state.begun,
        state.deaths,
        state.items,
        state.ranges,
        record.failure.code if record.failure else "",
        record.run_ns,
        state.moved_in,
    )


def _reopen(state: RunState, sequence: int) -> RunState:
    if state.status in ("open", "done"):
        raise HistoryError(f"record {sequence}: run {state.run} is {state.status}, not reopened")
    return replace(
        state,
        status="open",
        ended_at_ns=0,
        code="",
        run_ns=0,
        deaths=0,
        # Another attempt, with a token of its own; and as many in all as at first.
        attempt=state.attempt + 1,
        token=sequence,
        begun=False,
        attempts_max=state.attempt + state.attempts_max,
        moved_in=0,
    )


def _check_token(state: RunState, sequence: int, token: int) -> None:
    if token != state.token:
        raise HistoryError(
            f"record {sequence} is of attempt {token} of run {state.run}, "
            f"whose latest is {state.token}"
        )


def _joined(state: RunState, sequence: int, record: TaskDone) -> tuple[Range, ...]:
    """Add a range of items to those that are done."""
    if not any(
        first <= record.first and record.first + record.count <= first + count
        for first, count in state.missing
    ):
        raise HistoryError(
            f"record {sequence}: items {record.first} to {record.first + record.count - 1} "
            f"of run {state.run} are done already, or are none of its own"
        )
    joined: list[Range] = []
    for first, count in sorted((*state.ranges, (record.first, record.count))):
        if joined and sum(joined[-1]) == first:
            joined[-1] = (joined[-1][0], joined[-1][1] + count)
        else:
            joined.append((first, count))
    return tuple(joined)
