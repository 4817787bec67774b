"""Runs made up for the tests of the journal, and their records."""

from collections.abc import Iterator, Sequence
from random import Random

from msgspec import Raw

from pronghorn.broker.journal.fold import RunState, advance
from pronghorn.broker.journal.record import (
    Accepted,
    AttemptLost,
    Ended,
    Failure,
    Record,
    Reopened,
    Started,
    TaskDone,
    sequence_of,
)
from pronghorn.broker.wire.errors import NO_DETAILS
from pronghorn.broker.wire.values import encode_value

FIRST = sequence_of(1, 1)
SECRET = bytes(range(16))
DEATH = Failure("WORKER_LOST", "the worker died", NO_DETAILS)


def value(of: object) -> Raw:
    return Raw(encode_value(of)[0])


def accepted(run: int = FIRST, **fields: object) -> Accepted:
    given = {"secret": SECRET, "node": "shop.sell", "owner": "uid:1000", "at_ns": run, **fields}
    return Accepted(run, 0, **given)  # type: ignore[arg-type]


def ended(state: RunState, status: str = "done", **fields: object) -> Ended:
    given = {"value": value(3)} if status == "done" else {"failure": DEATH}
    given |= {"at_ns": state.last, **fields}  # type: ignore[dict-item]
    return Ended(state.run, state.last, state.token, status=status, **given)  # type: ignore[arg-type]


class Story:
    """Records of a generation, numbered as they come, with the states that they lead to."""

    def __init__(self, generation: int = 1) -> None:
        self.sequence = sequence_of(generation, 0)
        self.records: list[tuple[int, Record]] = []
        self.states: dict[int, RunState] = {}

    def accept(self, **fields: object) -> int:
        run = self.sequence + 1
        self.add(accepted(run, **fields))
        return run

    def end(self, run: int, status: str = "done", **fields: object) -> None:
        self.add(ended(self.states[run], status, **fields))

    def add(self, record: Record) -> int:
        self.sequence += 1
        self.states[record.run] = advance(self.states.get(record.run), self.sequence, record)
        self.records.append((self.sequence, record))
        return self.sequence

    def next_generation(self, generation: int) -> None:
        self.sequence = sequence_of(generation, 0)


def told(random: Random, count: int) -> Story:
    """Tell a story of so many records at random: calls and maps, deaths, failures, retries."""
    story = Story()
    while len(story.records) < count:
        step(story, random)
    return story


def step(story: Story, random: Random) -> None:
    """Add one record to a story."""
    open_runs = [state for state in story.states.values() if state.status == "open"]
    if not open_runs or (len(open_runs) < 20 and random.random() < 0.4):
        number = len(story.records)
        story.accept(
            value=value({"a": number, "text": "x" * random.choice((0, 10, 10, 3000))}),
            items=random.choice((None, None, 10)),
            key=f"key-{number}" if random.random() < 0.2 else None,
            at_most_once=random.random() < 0.2,
        )
        return
    state = random.choice(open_runs)
    chance = random.random()
    if chance < 0.1:
        attempt = state.attempt + 1 if state.begun else state.attempt
        story.add(Started(state.run, state.last, attempt, state.last))
    elif chance < 0.15:
        story.add(AttemptLost(state.run, state.last, state.token, "signal 9 (SIGKILL)", state.last))
    elif state.missing and chance < 0.9:
        first, count = state.missing[0]
        part = random.randint(1, count)
        values = value(list(range(part)))
        story.add(TaskDone(state.run, state.last, state.token, 5, "", first, part, values))
    elif chance < 0.3 or state.missing:
        story.end(state.run, random.choice(("failed", "cancelled", "interrupted", "poisoned")))
        if random.random() < 0.3:
            latest = story.states[state.run]
            story.add(Reopened(latest.run, latest.last, 7))
    else:
        story.end(state.run, value=value("r" * random.choice((1, 30, 3000))))


def chains(records: Sequence[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    """Give the records of each run."""
    runs: dict[int, list[tuple[int, Record]]] = {}
    for sequence, record in records:
        runs.setdefault(record.run, []).append((sequence, record))
    yield from runs.values()
