"""Runs the workflows that tasks of a run call. An IO shell.

Each is a run of its own with its own conductor, on the same loop. Of a recorded run it is a part:
it is recorded there, and goes on from where it was, with the definition with which it had begun.

Mirror: tests/worker/flow/test_inner.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from pronghorn.broker.wire.errors import OverloadedError
from pronghorn.broker.wire.flows import RunReport

from ..context import Context
from .calls import Called, failed_by
from .events import Event, Pause, Resume, Signal, Start
from .history import Moment, Place
from .limits import FLOW_DEPTH_MAX
from .plan import Plan
from .recording import AnyRecording
from .sharing import Sharing

if TYPE_CHECKING:
    from .live import LiveRun
    from .runtime import FlowRuntime


class InnerRuns:
    """Those of one run.

    Attributes:
        runs: Those that go on.
        on_begun: Called when one begins.
        take_signal: Gives a signal that the run keeps, or one that it lies within, and takes it out
            there; None if there is none of that name.
        pasts: Place -> what a workflow came through there; it goes on behind that once it is called
            again, and is taken out then.

    Args:
        runtime: What all runs share.
        recording: Of the run, if it is recorded.
        sharing: Has the large values of the run, and of these.
        within: The call that the run is made for, if it is.
        depth: Workflows that the run lies within.
    """

    def __init__(
        self,
        runtime: FlowRuntime,
        recording: AnyRecording | None,
        sharing: Sharing,
        *,
        within: Context | None,
        depth: int,
    ) -> None:
        self._runtime = runtime
        self._recording = recording
        self._sharing = sharing
        self._within = within
        self._depth = depth
        self.runs: dict[LiveRun, None] = {}  # in the order in which they have begun
        self.on_begun: Callable[[], None] = _do_nothing
        self.take_signal: Callable[[str], Signal | None] = no_signal
        self._pause: Event | None = None  # what they are told when they begin
        self.pasts: dict[Place, list[Moment]] = {}

    def tell(self, event: Event) -> None:
        """Have all do the same."""
        for run in self.runs:
            run.tell(event)

    def paused(self, pause: Event | None) -> None:
        """Set what they are told when they begin."""
        self._pause = pause

    def plan_at(self, place: Place) -> Plan | None:
        """Give the plan of the one that had begun there, whatever its name stands for now."""
        for moment in reversed(self.pasts.get(place, ())):
            if moment.workflow is not None and isinstance(moment.what, Start):
                return self._runtime.plan_of(moment.workflow)
        return None

    async def call(
        self, place: Place, task: str, plan: Plan, given: dict[str, Any] | None
    ) -> Called:
        """Run one to its end.

        Args:
            place: What it runs for.
            task: The name of that.
            plan: What runs.
            given: Its input by name.

        Raises:
            asyncio.CancelledError: Who waits was cancelled.
        """
        if self._depth >= FLOW_DEPTH_MAX:
            message = f"workflows lie within each other {FLOW_DEPTH_MAX} deep, that is the limit"
            return failed_by(OverloadedError(message))
        past = self.pasts.pop(place, [])
        was_paused = _was_paused(past)
        recording = self._recording
        run = self._runtime.start(
            plan,
            given,
            level="terminal",
            within=self._within,
            depth=self._depth + 1,
            recording=None if recording is None else recording.within(place, task, plan, past),
            sharing=self._sharing,
        )
        if self._pause is not None and not was_paused:
            run.tell(self._pause)
        elif self._pause is None and was_paused:
            run.tell(Resume())  # it was lost before it was told
        run.outer_signal = self.take_signal
        self.runs[run] = None
        self.on_begun()
        try:
            report = await run.run()
        finally:
            del self.runs[run]
        return outcome_of(report)


def outcome_of(report: RunReport) -> Called:
    """Make the outcome of a task from that of the workflow that it has called."""
    if report.status == "succeeded":
        return Called("succeeded", report.output)
    errors = [_plain(each) for each in report.errors]
    status: Any = report.status
    return Called(status, {"output": report.output, "errors": errors}, report.reason())


def no_signal(name: str) -> Signal | None:
    """Give none: the run lies within no other."""
    return None


def _do_nothing() -> None:
    pass


def _was_paused(past: list[Moment]) -> bool:
    """Whether the order to pause was the last one of that kind."""
    orders = [moment.what for moment in past if isinstance(moment.what, Pause | Resume)]
    return bool(orders) and isinstance(orders[-1], Pause)


def _plain(failure: Any) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(failure)
    return made
