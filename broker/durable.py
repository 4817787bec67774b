"""Whether calls that are to be recorded can be, and what the journal says. Pure.

The journal as the broker has it::

                     ┌────────────────── gone, and why ──────────────┐
                     ▼                                               │
    unasked ──►  awaited ──gone, and why──► absent ──welcomed──► open ◄──welcomed── lost
      first call     └────────────────────welcomed──────────────► └───────gone───────►┘

- Awaited: calls wait, for none may begin before it is known that it can be recorded.
- Lost: its process has died, or the stream has ended, or a record was refused. Calls are accepted
  on, for there will be another process, stream or welcome, which gets the records that were not
  kept; how many there may be, and how old, is bounded.
- Absent: there is no folder for it, or it can't be used: calls are refused until it can.

A record that the journal refuses is a defect of ours, or the run was removed meanwhile. It and all
later ones of its run are given up, and what the journal has of the run is what goes on: so nobody
else is concerned. Where the journal ends the stream, not knowing why, all is written again. If it
ends that too before anything was kept, the questions are given up, which came with it; then, one at
a time, what is first to be kept.

Mirror: tests/broker/test_durable.py.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

import msgspec
from msgspec import Raw

from .conducted import Conducted
from .events import (
    JournalAnswered,
    JournalBroke,
    JournalCommitted,
    JournalGone,
    JournalRefused,
    JournalRefusing,
    JournalWelcomed,
    Received,
    WantJournal,
)
from .journal.backlog import Standing
from .journal.record import KeptDurability
from .lifecycle import Lifecycle
from .requests import Keep, Key, Node, Request, Session, answered_here
from .run_calls import Asks, RunCalls
from .runs import Wanted
from .verdicts import in_quarantine, is_ending, journal_overload, not_mapped, refusal
from .wire.codec import array_length, is_array
from .wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    JournalError,
    PronghornError,
    UnimplementedError,
)
from .wire.limits import Bounds, Limits
from .wire.link import CODEC_JSON, CODEC_MSGPACK, wrap_json
from .wire.messages import NO_OPTIONS, Call, MapChunk, Options, Run
from .wire.runs import ITEMS_MAX, KEY_BYTES_MAX, RUN_CALLS, START, decode_of_run, decode_start

WAITING_MAX: Final = 10_000
"""Requests that wait for the journal to open; more are refused."""

QUESTIONS_GIVEN_UP: Final = 2
"""So often in a row a stream is broken until the questions on it are given up, and then records."""

_NODES: Final = {name: Node(-1, name, concurrent=True) for name in (START, *RUN_CALLS)}


class _State(Enum):
    UNASKED = auto()
    AWAITED = auto()
    OPEN = auto()
    LOST = auto()
    ABSENT = auto()


class Durable:
    """The journal's standing, and the requests that wait for it to open."""

    def __init__(self, life: Lifecycle, limits: Limits, bounds: Bounds) -> None:
        self._life = life
        self._limits = limits
        self._bounds = bounds
        self._recorder = life.recorder
        self._state = _State.UNASKED
        self._reason = ""  # why it is absent, or refuses what is new
        self._waiting: list[Request] = []  # until it is open or absent; some have ended meanwhile
        self._calls = RunCalls(life, bounds)
        self._is_ending = False
        self._broken = 0  # times in a row that the stream was ended before anything was kept
        self._kept_through = 0  # up to which number that was known last

    @property
    def is_busy(self) -> bool:
        """Whether something is not kept that can be, or a run is under way."""
        return self._recorder.is_busy or self._calls.runs.is_busy

    def admit_order(self, request: Request, run_id: str, now: float) -> None:
        """Take in an order to a run, which may be a recorded one."""
        self._calls.runs.admit_order(request, run_id, now)

    def refusal(
        self, node: Node, options: Options, now: float, *, chunk: bool
    ) -> PronghornError | None:
        """Return why a request can't be recorded, `None` if it can."""
        unserved = _unserved(node, options, chunk=chunk)
        if unserved:
            return UnimplementedError(f"{node.name}: {unserved}", _not_started(node))
        if options.key is not None:
            wrong = _wrong_key(options.key, options.durability)
            if wrong:
                return InvalidArgumentError(f"{node.name}: {wrong}", _not_started(node))
        return self._cannot_record(node, now)

    def admit(self, request: Request, options: Options, now: float) -> None:
        """Take in a request that is to be recorded, now or when the journal is open."""
        durability = options.durability
        assert durability is not None
        assert durability != "none"
        if options.key is not None or request.node.conducted:
            self._life.open_asked(request)
            codec = CODEC_MSGPACK if request.origin is None else request.origin.codec
            wanted = _wanted(
                request.node,
                request.session,
                options,
                durability,
                request.params,
                codec,
                request.buffers,
                for_result=True,
                at_once=options.key is None,
            )
            self._hand_over(request, wanted, now)
            return
        request.keep = Keep(durability, request.params, request.buffers)
        if self._state in (_State.OPEN, _State.LOST):
            self._life.admit(request, now)
            return
        self._want()
        self._life.open(request)
        request.delayed = True
        self._waiting.append(request)

    def accept(
        self,
        session: Session,
        message: Call | MapChunk | Run,
        event: Received,
        key: Key,
        now: float,
    ) -> PronghornError | None:
        """Take in a message `Run`, or a call about runs; or tell why not.

        Args:
            session: Of whose it is.
            message: It.
            event: It came so.
            key: What the session is to know it by.
            now: Monotonic seconds.
        """
        name = START if isinstance(message, Run) else message.node
        if isinstance(message, MapChunk):
            return InvalidArgumentError(f"{name} can be called, not mapped")
        options = message.options or NO_OPTIONS
        error = refusal(
            session,
            self._life.queue,
            self._bounds,
            grant_bytes=self._limits.grant_bytes,
            id_=message.id,
            options=options,
            size=event.size,
        )
        if error is not None:
            return error
        try:
            asks = self._asks(session, message, event, now)
        except PronghornError as wrong:
            return wrong
        request = answered_here(key, session, _NODES[name], message, event, options, now)
        self._life.open_asked(request)
        self._hand_over(request, asks, now)
        return None

    def serve(self, now: float) -> None:
        """Begin the runs that have waited for nodes to be served."""
        self._calls.serve(now)

    def end(self, now: float) -> None:
        """Begin no runs any more, for all is about to end."""
        self._is_ending = True
        self._calls.end(now)

    def waiting(self) -> list[Request]:
        """List the requests that wait for the journal; for tests and invariants."""
        return [request for request in self._waiting if not request.ended]

    @property
    def conducted(self) -> Conducted:
        """Takes in what run hosts say of recorded runs."""
        return self._calls.conducted

    @property
    def runs_session(self) -> Session:
        """Whose requests the attempts of runs are; for invariants."""
        return self._calls.runs.session

    def check_invariants(self) -> None:
        """Check what is known of runs; for tests."""
        self._calls.check_invariants()

    # --- events ---------------------------------------------------------------------------------

    def on_welcomed(self, event: JournalWelcomed, now: float) -> None:
        """Take in that the journal is open."""
        self._state, self._reason = _State.OPEN, event.refusing
        if event.acknowledged > self._kept_through:
            self._kept_through, self._broken = event.acknowledged, 0
        self._calls.on_welcomed(self._recorder.on_welcomed(event), now)
        for request in self._take_waiting():
            self._life.readmit(request, now)

    def on_committed(self, event: JournalCommitted, now: float) -> None:
        """Take in what is kept."""
        steps = self._recorder.on_committed(event)
        self._kept_through, self._broken = event.through, 0
        if steps:
            self._calls.on_kept(steps, now)

    def on_answered(self, event: JournalAnswered, now: float) -> None:
        """Take in what the journal was asked."""
        self._calls.on_answered(event, now)

    def on_refusing(self, event: JournalRefusing, now: float) -> None:
        """Take in that there is no room, or that there is some again."""
        self._reason = event.reason

    def on_gone(self, event: JournalGone, now: float) -> None:
        """Take in that the journal has ended, or that there is none."""
        if event.message:
            self._state, self._reason = _State.ABSENT, event.message
            self._recorder.on_gone(event.message)
            for request in self._take_waiting():
                name = request.node.name
                details = ErrorDetails(outcome="not_started", node=name)
                why = f"{name} can't be recorded: {event.message}"
                self._life.fail(request, JournalError(why, details))
        elif self._state is _State.OPEN:
            # What it refused, for want of room, is for the next one to say.
            self._state, self._reason = _State.LOST, ""
            self._recorder.on_gone("")
        else:
            return
        self._calls.on_gone(event.message, now)

    def on_refused(self, event: JournalRefused, now: float) -> None:
        """Take in that a record can't be kept; all others will be."""
        self._lose(now)
        self._give_up_run(self._recorder.refuse(event.sequence, event.run, event.why), event, now)

    def on_broke(self, event: JournalBroke, now: float) -> None:
        """Take in that the journal has ended the stream because of what came on it."""
        self._lose(now)
        self._life.count.journal_broken += 1
        self._broken += 1
        if self._broken == QUESTIONS_GIVEN_UP:
            self._calls.give_up_questions(event.why, now)
        elif self._broken > QUESTIONS_GIVEN_UP:
            self._give_up_run(self._recorder.refuse_next(event.why), event, now)

    # --- inside ---------------------------------------------------------------------------------

    def _lose(self, now: float) -> None:
        """Keep what is outstanding until there is another welcome."""
        self.on_gone(JournalGone(), now)

    def _give_up_run(self, run: int, event: JournalRefused | JournalBroke, now: float) -> None:
        """Have nothing more to do with a run of which a record was given up; 0: there was none."""
        if not run:
            return
        self._life.count.records_refused += 1
        self._calls.on_refused(run, event.why, now)

    def _take_waiting(self) -> list[Request]:
        """Take out what waits and has not ended meanwhile."""
        waiting, self._waiting = self.waiting(), []
        for request in waiting:
            request.delayed = False
        return waiting

    def _want(self) -> None:
        """Have the journal opened, unless that was wanted before."""
        if self._state is _State.UNASKED:
            self._state = _State.AWAITED
            self._life.commands.append(WantJournal())

    def _hand_over(self, request: Request, asks: Asks, now: float) -> None:
        self._want()
        self._calls.take_in(request, asks, now)

    def _cannot_record(self, node: Node, now: float) -> PronghornError | None:
        """Return why nothing new can be recorded now, `None` if it can."""
        if self._reason:
            why = f"{node.name} can't be recorded: {self._reason}"
            return JournalError(why, _not_started(node))
        if self._recorder.standing(now) is Standing.REFUSE or len(self._waiting) >= WAITING_MAX:
            return journal_overload(node)
        return None

    def _asks(self, session: Session, message: Call | Run, event: Received, now: float) -> Asks:
        """Make what is asked of a message.

        Raises:
            PronghornError: It can't be.
        """
        origin = event.origin
        codec = CODEC_MSGPACK if origin is None else origin.codec
        as_json = codec == CODEC_JSON
        if isinstance(message, Call) and message.node != START:
            if self._state is _State.ABSENT:
                details = ErrorDetails(outcome="not_started", node=message.node)
                raise JournalError(f"the journal can't be asked: {self._reason}", details)
            return decode_of_run(message.node, message.params, as_json=as_json)
        options = message.options or NO_OPTIONS
        items = None
        if isinstance(message, Run):
            name, params, buffers = message.node, message.params, event.buffers
            items = _items_of(message, event) if options.items else None
        else:
            start = decode_start(message.params, as_json=as_json)
            name, params, buffers = start.node, start.params, ()
            options = msgspec.structs.replace(
                options,
                key=options.key if start.key is None else start.key,
                durability=start.durability or options.durability,
            )
        node = self._life.catalog.by_name.get(name)
        if node is None or not node.recordable:
            raise self._life.catalog.not_found(name)
        if self._is_ending:
            raise is_ending(name)
        if node.refused_until and now < node.refused_until:
            raise in_quarantine(node, now)
        if items is not None and node.streams:
            raise not_mapped(node)
        durability = options.durability or node.durability or "sync"
        if durability == "none":
            why = "a run that is started is recorded: its durability is batched or sync"
            raise InvalidArgumentError(f"{node.name}: {why}", _not_started(node))
        options = msgspec.structs.replace(options, durability=durability)
        error = self.refusal(node, options, now, chunk=False)
        if error is not None:
            raise error
        return _wanted(node, session, options, durability, params, codec, buffers, items=items)


