"""What does an item cost, by how many there are and by the size of the context?

Of a task with items. The same slopes as in `workflow`, over more sizes and beside the slow way, for
a picture: a figure is the time of many items less that of few, for each item more. Left out: what
the context costs to make, and items that do anything.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from collections.abc import Sequence
from typing import Final

from ..figures import spread
from ..report import Report, RoundFigures, compare, latency_table, p50, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "What does an item cost, by how many there are and by the size of the context?"

ENGINE: Final = "in the engine"
CLIENT: Final = "from the client"
SLOW: Final = "the slow way"
WAYS: Final = (ENGINE, CLIENT, SLOW)

COUNTS: Final = {10: 100, 100: 1_000, 1_000: 10_000}
"""Few -> many, on 1 MB; the slow way is left out where it takes minutes."""

RESULTS: Final = (1, 10, 100, 1_000)
"""Of 10 KB each in the context, in which 100 to 1,000 items are run."""

RESULT_KB: Final = 10
_MB = 100  # results
_SLOW_MANY_MAX = 1_000
_QUICKER = 4  # times as many calls of what is not slow
_FACTORIES = {
    ENGINE: "subjects.flow:items",
    CLIENT: "subjects.flow_runs:items",
    SLOW: "floors.slow_flow:items",
}

BY_COUNT: Final = "items on 1 MB"
BY_CONTEXT: Final = "items by context"


def counted(way: str, many: int) -> str:
    """Name the subject of so many items on 1 MB."""
    return f"{many:,} {way}"


def sized(way: str, results: int) -> str:
    """Name the subject of items on so many results."""
    return f"{results * RESULT_KB:,} KB {way}"


def measure(options: Options) -> Report:
    """Measure items over their number and over the context."""
    plan = options.plan(calls=2, slices=1, warm_up=1)
    groups = {
        BY_COUNT: run(_by_count(), plan, options.progress),
        BY_CONTEXT: run(_by_context(), plan, options.progress),
    }
    return Report(
        scenario="items",
        question=QUESTION,
        comparisons=[
            compare("items.engine", _item(groups[BY_COUNT], counted(ENGINE, 10_000))),
            compare("items.client", _item(groups[BY_COUNT], counted(CLIENT, 10_000))),
            *(
                compare(
                    f"items.{name}",
                    _item(groups[BY_CONTEXT], sized(way, RESULTS[-1])),
                    _item(groups[BY_CONTEXT], sized(way, RESULTS[0])),
                )
                for name, way in (("engine_context", ENGINE), ("client_context", CLIENT))
            ),
            compare(
                "items.slow_way",
                _item(groups[BY_CONTEXT], sized(SLOW, _MB)),
                _item(groups[BY_CONTEXT], sized(ENGINE, _MB)),
            ),
        ],
        tables=[latency_table(title, rounds) for title, rounds in groups.items()],
        notes=["no journal, and nodes that add two numbers"],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def points(
    raw: dict[str, dict[str, list[RoundFigures]]], way: str
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Give the kept figures of a way as points: us over how many items, and over KB of context."""
    by_count = ((many, raw[BY_COUNT].get(counted(way, many))) for many in COUNTS.values())
    by_context = ((each * RESULT_KB, raw[BY_CONTEXT].get(sized(way, each))) for each in RESULTS)
    return (
        [(float(many), _median(rounds)) for many, rounds in by_count if rounds],
        [(float(size), _median(rounds)) for size, rounds in by_context if rounds],
    )


def _median(rounds: Sequence[RoundFigures]) -> float:
    return spread([each.latency_us.p50 for each in rounds if each.latency_us is not None]).median


def _by_count() -> list[Subject]:
    return [
        _subject(counted(way, many), way, few, many, _MB)
        for way in WAYS
        for few, many in COUNTS.items()
        if way != SLOW or many <= _SLOW_MANY_MAX
    ]


def _by_context() -> list[Subject]:
    few, many = 100, 1_000
    return [
        # It takes so long for each that fewer are enough.
        _subject(sized(way, each), way, *((few, many) if way != SLOW else (5, 15)), each)
        for way in WAYS
        for each in RESULTS
    ]


def _subject(name: str, way: str, few: int, many: int, results: int) -> Subject:
    return Subject(
        name=name,
        factory=_FACTORIES[way],
        options={"few": few, "many": many, "results": results},
        share=1 if way == SLOW else _QUICKER,
    )


def _item(rounds: Rounds, name: str) -> Sequence[float]:
    return p50(rounds[name])
