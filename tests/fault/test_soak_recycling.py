"""The soak of ``scripts/soak recycle``, short."""

import pytest
from soak import recycling


@pytest.mark.slow
def test_workers_that_are_replaced_again_and_again_leave_nothing_and_fail_nothing() -> None:
    report = recycling.run(12.0, orders_s=1.0)
    assert report.violations == []
    assert report.calls > 100
    assert report.generations >= 3
    assert report.workers > recycling.WORKERS * report.generations
