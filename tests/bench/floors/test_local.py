"""The floors within one process."""

from pronghorn.bench.floors import local


def test_they_measure() -> None:
    with local.function_call() as call, local.codec() as codec:
        assert call(500).calls == codec(500).calls == 500
