"""How long does a part of a stream take, how many come, and what does a slow reader cost?

A part's time runs from its `yield` in the worker to the loop in the client, and is held against
the round trip of a call in the same run. Left out: what a client does with a part, and parts over
64 KiB. Wrong if the clocks of two processes differed; on Linux all read the same one.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..report import Report, compare, extra, latency_table, p50, per_second, rate_table, raw_rounds
from ..rounds import run
from ..subject import Subject
from ..subjects.streams import GROWTH
from .options import Options

QUESTION = "How soon do parts of a stream come, how many, and what does a slow reader cost?"
PARTS = 100_000
SLOW_PARTS = 1_000

_CALL, _FIRST, _NEXT = "Client.call", "first part of a stream", "next part"
_RATE, _SLOW = "parts of one stream", "read 100 times slower than made"


def measure(options: Options) -> Report:
    """Measure parts one by one, many, and few for a slow reader."""
    alone = run(
        [
            Subject(name=_CALL, factory="subjects.calls:sync_round_trip"),
            Subject(name=_FIRST, factory="subjects.streams:first_part"),
            Subject(name=_NEXT, factory="subjects.streams:next_part"),
        ],
        options.plan(calls=500, slices=4, warm_up=500),
        options.progress,
    )
    many = run(
        [Subject(name=_RATE, factory="subjects.streams:rate")],
        options.plan(calls=PARTS, slices=2, warm_up=PARTS // 5),
        options.progress,
    )
    slow = run(
        [Subject(name=_SLOW, factory="subjects.streams:slow_reader")],
        options.plan(calls=SLOW_PARTS, slices=1, warm_up=100),
        options.progress,
    )
    return Report(
        scenario="streams",
        question=QUESTION,
        comparisons=[
            compare("streams.first", p50(alone[_FIRST]), p50(alone[_CALL])),
            compare("streams.next", p50(alone[_NEXT]), p50(alone[_CALL])),
            compare("streams.rate", per_second(many[_RATE])),
            compare("streams.memory", extra(slow[_SLOW], GROWTH)),
        ],
        tables=[
            latency_table("from yield to client, against a call", alone),
            rate_table("one stream", many, "parts/s"),
        ],
        notes=[],
        raw={
            "alone": raw_rounds(alone),
            "many": raw_rounds(many),
            "slow reader": raw_rounds(slow),
        },
    )
