"""Which runs have records that are logged, and not in the store yet. Pure.

A question about one of these is answered only after the store has taken them in; all others are
answered out of the store as it is.

Mirror: tests/broker/journal/test_pending.py.
"""

from collections.abc import Iterable, Mapping

from .fold import RunState
from .messages import FindKey, FindRun, ListKeys, Question, ReadEvents, ReadHistory, ReadValue
from .record import Accepted, Record


class Pending:
    """Runs, and their keys, of which something is logged since the store's last commit."""

    def __init__(self) -> None:
        self._runs: set[int] = set()
        self._keys: set[tuple[str, str]] = set()  # owner and key
        self._is_any_key = False  # whether the key of one of them is not known

    def add(self, records: Iterable[Record], open_runs: Mapping[int, RunState]) -> None:
        """Add what was logged; `open_runs` are those that are open in the store."""
        for record in records:
            run = record.run
            if run in self._runs:
                continue
            self._runs.add(run)
            of_run = record if isinstance(record, Accepted) else open_runs.get(run)
            if of_run is None:  # it has ended, and is opened again
                self._is_any_key = True
            elif of_run.key is not None:
                self._keys.add((of_run.owner, of_run.key))

    def concerns(self, question: Question) -> bool:
        """Whether the answer to a question may depend on what the store does not have."""
        match question:
            case FindKey(_, owner, key):
                return self._is_any_key or (owner, key) in self._keys
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
        self._is_any_key = False
