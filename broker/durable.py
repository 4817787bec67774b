"""Whether calls that are to be recorded can be, and what the journal says. Pure.

The journal as the broker has it::

                     ┌────────────────── gone, and why ──────────────┐
                     ▼                                               │
    unasked ──►  awaited ──gone, and why──► absent ──welcomed──► open ◄──welcomed── lost
      first call     └────────────────────welcomed──────────────► └───────gone───────►┘

- Awaited: calls wait, for none may begin before it is known that it can be recorded.
- Lost: its process has died. Calls are accepted on, for another one is started, which gets the
  records that the one before has not kept; how many there may be, and how old, is bounded.
- Absent: there is no folder for it, or it can't be used: calls are refused until it can.

Mirror: tests/broker/test_durable.py.
"""

from enum import Enum, auto
from typing import Final

from .events import JournalCommitted, JournalGone, JournalRefusing, JournalWelcomed, WantJournal
from .journal.backlog import Standing
from .lifecycle import Lifecycle
from .requests import Keep, Node, Request
from .verdicts import journal_overload
from .wire.errors import ErrorDetails, JournalError, PronghornError, UnimplementedError
from .wire.messages import Options
from .wire.table import BUILTIN_PREFIX

WAITING_MAX: Final = 10_000
"""Requests that wait for the journal to open; more are refused."""


class _State(Enum):
    UNASKED = auto()
    AWAITED = auto()
    OPEN = auto()
    LOST = auto()
    ABSENT = auto()


class Durable:
    """The journal's standing, and the requests that wait for it to open."""

    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._recorder = life.recorder
        self._state = _State.UNASKED
        self._reason = ""  # why it is absent, or refuses what is new
        self._waiting: list[Request] = []  # until it is open or absent; some have ended meanwhile

    def refusal(
        self, node: Node, options: Options, now: float, *, chunk: bool
    ) -> PronghornError | None:
        """Return why a request can't be recorded, `None` if it can."""
        unserved = _unserved(options, chunk=chunk)
        if unserved:
            details = ErrorDetails(outcome="not_started", node=node.name)
            return UnimplementedError(f"{node.name}: {unserved}", details)
        if self._reason:
            details = ErrorDetails(outcome="not_started", node=node.name)
            return JournalError(f"{node.name} can't be recorded: {self._reason}", details)
        if self._recorder.standing(now) is Standing.REFUSE or len(self._waiting) >= WAITING_MAX:
            return journal_overload(node)
        return None

    def admit(self, request: Request, options: Options, now: float) -> None:
        """Take in a request that is to be recorded, now or when the journal is open."""
        assert options.durability is not None
        assert options.durability != "none"
        request.keep = Keep(options.durability, request.params, request.buffers)
        if self._state in (_State.OPEN, _State.LOST):
            self._life.admit(request, now)
            return
        if self._state is _State.UNASKED:
            self._state = _State.AWAITED
            self._life.commands.append(WantJournal())
        self._life.open(request)
        request.delayed = True
        self._waiting.append(request)

    def waiting(self) -> list[Request]:
        """List the requests that wait for the journal; for tests and invariants."""
        return [request for request in self._waiting if not request.ended]

    # --- events ---------------------------------------------------------------------------------

    def on_welcomed(self, event: JournalWelcomed, now: float) -> None:
        """Take in that the journal is open."""
        self._state, self._reason = _State.OPEN, event.refusing
        self._recorder.on_welcomed(event)
        for request in self._take_waiting():
            self._life.readmit(request, now)

    def on_committed(self, event: JournalCommitted, now: float) -> None:
        """Take in what is kept."""
        self._recorder.on_committed(event)

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

    def _take_waiting(self) -> list[Request]:
        """Take out what waits and has not ended meanwhile."""
        waiting, self._waiting = self.waiting(), []
        for request in waiting:
            request.delayed = False
        return waiting


def asks_for_record(node: Node, options: Options) -> bool:
    """Whether a request is to be recorded; those of Pronghorn's own nodes never are."""
    asks = options.durability is not None and options.durability != "none"
    return asks and not node.name.startswith(BUILTIN_PREFIX)


def _unserved(options: Options, *, chunk: bool) -> str:
    """Say what of a durable request can't be had yet; "" if nothing."""
    if chunk:
        return "only calls are recorded, not maps: map without durability"
    if options.stream is not None:
        return "calls whose parts are taken are not recorded: call it, or stream without durability"
    if options.key is not None:
        return "idempotency keys are not served yet: leave the key out"
    return ""
