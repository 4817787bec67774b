"""The search for the knee: what is made of each run, and what is told when it can't go on."""

import pytest
from load_records import imagined

from pronghorn.bench.load.mix import make_kind
from pronghorn.bench.load.plan import Plan
from pronghorn.bench.load.record import INTERRUPTED, Record
from pronghorn.bench.load.search import Found, parse_knee, search
from pronghorn.bench.load.session import Job
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    ErrorDetails,
    InvalidArgumentError,
    PronghornError,
)


class Service:
    """One that answers within 1 ms up to a rate, and within 100 ms beyond it."""

    def __init__(self, knee: float, *, runs: int = 100) -> None:
        self.knee = knee
        self.told: list[str] = []
        self._runs = runs  # that it lives for

    def run(self, job: Job) -> Record:
        if not self._runs:
            raise BrokerLostError("it is gone", ErrorDetails(outcome="not_started"))
        self._runs -= 1
        plan = job.plan
        median_ms = 1.0 if plan.rate <= self.knee else 100.0
        return imagined(rate=plan.rate, duration_s=plan.duration_s, median_ms=median_ms)

    def searched(self, rate: float, condition: str = "p90<20ms") -> Found:
        kinds = (make_kind("add", 1, [[1, 2]], 1),)
        job = Job(
            plan=Plan(rate=rate, duration_s=1),
            kinds=kinds,
            protocol="pronghorn",
            endpoint="ipc:///nowhere",
            command="a test",
        )
        return search(job, parse_knee(condition), self.run, self.told.append)


def test_knee_is_found_and_the_record_is_that_of_the_highest_rate_that_held() -> None:
    service = Service(knee=500)
    found = service.searched(100)
    assert found.record.knee is not None
    assert found.record.knee.rate is not None
    assert 500 / 1.06 < found.record.knee.rate <= 500
    assert found.record.plan.rate == found.record.knee.rate
    assert [trial.rate for trial in found.record.knee.trials][:4] == [100, 200, 400, 800]
    assert service.told[0] == "100/s: holds"
    assert service.told[3] == "800/s: p90<20ms does not hold"
    assert (found.lost, found.is_interrupted) == (None, False)


def test_where_nothing_holds_it_ends_before_rates_that_tell_nothing() -> None:
    found = Service(knee=0).searched(350)
    assert found.record.knee is not None
    assert found.record.knee.rate is None
    assert [trial.rate for trial in found.record.knee.trials] == [350, 175]


def test_rate_of_too_few_calls_is_refused_before_any_run() -> None:
    service = Service(knee=500)
    with pytest.raises(InvalidArgumentError, match=r"fewer than 100 calls: .* 100 or more"):
        service.searched(99)
    assert service.told == []


@pytest.mark.parametrize("condition", ["p99>5ms", "errors>=1", "achieved<5"])
def test_condition_that_load_only_makes_truer_is_refused(condition: str) -> None:
    with pytest.raises(InvalidArgumentError, match="does not cease to hold"):
        parse_knee(condition)


def test_what_was_found_is_told_though_the_broker_dies() -> None:
    found = Service(knee=500, runs=3).searched(100)
    assert found.record.knee is not None
    assert found.record.knee.rate == found.record.plan.rate == 400
    assert isinstance(found.lost, BrokerLostError)
    with pytest.raises(PronghornError, match="it is gone"):
        Service(knee=500, runs=0).searched(100)


def test_what_was_found_is_told_though_it_is_interrupted() -> None:
    class Interrupted(Service):
        def run(self, job: Job) -> Record:
            if job.plan.rate < 400:
                return super().run(job)
            return imagined(rate=job.plan.rate, duration_s=1, troubles=(INTERRUPTED,))

    found = Interrupted(knee=500).searched(100)
    assert found.is_interrupted
    assert found.record.knee is not None
    assert found.record.knee.rate == found.record.plan.rate == 200


def test_invalid_runs_and_lost_calls_do_not_hold() -> None:
    class Failing(Service):
        def run(self, job: Job) -> Record:
            if job.plan.rate > 100:
                return imagined(rate=job.plan.rate, duration_s=1, cpu=1.0)
            return imagined(rate=job.plan.rate, duration_s=1, failing=0.5)

    service = Failing(knee=500)
    service.searched(200)
    assert service.told[0].startswith("200/s: generator saturated")
    assert service.told[1].endswith("of 100 calls gave no result")
