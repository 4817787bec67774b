"""What does it cost to record what comes (``serve --record``)?

Calls to a server that records them into a file, parameters included, and to one that does not: one
after the other, and 10,000 at once. All on one core, so that the thread which writes has no core of
its own. Wrong if the disk were slower than the page cache for long: the file is never synced.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..figures import ALL_CPU
from ..report import (
    Report,
    compare,
    extra,
    latency_table,
    p50,
    per_second,
    rate_table,
    raw_rounds,
)
from ..rounds import run
from ..subject import Subject
from .options import Options

QUESTION = "What does it cost to record what comes? (every process pinned to one core)"

_PLAIN, _RECORDED = "not recorded", "recorded"


def measure(options: Options) -> Report:
    """Measure single calls and many at once, recorded and not."""
    alone = run(
        _both("round_trip"), options.plan(calls=1_000, slices=4, warm_up=300), options.progress
    )
    many = run(
        _both("burst"), options.plan(calls=10_000, slices=2, warm_up=2_000), options.progress
    )
    cpu = {name: extra(measured, ALL_CPU) for name, measured in many.items()}
    return Report(
        scenario="recording",
        question=QUESTION,
        comparisons=[
            compare("recording.call", p50(alone[_RECORDED]), p50(alone[_PLAIN])),
            compare("recording.rate", per_second(many[_RECORDED]), per_second(many[_PLAIN])),
            compare("recording.cpu", cpu[_RECORDED], cpu[_PLAIN]),
        ],
        tables=[
            latency_table("one call after the other", alone),
            rate_table("10,000 calls", many, "calls/s"),
        ],
        notes=[],
        raw={"one call": raw_rounds(alone), "bursts": raw_rounds(many)},
    )


def _both(factory: str) -> list[Subject]:
    return [
        Subject(
            name=name,
            factory=f"subjects.recording:{factory}",
            options={"records": name == _RECORDED},
            cpus=(0,),
        )
        for name in (_PLAIN, _RECORDED)
    ]
