"""Runs that are maps: their items go to the workers in chunks, whose results are recorded. Pure.

A map is one run: one acceptance, with the params of all items; a record for each range of items
that has ended; one end. So what has ended is never begun again, whatever dies, and what has not is
taken up with the run (runs.py).

M1. Every item has one result or failure when its run is done, in the record of one range.
M2. An item whose worker has died is tried again, alone, as often as its run may be begun; then, and
    at once if its node runs at most once, that is its failure, and the map goes on. So one item
    that takes workers with it keeps no others from their results.
M3. Chunks that are under way when a run is cancelled, or has nowhere to go on, end first.

Mirror: tests/broker/test_map_runs.py.
"""

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Raw
from msgspec.structs import replace

from .journal.backlog import Standing
from .journal.record import Ended, Record, TaskDone
from .lifecycle import Lifecycle
from .ranges import Cut, Ranges
from .recorder import Ending
from .requests import Keep, Node, Request, Run, Session, runs_alone
from .wire.codec import array_body, array_length
from .wire.errors import (
    CancelledError,
    InterruptedRunError,
    NotFoundError,
    PronghornError,
    WorkerLostError,
    error_from_wire,
)
from .wire.limits import PRIORITY_DEFAULT
from .wire.messages import NIL, Error, ItemFailure, MapResult, array_start

CANCELLED: Final = "the run was cancelled"


class Owner(Protocol):
    """Who has the runs: writes their records and ends them."""

    session: Session

    @property
    def is_ending(self) -> bool:
        """Whether nothing is begun any more."""

    def begins_at(self, run: Run, node: Node, deaths: int, now: float) -> float:
        """Tell when something of a run may begin of which so many workers have died."""

    def write(self, run: Run, record: Record, now: float) -> None:
        """Write a record of a run, and bring its state up to date."""

    def end(self, run: Run, ended: Ended, now: float) -> None:
        """Record the end of a run."""

    def fail(self, run: Run, error: PronghornError, now: float) -> None:
        """End a run nothing of which is under way with an error."""


