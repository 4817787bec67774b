"""Mirror of worker/flow/recording.py: what is sent when, and where a conductor is brought to."""

import asyncio
from typing import Any

import pytest
from flow_runs import Play, plan
from kept_attempts import KeptAttempt

from pronghorn.worker.flow.events import (
    Cancel,
    Ended,
    ItemEnded,
    ItemsEnded,
    Pause,
    RunEnded,
    RunTask,
    Start,
    TakeUp,
    TaskEnded,
    Tick,
)
from pronghorn.worker.flow.history import Begun, Moment, Reopened, read
from pronghorn.worker.flow.recording import AHEAD_RECORDS, Recording, Resumed, take_up
from pronghorn.worker.flow.validation import validate

TWO = """
input: [n]
tasks:
  a: {action: a, input: {n: "{{ n }}"}, next: [{publish: [{x: "{{ result() }}"}], do: b}]}
  b: {action: a, delay: 10, input: {n: "{{ x }}"}}
output: [{x: "{{ x }}"}]
"""
FAILS = "tasks: {a: {action: a}}"
BEGIN = Start({"n": 7})


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


async def test_what_a_turn_brings_leaves_together() -> None:
    attempt = KeptAttempt()
    recording = Recording(attempt, [])
    recording.define(validate(TWO))
    recording.note(BEGIN, 1.0, [], moved=False)
    ended = TaskEnded(1, "a", "succeeded", 1, again=False)
    recording.note(Ended(1, "succeeded", 1), 2.0, [ended], moved=True)
    await recording.keep_up()
    await recording.keep_up()
    (told,) = attempt.told
    assert (told.tasks, told.moved, told.asks) == ((("a", "succeeded"),), True, False)
    first, second = read(told.value, told.buffers)
    assert first.workflow == validate(TWO)
    assert second == Moment(2.0, Ended(1, "succeeded", 1))


async def test_a_run_that_is_far_ahead_waits_for_the_journal() -> None:
    attempt = KeptAttempt()
    recording = Recording(attempt, [])

    async def turns(count: int) -> None:
        for _ in range(count):
            recording.note(Tick(), 1.0, [], moved=True)
            await recording.keep_up()

    await asyncio.wait_for(turns(2 * AHEAD_RECORDS - 1), 5)
    assert sum(told.asks for told in attempt.told) == 1
    waiting = asyncio.create_task(turns(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    attempt.keep()
    await asyncio.wait_for(waiting, 5)


async def test_large_results_are_counted_by_their_bytes() -> None:
    attempt = KeptAttempt()
    recording = Recording(attempt, [])
    recording.note(Ended(1, "succeeded", "x" * (1 << 18)), 1.0, [], moved=True)
    recording.flush()
    assert attempt.told[0].asks


async def test_what_must_not_run_twice_begins_when_that_is_kept() -> None:
    attempt = KeptAttempt()
    recording = Recording(attempt, [])
    beginning = asyncio.create_task(recording.begin(Begun(3, None)))
    await asyncio.sleep(0)
    assert not beginning.done()
    assert attempt.told[0].asks
    attempt.keep()
    await asyncio.wait_for(beginning, 5)


async def test_an_attempt_begins_with_all_that_was_told() -> None:
    attempt = KeptAttempt()
    before = Recording(attempt, [])
    before.define(validate(TWO))
    before.note(BEGIN, 5e9, [], moved=False)
    before.flush()
    attempt.reopen()
    recording = await take_up(attempt)
    assert [type(each.what) for each in recording.past] == [Start, Reopened]
    assert recording.workflow == validate(TWO)
    assert recording.clock() >= 5e9, "the time of a run does not go back"


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
