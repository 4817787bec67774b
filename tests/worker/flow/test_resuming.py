"""Mirror of worker/flow/resuming.py: where a conductor is brought to."""

from typing import Any

import pytest
from flow_runs import BEGIN, FAILS, TWO, Play, plan

from pronghorn.worker.flow.events import (
    Cancel,
    Ended,
    ItemEnded,
    ItemsEnded,
    Pause,
    Rerun,
    RunEnded,
    RunTask,
    Signal,
    Start,
    TakeUp,
    TaskEnded,
    Tick,
)
from pronghorn.worker.flow.history import Begun, Moment, Reopened, Within
from pronghorn.worker.flow.resuming import Resumed


def of(*whats: Any) -> list[Moment]:
    return [Moment(float(at), what) for at, what in enumerate(whats)]


def test_a_conductor_is_brought_to_where_it_was() -> None:
    play = Play(TWO, n=7).end("a", 1)
    execution = play.conductor.state.numbers
    play.now = 12.0
    play.tell(Tick())
    past = of(Start(), Ended(1, "succeeded", 1))
    past.append(Moment(12.0, Tick()))
    resumed = Resumed(plan(TWO), BEGIN, past)
    assert resumed.conductor.state.executions.keys() == {execution}
    assert (resumed.ended, resumed.reopened, resumed.interrupted) == (None, False, [])
    (again,) = resumed.conductor.handle(TakeUp(), 20.0)
    assert (type(again), getattr(again, "input", None)) == (RunTask, {"n": 1})
    (_, ended) = [
        each
        for each in resumed.conductor.handle(Ended(execution, "succeeded"), 21.0)
        if isinstance(each, TaskEnded | RunEnded)
    ]
    assert getattr(ended, "output", None) == {"x": 1}


def test_a_timer_goes_on_while_nobody_conducts() -> None:
    resumed = Resumed(plan(TWO), BEGIN, of(Start(), Ended(1, "succeeded", 1)))
    assert resumed.conductor.handle(TakeUp(), 5.0) == []
    assert resumed.conductor.is_idle
    assert resumed.conductor.deadline() == 11.0


def test_a_run_that_was_paused_stays_so() -> None:
    resumed = Resumed(plan(TWO), BEGIN, of(Start(), Pause(), Ended(1, "succeeded", 1)))
    assert resumed.conductor.status == "paused"


def test_how_it_had_ended_is_told_again() -> None:
    past = of(Start(), Ended(1, "failed", None, "no"))
    resumed = Resumed(plan(FAILS), BEGIN, past)
    assert resumed.ended is not None
    assert (resumed.ended.status, resumed.reopened) == ("failed", False)
    resumed = Resumed(plan(FAILS), BEGIN, [*past, Moment(2.0, Reopened())])
    assert resumed.reopened
    assert resumed.conductor.can_rerun


def test_what_is_begun_over_again_forgets_what_was_before() -> None:
    past = of(Start(), Ended(1, "failed", None, "no"), Reopened(), Start())
    resumed = Resumed(plan(FAILS), BEGIN, past)
    assert (resumed.ended, resumed.reopened) == (None, False)
    assert resumed.conductor.status == "running"


def test_what_must_not_run_twice_has_come_to_nothing() -> None:
    items = plan("tasks: {a: {with: '{{ [1, 2] }}', action: a}}")
    past = of(Start(), Begun(1, 0), Begun(1, 1), ItemsEnded(1, [ItemEnded(0, "succeeded")]))
    (event,) = Resumed(items, BEGIN, past).interrupted
    assert isinstance(event, ItemsEnded)
    assert [(each.index, each.status) for each in event.items] == [(1, "abandoned")]
    (event,) = Resumed(plan(FAILS), BEGIN, of(Start(), Begun(1, None))).interrupted
    assert isinstance(event, Ended)
    assert event.message == "it may have run when its host was lost, and must not run twice"
    assert Resumed(plan(FAILS), BEGIN, of(Start(), Begun(1, None), Ended(1, "failed"))).ended


