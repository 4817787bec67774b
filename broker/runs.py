"""Open runs: begun once their acceptance is kept, tried again, ended once. Pure.

A run is accepted for whoever starts a node and does not wait, or gives an idempotency key. Its
attempts are requests of a session of our own, which no client has; so whoever has started it may be
gone::

               Accepted kept                  ended                    Ended kept
    accepted ───────────────► attempt under way ──► end is being kept ─────────────► gone from here
                                 ▲       │ worker lost: AttemptLost
                   Started kept  └───────┤
                                         └─► ended without a result: interrupted, poisoned
    open at the start of a broker ──► waits for its turn ─┘

R1. A run is here from its acceptance, or from the start of this broker, until its end is kept. So
    what is not here is in the journal as it is, and what is here is no question to the journal.
R2. Of a key there is at most one run here, and none is accepted while the journal is asked for one.
R3. Nothing of a run begins before the record that makes it possible is kept: what was lost with a
    broker has begun nothing, and attempts are counted whatever kills what. But a workflow that is
    called without a key is begun `at_once`: who calls it has been told nothing.
R4. What an attempt brings is recorded under its token; the life of requests sees to it that only
    the last attempt's word is heard (lifecycle.py).
R5. Of attempts that are not the first ones of this epoch, so of all that is taken up after a crash,
    at most `AGAIN_MAX` are under way: more would be charged to their runs by the next crash.

Mirror: tests/broker/test_runs.py.
"""

from collections import deque
from collections.abc import Sequence
from hmac import compare_digest
from math import inf
from typing import Final

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from .events import Origin
from .inquiries import Inquiries, Steps, UnaskedError
from .journal.backlog import Standing
from .journal.fold import End, RunState, advance, recover
from .journal.messages import FoundValue, ReadValue
from .journal.record import (
    Accepted,
    AttemptLost,
    Ended,
    Failure,
    KeptDurability,
    Record,
    Reopened,
    Started,
)
from .journal.rows import digest_of, format_run_id, parse_run_id
from .lifecycle import Lifecycle
from .map_runs import CANCELLED, MapRuns
from .recorder import Ending, Step, ending
from .requests import Keep, Node, Request, Run, Session
from .retries import retry_delay_s
from .wire.errors import (
    CancelledError,
    ErrorDetails,
    InterruptedRunError,
    JournalError,
    Outcome,
    PronghornError,
    WorkerLostError,
)
from .wire.limits import MIB, PRIORITY_DEFAULT
from .wire.link import CODEC_JSON, unwrap_json
from .wire.messages import NIL, Error, Options
from .wire.table import RetryPolicy

RUNS_MAX: Final = 100_000
"""Open runs; beyond it none is accepted. As many as requests that wait."""

AGAIN_MAX: Final = 1_000
LOADED_BYTES_MAX: Final = 64 * MIB
"""Params that are read from the journal for attempts that are to come; one may go beyond."""

ATTEMPTS_MAX: Final = 3
"""Attempts of a run whose node says nothing else (``@node(retry=...)``)."""

ORDER_WAIT_S: Final = 30.0
"""An order to a run that has no place for so long is answered all the same: nobody conducts it."""

LOST: Final = RetryPolicy(ATTEMPTS_MAX, 0.05, 5.0)
"""How long a run waits whose worker died, if its node says nothing else."""

REFUSED: Final = "a record of the run was refused"

_PEER: Final = b"\0pronghorn.runs"  # longer than the routing ids that sockets make up
_JSON_ORIGIN: Final = Origin((), CODEC_JSON, silent=True, batch=0)
_encode_options: Final = msgspec.msgpack.Encoder().encode


