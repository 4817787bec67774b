"""Histories of recorded runs as golden files: made once by real runs, and replayed for ever.

    PYTHONPATH=tests/support python -m flow_histories

makes those of `RUNS` that are not in tests/golden/flow/histories yet. A file that is there is never
made again: it is what an older version has left in a journal.
"""

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import msgspec
from kept_attempts import KeptAttempt, Told
from msgspec import Raw

from pronghorn.broker.wire.flows import RunReport
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.flow.events import Cancel, Event, Pause, Resume, Signal
from pronghorn.worker.flow.recording import Recording, take_up
from pronghorn.worker.flow.runtime import FlowRuntime
from pronghorn.worker.flow.validation import validate
from pronghorn.worker.loader import load

TESTS = Path(__file__).parents[1]
FOLDER = TESTS / "golden" / "flow" / "histories"
NODES = TESTS / "support" / "served" / "flow_tasks.py"


class Plot(msgspec.Struct, frozen=True):
    """A run to be recorded.

    Attributes:
        orders: The next is given once there is an event of that kind, or with that status, or a
            task of that name has started.
        flows: Workflows that are served, by name.
        reopened: Whether it is taken up again after it has failed.
    """

    definition: str
    inputs: dict[str, Any] = {}
    orders: tuple[tuple[str, Event], ...] = ()
    flows: dict[str, str] = {}
    reopened: bool = False


class Error(msgspec.Struct, frozen=True):
    """An error of a run, without its wording."""

    kind: str
    task: str | None
    field: str | None
    item: int | None


class Ending(msgspec.Struct, frozen=True):
    """How a run has ended."""

    status: str
    output: Any
    errors: tuple[Error, ...]


class Record(msgspec.Struct, frozen=True):
    """What was told in one go; base64."""

    value: str
    buffers: tuple[str, ...]


class Recorded(msgspec.Struct, frozen=True):
    """A golden file."""

    inputs: dict[str, Any]
    records: tuple[Record, ...]
    ending: Ending

    def attempt(self) -> KeptAttempt:
        """Give the next attempt of the run, which has all this as its history."""
        told = []
        for record in self.records:
            buffers = [base64.b64decode(each) for each in record.buffers]
            value = Raw(base64.b64decode(record.value))
            told.append(Told(value, buffers, (), moved=True, asks=False))
        return KeptAttempt(told)


def ending_of(report: Any) -> Ending:
    """Take from a report, or from what a conductor says at the end, what has to stay as it was."""
    errors = (Error(each.kind, each.task, each.field, each.item) for each in report.errors)
    return Ending(report.status, report.output, tuple(errors))


RUNS = {
    "branches": Plot(
        """
input: [n]
vars: [{d: {}}]
tasks:
  first:
    action: add
    input: {a: "{{ n }}"}
    next: [{publish: [{n: "{{ result() }}"}], do: [l, r]}]
  l:
    action: add
    input: {a: "{{ n }}", b: 2}
    next: [{publish: [{d: {l: "{{ result() }}"}}], do: end}]
  r: {action: nap, input: {seconds: 0.01}, next: [{publish: [{d: {r: "{{ n }}"}}], do: end}]}
  end:
    join: all
    action: identity
    input: {value: "{{ d }}"}
    next: [{publish: [{end: "{{ result() }}"}]}]
output: [{end: "{{ end }}"}]
""",
        {"n": 1},
    ),
    "items": Plot(
        """
tasks:
  t:
    with: {items: "x in {{ range(20) }}", concurrency: 7}
    action: odd
    input: {n: "{{ item('x') }}"}
    next: [{when: "{{ failed() }}", publish: [{r: "{{ result() }}"}], do: large}]
  large:
    action: identity
    input: {value: "{{ 'x' * 2000 }}"}
    next: [{publish: [{size: "{{ result() | length }}"}]}]
output: [{size: "{{ size }}"}, {second: "{{ r[1] }}"}]
"""
    ),
    "given": Plot(
        """
tasks:
  t:
    with: {items: {action: numbers, input: {count: 10}}, as: n, concurrency: 4}
    action: add
    input: {a: "{{ item('n') }}", b: "{{ index }}"}
    next: [{publish: [{r: "{{ result() }}"}]}]
output: [{r: "{{ r }}"}]
"""
    ),
    "retries": Plot(
        """
vars: [{n: 0}]
tasks:
  again: {action: wrong, retry: {count: 2, delay: 0.01}, next: [{when: "{{ failed() }}", do: loop}]}
  loop:
    action: add
    input: {a: "{{ n }}"}
    next:
      - {when: "{{ n < 3 }}", publish: [{n: "{{ result() }}"}], do: loop}
      - {when: "{{ n >= 3 }}", do: [split_a, split_b]}
  split_a: {next: [{do: both}]}
  split_b: {next: [{do: both}]}
  both: {action: add, input: {a: "{{ n }}"}, next: [{publish: [{n: "{{ result() }}"}]}]}
output: [{n: "{{ n }}"}]
"""
    ),
    "failed": Plot(
        """
tasks:
  a: {action: add, input: {a: 1}, next: [{do: [j, b]}]}
  b: {action: wrong, next: [{when: "{{ succeeded() }}", do: j}]}
  j: {join: all, action: add, input: {a: 1}}
output: [{x: "{{ ctx().get('x') }}"}, {y: "{{ result() }}"}]
"""
    ),
    "orders": Plot(
        """
tasks:
  a: {action: nap, input: {seconds: 0.01}, next: [{do: w}]}
  w: {action: core.wait, input: {event: go}, next: [{publish: [{v: "{{ result() }}"}], do: b}]}
  b: {action: nap, delay: 0.01, input: {seconds: 0.01}}
output: [{v: "{{ v }}"}]
""",
        orders=(("begun", Pause()), ("paused", Resume()), ("running", Signal("go", {"k": [1]}))),
    ),
    "canceled": Plot(
        """
tasks:
  a: {action: add, input: {a: 1}, next: [{publish: [{x: "{{ result() }}"}], do: b}]}
  b: {action: nap, input: {seconds: 30}, next: [{do: c}]}
  c: {action: add, input: {a: 1}}
output: [{x: "{{ x }}"}]
""",
        orders=(("b", Cancel(stop_running=True)),),
    ),
    "reopened": Plot(
        """
input: [n]
tasks:
  a: {action: add, input: {a: 1}, next: [{publish: [{x: "{{ result() }}"}], do: b}]}
  b: {action: wrong, input: {message: "{{ x }}"}}
output: [{x: "{{ x }}"}]
""",
        {"n": 1},
        reopened=True,
    ),
}

