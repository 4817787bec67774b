"""Mirror of worker/flow/recording.py: what is sent when."""

import asyncio

import pytest
from flow_runs import BEGIN, FAILS, TWO, plan
from kept_attempts import KeptAttempt, Told
from msgspec import Raw

from pronghorn.broker.wire.errors import JournalError
from pronghorn.worker.flow.events import Ended, Start, TaskEnded, Tick
from pronghorn.worker.flow.history import Begun, Defined, Moment, Reopened, Within, read, write
from pronghorn.worker.flow.recording import AHEAD_RECORDS, Recording, take_up
from pronghorn.worker.flow.validation import validate


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


async def test_what_lies_within_goes_with_the_run() -> None:
    attempt, inner = KeptAttempt(), plan(FAILS)
    recording = Recording(attempt, [])
    first = recording.within((1, None), "t", inner, [])
    first.note(BEGIN, 1.0, [], moved=False)
    second = first.within((2, 3), "u[3]", inner, [])
    second.note(BEGIN, 2.0, [], moved=False)
    ended = TaskEnded(1, "a", "failed", None, again=False)
    second.note(Ended(1, "failed", None, "no"), 3.0, [ended], moved=True)
    second.end()
    assert attempt.told == []
    await second.keep_up()
    (told,) = attempt.told
    assert (told.tasks, told.moved) == ((("t/u[3]/a", "failed"),), True)
    defined, *moments = read(told.value, told.buffers)
    assert defined.what == Defined(0, inner.workflow)
    path = (1, None), (2, 3)
    assert moments == [
        Moment(1.0, Within(path[:1], Start(), 0)),
        Moment(2.0, Within(path, Start(), 0)),
        Moment(3.0, Within(path, Ended(1, "failed", None, "no"))),
    ]
    again = await take_up(attempt)
    assert [each.workflow for each in again.past] == [None, inner.workflow, inner.workflow, None]
    assert again.number_of(inner) == 0, "it is written already"
    assert again.number_of(plan(TWO)) == 1


async def test_what_must_not_run_twice_within_begins_when_that_is_kept() -> None:
    attempt = KeptAttempt()
    inner = Recording(attempt, []).within((1, None), "t", plan(FAILS), [])
    beginning = asyncio.create_task(inner.begin(Begun(3, None)))
    await asyncio.sleep(0)
    assert not beginning.done()
    assert attempt.told[0].asks
    attempt.keep()
    await asyncio.wait_for(beginning, 5)


async def test_a_definition_that_is_not_there_is_told() -> None:
    value, _ = write([(0.0, Within(((1, None),), Start(), 7))])
    with pytest.raises(JournalError, match="definition 7 is not there"):
        await take_up(KeptAttempt([Told(Raw(value), [], (), moved=True, asks=False)]))


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
