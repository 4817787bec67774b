"""Mirror of broker/placement.py."""

from math import inf

import pytest
from requests_of import QUICK, SLEEP, SLOW, UNKNOWN, Page, ready_worker, request
from sim.pages import InterleavedPage, make_memory

from pronghorn.broker.placement import KEPT_FOR_ORDERS, Placement, Worker, WorkerState
from pronghorn.broker.queue import ROOM_OF_LABELS, ROOM_OF_WORKER
from pronghorn.broker.requests import Node, Request
from pronghorn.broker.window import (
    BUDGET_NS,
    CONCURRENT_PER_WORKER,
    OVERHEAD_NS,
    QUICK_NS,
    STALL_S,
    WINDOW_BYTES,
)
from pronghorn.broker.wire.flows import CONTROL
from pronghorn.broker.wire.slots import SLOTS_PER_WORKER, SlotsPage
from pronghorn.broker.wire.table import HOST_LABEL

NOW = 1000.0


@pytest.fixture
def placement() -> Placement:
    return Placement()


def place(placement: Placement, placed: Request, now: float = NOW) -> Worker | None:
    """Do with a request what the core does."""
    worker = placement.place(placed, now)
    placement.check_invariants()
    return worker


def begin(worker: Worker, begun: Request) -> None:
    """Be the worker that claims a request."""
    assert worker.page.claim(begun.slot, begun.token, 1)


def take(placement: Placement, worker: Worker, token: int) -> Request | None:
    taken = placement.take(worker, token)
    placement.check_invariants()
    return taken


def speak(placement: Placement, worker: Worker, now: float) -> None:
    """Note a message of a worker as the core does."""
    worker.progress_at = now
    if worker.stalled:
        placement.unblock(worker)
    placement.check_invariants()


def check(placement: Placement, now: float) -> None:
    placement.check(now)
    placement.check_invariants()


# --- who gets what -------------------------------------------------------------------------------


def test_a_worker_that_is_not_ready_gets_nothing(placement: Placement) -> None:
    placement.add(1, Page(), 1.0)
    placement.check_invariants()
    assert placement.workers[1].state is WorkerState.STARTING
    assert place(placement, request(QUICK)) is None
    assert place(placement, request(SLEEP)) is None
    placement.ready(placement.workers[1], 77)
    assert placement.workers[1].pid == 77
    assert place(placement, request(QUICK)) is placement.workers[1]


def test_the_worker_that_was_busy_last_is_first(placement: Placement) -> None:
    cold, warm = ready_worker(placement, 1), ready_worker(placement, 2)
    assert place(placement, request(SLOW)) is warm
    slow = request(SLOW)
    assert place(placement, slow) is cold
    take(placement, cold, slow.token)
    assert place(placement, request(SLOW)) is cold


@pytest.mark.parametrize("first", [request(SLOW), request(UNKNOWN), request(QUICK, chunk=True)])
def test_a_slow_request_has_a_worker_for_itself(placement: Placement, first: Request) -> None:
    worker = ready_worker(placement)
    assert place(placement, first) is worker
    assert worker.load_ns == inf
    for node in (QUICK, SLOW, UNKNOWN, SLEEP):
        assert place(placement, request(node)) is None
    take(placement, worker, first.token)
    assert place(placement, request(QUICK)) is worker


def test_a_slow_request_or_a_chunk_waits_until_a_worker_is_idle(placement: Placement) -> None:
    worker = ready_worker(placement)
    quick = request(QUICK)
    place(placement, quick)
    for slow in (request(SLOW), request(UNKNOWN), request(QUICK, chunk=True)):
        assert place(placement, slow) is None
    take(placement, worker, quick.token)
    assert place(placement, request(SLOW)) is worker


def test_quick_requests_go_to_workers_in_turn(placement: Placement) -> None:
    one, two = ready_worker(placement, 1), ready_worker(placement, 2)
    placed = [place(placement, request(QUICK)) for _ in range(6)]
    assert placed == [two, one, two, one, two, one]