_INNER = {
    "leaf": """
input: [n]
tasks:
  x: {action: add, input: {a: "{{ n }}"}, next: [{publish: [{n: "{{ result() }}"}], do: y}]}
  y: {action: nap, delay: 0.01, input: {seconds: 0.001}, next: [{do: z}]}
  z:
    with: "m in {{ range(n) }}"
    action: add
    input: {a: "{{ item('m') }}"}
    next: [{publish: [{r: "{{ result() }}"}]}]
output: [{r: "{{ r }}"}]
""",
    "middle": """
input: [n]
tasks:
  i: {action: leaf, input: {n: "{{ n }}"}, next: [{publish: [{i: "{{ result().r }}"}], do: k}]}
  k:
    with: "m in {{ i }}"
    action: leaf
    input: {n: "{{ item('m') }}"}
    next: [{publish: [{r: "{{ result() }}"}]}]
output: [{r: "{{ r }}"}]
""",
    "wrong_at_last": """
tasks:
  x: {action: add, input: {a: 1}, next: [{do: y}]}
  y: {action: wrong}
""",
}
RUNS["inner"] = Plot(
    """
input: [n]
tasks:
  a: {action: middle, input: {n: "{{ n }}"}, next: [{publish: [{a: "{{ result().r }}"}]}]}
  b: {action: leaf, input: {n: "{{ n }}"}, next: [{publish: [{b: "{{ result().r }}"}]}]}
output: [{a: "{{ a }}"}, {b: "{{ b }}"}]
""",
    {"n": 2},
    flows=_INNER,
)
RUNS["inner_again"] = Plot(
    """
tasks:
  a: {action: wrong_at_last, retry: {count: 1}}
  b: {with: "{{ [0, 1] }}", action: wrong_at_last}
""",
    flows=_INNER,
    reopened=True,
)
RUNS["inner_signals"] = Plot(
    """
tasks: {a: {action: signalled, next: [{publish: [{v: "{{ result().v }}"}]}]}}
output: [{v: "{{ v }}"}]
""",
    orders=(("a", Signal("go", {"k": [1]})),),
    flows={
        "signalled": """
tasks:
  x: {action: nap, input: {seconds: 0.05}, next: [{do: w}]}
  w: {action: core.wait, input: {event: go}, next: [{publish: [{v: "{{ result() }}"}]}]}
output: [{v: "{{ v }}"}]
"""
    },
)


async def record(plot: Plot) -> Recorded:
    """Have a run recorded as a run host does."""
    attempt = KeptAttempt()
    report = await _run(plot, Recording(attempt, []), first=True)
    if plot.reopened:
        attempt.reopen()
        report = await _run(plot, await take_up(attempt), first=False)
    return Recorded(plot.inputs, tuple(map(_record, attempt.told)), ending_of(report))


def runtime_of(plot: Plot) -> FlowRuntime:
    """Serve what a run needs."""
    flows = {name: validate(each) for name, each in plot.flows.items()}
    return FlowRuntime(DispatchTable(load([str(NODES)]).entries), flows)


async def _run(plot: Plot, recording: Recording, *, first: bool) -> RunReport:
    workflow = validate(plot.definition)
    if first:
        recording.define(workflow)
    run = runtime_of(plot).start(workflow, plot.inputs, run_id="r", recording=recording)
    orders = list(plot.orders) if first else []
    async for event in run.follow():
        seen = {event.kind, event.status, event.task if event.kind == "task_started" else None}
        if orders and orders[0][0] in seen:
            run.tell(orders.pop(0)[1])
    assert run.report is not None
    return run.report


def _record(told: Told) -> Record:
    encode = base64.b64encode
    value = encode(bytes(told.value)).decode()
    return Record(value, tuple(encode(each).decode() for each in told.buffers))


def main() -> None:
    """Make the files that are not there."""
    FOLDER.mkdir(exist_ok=True)
    for name, plot in RUNS.items():
        file = FOLDER / f"{name}.json"
        if not file.exists():
            made = asyncio.run(record(plot))
            file.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
            sys.stdout.write(f"{name}: {made.ending.status}, {len(made.records)} records\n")


if __name__ == "__main__":
    main()