class MapRuns:
    """What is under way of maps."""

    def __init__(
        self,
        life: Lifecycle,
        owner: Owner,
        admit: Callable[[Request, float, float], None],
    ) -> None:
        self._life = life
        self._owner = owner
        self._admit = admit  # has a request begin, not before some time
        self._keys = 0  # given out last

    def begin(self, run: Run, now: float) -> None:
        """Begin what is missing: all is kept that must be."""
        run.ranges = Ranges(run.accepted.value, run.state.missing)
        self.go_on(run, now)

    def go_on(self, run: Run, now: float) -> None:
        """Give workers what they may have now, or end the run if that was all."""
        assert run.ranges is not None
        node = self._life.catalog.by_name.get(run.accepted.node)
        if node is None and not run.ranges.is_over:
            self._stop(run, self._life.catalog.not_found(run.accepted.node), now)
        while node is not None and self._may_give(run, now) and (cut := run.ranges.cut()):
            self._give(run, node, cut, now)
        if run.ranges.is_over and run.end is None:
            self.conclude(run, now)

    def cancel(self, run: Run, now: float) -> None:
        """Cancel a run: when nothing of it is under way any more it ends."""
        self._stop(run, CancelledError(f"{run.accepted.node}: {CANCELLED}"), now)
        if run.ranges is None or (run.ranges.is_over and run.end is None):
            self.conclude(run, now)

    def on_chunk_ended(self, run: Run, request: Request, message: Ending, now: float) -> None:
        """Take in what has become of a chunk."""
        ranges = run.ranges
        assert ranges is not None
        _, cut = run.cuts.pop(request.key)
        if isinstance(message, MapResult):
            self._take_results(run, cut, message, now)
        elif isinstance(message, Error) and message.code == WorkerLostError.code:
            self._take_loss(run, cut, 0, cut.count, message, now)
        elif isinstance(message, Error) and (
            run.failure is not None or message.code == NotFoundError.code
        ):
            ranges.ended(cut, 0)  # it was given up, or its node is served no more
            error = error_from_wire(message.code, message.message, message.details)
            self._stop(run, run.failure or error, now)
        else:
            assert isinstance(message, Error), "chunks have map results"
            ranges.ended(cut, cut.count)
            failure = (message.code, message.message, message.details)
            failures = [ItemFailure(index, *failure) for index in range(cut.count)]
            nils = Raw(array_start(cut.count) + bytes(NIL) * cut.count)
            self._record(run, cut.first, cut.count, nils, failures, now)
        self.go_on(run, now)

    def conclude(self, run: Run, now: float) -> None:
        """End a run nothing of which is under way or is to follow."""
        state = run.state
        if state.missing:
            error = run.failure
            assert error is not None, "a map goes on until nothing is missing"
            error.details = replace(error.details, outcome="maybe_executed", node=run.accepted.node)
            self._owner.fail(run, error, now)
            return
        at_ns = self._life.recorder.wall_ns(now)
        ended = Ended(run.number, state.last, state.token, at_ns, "done", run.run_ns)
        self._owner.end(run, ended, now)

    # --- inside ---------------------------------------------------------------------------------

    def _may_give(self, run: Run, now: float) -> bool:
        """Whether more may be begun: what is not kept stays in memory, so not while that is much.

        Unless nothing is under way whose end or keeping would have the run go on later.
        """
        if self._owner.is_ending:
            return False
        recorder = self._life.recorder
        is_idle = not run.cuts and recorder.is_kept(run.state.last)
        return is_idle or recorder.standing(now) is Standing.OPEN

    def _give(self, run: Run, node: Node, cut: Cut, now: float) -> None:
        accepted, options = run.accepted, run.options
        self._keys += 1
        request = Request(
            (self._keys,),
            run.number,
            self._owner.session,
            node,
            True,
            runs_alone(node, chunk=True),
            cut.params,
            len(cut.params),
            (),
            None,
            True,
            None,
            now,
            priority=options.priority if options.priority is not None else PRIORITY_DEFAULT,
            affinity=options.affinity,
            keep=Keep(accepted.durability, NIL, (), run=run),
        )
        run.cuts[request.key] = request, cut
        self._admit(request, self._owner.begins_at(run, node, cut.deaths, now), now)

    def _take_results(self, run: Run, cut: Cut, reply: MapResult, now: float) -> None:
        assert run.ranges is not None
        count = array_length(reply.values)
        failures = list(reply.failures or ())
        run.run_ns += int(reply.run_ms * 1e6)
        if failures and failures[-1].code == WorkerLostError.code:
            lost = failures.pop()  # the item that its worker ran when it died: the last of these
            done = count - 1
            if done:
                kept = Raw(array_start(done) + array_body(reply.values)[: -len(NIL)])
                self._record(run, cut.first, done, kept, failures, now)
            self._take_loss(run, cut, done, 1, lost, now)
            return
        run.ranges.ended(cut, count, reply.run_ms, len(reply.values))
        self._record(run, cut.first, count, reply.values, failures, now)

    def _take_loss(
        self, run: Run, cut: Cut, before: int, count: int, why: Error | ItemFailure, now: float
    ) -> None:
        """Have items tried again whose worker has died, or let that be their failure (M2)."""
        assert run.ranges is not None
        accepted, details = run.accepted, why.details
        if not accepted.at_most_once and cut.deaths + 1 < accepted.attempts_max:
            run.ranges.lost(cut, before, count)
            return
        code, message = why.code, why.message
        if accepted.at_most_once:
            code = InterruptedRunError.code
            message = f"{accepted.node} may have run, and must not run twice: {message}"
        run.ranges.ended(cut, before + count)
        failures = [ItemFailure(index, code, message, details) for index in range(count)]
        nils = Raw(array_start(count) + bytes(NIL) * count)
        self._record(run, cut.first + before, count, nils, failures, now)

    def _record(
        self,
        run: Run,
        first: int,
        count: int,
        values: Raw,
        failures: list[ItemFailure],
        now: float,
    ) -> None:
        state, at_ns = run.state, self._life.recorder.wall_ns(now)
        done = TaskDone(
            run.number,
            state.last,
            state.token,
            at_ns,
            "",
            first,
            count,
            values,
            failures=tuple(failures) or None,
        )
        self._owner.write(run, done, now)
        self._life.recorder.await_step(run, run.state.last)

    def _stop(self, run: Run, error: PronghornError, now: float) -> None:
        """Give nothing more, and give up what is under way."""
        if run.failure is None:
            run.failure = error
        if run.ranges is None:
            return
        run.ranges.stop()
        for request, _ in list(run.cuts.values()):
            if not request.ended:
                self._life.give_up(request, CancelledError, CANCELLED, now)