@pytest.mark.parametrize("status", ["canceling", "running"])
def test_a_run_that_is_being_cancelled_runs_nothing_again(status: str) -> None:
    past = of(Start(), Cancel()) if status == "canceling" else of(Start())
    resumed = Resumed(plan(TWO), BEGIN, past)
    assert resumed.conductor.status == status
    commands = resumed.conductor.handle(TakeUp(), 5.0)
    assert [type(each) for each in commands if isinstance(each, RunTask)] == (
        [] if status == "canceling" else [RunTask]
    )
    assert resumed.conductor.ended == (status == "canceling")


# Workflows within a run

PLACE = (1, None)
ITEMS = "tasks: {a: {with: '{{ [1, 2] }}', action: a}}"
RETRIES = "tasks: {a: {action: a, retry: {count: 1}}}"
AGAIN = "tasks: {a: {action: a, next: [{do: fail}]}}"


def within(*whats: Any, path: tuple[Any, ...] = (PLACE,)) -> list[Any]:
    return [Within(path, each) for each in whats]


def pasts(definition: str, *whats: Any) -> dict[Any, list[Any]]:
    """Give what is kept of workflows within a run that has come through all that."""
    found = Resumed(plan(definition), BEGIN, of(*whats)).inner.open
    return {place: [moment.what for moment in past] for place, past in found.items()}


def test_what_a_workflow_within_came_through_is_kept_while_its_task_runs() -> None:
    said = within(Start(), Ended(1, "succeeded"))
    deeper = within(Start(), path=(PLACE, (4, 2)))
    assert pasts(FAILS, Start(), *said, *deeper) == {
        PLACE: [Start(), Ended(1, "succeeded"), *within(Start(), path=((4, 2),))]
    }
    assert pasts(FAILS, Start(), *said, Ended(1, "succeeded")) == {}
    assert pasts(FAILS, Start(), Ended(1, "succeeded"), *said) == {}, "it comes late"


def test_items_have_workflows_of_their_own() -> None:
    first, second = within(Start(), path=((1, 0),)), within(Start(), path=((1, 1),))
    ends = ItemsEnded(1, [ItemEnded(0, "succeeded")])
    assert pasts(ITEMS, Start(), *first, *second, ends) == {(1, 1): [Start()]}


def test_another_attempt_has_another_workflow() -> None:
    first = [Start(), *within(Start(), Tick()), Ended(1, "failed")]
    assert pasts(RETRIES, *first) == {}
    assert pasts(RETRIES, *first, *within(Start(), path=((2, None),))) == {(2, None): [Start()]}


def test_what_is_begun_over_again_has_no_workflows_of_before() -> None:
    first = [Start(), *within(Start(), Signal("x")), Ended(1, "failed"), Reopened(), Start()]
    assert pasts(AGAIN, *first) == {}


def test_a_workflow_whose_task_was_stopped_is_forgotten() -> None:
    timed = "tasks: {a: {action: a, timeout: 1}}"
    assert pasts(timed, Start(), *within(Start()), Tick()) == {}


def test_a_workflow_that_has_failed_goes_on_when_the_run_does() -> None:
    first = [Start(), *within(Start(), Signal("x")), Ended(1, "failed", None, "no"), Reopened()]
    assert pasts(FAILS, *first) == {}, "it is tried again by `Rerun`"
    resumed = Resumed(plan(FAILS), BEGIN, of(*first))
    resumed.conductor.handle(Rerun(), 9.0)
    resumed.inner.rerun(resumed.conductor)
    past = [Start(), Signal("x"), Reopened()]
    assert {
        place: [each.what for each in moments] for place, moments in resumed.inner.open.items()
    } == {(2, None): past}
    last = within(Rerun(), path=((2, None),))
    assert pasts(FAILS, *first, Rerun(), *last) == {(2, None): [*past, Rerun()]}


def test_of_items_only_those_go_on_that_have_failed() -> None:
    first, second = within(Start(), path=((1, 0),)), within(Start(), path=((1, 1),))
    ends = ItemsEnded(1, [ItemEnded(0, "failed"), ItemEnded(1, "succeeded")])
    told = [Start(), *first, *second, ends, Reopened(), Rerun()]
    assert pasts(ITEMS, *told) == {(2, 0): [Start(), Reopened()]}


def test_a_workflow_of_an_attempt_before_the_last_is_not_taken_for_it() -> None:
    first = [Start(), *within(Start()), Ended(1, "failed"), Ended(2, "failed"), Reopened()]
    assert pasts(RETRIES, *first, Rerun()) == {}
