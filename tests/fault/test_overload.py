"""Overload, shortened: what is refused, how soon, and what the broker holds meanwhile."""

import pytest
from soak.overload import LOADS, Result, measure, results_table

SECONDS = 2
GOODPUT_MIN = 0.8  # a short run on a machine that others use; the benchmark holds it to more
MEMORY_MAX_MIB = 64.0


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADS)
def test_work_goes_on_and_memory_stays_bounded(name: str) -> None:
    result = measure(name, SECONDS)
    assert result.figures["goodput of capacity"] > GOODPUT_MIN
    assert result.figures["broker's memory growth, MiB"] < MEMORY_MAX_MIB
    factor, grant = LOADS[name]
    offered, capacity = result.figures["offered, calls/s"], result.figures["capacity, calls/s"]
    assert offered == pytest.approx(factor * capacity, rel=0.05)
    if grant is not None and factor > 2:  # the clients' grants are used up by then
        assert result.figures["refused of offered"] > 0.3
        assert result.refused is not None


def test_the_table_has_a_row_for_each_load() -> None:
    result = Result(
        load="2x", calls=10, refused=None, figures={"capacity, calls/s": 400.0}, missed=[]
    )
    assert results_table([result, result]).row_count == 2
