"""What does it cost to have a call recorded?

Calls of a trivial node at each durability, on pools that have a journal, and what they cost those
beside them that are not recorded. The floor of a `sync` call is a call that is not recorded and,
after it, a bare LMDB commit of one record on the same disk; with a key there are two, for then its
acceptance is kept before it begins. A run that is started and waited for is held against a workflow
of one step of DBOS, which keeps it in SQLite, in the program itself. Left out: maps.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from pathlib import Path

from ..children import ChildError
from ..environment import repository
from ..peers.catalog import BY_NAME
from ..peers.install import environment_of
from ..report import (
    Comparison,
    Report,
    compare,
    latency_table,
    p50,
    per_second,
    rate_table,
    raw_rounds,
)
from ..rounds import Rounds, run
from ..subject import Subject
from .options import Options

QUESTION = "What does it cost to have a call recorded?"
IN_FLIGHT, SOME = 1_000, 64

_FLOOR = "bare LMDB commit"
_NONE, _BATCHED, _SYNC = "none", "batched", "sync"
_KEYED = "sync, with a key"
_STARTED, _DBOS = "sync run, started and waited for", BY_NAME["dbos"].label
_SYNC_SOME = f"sync, {SOME} in flight"
_SYNC_ONE = "sync, one in flight"


def measure(options: Options) -> Report:
    """Measure single calls, many calls, and calls beside many."""
    progress = options.progress
    alone = run(
        [
            *(
                Subject(name=level, factory="subjects.durable:recorded", options={"level": level})
                for level in (_NONE, _BATCHED, _SYNC)
            ),
            Subject(name=_KEYED, factory="subjects.durable:keyed"),
            Subject(name=_FLOOR, factory="floors.commits:bare_commit"),
        ],
        options.plan(calls=500, slices=2, warm_up=100),
        progress,
    )
    many = run(
        [_many(level, level, IN_FLIGHT) for level in (_NONE, _BATCHED)],
        options.plan(calls=20_000, slices=1, warm_up=5_000),
        progress,
    )
    synced = run(
        [_many(_SYNC_ONE, _SYNC, 1), _many(_SYNC_SOME, _SYNC, SOME)],
        options.plan(calls=1_500, slices=1, warm_up=200),
        progress,
    )
    beside = run(
        [
            Subject(name=level, factory="subjects.durable:beside", options={"level": level})
            for level in (_NONE, _BATCHED)
        ],
        options.plan(calls=500, slices=1, warm_up=50),
        progress,
    )
    against_dbos, absent = _against_dbos(options)
    groups: dict[str, Rounds] = {
        "one call": alone,
        "in flight": many,
        "sync": synced,
        "beside": beside,
        "run": against_dbos,
    }
    return Report(
        scenario="durable",
        question=QUESTION,
        comparisons=[
            compare("durable.batched", p50(alone[_BATCHED]), p50(alone[_NONE])),
            compare("durable.sync", p50(alone[_SYNC]), _floor(alone, commits=1)),
            compare("durable.keyed", p50(alone[_KEYED]), _floor(alone, commits=2)),
            compare("durable.rate", per_second(many[_BATCHED]), per_second(many[_NONE])),
            compare(
                "durable.shared", per_second(synced[_SYNC_SOME]), per_second(synced[_SYNC_ONE])
            ),
            compare("durable.beside", p50(beside[_BATCHED]), p50(beside[_NONE])),
            *_dbos_comparison(against_dbos),
        ],
        tables=[
            latency_table("one call after the other", alone),
            rate_table(f"{IN_FLIGHT:,} in flight", many, "calls/s"),
            rate_table("sync", synced, "calls/s"),
            latency_table("not recorded, beside calls that are", beside),
            latency_table("one run after the other", against_dbos),
        ],
        notes=[f"{_DBOS} is not measured, and its row left out: {absent}"] if absent else [],
        raw={title: raw_rounds(rounds) for title, rounds in groups.items()},
    )


def _floor(alone: Rounds, *, commits: int) -> list[float]:
    """Add so many bare commits to a call that is not recorded, round by round."""
    return [
        call + commits * commit
        for call, commit in zip(p50(alone[_NONE]), p50(alone[_FLOOR]), strict=True)
    ]


def _against_dbos(options: Options) -> tuple[Rounds, str]:
    """Measure started runs, and DBOS beside them; or without it, and why."""
    peer, absent = BY_NAME["dbos"], ""
    subjects = [Subject(name=_STARTED, factory="subjects.durable:started_runs")]
    try:
        python = environment_of(peer, (repository() or Path.cwd()) / ".venv-peers")
    except ChildError as error:
        absent = str(error)
    else:
        subjects.append(
            Subject(
                name=_DBOS,
                factory="peers.measuring:measured",
                options={"peer": peer.module, "at_once": peer.at_once},
                python=str(python),
            )
        )
    return run(subjects, options.plan(calls=100, slices=2, warm_up=25), options.progress), absent


def _dbos_comparison(rounds: Rounds) -> list[Comparison]:
    if _DBOS not in rounds:
        return []
    return [compare("durable.dbos", p50(rounds[_STARTED]), p50(rounds[_DBOS]))]


def _many(name: str, level: str, count: int) -> Subject:
    options = {"level": level, "in_flight": count}
    return Subject(name=name, factory="subjects.durable:many_recorded", options=options)
