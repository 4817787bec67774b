"""Pyro5, where it is installed."""

import pytest

from pronghorn.bench.floors import pyro
from pronghorn.bench.subject import Subject, started


@pytest.mark.slow
@pytest.mark.skipif(not pyro.AVAILABLE, reason="Pyro5 is optional and not installed")
def test_it_measures() -> None:
    with started(Subject(name="pyro", factory="floors.pyro:round_trip")) as running:
        assert running.measure(20).calls == 20
