"""Records of durable requests, and the replies that wait until those are kept. Pure.

A request that nobody can ask for again by a key is recorded at its end, acceptance and end in one
go: nothing was promised before its answer, and one commit is all that it waits for. It is never
begun again, so it has one attempt. What is promised with the answer depends on the durability:
FORMAT.md, "Promises".

The records of runs are made by runs.py, and written here; who waits for one of theirs is a `Step`.

Mirror: tests/broker/test_recorder.py.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Raw

from .events import Command, HurryJournal, JournalCommitted, JournalWelcomed, Send, WriteRecord
from .journal.backlog import Backlog, Standing
from .journal.messages import encode_message
from .journal.record import Accepted, Ended, EndStatus, Failure, Record, generation_of
from .requests import Keep, Request, Run
from .wire.errors import CancelledError, DeadlineExceededError, ErrorDetails, JournalError
from .wire.link import CODEC_JSON, CODEC_MSGPACK, wrap_json
from .wire.messages import NIL, Error, MapResult, Result

_SECRET_BYTES: Final = 16
_LATE: Final = "it has run, but the journal has not kept that in time"


class Step(msgspec.Struct, frozen=True):
    """A record of a run that something waits for: what goes on when it is kept."""

    run: Run
    sequence: int


Ending = Result | MapResult | Error


class Recorder:
    """What was recorded in this epoch and is not kept yet, and who waits for it."""

    def __init__(self) -> None:
        self._backlog: Backlog[Request | Step] | None = None  # None until the first welcome
        self._is_connected = False  # whether what is written arrives somewhere
        self._seed = b""
        self._clock_ns = 0  # nanoseconds since 1970 at the zero of the monotonic clock
        self._ended: list[tuple[Request, Result | Error, Sequence[bytes]]] = []  # to be recorded
        self.absent = ""  # why there is no journal; "": there is one, or another is being started
        # What is done when an attempt of a run has ended; set by who has the runs.
        self.on_run_ended: Callable[[Request, Ending, Sequence[bytes], float], None]
        self._commands: list[Command] = []  # since the last `settle`
        self._hurries = False  # whether somebody waits for a record that is not kept
        self.has_news = False  # whether `settle` has something to do

    @property
    def is_busy(self) -> bool:
        """Whether anything is to be kept yet, and can be."""
        return bool(self._ended) or (bool(self._backlog) and not self.absent)

    def standing(self, now: float) -> Standing:
        """Say what a new durable request meets."""
        return Standing.OPEN if self._backlog is None else self._backlog.standing(now)

    def end(
        self,
        request: Request,
        message: Ending,
        buffers: Sequence[bytes],
        reply: Send | None,
    ) -> None:
        """Take note that a durable request has ended; `settle` sends its reply, or holds it."""
        assert request.keep is not None
        assert not isinstance(message, MapResult), "chunks are not recorded"
        request.keep.reply = reply
        self._ended.append((request, message, buffers))
        self.has_news = True

    def settle(self, now: float) -> list[Command]:
        """Record what has ended, and return what is to be done."""
        ended, self._ended = self._ended, []
        for request, message, buffers in ended:
            assert request.keep is not None
            if request.keep.run is not None:
                self.on_run_ended(request, message, buffers, now)
            else:
                self._record(request, message, buffers, now)
        commands, self._commands = self._commands, []
        if self._hurries:
            self._hurries = False
            commands.append(HurryJournal())
        self.has_news = False
        return commands

    def give_up(self, request: Request) -> None:
        """Answer a request whose time is up before its record was kept."""
        if request.keep is not None and request.keep.is_held:
            self._fail(request, DeadlineExceededError, _LATE)

    # --- the journal ----------------------------------------------------------------------------

    def on_welcomed(self, event: JournalWelcomed) -> list[Step]:
        """Write to this journal from now on: first what another has not kept.

        Returns:
            The steps of runs that are kept.
        """
        self._seed, self._clock_ns = self._seed or event.seed, event.clock_ns
        self._is_connected, self.absent = True, ""
        if self._backlog is None:
            self._backlog = Backlog(generation_of(event.acknowledged))
        steps = self._release(event.acknowledged)
        self._command(*map(WriteRecord, self._backlog.unacknowledged()))
        self._hurries = bool(self._backlog.waiters())
        return steps

    def on_committed(self, event: JournalCommitted) -> list[Step]:
        """Send the replies that have waited for this; returns the steps of runs that have."""
        self._clock_ns = event.clock_ns
        return self._release(event.through)

    def on_gone(self, reason: str) -> None:
        """Keep what is outstanding for the next journal; without one no call waits for it."""
        self._is_connected = False
        self.absent = reason
        if reason and self._backlog is not None:
            for waiter in self._backlog.waiters():
                # One without anything to keep was answered, its time being up.
                if isinstance(waiter, Request) and waiter.keep is not None:
                    self._fail(waiter, JournalError, not_kept(reason))

    # --- records of runs ------------------------------------------------------------------------

    @property
    def next_sequence(self) -> int:
        """The number that the next record will have; there must have been a journal."""
        assert self._backlog is not None
        return self._backlog.next_sequence

    @property
    def generation(self) -> int:
        """The generation of this epoch's records; there must have been a journal."""
        return generation_of(self.next_sequence)

    def secret_of(self, run: int) -> bytes:
        """Make the part of a run's id that can't be guessed."""
        return blake2b(run.to_bytes(8, "big"), key=self._seed, digest_size=_SECRET_BYTES).digest()

    def write(self, record: Record, buffers: Sequence[bytes], now: float) -> int:
        """Write a record, with the buffers of its value; returns its number."""
        assert self._backlog is not None
        frames = [encode_message(record), *map(bytes, buffers)]
        if self._is_connected:
            self._command(WriteRecord(frames))
        return self._backlog.append(frames, now)

    def await_step(self, run: Run, sequence: int, *, hurries: bool = True) -> bool:
        """Have a step given out when a record is kept; `False`: it is already.

        Those of earlier epochs are.

        Args:
            run: The run.
            sequence: Number of its record.
            hurries: Whether the record is not left to gather others.
        """
        assert self._backlog is not None
        if generation_of(sequence) != self.generation:
            return False
        return self._wait(sequence, Step(run, sequence), hurries=hurries)

    def _wait(self, sequence: int, waiter: Request | Step, *, hurries: bool = True) -> bool:
        assert self._backlog is not None
        waits = self._backlog.wait(sequence, waiter)
        if waits and hurries:
            self._hurries = self.has_news = True
        return waits

    def _command(self, *commands: Command) -> None:
        self._commands += commands
        self.has_news = True

    def wall_ns(self, at: float) -> int:
        """Return a time of the monotonic clock as nanoseconds since 1970."""
        return self._clock_ns + int(at * 1e9)

    # --- records --------------------------------------------------------------------------------

    def _record(
        self, request: Request, message: Result | Error, buffers: Sequence[bytes], now: float
    ) -> None:
        """Write the records of a request that has ended, and send its reply or hold it."""
        keep, backlog = request.keep, self._backlog
        assert keep is not None
        if backlog is None:  # it has ended before there was a journal, so it was never begun
            self._send(request)
            return
        # What is told of no result promises nothing, so there is nothing to wait for.
        has_run = isinstance(message, Result) or message.details.outcome == "executed"
        waits = keep.durability == "sync" or backlog.standing(now) is not Standing.OPEN
        run = backlog.next_sequence
        self.write(self._accepted(run, request, keep), keep.buffers, now)
        ended = ending(
            run, run, run, self.wall_ns(now), keep.run_ns, message, codec=_codec_of(request)
        )
        last = self.write(ended, buffers, now)
        keep.params, keep.buffers = NIL, ()
        if not (has_run and waits):
            self._send(request)
        elif self.absent:
            self._fail(request, JournalError, not_kept(self.absent))
        elif request.due is not None and request.due <= now:  # its tick has been before this
            self._fail(request, DeadlineExceededError, _LATE)
        else:
            keep.is_held = self._wait(last, request)

    def _accepted(self, run: int, request: Request, keep: Keep) -> Accepted:
        codec = _codec_of(request)
        return Accepted(
            run,
            0,
            self.secret_of(run),
            request.node.name,
            request.session.owner,
            self.wall_ns(request.accepted_at),
            wrap_json(keep.params) if codec == CODEC_JSON else keep.params,
            len(keep.buffers),
            codec=codec,
            durability=keep.durability,
            attempts_max=1,
        )

    # --- replies --------------------------------------------------------------------------------

    def _release(self, through: int) -> list[Step]:
        assert self._backlog is not None
        steps: list[Step] = []
        for waiter in self._backlog.acknowledge(through):
            if isinstance(waiter, Step):
                steps.append(waiter)
            elif waiter.keep is not None:  # else it was answered, its time being up
                self._send(waiter)
        return steps

    def _send(self, request: Request) -> None:
        """Send the reply of a request, which is nothing to us from now on."""
        assert request.keep is not None
        reply, request.keep = request.keep.reply, None
        if reply is not None:
            self._command(reply)

    def _fail(
        self, request: Request, error: type[DeadlineExceededError | JournalError], why: str
    ) -> None:
        """Send an error instead of a reply that waits for its record."""
        keep = request.keep
        if keep is not None and keep.reply is not None:
            message = f"{request.node.name}: {why}"
            details = ErrorDetails(outcome="executed", node=request.node.name)
            told = Error(request.id, error.code, message, details)
            old = keep.reply
            keep.reply = Send(old.peer, told, old.origin, batched=old.batched)
        self._send(request)


