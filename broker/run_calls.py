"""What clients ask of runs: start one, or call with a key; its status, result, events, end. Pure.

Each such request is an accepted one with one terminal reply, under a ticket as long as it waits
(`Lifecycle.asked`); who stops waiting does not stop the run. Runs that are open are known here
(runs.py), the others are looked for in the journal. Until all open runs were taken up from that, at
the start of a broker, everything waits: so a key finds the run that it had before.

One way: what comes is handed to what starts runs (run_starts.py) or answers what is asked of one
(run_answers.py), and both tell who waits (run_tickets.py).

Mirror: tests/broker/test_run_calls.py.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from .conducted import Conducted
from .events import JournalAnswered
from .inquiries import Inquiries, MissingError, Steps, UnaskedError, read_acceptance
from .journal.messages import FindRun, FoundOpen, FoundRun, ListOpen
from .journal.record import generation_of
from .journal.rows import format_run_id, parse_run_id
from .lifecycle import Lifecycle
from .map_results import MapResults
from .recorder import Ending, Step
from .requests import Request, Run
from .run_answers import RunAnswers, no_run, not_yours
from .run_replies import info_of
from .run_starts import RunStarts
from .run_tickets import RunTickets, all_of
from .runs import Runs, Wanted
from .verdicts import ENDING
from .wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    JournalError,
    Outcome,
    OverloadedError,
    PronghornError,
)
from .wire.limits import Bounds
from .wire.runs import OfRun, decode_of_run

TAKEN_UP_AT_ONCE: Final = 250
"""Open runs of one answer of the journal: some milliseconds in which the broker serves nobody."""

Asks = Wanted | OfRun


class RunCalls:
    """The requests about runs, and the taking up of those that were open."""

    def __init__(self, life: Lifecycle, bounds: Bounds) -> None:
        self._life = life
        self._asked = life.asked
        self._recorder = life.recorder
        inquiries = self._inquiries = Inquiries()
        runs = self.runs = Runs(life, inquiries)
        self.conducted = Conducted(life, runs, inquiries)
        results = MapResults(runs.by_number.__contains__)
        tickets = self._tickets = RunTickets(life, runs, inquiries, results)
        self._answers = RunAnswers(life, runs, inquiries, results, tickets)
        self._starts = RunStarts(life, bounds, runs, inquiries, tickets)
        self._has_taken_up = False  # whether all runs that were open are here
        self._is_taking_up = False
        self._held: list[tuple[int, Asks]] = []  # until then: tickets, and what they ask
        self._unsought: list[Callable[[], Steps]] = []  # what is to be asked of the next journal
        life.recorder.on_run_ended = self._on_attempt_ended

    def take_in(self, request: Request, asks: Asks, now: float) -> None:
        """Take in a request that was accepted and is open under its ticket."""
        if self._has_taken_up:
            self._ask(request.ticket, asks, now)
            self._settle(now)
        else:
            self._held.append((request.ticket, asks))

    # --- events -----------------------------------------------------------------------------------

    def on_welcomed(self, steps: Sequence[Step], now: float) -> None:
        """Take in that there is a journal, and which steps of runs it has kept."""
        self._inquiries.on_welcomed()
        self._starts.on_welcomed(now)
        unsought, self._unsought = self._unsought, []
        for seek in unsought:
            self._inquiries.begin(seek(), now)
        if not (self._has_taken_up or self._is_taking_up):
            self._is_taking_up = True
            self._inquiries.begin(self._take_up(), now)
        self.on_kept(steps, now)

    def on_kept(self, steps: Sequence[Step], now: float) -> None:
        """Go on with runs of which something is kept."""
        for step in steps:
            self.conducted.on_kept(step.sequence)
            self.runs.on_kept(step, now)
        self.serve(now)

    def on_answered(self, event: JournalAnswered, now: float) -> None:
        """Take in an answer of the journal."""
        self._inquiries.on_answered(event, now)
        self.serve(now)

    def on_refused(self, number: int, why: str, now: float) -> None:
        """Take in that a record of a run was refused, and none of it is kept from that on."""
        run = self.runs.by_number.get(number)
        if run is None:
            self._inquiries.begin(self._seek_call(number), now)
        elif not run.is_sought:
            missing: PronghornError = no_run(format_run_id(number, run.accepted.secret))
            if not self._recorder.is_kept(number):
                outcome: Outcome = "maybe_executed" if run.at_once else "not_started"
                details = ErrorDetails(outcome=outcome, node=run.accepted.node)
                why = f"{run.accepted.node}: its acceptance can't be kept: {why}"
                missing = JournalError(why, details)
            self._inquiries.begin(self._seek(self.runs.cast_off(run, now), missing), now)
        self._settle(now)

    def give_up_questions(self, reason: str, now: float) -> None:
        """Tell who has asked the journal something that it does not answer."""
        self._inquiries.give_up(reason, now)
        self._settle(now)

    def on_gone(self, reason: str, now: float) -> None:
        """Take in that the journal is gone; with a reason, that nobody can wait for another."""
        self._inquiries.on_gone(reason, now)
        if reason:
            held, self._held = self._held, []
            for ticket, asks in held:
                self._tickets.fail(ticket, _no_journal_for(asks, reason))
            self.runs.news += self.runs.by_number.values()
        self._settle(now)

    def serve(self, now: float) -> None:
        """Begin what may begin: nodes are served, or there is room.

        All are taken up first, for that is quick, and new ones wait for it.
        """
        if self._has_taken_up:
            self.runs.serve(now)
        self._settle(now)

    def end(self, now: float) -> None:
        """Begin nothing more, for all is about to end; who waits for what has not begun is told."""
        self.runs.end_all()
        waiting = [ticket for ticket, _ in self._held]
        for run in self.runs.by_number.values():
            if run.request is None and run.end is None:
                waiting += run.waiting
            waiting += run.watchers
        self._held = []
        for ticket in waiting:
            self._tickets.fail(
                ticket, OverloadedError(ENDING, ErrorDetails(outcome="maybe_executed"))
            )

    def check_invariants(self) -> None:
        """Check what is known of runs; for tests."""
        self.runs.check_invariants()
        assert not self.runs.news
        assert not (self._held and self._has_taken_up)

    def _on_attempt_ended(
        self, request: Request, message: Ending, buffers: Sequence[bytes], now: float
    ) -> None:
        self.runs.on_attempt_ended(request, message, buffers, now)
        self._settle(now)

    def _take_up(self) -> Steps:
        """Take up all runs that are open in the journal, in the order of their acceptance."""
        after = 0
        while True:
            try:
                found, _ = yield ListOpen(0, after, TAKEN_UP_AT_ONCE)
            except JournalError:  # it is tried again with the next journal
                self._is_taking_up = False
                return
            assert isinstance(found, FoundOpen)
            own = self._recorder.generation
            for state, accepted in found.runs:
                after = state.run
                # Those of this epoch are calls whose end is just about to be kept.
                if generation_of(state.run) != own and state.run not in self.runs.by_number:
                    self.runs.take_up(state, accepted, self._inquiries.now)
            if len(found.runs) < TAKEN_UP_AT_ONCE:
                break
        self._is_taking_up, self._has_taken_up = False, True
        held, self._held = self._held, []
        for ticket, asks in held:
            self._ask(ticket, asks, self._inquiries.now)

    def _seek(self, run: Run, missing: PronghornError) -> Steps:
        """Find out what the journal has of a run, and go on from that."""
        state = accepted = None
        try:
            found, _ = yield FindRun(0, run.number, run.accepted.secret)
            assert isinstance(found, FoundRun)
            state = found.state
            if state is not None:
                accepted = yield from read_acceptance(state)
        except UnaskedError:
            self._unsought.append(partial(self._seek, run, missing))
            return
        except MissingError:
            pass
        except JournalError as error:  # it is damaged
            missing = error
        now = self._inquiries.now
        if state is None or accepted is None:
            self.runs.forget(run)
            for ticket in (*run.starters, *run.waiting, *run.enders, *run.watchers):
                self._tickets.fail(ticket, missing)
        elif state.status == "open":
            self.runs.take_again(run, state, accepted, now)
            for ticket in all_of(run.waiting) if self.runs.is_ending else ():
                self._tickets.tell_result(ticket, run)
        else:
            self.runs.forget(run)
            for ticket in (*run.starters, *run.enders):
                self._tickets.tell(ticket, info_of(state, accepted.secret))
            for ticket in run.waiting:
                self._inquiries.begin(self._tickets.give_result(ticket, state), now)
            for ticket in run.watchers:
                self._ask_again(ticket, now)

    def _seek_call(self, number: int) -> Steps:
        """End a call whose caller was told, if the journal has its acceptance and not its end."""
        try:
            found, _ = yield FindRun(0, number, self._recorder.secret_of(number))
            assert isinstance(found, FoundRun)
            if found.state is not None and found.state.status == "open":
                accepted = yield from read_acceptance(found.state)
                self.runs.take_up(found.state, accepted, self._inquiries.now)
        except UnaskedError:
            self._unsought.append(partial(self._seek_call, number))
        except JournalError:  # it is damaged
            pass

    # --- what is asked ----------------------------------------------------------------------------

    def _ask(self, ticket: int, asks: Asks, now: float) -> None:
        """Answer a request, or have it wait for what it needs."""
        request = self._asked.get(ticket)
        if request is None:  # it was given up
            return
        if isinstance(asks, Wanted):
            self._starts.start(ticket, asks, now)
            return
        try:
            number, secret = parse_run_id(asks.id)
        except ValueError as error:
            self._tickets.fail(ticket, InvalidArgumentError(f"{request.node.name}: {error}"))
            return
        run = self.runs.find(number, secret)
        if run is None:
            self._inquiries.begin(self._answers.look_at(ticket, asks, number, secret), now)
        elif run.accepted.owner != request.session.owner:
            self._tickets.fail(ticket, not_yours(asks.id))
        else:
            self._answers.answer_open(ticket, asks, run, now)

    def _ask_again(self, ticket: int, now: float) -> None:
        """Answer a request once more that asks something of a run, unless it was given up."""
        request = self._asked.get(ticket)
        if request is not None:
            as_json = self._tickets.is_json(ticket)
            asks = decode_of_run(request.node.name, request.params, as_json=as_json)
            self._ask(ticket, asks, now)

    # --- what is told -----------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Tell who waits what there is to be told, and have the journal asked."""
        runs = self.runs
        while runs.news:
            news, runs.news = runs.news, []
            for run in news:
                self._tell_news(run, now)
        if self._inquiries.commands:
            # Before the questions, so that what was answered by now is found.
            self._recorder.write_gathered()
            self._life.commands += self._recorder.take_written()
            self._life.commands += self._inquiries.commands
            self._inquiries.commands.clear()

    def _tell_news(self, run: Run, now: float) -> None:
        if self._recorder.absent:
            self._tickets.tell_absent(run, self._recorder.absent)
        if run.starters and run.is_accepted:
            for ticket in all_of(run.starters):
                self._tickets.tell_accepted(ticket, run)
        if run.waiting and run.is_told:
            for ticket in all_of(run.waiting):
                self._tickets.tell_result(ticket, run)
        if run.enders and run.number not in self.runs.by_number:
            for ticket in all_of(run.enders):
                self._tickets.tell(ticket, info_of(run.state, run.accepted.secret))
        if run.watchers:
            for ticket in all_of(run.watchers):
                self._ask_again(ticket, now)


def _no_journal_for(asks: Asks, reason: str) -> JournalError:
    """Make the error for what has waited for a journal, and there is none."""
    if isinstance(asks, Wanted):
        name = asks.node.name
        details = ErrorDetails(outcome="not_started", node=name)
        return JournalError(f"{name} can't be recorded: {reason}", details)
    return JournalError(f"the journal can't be asked: {reason}")