def asks_for_record(node: Node, options: Options) -> bool:
    """Whether a request is to be recorded; those of Pronghorn's own nodes never are."""
    asks = options.durability is not None and options.durability != "none"
    return (asks or options.key is not None) and node.recordable


def _wanted(
    node: Node,
    session: Session,
    options: Options,
    durability: KeptDurability,
    params: Raw,
    codec: int,
    buffers: Sequence[bytes],
    *,
    for_result: bool = False,
    at_once: bool = False,
    items: int | None = None,
) -> Wanted:
    return Wanted(
        node,
        session.owner,
        options.key,
        durability,
        wrap_json(params) if codec == CODEC_JSON else params,
        buffers,
        codec,
        Options(priority=options.priority, affinity=options.affinity),
        for_result,
        at_once,
        items,
    )


def _not_started(node: Node) -> ErrorDetails:
    return ErrorDetails(outcome="not_started", node=node.name)


def _items_of(message: Run, event: Received) -> int:
    """Return of how many items a map is.

    Raises:
        InvalidArgumentError: It can't be one.
    """
    count = array_length(message.params)
    details = ErrorDetails(outcome="not_started", node=message.node, limit=ITEMS_MAX)
    if event.buffers or not is_array(message.params):
        why = "the params of a map are an array of those of its items, without buffers"
        raise InvalidArgumentError(f"{message.node}: {why}", details)
    if count > ITEMS_MAX:
        why = f"a recorded map has at most {ITEMS_MAX:,} items, this one has {count:,}"
        raise InvalidArgumentError(f"{message.node}: {why}", details)
    return count


def _unserved(node: Node, options: Options, *, chunk: bool) -> str:
    """Say what of a durable request can't be had; "" if nothing."""
    if chunk:
        return "chunks are not recorded: start a map that is, or map without durability"
    if options.stream is not None:
        return "calls whose parts are taken are not recorded: call it, or stream without durability"
    if options.key is not None and options.events:
        return "a run with a key may be another's, so its caller takes no events"
    if node.conducted and options.events:
        return "a recorded run of a workflow goes on without its caller: ask for its events"
    return ""


def _wrong_key(key: str, durability: str | None) -> str:
    """Say why a request can't have a key; "" if it can."""
    if durability in (None, "none"):
        return "a key is kept in the journal, so it needs a durability: batched or sync"
    size = len(key.encode("utf-8", "surrogatepass"))
    if not 0 < size <= KEY_BYTES_MAX:
        return f"a key has 1 to {KEY_BYTES_MAX} bytes, this one has {size}"
    return ""
