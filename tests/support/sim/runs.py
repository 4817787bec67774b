"""Runs from a seed or from a list of actions, and what is said of one that fails."""

from collections.abc import Iterable, Iterator, Sequence

from .actions import Action, actions
from .workers import FakeWorker
from .world import World, in_words


class SimulationError(Exception):
    """A run broke a promise; holds what is needed to see how, and to have it again."""

    def __init__(self, world: World, error: Exception) -> None:
        super().__init__(world.seed, error)
        self.seed = world.seed
        self.worker_type = world.worker_type
        self.actions = tuple(world.done)
        self.error = error
        self.draining = world.draining  # whether all actions had been done
        self.story = tuple(world.story)

    def __str__(self) -> str:
        what = f"{type(self.error).__name__}: {self.error}".rstrip(": ")
        lines = [f"seed {self.seed}, after {len(self.actions)} actions: {what}", "The last events:"]
        return "\n".join([*lines, *(f"  {_line(entry)}" for entry in self.story)])


def simulate(seed: int, events_max: float, worker_type: type[FakeWorker] = FakeWorker) -> World:
    """Run the actions of a seed until there were so many events, then let all come to its end.

    Raises:
        SimulationError: A promise was broken.
    """
    return _run(World(seed, worker_type), actions(seed), events_max)


def replay(seed: int, done: Sequence[Action], worker_type: type[FakeWorker] = FakeWorker) -> World:
    """Do a list of actions to the world of a seed; otherwise as `simulate`."""
    return _run(World(seed, worker_type), done, float("inf"))


def shrink(failure: SimulationError) -> Iterator[SimulationError]:
    """Leave out of a failing run all actions that it fails without; gives the best so far.

    Delta debugging: drops parts of half the length, of a quarter, and so on down to single actions.
    Gives after each attempt, for a failure that needs a rare coincidence hardly shrinks and the
    caller may have seen enough.
    """
    part = len(failure.actions) // 2
    while part:
        position = 0
        dropped = False
        while position < len(failure.actions):
            fewer = failure.actions[:position] + failure.actions[position + part :]
            again = _failure(failure, fewer)
            if again is None:
                position += part
            else:
                failure, dropped = again, True
            yield failure
        if not dropped or part > 1:
            part //= 2


def _failure(before: SimulationError, done: Sequence[Action]) -> SimulationError | None:
    world = World(before.seed, before.worker_type)
    try:
        # Most of the time goes into coming to an end, which is of no use if it failed before.
        _run(world, done, float("inf"), drain=before.draining)
    except SimulationError as failure:
        return failure
    return None


def _run(world: World, done: Iterable[Action], events_max: float, *, drain: bool = True) -> World:
    try:
        world.run(done, events_max)
        if drain:
            world.drain()
    except Exception as error:
        raise SimulationError(world, error) from error
    return world


def _line(entry: tuple[object, ...]) -> str:
    number, time, what, *rest = entry
    words = " ".join(part if isinstance(part, str) else in_words(part) for part in rest)
    return f"{number:>6} {time:.6f} {what:8} {words}"[:240]
