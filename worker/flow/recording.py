"""The recording of one run: what its conductor is told goes to the journal, and comes back.

Nothing is sent for each task: what a turn of the run brings leaves together at its end, and a run
that is ahead of the journal by `AHEAD_BYTES` twice waits for it.

Mirror: tests/worker/flow/test_recording.py.
"""

from time import monotonic, time
from typing import Final

from pronghorn.broker.wire.values import Buffer

from ..recorded import Attempt
from .conductor import Conductor
from .events import Command, Ended, Event, ItemEnded, ItemsEnded, RunEnded, Start, TaskEnded
from .history import Begun, Moment, Reopened, encode_workflow, read, write
from .model import Workflow
from .plan import Plan

AHEAD_BYTES: Final = 256 << 10
AHEAD_RECORDS: Final = 64
"""What is sent before the journal is asked whether it has kept that."""

_TASKS_MAX: Final = 1000  # that are named in one record, for people
_MUST_NOT_RUN_TWICE: Final = "it may have run when its host was lost, and must not run twice"
_CODE: Final = "INTERRUPTED"


class Recording:
    """Of one run; made by `take_up`.

    Attributes:
        id: Of the run.
        past: What the run came through before this attempt.
        workflow: What it was begun with, if that was recorded.
    """

    def __init__(self, attempt: Attempt, past: list[Moment]) -> None:
        self.id = attempt.run
        self.past = past
        starts = [each.workflow for each in past if isinstance(each.what, Start)]
        self.workflow = starts[-1] if starts else None
        self._attempt = attempt
        self._definition: bytes | None = None
        # Seconds since 1970 at the zero of the monotonic clock; never before what was.
        last = max((each.at for each in past), default=0.0)
        self._epoch = max(time(), last) - monotonic()
        self._notes: list[tuple[float, Event | Begun]] = []  # to be recorded
        self._tasks: list[tuple[str, str]] = []  # that have ended, for the same record
        self._moved = False  # whether it says what is not done again
        self._bytes = self._records = 0  # since the journal was asked

    def define(self, workflow: Workflow) -> None:
        """Have the definition recorded with the beginning of the run."""
        self._definition = encode_workflow(workflow)

    def clock(self) -> float:
        """Tell the time of the run: seconds since 1970, which go on while nobody conducts it."""
        return monotonic() + self._epoch

    def note(self, event: Event, now: float, commands: list[Command], *, moved: bool) -> None:
        """Note what the conductor was told, and what came of it."""
        self._notes.append((now, event))
        self._moved = self._moved or moved
        for command in commands:
            if type(command) is TaskEnded and len(self._tasks) < _TASKS_MAX:
                self._tasks.append((command.task, command.status))

    def flush(self, *, asks: bool = False, is_last: bool = False) -> None:
        """Send what was noted; the last of it leaves with the end of the run."""
        if not self._notes:
            return
        value, buffers = write(self._notes, self._definition)
        self._bytes += len(value) + sum(map(_size, buffers))
        self._records += 1
        if self._bytes >= AHEAD_BYTES or self._records >= AHEAD_RECORDS:
            asks = True
        if asks:
            self._bytes = self._records = 0
        self._attempt.advance(
            value, buffers, tuple(self._tasks), moved=self._moved, asks=asks, is_last=is_last
        )
        self._notes, self._tasks, self._moved = [], [], False

    async def keep_up(self) -> None:
        """Send what was noted, and wait if too much is not kept."""
        self.flush()
        await self._attempt.kept(at_most=1)

    async def begin(self, begun: Begun) -> None:
        """Record, and have it kept, that something begins which must not run twice."""
        self._notes.append((self.clock(), begun))
        self.flush(asks=True)
        await self._attempt.kept()


class Resumed:
    """A conductor brought to where its run was.

    Attributes:
        conductor: It.
        ended: How the run had ended, if it had.
        reopened: Whether somebody wants it to go on then.
        interrupted: For the conductor: what was begun and must not run twice has come to nothing.
    """

    def __init__(self, plan: Plan, begin: Start, past: list[Moment]) -> None:
        self.conductor = Conductor(plan)
        self.ended: RunEnded | None = None
        self.reopened = False
        begun: list[Begun] = []
        for at, what, _ in past:
            if isinstance(what, Reopened):
                self.reopened = True
            elif isinstance(what, Begun):
                begun.append(what)
            else:
                event: Event = what
                if isinstance(what, Start):  # over again, if it was begun before
                    self.conductor, event = Conductor(plan), begin
                for command in self.conductor.handle(event, at):
                    if isinstance(command, RunEnded):
                        self.ended = command
                self.reopened = False
        if not self.conductor.ended:
            self.ended = None
        self.interrupted = [
            _interrupted(each) for each in begun if self.conductor.runs(each.execution, each.item)
        ]


async def take_up(attempt: Attempt) -> Recording:
    """Begin an attempt with all that was recorded before.

    Raises:
        JournalError: That can't be read.
    """
    past: list[Moment] = []
    for value, buffers in await attempt.history():
        if bytes(value) == _REOPENED:
            at = past[-1].at if past else 0.0
            past.append(Moment(at, Reopened()))
        else:
            past += read(value, buffers)
    return Recording(attempt, past)


_REOPENED: Final = b"\xc0"


def _interrupted(begun: Begun) -> Event:
    """Make the end of what was begun and has none."""
    result = {"code": _CODE, "message": _MUST_NOT_RUN_TWICE}
    if begun.item is None:
        return Ended(begun.execution, "abandoned", result, _MUST_NOT_RUN_TWICE)
    item = ItemEnded(begun.item, "abandoned", result, _MUST_NOT_RUN_TWICE)
    return ItemsEnded(begun.execution, [item])


def _size(buffer: Buffer) -> int:
    return memoryview(buffer).nbytes
