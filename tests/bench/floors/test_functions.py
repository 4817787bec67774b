"""The plain functions are those of the nodes."""

from pronghorn.bench import nodes
from pronghorn.bench.floors.functions import add


def test_they_agree_with_the_nodes() -> None:
    assert add(1, 2) == nodes.add(1, 2)
