"""How tasks start, run, are run again, and end.

Part of the conductor, whose rules C1 and C2 are here. Pure.

Mirror: tests/worker/flow/test_tasks.py.
"""

from typing import Any

from .context import Context, merge
from .events import (
    Failure,
    ItemsGiven,
    ItemToRun,
    Outcome,
    PullItems,
    RunItems,
    RunTask,
    Stop,
    TaskEnded,
    WaitFor,
)
from .expressions import EvaluationError, is_true
from .limits import STARTS_MAX
from .plan import TaskPlan
from .rendering import Rendered, RenderError, render, render_given, retry_delay
from .run import MOVING, Run
from .scope import FAILED_STATUSES, Scope
from .state import Execution, Latest, Lost, Spot
from .transitions import Transitions


class Tasks:
    """Those of one run."""

    __slots__ = ("_run", "_transitions")

    def __init__(self, run: Run, transitions: Transitions) -> None:
        self._run = run
        self._transitions = transitions

    def finish(self, execution: Execution, status: Outcome, result: Any, now: float) -> None:
        """Take a task that has ended out of the run and see what follows."""
        state = self._run.state
        del state.executions[execution.number]
        task = self._run.plan.tasks[execution.task]
        spot = (execution.task, execution.route)
        latest = state.latest[spot] = Latest(status, set())
        scope = Scope(
            execution.context,
            status=status,
            result=result,
            status_of=lambda name: self._run.status_of(name, execution.route),
        )
        if state.status in MOVING and self._retries(task, execution, status, scope):
            self._run.commands.append(
                TaskEnded(execution.number, task.name, status, result, again=True)
            )
            self._try_again(task, execution, now)
            return
        self._run.commands.append(
            TaskEnded(execution.number, task.name, status, result, again=False)
        )
        self._transitions.follow(task, execution, latest, scope, status)

    def _retries(self, task: TaskPlan, execution: Execution, status: Outcome, scope: Scope) -> bool:
        plan, left = task.retry, execution.retry
        if plan is None or left is None or left.left < 1 or status == "canceled":
            return False
        if plan.when is None:
            return status in FAILED_STATUSES
        try:
            return is_true(plan.when, scope)
        except EvaluationError as error:
            self._run.fail_by_expression(task, "retry.when", error.message)
            return False

    def _try_again(self, task: TaskPlan, execution: Execution, now: float) -> None:
        """Start the next attempt; its input is what the branch's variables make it now."""
        retry = execution.retry
        assert retry is not None
        assert task.retry is not None
        try:
            rendered = self._render(task, execution.context, execution.route)
        except RenderError as error:
            self._run.fail_by_expression(task, error.field, error.message)
            return
        retry.left -= 1
        rendered.retry = retry
        rendered.delay_s = retry_delay(retry, task.retry.backoff)
        self._begin(
            task,
            rendered,
            execution.context,
            (execution.task, execution.route),
            now,
            on_fail=execution.on_fail,
            attempt=execution.attempt + 1,
            order=execution.order,
        )

    def start_ready(self, now: float) -> bool:
        """Start tasks that are ready (C1, C2); tell whether more may have become so by that."""
        state = self._run.state
        if not state.ready or state.status not in ("running", "failed"):
            return False
        spots = sorted(state.ready)
        if state.status == "failed":
            spots = [spot for spot in spots if state.ready[spot].on_fail]
        rendered = self._render_all(spots)
        if not rendered:
            return False
        for spot, context, what in rendered:
            arrival = state.ready.pop(spot)
            if arrival.items is not None:
                what.items = arrival.items.again()
            self._begin(
                self._run.plan.tasks[spot[0]],
                what,
                context,
                spot,
                now,
                on_fail=arrival.on_fail,
                order=arrival.order,
            )
        return bool(state.ready)

    def _render_all(self, spots: list[Spot]) -> list[tuple[Spot, Context, Rendered]]:
        """Render tasks that start together; nothing if one of them can't be."""
        state = self._run.state
        rendered = []
        wrong = False
        for spot in spots:
            task = self._run.plan.tasks[spot[0]]
            context = merge(state.ready[spot].contexts)
            try:
                rendered.append((spot, context, self._render(task, context, spot[1])))
            except RenderError as error:
                self._run.fail_by_expression(task, error.field, error.message)
                wrong = True
        if wrong:
            for spot in spots:  # they don't start, not even beside a `fail`
                state.ready[spot].on_fail = False
            return []
        return rendered

    def _render(self, task: TaskPlan, context: Context, route: int) -> Rendered:
        return render(task, context, lambda name: self._run.status_of(name, route))

    def _begin(
        self,
        task: TaskPlan,
        rendered: Rendered,
        context: Context,
        spot: Spot,
        now: float,
        *,
        on_fail: bool,
        attempt: int = 0,
        order: int | None = None,
    ) -> None:
        state = self._run.state
        state.starts += 1
        if state.starts > STARTS_MAX:
            self._run.note(
                Failure("run", f"more than {STARTS_MAX} task starts: a cycle without end?")
            )
            self._run.fail()
            return
        number = self._run.number()
        execution = Execution(
            number=number,
            order=number if order is None else order,
            task=spot[0],
            route=spot[1],
            attempt=attempt,
            context=context,
            state="delayed",
            on_fail=on_fail,
            action=rendered.action,
            input=rendered.input,
            items=rendered.items,
            retry=rendered.retry,
            timeout_s=rendered.timeout_s,
            wait_for=rendered.wait_for,
        )
        state.executions[number] = execution
        state.latest[spot] = Latest("running", set())
        state.lost.pop(spot, None)
        if rendered.delay_s > 0:
            execution.due = now + rendered.delay_s
            self._run.add_timer(execution.due, number)
        elif self._may_launch(execution):
            self._launch(task, execution, now)

    def _launch(self, task: TaskPlan, execution: Execution, now: float) -> None:
        """Have a task run whose delay, if it had one, is over."""
        number = execution.number
        execution.due = None
        execution.state = "running"
        if execution.timeout_s is not None:
            execution.deadline = now + execution.timeout_s
            self._run.add_timer(execution.deadline, number)
        if execution.items is not None:
            self.go_on_with_items(execution, now)
        elif execution.wait_for is not None:
            self._wait(task, execution, now)
        else:
            self._run.commands.append(_run_task(task, execution))

    def _wait(self, task: TaskPlan, execution: Execution, now: float) -> None:
        name = execution.wait_for
        assert name is not None
        execution.state = "waiting"
        self._run.commands.append(WaitFor(execution.number, task.name, name))
        for index, (signal, value) in enumerate(self._run.state.signals):
            if signal == name:
                del self._run.state.signals[index]
                self.finish(execution, "succeeded", value, now)
                return

    def go_on_with_items(self, execution: Execution, now: float) -> None:
        """Start further items; end the task when nothing of it runs or can be started."""
        items = execution.items
        assert items is not None
        if execution.state != "running":
            return
        status = self._run.state.status
        may_start = self._may_launch(execution)
        if may_start and (taken := items.take()):
            task = self._run.plan.tasks[execution.task]
            self._run.commands.append(_run_items(task, execution, taken))
        if may_start and (count := items.ask()):
            self._run.commands.append(
                _pull_items(self._run.plan.tasks[execution.task], execution, count)
            )
        if items.running:
            return
        if items.waiting or items.is_open:
            if status not in MOVING and not may_start:
                self.drop(execution)
            return
        self._stop_feed(execution)
        self.finish(execution, items.outcome(), list(items.results), now)

    def take_given(self, execution: Execution, event: ItemsGiven, now: float) -> None:
        """Take in items that a node has given."""
        items = execution.items
        assert items is not None
        task = self._run.plan.tasks[execution.task]
        try:
            given = render_given(
                task,
                execution.context,
                lambda name: self._run.status_of(name, execution.route),
                event.values,
                len(items.todo),
            )
            items.give(given, is_last=event.is_last)
        except RenderError as error:
            self._run.fail_by_expression(task, error.field, error.message)
            self._stop_feed(execution)
            items.close("failed")
        if event.status != "succeeded":
            items.close(event.status)
        self.go_on_with_items(execution, now)

    def _stop_feed(self, execution: Execution) -> None:
        """Have the node end that gives items, if it has not."""
        items = execution.items
        if items is not None and items.feed is not None and items.feed.is_open:
            self._run.commands.append(Stop(execution.number))

    def run_again(self, execution: Execution, now: float) -> None:
        """Have what runs of a task run again, for it has come to nothing; with all of its time."""
        task = self._run.plan.tasks[execution.task]
        if execution.timeout_s is not None:
            execution.deadline = now + execution.timeout_s
            self._run.add_timer(execution.deadline, execution.number)
        if execution.items is None:
            self._run.commands.append(_run_task(task, execution))
        else:
            if running := execution.items.in_flight():
                self._run.commands.append(_run_items(task, execution, running))
            if execution.items.feed is not None:
                execution.items.feed.asked = 0
            self.go_on_with_items(execution, now)

    def come_due(self, execution: Execution, now: float) -> None:
        """Launch a delayed task whose time has come; if the run is paused, when it goes on."""
        if execution.due is not None and execution.due > now:
            return
        execution.due = None
        if self._may_launch(execution):
            self._launch(self._run.plan.tasks[execution.task], execution, now)

    def time_out(self, execution: Execution, now: float) -> None:
        """End a task whose time is up, whatever it does."""
        message = f"its {execution.timeout_s:g} s are over"
        self._run.note_failure(execution, "timeout", message)
        if execution.state == "running":
            self._run.commands.append(Stop(execution.number))
        items = execution.items
        self.finish(execution, "timeout", None if items is None else list(items.results), now)

    def _may_launch(self, execution: Execution) -> bool:
        status = self._run.state.status
        return status == "running" or (status == "failed" and execution.on_fail)

    def drop(self, execution: Execution) -> None:
        """Give up a task that will not go on, without anything following it."""
        state = self._run.state
        self._stop_feed(execution)
        del state.executions[execution.number]
        spot = (execution.task, execution.route)
        state.latest[spot] = Latest("canceled", set())
        state.lost[spot] = Lost(execution.order, execution.context, execution.items)


def _run_task(task: TaskPlan, execution: Execution) -> RunTask:
    return RunTask(
        execution.number,
        task.name,
        execution.action,
        execution.input,
        execution.attempt,
        task.place,
    )


def _run_items(task: TaskPlan, execution: Execution, items: list[ItemToRun]) -> RunItems:
    assert execution.items is not None
    return RunItems(
        execution.number,
        task.name,
        items,
        execution.attempt,
        task.place,
        execution.items.batch_size,
        len(execution.items.states) if execution.items.feed is None else None,
    )


def _pull_items(task: TaskPlan, execution: Execution, count: int) -> PullItems:
    assert execution.items is not None
    feed = execution.items.feed
    assert feed is not None
    return PullItems(
        execution.number,
        task.name,
        feed.action,
        feed.input,
        execution.attempt,
        task.place,
        count,
        len(execution.items.todo),
    )
