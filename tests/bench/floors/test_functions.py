"""The plain functions are those of the nodes."""

from pronghorn.bench import nodes
from pronghorn.bench.floors.functions import add, calibrate_count, count


def test_they_agree_with_the_nodes() -> None:
    assert add(1, 2) == nodes.add(1, 2)


def test_calibration_finds_how_far_one_counts_in_that_time() -> None:
    loops = calibrate_count(0.001, samples=20)
    assert loops > 100
    assert count(loops) == loops
