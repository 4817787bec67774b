"""Starts runs, each only once for a key: whose key has a run already gets that one. Pure.

Whether the journal has a run of a key it is asked the first time; meanwhile the keys are learnt
that it has (key_filter.py), and one that is certainly new is not looked up any more.

Mirror: tests/broker/test_run_starts.py.
"""

from typing import Final

from .inquiries import Inquiries, MissingError, Steps, read_acceptance
from .journal.messages import FindKey, FoundKeys, FoundRun, ListKeys
from .journal.record import Accepted
from .journal.rows import key_hash
from .key_filter import KeyFilter
from .lifecycle import Lifecycle
from .requests import Run
from .run_replies import info_of
from .run_tickets import RunTickets
from .runs import RUNS_MAX, Runs, Wanted
from .verdicts import ENDING, RETRY_AFTER_MS, Overload
from .wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    JournalError,
    OverloadedError,
    PronghornError,
)
from .wire.limits import Bounds

KEYS_AT_ONCE: Final = 250
"""Keys of one answer of the journal: half a millisecond in which the broker serves nobody."""


class RunStarts:
    """The requests that start a run, and the keys that runs have."""

    def __init__(
        self,
        life: Lifecycle,
        bounds: Bounds,
        runs: Runs,
        inquiries: Inquiries,
        tickets: RunTickets,
    ) -> None:
        self._bounds = bounds
        self._asked = life.asked
        self._runs = runs
        self._inquiries = inquiries
        self._tickets = tickets
        # owner and key -> who waits until the journal has said whether there is such a run
        self._lookups: dict[tuple[str, str], list[tuple[int, Wanted]]] = {}
        self._keys: KeyFilter | None = None  # from the first request with a key on
        self._keys_through = b""  # the last of the journal's keys that is in it
        self._is_learning_keys = False

    def on_welcomed(self, now: float) -> None:
        """Take in that there is a journal: what keys it has is learnt on where that was left."""
        if self._keys is not None and not (self._keys.is_complete or self._is_learning_keys):
            self._inquiries.begin(self._learn_keys(self._keys), now)

    def start(self, ticket: int, wanted: Wanted, now: float) -> None:
        """Start a run, or find the one of its key."""
        if wanted.key is None:
            self._accept(ticket, wanted, now)
            return
        name = wanted.owner, wanted.key
        run = self._runs.by_key.get(name)
        if run is not None:
            self._join(ticket, wanted, run)
        elif self._keys is not None and self._keys.is_new(hashed := key_hash(*name)):
            self._accept(ticket, wanted, now, hashed)
        elif name in self._lookups:
            self._lookups[name].append((ticket, wanted))
        else:
            self._lookups[name] = [(ticket, wanted)]
            self._inquiries.begin(self._look_up(*name), now)
            if self._keys is None:
                self._keys = KeyFilter()
                self._inquiries.begin(self._learn_keys(self._keys), now)

    def _learn_keys(self, keys: KeyFilter) -> Steps:
        """Learn which keys the journal has, a few at a time; those of new runs are added anyway."""
        self._is_learning_keys = True
        while not keys.is_complete:
            try:
                found, _ = yield ListKeys(0, self._keys_through, KEYS_AT_ONCE)
            except JournalError:  # it goes on with the next journal
                self._is_learning_keys = False
                return
            assert isinstance(found, FoundKeys)
            for hashed in found.hashes:
                keys.add(hashed)
                self._keys_through = hashed
            keys.is_complete = len(found.hashes) < KEYS_AT_ONCE

    def _look_up(self, owner: str, key: str) -> Steps:
        """Find out whether a key has a run already, and go on with those that gave it."""
        state = accepted = None
        try:
            found, _ = yield FindKey(0, owner, key)
            assert isinstance(found, FoundRun)
            state = found.state
            if state is not None:
                accepted = yield from read_acceptance(state)
        except MissingError:  # it was removed between two questions
            state = None
        except JournalError as error:
            for ticket, _ in self._lookups.pop((owner, key)):
                self._tickets.fail(ticket, error)
            return
        for ticket, wanted in self._lookups.pop((owner, key)):
            run = self._runs.by_key.get((owner, key))
            if run is not None:
                self._join(ticket, wanted, run)
            elif state is None or accepted is None:
                self._accept(ticket, wanted, self._inquiries.now, key_hash(owner, key))
            elif not wanted.is_of(accepted, ()):
                self._tickets.fail(ticket, _other_run(wanted, accepted))
            elif wanted.for_result:
                self._inquiries.begin(self._tickets.give_result(ticket, state), self._inquiries.now)
            else:
                self._tickets.tell(ticket, info_of(state, accepted.secret))

    def _accept(self, ticket: int, wanted: Wanted, now: float, hashed: bytes | None = None) -> None:
        """Accept a run that there was not before, if somebody still waits for it.

        `hashed` is its key, if it has one.
        """
        if ticket not in self._asked:
            return
        error = self._refusal(wanted)
        if error is not None:
            self._tickets.fail(ticket, error)
            return
        if hashed is not None:
            assert self._keys is not None, "it was looked for there"
            self._keys.add(hashed)
        self._attend(ticket, wanted, self._runs.accept(wanted, now))

    def _refusal(self, wanted: Wanted) -> PronghornError | None:
        """Return why no other run can be accepted, `None` if one can."""
        name = wanted.node.name
        if self._runs.is_ending:
            details = ErrorDetails(outcome="not_started", retryable=True, node=name)
            return OverloadedError(f"{name}: {ENDING}", details)
        if len(self._runs.by_number) >= RUNS_MAX:
            limit, unit = RUNS_MAX, "runs"
        elif self._runs.bytes + wanted.size > self._bounds.queue_bytes:
            limit, unit = self._bounds.queue_bytes, "bytes of runs"
        else:
            return None
        details = ErrorDetails(
            outcome="not_started",
            retryable=True,
            retry_after_ms=RETRY_AFTER_MS,
            limit=limit,
            node=name,
        )
        return Overload("runs", f"{name}: {limit} {unit} are open, the limit", details)

    def _join(self, ticket: int, wanted: Wanted, run: Run) -> None:
        """Have a request wait for a run that is here."""
        if not wanted.is_of(run.accepted, run.buffers):
            self._tickets.fail(ticket, _other_run(wanted, run.accepted))
        else:
            self._attend(ticket, wanted, run)

    def _attend(self, ticket: int, wanted: Wanted, run: Run) -> None:
        """Tell of a run that is the wanted one what is asked of it, now or when it is so far."""
        if wanted.for_result:
            self._tickets.tell_result(ticket, run)
        else:
            self._tickets.tell_accepted(ticket, run)


def _other_run(wanted: Wanted, accepted: Accepted) -> InvalidArgumentError:
    """Make the error for a key that has a run of another node, or with other params."""
    differs = "with other params, or in another language"
    if accepted.node != wanted.node.name:
        differs = f"of another node, {accepted.node}"
    details = ErrorDetails(outcome="not_started", node=wanted.node.name)
    return InvalidArgumentError(
        f"{wanted.node.name}: the key {wanted.key!r} has a run already, {differs}", details
    )
