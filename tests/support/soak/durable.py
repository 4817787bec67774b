"""Runs under load while worker, journal, broker and the whole tree are killed again and again.

The stream between broker and journal is broken, too, by what neither of them has written.

What clients were told is noted here, what nodes did by themselves; at the end both are held against
the journal. A run's result is made up anew by each attempt, so that two runs are never taken for
one.
"""

import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any, Final, Literal
from unittest.mock import patch

import msgspec

from pronghorn.broker.journal.backlog import REFUSE
from pronghorn.broker.journal.checking import check_folder
from pronghorn.broker.journal.fold import DEATHS_MAX, RunState
from pronghorn.broker.journal.reading import (
    PAGE_RUNS,
    last_record,
    list_runs,
    params_of,
    read_backwards,
    secret_of,
    value_of,
)
from pronghorn.broker.journal.record import Ended
from pronghorn.broker.journal.rows import Filter, format_run_id
from pronghorn.broker.journal.store import Store, View
from pronghorn.client import (
    CancelledError,
    Client,
    InterruptedRunError,
    InvalidArgumentError,
    JournalError,
    NodeError,
    PronghornError,
    WorkerLostError,
)

from . import durable_maps
from .durable_maps import KeptMap, ToldMap
from .durable_nodes import EFFECTS
from .killed import Service

KILLS: Final = 300
CALLERS: Final = 8
NODES: Final = str(Path(__file__).parent / "durable_nodes.py")
_TARGETS: Final = (
    *("worker", "worker", "journal", "journal", "stream", "stream"),
    *("broker", "tree"),
)
_PAUSE_S: Final = (0.02, 0.3)  # between two kills, beside what a new tree takes
_ENDS_S: Final = 60.0  # for all runs to end, once nothing is killed any more
_WINDOW_S: Final = REFUSE.age_s  # the oldest record that may be outstanding

# What tells how a run has ended; all else tells that it is not known.
_ENDINGS: Final = (CancelledError, InterruptedRunError, NodeError, WorkerLostError)
_DEFECTS: Final = ("INTERNAL", "PROTOCOL_ERROR")

Kind = Literal["sync", "batched", "started", "keyed", "once", "poison", "left", "cancelled"]
_KINDS: Final[tuple[Kind | Literal["map"], ...]] = (
    *("sync", "batched", "started", "keyed", "map") * 8,
    *("once", "left", "cancelled") * 4,
    "poison",
)


class Told(msgspec.Struct, kw_only=True):
    """What a client was told of what it has asked for under a token.

    Attributes:
        kind: How it was asked for.
        node: Of what.
        run_ids: Ids that were told; of one run they are equal.
        results: Results that were told.
        ends: Names of errors that tell of an end.
        told_at: When the first result was told, monotonic seconds.
    """

    kind: Kind
    node: str
    run_ids: set[str] = msgspec.field(default_factory=set)
    results: set[str] = msgspec.field(default_factory=set)
    ends: set[str] = msgspec.field(default_factory=set)
    told_at: float = 0.0


class Findings(msgspec.Struct, kw_only=True):
    """What a campaign has found."""

    kills: Counter[str] = msgspec.field(default_factory=Counter)
    told: Counter[str] = msgspec.field(default_factory=Counter)  # kind -> told of its end
    runs: Counter[str] = msgspec.field(default_factory=Counter)  # status -> in the journal
    maps: Counter[str] = msgspec.field(default_factory=Counter)  # status -> in the journal
    items: int = 0  # of them, that were told
    again: int = 0  # items that have begun more than once
    lost: int = 0  # batched results that were told and not kept
    lost_s: float = 0.0  # the longest time between such a result and a kill
    violations: list[str] = msgspec.field(default_factory=list)


