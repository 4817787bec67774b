"""Recorded runs of workflows while their host, the broker and the whole tree are killed.

In each trial runs are begun, something is killed while they are under way, and all come to their
ends. Nodes leave a line when they begin, with the time; what a run has brought is in the journal,
with the time at which it was recorded. So a task that begins after it was recorded as done has run
again, also one of a workflow within the run, or within that.
"""

import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any, Final
from unittest.mock import patch

import msgspec

from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.reading import history, read_at, value_of
from pronghorn.broker.journal.record import Advanced
from pronghorn.broker.journal.store import Store
from pronghorn.client import Client, PronghornError
from pronghorn.worker.flow.events import Ended, ItemsEnded
from pronghorn.worker.flow.history import Moment, Within, read

from .durable import all_runs
from .flow_nodes import EFFECTS
from .killed import Service

TRIALS: Final = 100
NODES: Final = str(Path(__file__).parent / "flow_nodes.py")
TARGETS: Final = ("host", "broker", "tree")
_RUNS: Final = 4  # begun in each trial
_UNTIL_KILL_S: Final = (0.0, 0.25)
_ENDS_S: Final = 60.0
_ITEMS: Final = 6
_PARTS: Final = 3
_TASKS: Final = 4 + _ITEMS + 2 + 2 * _PARTS  # and items, of a run and of those within it

_GIVEN: Final = "token: '{{ token }}', ms: '{{ ms }}'"
FLOW: Final = f"""
input: [token, ms]
tasks:
  a: {{action: step, input: {{task: a, {_GIVEN}}}, next: [{{do: [b, c]}}]}}
  b: {{action: later, input: {{task: b, {_GIVEN}}}, next: [{{do: d}}]}}
  c:
    with: {{items: "{{{{ range({_ITEMS}) }}}}", concurrency: 3}}
    action: step
    input: {{task: "c{{{{ item() }}}}", {_GIVEN}}}
    next: [{{publish: [{{cs: "{{{{ result() }}}}"}}], do: d}}]
  d: {{join: all, delay: 0.02, action: step, input: {{task: d, {_GIVEN}}}, next: [{{do: [e, f]}}]}}
  e: {{action: later, input: {{task: e, {_GIVEN}}}}}
  f:
    action: part
    input: {{at: f, {_GIVEN}}}
    next: [{{publish: [{{fs: "{{{{ result().ps }}}}"}}]}}]
output: [{{cs: "{{{{ cs }}}}"}}, {{fs: "{{{{ fs }}}}"}}]
"""
PART: Final = f"""
input: [at, token, ms]
tasks:
  p: {{action: later, input: {{task: "{{{{ at }}}}.p", {_GIVEN}}}, next: [{{do: [q, r]}}]}}
  q:
    with: {{items: "{{{{ range({_PARTS}) }}}}", concurrency: 2}}
    action: leaf
    input: {{at: "{{{{ at }}}}.q{{{{ item() }}}}", {_GIVEN}}}
    next: [{{publish: [{{ps: "{{{{ result() }}}}"}}]}}]
  r: {{delay: 0.01, action: step, input: {{task: "{{{{ at }}}}.r", {_GIVEN}}}}}
output: [{{ps: "{{{{ ps }}}}"}}]
"""
LEAF: Final = f"""
input: [at, token, ms]
tasks:
  x: {{action: step, input: {{task: "{{{{ at }}}}.x", {_GIVEN}}}, next: [{{do: y}}]}}
  y:
    action: later
    input: {{task: "{{{{ at }}}}.y", {_GIVEN}}}
    next: [{{publish: [{{y: "{{{{ result() }}}}"}}]}}]
output: [{{y: "{{{{ y }}}}"}}]
"""
_SERVED: Final = {"census": FLOW, "part": PART, "leaf": LEAF}


class Findings(msgspec.Struct, kw_only=True):
    """What a campaign has found.

    Attributes:
        kills: Of what, how often.
        runs: Status -> how many are in the journal.
        attempts: Those that followed a first one.
        recorded: Tasks and items that were recorded as done.
        begun: How often any has begun.
        again: Those that began after they were recorded as done.
        lost: Runs that have not ended as they should.
        violations: What else is wrong.
    """

    kills: Counter[str] = msgspec.field(default_factory=Counter)
    runs: Counter[str] = msgspec.field(default_factory=Counter)
    attempts: int = 0
    recorded: int = 0
    begun: int = 0
    again: list[str] = msgspec.field(default_factory=list)
    lost: list[str] = msgspec.field(default_factory=list)
    violations: list[str] = msgspec.field(default_factory=list)


