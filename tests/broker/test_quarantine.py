"""Mirror of broker/quarantine.py."""

from pronghorn.broker.quarantine import (
    DEATHS_MIN,
    REFUSED_MAX_S,
    REFUSED_S,
    WINDOW_S,
    Record,
)

CRASH = "signal 11 (SIGSEGV)"


def refused(record: Record, deaths: int = DEATHS_MIN, now: float = 100.0) -> bool:
    """Let a node die so often at once; returns whether it is refused after the last."""
    verdicts = [record.died(CRASH, 0, now) for _ in range(deaths)]
    assert not any(verdicts[:-1])
    return verdicts[-1]


def test_some_deaths_are_an_accident() -> None:
    record = Record()
    assert not refused(record, DEATHS_MIN - 1)
    assert record.until == 0.0


def test_a_node_that_always_crashes_is_refused() -> None:
    record = Record()
    assert refused(record)
    assert record.until == 100.0 + REFUSED_S


def test_deaths_long_ago_do_not_count() -> None:
    record = Record()
    assert not refused(record, DEATHS_MIN - 1)
    assert not record.died(CRASH, 0, 100.0 + WINDOW_S + 0.1)
    assert len(record.deaths) == 1


def test_a_node_that_mostly_does_well_is_served() -> None:
    record = Record()
    calls = 0
    for death in range(10 * DEATHS_MIN):
        calls += 2
        assert not record.died(CRASH, calls, death * 0.01)


def test_kills_from_outside_are_nobodys_fault() -> None:
    record = Record()
    for _ in range(10 * DEATHS_MIN):
        assert not record.died("signal 9 (SIGKILL)", 0, 1.0)
    assert not record.deaths


def test_it_is_refused_for_longer_each_time_it_does_no_better() -> None:
    record = Record()
    assert refused(record)
    now, spans = record.until, []
    for _ in range(10):
        assert record.died(CRASH, 0, now)
        spans.append(record.until - now)
        now = record.until
    assert spans[:3] == [2 * REFUSED_S, 4 * REFUSED_S, 8 * REFUSED_S]
    assert spans[-1] == REFUSED_MAX_S


def test_a_run_that_ends_well_gives_it_a_new_chance() -> None:
    record = Record()
    assert refused(record)
    assert not record.died(CRASH, 1000, record.until)
    assert record.refused_s == 0.0
