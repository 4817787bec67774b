"""What clients ask of runs: start one, or call with a key; its status, result, events, end. Pure.

Each such request is an accepted one with one terminal reply, under a ticket as long as it waits
(`Lifecycle.asked`); who stops waiting does not stop the run. Runs that are open are known here
(runs.py), the others are looked for in the journal. Until all open runs were taken up from that, at
the start of a broker, everything waits: so a key finds the run that it had before.

Mirror: tests/broker/test_run_calls.py.
"""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from .conducted import Conducted
from .events import JournalAnswered
from .inquiries import Inquiries, MissingError, Steps, UnaskedError
from .journal.fold import RunState
from .journal.messages import (
    Answer,
    FindKey,
    FindRun,
    FoundEvents,
    FoundKeys,
    FoundOpen,
    FoundRun,
    FoundValue,
    ListKeys,
    ListOpen,
    Question,
    ReadEvents,
    ReadValue,
)
from .journal.record import Accepted, Ended, generation_of
from .journal.rows import format_run_id, key_hash, parse_run_id
from .key_filter import KeyFilter
from .lifecycle import Lifecycle
from .map_results import EVENTS_MAX, MapResults
from .recorder import Ending, Step, not_kept
from .requests import Request, Run
from .run_replies import event_of, info_of, reply_value
from .runs import RUNS_MAX, Runs, Wanted
from .verdicts import ENDING, RETRY_AFTER_MS, Overload
from .wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    JournalError,
    NotFoundError,
    Outcome,
    OverloadedError,
    PermissionDeniedError,
    PronghornError,
    error_from_wire,
)
from .wire.limits import Bounds
from .wire.link import CODEC_JSON, CODEC_MSGPACK
from .wire.messages import Result
from .wire.runs import (
    AskEvents,
    AskItems,
    AskResult,
    AskStatus,
    CancelRun,
    OfRun,
    RetryRun,
    RunEvents,
    RunInfo,
    RunItems,
    decode_of_run,
)

TAKEN_UP_AT_ONCE: Final = 250
"""Open runs of one answer of the journal: some milliseconds in which the broker serves nobody."""

KEYS_AT_ONCE: Final = 250
"""Keys of one answer of the journal: half a millisecond, likewise."""

_TICKETS_LOOKED_AT: Final = 64  # each time so many wait for a run, those go that do no more

Asks = Wanted | OfRun


