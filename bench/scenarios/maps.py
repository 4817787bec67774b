"""How many items a second go through `map` over a tiny function?

200,000 dicts with their types checked, results in order, against `multiprocessing.Pool.starmap`
over tuples at its default chunk size, which checks nothing. Making the items is not timed. It
measures the cost per item, not the cores: `add` is all overhead.

Mirror: tests/bench/scenarios/test_scenarios.py.
"""

from ..report import Report, compare, per_second, rate_table, raw_rounds
from ..rounds import run
from ..subject import Subject
from .options import Options

QUESTION = "How many items a second go through map over a tiny function?"
ITEMS = 200_000

_OURS, _STARMAP = "Client.map", "Pool.starmap"


def measure(options: Options) -> Report:
    """Measure both and compare."""
    rounds = run(
        [
            Subject(name=_OURS, factory="subjects.calls:map_dicts"),
            Subject(name=_STARMAP, factory="floors.pools:pool_starmap"),
        ],
        options.plan(calls=ITEMS, slices=2, warm_up=20_000),
        options.progress,
    )
    return Report(
        scenario="map",
        question=QUESTION,
        comparisons=[
            compare("map.starmap", per_second(rounds[_OURS]), per_second(rounds[_STARMAP]))
        ],
        tables=[rate_table(f"{ITEMS:,} items", rounds, "items/s")],
        notes=[],
        raw={"map": raw_rounds(rounds)},
    )
