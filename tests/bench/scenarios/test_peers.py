"""Mirror of bench/scenarios/peers.py, with the peer that is always there."""

from pathlib import Path

import pytest
from rich.console import Console

from pronghorn.bench.peers.catalog import BY_NAME, PeerInfo
from pronghorn.bench.scenarios import peers
from pronghorn.bench.scenarios.options import Options

ABSENT = PeerInfo(name="absent", label="Absent", module="x", server="no-server-of-that-name")


@pytest.mark.slow
def test_peers_are_measured_in_turn_with_ours_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_SHARE", 1)
    told: list[str] = []
    options = Options(progress=told.append, rounds=1, quick=True)
    found = peers.measure([BY_NAME["executor"], ABSENT], options, tmp_path)
    assert found.absent == {"absent": "no-server-of-that-name is not installed"}
    assert any("Absent can't be measured" in each for each in told)
    (result,) = found.results
    assert result.theirs.p50_us.median > 0
    assert set(result.ours.per_s) == {1, 8, 64, 512}
    fractions = [fraction for fraction, _ in result.ours.quantiles_us]
    assert fractions == sorted(fractions)
    peers.keep(result, tmp_path / "results")
    assert peers.kept(tmp_path / "results") == [result]
    console = Console(record=True, width=140)
    console.print(peers.table(found.results, found.absent))
    assert "ProcessPoolExecutor" in console.export_text()
