"""Where nodes run, by what is known of their run times."""

from pronghorn.worker.flow.placing import (
    CHUNK_ITEMS_MAX,
    CHUNK_NS,
    ITEM_NS,
    PROOFS,
    SLOW_NS,
    TASK_NS,
    Placing,
    Record,
)


def proven(run_ns: float) -> Record:
    record = Record()
    for _ in range(PROOFS):
        record.ran(run_ns)
    return record


def places(record: Record) -> tuple[str, str]:
    return record.place(None, item=False), record.place(None, item=True)


def test_a_node_has_to_prove_that_it_is_tiny() -> None:
    record = Record()
    for _ in range(PROOFS):
        assert places(record) == ("pool", "pool")
        record.ran(1000)
    assert places(record) == ("inline", "inline")
    assert places(proven(ITEM_NS)) == ("inline", "pool")
    assert places(proven(TASK_NS)) == ("pool", "pool")


def test_a_pin_stands() -> None:
    assert Record().place("inline", item=True) == "inline"
    assert proven(1000).place("pool", item=False) == "pool"


def test_a_slow_first_run_is_soon_forgotten() -> None:
    record = Record()
    for run_ns in [1e6, *[1000] * 9]:
        record.ran(run_ns)
    assert places(record) == ("inline", "inline")


def test_one_that_is_slow_goes_back_to_the_workers() -> None:
    record = proven(1000)
    record.ran(SLOW_NS / 2)  # it may have waited for a core
    assert record.place(None, item=False) == "inline"
    record.ran(SLOW_NS * 2)
    assert places(record) == ("pool", "pool")
    often = proven(1000)
    while often.place(None, item=False) == "inline":
        often.ran(TASK_NS * 2)


def test_one_that_has_ended_a_worker_never_runs_in_the_host() -> None:
    record = proven(1000)
    record.distrust()
    assert places(record) == ("pool", "pool")
    assert record.place("inline", item=False) == "inline"


def test_chunks_follow_the_run_time_and_leave_some_for_others() -> None:
    record = Record()
    assert record.chunk_size(1000, None) == 1
    assert record.chunk_size(1000, 7) == 7
    record.ran(1000)
    assert record.chunk_size(1000, None) == 16  # it grows step by step
    record.ran(16_000, 16)
    assert record.chunk_size(100, None) == 25
    record.ran(10**6, 1000)
    assert record.chunk_size(10**6, None) == CHUNK_ITEMS_MAX
    assert proven(CHUNK_NS / 2).chunk_size(1000, None) == 2
    assert proven(CHUNK_NS * 2).chunk_size(1000, None) == 1


def test_what_is_known_is_kept_by_name() -> None:
    placing = Placing()
    placing.of("a").distrust()
    assert placing.of("a") is placing.of("a")
    assert placing.of("a") is not placing.of("b")