class Wanted(msgspec.Struct, frozen=True):
    """A run as somebody asks for it.

    Attributes:
        node: The node.
        owner: Whose run it is.
        key: Idempotency key.
        durability: What is promised of its end.
        value: Params; with `CODEC_JSON` in a msgpack ``bin``.
        buffers: Of the params.
        codec: `CODEC_MSGPACK` or `CODEC_JSON`.
        options: Those that go with it: priority and affinity.
        items: Of a map, how many its params are of.
        for_result: Whether who asks waits for the result, not only for the acceptance.
        at_once: Whether it is begun before its acceptance is kept.
    """

    node: Node
    owner: str
    key: str | None
    durability: KeptDurability
    value: Raw
    buffers: Sequence[bytes]
    codec: int
    options: Options
    for_result: bool
    at_once: bool
    items: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the params."""
        return len(self.value) + sum(map(len, self.buffers))

    def is_of(self, accepted: Accepted, buffers: Sequence[bytes]) -> bool:
        """Whether a run that was accepted before is the same: its node and its params are."""
        asked = self.node.name, self.codec, self.items
        if (accepted.node, accepted.codec, accepted.items) != asked:
            return False
        if accepted.apart:
            return accepted.apart == tuple(map(digest_of, (self.value, *self.buffers)))
        return accepted.value == self.value and list(buffers) == list(self.buffers)


class Runs:
    """All open runs. Replies are not made here: `news` tells of which runs there is something."""

    def __init__(self, life: Lifecycle, inquiries: Inquiries) -> None:
        self._life = life
        self._recorder = life.recorder
        self._catalog = life.catalog
        self._inquiries = inquiries
        # Whose requests all attempts are: in the queue they take turns with those of each client.
        self.session = Session(_PEER, 2**62, known=True)
        self.by_number: dict[int, Run] = {}
        self.by_key: dict[tuple[str, str], Run] = {}  # owner and key -> run; each is in `by_number`
        self.bytes = 0  # of all params that are here
        # Runs that wait for an attempt which is not the first of this epoch; some have ended.
        self._again: deque[Run] = deque()
        self._again_count = 0  # attempts under way that are such
        self._loaded_bytes = 0  # of their params that had to be read
        self.is_ending = False  # whether nothing is begun any more
        self._maps = MapRuns(life, self, self._admit)
        # Of which something is kept, or whose end may be told; to be taken by whoever has called.
        self.news: list[Run] = []

    @property
    def is_busy(self) -> bool:
        """Whether an attempt is under way, and does not rest."""
        return any(not _rests(request) for request in self.session.open.values())

    def find(self, number: int, secret: bytes) -> Run | None:
        """Return the run of an id, if it is here."""
        run = self.by_number.get(number)
        return run if run is not None and compare_digest(run.accepted.secret, secret) else None

    def end_all(self) -> None:
        """Begin nothing more, for all is about to end: what waits is taken up at the next start."""
        self.is_ending = True
        self._again.clear()

    # --- the beginning --------------------------------------------------------------------------

    def accept(self, wanted: Wanted, now: float) -> Run:
        """Accept a run; it begins when that is kept."""
        recorder, node = self._recorder, wanted.node
        number = recorder.next_sequence
        accepted = Accepted(
            number,
            0,
            recorder.secret_of(number),
            node.name,
            wanted.owner,
            recorder.wall_ns(now),
            wanted.value,
            len(wanted.buffers),
            codec=wanted.codec,
            items=wanted.items,
            durability=wanted.durability,
            key=wanted.key,
            at_most_once=node.at_most_once,
            attempts_max=ATTEMPTS_MAX if node.retry is None else node.retry.attempts,
            options=Raw(_encode_options(wanted.options)),
        )
        recorder.write(accepted, wanted.buffers, now)
        state = advance(None, number, accepted)
        run = Run(accepted, wanted.buffers, state, wanted.size)
        self._add(run)
        if accepted.at_most_once:  # in the same commit, so it counts as begun while it waits, too
            self.write(run, Started(number, number, 1, recorder.wall_ns(now)), now)
        if wanted.at_once:
            run.at_once = True
            recorder.await_step(run, number, hurries=False)
            self._begin(run, now)
        else:
            self._await(run)
        return run

    def take_up(self, state: RunState, accepted: Accepted, now: float) -> None:
        """Take in a run that was open when this broker started."""
        run = Run(accepted, (), state, len(accepted.value), is_accepted=True)
        run.is_loaded = not accepted.apart
        self._add(run)
        self._decide(run, None, now)

    def reopen(self, state: RunState, accepted: Accepted, now: float) -> Run:
        """Try a run again that has ended without a result, because somebody asks for that."""
        run = Run(accepted, (), state, len(accepted.value), is_accepted=False)
        run.is_loaded = not accepted.apart
        self._add(run)
        self.write(run, Reopened(state.run, state.last, self._recorder.wall_ns(now)), now)
        run.attempt = run.state.attempt
        self._recorder.await_step(run, run.state.last)
        self._again.append(run)
        self.serve(now)
        return run

    def cast_off(self, run: Run, now: float) -> Run:
        """Have a run be nothing to us any more, for a record of it was refused.

        What is under way of it is given up. What the journal has of it is not known here, so in its
        place there is one to be looked for, with all who wait.
        """
        self._remove(run)
        self._leave_again(run)
        if run.was_read and run.end is None:
            self._loaded_bytes -= run.size
        run.is_adrift = True
        state = replace(run.state, status="open")
        sought = Run(run.accepted, run.buffers, state, 0, is_loaded=False, is_sought=True)
        sought.is_cancelled = run.is_cancelled
        sought.starters, sought.waiting = run.starters, run.waiting
        sought.enders, sought.watchers = run.enders, run.watchers
        self._add(sought)
        under_way = [request for request, _ in run.cuts.values()]
        if run.request is not None:
            under_way.append(run.request)
        for request in under_way:
            if not request.ended:  # else that is about to be told, and nobody listens
                self._life.give_up(request, CancelledError, REFUSED, now)
        return sought

    def take_again(self, run: Run, state: RunState, accepted: Accepted, now: float) -> None:
        """Go on with a run that was looked for, and is open, as after a crash."""
        run.accepted, run.buffers, run.state = accepted, (), state
        run.is_loaded, run.is_accepted, run.is_sought = not accepted.apart, True, False
        self._resize(run, len(accepted.value))
        self.news.append(run)
        self._decide(run, None, now)
        if run.is_cancelled and run.end is None:
            self.cancel(run, now)
        self.serve(now)

    def forget(self, run: Run) -> None:
        """Have a run be here no more that was looked for, and is not open."""
        self._remove(run)

    def serve(self, now: float) -> None:
        """Begin what waits, as far as it may; to be called when nodes are served."""
        while self._again and self._may_begin_again():
            run = self._again.popleft()
            if run.state.status != "open" or run.is_adrift:
                continue
            run.is_again = True
            self._again_count += 1
            if run.is_loaded:
                self._start(run, now)
            else:
                self._inquiries.begin(self._load(run), now)

    def _may_begin_again(self) -> bool:
        return (
            bool(self._catalog.nodes)
            and not self.is_ending
            and self._again_count < AGAIN_MAX
            and self._loaded_bytes < LOADED_BYTES_MAX
        )

    def _load(self, run: Run) -> Steps:
        """Read params that are kept apart."""
        try:
            found, buffers = yield ReadValue(0, run.number, run.number)
        except JournalError as error:
            if run.state.status == "open" and not run.is_adrift:
                self._leave_again(run)
                if isinstance(error, UnaskedError):  # it is read when there is a journal again
                    self._again.appendleft(run)
                else:
                    self.fail(run, error, self._inquiries.now)
            return
        assert isinstance(found, FoundValue)
        if run.state.status != "open" or run.is_adrift:
            return
        run.accepted = replace(run.accepted, value=found.value, buffers=len(buffers), apart=())
        run.buffers = buffers
        run.is_loaded = True
        self._resize(run, len(found.value) + sum(map(len, buffers)))
        run.was_read = True
        self._loaded_bytes += run.size
        self._start(run, self._inquiries.now)

    def _start(self, run: Run, now: float) -> None:
        """Record that an attempt begins, and begin it when that is kept."""
        state = run.state
        if state.at_most_once or run.attempt != state.attempt:
            at_ns = self._recorder.wall_ns(now)
            self.write(run, Started(run.number, state.last, run.attempt, at_ns), now)
        self._await(run)
        if not run.awaits:
            self._begin(run, now)

    def _await(self, run: Run) -> None:
        """Have the attempt begin when all that was written is kept, unless it is already."""
        run.awaits = run.state.last if self._recorder.await_step(run, run.state.last) else 0

    def _begin(self, run: Run, now: float) -> None:
        """Have an attempt run: all is kept that must be."""
        if self.is_ending:
            return
        accepted = run.accepted
        if run.is_map:
            self._maps.begin(run, now)
            return
        node = self._catalog.by_name.get(accepted.node)
        if node is None:
            error = self._catalog.not_found(accepted.node)
            outcome: Outcome = "not_started" if run.attempt == 1 else "maybe_executed"
            error.details = replace(error.details, outcome=outcome)
            self.fail(run, error, now)
            return
        as_json = accepted.codec == CODEC_JSON
        options = run.options
        request = Request(
            run.number,
            run.number,
            self.session,
            node,
            False,
            not node.concurrent,
            Raw(unwrap_json(accepted.value)) if as_json else accepted.value,
            run.size,
            run.buffers,
            _JSON_ORIGIN if as_json else None,
            True,
            None,
            now,
            attempts=run.attempt,
            priority=PRIORITY_DEFAULT if options.priority is None else options.priority,
            affinity=format_run_id(run.number, accepted.secret)  # where its orders find it
            if node.conducted
            else options.affinity,
            keep=Keep(accepted.durability, NIL, (), run=run),
        )
        run.request, run.rest_due, run.rests = request, None, False
        self._admit(request, self.begins_at(run, node, run.state.deaths, now), now)

    def _admit(self, request: Request, begin_at: float, now: float) -> None:
        """Have a request begin, not before some time."""
        if begin_at <= now:
            self._life.admit(request, now)
        else:
            self._life.open(request)
            request.delayed = True
            self._life.delayed.push(begin_at, request)

    def begins_at(self, run: Run, node: Node, deaths: int, now: float) -> float:
        """Tell when an attempt may begin: what has taken workers with it waits for a while."""
        begin_at = now
        if deaths:
            policy = node.retry or LOST
            delay_s = retry_delay_s(policy, min(deaths, policy.attempts - 1), run.number)
            begin_at += delay_s or 0.0
        if node.refused_until < inf:
            begin_at = max(begin_at, node.refused_until)
        return begin_at

    def rest(self, run: Run, now: float) -> None:
        """Have an attempt of a workflow wait that has nothing to do: its host lets go of it.

        It is no attempt that follows a crash any more, for what it does next is another thing.
        """
        request = run.request
        assert request is not None
        assert run.rest_due is not None
        self._leave_again(run)
        if run.was_read:
            run.was_read = False
            self._loaded_bytes -= run.size
        self._life.rest(request, run.rest_due)
        run.rest_due, run.rests = None, True
        self.serve(now)

    def admit_order(self, order: Request, run_id: str, now: float) -> None:
        """Take in an order to what may be one of these: a run that rests goes on before it.

        To one that waits for a place it is given when that has one.
        """
        run = self._named(run_id)
        request = None if run is None else run.request
        if request is not None and _rests(request):
            self._life.wake(request, now)
        if request is None or request.ended or request.delayed or request.worker_id:
            self._life.admit_order(order, now)
        else:
            assert run is not None
            run.orders.append(order)
            self._life.hold(order, now + ORDER_WAIT_S)

    def _named(self, run_id: str) -> Run | None:
        try:
            return self.find(*parse_run_id(run_id))
        except ValueError:
            return None

    # --- the end --------------------------------------------------------------------------------

    def cancel(self, run: Run, now: float) -> None:
        """Cancel a run that is open."""
        if run.is_sought:
            run.is_cancelled = True
            return
        if run.is_map:
            self._maps.cancel(run, now)
            return
        if run.request is not None:
            if run.request.ended:  # in this very turn, and that is not recorded yet
                run.is_cancelled = True
            else:
                self._life.give_up(run.request, CancelledError, CANCELLED, now)
            return
        outcome: Outcome = "maybe_executed" if run.attempt > 1 or run.state.begun else "not_started"
        details = ErrorDetails(outcome=outcome, node=run.accepted.node)
        self.fail(run, CancelledError(f"{run.accepted.node}: {CANCELLED}", details), now)

    def on_attempt_ended(
        self, request: Request, message: Ending, buffers: Sequence[bytes], now: float
    ) -> None:
        """Take in what has become of an attempt."""
        keep = request.keep
        assert keep is not None
        assert keep.run is not None
        run, request.keep, keep.run.request = keep.run, None, None
        if run.is_adrift:
            return
        if run.is_map:
            self._maps.on_chunk_ended(run, request, message, now)
        elif isinstance(message, Error) and message.code == WorkerLostError.code:
            cause = message.details.cause or message.message
            at_ns = self._recorder.wall_ns(now)
            state = run.state
            self.write(run, AttemptLost(run.number, state.last, state.token, cause, at_ns), now)
            self._leave_again(run)
            self._decide(run, message.details, now)
            if run.is_cancelled and run.end is None:
                self.cancel(run, now)
        else:
            self.end(run, self._ending(run, message, keep.run_ns, now), now, buffers)
        self.serve(now)

    def _decide(self, run: Run, details: ErrorDetails | None, now: float) -> None:
        """Have a run tried again, or end it, after a crash or the death of its worker."""
        if run.is_map and not run.state.missing:  # all but its end was kept
            self._maps.conclude(run, now)
            return
        verdict = recover(run.state)
        if not isinstance(verdict, End):
            run.attempt = verdict.attempt
            self._again.append(run)
            return
        details = replace(
            details or ErrorDetails(), outcome="maybe_executed", node=run.accepted.node
        )
        code = WorkerLostError.code if verdict.status == "poisoned" else InterruptedRunError.code
        failure = Failure(code, verdict.reason, details)
        at_ns = self._recorder.wall_ns(now)
        state = run.state
        ended = Ended(run.number, state.last, 0, at_ns, verdict.status, failure=failure)
        self.end(run, ended, now)

    def fail(self, run: Run, error: PronghornError, now: float) -> None:
        """End a run none of whose attempts is under way with an error."""
        message = Error(run.number, error.code, error.message, error.details)
        self.end(run, replace(self._ending(run, message, 0, now), token=0), now)

    def _ending(self, run: Run, message: Ending, run_ns: int, now: float) -> Ended:
        state, at_ns = run.state, self._recorder.wall_ns(now)
        return ending(
            run.number, state.last, state.token, at_ns, run_ns, message, codec=run.accepted.codec
        )

    def end(self, run: Run, ended: Ended, now: float, buffers: Sequence[bytes] = ()) -> None:
        """Record the end of a run; it is told now, or when it is kept."""
        standing = self._recorder.standing(now)
        self.write(run, ended, now, buffers)
        self._leave_again(run)
        if run.was_read:
            self._loaded_bytes -= run.size
        self._resize(run, 0)
        run.end, run.end_buffers, run.buffers, run.awaits = ended, buffers, (), 0
        is_open = standing is Standing.OPEN
        # The results of a map are read from the journal.
        is_batched = run.state.durability == "batched" and not run.is_map
        run.is_told = is_batched and is_open and (run.is_accepted or run.at_once)
        waits = not run.is_told or bool(run.enders or run.watchers)
        self._recorder.await_step(run, run.state.last, hurries=waits)
        self.news.append(run)

    def on_kept(self, step: Step, now: float) -> None:
        """Go on with a run of which a record is kept; who waits for that is for `news`."""
        run = step.run
        if run.is_adrift or run.is_sought:  # what it was is not what the journal has
            return
        run.is_accepted = True
        self.news.append(run)
        if run.end is not None:
            if step.sequence == run.state.last:
                run.is_told = True
                self._remove(run)
        elif run.awaits == step.sequence:
            run.awaits = 0
            self._begin(run, now)
        elif run.ranges is not None:
            self._maps.go_on(run, now)

    def write(self, run: Run, record: Record, now: float, buffers: Sequence[bytes] = ()) -> None:
        """Write a record of a run, and bring its state up to date."""
        sequence = self._recorder.next_sequence
        run.state = advance(run.state, sequence, record)
        self._recorder.write(record, buffers, now)

    # --- inside ---------------------------------------------------------------------------------

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; for tests."""
        runs = self.by_number.values()
        assert self.bytes == sum(run.size for run in runs)
        assert self._again_count == sum(run.is_again for run in runs) <= AGAIN_MAX
        keyed = {(run.accepted.owner, run.accepted.key): run for run in runs if run.accepted.key}
        assert keyed == self.by_key, "R2: one run of each key"
        for run in runs:
            assert (run.end is not None) == (run.state.status != "open")
            assert run.request is None or run.end is None
            assert run.request is None or not run.awaits, "R3"
        attempts = {id(run.request) for run in runs if run.request is not None}
        attempts |= {id(request) for run in runs for request, _ in run.cuts.values()}
        assert {id(request) for request in self.session.open.values()} <= attempts

    def _add(self, run: Run) -> None:
        assert run.number not in self.by_number
        self.by_number[run.number] = run
        if run.accepted.key is not None:
            assert (run.accepted.owner, run.accepted.key) not in self.by_key, "R2"
            self.by_key[run.accepted.owner, run.accepted.key] = run
        self.bytes += run.size

    def _remove(self, run: Run) -> None:
        del self.by_number[run.number]
        if run.accepted.key is not None:
            del self.by_key[run.accepted.owner, run.accepted.key]
        self.bytes -= run.size

    def _resize(self, run: Run, size: int) -> None:
        self.bytes += size - run.size
        run.size = size

    def _leave_again(self, run: Run) -> None:
        """Have an attempt counted no more that was one of those whose number is bounded."""
        if run.is_again:
            run.is_again = False
            self._again_count -= 1


def _rests(request: Request) -> bool:
    """Whether an attempt waits for an order or a time, given to no worker."""
    run = None if request.keep is None else request.keep.run
    return request.delayed and run is not None and run.rests