def soak_flows(trials: int, seed: int) -> int:
    """Make so many trials; returns an exit status."""
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))  # short: a socket's path is limited
    try:
        found = campaign(folder, trials, seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for wrong in (*found.again, *found.lost, *found.violations):
        print(wrong)
    print(
        f"{found.kills.total()} kills, seed {seed}: {dict(found.kills)}\n"
        f"runs: {dict(found.runs)}, {found.attempts} attempts after the first\n"
        f"tasks and items recorded as done: {found.recorded}, begun {found.begun} times\n"
        f"recorded as done and run again: {len(found.again)}\n"
        f"runs lost: {len(found.lost)}\n"
        f"else wrong: {len(found.violations)}"
    )
    return 1 if found.again or found.lost or found.violations else 0


def campaign(folder: Path, trials: int, seed: int) -> Findings:
    """Make so many trials, and hold what was done against the journal."""
    effects = folder / "effects"
    effects.touch()
    flows = [folder / f"{name}.yaml" for name in _SERVED]
    for file, definition in zip(flows, _SERVED.values(), strict=True):
        file.write_text(definition)
    found, random = Findings(), Random(seed)
    with patch.dict(os.environ, {EFFECTS: str(effects), "XDG_RUNTIME_DIR": str(folder)}):
        service = Service(folder / "data", found, (NODES, *map(str, flows)))
        try:
            for trial in range(trials):
                _trial(service, trial, TARGETS[trial % len(TARGETS)], random, found)
                if trial % 20 == 19:
                    print(f"{trial + 1} trials", file=sys.stderr, flush=True)
            _await_ends(folder / "data")
        finally:
            service.close()
    found.violations += [
        f"the journal: {problem}" for problem in check_folder(folder / "data").problems
    ]
    _judge(folder / "data", effects.read_text().split("\n"), found)
    return found


def _trial(service: Service, trial: int, target: str, random: Random, found: Findings) -> None:
    """Begin runs, kill something in their midst, and see them to their ends."""
    with Client(service.endpoint, connect_timeout_s=30.0) as client:
        kept, threads = [], []
        for number in range(_RUNS):
            token, ms = f"{trial}-{number}", random.choice((0.0, 1.0, 10.0))
            inputs = {"token": token, "ms": ms}
            durability: Any = random.choice(("batched", "sync"))
            if number % 2:
                kept.append((token, client.start("census", durability=durability, **inputs)))
            else:  # who calls is told nothing of its run, which goes on all the same
                thread = threading.Thread(target=_call, args=(client, durability, inputs))
                thread.start()
                threads.append(thread)
        sleep(random.uniform(*_UNTIL_KILL_S))
        if not service.kill(target, random):
            found.violations.append(f"trial {trial}: there is no {target} to kill")
        for token, run in kept:
            try:
                output = run.result(_ENDS_S)
            except PronghornError as error:
                found.lost.append(f"{token}: {error!r}")
                continue
            if output != _output(token):
                found.lost.append(f"{token}: {output}")
        for thread in threads:
            thread.join(_ENDS_S)
        # Those that were called and are not known to anybody have ended, too.
        client.start("census", token=f"{trial}-last", ms=0.0).result(_ENDS_S)


def _await_ends(data: Path) -> None:
    """Wait until no run is open: who has called one whose broker was killed knows it no more."""
    until = monotonic() + _ENDS_S
    while monotonic() < until:
        store = Store.open_to_read(data)
        try:
            with store.view() as view:
                if all(state.status != "open" for state in all_runs(view)):
                    return
        finally:
            store.close()
        sleep(0.1)


def _output(token: str) -> dict[str, Any]:
    return {
        "cs": [f"{token}/c{item}" for item in range(_ITEMS)],
        "fs": [{"y": f"{token}/f.q{part}.y"} for part in range(_PARTS)],
    }


def _call(client: Client, durability: Any, inputs: dict[str, Any]) -> None:
    with suppress(PronghornError):  # its broker or its worker was lost
        client.run(
            Path(os.environ[EFFECTS]).parent / "census.yaml", durability=durability, **inputs
        )


def _judge(data: Path, effects: list[str], found: Findings) -> None:
    """Hold what nodes have done against what was recorded."""
    begun: dict[str, list[int]] = {}
    for line in filter(None, effects):
        name, at_ns = line.split()
        begun.setdefault(name, []).append(int(at_ns))
    found.begun = sum(map(len, begun.values()))
    store = Store.open_to_read(data)
    try:
        with store.view() as view:
            for state in all_runs(view):
                found.runs[state.status] += 1
                found.attempts += state.attempt - 1
                if state.status != "done":
                    found.lost.append(f"run {state.run} is {state.status}")
                names: set[str] = set()
                pages, _ = history(view, state, after=0, bytes_max=1 << 40)
                for sequence, _ in pages:
                    record = read_at(view, sequence)
                    assert isinstance(record, Advanced)
                    value = value_of(view, record)
                    for name in _done(read(value.content, value.buffers)):
                        names.add(name)
                        found.recorded += 1
                        late = [at for at in begun.get(name, []) if at > record.at_ns]
                        if late or name not in begun:
                            found.again.append(f"{name}: {late} after {record.at_ns}")
                if state.status == "done" and len(names) != _TASKS:
                    found.violations.append(f"run {state.run} has recorded only {sorted(names)}")
    finally:
        store.close()


def _done(moments: list[Moment]) -> list[str]:
    names: list[Any] = []
    for moment in moments:
        match moment.what.what if isinstance(moment.what, Within) else moment.what:
            case Ended(status="succeeded", result=result):
                names.append(result)
            case ItemsEnded(items=items):
                names += [each.result for each in items if each.status == "succeeded"]
    return [name for name in names if isinstance(name, str)]
