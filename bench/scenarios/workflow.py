"""What do workflows cost, and does that depend on the size of the context?

Two kinds of figures. The engine itself, in one process: the conductor, its expressions, and the
border to trivial nodes, on a loop that runs already. And whole runs as a client sees them, in a
pool of two workers and a run host; costs of items are slopes, in which the round trip is not. A
journal is in those of recorded runs alone. It would be wrong if the slow way did less work than the
engine: both run the same chain to the same result.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from collections.abc import Sequence
from typing import Any

from ..figures import Measurement, latency
from ..report import (
    Comparison,
    Report,
    compare,
    extra,
    latency_table,
    p50,
    per_second,
    rate_table,
    raw_rounds,
)
from ..rounds import Rounds, run
from ..subject import Subject
from ..subjects.flow import chain_of, splits_of
from ..subjects.flow_recorded import COMMITS_PER_RUN
from ..subjects.flow_runs import MIXED_TASKS, PEAK, WIRE
from .options import Options

QUESTION = "What do workflows cost, in the engine and for a client, whatever the context's size?"

NODES = 20
_VARIABLES = 100

_RUN, _SLOW = "20 nodes", "20 nodes, the slow way"
_CHAIN, _SPLITS, _CHECK, _NAPS = "chain of 100", "25 splits", "check of 30 tasks", "10 naps"
_STEPS = ((10, 100), (100, 1000), (1000, 10_000))
_EMPTY, _TEXTS, _LISTS = "1,000 items, empty", "1,000 items, 5 MB text", "1,000 items, 5 MB lists"
_SMALL, _WIDE, _LONG = "condition, small", "condition, 2,000 variables", "condition, 100 KB"
_KEYS = (1, 10, 100, 1000)
_CLIENT_RUN, _THOUSAND = f"{MIXED_TASKS} tasks in two branches", "1,000 items, whole run"
_CLIENT_CHAIN, _CLIENT_SPLITS = "chain of 100, from the client", "25 splits, from the client"
_CLIENT_NAPS, _SPINS = "10 naps of 100 ms, from the client", "8 spins of 50 ms, from the client"
_POOLED, _POOLED_TEXTS = "1,000 items in workers, empty", "1,000 items in workers, 5 MB text"
_WIRE_EMPTY, _WIRE_TEXTS = "bytes of an item, empty", "bytes of an item, 5 MB text"
_PEAK_EMPTY, _PEAK_LISTS = "peak, 10,000 items, empty", "peak, 10,000 items, 5 MB lists"
_WIRE_LARGE = "bytes of an item, 1 MB in its input"
_GIVEN = ("text", "sequence", "list")
_LEVELS = ("none", "batched", "sync")
AT_ONCE = 100  # recorded runs
_ORDERS = ("pause", "resume", "cancel")
_RESULTS = 500
_COPY_BYTES = _RESULTS * 10 * 1024 * 8
"""Of the context of lists, decoded: a pointer for each integer, which itself is shared."""


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
    whole = run(_whole_runs(), options.plan(calls=20, slices=2, warm_up=4), options.progress)
    slopes = run(_slopes(), options.plan(calls=2, slices=1, warm_up=1), options.progress)
    memory = run(
        [
            Subject(
                name=name,
                factory="subjects.flow_runs:peak",
                options={"count": 10_000, "results": results},
            )
            for name, results in ((_PEAK_EMPTY, 0), (_PEAK_LISTS, _RESULTS))
        ],
        options.plan(calls=1, slices=1, warm_up=1),
        options.progress,
    )
    wire = run(
        [
            Subject(
                name=name,
                factory="subjects.flow_runs:wire",
                options={"few": 1000, "many": 10_000, "results": results, "given": given},
            )
            for name, results, given in (
                (_WIRE_EMPTY, 0, None),
                (_WIRE_TEXTS, _RESULTS, None),
                (_WIRE_LARGE, 0, "text"),
            )
        ],
        options.plan(calls=3, slices=1, warm_up=1),
        options.progress,
    )
    large = run(
        [_with_large(given, place) for place in ("pool", "inline") for given in _GIVEN],
        options.plan(calls=1, slices=1, warm_up=1),
        options.progress,
    )
    orders = run(
        [
            Subject(name=order, factory="subjects.flow_runs:orders", options={"order": order})
            for order in _ORDERS
        ],
        options.plan(calls=50, slices=2, warm_up=5),
        options.progress,
    )
    recorded = run(
        [
            Subject(
                name=level,
                factory="subjects.flow_recorded:recorded_run_of_20",
                options={"level": level},
            )
            for level in _LEVELS
        ],
        options.plan(calls=100, slices=3, warm_up=20),
        options.progress,
    )
    at_once = run(
        [
            Subject(
                name=level,
                factory="subjects.flow_recorded:recorded_runs_at_once",
                options={"level": level, "count": AT_ONCE},
            )
            for level in _LEVELS[:2]
        ],
        options.plan(calls=2_000, slices=1, warm_up=500),
        options.progress,
    )
    groups = {
        "recorded runs": recorded,
        "recorded runs at once": at_once,
        "runs": runs,
        "larger": larger,
        "items": items,
        "conditions": conditions,
        "texts": texts,
        "whole runs from the client": whole,
        "items from the client": slopes,
        "items with 1 MB in their input": large,
        "memory": memory,
        "wire": wire,
        "orders": orders,
    }
    return Report(
        scenario="workflow",
        question=QUESTION,
        comparisons=_comparisons(groups),
        tables=[
            *(
                latency_table(title, rounds)
                for title, rounds in groups.items()
                if title not in ("memory", "wire", "recorded runs at once")
            ),
            rate_table("recorded runs at once", at_once, "runs/s"),
        ],
        notes=[
            "figures that don't say from the client: in one process, without client and broker",
            "no journal in any but the recorded runs",
        ],
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
        *_from_the_client(groups),
    ]


def _from_the_client(groups: dict[str, Rounds]) -> list[Comparison]:
    whole, slopes = groups["whole runs from the client"], groups["items from the client"]
    memory, wire, orders = groups["memory"], groups["wire"], groups["orders"]
    recorded, at_once = groups["recorded runs"], groups["recorded runs at once"]
    copies = [
        (lists.extra[PEAK] - empty.extra[PEAK]) / _COPY_BYTES
        for lists, empty in zip(memory[_PEAK_LISTS], memory[_PEAK_EMPTY], strict=True)
    ]
    by_round = zip(*(p50(slopes[_step(few, many)]) for few, many in _STEPS), strict=True)
    uneven = [max(each) / min(each) for each in by_round]
    large = groups["items with 1 MB in their input"]
    return [
        compare("workflow.client_run", _scaled(whole[_CLIENT_RUN], 1e-3)),
        compare("workflow.batched", p50(recorded["batched"]), p50(recorded["none"])),
        compare("workflow.sync", p50(recorded["sync"]), p50(recorded["none"])),
        compare("workflow.commits", extra(at_once["batched"], COMMITS_PER_RUN)),
        compare(
            "workflow.batched_rate", per_second(at_once["batched"]), per_second(at_once["none"])
        ),
        compare("workflow.client_thousand", _scaled(whole[_THOUSAND], 1e-3)),
        compare("workflow.client_chain", _scaled(whole[_CLIENT_CHAIN], 1e-3)),
        compare("workflow.client_splits", _scaled(whole[_CLIENT_SPLITS], 1e-3)),
        compare("workflow.client_naps", _scaled(whole[_CLIENT_NAPS], 1e-3)),
        compare("workflow.client_spins", _scaled(whole[_SPINS], 1e-3)),
        *(
            compare(f"workflow.client_item_{few}", p50(slopes[_step(few, many)]))
            for few, many in _STEPS
        ),
        compare("workflow.client_item_even", uneven),
        compare("workflow.client_item_texts", p50(slopes[_TEXTS]), p50(slopes[_EMPTY])),
        compare("workflow.client_item_lists", p50(slopes[_LISTS]), p50(slopes[_EMPTY])),
        compare("workflow.client_pooled", p50(slopes[_POOLED])),
        compare("workflow.client_pooled_texts", p50(slopes[_POOLED]), p50(slopes[_POOLED_TEXTS])),
        compare("workflow.wire", extra(wire[_WIRE_EMPTY], WIRE)),
        compare(
            "workflow.wire_texts", extra(wire[_WIRE_TEXTS], WIRE), extra(wire[_WIRE_EMPTY], WIRE)
        ),
        compare("workflow.wire_large", extra(wire[_WIRE_LARGE], WIRE)),
        *(
            compare(f"workflow.{place}_{given}", p50(large[_large(given, place)]))
            for place in ("pool", "inline")
            for given in _GIVEN
        ),
        compare("workflow.client_memory", copies),
        *(compare(f"workflow.client_{order}", p99(orders[order], 1e-3)) for order in _ORDERS),
    ]


def _whole_runs() -> list[Subject]:
    naps: dict[str, Any] = {
        f"t{number}": {"action": "nap", "input": {"seconds": 0.1}} for number in range(10)
    }
    spins: dict[str, Any] = {
        f"t{number}": {"action": "spin_for", "input": {"seconds": 0.05}} for number in range(8)
    }
    definitions: list[tuple[str, dict[str, Any], dict[str, Any], Any]] = [
        (_CLIENT_CHAIN, chain_of(100), {"x": 0, "step": 1}, {"x": 100}),
        (_CLIENT_SPLITS, splits_of(25), {}, None),
        (_CLIENT_NAPS, {"tasks": naps}, {}, None),
        (_SPINS, {"tasks": spins}, {}, None),
    ]
    return [
        Subject(name=_CLIENT_RUN, factory="subjects.flow_runs:run_of_20", share=5),
        Subject(name=_THOUSAND, factory="subjects.flow_runs:whole_items", options={"count": 1000}),
        *(
            Subject(
                name=name,
                factory="subjects.flow_runs:run_of",
                options={"definition": definition, "inputs": inputs, "output": output},
            )
            for name, definition, inputs, output in definitions
        ),
    ]


def _slopes() -> list[Subject]:
    def subject(
        name: str,
        results: int,
        *,
        steps: tuple[int, int] = (100, 1000),
        lists: bool = False,
        place: str | None = None,
    ) -> Subject:
        options = {"few": steps[0], "many": steps[1], "results": results, "lists": lists}
        if place is not None:
            options["place"] = place  # type: ignore[assignment]
        return Subject(name=name, factory="subjects.flow_runs:items", options=options)

    return [
        *(subject(_step(few, many), 100, steps=(few, many)) for few, many in _STEPS),
        subject(_EMPTY, 0),
        subject(_TEXTS, _RESULTS),
        subject(_LISTS, _RESULTS, lists=True),
        subject(_POOLED, 0, place="pool"),
        subject(_POOLED_TEXTS, _RESULTS, place="pool"),
    ]


def _with_large(given: str, place: str) -> Subject:
    """Measure items that are given 1 MB; a list takes each of them milliseconds to decode."""
    few, many = (10, 60) if given == "list" else (100, 1000)
    return Subject(
        name=_large(given, place),
        factory="subjects.flow_runs:items",
        options={"few": few, "many": many, "results": 0, "place": place, "given": given},
    )


def _large(given: str, place: str) -> str:
    return f"an item with 1 MB as a {given}, {place}"


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


def p99(rounds: Sequence[Measurement], factor: float) -> list[float]:
    """Give the 99th percentile of each round, microseconds times a factor."""
    return [latency(one.latencies_ns).p99 * factor for one in rounds]


def _scaled(rounds: Sequence[Measurement], factor: float) -> list[float]:
    return [median * factor for median in p50(rounds)]