class RunCalls:
    """The requests about runs, and the taking up of those that were open."""

    def __init__(self, life: Lifecycle, bounds: Bounds) -> None:
        self._life = life
        self._bounds = bounds
        self._asked = life.asked
        self._recorder = life.recorder
        self._inquiries = Inquiries()
        self.runs = Runs(life, self._inquiries)
        self._results = MapResults(self.runs.by_number.__contains__)
        self.conducted = Conducted(life, self.runs, self._inquiries)
        self._has_taken_up = False  # whether all runs that were open are here
        self._is_taking_up = False
        self._held: list[tuple[int, Asks]] = []  # until then: tickets, and what they ask
        # owner and key -> who waits until the journal has said whether there is such a run
        self._lookups: dict[tuple[str, str], list[tuple[int, Wanted]]] = {}
        self._unsought: list[Callable[[], Steps]] = []  # what is to be asked of the next journal
        self._keys: KeyFilter | None = None  # from the first request with a key on
        self._keys_through = b""  # the last of the journal's keys that is in it
        self._is_learning_keys = False
        self._is_ending = False
        life.recorder.on_run_ended = self._on_attempt_ended

    def take_in(self, request: Request, asks: Asks, now: float) -> None:
        """Take in a request that was accepted and is open under its ticket."""
        if self._has_taken_up:
            self._ask(request.ticket, asks, now)
            self._settle(now)
        else:
            self._held.append((request.ticket, asks))

    # --- events ---------------------------------------------------------------------------------

    def on_welcomed(self, steps: Sequence[Step], now: float) -> None:
        """Take in that there is a journal, and which steps of runs it has kept."""
        self._inquiries.on_welcomed()
        if self._keys is not None and not (self._keys.is_complete or self._is_learning_keys):
            self._inquiries.begin(self._learn_keys(self._keys), now)
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
                self._fail(ticket, _no_journal_for(asks, reason))
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
        self._is_ending = True
        self.runs.end_all()
        waiting = [ticket for ticket, _ in self._held]
        for run in self.runs.by_number.values():
            if run.request is None and run.end is None:
                waiting += run.waiting
            waiting += run.watchers
        self._held = []
        for ticket in waiting:
            self._fail(ticket, OverloadedError(ENDING, ErrorDetails(outcome="maybe_executed")))

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
                accepted = yield from self._read_acceptance(state)
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
                self._fail(ticket, missing)
        elif state.status == "open":
            self.runs.take_again(run, state, accepted, now)
            for ticket in _all_of(run.waiting) if self._is_ending else ():
                self._tell_result(ticket, run)
        else:
            self.runs.forget(run)
            for ticket in (*run.starters, *run.enders):
                self._tell(ticket, info_of(state, accepted.secret))
            for ticket in run.waiting:
                self._inquiries.begin(self._give_result(ticket, state), now)
            for ticket in run.watchers:
                self._ask_again(ticket, now)

    def _seek_call(self, number: int) -> Steps:
        """End a call whose caller was told, if the journal has its acceptance and not its end."""
        try:
            found, _ = yield FindRun(0, number, self._recorder.secret_of(number))
            assert isinstance(found, FoundRun)
            if found.state is not None and found.state.status == "open":
                accepted = yield from self._read_acceptance(found.state)
                self.runs.take_up(found.state, accepted, self._inquiries.now)
        except UnaskedError:
            self._unsought.append(partial(self._seek_call, number))
        except JournalError:  # it is damaged
            pass

    # --- what is asked --------------------------------------------------------------------------

    def _ask(self, ticket: int, asks: Asks, now: float) -> None:
        """Answer a request, or have it wait for what it needs."""
        request = self._asked.get(ticket)
        if request is None:  # it was given up
            return
        if isinstance(asks, Wanted):
            self._start(ticket, asks, now)
            return
        try:
            number, secret = parse_run_id(asks.id)
        except ValueError as error:
            self._fail(ticket, InvalidArgumentError(f"{request.node.name}: {error}"))
            return
        run = self.runs.find(number, secret)
        if run is None:
            self._inquiries.begin(self._look_at(ticket, asks, number, secret), now)
        elif run.accepted.owner != request.session.owner:
            self._fail(ticket, _not_yours(asks.id))
        else:
            self._ask_open(ticket, asks, run, now)

    def _ask_open(self, ticket: int, asks: OfRun, run: Run, now: float) -> None:
        """Answer what is asked of a run whose end is not kept."""
        match asks:
            case AskStatus():
                self._tell_accepted(ticket, run)
            case AskResult():
                self._tell_result(ticket, run)
            case CancelRun():
                _wait(run.enders, ticket, self._asked)
                if run.end is None:
                    self.runs.cancel(run, now)
            case AskEvents():
                if run.is_accepted:
                    self._inquiries.begin(self._read_events(ticket, asks, run.number), now)
                else:
                    _wait(run.watchers, ticket, self._asked)
            case AskItems():
                if run.is_accepted:
                    self._inquiries.begin(self._read_items(ticket, asks, run.state), now)
                else:
                    _wait(run.watchers, ticket, self._asked)
            case RetryRun():
                if run.end is None and not run.is_sought:
                    self._fail(ticket, InvalidArgumentError(f"run {asks.id} is open"))
                else:
                    _wait(run.watchers, ticket, self._asked)

    def _look_at(self, ticket: int, asks: OfRun, number: int, secret: bytes) -> Steps:
        """Answer what is asked of a run that is not here."""
        try:
            found, _ = yield FindRun(0, number, secret)
            assert isinstance(found, FoundRun)
            state, request = found.state, self._asked.get(ticket)
            if request is None:
                return
            if state is None:
                raise no_run(asks.id)
            if state.owner != request.session.owner:
                raise _not_yours(asks.id)
            run = self.runs.by_number.get(number)
            if run is not None:  # it was opened again meanwhile
                self._ask_open(ticket, asks, run, self._inquiries.now)
                return
            match asks:
                case AskStatus() | CancelRun():
                    self._tell(ticket, info_of(state, secret))
                case AskResult():
                    yield from self._read_result(ticket, state)
                case AskEvents():
                    yield from self._read_events(ticket, asks, number)
                case AskItems():
                    yield from self._read_items(ticket, asks, state)
                case RetryRun():
                    yield from self._reopen(ticket, asks, state)
        except MissingError:  # it was removed between two questions
            self._fail(ticket, no_run(asks.id))
        except PronghornError as error:
            self._fail(ticket, error)

    def _read_result(self, ticket: int, state: RunState) -> Steps:
        """Tell how a run has ended that is not here."""
        found, buffers = yield ReadEvents(0, state.run, state.last, 1)
        assert isinstance(found, FoundEvents)
        ended = found.events[-1][1]
        assert isinstance(ended, Ended)
        if state.items is not None and ended.failure is None:
            ended = replace(ended, value=(yield from self._results.whole(state)))
        elif ended.apart:
            value, buffers = yield ReadValue(0, state.run, 0)
            assert isinstance(value, FoundValue)
            ended = replace(ended, value=value.value)
        self._tell_end(ticket, ended, buffers, state.node)

    def _read_events(self, ticket: int, asks: AskEvents, number: int) -> Steps:
        """Tell what has happened to a run, or have it told when there is something."""
        while True:
            before = self.runs.by_number.get(number)
            last = None if before is None else before.state.last
            try:
                found, _ = yield ReadEvents(0, number, max(0, asks.from_seq), EVENTS_MAX)
            except MissingError:
                self._fail(ticket, no_run(asks.id))
                return
            except JournalError as error:
                self._fail(ticket, error)
                return
            assert isinstance(found, FoundEvents)
            run = self.runs.by_number.get(number)
            if run is None or not asks.wait or found.events or self._is_ending:
                break
            # What was written while the journal was asked did not know that somebody waits for it.
            newer = run.state.last
            if newer == last or self._recorder.await_step(run, newer):
                _wait(run.watchers, ticket, self._asked)
                return
        events = tuple(event_of(sequence, record) for sequence, record in found.events)
        self._tell(ticket, RunEvents(events, run is None and len(events) < EVENTS_MAX))

    def _read_items(self, ticket: int, asks: AskItems, state: RunState) -> Steps:
        """Give results of a map's items, or have them given when there are some."""
        if state.items is None:
            self._fail(ticket, InvalidArgumentError(f"run {asks.id} is a call, and has no items"))
            return
        try:
            parts, ended = yield from self._results.parts(state.run, max(0, asks.from_seq))
            run = self.runs.by_number.get(state.run)
            if run is not None and asks.wait and not parts and not self._is_ending:
                _wait(run.watchers, ticket, self._asked)
                return
            if self._is_json(ticket):
                parts = tuple(
                    replace(part, values=_as_json(part.values, state.node)) for part in parts
                )
        except MissingError:
            self._fail(ticket, no_run(asks.id))
            return
        except PronghornError as error:
            self._fail(ticket, error)
            return
        self._tell(ticket, RunItems(parts, state.items, ended))

    def _is_json(self, ticket: int) -> bool:
        """Whether who waits with a ticket, if anybody, speaks JSON."""
        request = self._asked.get(ticket)
        origin = None if request is None else request.origin
        return origin is not None and origin.codec == CODEC_JSON

    def _reopen(self, ticket: int, asks: RetryRun, state: RunState) -> Steps:
        """Have a run tried again that has ended without a result."""
        if state.status == "done":
            raise InvalidArgumentError(f"run {asks.id} is done: it is not tried again")
        if self._is_ending:
            raise OverloadedError(ENDING, ErrorDetails(outcome="not_started"))
        if state.node not in self._life.catalog.by_name:
            raise self._life.catalog.not_found(state.node)
        accepted = yield from self._read_acceptance(state)
        run = self.runs.by_number.get(state.run)
        if run is None:  # else another request was quicker
            run = self.runs.reopen(state, accepted, self._inquiries.now)
        self._tell_accepted(ticket, run)

    @staticmethod
    def _read_acceptance(
        state: RunState,
    ) -> Generator[Question, tuple[Answer, Sequence[bytes]], Accepted]:
        """Return the first record of a run."""
        found, _ = yield ReadEvents(0, state.run, 0, 1)
        assert isinstance(found, FoundEvents)
        accepted = found.events[0][1]
        assert isinstance(accepted, Accepted)
        return accepted

    # --- runs are started -----------------------------------------------------------------------

    def _start(self, ticket: int, wanted: Wanted, now: float) -> None:
        """Start a run, or find the one of its key."""
        if wanted.key is None:
            self._accept(ticket, wanted, now)
            return
        name = wanted.owner, wanted.key
        run = self.runs.by_key.get(name)
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
                accepted = yield from self._read_acceptance(state)
        except MissingError:  # it was removed between two questions
            state = None
        except JournalError as error:
            for ticket, _ in self._lookups.pop((owner, key)):
                self._fail(ticket, error)
            return
        for ticket, wanted in self._lookups.pop((owner, key)):
            run = self.runs.by_key.get((owner, key))
            if run is not None:
                self._join(ticket, wanted, run)
            elif state is None or accepted is None:
                self._accept(ticket, wanted, self._inquiries.now, key_hash(owner, key))
            elif not wanted.is_of(accepted, ()):
                self._fail(ticket, _other_run(wanted, accepted))
            elif wanted.for_result:
                self._inquiries.begin(self._give_result(ticket, state), self._inquiries.now)
            else:
                self._tell(ticket, info_of(state, accepted.secret))

    def _give_result(self, ticket: int, state: RunState) -> Steps:
        try:
            yield from self._read_result(ticket, state)
        except PronghornError as error:
            self._fail(ticket, error)

    def _accept(self, ticket: int, wanted: Wanted, now: float, hashed: bytes | None = None) -> None:
        """Accept a run that there was not before, if somebody still waits for it.

        `hashed` is its key, if it has one.
        """
        if ticket not in self._asked:
            return
        error = self._refusal(wanted)
        if error is not None:
            self._fail(ticket, error)
            return
        if hashed is not None:
            assert self._keys is not None, "it was looked for there"
            self._keys.add(hashed)
        self._attend(ticket, wanted, self.runs.accept(wanted, now))

    def _refusal(self, wanted: Wanted) -> PronghornError | None:
        """Return why no other run can be accepted, `None` if one can."""
        name = wanted.node.name
        if self._is_ending:
            details = ErrorDetails(outcome="not_started", retryable=True, node=name)
            return OverloadedError(f"{name}: {ENDING}", details)
        if len(self.runs.by_number) >= RUNS_MAX:
            limit, unit = RUNS_MAX, "runs"
        elif self.runs.bytes + wanted.size > self._bounds.queue_bytes:
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
            self._fail(ticket, _other_run(wanted, run.accepted))
        else:
            self._attend(ticket, wanted, run)

    def _attend(self, ticket: int, wanted: Wanted, run: Run) -> None:
        """Tell of a run that is the wanted one what is asked of it, now or when it is so far."""
        if wanted.for_result:
            self._tell_result(ticket, run)
        else:
            self._tell_accepted(ticket, run)

    # --- replies --------------------------------------------------------------------------------

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
            self._tell_absent(run, self._recorder.absent)
        if run.starters and run.is_accepted:
            for ticket in _all_of(run.starters):
                self._tell_accepted(ticket, run)
        if run.waiting and run.is_told:
            for ticket in _all_of(run.waiting):
                self._tell_result(ticket, run)
        if run.enders and run.number not in self.runs.by_number:
            for ticket in _all_of(run.enders):
                self._tell(ticket, info_of(run.state, run.accepted.secret))
        if run.watchers:
            for ticket in _all_of(run.watchers):
                self._ask_again(ticket, now)

    def _tell_absent(self, run: Run, absent: str) -> None:
        """Tell who waits for what can't be kept, because there is no journal."""
        if not run.is_accepted:
            why = f"the run begins when its acceptance is kept, which it can't be: {absent}"
            for ticket in _all_of(run.starters):
                self._fail(ticket, JournalError(why, ErrorDetails(outcome="maybe_executed")))
        if not run.is_told and (run.end is not None or not run.is_accepted):
            outcome: Outcome = "maybe_executed" if run.end is None else "executed"
            for ticket in [*_all_of(run.waiting), *_all_of(run.enders)]:
                details = ErrorDetails(outcome=outcome, node=run.accepted.node)
                error = JournalError(f"{run.accepted.node}: {not_kept(absent)}", details)
                self._fail(ticket, error)

    def _ask_again(self, ticket: int, now: float) -> None:
        """Answer a request once more that asks something of a run, unless it was given up."""
        request = self._asked.get(ticket)
        if request is not None:
            as_json = self._is_json(ticket)
            asks = decode_of_run(request.node.name, request.params, as_json=as_json)
            self._ask(ticket, asks, now)

    def _tell_accepted(self, ticket: int, run: Run) -> None:
        """Tell of a run whose acceptance is kept, now or when it is."""
        if run.is_accepted:
            self._tell(ticket, info_of(run.state, run.accepted.secret))
        else:
            _wait(run.starters, ticket, self._asked)

    def _tell_result(self, ticket: int, run: Run) -> None:
        """Tell how a run has ended, now or when it has."""
        if run.is_told:
            assert run.end is not None
            if run.is_map:  # its results are where its end is
                self._inquiries.begin(self._give_result(ticket, run.state), self._inquiries.now)
                return
            self._tell_end(ticket, run.end, run.end_buffers, run.accepted.node)
        elif self._is_ending and run.request is None and run.end is None:
            self._fail(ticket, OverloadedError(ENDING, ErrorDetails(outcome="maybe_executed")))
        else:
            _wait(run.waiting, ticket, self._asked)

    def _tell_end(self, ticket: int, ended: Ended, buffers: Sequence[bytes], node: str) -> None:
        """Give the result of a run, or what it has failed with."""
        request = self._asked.get(ticket)
        if request is None:
            return
        if ended.failure is not None:
            code, message, details = (
                ended.failure.code,
                ended.failure.message,
                ended.failure.details,
            )
            self._fail(ticket, error_from_wire(code, message, details))
            return
        as_json = self._is_json(ticket)
        try:
            value, buffers = reply_value(
                ended.value, buffers, codec=ended.codec, as_json=as_json, node=node
            )
        except PronghornError as error:
            self._fail(ticket, error)
            return
        self._finish(ticket, value, buffers)

    def _tell(self, ticket: int, told: RunInfo | RunEvents | RunItems) -> None:
        if ticket in self._asked:
            encode = msgspec.json.encode if self._is_json(ticket) else msgspec.msgpack.encode
            self._finish(ticket, Raw(encode(told)), ())

    def _finish(self, ticket: int, value: Raw, buffers: Sequence[bytes]) -> None:
        request = self._asked.pop(ticket)
        self._life.count.completed += 1
        self._life.finish(request, Result(request.id, value, len(buffers)), buffers)

    def _fail(self, ticket: int, error: PronghornError) -> None:
        request = self._asked.pop(ticket, None)
        if request is not None:
            self._life.fail(request, error)


