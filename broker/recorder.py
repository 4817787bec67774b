"""Records of durable requests, and the replies that wait until those are kept. Pure.

A request that nobody can ask for again by a key is recorded at its end, acceptance and end in one
go: nothing was promised before its answer, and one commit is all that it waits for. It is never
begun again, so it has one attempt. What is promised with the answer depends on the durability:
FORMAT.md, "Promises".

What nobody waits for is answered first. Its records are made and written with those of others: of
all that have ended within `GATHER_S`, or before, if there is anything else to write or to ask. So
the journal keeps what has ended in the order in which it did, and finds what was answered before
it was asked. To make and write the records of each call at once cost the call after it a third of
its time, for the journal's process then woke up for each (``scripts/bench durable``).

The records of runs are made by runs.py, and written here; who waits for one of theirs is a `Step`.

Mirror: tests/broker/test_recorder.py.
"""

from collections.abc import Callable, Sequence
from hashlib import shake_128
from math import inf
from typing import Final

import msgspec
from msgspec import Raw

from .events import Command, HurryJournal, JournalCommitted, JournalWelcomed, Send, WriteRecords
from .journal.backlog import Backlog, Standing
from .journal.messages import encode_message
from .journal.record import Accepted, Ended, EndStatus, Failure, Record, generation_of
from .requests import Keep, Request, Run
from .wire.errors import CancelledError, DeadlineExceededError, ErrorDetails, JournalError
from .wire.limits import KIB
from .wire.link import CODEC_JSON, CODEC_MSGPACK, wrap_json
from .wire.messages import NIL, Error, MapResult, Result

GATHER_S: Final = 0.005
"""How long ends of calls gather that nobody waits for. Beside a commit each 2 ms a lone caller's
calls take a tenth longer, for the journal's process takes a core away from them."""

GATHER_CALLS: Final = 64
"""So many do not wait for more: to record them holds up all else for half a millisecond."""

GATHER_BYTES: Final = 256 * KIB
_RECORDS_OF_CALL: Final = 2  # `Accepted` and `Ended`
_SECRET_BYTES: Final = 16
_SECRETS: Final = 256  # made at once: that takes a fifth of the time
_LATE: Final = "it has run, but the journal has not kept that in time"


class Step(msgspec.Struct, frozen=True):
    """A record of a run that something waits for: what goes on when it is kept."""

    run: Run
    sequence: int


Ending = Result | MapResult | Error

_Call = tuple[Request, Keep, Result | Error, Sequence[bytes], float]
"""One that has ended, what is kept of it, how it was answered, with which buffers, and when."""


