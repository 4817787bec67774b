"""What does the workflow engine itself cost, and does that depend on the size of the context?

In one process: the conductor, its expressions, and the border to trivial nodes, on a loop that runs
already. The way through clients and brokers is not in it, nor any journal. It would be wrong if the
slow way did less work than the engine: both run the same chain to the same result.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from collections.abc import Sequence

from ..figures import Measurement
from ..report import Comparison, Report, compare, latency_table, p50, raw_rounds
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "What does the workflow engine itself cost, whatever the size of the context?"

NODES = 20
_VARIABLES = 100

_RUN, _SLOW = "20 nodes", "20 nodes, the slow way"
_CHAIN, _SPLITS, _CHECK, _NAPS = "chain of 100", "25 splits", "check of 30 tasks", "10 naps"
_STEPS = ((10, 100), (100, 1000), (1000, 10_000))
_EMPTY, _TEXTS, _LISTS = "1,000 items, empty", "1,000 items, 5 MB text", "1,000 items, 5 MB lists"
_SMALL, _WIDE, _LONG = "condition, small", "condition, 2,000 variables", "condition, 100 KB"
_KEYS = (1, 10, 100, 1000)


def measure(options: Options) -> Report:
    """Measure runs, items and expressions."""
    runs = run(
        [
            Subject(name=_RUN, factory="subjects.flow:chain", options=_chain(NODES)),
            Subject(name=_SLOW, factory="floors.slow_flow:chain", options=_chain(NODES)),
        ],
        options.plan(calls=200, slices=4, warm_up=20),
        options.progress,
    )
    larger = run(
        [
            Subject(name=_CHAIN, factory="subjects.flow:chain", options={"nodes": 100}),
            Subject(name=_SPLITS, factory="subjects.flow:splits", options={"count": 25}),
            Subject(name=_CHECK, factory="subjects.flow:validation", options={"tasks": 30}),
            Subject(
                name=_NAPS, factory="subjects.flow:naps", options={"count": 10, "seconds": 0.1}
            ),
        ],
        options.plan(calls=10, slices=1, warm_up=2),
        options.progress,
    )
    items = run(_items(), options.plan(calls=3, slices=1, warm_up=1), options.progress)
    conditions = run(
        [
            _condition(_SMALL, variables=10, text_bytes=10),
            _condition(_WIDE, variables=2000, text_bytes=10),
            _condition(_LONG, variables=10, text_bytes=100 * 1024),
        ],
        options.plan(calls=20_000, slices=2, warm_up=2000),
        options.progress,
    )
    texts = run(
        [
            Subject(name=_keys(keys), factory="subjects.flow:substitution", options={"keys": keys})
            for keys in _KEYS
        ],
        options.plan(calls=50, slices=2, warm_up=5),
        options.progress,
    )
    groups = {
        "runs": runs,
        "larger": larger,
        "items": items,
        "conditions": conditions,
        "texts": texts,
    }
    return Report(
        scenario="workflow",
        question=QUESTION,
        comparisons=_comparisons(groups),
        tables=[latency_table(title, rounds) for title, rounds in groups.items()],
        notes=["in one process: no client, no broker, no journal"],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def _comparisons(groups: dict[str, Rounds]) -> list[Comparison]:
    runs, larger, items = groups["runs"], groups["larger"], groups["items"]
    conditions, texts = groups["conditions"], groups["texts"]
    shortest, *_, longest = (items[_step(few, many)] for few, many in _STEPS)
    return [
        compare("workflow.run", _scaled(runs[_RUN], 1e-3)),
        compare("workflow.node", _scaled(runs[_RUN], 1 / NODES)),
        compare("workflow.slow_way", p50(runs[_SLOW]), p50(runs[_RUN])),
        compare("workflow.chain", _scaled(larger[_CHAIN], 1e-3)),
        compare("workflow.splits", _scaled(larger[_SPLITS], 1e-3)),
        compare("workflow.check", _scaled(larger[_CHECK], 1e-3)),
        compare("workflow.naps", _scaled(larger[_NAPS], 1e-3)),
        compare("workflow.item", p50(longest)),
        compare("workflow.item_first", p50(shortest), p50(longest)),
        compare("workflow.item_texts", p50(items[_TEXTS]), p50(items[_EMPTY])),
        compare("workflow.item_lists", p50(items[_LISTS]), p50(items[_EMPTY])),
        compare("workflow.condition", p50(conditions[_SMALL])),
        compare("workflow.condition_wide", p50(conditions[_WIDE]), p50(conditions[_SMALL])),
        compare("workflow.condition_long", p50(conditions[_LONG]), p50(conditions[_SMALL])),
        compare(
            "workflow.keys",
            _scaled(texts[_keys(1000)], 1 / 1000),
            _scaled(texts[_keys(10)], 1 / 10),
        ),
    ]


def _items() -> list[Subject]:
    steps = [
        Subject(
            name=_step(few, many),
            factory="subjects.flow:items",
            options={"few": few, "many": many, "results": 100},
        )
        for few, many in _STEPS
    ]
    contexts = [
        Subject(
            name=name,
            factory="subjects.flow:items",
            options={"few": 100, "many": 1000, "results": results, "lists": lists},
        )
        for name, results, lists in ((_EMPTY, 0, False), (_TEXTS, 500, False), (_LISTS, 500, True))
    ]
    return [*steps, *contexts]


def _condition(name: str, *, variables: int, text_bytes: int) -> Subject:
    return Subject(
        name=name,
        factory="subjects.flow:condition",
        options={"variables": variables, "text_bytes": text_bytes},
    )


def _chain(nodes: int) -> dict[str, int]:
    return {"nodes": nodes, "variables": _VARIABLES}


def _step(few: int, many: int) -> str:
    return f"items {few:,} to {many:,}, 1 MB"


def _keys(keys: int) -> str:
    return f"text with {keys:,} keys"


def _scaled(rounds: Sequence[Measurement], factor: float) -> list[float]:
    return [median * factor for median in p50(rounds)]