def _wait(tickets: list[int], ticket: int, asked: dict[int, Request]) -> None:
    """Have a ticket wait among others, of which those go that nobody waits with any more."""
    if len(tickets) % _TICKETS_LOOKED_AT == _TICKETS_LOOKED_AT - 1:
        tickets[:] = [one for one in tickets if one in asked]
    tickets.append(ticket)


def _all_of(tickets: list[int]) -> list[int]:
    """Take all tickets out of a list."""
    taken = tickets.copy()
    tickets.clear()
    return taken


def _as_json(values: Raw, node: str) -> Raw:
    return reply_value(values, (), codec=CODEC_MSGPACK, as_json=True, node=node)[0]


def _no_journal_for(asks: Asks, reason: str) -> JournalError:
    """Make the error for what has waited for a journal, and there is none."""
    if isinstance(asks, Wanted):
        name = asks.node.name
        details = ErrorDetails(outcome="not_started", node=name)
        return JournalError(f"{name} can't be recorded: {reason}", details)
    return JournalError(f"the journal can't be asked: {reason}")


def no_run(id_: str) -> NotFoundError:
    """Make the error for a run that the journal does not have."""
    return NotFoundError(f"there is no run {id_}, or it is kept no longer")


def _not_yours(id_: str) -> PermissionDeniedError:
    return PermissionDeniedError(f"run {id_} is another client's")


def _other_run(wanted: Wanted, accepted: Accepted) -> InvalidArgumentError:
    """Make the error for a key that has a run of another node, or with other params."""
    differs = "with other params, or in another language"
    if accepted.node != wanted.node.name:
        differs = f"of another node, {accepted.node}"
    details = ErrorDetails(outcome="not_started", node=wanted.node.name)
    return InvalidArgumentError(
        f"{wanted.node.name}: the key {wanted.key!r} has a run already, {differs}", details
    )
