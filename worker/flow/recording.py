"""The recording of one run: what its conductor is told goes to the journal, and comes back.

Nothing is sent for each task: what a turn of the run brings leaves together at its end, and a run
that is ahead of the journal by `AHEAD_BYTES` twice waits for it. What the conductors of workflows
within the run are told goes with it.

Mirror: tests/worker/flow/test_recording.py.
"""

from collections.abc import Iterator
from time import monotonic, time
from typing import Final

from pronghorn.broker.wire.errors import JournalError
from pronghorn.broker.wire.values import Buffer

from ..recorded import Attempt
from .events import Command, Event, Start, TaskEnded
from .history import (
    Begun,
    Defined,
    Moment,
    Place,
    Reopened,
    Told,
    Within,
    encode_workflow,
    read,
    write,
)
from .model import Workflow, content_hash
from .plan import Plan

AHEAD_BYTES: Final = 256 << 10
AHEAD_RECORDS: Final = 64
"""What is sent before the journal is asked whether it has kept that."""

_TASKS_MAX: Final = 1000  # that are named in one record, for people


class Recording:
    """Of one run; made by `take_up`.

    Attributes:
        id: Of the run.
        past: What the run came through before this attempt.
        may_rest: Whether the run may be let go while it has nothing to do.
        workflow: What it was begun with, if that was recorded.
    """

    may_rest: Final = True

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
        self._notes: list[tuple[float, Told]] = []  # to be recorded
        self._tasks: list[tuple[str, str]] = []  # that have ended, for the same record
        self._moved = False  # whether it says what is not done again
        self._bytes = self._records = 0  # since the journal was asked
        # Digest -> number of a definition that is recorded for workflows within the run
        self._numbers = {
            content_hash(each.what.workflow): each.what.number
            for each in past
            if isinstance(each.what, Defined)
        }

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

    def note_within(
        self, what: Within, now: float, tasks: list[tuple[str, str]], *, moved: bool
    ) -> None:
        """Note what the conductor of a workflow within the run was told, and what tasks ended."""
        self._notes.append((now, what))
        self._moved = self._moved or moved
        self._tasks += tasks[: _TASKS_MAX - len(self._tasks)]

    def number_of(self, plan: Plan) -> int:
        """Give the number of a definition; a new one is written before what is noted next."""
        number = self._numbers.get(plan.digest)
        if number is None:
            number = self._numbers[plan.digest] = len(self._numbers)
            self._notes.append((self.clock(), Defined(number, plan.workflow)))
        return number

    def within(self, place: Place, task: str, plan: Plan, past: list[Moment]) -> "InnerRecording":
        """Make the recording of a workflow that a task or an item of the run has called.

        Args:
            place: Of the task or item.
            task: Its name, for people.
            plan: What runs.
            past: What the workflow came through before.
        """
        return InnerRecording(self, (place,), task, plan, past)

    def end(self) -> None:
        """Have the rest leave with the end of the run."""
        self.flush(is_last=True)

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
        await self.keep(begun)

    async def keep(self, what: Begun | Within) -> None:
        """Record something, and wait until it is kept."""
        self._notes.append((self.clock(), what))
        self.flush(asks=True)
        await self._attempt.kept()


class InnerRecording:
    """Of a workflow within a recorded run: a part of the recording of that.

    Attributes:
        past: What the workflow came through before this attempt.
        may_rest: Whether it may be let go: the run is, as a whole.

    Args:
        run: Of the run.
        path: To the workflow.
        name: Names of the tasks on the way, for people.
        plan: What runs.
        past: See above.
    """

    may_rest: Final = False

    def __init__(
        self, run: Recording, path: tuple[Place, ...], name: str, plan: Plan, past: list[Moment]
    ) -> None:
        self.past = past
        self._run = run
        self._path = path
        self._name = name
        self._plan = plan

    def clock(self) -> float:
        """Tell the time of the run."""
        return self._run.clock()

    def note(self, event: Event, now: float, commands: list[Command], *, moved: bool) -> None:
        """Note what the conductor was told, and what came of it."""
        if isinstance(event, Start):
            what = Within(self._path, event, self._run.number_of(self._plan))
        else:
            what = Within(self._path, event)
        tasks = [
            (f"{self._name}/{command.task}", str(command.status))
            for command in commands
            if isinstance(command, TaskEnded)
        ]
        self._run.note_within(what, now, tasks, moved=moved)

    def within(self, place: Place, task: str, plan: Plan, past: list[Moment]) -> "InnerRecording":
        """Make the recording of a workflow that this one has called."""
        path = (*self._path, place)
        return InnerRecording(self._run, path, f"{self._name}/{task}", plan, past)

    async def keep_up(self) -> None:
        """Send what was noted, and wait if too much is not kept."""
        await self._run.keep_up()

    async def begin(self, begun: Begun) -> None:
        """Record, and have it kept, that something begins which must not run twice."""
        await self._run.keep(Within(self._path, begun))

    def end(self) -> None:
        """Leave it to the run: its task ends next."""


AnyRecording = Recording | InnerRecording


async def take_up(attempt: Attempt) -> Recording:
    """Begin an attempt with all that was recorded before.

    Raises:
        JournalError: That can't be read.
    """
    past: list[Moment] = []
    definitions: dict[int, Workflow] = {}
    for value, buffers in await attempt.history():
        if bytes(value) == _REOPENED:
            at = past[-1].at if past else 0.0
            past.append(Moment(at, Reopened()))
        else:
            past += _with_definitions(read(value, buffers), definitions)
    return Recording(attempt, past)


_REOPENED: Final = b"\xc0"


def _with_definitions(moments: list[Moment], definitions: dict[int, Workflow]) -> Iterator[Moment]:
    """Give each workflow within the run the definition that it has begun with."""
    for moment in moments:
        what = moment.what
        if isinstance(what, Defined):
            definitions[what.number] = what.workflow
        if not isinstance(what, Within) or not isinstance(what.what, Start):
            yield moment
        elif what.definition in definitions:
            yield moment._replace(workflow=definitions[what.definition])
        else:
            raise JournalError(f"definition {what.definition} is not there")


def _size(buffer: Buffer) -> int:
    return memoryview(buffer).nbytes
