"""Histories of recorded runs of older versions: ours takes them up. See the README beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flow_histories import FOLDER, RUNS, Recorded, ending_of, record

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
from pronghorn.worker.flow.history import Moment, Reopened
from pronghorn.worker.flow.plan import Plan
from pronghorn.worker.flow.recording import Recording, Resumed, take_up

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
            if not isinstance(moment.what, Reopened):
                what: Any = moment.what
                told += conductor.handle(what, moment.at)
        ended = [each for each in told if isinstance(each, RunEnded)][-1]
        assert ending_of(ended) == recorded.ending, count


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
async def test_a_run_of_today_ends_as_the_one_that_is_kept(name: str) -> None:
    made, before = (await record(RUNS[name])).ending, kept(FOLDER / f"{name}.json").ending
    assert (made.status, made.output) == (before.status, before.output)
    assert set(made.errors) == set(before.errors), "items that fail end in any order"


def test_all_that_is_made_is_kept() -> None:
    assert {file.stem for file in FILES} >= RUNS.keys()