class Recorder:
    """What was recorded in this epoch and is not kept yet, and who waits for it."""

    def __init__(self) -> None:
        self._backlog: Backlog[Request | Step] | None = None  # None until the first welcome
        self._is_connected = False  # whether what is written arrives somewhere
        self._seed = b""  # that ids are made with; none before the first welcome
        self._secrets = b""  # of `_SECRETS` runs in a row
        self._secrets_of = -1  # their numbers, divided by as many
        self.generation = 0  # of this epoch's records; 0 before the first welcome
        self._clock_ns = 0  # nanoseconds since 1970 at the zero of the monotonic clock
        self._ended: list[tuple[Request, Ending, Sequence[bytes]]] = []  # to be recorded
        self.absent = ""  # why there is no journal; "": there is one, or another is being started
        # What is done when an attempt of a run has ended; set by who has the runs.
        self.on_run_ended: Callable[[Request, Ending, Sequence[bytes], float], None]
        # Calls that were answered, and whose records are to be made; they have their numbers.
        self._gathered: list[_Call] = []
        self._gathered_bytes = 0
        self.gather_due = inf  # when these are to be written at the latest, monotonic seconds
        self._written: list[Sequence[bytes]] = []  # frames of records, since the last `settle`
        self._commands: list[Command] = []  # others, likewise
        self._hurries = False  # whether what was written is not to gather in the journal, too
        self._waited_for = False  # whether somebody waits for some of it
        self.has_news = False  # whether `settle` has something to do

    @property
    def is_busy(self) -> bool:
        """Whether anything is to be kept yet, and can be."""
        outstanding = bool(self._backlog) or bool(self._gathered)
        return bool(self._ended) or (outstanding and not self.absent)

    def standing(self, now: float, calls: int = 0) -> Standing:
        """Say what a new durable request meets, of which so many are to be recorded."""
        if self._backlog is None:
            return Standing.OPEN
        return self._backlog.standing(now, _RECORDS_OF_CALL * (len(self._gathered) + calls))

    def end(
        self,
        request: Request,
        message: Ending,
        buffers: Sequence[bytes],
        reply: Send | None,
    ) -> None:
        """Take note that a durable request has ended; `settle` sends its reply, or holds it."""
        assert request.keep is not None
        request.keep.reply = reply
        self._ended.append((request, message, buffers))
        self.has_news = True

    def settle(self, now: float) -> list[Command]:
        """Record what has ended, and return what is to be done."""
        while self._ended:  # the end of a chunk of a map may be that of others
            self._take_ended(now)
        if len(self._gathered) >= GATHER_CALLS or self._gathered_bytes >= GATHER_BYTES:
            self.write_gathered()
        commands = self.take_written()
        commands += self._commands
        self._commands.clear()
        self.has_news = False
        return commands

    def _take_ended(self, now: float) -> None:
        ended, self._ended = self._ended, []
        is_open: bool | None = None
        for request, message, buffers in ended:
            keep = request.keep
            assert keep is not None
            if keep.run is not None:
                self.on_run_ended(request, message, buffers, now)
                continue
            assert not isinstance(message, MapResult), "chunks are recorded as parts of runs only"
            if keep.durability == "batched":
                if is_open is None:
                    is_open = self._is_open(now, len(ended))
                if is_open:
                    self._gather(request, keep, message, buffers, now)
                    continue
            self._record(request, keep, message, buffers, now)

    def _is_open(self, now: float, calls: int) -> bool:
        """Whether as many calls as have ended now may be told so before it is recorded."""
        return self._backlog is not None and self.standing(now, calls) is Standing.OPEN

    def write_gathered(self) -> None:
        """Write the records of calls that were answered already."""
        gathered, self._gathered = self._gathered, []
        self._gathered_bytes, self.gather_due = 0, inf
        if gathered:
            self._write_calls(gathered)
            self._hurries = self.has_news = True  # they have waited for others already

    def take_written(self) -> list[Command]:
        """Take what there is for the journal out of what `settle` is to return."""
        commands: list[Command] = []
        if self._written:
            commands.append(WriteRecords(self._written))
            self._written = []
        if self._hurries:
            commands.append(HurryJournal(waited_for=self._waited_for))
            self._hurries = self._waited_for = False
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
        self._clock_ns = event.clock_ns
        self._is_connected, self.absent = True, ""
        if self._backlog is None:
            self._seed, self._secrets_of = event.seed, -1
            self.generation = generation_of(event.acknowledged)
            self._backlog = Backlog(self.generation)
        steps = self._release(event.acknowledged)
        self._written = self._backlog.unacknowledged()
        self._hurries = self._waited_for = bool(self._backlog.waiters())
        self.has_news = True
        return steps

    def on_committed(self, event: JournalCommitted) -> list[Step]:
        """Send the replies that have waited for this; returns the steps of runs that have."""
        self._clock_ns = event.clock_ns
        return self._release(event.through)

    def on_gone(self, reason: str) -> None:
        """Keep what is outstanding for the next journal; without one no call waits for it."""
        self._is_connected = False
        self._written = []  # it arrives nowhere
        self.absent = reason
        if reason and self._backlog is not None:
            for waiter in self._backlog.waiters():
                # One without anything to keep was answered, its time being up.
                if isinstance(waiter, Request) and waiter.keep is not None:
                    self._fail(waiter, JournalError, not_kept(reason))

    def refuse(self, sequence: int, of_run: int | None, why: str) -> int:
        """Give up a record that the journal can't keep, with all later ones of its run.

        To be called while no journal is there.

        Args:
            sequence: Its number.
            of_run: The run that it is of as the journal has it; `None` if that is not known.
            why: What is told who waits for it.

        Returns:
            The run; 0 if that record is not outstanding, but was none of ours.
        """
        backlog = self._backlog
        if backlog is None or not backlog.acknowledged < sequence < backlog.next_sequence:
            return 0
        run, waiters = backlog.give_up(sequence, of_run)
        for waiter in waiters:
            if isinstance(waiter, Request) and waiter.keep is not None:
                self._fail(waiter, JournalError, not_kept(why))
        return run

    def refuse_next(self, why: str) -> int:
        """Give up the first record that is outstanding, as `refuse` does."""
        if self._backlog is None:
            return 0
        return self.refuse(self._backlog.acknowledged + 1, None, why)

    # --- records of runs ------------------------------------------------------------------------

    @property
    def next_sequence(self) -> int:
        """The number that the next record will have; there must have been a journal."""
        assert self._backlog is not None
        return self._backlog.next_sequence + _RECORDS_OF_CALL * len(self._gathered)

    def secret_of(self, run: int) -> bytes:
        """Make the part of a run's id that can't be guessed."""
        these, index = divmod(run, _SECRETS)
        if these != self._secrets_of:
            made = shake_128(self._seed + these.to_bytes(8, "big"))
            self._secrets = made.digest(_SECRET_BYTES * _SECRETS)
            self._secrets_of = these
        return self._secrets[index * _SECRET_BYTES : (index + 1) * _SECRET_BYTES]

    def write(self, record: Record, buffers: Sequence[bytes], now: float) -> int:
        """Write a record, with the buffers of its value; returns its number."""
        if self._gathered:
            self.write_gathered()
        return self._append(record, buffers, now)

    def _append(self, record: Record, buffers: Sequence[bytes], now: float) -> int:
        assert self._backlog is not None
        frames = _frames_of(record, buffers)
        if self._is_connected:
            self._written.append(frames)
            self.has_news = True
        return self._backlog.append(frames, now)

    def is_kept(self, sequence: int) -> bool:
        """Whether a record is kept, of this epoch or an earlier one."""
        assert self._backlog is not None
        return sequence <= self._backlog.acknowledged

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
            self._hurries = self._waited_for = self.has_news = True
        return waits

    def wall_ns(self, at: float) -> int:
        """Return a time of the monotonic clock as nanoseconds since 1970."""
        return self._clock_ns + int(at * 1e9)

    # --- records --------------------------------------------------------------------------------

    def _record(
        self,
        request: Request,
        keep: Keep,
        message: Result | Error,
        buffers: Sequence[bytes],
        now: float,
    ) -> None:
        """Record a request that has ended, and hold its reply."""
        if self._backlog is None:  # it has ended before there was a journal: it was never begun
            self._send(request)
            return
        if isinstance(message, Error) and message.details.outcome != "executed":
            # What is told of no result promises nothing, so there is nothing to wait for.
            self._gather(request, keep, message, buffers, now)
            return
        if self._gathered:
            self.write_gathered()
        last = self._write_calls([(request, keep, message, buffers, now)])
        keep.params, keep.buffers = NIL, ()
        if self.absent:
            self._fail(request, JournalError, not_kept(self.absent))
        elif request.due is not None and request.due <= now:  # its tick has been before this
            self._fail(request, DeadlineExceededError, _LATE)
        else:
            keep.is_held = self._wait(last, request)

    def _gather(
        self,
        request: Request,
        keep: Keep,
        message: Result | Error,
        buffers: Sequence[bytes],
        now: float,
    ) -> None:
        """Send the reply of a call that nobody has to wait for, and have it recorded soon."""
        if not self._gathered:
            self.gather_due = now + GATHER_S
        self._gathered.append((request, keep, message, buffers, now))
        size = request.size
        if type(message) is Result:
            size += len(message.value)
            if buffers:
                size += sum(map(len, buffers))
        self._gathered_bytes += size
        request.keep = None
        if keep.reply is not None:
            self._commands.append(keep.reply)

    def _write_calls(self, calls: Sequence[_Call]) -> int:
        """Write the records of calls that have ended, two of each; returns the last one's number.

        Hot: guarded by ``scripts/bench durable``.
        """
        assert self._backlog is not None
        run, clock_ns, secret_of = self._backlog.next_sequence, self._clock_ns, self.secret_of
        records: list[Sequence[bytes]] = []
        for request, keep, message, buffers, at in calls:
            codec = CODEC_MSGPACK if request.origin is None else request.origin.codec
            accepted = Accepted(  # by position: that takes half as long
                run,
                0,  # previous
                secret_of(run),
                request.node.name,
                request.session.owner,
                clock_ns + int(request.accepted_at * 1e9),
                wrap_json(keep.params) if codec == CODEC_JSON else keep.params,
                len(keep.buffers),
                (),  # apart
                codec,
                None,  # items
                keep.durability,
                None,  # key
                False,  # at_most_once
                1,  # attempts_max
            )
            at_ns = clock_ns + int(at * 1e9)
            ended = ending(run, run, run, at_ns, keep.run_ns, message, codec=codec)
            records.append(_frames_of(accepted, keep.buffers))
            records.append(_frames_of(ended, buffers))
            run += _RECORDS_OF_CALL
        if self._is_connected:
            self._written += records
            self.has_news = True
        self._backlog.extend(records, calls[0][4])
        return run - 1

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
            self._commands.append(reply)
            self.has_news = True

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


def _frames_of(record: Record, buffers: Sequence[bytes]) -> Sequence[bytes]:
    frame = encode_message(record)
    return [frame, *map(bytes, buffers)] if buffers else (frame,)
