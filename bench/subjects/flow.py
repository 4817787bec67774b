"""Workflows in one process: whole runs, items, expressions, definitions.

The runs are made on a loop that runs already, as in a run host, and their nodes are trivial: what
is measured is the engine and the border to the nodes. A sample of an items subject is a slope: the
time of a run with many items less that of one with few, for each item more.

Mirror: tests/bench/subjects/test_flow.py.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Any

from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.flow.context import Context
from pronghorn.worker.flow.expressions import compile_template
from pronghorn.worker.flow.placeholders import to_expressions
from pronghorn.worker.flow.runtime import FlowRuntime
from pronghorn.worker.flow.scope import Scope
from pronghorn.worker.flow.validation import validate
from pronghorn.worker.node import node

from ..figures import Measurement
from ..timing import Measure, check, time_each, time_tight

RESULT_BYTES = 10 * 1024
_BURST = 50


@node
def add(a: int, b: int) -> int:
    """Sum of two integers."""
    return a + b


@node
async def nap(seconds: float) -> None:
    """Sleep."""
    await asyncio.sleep(seconds)


def runtime() -> FlowRuntime:
    """Make a runtime with the nodes above."""
    return FlowRuntime(DispatchTable.of({"flow.add": add, "flow.nap": nap}))


def chain_of(nodes: int) -> dict[str, Any]:
    """Define a chain of nodes with templates, each adding to what the one before has made."""
    names = [f"t{number:03}" for number in range(nodes)]
    return {
        "input": ["x", "step", {"extra": {}}],
        "tasks": {
            name: {
                "action": "add",
                "input": {"a": "{{ ctx().x }}", "b": "{{ step }}"},
                "next": [
                    {
                        "when": "{{ succeeded() }}",
                        "publish": [{"x": "{{ result() }}"}],
                        "do": then,
                    }
                ],
            }
            for name, then in zip(names, [*names[1:], "continue"], strict=True)
        },
        "output": [{"x": "{{ x }}"}],
    }


def splits_of(count: int) -> dict[str, Any]:
    """Define so many splits, one after the other, each reached by two ways of which one fires."""
    tasks: dict[str, Any] = {"s00": {"next": [{"do": "l00"}, {"when": False, "do": "r00"}]}}
    for number in range(count):
        then = f"s{number + 1:02}"
        tasks[f"l{number:02}"] = {"next": [{"do": then}]}
        tasks[f"r{number:02}"] = {"next": [{"do": then}]}
        tasks[then] = {
            "next": [
                {"do": f"l{number + 1:02}"},
                {"when": False, "do": f"r{number + 1:02}"},
            ]
        }
    tasks[f"l{count:02}"] = tasks[f"r{count:02}"] = None
    return {"tasks": tasks}


def guarded_chain_of(tasks: int) -> str:
    """Write a chain whose every task goes on after success and ends after failure."""
    lines = ["input: [x]", "tasks:"]
    for number in range(tasks):
        lines += [
            f"  t{number:03}:",
            "    action: add",
            f"    input: {{a: '{{{{ x + {number} }}}}', b: 1}}",
            "    next:",
            f"      - {{when: '{{{{ succeeded() }}}}', do: {f't{number + 1:03}'}}}"
            if number < tasks - 1
            else "      - do: noop",
            "      - {when: '{{ failed() }}', do: fail}",
        ]
    return "\n".join(lines)


def context_of(results: int, *, lists: bool) -> list[Any]:
    """Make results of 10 KB each: texts, or lists of small integers."""
    if lists:
        return [[number % 100] * RESULT_BYTES for number in range(results)]
    return [str(number % 10) * RESULT_BYTES for number in range(results)]


@contextlib.contextmanager
def chain(nodes: int, variables: int = 0) -> Iterator[Measure]:
    """Measure runs of a chain of nodes, with so many variables beside."""
    extra = {f"v{number}": "text" * 5 for number in range(variables)}
    yield from _runs(chain_of(nodes), {"x": 0, "step": 1, "extra": extra}, {"x": nodes})


@contextlib.contextmanager
def splits(count: int) -> Iterator[Measure]:
    """Measure runs of a workflow of splits."""
    yield from _runs(splits_of(count), {}, None)


@contextlib.contextmanager
def naps(count: int, seconds: float) -> Iterator[Measure]:
    """Measure runs of parallel nodes that sleep."""
    tasks = {
        f"t{number}": {"action": "nap", "input": {"seconds": seconds}} for number in range(count)
    }
    yield from _runs({"tasks": tasks}, {}, None)


@contextlib.contextmanager
def items(few: int, many: int, results: int, lists: bool = False) -> Iterator[Measure]:
    """Measure the cost of an item on a context of so many results."""
    workflow = validate(
        {
            "input": ["xs", "big"],
            "tasks": {
                "t": {
                    "with": "x in {{ ctx().xs }}",
                    "action": "add",
                    "input": {"a": "{{ item('x') }}", "b": "{{ index }}"},
                    "next": [{"publish": [{"sums": "{{ result() }}"}]}],
                }
            },
            "output": [{"sums": "{{ sums }}"}],
        }
    )
    made = runtime()
    big = context_of(results, lists=lists)

    async def run_ns(count: int) -> int:
        inputs = {"xs": list(range(count)), "big": big}
        begin = perf_counter_ns()
        ended = await made.start(workflow, inputs).run()
        elapsed = perf_counter_ns() - begin
        check(ended.output, {"sums": [2 * number for number in range(count)]})
        return elapsed

    async def slopes(calls: int) -> list[int]:
        found = []
        for _ in range(calls):
            elapsed_ns = {
                count: min([await run_ns(count) for _ in range(3)]) for count in (few, many)
            }
            found.append((elapsed_ns[many] - elapsed_ns[few]) // (many - few))
        return found

    with asyncio.Runner() as runner:

        def measure(calls: int) -> Measurement:
            begin = perf_counter_ns()
            latencies = runner.run(slopes(calls))
            return Measurement(
                calls=calls, elapsed_ns=perf_counter_ns() - begin, latencies_ns=latencies
            )

        yield measure


@contextlib.contextmanager
def condition(variables: int, text_bytes: int) -> Iterator[Measure]:
    """Measure a condition on a context of so many variables beside a text of so many bytes."""
    context = Context.first(
        {f"v{number}": number for number in range(variables)}
        | {"text": "x" * text_bytes, "app": {"replicas": 3}}
    )
    scope = Scope(context, status="succeeded", result={"code": 200})
    template = compile_template(
        "{{ succeeded() and result().code == 200 and ctx().app.replicas < 5 }}"
    )
    yield lambda calls: time_tight(lambda: template.evaluate(scope), True, calls, burst=_BURST)


@contextlib.contextmanager
def substitution(keys: int) -> Iterator[Measure]:
    """Measure one pass over a text of about 100 bytes for each key."""
    text = "".join("x" * 92 + f"$k{number}$" for number in range(keys))
    template = compile_template(to_expressions(text))
    scope = Scope(Context.first({f"k{number}": number for number in range(keys)}))
    expected = "".join("x" * 92 + str(number) for number in range(keys))
    yield lambda calls: time_each(lambda: template.evaluate(scope), expected, calls)


@contextlib.contextmanager
def validation(tasks: int) -> Iterator[Measure]:
    """Measure the check of a definition whose expressions were never seen before."""
    numbers = iter(range(10**9))

    def once() -> int:
        text = guarded_chain_of(tasks).replace("x + ", f"x + {next(numbers)} + ")
        return len(validate(text).tasks)

    yield lambda calls: time_each(once, tasks, calls)


def _runs(
    definition: dict[str, Any], inputs: dict[str, Any], output: dict[str, Any] | None
) -> Iterator[Measure]:
    workflow = validate(definition)
    made = runtime()

    async def once() -> None:
        ended = await made.start(workflow, inputs).run()
        check((ended.status, ended.output), ("succeeded", output))

    async def time_all(calls: int) -> list[int]:
        latencies = []
        for _ in range(calls):
            begin = perf_counter_ns()
            await once()
            latencies.append(perf_counter_ns() - begin)
        return latencies

    with asyncio.Runner() as runner:
        yield _measure(lambda calls: runner.run(time_all(calls)))


def _measure(time_all: Callable[[int], list[int]]) -> Measure:
    def measure(calls: int) -> Measurement:
        begin = perf_counter_ns()
        latencies = time_all(calls)
        return Measurement(
            calls=calls, elapsed_ns=perf_counter_ns() - begin, latencies_ns=latencies
        )

    return measure
