"""The slow way to run a workflow, written plainly: what the engine is compared with.

It does what systems do that were slow at this: for each run the set of nodes is built anew from the
definition, for each node, and for each item of one, an object of every one of 27 types is made to
find the one that is needed, the context is copied, and each key is replaced in each text by
``str.replace``.

Mirror: tests/bench/floors/test_slow_flow.py.
"""

import contextlib
import copy
import json
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

from ..figures import Measurement
from ..timing import Measure, check, time_each

TYPES = 27
RESULT_BYTES = 10 * 1024


class Port:
    """One input or output of a kind of node."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.value: Any = None


class NodeType:
    """One kind of node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inputs = [Port("a", "text"), Port("b", "text")]
        self.outputs = [Port("sum", "number"), Port("error", "text")]
        self.settings = {"label": name.title(), "colour": "#fff", "retries": 0}

    def run(self, params: dict[str, str]) -> int:
        """Add, whatever the kind."""
        return int(params["a"]) + int(params["b"])


def run_slowly(definition: str, context: dict[str, Any]) -> int:
    """Run a chain of nodes; each adds to what the one before has made."""
    for node in json.loads(definition):
        context = {**context, "x": _run_node(node, context)}
    return int(context["x"])


def run_items_slowly(count: int, context: dict[str, Any]) -> list[int]:
    """Run a node for each of so many items; each adds its number to itself."""
    node = {"type": "kind_0", "input": {"a": "$x$", "b": "$index$"}}
    return [_run_node(node, {**context, "x": item, "index": item}) for item in range(count)]


def _run_node(node: dict[str, Any], context: dict[str, Any]) -> int:
    kinds = {f"kind_{number}": NodeType(f"kind_{number}") for number in range(TYPES)}
    seen = copy.deepcopy(context)
    params = {}
    for name, text in node["input"].items():
        for key, value in seen.items():
            text = text.replace(f"${key}$", str(value))
        params[name] = text
    return kinds[node["type"]].run(params)


def definition_of(nodes: int) -> str:
    """Describe a chain of so many nodes."""
    return json.dumps(
        [
            {"type": f"kind_{number % TYPES}", "input": {"a": "$x$", "b": "$step$"}}
            for number in range(nodes)
        ]
    )


@contextlib.contextmanager
def chain(nodes: int, variables: int) -> Iterator[Measure]:
    """Measure runs of a chain on a context of so many variables."""
    definition = definition_of(nodes)
    context: dict[str, Any] = {f"v{number}": "text" * 5 for number in range(variables)}
    context |= {"x": 0, "step": 1}
    yield lambda calls: time_each(lambda: run_slowly(definition, context), nodes, calls)


@contextlib.contextmanager
def items(few: int, many: int, results: int) -> Iterator[Measure]:
    """Measure the cost of an item on a context of so many results of 10 KB; a sample is a slope."""
    context = {"big": [str(number % 10) * RESULT_BYTES for number in range(results)]}

    def run_ns(count: int) -> int:
        begin = perf_counter_ns()
        found = run_items_slowly(count, context)
        elapsed = perf_counter_ns() - begin
        check(found, [2 * number for number in range(count)])
        return elapsed

    def measure(calls: int) -> Measurement:
        begin = perf_counter_ns()
        slopes = [(run_ns(many) - run_ns(few)) // (many - few) for _ in range(calls)]
        return Measurement(calls=calls, elapsed_ns=perf_counter_ns() - begin, latencies_ns=slopes)

    yield measure
