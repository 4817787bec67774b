"""The slow way to run a workflow, written plainly: what the engine is compared with.

It does what systems do that were slow at this: for each run the set of nodes is built anew from the
definition, for each node an object of every one of 27 types is made to find the one that is needed,
the context is copied, and each key is replaced in each text by ``str.replace``.

Mirror: tests/bench/floors/test_slow_flow.py.
"""

import contextlib
import copy
import json
from collections.abc import Iterator
from typing import Any

from ..timing import Measure, time_each

TYPES = 27


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
    nodes = json.loads(definition)
    for node in nodes:
        kinds = {f"kind_{number}": NodeType(f"kind_{number}") for number in range(TYPES)}
        seen = copy.deepcopy(context)
        params = {}
        for name, text in node["input"].items():
            for key, value in seen.items():
                text = text.replace(f"${key}$", str(value))
            params[name] = text
        context = {**seen, "x": kinds[node["type"]].run(params)}
    return int(context["x"])


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
