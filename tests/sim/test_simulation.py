"""Random runs of the three cores together: ``pytest tests/sim``, one alone with ``--seed N``."""

import re
from time import perf_counter

import pytest
from sim.runs import SimulationError, replay, shrink, simulate
from sim.workers import FakeWorker

from pronghorn.broker.wire.link import ToBroker, Yielded

SEEDS = 20
EVENTS = 4_000  # per seed, so 80,000 together; `./scripts/soak sim` runs many more
EVENTS_OF_ONE = 50_000


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int | None:
    # The option is known only if this folder was named on the command line.
    seed: int | None = request.config.getoption("--seed", None)
    return seed


@pytest.mark.slow
def test_random_runs_keep_all_promises(
    seed: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [(each, EVENTS) for each in range(SEEDS)]
    if seed is not None:
        runs = [(seed, EVENTS), (seed, EVENTS_OF_ONE)]
    begun = perf_counter()
    events = sum(_simulate(each, events_max) for each, events_max in runs)
    rate = events / (perf_counter() - begun)
    with capsys.disabled():
        print(f"{events:,} events of {len(runs)} runs, {rate:,.0f} events/s ", end="")
    assert events >= len(runs) * EVENTS


def _simulate(seed: int, events_max: int) -> int:
    try:
        return simulate(seed, events_max).events
    except SimulationError as failure:
        raise AssertionError(
            f"{failure}\nHave it again: pytest tests/sim --seed {seed}"
        ) from failure


def test_a_seed_replays_equal_to_the_last_bit() -> None:
    first, second = simulate(7, 3_000), simulate(7, 3_000)
    assert first.events == second.events
    assert first.digest == second.digest
    assert first.story == second.story
    assert simulate(8, 3_000).digest != first.digest


def test_a_run_is_its_actions() -> None:
    world = simulate(7, 3_000)
    assert replay(7, world.done).digest == world.digest


class WorkerThatIgnoresClaims(FakeWorker):
    """Runs what it was told to skip."""

    def claim(self, slot: int, token: int) -> bool:
        super().claim(slot, token)
        return True


class WorkerThatIgnoresCredit(FakeWorker):
    """Yields one part more than it may."""

    def say(self, word: ToBroker) -> None:
        super().say(word)
        if isinstance(word, Yielded):
            super().say(word)


class WorkerThatForgets(FakeWorker):
    """Loses every tenth of its last words."""

    def say(self, word: ToBroker) -> None:
        if self.dice.below(10) or isinstance(word, Yielded):
            super().say(word)


def first_failure(worker_type: type[FakeWorker]) -> SimulationError:
    for seed in range(10):
        try:
            simulate(seed, 3_000, worker_type)
        except SimulationError as failure:
            return failure
    raise AssertionError(f"{worker_type.__name__} is not noticed")


@pytest.mark.parametrize(
    ("worker_type", "message"),
    [
        (WorkerThatIgnoresClaims, "runs a second time|not_started|not confirmed"),
        (WorkerThatIgnoresCredit, "keeps to the credit|a stream"),
        (WorkerThatForgets, "never end|each slot|deadline|blocked|idle"),
    ],
)
def test_a_broken_worker_is_noticed(worker_type: type[FakeWorker], message: str) -> None:
    assert re.search(message, str(first_failure(worker_type)))


def test_a_failure_shrinks_to_few_actions() -> None:
    failure = first_failure(WorkerThatIgnoresClaims)
    *longer, least = shrink(failure)
    lengths = [len(each.actions) for each in (*longer, least)]
    assert len(least.actions) < len(failure.actions) / 2
    assert lengths == sorted(lengths, reverse=True)
    with pytest.raises(SimulationError) as again:
        replay(least.seed, least.actions, WorkerThatIgnoresClaims)
    assert str(again.value) == str(least)