def test_quick_requests_fill_a_worker_up_to_its_budget(placement: Placement) -> None:
    node = Node(0, "m.quick", concurrent=False, estimate_ns=QUICK_NS - 1.0)
    worker = ready_worker(placement)
    fitting = int(BUDGET_NS // (QUICK_NS - 1 + OVERHEAD_NS))
    placed = [place(placement, request(node)) for _ in range(fitting + 1)]
    assert placed == [worker] * fitting + [None]
    assert not worker.in_rotation  # it was found full
    assert take(placement, worker, next(iter(worker.held))) is not None
    assert worker.in_rotation
    assert place(placement, request(node)) is worker


def test_quick_requests_fill_a_worker_up_to_its_bytes(placement: Placement) -> None:
    worker = ready_worker(placement)
    assert (
        place(placement, request(QUICK, size=2 * WINDOW_BYTES)) is worker
    )  # the first always fits
    assert place(placement, request(QUICK, size=1)) is None
    take(placement, worker, next(iter(worker.held)))
    assert place(placement, request(QUICK, size=WINDOW_BYTES - 1)) is worker
    assert place(placement, request(QUICK, size=2)) is None


def test_quick_requests_fill_a_worker_up_to_its_slots(placement: Placement) -> None:
    free = Node(0, "m.free", concurrent=False, estimate_ns=-1.0 * OVERHEAD_NS)
    worker = ready_worker(placement)
    held = [request(free, size=0) for _ in range(SLOTS_PER_WORKER)]
    assert [place(placement, each) for each in held] == [worker] * SLOTS_PER_WORKER
    assert place(placement, request(free)) is None
    assert sorted(each.slot for each in held) == list(range(SLOTS_PER_WORKER))
    take(placement, worker, held[5].token)
    again = request(free)
    assert place(placement, again) is worker
    assert again.slot == held[5].slot


def test_concurrent_requests_go_to_the_worker_with_the_fewest(placement: Placement) -> None:
    one, two = ready_worker(placement, 1), ready_worker(placement, 2)
    assert [place(placement, request(SLEEP)) for _ in range(4)] == [one, two, one, two]
    assert (one.concurrent_count, two.concurrent_count) == (2, 2)
    assert one.idle  # what runs beside others leaves the loop free


def test_a_worker_has_so_many_concurrent_requests_and_no_more(placement: Placement) -> None:
    worker = ready_worker(placement)
    held = [request(SLEEP) for _ in range(CONCURRENT_PER_WORKER)]
    assert all(place(placement, each) is worker for each in held)
    assert place(placement, request(SLEEP)) is None
    assert place(placement, request(QUICK)) is worker
    take(placement, worker, held[0].token)
    assert place(placement, request(SLEEP)) is worker


def test_concurrent_requests_may_use_up_the_last_slot(placement: Placement) -> None:
    free = Node(0, "m.free", concurrent=False, estimate_ns=-1.0 * OVERHEAD_NS)
    worker = ready_worker(placement)
    quick = [request(free, size=0) for _ in range(SLOTS_PER_WORKER - 1)]
    for each in quick:
        place(placement, each)
    assert place(placement, request(SLEEP)) is worker
    assert place(placement, request(SLEEP)) is None
    for each in quick:
        take(placement, worker, each.token)
    assert worker.idle


def test_a_chunk_of_a_concurrent_node_needs_an_idle_worker(placement: Placement) -> None:
    worker = ready_worker(placement)
    place(placement, request(SLEEP))
    assert place(placement, request(SLEEP, chunk=True)) is worker
    assert (len(worker.held), worker.load_ns, worker.concurrent_count) == (2, inf, 1)
    assert place(placement, request(SLEEP)) is None


def test_a_request_given_out_again_has_a_new_token(placement: Placement) -> None:
    """Tokens were kept, and a last word on the first was taken for one on the second."""
    worker = ready_worker(placement)
    again = request(QUICK)
    place(placement, again)
    first = again.token
    assert placement.revoke(worker, again)
    place(placement, again)
    assert again.token != first
    assert take(placement, worker, first) is None
    assert list(worker.held.values()) == [again]


def test_a_request_that_is_slow_by_now_counts_as_slow_when_given_out_again(
    placement: Placement,
) -> None:
    """It stayed marked as quick, and its worker counted as one with a slow request for ever."""
    node = Node(0, "m.node", concurrent=False, estimate_ns=1000.0)
    worker = ready_worker(placement)
    again = request(node)
    place(placement, again)
    assert worker.load_ns == 1000.0 + OVERHEAD_NS
    take(placement, worker, again.token)
    node.estimate_ns = 10.0 * QUICK_NS
    place(placement, again)
    assert worker.load_ns == inf
    take(placement, worker, again.token)
    assert worker.load_ns == 0.0


def test_a_last_word_on_nothing_is_nothing(placement: Placement) -> None:
    assert take(placement, ready_worker(placement), 12345) is None


# --- taking back ---------------------------------------------------------------------------------


def test_what_was_not_begun_can_be_revoked(placement: Placement) -> None:
    worker = ready_worker(placement)
    place(placement, held := request(QUICK))
    assert placement.revoke(worker, held)
    placement.check_invariants()
    assert (worker.held, worker.revoked) == ({}, {held.token: held.slot})
    assert worker.idle
    assert not placement.holds(held)
    # The slot is free again when the worker has seen it.
    assert held.slot not in worker.free_slots
    assert take(placement, worker, held.token) is None
    assert held.slot in worker.free_slots


def test_what_has_begun_can_not_be_revoked(placement: Placement) -> None:
    worker = ready_worker(placement)
    place(placement, held := request(QUICK))
    begin(worker, held)
    assert not placement.revoke(worker, held)
    placement.check_invariants()
    assert list(worker.held.values()) == [held]


def test_the_last_free_slot_makes_a_worker_idle(placement: Placement) -> None:
    free = Node(0, "m.free", concurrent=False, estimate_ns=-1.0 * OVERHEAD_NS)
    worker = ready_worker(placement)
    held = [request(free, size=0) for _ in range(SLOTS_PER_WORKER)]
    for each in held:
        place(placement, each)
    for each in held:
        assert placement.revoke(worker, each)
        placement.check_invariants()
    assert not worker.idle
    assert place(placement, request(free)) is None
    take(placement, worker, held[0].token)
    assert worker.idle


def test_a_worker_that_says_nothing_for_long_is_blocked(placement: Placement) -> None:
    worker = ready_worker(placement)
    assert placement.check_at == inf
    place(placement, running := request(QUICK))
    assert placement.check_at == NOW + STALL_S
    place(placement, waiting := request(QUICK), NOW + STALL_S / 2)
    begin(worker, running)
    check(placement, NOW + STALL_S)
    assert worker.stalled
    assert placement.stalled == {worker.id: worker}
    assert placement.asked == []  # it will say that the quick ones have ended
    assert place(placement, request(QUICK)) is None
    assert place(placement, request(SLEEP)) is None
    assert placement.check_at == inf
    assert waiting.token in worker.held


def test_a_worker_that_says_something_is_looked_at_again_later(placement: Placement) -> None:
    worker = ready_worker(placement)
    place(placement, request(QUICK))
    place(placement, request(QUICK))
    speak(placement, worker, NOW + 0.001)
    check(placement, NOW + STALL_S)
    assert not worker.stalled
    assert placement.check_at == NOW + 0.001 + STALL_S
    # At that very time, not one float before it.
    check(placement, placement.check_at)
    assert worker.stalled


def test_a_worker_that_has_begun_all_is_not_blocked(placement: Placement) -> None:
    worker = ready_worker(placement)
    place(placement, running := request(QUICK))
    begin(worker, running)
    check(placement, NOW + STALL_S)
    assert not worker.stalled
    assert placement.check_at == inf
    place(placement, request(QUICK), NOW + 1.0)
    assert placement.check_at == NOW + 1.0 + STALL_S


def blocked(
    placement: Placement, count: int = 3, *, its_page: SlotsPage | None = None
) -> tuple[Worker, list[Request]]:
    """Make a blocked worker: it runs the first of its requests and does not get to the others."""
    worker = ready_worker(placement, its_page=its_page)
    held = [request(QUICK) for _ in range(count)]
    for each in held:
        place(placement, each)
    begin(worker, held[0])
    check(placement, NOW + STALL_S)
    assert worker.stalled
    return worker, held


def test_nothing_is_taken_back_while_no_other_worker_has_room(placement: Placement) -> None:
    worker, held = blocked(placement)
    assert worker.in_rotation  # that it is itself in there gives nobody room
    assert placement.take_back() == []
    other = ready_worker(placement, 2)
    place(placement, slow := request(SLOW))
    assert placement.take_back() == []
    take(placement, other, slow.token)
    assert placement.take_back() == held[1:]


def test_what_a_blocked_worker_has_not_begun_is_taken_back(placement: Placement) -> None:
    worker, held = blocked(placement)
    held[2].ended = True
    other = ready_worker(placement, 2)
    assert placement.take_back() == [held[1]]
    placement.check_invariants()
    assert set(worker.held) == {held[0].token, held[2].token}
    assert place(placement, held[1]) is other


def test_a_worker_with_quick_requests_has_room_too(placement: Placement) -> None:
    _, held = blocked(placement)
    other = ready_worker(placement, 2)
    assert place(placement, request(QUICK)) is other
    assert not other.idle
    assert placement.take_back() == held[1:]


def test_a_claim_that_comes_in_between_is_left_to_the_worker(placement: Placement) -> None:
    """Both sides see each other, so neither runs it; the worker's word is still to come."""
    memory = make_memory()
    workers_page = InterleavedPage(memory, lambda: None)
    claiming: list[Request] = []  # what the worker claims while the broker revokes
    claims: list[bool] = []

    def claim() -> None:
        if claiming:
            request = claiming.pop()
            claims.append(workers_page.claim(request.slot, request.token, 2))

    worker, held = blocked(placement, its_page=InterleavedPage(memory, claim))
    claiming.append(held[1])
    ready_worker(placement, 2)
    assert placement.take_back() == [held[2]]
    placement.check_invariants()
    assert claims == [False]
    assert held[1].token in worker.held


def test_a_blocked_worker_that_speaks_gets_requests_again(placement: Placement) -> None:
    worker, held = blocked(placement, 2)
    speak(placement, worker, NOW + 1.0)
    assert not placement.stalled
    assert place(placement, request(QUICK)) is worker
    assert [take(placement, worker, each.token) for each in held] == held


def test_a_worker_that_is_blocked_again_by_what_it_holds_is_found_out(
    placement: Placement,
) -> None:
    """It was not looked at again after it had spoken, and what it still held waited behind it."""
    worker, held = blocked(placement)
    speak(placement, worker, NOW + 1.0)
    take(placement, worker, held[0].token)
    begin(worker, held[1])
    assert placement.check_at == NOW + 1.0 + STALL_S
    check(placement, placement.check_at)
    assert worker.stalled
    ready_worker(placement, 2)
    assert placement.take_back() == [held[2]]


def test_a_blocked_worker_that_holds_nothing_any_more_is_not_looked_at(
    placement: Placement,
) -> None:
    worker = ready_worker(placement)
    place(placement, held := request(QUICK))
    check(placement, NOW + STALL_S)
    assert worker.stalled
    placement.revoke(worker, held)
    speak(placement, worker, NOW + 1.0)
    assert (placement.check_at, worker.idle) == (inf, True)


def test_workers_are_looked_at_each_at_its_time(placement: Placement) -> None:
    """Also one that is idle, for what runs beside others waits in it as well."""
    first, second = ready_worker(placement, 1), ready_worker(placement, 2)
    assert place(placement, request(SLEEP)) is first
    assert place(placement, request(SLEEP), NOW + 0.001) is second
    check(placement, NOW + STALL_S)
    assert (first.stalled, second.stalled) == (True, False)
    assert (first.idle, second.idle) == (False, True)
    assert placement.check_at == NOW + 0.001 + STALL_S
    assert len(placement.take_back()) == 1


# --- the end of workers --------------------------------------------------------------------------


def test_a_condemned_worker_gives_back_what_it_has_not_begun(placement: Placement) -> None:
    worker = ready_worker(placement)
    held = [request(QUICK) for _ in range(4)]
    for each in held:
        place(placement, each)
    begin(worker, held[0])
    held[2].ended = True
    assert placement.condemn(worker) == [held[1], held[3]]
    placement.check_invariants()
    assert list(worker.held.values()) == [held[0], held[2]]
    assert [placement.holds(each) for each in held] == [True, False, True, False]


def test_a_condemned_worker_gets_nothing_whatever_it_says(placement: Placement) -> None:
    worker = ready_worker(placement)
    place(placement, held := request(QUICK))
    check(placement, NOW + STALL_S)
    assert worker.stalled
    begin(worker, held)
    placement.condemn(worker)
    speak(placement, worker, NOW + 1.0)
    assert not worker.stalled
    take(placement, worker, held.token)
    assert [place(placement, request(node)) for node in (QUICK, SLOW, SLEEP)] == [None] * 3


def test_an_idle_worker_that_is_condemned_is_idle_no_more(placement: Placement) -> None:
    worker = ready_worker(placement)
    place(placement, request(SLEEP))
    assert worker.idle
    placement.condemn(worker)
    placement.check_invariants()
    assert place(placement, request(QUICK)) is None


def test_a_worker_that_is_gone_is_in_no_index(placement: Placement) -> None:
    idle = ready_worker(placement, 1)
    placement.remove(idle)
    placement.check_invariants()
    busy = ready_worker(placement, 2)
    place(placement, request(QUICK))
    placement.remove(busy)
    placement.check_invariants()
    stalled, _ = blocked(placement)
    placement.remove(stalled)
    placement.check_invariants()
    placement.add(3, Page(), 1.0)
    placement.remove(placement.workers[3])
    assert placement.workers == {}
    assert not placement.stalled
    assert place(placement, request(QUICK)) is None
    check(placement, NOW + 10.0)
    assert placement.check_at == inf


# --- run hosts -----------------------------------------------------------------------------------

HOST = frozenset({HOST_LABEL})
FLOW = Node(9, "flow", concurrent=True, labels=HOST, hosted=True, is_plain=False)
ROOM = (ROOM_OF_LABELS, HOST_LABEL, False)


def host(placement: Placement, worker_id: int) -> Worker:
    worker = placement.add(worker_id, Page(), 0.0, HOST)
    placement.ready(worker, worker_id)
    placement.check_invariants()
    return worker


def flow(**more: object) -> Request:
    return request(FLOW, room=ROOM, **more)


def test_a_run_host_gets_workflows_and_nothing_else(placement: Placement) -> None:
    one = host(placement, 1)
    assert place(placement, request(QUICK)) is None
    assert place(placement, request(SLEEP)) is None
    other = ready_worker(placement, 2)
    assert place(placement, request(SLEEP)) is other
    assert place(placement, flow()) is one
    assert place(placement, flow(chunk=True, inline=False)) is one
    assert place(placement, request(SLOW)) is other


def test_a_run_host_takes_as_many_as_it_has_slots_and_orders_besides(placement: Placement) -> None:
    one, other = host(placement, 1), host(placement, 2)
    runs = SLOTS_PER_WORKER - KEPT_FOR_ORDERS
    for _ in range(runs):
        place(placement, flow())
        place(placement, flow())
    assert len(one.held) == len(other.held) == runs
    assert place(placement, flow()) is None
    assert not placement.has_room_for(flow())
    order = Node(10, CONTROL, concurrent=True, labels=HOST, hosted=True, is_plain=False)
    for _ in range(KEPT_FOR_ORDERS):
        assert place(placement, request(order, room=(ROOM_OF_WORKER, 1, False))) is one
    assert place(placement, request(order, room=(ROOM_OF_WORKER, 1, False))) is None


def test_what_a_host_still_reads_comes_back_only_for_another_host(placement: Placement) -> None:
    one = host(placement, 1)
    ready_worker(placement, 2)
    place(placement, large := flow())
    place(placement, nested := flow(here=True))
    check(placement, NOW + STALL_S)
    assert one.stalled
    assert placement.take_back() == [nested]  # whose caller's worker can run it itself
    host(placement, 3)
    assert placement.take_back() == [large]
