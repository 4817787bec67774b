"""Workflows as their callers see them: runs made through a client, in a pool with a run host.

A sample of an items subject is a slope: the time of many items less that of few, for each item
more, so that the round trip is not in it. The context is made by a task of the run itself, so that
what it costs to send is not in it either.

Mirror: tests/bench/subjects/test_flow_runs.py.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from pronghorn.client.sync import Client

from .. import tapping
from ..figures import Measurement
from ..injected import ask, counting_children
from ..processes import descendants, peak_bytes
from ..timing import Measure, check, time_each
from ..tree import Tree
from .calls import open_pool

WORKERS = 2
PEAK = "peak memory of all processes, bytes"
WIRE = "bytes that broker and workers send for an item"
_REPEATS = 5  # times of which the quickest counts, for a slope

MIXED_TASKS = 20
_LENGTH = (MIXED_TASKS - 2) // 2  # of a branch
MIXED_OUTPUT = {"text": "n-" * _LENGTH + f"{sum(range(_LENGTH))} of n"}
"""Of `mixed` with the name n."""


def mixed(spin_ns: int = 0, place: str | None = None) -> dict[str, Any]:
    """Define 20 trivial tasks with templates, in two branches that meet in the last.

    With `spin_ns` one of them has its worker busy for so long; `place` pins all others.
    """
    tasks: dict[str, Any] = {}
    branches = ("a", "b")
    for branch in branches:
        for number in range(_LENGTH):
            then = f"{branch}{number + 1}" if number + 1 < _LENGTH else "meet"
            tasks[f"{branch}{number}"] = _step(branch, number, then)
    if place is not None:
        tasks = {name: task | {"place": place} for name, task in tasks.items()}
    tasks["first"] = {"next": [{"publish": [{"a": 0}, {"b": ""}], "do": ["a0", "b0"]}]}
    if spin_ns:
        busy = {"action": "add_after", "input": {"a": 0, "b": 0, "spin_ns": spin_ns}}
        tasks["first"] |= busy
    tasks["meet"] = ({} if place is None else {"place": place}) | {
        "join": "all",
        "action": "concat",
        "input": {"a": "{{ b }}", "b": "{{ a }} of {{ name }}"},
        "next": [{"publish": [{"text": "{{ result() }}"}]}],
    }
    return {"input": ["name"], "tasks": tasks, "output": [{"text": "{{ text }}"}]}


def _step(branch: str, number: int, then: str) -> dict[str, Any]:
    """Define a task: sums in one branch, texts in the other."""
    adds = {"action": "add", "input": {"a": "{{ ctx().a }}", "b": number}}
    joins = {"action": "concat", "input": {"a": "{{ b }}", "b": "{{ name }}-"}}
    return {
        **(adds if branch == "a" else joins),
        "next": [
            {"when": "{{ succeeded() }}", "publish": [{branch: "{{ result() }}"}], "do": then}
        ],
    }


def items_on(place: str | None, given: str | None = None) -> dict[str, Any]:
    """Define items of a trivial node on a context that a task before has made.

    `given` has each item get 1 MB of it: as a ``text``, ``list`` or ``sequence``.
    """
    definition = _items_on(place)
    if given is not None:
        tasks = definition["tasks"]
        tasks["context"] |= {"action": "large", "input": {"kind": given}}
        tasks["t"]["action"] = f"add_beside_{given}"
        tasks["t"]["input"]["big"] = "{{ ctx().big }}"
    return definition


def _items_on(place: str | None) -> dict[str, Any]:
    return {
        "input": ["count", "results", "lists"],
        "tasks": {
            "context": {
                "action": "results",
                "input": {"count": "{{ results }}", "lists": "{{ lists }}"},
                "place": "inline",
                "next": [{"publish": [{"big": "{{ result() }}"}], "do": "t"}],
            },
            "t": {
                "with": "x in {{ range(count) }}",
                "action": "add",
                "input": {"a": "{{ item('x') }}", "b": "{{ index }}"},
                "next": [{"publish": [{"sums": "{{ result() }}"}]}],
                **({} if place is None else {"place": place}),
            },
        },
        "output": [{"sum": "{{ sums | sum }}"}],
    }


@contextlib.contextmanager
def pool(workers: int = WORKERS) -> Iterator[Client]:
    """Serve the nodes with workers and a run host."""
    with open_pool(workers, hosts=1) as made:
        yield made.client()


@contextlib.contextmanager
def run_of_20(
    workers: int = WORKERS, spin_ns: int = 0, place: str | None = None
) -> Iterator[Measure]:
    """Measure whole runs of 20 tasks in two branches."""
    definition = mixed(spin_ns, place)
    with pool(workers) as client:
        settle(lambda: client.run(definition, name="n"))
        yield lambda calls: time_each(lambda: client.run(definition, name="n"), MIXED_OUTPUT, calls)


@contextlib.contextmanager
def run_of(definition: dict[str, Any], inputs: dict[str, Any], output: Any) -> Iterator[Measure]:
    """Measure whole runs of any definition."""
    with pool() as client:
        settle(lambda: client.run(definition, inputs=inputs))
        yield lambda calls: time_each(lambda: client.run(definition, inputs=inputs), output, calls)


def slopes_on(place: str | None, given: str | None = None) -> dict[str, Any]:
    """Define few items and many in turns, on one context that a task before has made."""
    once = items_on(place, given)
    tasks: dict[str, Any] = {"context": once["tasks"]["context"]}
    names = [f"{size}{number}" for number in range(_REPEATS) for size in ("few", "many")]
    before = [f"before-{name}" for name in names]
    tasks["context"]["next"][0]["do"] = before[0]
    for name, then in zip(names, [*before[1:], "continue"], strict=True):
        # The inputs of items are made at the end of the task before, which is told after that.
        tasks[f"before-{name}"] = {"next": [{"do": name}]}
        count = name.rstrip("0123456789")
        tasks[name] = {
            **once["tasks"]["t"],
            "with": f"x in {{{{ range({count}) }}}}",
            "next": [{"publish": [{"sums": "{{ result() }}"}], "do": then}],
        }
    return {"input": ["few", "many", "results", "lists"], "tasks": tasks, "output": once["output"]}


@contextlib.contextmanager
def items(
    few: int,
    many: int,
    results: int,
    lists: bool = False,
    place: str | None = None,
    given: str | None = None,
) -> Iterator[Measure]:
    """Measure the cost of an item on a context of so many results, or with 1 MB in its input.

    Few and many are tasks of one run, timed by what its events tell: to make the context costs as
    much as 100,000 items, which would be the noise of the difference between two runs.
    """
    definition = slopes_on(place, given)
    inputs = {"few": few, "many": many, "results": results, "lists": lists}

    with pool() as client:

        def slope() -> int:
            took: dict[str, list[int]] = {"few": [], "many": []}
            with client.submit_run(definition, inputs=inputs, level="outputs") as run:
                before = 0.0
                for event in run.events():
                    size = (event.task or "").rstrip("0123456789")
                    if event.kind != "task_ended" or size.startswith("before"):
                        continue
                    if size in took:
                        took[size].append(int((event.at_s - before) * 1e9))
                    before = event.at_s
                check(run.result(), {"sum": many * (many - 1)})
            return (min(took["many"]) - min(took["few"])) // (many - few)

        once = items_on(place, given)
        settle(lambda: client.run(once, count=few, results=0, lists=False))

        def measure(calls: int) -> Measurement:
            begin = time.perf_counter_ns()
            slopes = [slope() for _ in range(calls)]
            elapsed = time.perf_counter_ns() - begin
            return Measurement(calls=calls, elapsed_ns=elapsed, latencies_ns=slopes)

        yield measure


@contextlib.contextmanager
def whole_items(count: int) -> Iterator[Measure]:
    """Measure whole runs of so many items."""
    definition, expected = items_on(None), {"sum": count * (count - 1)}
    inputs = {"count": count, "results": 0, "lists": False}
    with pool() as client:
        settle(lambda: client.run(definition, inputs=inputs))
        yield lambda calls: time_each(
            lambda: client.run(definition, inputs=inputs), expected, calls
        )


@contextlib.contextmanager
def peak(count: int, results: int) -> Iterator[Measure]:
    """Measure the peak memory of all processes over runs in the workers."""
    definition = items_on("pool")
    with pool() as client:

        def measure(calls: int) -> Measurement:
            begin = time.perf_counter_ns()
            for _ in range(calls):
                output = client.run(definition, count=count, results=results, lists=True)
                check(output, {"sum": count * (count - 1)})
            together = sum(map(peak_bytes, descendants(os.getpid())))
            elapsed = time.perf_counter_ns() - begin
            return Measurement(calls=calls, elapsed_ns=elapsed, extra={PEAK: float(together)})

        yield measure


@contextlib.contextmanager
def wire(few: int, many: int, results: int, given: str | None = None) -> Iterator[Measure]:
    """Measure the bytes that travel for an item which runs in the workers, each hop counted.

    A slope, as for `items`. The run host is one of the workers; what the client sends, the run's
    definition, is not counted.
    """
    definition = items_on("pool", given)
    with counting_children(tapping) as folder, pool() as client:
        tree = Tree.of_this_process().pids
        senders = [*tree["broker"], *tree["worker"]]

        def sent(count: int, results: int) -> int:
            ask(folder, senders)
            output = client.run(definition, count=count, results=results, lists=False)
            check(output, {"sum": count * (count - 1)})
            return ask(folder, senders)

        settle(lambda: sent(few, 0))

        def measure(calls: int) -> Measurement:
            begin = time.perf_counter_ns()
            slopes = [
                (sent(many, results) - sent(few, results)) / (many - few) for _ in range(calls)
            ]
            elapsed = time.perf_counter_ns() - begin
            return Measurement(calls=calls, elapsed_ns=elapsed, extra={WIRE: sum(slopes) / calls})

        yield measure


@contextlib.contextmanager
def orders(order: str) -> Iterator[Measure]:
    """Measure how long it takes until an order is carried out, as its events tell."""
    definition = {
        "tasks": {
            "t": {"action": "nap_2ms", "place": "pool", "next": [{"do": "u"}]},
            "u": {"action": "core.wait", "input": {"event": "go"}},
        }
    }
    until = {"pause": "paused", "resume": "running", "cancel": "canceled"}[order]

    def once(client: Client) -> int:
        with client.submit_run(definition) as run:
            events = run.events()
            _until(events, task="u")
            if order == "resume":
                run.pause()
                _until(events, status="paused")
            begin = time.perf_counter_ns()
            run.cancel() if order == "cancel" else getattr(run, order)()
            _until(events, status=until)
            elapsed = time.perf_counter_ns() - begin
            if order != "cancel":
                run.cancel(stop_running=True)
                run.report()
            return elapsed

    with pool() as client:
        settle(lambda: once(client))

        def measure(calls: int) -> Measurement:
            begin = time.perf_counter_ns()
            latencies = [once(client) for _ in range(calls)]
            elapsed = time.perf_counter_ns() - begin
            return Measurement(calls=calls, elapsed_ns=elapsed, latencies_ns=latencies)

        yield measure


def _until(events: Iterator[Any], *, task: str | None = None, status: str | None = None) -> None:
    for event in events:
        if (task, "task_started") == (event.task, event.kind) or (
            status is not None and event.status == status
        ):
            return
    raise AssertionError(f"the run has ended before {task or status}")


def settle(run: Callable[[], object]) -> None:
    """Run until it is known where the nodes run best."""
    for _ in range(20):
        run()
