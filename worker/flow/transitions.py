"""What follows a task that has ended: transitions, joins, splits, and what a failure means.

Part of the conductor, whose rules C3 to C6 are here. Pure.

Mirror: tests/worker/flow/test_transitions.py.
"""

from typing import Any

from .context import Context
from .events import Failure, Outcome
from .expressions import EvaluationError, is_true
from .plan import TaskPlan, TransitionPlan
from .rendering import RenderError, evaluate
from .run import ENDED, MOVING, Run
from .scope import FAILED_STATUSES, Scope
from .state import Arrival, Execution, Latest, Lost, Route, Terminal


class Transitions:
    """Those of one run."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    def follow(
        self, task: TaskPlan, execution: Execution, latest: Latest, scope: Scope, status: Outcome
    ) -> None:
        """Look at all transitions (C3) and decide what that means for the run (C4)."""
        state = self._run.state
        commands: list[tuple[str, Context]] = []
        ready: list[Arrival] = []
        for transition in task.next:
            context = self._fire(task, transition, execution.context, scope)
            if context is None:
                continue
            for target in transition.targets:
                if isinstance(target, str):
                    commands.append((target, context))
                else:
                    latest.fired.add(target)
                    arrival = self._arrive(target, execution, transition.index, context)
                    if arrival is not None:
                        ready.append(arrival)
        handled = bool(latest.fired) or any(name != "continue" for name, _ in commands)
        if status == "canceled":
            if state.status in MOVING:
                self._run.become("canceling")
        elif status in FAILED_STATUSES and not handled:
            state.lost[execution.task, execution.route] = Lost(
                execution.order, execution.context, execution.items
            )
            self.fail_by_task()
        for name, context in commands:
            state.terminals.append(Terminal(self._run.number(), execution.order, context))
            if name == "fail":
                self._run.note(Failure("command", f"{task.name} leads to 'fail'"))
                self.fail_by_task()
                for arrival in ready:
                    arrival.on_fail = not state.closed
        nothing_follows = state.status in ENDED or state.status == "canceling"
        state.last = Terminal(execution.order, execution.order, execution.context)
        if nothing_follows or not (latest.fired or commands):
            self.end_at_last()

    def end_at_last(self) -> None:
        """Note that a branch has ended at the task that has ended last."""
        last = self._run.state.last
        if last is not None:
            self._run.state.terminals.append(last)
            self._run.state.last = None

    def _fire(
        self, task: TaskPlan, transition: TransitionPlan, context: Context, scope: Scope
    ) -> Context | None:
        """Evaluate a transition; return what it leads on with, None if it does not fire."""
        field = f"next[{transition.index}]"
        try:
            if transition.when is not None and not is_true(transition.when, scope):
                return None
        except EvaluationError as error:
            self._run.fail_by_expression(task, f"{field}.when", error.message)
            return None
        if not transition.publish:
            return context
        published: dict[str, Any] = {}
        rolling = Scope(
            Context.view(context, published),  # which sees what is published next to it
            status=scope.status,
            result=scope.result,
            status_of=scope.status_of,
        )
        for name, template in transition.publish:
            try:
                published[name] = evaluate(template, rolling, f"{field}.publish.{name}")
            except RenderError as error:
                self._run.fail_by_expression(task, error.field, error.message)
                return None
        self._run.measure(published)
        return context.publish(self._run.number(), published)

    def _arrive(
        self, target: int, source: Execution, transition: int, context: Context
    ) -> Arrival | None:
        """Note that a branch has reached a task; gives None if that waits for others still."""
        state = self._run.state
        plan = self._run.plan.tasks[target]
        route = source.route
        if plan.splits:
            route = self._split(route, (source.task, transition, target))
        spot = (target, route)
        arrival = state.ready.get(spot)
        if arrival is None:
            arrival = state.waiting.pop(spot, None)
        if arrival is None:
            arrival = Arrival([])
        arrival.contexts.append(context)
        if plan.join is None or self._count_arrived(plan, route) >= plan.join:
            state.ready[spot] = arrival
            return arrival
        state.waiting[spot] = arrival
        return None

    def _split(self, route: int, key: tuple[int, int, int]) -> int:
        """Give the route that an arrival at a split task has for itself (C6)."""
        keys = self._run.state.routes[route].keys
        if key in keys:
            return route
        self._run.state.routes.append(Route(route, (*keys, key)))
        return len(self._run.state.routes) - 1

    def _count_arrived(self, plan: TaskPlan, route: int) -> int:
        """Count the sources of a join that have led to it (C5)."""
        latest = self._run.state.latest
        return sum(
            1
            for source in plan.sources
            if (last := latest.get((source, route))) is not None and plan.number in last.fired
        )

    def fail_by_task(self) -> None:
        """Fail the run because of how a task has ended; joins can't be met any more (C5)."""
        if self._run.state.status in MOVING:
            self.note_unmet_joins()
            self._run.fail()

    def note_unmet_joins(self) -> bool:
        """Note each join that some branches have reached and the others can't; tell if any (C5)."""
        found = False
        state = self._run.state
        under_way = bool(state.executions or state.ready)
        for task, route in state.waiting:
            plan = self._run.plan.tasks[task]
            never_started = any((source, route) not in state.latest for source in plan.sources)
            if never_started and under_way:
                continue
            arrived = self._count_arrived(plan, route)
            message = f"waits for {plan.join} tasks, {arrived} came and no more can"
            self._run.note(Failure("join", message, task=plan.name, field="join"))
            found = True
        return found
