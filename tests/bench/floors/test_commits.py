"""Mirror of bench/floors/commits.py."""

from pronghorn.bench.floors.commits import bare_commit


def test_commits_are_timed() -> None:
    with bare_commit() as measure:
        measured = measure(3)
        assert measure(2).calls == 2
    assert measured.calls == len(measured.latencies_ns) == 3
