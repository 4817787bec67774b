"""Tells who waits with a ticket what there is to be told of a run, now or when it is so far. Pure.

Each request about a run has a ticket as long as nobody has answered it (`Lifecycle.asked`); a run
has lists of those that wait for something of it. A ticket that is open no more, for whoever had it
has given up, is told nothing.

Mirror: tests/broker/test_run_tickets.py.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from .inquiries import Inquiries, Steps
from .journal.fold import RunState
from .journal.messages import FoundEvents, FoundValue, ReadEvents, ReadValue
from .journal.record import Ended
from .lifecycle import Lifecycle
from .map_results import MapResults
from .recorder import not_kept
from .requests import Request, Run
from .run_replies import info_of, reply_value
from .runs import Runs
from .verdicts import ENDING
from .wire.errors import (
    ErrorDetails,
    JournalError,
    Outcome,
    OverloadedError,
    PronghornError,
    error_from_wire,
)
from .wire.link import CODEC_JSON
from .wire.messages import Result
from .wire.runs import RunEvents, RunInfo, RunItems

_TICKETS_LOOKED_AT: Final = 64  # each time so many wait for a run, those go that do no more


class RunTickets:
    """Whoever has asked something of a run, and is to be told."""

    def __init__(
        self, life: Lifecycle, runs: Runs, inquiries: Inquiries, results: MapResults
    ) -> None:
        self._life = life
        self._asked = life.asked
        self._runs = runs
        self._inquiries = inquiries
        self._results = results

    def tell_accepted(self, ticket: int, run: Run) -> None:
        """Tell of a run whose acceptance is kept, now or when it is."""
        if run.is_accepted:
            self.tell(ticket, info_of(run.state, run.accepted.secret))
        else:
            wait(run.starters, ticket, self._asked)

    def tell_result(self, ticket: int, run: Run) -> None:
        """Tell how a run has ended, now or when it has."""
        if run.is_told:
            assert run.end is not None
            if run.is_map:  # its results are where its end is
                self._inquiries.begin(self.give_result(ticket, run.state), self._inquiries.now)
                return
            self._tell_end(ticket, run.end, run.end_buffers, run.accepted.node)
        elif self._runs.is_ending and run.request is None and run.end is None:
            self.fail(ticket, OverloadedError(ENDING, ErrorDetails(outcome="maybe_executed")))
        else:
            wait(run.waiting, ticket, self._asked)

    def give_result(self, ticket: int, state: RunState) -> Steps:
        """Tell how a run has ended that is not here, or why that can't be told."""
        try:
            yield from self.read_result(ticket, state)
        except PronghornError as error:
            self.fail(ticket, error)

    def read_result(self, ticket: int, state: RunState) -> Steps:
        """Tell how a run has ended that is not here.

        Raises:
            PronghornError: It can't be read, or has more results than can be told at once.
        """
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

    def tell_absent(self, run: Run, absent: str) -> None:
        """Tell who waits for what can't be kept, because there is no journal."""
        if not run.is_accepted:
            why = f"the run begins when its acceptance is kept, which it can't be: {absent}"
            for ticket in all_of(run.starters):
                self.fail(ticket, JournalError(why, ErrorDetails(outcome="maybe_executed")))
        if not run.is_told and (run.end is not None or not run.is_accepted):
            outcome: Outcome = "maybe_executed" if run.end is None else "executed"
            for ticket in [*all_of(run.waiting), *all_of(run.enders)]:
                details = ErrorDetails(outcome=outcome, node=run.accepted.node)
                error = JournalError(f"{run.accepted.node}: {not_kept(absent)}", details)
                self.fail(ticket, error)

    def tell(self, ticket: int, told: RunInfo | RunEvents | RunItems) -> None:
        """Answer what was asked, in the language of who did."""
        if ticket in self._asked:
            encode = msgspec.json.encode if self.is_json(ticket) else msgspec.msgpack.encode
            self._finish(ticket, Raw(encode(told)), ())

    def fail(self, ticket: int, error: PronghornError) -> None:
        """Answer that what was asked can't be had."""
        request = self._asked.pop(ticket, None)
        if request is not None:
            self._life.fail(request, error)

    def is_json(self, ticket: int) -> bool:
        """Whether who waits with a ticket, if anybody, speaks JSON."""
        request = self._asked.get(ticket)
        origin = None if request is None else request.origin
        return origin is not None and origin.codec == CODEC_JSON

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
            self.fail(ticket, error_from_wire(code, message, details))
            return
        as_json = self.is_json(ticket)
        try:
            value, buffers = reply_value(
                ended.value, buffers, codec=ended.codec, as_json=as_json, node=node
            )
        except PronghornError as error:
            self.fail(ticket, error)
            return
        self._finish(ticket, value, buffers)

    def _finish(self, ticket: int, value: Raw, buffers: Sequence[bytes]) -> None:
        request = self._asked.pop(ticket)
        self._life.count.completed += 1
        self._life.finish(request, Result(request.id, value, len(buffers)), buffers)


def wait(tickets: list[int], ticket: int, asked: dict[int, Request]) -> None:
    """Have a ticket wait among others, of which those go that nobody waits with any more."""
    if len(tickets) % _TICKETS_LOOKED_AT == _TICKETS_LOOKED_AT - 1:
        tickets[:] = [one for one in tickets if one in asked]
    tickets.append(ticket)


def all_of(tickets: list[int]) -> list[int]:
    """Take all tickets out of a list."""
    taken = tickets.copy()
    tickets.clear()
    return taken
