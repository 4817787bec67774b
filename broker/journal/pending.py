"""What is logged, and not in the store yet: that it can be taken in, and which runs it is of. Pure.

What is logged is acknowledged, so nobody can be told any more that it can't be kept: it is looked
at before, as the store will. And a question about one of its runs is answered only after the store
has taken it in; all others are answered out of the store as it is.

Mirror: tests/broker/journal/test_pending.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from .errors import HistoryError
from .fold import RunState, advance
from .messages import (
    Entry,
    FindKey,
    FindRun,
    ListKeys,
    Question,
    ReadEvents,
    ReadHistory,
    ReadValue,
    Void,
)
from .record import WITH_VALUE, Accepted, WithValue

Key = tuple[str, str]
"""Owner and idempotency key."""


class Pending:
    """Runs, and their keys, of which something is logged since the store's last commit."""

    def __init__(self) -> None:
        self._runs: dict[int, RunState] = {}  # run -> its state, with what is logged
        self._keys: set[Key] = set()  # of these runs

    def follow(
        self,
        first: int,
        entries: Sequence[Entry],
        open_runs: Mapping[int, RunState],
        has_key: Callable[[Key], bool],
    ) -> dict[int, RunState] | None:
        """Return what the next records make of their runs; changes nothing.

        Args:
            first: Number of the first of them.
            entries: The records, with the buffers of their values.
            open_runs: Those that are open in the store.
            has_key: Whether the store has a run of a key.

        Returns:
            `None` if they don't follow from what is known here: they may all the same, if one opens
            a run again that has ended, or stands for nothing.
        """
        states: dict[int, RunState] = {}
        claimed: set[Key] = set()
        for sequence, (record, buffers) in enumerate(entries, first):
            if isinstance(record, Void):
                return None
            run = record.run
            before = states.get(run) or self._runs.get(run) or open_runs.get(run)
            try:
                states[run] = advance(before, sequence, record)
            except HistoryError:
                return None
            if type(record) in WITH_VALUE:
                of = cast(WithValue, record)
                if of.apart or of.buffers != len(buffers):
                    return None
            elif buffers:
                return None
            if type(record) is Accepted and record.key is not None:
                key = record.owner, record.key
                if key in claimed or key in self._keys or has_key(key):
                    return None
                claimed.add(key)
        return states

    def add(self, states: Mapping[int, RunState]) -> None:
        """Add what was logged, as `follow` has returned it."""
        self._runs.update(states)
        self._keys.update(
            (state.owner, state.key) for state in states.values() if state.key is not None
        )

    def concerns(self, question: Question) -> bool:
        """Whether the answer to a question may depend on what the store does not have."""
        match question:
            case FindKey(_, owner, key):
                return (owner, key) in self._keys
            case FindRun() | ReadEvents() | ReadValue() | ReadHistory():
                return question.run in self._runs
            case ListKeys():  # who asks has added those itself
                return False
            case _:
                return bool(self._runs)

    def clear(self) -> None:
        """Forget all: the store has it."""
        self._runs.clear()
        self._keys.clear()
