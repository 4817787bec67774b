"""Brings a conductor to where its run was, by telling it what it was told before. Pure.

What was recorded of the workflows within the run is not for its conductor: it is kept for those who
run them again, as long as the task that has called them may need it.

Mirror: tests/worker/flow/test_resuming.py.
"""

from collections.abc import Sequence
from typing import Final

from .conductor import Conductor
from .events import Ended, Event, ItemEnded, ItemsEnded, Outcome, Rerun, RunEnded, Start
from .history import Begun, Defined, Moment, Place, Reopened, Within
from .plan import Plan

_MUST_NOT_RUN_TWICE: Final = "it may have run when its host was lost, and must not run twice"
_CODE: Final = "INTERRUPTED"


class Resumed:
    """A conductor brought to where its run was.

    Attributes:
        conductor: It.
        ended: How the run had ended, if it had.
        reopened: Whether somebody wants it to go on then.
        interrupted: For the conductor: what was begun and must not run twice has come to nothing.
        inner: Of the workflows that run within it: see `InnerPasts`.
    """

    def __init__(self, plan: Plan, begin: Start, past: Sequence[Moment]) -> None:
        self.conductor = Conductor(plan)
        self.ended: RunEnded | None = None
        self.reopened = False
        self.inner = InnerPasts()
        begun: list[Begun] = []
        for moment in past:
            at, what, _ = moment
            if isinstance(what, Within):
                self.inner.take(self.conductor, moment, what)
            elif isinstance(what, Reopened):
                self.reopened = True
            elif isinstance(what, Begun):
                begun.append(what)
            elif not isinstance(what, Defined):
                event: Event = what
                if isinstance(what, Start):  # over again, if it was begun before
                    self.conductor, self.inner, event = Conductor(plan), InnerPasts(), begin
                self.inner.before(self.conductor, event)
                for command in self.conductor.handle(event, at):
                    if isinstance(command, RunEnded):
                        self.ended = command
                if isinstance(what, Rerun):
                    self.inner.rerun(self.conductor)
                self.reopened = False
        if not self.conductor.ended:
            self.ended = None
        self.interrupted = [
            _interrupted(each) for each in begun if self.conductor.runs(each.execution, each.item)
        ]
        self.inner.drop_ended(self.conductor)


class InnerPasts:
    """What the workflows within a run came through.

    Attributes:
        open: Place -> that, of those that go on if what runs there is run again. A workflow that
            has failed goes on as the run does when it is tried again.
    """

    def __init__(self) -> None:
        self.open: dict[Place, list[Moment]] = {}
        # Number of the first attempt of a task -> its items (None if it has none) that have failed
        # with a workflow -> the past of that
        self._failed: dict[int, dict[int | None, list[Moment]]] = {}

    def take(self, conductor: Conductor, moment: Moment, within: Within) -> None:
        """Take in what one of them came through; nothing if it comes late."""
        place, *rest = within.path
        if not conductor.runs(*place):
            return
        what = within._replace(path=tuple(rest)) if rest else within.what
        self.open.setdefault(place, []).append(moment._replace(what=what))

    def before(self, conductor: Conductor, event: Event) -> None:
        """Take in what the conductor is about to be told."""
        if not self.open and not self._failed:
            return
        if isinstance(event, Ended):
            self._end(conductor, (event.execution, None), event.status)
        elif isinstance(event, ItemsEnded):
            for item in event.items:
                self._end(conductor, (event.execution, item.index), item.status)

    def rerun(self, conductor: Conductor) -> None:
        """Let those that have failed go on in the attempts that the conductor has begun."""
        for execution in conductor.state.executions.values():
            for item, past in self._failed.get(execution.order, {}).items():
                past.append(Moment(past[-1].at, Reopened()))
                self.open[execution.number, item] = past
        self._failed.clear()

    def drop_ended(self, conductor: Conductor) -> None:
        """Forget those of tasks that have ended otherwise than by themselves."""
        executions = conductor.state.executions
        for place in [place for place in self.open if place[0] not in executions]:
            del self.open[place]

    def _end(self, conductor: Conductor, place: Place, status: Outcome) -> None:
        if not conductor.runs(*place):
            return
        past = self.open.pop(place, None)
        failed = self._failed.setdefault(conductor.state.executions[place[0]].order, {})
        failed.pop(place[1], None)
        if past is not None and status == "failed":
            failed[place[1]] = past


def _interrupted(begun: Begun) -> Event:
    """Make the end of what was begun and has none."""
    result = {"code": _CODE, "message": _MUST_NOT_RUN_TWICE}
    if begun.item is None:
        return Ended(begun.execution, "abandoned", result, _MUST_NOT_RUN_TWICE)
    item = ItemEnded(begun.item, "abandoned", result, _MUST_NOT_RUN_TWICE)
    return ItemsEnded(begun.execution, [item])
