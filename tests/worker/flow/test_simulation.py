"""Workflows by chance, run by chance, with a crash after each event."""

from random import Random

import msgspec
import pytest
from random_workflows import Shell, random_plan

from pronghorn.worker.flow.conductor import Conductor
from pronghorn.worker.flow.events import Refused, RunEnded, RunItems, RunTask, StatusChanged
from pronghorn.worker.flow.snapshot import freeze, thaw

SEEDS = range(150)


def same(conductor: Conductor, now: float) -> Conductor:
    return conductor


@pytest.mark.parametrize("seed", SEEDS)
def test_run_ends_once_and_starts_nothing_after_it(seed: int) -> None:
    random = Random(seed)
    shell = Shell(random_plan(random), random)
    shell.run(same)
    assert [type(each) for each in shell.commands].count(RunEnded) == 1
    assert isinstance(shell.commands[-1], RunEnded)
    assert len(set(shell.started)) == len(shell.started)
    ended = shell.commands[-1]
    assert ended.status == shell.conductor.status
    if ended.status == "failed":
        assert ended.errors
    if ended.status == "succeeded":
        assert not any(each.kind in ("expression", "join", "run") for each in ended.errors)


@pytest.mark.parametrize("seed", SEEDS)
def test_run_goes_on_equally_after_a_crash_at_any_event(seed: int) -> None:
    random = Random(seed)
    plan = random_plan(random)
    state = random.getstate()
    steady = Shell(plan, random)
    steady.run(same)

    def crash(conductor: Conductor, now: float) -> Conductor:
        data = freeze(conductor, now)
        another_clock = thaw(data, plan, now + 1000.0)
        again = freeze(another_clock, now + 1000.0)
        assert again == data
        return thaw(again, plan, now)

    random.setstate(state)
    crashing = Shell(plan, random)
    crashing.run(crash)
    assert msgspec.to_builtins(crashing.commands) == msgspec.to_builtins(steady.commands)
    assert crashing.events == steady.events


@pytest.mark.parametrize("seed", SEEDS)
def test_run_that_is_run_again_ends_again_and_survives_crashes(seed: int) -> None:
    random = Random(seed)
    shell = Shell(random_plan(random), random)

    def crash(conductor: Conductor, now: float) -> Conductor:
        return thaw(freeze(conductor, now), shell.plan, now)

    shell.run(same)
    for _ in range(2):
        before = len(shell.commands)
        shell.run_again(crash)
        told = shell.commands[before:]
        if isinstance(told[0], Refused):
            assert len(told) == 1
            continue
        assert told[0] == StatusChanged("running")
        assert [type(each) for each in told].count(RunEnded) == 1
        assert isinstance(told[-1], RunEnded)
    assert len(set(shell.started)) == len(shell.started)


@pytest.mark.parametrize("seed", SEEDS)
def test_paused_run_starts_nothing(seed: int) -> None:
    random = Random(seed)
    shell = Shell(random_plan(random), random)
    shell.run(same)
    paused = False
    for command in shell.commands:
        if isinstance(command, StatusChanged):
            paused = command.status in ("pausing", "paused")
        assert not (paused and isinstance(command, RunTask | RunItems))


@pytest.mark.parametrize("seed", range(20))
def test_equal_events_give_equal_commands(seed: int) -> None:
    random = Random(seed)
    plan = random_plan(random)
    shell = Shell(plan, random)
    shell.run(same)
    one, other = Conductor(plan), Conductor(plan)
    for event in shell.events:
        assert one.handle(event, 0.0) == other.handle(event, 0.0)
