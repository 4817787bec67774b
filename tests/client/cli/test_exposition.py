"""Mirror of client/cli/exposition.py, read by Prometheus' own parser."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pronghorn.broker.wire.histogram import Histogram
from pronghorn.broker.wire.statistics import (
    Durations,
    NodeStatistics,
    Recent,
    Statistics,
    WorkerStatistics,
)
from pronghorn.client.cli.exposition import exposition


def durations(*values: int) -> Durations:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return Durations.of(histogram)


NODE = NodeStatistics(
    name='odd "name"\\\n',
    accepted=5,
    calls=3,
    errors={"NODE_ERROR": 2},
    queued=1,
    held=1,
    quarantined=True,
    run=durations(500, 1023, 1024, 3_000_000, 10**12),
    recent=Recent(1.0),
)
STATISTICS = Statistics(
    epoch="e1",
    pid=7,
    at=150.0,
    started_at=100.0,
    counters={"accepted": 5, "refused": 3, "completed": 3, "new_count": 9},
    refused={"not_found": 1, "queue_bytes": 2},
    memory_bytes=1000,
    nodes=(NODE,),
    workers=(
        WorkerStatistics(id=1, state="ready", held=1, memory_bytes=2000),
        WorkerStatistics(id=2, state="starting"),
    ),
)


@pytest.fixture(scope="module")
def samples() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    page = exposition(STATISTICS, wall_clock_s=1_000_000.0)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_the_broker(samples: Samples) -> None:
    assert value(samples, "pronghorn_start_time_seconds", epoch="e1") == 999_950.0
    assert value(samples, "pronghorn_requests_accepted_total") == 5
    assert value(samples, "pronghorn_requests_refused_total", reason="queue_bytes") == 2
    assert ("pronghorn_requests_refused_total", frozenset()) not in samples
    assert value(samples, "pronghorn_memory_bytes") == 1000


def test_what_only_a_newer_broker_counts_is_told_too(samples: Samples) -> None:
    assert value(samples, "pronghorn_new_count_total") == 9


def test_nodes_with_names_that_have_to_be_escaped(samples: Samples) -> None:
    name = NODE.name
    assert value(samples, "pronghorn_node_requests_total", node=name) == 5
    assert value(samples, "pronghorn_node_errors_total", node=name, code="NODE_ERROR") == 2
    assert value(samples, "pronghorn_node_quarantined", node=name) == 1


def test_histograms_are_cumulative_and_exact(samples: Samples) -> None:
    def at_most(bound: str) -> float:
        return value(samples, "pronghorn_node_run_seconds_bucket", node=NODE.name, le=bound)

    assert at_most("1.023e-06") == 2
    assert at_most("2.047e-06") == 3
    assert at_most("0.002097151") == 3
    assert at_most("0.004194303") == 4
    assert at_most("68.7194767") == 4
    assert at_most("+Inf") == 5
    assert value(samples, "pronghorn_node_run_seconds_count", node=NODE.name) == 5
    total = value(samples, "pronghorn_node_run_seconds_sum", node=NODE.name)
    assert total == pytest.approx(1000.003002547)


def test_workers(samples: Samples) -> None:
    assert value(samples, "pronghorn_workers", state="ready") == 1
    assert value(samples, "pronghorn_workers", state="starting") == 1
    assert value(samples, "pronghorn_worker_memory_bytes", worker="1") == 2000
    assert ("pronghorn_worker_memory_bytes", frozenset({("worker", "2")})) not in samples


def test_each_family_is_described_once() -> None:
    page = exposition(STATISTICS, wall_clock_s=0.0)
    described = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
    assert len(described) == len(set(described))
    assert page.endswith("\n")
