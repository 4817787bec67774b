"""Records of durable requests, and the replies that wait until those are kept. Pure.

A request that nobody can ask for again by a key is recorded at its end, acceptance and end in one
go: nothing was promised before its answer, and one commit is all that it waits for. What is
promised with the answer depends on the durability: FORMAT.md, "Promises".

Mirror: tests/broker/test_recorder.py.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from .events import Command, JournalCommitted, JournalWelcomed, Send, WriteRecord
from .journal.backlog import Backlog, Standing
from .journal.messages import frames_of
from .journal.record import Accepted, Ended, EndStatus, Failure, Record, generation_of
from .requests import Keep, Request
from .wire.errors import CancelledError, DeadlineExceededError, ErrorDetails, JournalError
from .wire.link import CODEC_JSON, CODEC_MSGPACK, wrap_json
from .wire.messages import NIL, Error, MapResult, Result

_SECRET_BYTES: Final = 16
_LATE: Final = "it has run, but the journal has not kept that in time"


class Recorder:
    """What was recorded in this epoch and is not kept yet, and who waits for it."""

    def __init__(self) -> None:
        self._backlog: Backlog[Request] | None = None  # None until the first welcome
        self._is_connected = False  # whether what is written arrives somewhere
        self._seed = b""
        self._clock_ns = 0  # nanoseconds since 1970 at the zero of the monotonic clock
        self._ended: list[tuple[Request, Result | Error, Sequence[bytes]]] = []  # to be recorded
        self._absent = ""  # why there is no journal; "": there is one, or another is being started
        self._commands: list[Command] = []  # since the last `settle`
        self.has_news = False  # whether `settle` has something to do

    @property
    def is_busy(self) -> bool:
        """Whether anything is to be kept yet, and can be."""
        return bool(self._ended) or (bool(self._backlog) and not self._absent)

    def standing(self, now: float) -> Standing:
        """Say what a new durable request meets."""
        return Standing.OPEN if self._backlog is None else self._backlog.standing(now)

    def end(
        self,
        request: Request,
        message: Result | MapResult | Error,
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
            self._record(request, message, buffers, now)
        commands, self._commands = self._commands, []
        self.has_news = False
        return commands

    def give_up(self, request: Request) -> None:
        """Answer a request whose time is up before its record was kept."""
        if request.keep is not None and request.keep.is_held:
            self._fail(request, DeadlineExceededError, _LATE)

    # --- the journal ----------------------------------------------------------------------------

    def on_welcomed(self, event: JournalWelcomed) -> None:
        """Write to this journal from now on: first what another has not kept."""
        self._seed, self._clock_ns = self._seed or event.seed, event.clock_ns
        self._is_connected, self._absent = True, ""
        if self._backlog is None:
            self._backlog = Backlog(generation_of(event.acknowledged))
        self._release(event.acknowledged)
        self._command(*map(WriteRecord, self._backlog.unacknowledged()))

    def on_committed(self, event: JournalCommitted) -> None:
        """Send the replies that have waited for this."""
        self._clock_ns = event.clock_ns
        self._release(event.through)

    def on_gone(self, reason: str) -> None:
        """Keep what is outstanding for the next journal; without one nobody waits for it."""
        self._is_connected = False
        self._absent = reason
        if reason and self._backlog is not None:
            for request in self._backlog.waiters():
                if request.keep is not None:  # else it was answered, its time being up
                    self._fail(request, JournalError, _not_kept(reason))

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
        self._write(self._accepted(run, request, keep), keep.buffers, now)
        last = self._write(self._ending(run, request, keep, message, now), buffers, now)
        keep.params, keep.buffers = NIL, ()
        if not (has_run and waits):
            self._send(request)
        elif self._absent:
            self._fail(request, JournalError, _not_kept(self._absent))
        elif request.due is not None and request.due <= now:  # its tick has been before this
            self._fail(request, DeadlineExceededError, _LATE)
        else:
            keep.is_held = backlog.wait(last, request)

    def _accepted(self, run: int, request: Request, keep: Keep) -> Accepted:
        is_json = request.origin is not None and request.origin.codec == CODEC_JSON
        return Accepted(
            run,
            0,
            blake2b(run.to_bytes(8, "big"), key=self._seed, digest_size=_SECRET_BYTES).digest(),
            request.node.name,
            "",
            self._wall_ns(request.accepted_at),
            wrap_json(keep.params) if is_json else keep.params,
            len(keep.buffers),
            codec=CODEC_JSON if is_json else CODEC_MSGPACK,
            durability=keep.durability,
        )

    def _ending(
        self, run: int, request: Request, keep: Keep, message: Result | Error, now: float
    ) -> Ended:
        at_ns = self._wall_ns(now)
        if isinstance(message, Error):
            status: EndStatus = "cancelled" if message.code == CancelledError.code else "failed"
            failure = Failure(message.code, message.message, message.details)
            return Ended(run, run, run, at_ns, status, keep.run_ns, failure=failure)
        is_json = request.origin is not None and request.origin.codec == CODEC_JSON
        return Ended(
            run,
            run,
            run,
            at_ns,
            "done",
            keep.run_ns,
            wrap_json(message.value) if is_json else message.value,
            message.buffers,
            codec=CODEC_JSON if is_json else CODEC_MSGPACK,
        )

    def _write(self, record: Record, buffers: Sequence[bytes], now: float) -> int:
        assert self._backlog is not None
        frames = [bytes(frame) for frame in frames_of(record, *buffers)]
        if self._is_connected:
            self._command(WriteRecord(frames))
        return self._backlog.append(frames, now)

    def _command(self, *commands: Command) -> None:
        self._commands += commands
        self.has_news = True

    def _wall_ns(self, at: float) -> int:
        """Return a time of the monotonic clock as nanoseconds since 1970."""
        return self._clock_ns + int(at * 1e9)

    # --- replies --------------------------------------------------------------------------------

    def _release(self, through: int) -> None:
        assert self._backlog is not None
        for request in self._backlog.acknowledge(through):
            if request.keep is not None:  # else it was answered, its time being up
                self._send(request)

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


def _not_kept(reason: str) -> str:
    return f"it has run, and its record is not kept: {reason}"
