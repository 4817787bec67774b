"""Recorded runs of another engine: ours has to come to the same. See the README beside them."""

from pathlib import Path

import pytest

from pronghorn.worker.flow.comparison import differences
from pronghorn.worker.flow.rehearsal import Order, read_case, rehearse

CASES = Path(__file__).resolve().parents[2] / "golden" / "flow" / "orquesta"


@pytest.mark.parametrize("order", ["fifo", "lifo"])
@pytest.mark.parametrize("file", sorted(CASES.glob("*.json")), ids=lambda file: file.stem)
def test_recorded_run(file: Path, order: Order) -> None:
    case = read_case(file.read_bytes())
    assert differences(case, rehearse(case, order)) == []


def test_all_cases_are_there() -> None:
    assert len(list(CASES.glob("*.json"))) == 40
