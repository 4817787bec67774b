"""Conducts one run of a workflow: events in, commands out. Pure: no clock, no IO, nothing shared.

Statuses of a run::

    new ──► running ◄──► pausing ──► paused
               │            (resume: back to running)
               ├──► canceling ──► canceled
               ├──► failed        (what runs still ends; then RunEnded)
               └──► succeeded

Rules (the numbers are cited below):

C1  A task starts when it is *ready*: at the start if nothing leads to it, else when a transition
    has fired that leads there and, for a join, enough of its sources have.
C2  Tasks that are ready together are rendered together. If one can't be, none of them starts.
C3  ``next`` is looked at in order. An entry that fires publishes, then leads to its targets.
C4  A failure is handled if a transition fired that leads to anything but ``continue``. One that is
    not fails the run: what runs ends, nothing else starts, except what stands beside a ``fail``.
C5  A join counts the tasks that lead to it and whose last execution on its route has led to it. It
    fires again with each further arrival. One that is met only in part at the end fails the run.
C6  A task with several ways to it and no join runs once for each, on a route of its own, unless
    it lies in a cycle.
C7  The output is made from what all ended branches have seen, also after a failure.

Costs: a task some 20 us, an item 1 to 3 us, whatever the size of the context; nothing is copied.
``scripts/bench workflow`` guards that.

`transitions` decides what follows a task, `tasks` starts and ends them; this module takes the
events and ends the run. Mirror: tests/worker/flow/test_conductor.py.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from pronghorn.broker.wire.flows import ContextSize

from .context import Context, merge
from .events import (
    Cancel,
    Command,
    Ended,
    Event,
    Failure,
    ItemEnded,
    ItemsEnded,
    ItemsGiven,
    Pause,
    Refused,
    Rerun,
    Resume,
    RunEnded,
    RunStatus,
    Signal,
    Start,
    Stop,
    TakeSignal,
    TakeUp,
    Tick,
)
from .items import RUNNING
from .limits import SIGNALS_MAX
from .plan import Plan
from .rendering import RenderError, evaluate
from .run import ENDED, MOVING, OF_THE_RUN, Run
from .scope import FAILED_STATUSES, Scope
from .state import Arrival, Execution, Lost, RunState, Spot
from .tasks import Tasks
from .transitions import Transitions


class Conductor:
    """One run.

    Attributes:
        plan: What is run.
        state: All else; only `handle` changes it.
    """

    __slots__ = ("_run", "_settled", "_tasks", "_transitions", "plan", "state")

    def __init__(self, plan: Plan, state: RunState | None = None) -> None:
        self.plan = plan
        self.state = RunState() if state is None else state
        self._run = Run(plan, self.state)
        self._transitions = Transitions(self._run)
        self._tasks = Tasks(self._run, self._transitions)
        self._settled: RunStatus | None = None  # the status for which `_settle` has done its part

    @property
    def status(self) -> RunStatus:
        """The run's status; ``failed`` is told as soon as nothing can help."""
        return self.state.status

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state.ended

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs: it waits for a time or an order, or has ended."""
        return not any(map(_is_running, self.state.executions.values()))

    @property
    def context_size(self) -> ContextSize:
        """How large the variables are."""
        state = self.state
        growth = state.context_bytes - state.first_bytes
        return ContextSize(state.context_bytes, growth, state.largest, state.largest_bytes)

    @property
    def can_rerun(self) -> bool:
        """Whether the run has ended and left something that can be run again."""
        return self.state.ended and bool(self.state.lost or self.state.ready)

    def runs(self, execution: int, index: int | None) -> bool:
        """Whether an execution runs that has no items, or that item of one."""
        found = self.state.executions.get(execution)
        if found is None:
            return False
        if index is None or found.items is None:
            return found.state == "running"
        return found.items.states[index] == RUNNING

    def waits_for(self) -> list[str]:
        """Name the signals that tasks wait for."""
        executions = self.state.executions.values()
        return [each.wait_for or "" for each in executions if each.state == "waiting"]

    def kept_signal(self, name: str) -> Signal | None:
        """Give the first signal of a name that no task has waited for yet."""
        return next((Signal(*kept) for kept in self.state.signals if kept[0] == name), None)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take an event; return what is to be done, in order."""
        self._run.commands = []
        _HANDLERS[type(event)](self, event, now)
        return self._run.commands

    def deadline(self) -> float | None:
        """Tell when a `Tick` is due, None if time changes nothing."""
        timer = self._run.next_timer()
        return None if timer is None else timer[0]

    def delay_deadline(self) -> float | None:
        """Tell when the next delayed task is due; for rehearsals, where delays take no time."""
        due = [each.due for each in self.state.executions.values() if each.due is not None]
        return min(due, default=None)

    # Events

    def _on_start(self, event: Start, now: float) -> None:
        if self.state.status != "new":
            self._refuse("the run has started already")
            return
        self._begin(now)
        context = self._first_context(event)
        if context is not None:
            for task in self.plan.starts:
                self.state.ready[task, 0] = Arrival([context])
        self._advance(now)

    def _on_ended(self, event: Ended, now: float) -> None:
        execution = self.state.executions.get(event.execution)
        if execution is None or execution.items is not None or execution.state == "delayed":
            return  # late: it was stopped, or its time was up
        if event.status in FAILED_STATUSES:
            self._run.note_failure(execution, event.status, event.message, result=event.result)
        self._tasks.finish(execution, event.status, event.result, now)
        self._advance(now)

    def _on_items_ended(self, event: ItemsEnded, now: float) -> None:
        execution = self.state.executions.get(event.execution)
        if execution is None or execution.items is None:
            return
        items = execution.items
        for each in event.items:  # hot: guarded by ``scripts/bench workflow``
            if items.end(each) and each.status in FAILED_STATUSES:
                self._run.note_failure(
                    execution, each.status, each.message, item=each.index, result=each.result
                )
        if items.canceled and self.state.status in MOVING:
            self._run.become("canceling")
        self._tasks.go_on_with_items(execution, now)
        self._advance(now)

    def _on_items_given(self, event: ItemsGiven, now: float) -> None:
        execution = self.state.executions.get(event.execution)
        if execution is None or execution.items is None or not execution.items.is_open:
            return
        if event.status in FAILED_STATUSES:
            self._run.note_failure(execution, event.status, event.message, result=event.result)
        elif event.status == "canceled" and self.state.status in MOVING:
            self._run.become("canceling")
        self._tasks.take_given(execution, event, now)
        self._advance(now)

    def _on_tick(self, event: Tick, now: float) -> None:
        while (timer := self._run.next_timer()) is not None and timer[0] <= now:
            self._run.drop_timer()
            when, number = timer
            if number == OF_THE_RUN:
                self._run_out_of_time()
                continue
            execution = self.state.executions[number]
            if execution.due == when:
                self._tasks.come_due(execution, now)
            else:
                self._tasks.time_out(execution, now)
        self._advance(now)

    def _on_pause(self, event: Pause, now: float) -> None:
        if self.state.status in ("pausing", "paused"):
            return
        if self.state.status != "running":
            self._refuse(f"a run that is {self.state.status} can't be paused")
            return
        self._run.become("pausing")
        self._advance(now)

    def _on_resume(self, event: Resume, now: float) -> None:
        if self.state.status == "running":
            return
        if self.state.status not in ("pausing", "paused"):
            self._refuse(f"a run that is {self.state.status} can't be resumed")
            return
        self._run.become("running")
        for execution in list(self.state.executions.values()):
            if execution.state == "delayed":
                self._tasks.come_due(execution, now)
            elif execution.items is not None:
                self._tasks.go_on_with_items(execution, now)
        self._advance(now)

    def _on_cancel(self, event: Cancel, now: float) -> None:
        if self.state.ended:
            self._refuse(f"the run has {self.state.status} already")
            return
        if self.state.status == "failed":
            self._close()
        else:
            self._run.become("canceling")
        if event.stop_running:
            self._stop_all()
        self._advance(now)

    def _on_rerun(self, event: Rerun, now: float) -> None:
        if not self.state.ended:
            self._refuse("only a run that has ended can be run again")
            return
        chosen = self._choose_lost(event.tasks)
        if chosen is None:
            return
        again = {self.plan.tasks[task].name for task, _ in chosen}
        for spot, lost in chosen.items():
            self._take_up(spot, lost)
        kept = [each for each in self.state.errors if each.task is not None]
        self.state.errors = [each for each in kept if each.task not in again]
        self.state.ended = self.state.closed = False
        self._begin(now)
        self._advance(now)

    def _on_take_up(self, event: TakeUp, now: float) -> None:
        if self.state.ended:
            self._refuse(f"the run has {self.state.status} already")
            return
        for execution in list(self.state.executions.values()):
            if not _is_running(execution) and not _is_fed(execution):
                continue
            if self.state.status != "canceling":
                self._tasks.run_again(execution, now)
            elif execution.items is None:
                self._tasks.finish(execution, "canceled", None, now)
            else:
                for item in execution.items.in_flight():
                    execution.items.end(ItemEnded(item.index, "canceled"))
                self._tasks.go_on_with_items(execution, now)
        self._advance(now)

    def _on_signal(self, event: Signal, now: float) -> None:
        if self.state.ended:
            self._refuse(f"the run has {self.state.status} already")
            return
        for execution in self.state.executions.values():
            if execution.state == "waiting" and execution.wait_for == event.name:
                self._tasks.finish(execution, "succeeded", event.value, now)
                self._advance(now)
                return
        if len(self.state.signals) >= SIGNALS_MAX:
            self._refuse(f"{SIGNALS_MAX} signals are kept already that no task has waited for")
            return
        self.state.signals.append((event.name, event.value))

    def _on_take_signal(self, event: TakeSignal, now: float) -> None:
        for index, (name, _) in enumerate(self.state.signals):
            if name == event.name:
                del self.state.signals[index]
                return
        self._refuse(f"no signal {event.name} is kept")

    # How a run begins

    def _begin(self, now: float) -> None:
        timeout_s = self.plan.timeout
        self.state.deadline = None if timeout_s is None else now + timeout_s
        self._run.begin_timers()
        self._run.become("running")

    def _first_context(self, event: Start) -> Context | None:
        """Make what the first tasks see: what the caller passes, its input, the variables."""
        variables = dict(event.context)
        scope = Scope(Context.first(variables))  # which sees each as soon as it is there
        wrong = False
        for field, declared in (("input", self.plan.input), ("vars", self.plan.vars)):
            for name, template in declared:
                try:
                    if field == "input" and name in event.inputs:
                        variables[name] = event.inputs[name]
                    else:
                        variables[name] = evaluate(template, scope, f"{field}.{name}")
                except RenderError as error:
                    self._run.note(Failure("expression", error.message, field=error.field))
                    wrong = True
        if wrong:
            self._run.fail()
            return None
        self.state.first_bytes = self._run.measure(variables)
        return scope.context

    def _choose_lost(self, tasks: tuple[str, ...] | None) -> dict[Spot, Lost] | None:
        """Choose the failed tasks to be run again; None, and refused, if that makes no sense."""
        names = None if tasks is None else set(tasks)
        chosen = {
            spot: lost
            for spot, lost in self.state.lost.items()
            if names is None or self.plan.tasks[spot[0]].name in names
        }
        unknown = (names or set()) - {self.plan.tasks[task].name for task, _ in chosen}
        if unknown:
            self._refuse(f"these tasks have not failed: {', '.join(sorted(unknown))}")
            return None
        if not chosen and not self.state.ready:
            self._refuse("there is nothing to run again")
            return None
        return chosen

    def _take_up(self, spot: Spot, lost: Lost) -> None:
        state = self.state
        del state.lost[spot]
        state.terminals = [each for each in state.terminals if each.order != lost.order]
        state.ready[spot] = Arrival([lost.context], items=lost.items, order=lost.order)

    # How it ends

    def _advance(self, now: float) -> None:
        """Start what may start, and see whether the run has come to its end."""
        while self._tasks.start_ready(now):
            pass
        self._settle()

    def _settle(self) -> None:
        """End the run, or its pause begin, when nothing runs any more."""
        state = self.state
        if state.status != self._settled:
            self._settled = state.status
            if state.status in ("failed", "canceling"):
                self._drop_idle()
        if state.ended or state.status in ("new", "paused"):
            return
        if state.status == "pausing":
            if not any(map(_is_running, state.executions.values())):
                self._run.become("paused")
        elif state.executions:
            return
        elif state.status == "canceling":
            self._end("canceled")
        elif state.status == "failed":
            self._end("failed")
        elif self._transitions.note_unmet_joins():
            self._transitions.end_at_last()
            self._end("failed")
        elif not state.ready:
            self._end("succeeded")

    def _end(self, status: RunStatus) -> None:
        state = self.state
        before, state.status = state.status, status
        output = self._output()  # which may fail the run
        if state.status != before:
            self._run.become(state.status)
        state.ended = True
        final = cast(Any, state.status)
        errors = tuple(state.errors)
        self._run.commands.append(
            RunEnded(final, output, errors, state.errors_left_out, self.context_size)
        )

    def _output(self) -> dict[str, Any] | None:
        """Evaluate the output (C7); what can't be is left out and fails the run."""
        state = self.state
        ordered = sorted(state.terminals, key=lambda each: each.position)
        seen = merge(each.context for each in ordered) if ordered else Context.first({})
        made: dict[str, Any] = {}
        scope = Scope(Context.view(seen, made), status_of=lambda name: self._run.status_of(name, 0))
        for name, template in self.plan.output:
            try:
                made[name] = evaluate(template, scope, f"output.{name}")
            except RenderError as error:
                self._run.note(Failure("expression", error.message, field=error.field))
                if state.status != "canceled":
                    state.status = "failed"
        return made or None

    def _run_out_of_time(self) -> None:
        self._run.note(Failure("run", f"the run's {self.plan.timeout:g} s are over"))
        self._run.fail()
        self.state.deadline = None
        self._stop_all()

    def _close(self) -> None:
        """Have a run that has failed start nothing more, whatever stood beside a ``fail``."""
        state = self.state
        state.closed = True
        for execution in state.executions.values():
            execution.on_fail = False
        for arrival in (*state.ready.values(), *state.waiting.values()):
            arrival.on_fail = False
        self._drop_idle()

    def _stop_all(self) -> None:
        for execution in self.state.executions.values():
            if _is_running(execution):
                self._run.commands.append(Stop(execution.number))

    def _drop_idle(self) -> None:
        """Give up what only waits, now that nothing may start any more."""
        for execution in list(self.state.executions.values()):
            may_go_on = execution.on_fail and self.state.status == "failed"
            if not _is_running(execution) and not may_go_on:
                self._tasks.drop(execution)

    def _refuse(self, reason: str) -> None:
        self._run.commands.append(Refused(reason))

    def check_invariants(self) -> None:
        """Check that everything known agrees; for tests, after each event."""
        state = self.state
        for number, execution in state.executions.items():
            assert number == execution.number
            assert execution.order <= number <= state.numbers
            assert (execution.due is not None) <= (execution.state == "delayed")
            assert (execution.state == "waiting") <= (execution.wait_for is not None)
            if execution.items is not None:
                execution.items.check_invariants()
        for spots in (state.ready, state.waiting):
            for task, route in spots:
                assert 0 <= task < len(self.plan.tasks)
                assert 0 <= route < len(state.routes)
        assert not state.ready.keys() & state.waiting.keys()
        for task, _ in state.waiting:
            assert self.plan.tasks[task].join is not None
        if state.status == "running":
            assert state.executions, "a run that has nothing to wait for has ended"
            assert not state.ready, "what is ready has started"
        if state.ended:
            assert state.status in ENDED
            assert not state.executions
        if state.status in ("succeeded", "canceled"):
            assert state.ended


def _is_fed(execution: Execution) -> bool:
    """Whether further items of it may come from a node."""
    return execution.state == "running" and execution.items is not None and execution.items.is_open


def _is_running(execution: Execution) -> bool:
    """Whether something of it runs: its delay is over, and it does not only wait for a signal."""
    if execution.items is not None:
        return execution.items.running > 0
    return execution.state == "running"


_HANDLERS: Final[dict[type, Callable[[Conductor, Any, float], None]]] = {
    Start: Conductor._on_start,
    Ended: Conductor._on_ended,
    ItemsEnded: Conductor._on_items_ended,
    ItemsGiven: Conductor._on_items_given,
    Tick: Conductor._on_tick,
    Pause: Conductor._on_pause,
    Resume: Conductor._on_resume,
    Cancel: Conductor._on_cancel,
    Rerun: Conductor._on_rerun,
    TakeUp: Conductor._on_take_up,
    Signal: Conductor._on_signal,
    TakeSignal: Conductor._on_take_signal,
}