def not_kept(reason: str) -> str:
    """Say why a result is not told whose record is not kept."""
    return f"it has run, and its record is not kept: {reason}"


def ending(
    run: int,
    previous: int,
    token: int,
    at_ns: int,
    run_ns: int,
    message: Ending,
    *,
    codec: int,
) -> Ended:
    """Make the record of a run's end out of the terminal reply of its last attempt.

    Args:
        run: Number of the run.
        previous: Sequence number of its record before this one.
        token: Of the attempt.
        at_ns: When, nanoseconds since 1970.
        run_ns: Run time of the node alone.
        message: The reply.
        codec: Of the run's values.
    """
    assert not isinstance(message, MapResult), "chunks are not recorded"
    if isinstance(message, Error):
        status: EndStatus = "cancelled" if message.code == CancelledError.code else "failed"
        failure = Failure(message.code, message.message, message.details)
        return Ended(run, previous, token, at_ns, status, run_ns, failure=failure)
    value: Raw = wrap_json(message.value) if codec == CODEC_JSON else message.value
    return Ended(run, previous, token, at_ns, "done", run_ns, value, message.buffers, codec=codec)


def _codec_of(request: Request) -> int:
    """Return how the values of a request are encoded."""
    return CODEC_MSGPACK if request.origin is None else request.origin.codec