def soak_durable(kills: int, seed: int) -> int:
    """Kill so often; returns an exit status."""
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))  # short: a socket's path is limited
    try:
        found = campaign(folder, kills, seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for violation in found.violations:
        print(violation)
    print(
        f"{found.kills.total()} kills, seed {seed}: {dict(found.kills)}\n"
        f"told: {dict(found.told)}\nin the journal: {dict(found.runs)}\n"
        f"maps among them: {dict(found.maps)}, {found.items} items told, "
        f"{found.again} begun more than once\n"
        f"batched, told and lost: {found.lost}, at most {found.lost_s * 1e3:.1f} ms before a kill\n"
        f"{len(found.violations)} promises broken"
    )
    if found.violations:
        print(f"Have it again: scripts/soak durable --seed {seed}", file=sys.stderr)
    return 1 if found.violations else 0


def campaign(folder: Path, kills: int, seed: int) -> Findings:
    """Kill so often under load, let all runs end, and hold everything against each other."""
    effects = folder / "effects"
    effects.touch()
    found = Findings()
    surroundings = {EFFECTS: str(effects), "XDG_RUNTIME_DIR": str(folder)}
    with patch.dict(os.environ, surroundings):
        service = Service(folder / "data", found, (NODES,))
        crowd = [_Caller(service.endpoint, number, seed) for number in range(CALLERS)]
        try:
            _trouble(service, crowd, Random(seed), kills)
            told = {token: one for caller in crowd for token, one in caller.told.items()}
            maps = {token: one for caller in crowd for token, one in caller.maps.items()}
            _await_ends(service, told, found)
            _await_maps(service, maps, found)
            service.check_records()
            found.violations += {defect for caller in crowd for defect in caller.defects}
        finally:
            for caller in crowd:
                caller.stop()
            service.close()
        _judge(folder / "data", told, maps, effects.read_text().splitlines(), service, found)
    return found


class _Caller:
    """A client that starts and calls all kinds of things, one after the other, in a thread."""

    def __init__(self, endpoint: str, number: int, seed: int) -> None:
        self.told: dict[str, Told] = {}
        self.maps: dict[str, ToldMap] = {}
        self.defects: set[str] = set()  # errors that no death explains
        self._random = Random(seed * CALLERS + number)
        self._number = number
        self._client = Client(endpoint, connect_timeout_s=30.0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"caller-{number}")
        self._thread.start()

    def stop(self) -> None:
        """Have it end what it does; what waits for a run is given up with the connection."""
        self._stopping.set()
        self._thread.join(_ENDS_S)
        self._client.close()
        assert not self._thread.is_alive()

    def _run(self) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            kind = self._random.choice(_KINDS)
            token = f"{self._number}-{count}"
            if kind == "map":
                self._map(token)
                continue
            node = {"once": "act_once", "poison": "poison"}.get(kind, "act")
            told = self.told[token] = Told(kind=kind, node=node)
            ms = self._random.choice((0.0, 0.0, 1.0, 20.0))
            try:
                self._ask(told, token, ms)
            except _ENDINGS as error:
                told.ends.add(type(error).__name__)
            except PronghornError as error:
                self._on_unknown(error)

    def _map(self, token: str) -> None:
        told = self.maps[token] = durable_maps.new(token, self._random)
        try:
            durable_maps.ask(self._client, told, self._random, self._stopping.is_set)
        except PronghornError as error:
            self._on_unknown(error)

    def _on_unknown(self, error: PronghornError) -> None:
        """Go on after an error that leaves open what became of it, unless it tells of a defect."""
        if error.code in _DEFECTS:
            self.defects.add(repr(error))
        sleep(0.005)

    def _ask(self, told: Told, token: str, ms: float) -> None:
        client, node = self._client, told.node
        if told.kind in ("sync", "batched"):
            self._note(told, client.call(node, token, ms, durability=told.kind))
            return
        if told.kind == "keyed":
            self._ask_with_key(told, token, ms)
            return
        run = client.start(node, token, ms, durability="sync")
        told.run_ids.add(run.id)
        if told.kind == "cancelled":
            run.cancel()
        elif told.kind != "left":
            self._note(told, run.result(self._random.choice((None, 0.01, 1.0))))

    def _ask_with_key(self, told: Told, token: str, ms: float) -> None:
        """Ask under one key until there is an answer, and once more, and for something else."""
        answers = 0
        while answers < 2 and not self._stopping.is_set():
            try:
                if self._random.random() < 0.3:
                    run = self._client.start(told.node, token, ms, key=token)
                    told.run_ids.add(run.id)
                durable = self._client.within(durability="sync", key=token)
                self._note(told, durable.call(told.node, token, ms))
            except _ENDINGS as error:
                told.ends.add(type(error).__name__)
            except PronghornError as error:
                self._on_unknown(error)
                continue
            answers += 1
        try:
            self._client.start(told.node, "other", ms, key=token)
        except InvalidArgumentError:
            return
        if answers:
            told.ends.add("a second run of the key")

    @staticmethod
    def _note(told: Told, result: Any) -> None:
        told.results.add(result)
        told.told_at = told.told_at or monotonic()


def _trouble(service: Service, crowd: list[_Caller], random: Random, kills: int) -> None:
    done = 0
    while done < kills:
        sleep(random.uniform(*_PAUSE_S))
        done += service.kill(random.choice(_TARGETS), random)
        if done % 25 == 0:
            print(f"{done} kills", file=sys.stderr, flush=True)
    for caller in crowd:
        caller.stop()


def _await_ends(service: Service, told: dict[str, Told], found: Findings) -> None:
    """Wait for the end of each run that a client knows, and see what it is told of it."""
    with Client(service.endpoint, connect_timeout_s=30.0) as client:
        for token, one in told.items():
            for run_id in one.run_ids:
                try:
                    one.results.add(_result(client, run_id))
                except _ENDINGS as error:
                    one.ends.add(type(error).__name__)
                except PronghornError as error:
                    found.violations.append(f"{token}, {one.kind}: {run_id}: {error!r}")


def _await_maps(service: Service, maps: dict[str, ToldMap], found: Findings) -> None:
    """Wait for the end of each map that a client knows, and see what is told of its items."""
    with Client(service.endpoint, connect_timeout_s=30.0) as client:
        for token, one in maps.items():
            for run_id in one.run_ids:
                run = client.attach(run_id, is_map=True)
                try:
                    _with_a_journal(lambda one=one, run=run: one.read(run))  # type: ignore[misc]
                except PronghornError as error:
                    found.violations.append(f"{token}, map: {run_id}: {error!r}")


def _result(client: Client, run_id: str) -> Any:
    """Wait for the result of a run."""
    return _with_a_journal(lambda: client.attach(run_id).result(_ENDS_S))


def _with_a_journal(ask: Callable[[], Any]) -> Any:
    """Ask for something; the journal may have been killed while it was being started.

    Then it is tried again after some seconds, and cannot be asked until then.
    """
    deadline = monotonic() + _ENDS_S
    while True:
        try:
            return ask()
        except JournalError:
            if monotonic() > deadline:
                raise
            sleep(0.1)


def _judge(
    data: Path,
    told: dict[str, Told],
    maps: dict[str, ToldMap],
    effects: list[str],
    service: Service,
    found: Findings,
) -> None:
    """Hold what clients were told and nodes have done against the journal."""
    found.violations += [f"the journal: {problem}" for problem in check_folder(data).problems]
    begun = Counter(effects)
    kept: dict[str, list[tuple[RunState, str, str | None]]] = {}
    kept_maps: dict[str, list[KeptMap]] = {}
    store = Store.open_to_read(data)
    try:
        with store.view() as view:
            for state in all_runs(view):
                found.runs[state.status] += 1
                token = msgspec.msgpack.decode(params_of(view, state).content)[0]
                run_id, result = format_run_id(state.run, secret_of(view, state.run)), None
                if state.items is not None:
                    found.maps[state.status] += 1
                    kept_map = KeptMap.of(view, state, run_id)
                    kept_maps.setdefault(token["token"], []).append(kept_map)
                    continue
                if state.status == "done":
                    result = msgspec.msgpack.decode(
                        value_of(view, last_record(view, state)).content
                    )
                records = [record for _, record, _ in read_backwards(view, state)]
                if sum(isinstance(record, Ended) for record in records) != 1:
                    found.violations.append(f"{token}: run {run_id} is {state.status}, not ended")
                kept.setdefault(token, []).append((state, run_id, result))
    finally:
        store.close()
    _judge_maps(maps, kept_maps, [line for line in effects if " " in line], found)
    for token, one in told.items():
        runs = kept.pop(token, [])
        for violation in _violations(one, runs, begun[token]):
            found.violations.append(f"{token}, {one.kind}: {violation}")
        found.told[one.kind] += bool(one.results or one.ends)
        if one.kind == "batched" and one.results and not any(run[2] for run in runs):
            found.lost += 1
            after = [loss - one.told_at for loss in service.losses if loss >= one.told_at]
            lost_s = min(after, default=float("inf"))
            found.lost_s = max(found.lost_s, lost_s)
            if lost_s > _WINDOW_S:
                found.violations.append(f"{token}: it was told {lost_s} s before a loss, and lost")
    if kept:
        found.violations.append(f"runs that nobody has asked for: {sorted(kept)}")


def _judge_maps(
    maps: dict[str, ToldMap],
    kept: dict[str, list[KeptMap]],
    effects: list[str],
    found: Findings,
) -> None:
    begun = durable_maps.read_effects(effects)
    for token, one in maps.items():
        for violation in durable_maps.violations(one, kept.pop(token, []), begun):
            found.violations.append(f"{token}, map of {one.count}: {violation}")
        found.items += len(one.results)
    found.again = sum(len(times) > 1 for times in begun.values())
    if kept:
        found.violations.append(f"maps that nobody has asked for: {sorted(kept)}")


def all_runs(view: View) -> Iterator[RunState]:
    """Give all runs of a store."""
    before = None
    while True:
        page = list_runs(view, Filter(), before=before, limit=PAGE_RUNS)
        yield from page.runs
        before = page.before
        if before is None:
            return


def _violations(told: Told, runs: list[tuple[RunState, str, str | None]], begun: int) -> list[str]:
    """Say what is wrong with one token: what was told of it, its runs, how often it has begun."""
    wrong: list[str] = []
    known = {run_id for _, run_id, _ in runs}
    results = {result for _, _, result in runs if result is not None}
    if len(runs) > 1:
        wrong.append(f"{len(runs)} runs: {known}")
    if not told.run_ids <= known:
        wrong.append(f"{told.run_ids - known} was told and is not kept")
    if told.kind != "batched" and not told.results <= results:
        wrong.append(f"{told.results} was told, kept is {results}")
    if told.results and told.ends:
        wrong.append(f"it has ended twice: {told.results}, {told.ends}")
    if "a second run of the key" in told.ends:
        wrong.append("its key had a second run")
    for state, _, _ in runs:
        if told.kind not in ("sync", "batched") and begun > state.attempt:
            wrong.append(f"it has begun {begun} times in {state.attempt} attempts")
        if state.status == "done" and not begun:
            wrong.append("it is done and has never begun")
        if state.deaths > DEATHS_MAX:
            wrong.append(f"{state.deaths} workers died of it")
    if told.kind == "once" and begun > 1:
        wrong.append(f"it has begun {begun} times")
    if not runs and begun and told.kind not in ("sync", "batched"):
        wrong.append("it has begun and is not kept")
    return wrong
