"""Histories of recorded runs of older versions: ours takes them up. See the README beside them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flow_histories import FOLDER, RUNS, Recorded, ending_of, record, runtime_of

from pronghorn.worker.flow.events import (
    Command,
    Ended,
    ItemsEnded,
    RunEnded,
    RunItems,
    RunTask,
    Start,
    TakeUp,
)
from pronghorn.worker.flow.history import Defined, Moment, Reopened, Within
from pronghorn.worker.flow.plan import Plan
from pronghorn.worker.flow.recording import Recording, take_up
from pronghorn.worker.flow.resuming import Resumed

FILES = sorted(FOLDER.glob("*.json"))
Place = tuple[int, int | None]


def kept(file: Path) -> Recorded:
    return msgspec.json.decode(file.read_bytes(), type=Recorded)


async def taken_up(file: Path) -> tuple[Recorded, Recording]:
    recorded = kept(file)
    return recorded, await take_up(recorded.attempt())


def resumed(recorded: Recorded, recording: Recording, past: Sequence[Moment]) -> Resumed:
    assert recording.workflow is not None
    return Resumed(Plan(recording.workflow), Start(recorded.inputs), list(past))


def done(moments: Sequence[Moment]) -> set[Place]:
    """Give the executions and items that have ended."""
    ends: set[Place] = set()
    for moment in moments:
        what: Any = moment.what
        if isinstance(what, Ended):
            ends.add((what.execution, None))
        elif isinstance(what, ItemsEnded):
            ends |= {(what.execution, item.index) for item in what.items}
    return ends


def begun(commands: Sequence[Command]) -> set[Place]:
    begins: set[Place] = set()
    for command in commands:
        if isinstance(command, RunTask):
            begins.add((command.execution, None))
        elif isinstance(command, RunItems):
            begins |= {(command.execution, item.index) for item in command.items}
    return begins


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_recorded_run_comes_to_the_same_end(file: Path) -> None:
    recorded, recording = await taken_up(file)
    ended = resumed(recorded, recording, recording.past).ended
    assert ended is not None
    assert ending_of(ended) == recorded.ending


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_run_goes_on_from_each_moment_and_repeats_nothing(file: Path) -> None:
    recorded, recording = await taken_up(file)
    for count in range(1, len(recording.past)):
        past = recording.past[:count]
        conductor = resumed(recorded, recording, past).conductor
        conductor.check_invariants()
        told: list[Command] = []
        if not conductor.ended:
            told += conductor.handle(TakeUp(), past[-1].at)
            assert not begun(told) & done(past)
            conductor.check_invariants()
        for moment in recording.past[count:]:
            if not isinstance(moment.what, Reopened | Within | Defined):
                what: Any = moment.what
                told += conductor.handle(what, moment.at)
        ended = [each for each in told if isinstance(each, RunEnded)][-1]
        assert ending_of(ended) == recorded.ending, count


INNER = [name for name, plot in RUNS.items() if plot.flows and not plot.orders]


@pytest.mark.parametrize("name", INNER)
async def test_a_run_with_others_within_goes_on_from_each_record(name: str) -> None:
    recorded = kept(FOLDER / f"{name}.json")
    for count in range(1, len(recorded.records) + 1):
        attempt = recorded.attempt()
        del attempt.told[count:]
        recording = await take_up(attempt)
        assert recording.workflow is not None
        past = places(recording.past)
        run = runtime_of(RUNS[name]).start(recording.workflow, recorded.inputs, recording=recording)
        report = await asyncio.wait_for(run.run(), 10)
        assert (report.status, report.output) == (recorded.ending.status, recorded.ending.output)
        again = places((await take_up(attempt)).past)
        assert len(again) == len(set(again)), f"{count}: nothing has ended twice"
        assert again[: len(past)] == past


def places(past: Sequence[Moment]) -> list[Any]:
    """Give what has ended of a run and of those within it, with the way to it."""
    ends: list[Any] = []
    for moment in past:
        path, what = (), moment.what
        if isinstance(what, Within):
            path, what = what.path, what.what
        ends += [(path, *place) for place in sorted(done([Moment(0.0, what)]), key=repr)]
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
async def test_a_run_of_today_ends_as_the_one_that_is_kept(name: str) -> None:
    made, before = (await record(RUNS[name])).ending, kept(FOLDER / f"{name}.json").ending
    assert (made.status, made.output) == (before.status, before.output)
    assert set(made.errors) == set(before.errors), "items that fail end in any order"


def test_all_that_is_made_is_kept() -> None:
    assert {file.stem for file in FILES} >= RUNS.keys()
