"""Answers what is asked of a run: its status, result, events, items; to end it, to retry it. Pure.

Of a run that is here much is known, and the rest is read from the journal; of all others everything
is. What there is not yet has whoever asks wait among those of the run (run_tickets.py).

Mirror: tests/broker/test_run_answers.py.
"""

from msgspec import Raw
from msgspec.structs import replace

from .inquiries import Inquiries, MissingError, Steps, read_acceptance
from .journal.fold import RunState
from .journal.messages import FindRun, FoundEvents, FoundRun, ReadEvents
from .lifecycle import Lifecycle
from .map_results import EVENTS_MAX, MapResults
from .requests import Run
from .run_replies import event_of, info_of, reply_value
from .run_tickets import RunTickets, wait
from .runs import Runs
from .verdicts import ENDING
from .wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PronghornError,
)
from .wire.link import CODEC_MSGPACK
from .wire.runs import (
    AskEvents,
    AskItems,
    AskResult,
    AskStatus,
    CancelRun,
    OfRun,
    RetryRun,
    RunEvents,
    RunItems,
)


class RunAnswers:
    """The requests that ask something of a run that there is, or was."""

    def __init__(
        self,
        life: Lifecycle,
        runs: Runs,
        inquiries: Inquiries,
        results: MapResults,
        tickets: RunTickets,
    ) -> None:
        self._asked = life.asked
        self._catalog = life.catalog
        self._recorder = life.recorder
        self._runs = runs
        self._inquiries = inquiries
        self._results = results
        self._tickets = tickets

    def answer_open(self, ticket: int, asks: OfRun, run: Run, now: float) -> None:
        """Answer what is asked of a run whose end is not kept."""
        match asks:
            case AskStatus():
                self._tickets.tell_accepted(ticket, run)
            case AskResult():
                self._tickets.tell_result(ticket, run)
            case CancelRun():
                wait(run.enders, ticket, self._asked)
                if run.end is None:
                    self._runs.cancel(run, now)
            case AskEvents():
                if run.is_accepted:
                    steps = self._read_events(ticket, asks, run.number)
                    self._inquiries.begin(self._answering(ticket, asks, steps), now)
                else:
                    wait(run.watchers, ticket, self._asked)
            case AskItems():
                if run.is_accepted:
                    steps = self._read_items(ticket, asks, run.state)
                    self._inquiries.begin(self._answering(ticket, asks, steps), now)
                else:
                    wait(run.watchers, ticket, self._asked)
            case RetryRun():
                if run.end is None and not run.is_sought:
                    self._tickets.fail(ticket, InvalidArgumentError(f"run {asks.id} is open"))
                else:
                    wait(run.watchers, ticket, self._asked)

    def look_at(self, ticket: int, asks: OfRun, number: int, secret: bytes) -> Steps:
        """Answer what is asked of a run that is not here."""
        return self._answering(ticket, asks, self._look_at(ticket, asks, number, secret))

    def _answering(self, ticket: int, asks: OfRun, steps: Steps) -> Steps:
        """Take steps to an answer, which is the error if one is raised there."""
        try:
            yield from steps
        except MissingError:  # it was removed, maybe between two questions
            self._tickets.fail(ticket, no_run(asks.id))
        except PronghornError as error:
            self._tickets.fail(ticket, error)

    def _look_at(self, ticket: int, asks: OfRun, number: int, secret: bytes) -> Steps:
        found, _ = yield FindRun(0, number, secret)
        assert isinstance(found, FoundRun)
        state, request = found.state, self._asked.get(ticket)
        if request is None:
            return
        if state is None:
            raise no_run(asks.id)
        if state.owner != request.session.owner:
            raise not_yours(asks.id)
        run = self._runs.by_number.get(number)
        if run is not None:  # it was opened again meanwhile
            self.answer_open(ticket, asks, run, self._inquiries.now)
            return
        match asks:
            case AskStatus() | CancelRun():
                self._tickets.tell(ticket, info_of(state, secret))
            case AskResult():
                yield from self._tickets.read_result(ticket, state)
            case AskEvents():
                yield from self._read_events(ticket, asks, number)
            case AskItems():
                yield from self._read_items(ticket, asks, state)
            case RetryRun():
                yield from self._reopen(ticket, asks, state)

    def _read_events(self, ticket: int, asks: AskEvents, number: int) -> Steps:
        """Tell what has happened to a run, or have it told when there is something."""
        while True:
            before = self._runs.by_number.get(number)
            last = None if before is None else before.state.last
            found, _ = yield ReadEvents(0, number, max(0, asks.from_seq), EVENTS_MAX)
            assert isinstance(found, FoundEvents)
            run = self._runs.by_number.get(number)
            if run is None or not asks.wait or found.events or self._runs.is_ending:
                break
            # What was written while the journal was asked did not know that somebody waits for it.
            newer = run.state.last
            if newer == last or self._recorder.await_step(run, newer):
                wait(run.watchers, ticket, self._asked)
                return
        events = tuple(event_of(sequence, record) for sequence, record in found.events)
        self._tickets.tell(ticket, RunEvents(events, run is None and len(events) < EVENTS_MAX))

    def _read_items(self, ticket: int, asks: AskItems, state: RunState) -> Steps:
        """Give results of a map's items, or have them given when there are some."""
        if state.items is None:
            raise InvalidArgumentError(f"run {asks.id} is a call, and has no items")
        parts, ended = yield from self._results.parts(state.run, max(0, asks.from_seq))
        run = self._runs.by_number.get(state.run)
        if run is not None and asks.wait and not parts and not self._runs.is_ending:
            wait(run.watchers, ticket, self._asked)
            return
        if self._tickets.is_json(ticket):
            parts = tuple(replace(part, values=_as_json(part.values, state.node)) for part in parts)
        self._tickets.tell(ticket, RunItems(parts, state.items, ended))

    def _reopen(self, ticket: int, asks: RetryRun, state: RunState) -> Steps:
        """Have a run tried again that has ended without a result."""
        if state.status == "done":
            raise InvalidArgumentError(f"run {asks.id} is done: it is not tried again")
        if self._runs.is_ending:
            raise OverloadedError(ENDING, ErrorDetails(outcome="not_started"))
        if state.node not in self._catalog.by_name:
            raise self._catalog.not_found(state.node)
        accepted = yield from read_acceptance(state)
        run = self._runs.by_number.get(state.run)
        if run is None:  # else another request was quicker
            run = self._runs.reopen(state, accepted, self._inquiries.now)
        self._tickets.tell_accepted(ticket, run)


def no_run(id_: str) -> NotFoundError:
    """Make the error for a run that the journal does not have."""
    return NotFoundError(f"there is no run {id_}, or it is kept no longer")


def not_yours(id_: str) -> PermissionDeniedError:
    """Make the error for a run that another client has started."""
    return PermissionDeniedError(f"run {id_} is another client's")


def _as_json(values: Raw, node: str) -> Raw:
    return reply_value(values, (), codec=CODEC_MSGPACK, as_json=True, node=node)[0]
