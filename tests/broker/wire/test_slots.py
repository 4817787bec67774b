"""Mirror of broker/wire/slots.py."""

import sys
import threading
from collections.abc import Iterator
from mmap import PAGESIZE

import pytest

from pronghorn.broker.wire.slots import (
    PAGE_BYTES,
    SLOTS_PER_WORKER,
    SlotsPage,
    SlotState,
    area_bytes,
    stack_at,
)


@pytest.fixture
def memory() -> bytearray:
    return bytearray(PAGE_BYTES)


def page_over(memory: bytearray) -> SlotsPage:
    return SlotsPage(memoryview(memory))


def test_a_request_is_held_then_started_then_finished(memory: bytearray) -> None:
    worker, broker = page_over(memory), page_over(memory)
    assert broker.state(3, token=7) is SlotState.HELD
    assert worker.claim(3, token=7, now_ns=1000)
    assert broker.state(3, token=7) is SlotState.STARTED
    assert broker.started_ns(3) == 1000
    worker.finish(3, token=7)
    assert broker.state(3, token=7) is SlotState.FINISHED


def test_the_next_request_of_a_slot_knows_nothing_of_the_last(memory: bytearray) -> None:
    page = page_over(memory)
    page.claim(0, token=1, now_ns=5)
    words, word = page.mark_word(0)
    words[word] = 77
    page.finish(0, token=1)
    assert page.state(0, token=2) is SlotState.HELD
    assert page.claim(0, token=2, now_ns=6)
    assert page.state(0, token=2) is SlotState.STARTED
    assert page.mark(0) == 0
    assert page.started_ns(0) == 6


def test_what_was_revoked_in_time_is_not_begun(memory: bytearray) -> None:
    worker, broker = page_over(memory), page_over(memory)
    assert broker.revoke(5, token=9)
    assert not worker.claim(5, token=9, now_ns=1)


def test_what_has_begun_is_not_revoked(memory: bytearray) -> None:
    worker, broker = page_over(memory), page_over(memory)
    assert worker.claim(5, token=9, now_ns=1)
    assert not broker.revoke(5, token=9)


def test_a_revoked_request_does_not_stop_the_next_in_its_slot(memory: bytearray) -> None:
    page = page_over(memory)
    page.revoke(5, token=9)
    assert page.claim(5, token=10, now_ns=1)


def test_the_broker_sees_the_mark_and_the_area(memory: bytearray) -> None:
    worker = page_over(memory)
    broker = SlotsPage(memoryview(memory), lambda size: b"results"[:size])
    worker.claim(1, token=4, now_ns=1)
    assert broker.mark(1) == 0
    words, word = worker.mark_word(1)
    words[word] = 2**63 + 5
    assert broker.mark(1) == 2**63 + 5
    assert broker.read_area(3) == b"res"


def test_the_stack_lies_behind_an_area_of_whole_pages() -> None:
    for result_bytes in (1, 4096, 5000, 16 * 2**20):
        assert area_bytes(result_bytes) % PAGESIZE == 0
        assert 2 * result_bytes <= area_bytes(result_bytes) < 2 * result_bytes + PAGESIZE
        assert stack_at(result_bytes) == PAGE_BYTES + area_bytes(result_bytes)


def test_slots_do_not_touch_each_other(memory: bytearray) -> None:
    page = page_over(memory)
    for slot in range(SLOTS_PER_WORKER):
        page.claim(slot, token=slot + 100, now_ns=slot)
        words, word = page.mark_word(slot)
        words[word] = slot
    for slot in range(0, SLOTS_PER_WORKER, 2):
        page.finish(slot, token=slot + 100)
    for slot in range(SLOTS_PER_WORKER):
        wanted = SlotState.STARTED if slot % 2 else SlotState.FINISHED
        assert page.state(slot, token=slot + 100) is wanted
        assert (page.started_ns(slot), page.mark(slot)) == (slot, slot)


def test_large_tokens_and_times_fit(memory: bytearray) -> None:
    page = page_over(memory)
    assert page.claim(0, token=2**63, now_ns=2**64 - 1)
    assert page.state(0, token=2**63) is SlotState.STARTED
    assert page.started_ns(0) == 2**64 - 1


def test_a_page_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=f"needs {PAGE_BYTES} bytes, got {PAGE_BYTES - 1}"):
        SlotsPage(memoryview(bytearray(PAGE_BYTES - 1)))


def test_closing_lets_go_of_the_memory(memory: bytearray) -> None:
    page = page_over(memory)
    with pytest.raises(BufferError):
        memory.extend(b"x")
    page.close()
    memory.extend(b"x")


@pytest.fixture
def quick_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_switches")
def test_a_claim_and_a_revoke_never_both_succeed() -> None:
    pages = [bytearray(PAGE_BYTES) for _ in range(200)]
    slots = range(SLOTS_PER_WORKER)
    together = threading.Barrier(2)
    claimed: list[bool] = []
    revoked: list[bool] = []

    def claim() -> None:
        for memory in pages:
            page = page_over(memory)
            together.wait()
            claimed.extend(page.claim(slot, slot + 1, 0) for slot in slots)

    def revoke() -> None:
        for memory in pages:
            page = page_over(memory)
            together.wait()
            revoked.extend(page.revoke(slot, slot + 1) for slot in slots)

    threads = [threading.Thread(target=one) for one in (claim, revoke)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(ran and taken for ran, taken in zip(claimed, revoked, strict=True))


def test_the_broker_sees_whether_a_generator_runs(memory: bytearray) -> None:
    worker, broker = page_over(memory), page_over(memory)
    worker.claim(1, token=4, now_ns=1)
    worker.set_mark(1, 1)
    assert (broker.mark(0), broker.mark(1)) == (0, 1)
    worker.set_mark(1, 0)
    assert broker.mark(1) == 0
