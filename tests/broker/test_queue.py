"""Mirror of broker/queue.py: who of those that wait is next."""

import pytest
from requests_of import QUICK, SLEEP, request, session

from pronghorn.broker.queue import AGE_S, ENDED_MAX, ReadyQueue, Room
from pronghorn.broker.requests import Request
from pronghorn.broker.wire.limits import PRIORITY_DEFAULT


@pytest.fixture
def queue() -> ReadyQueue:
    return ReadyQueue()


def alone(queue: ReadyQueue) -> Room:
    """Return where requests that run alone wait."""
    return queue._ordinary[True]


def head(room: Room, now: float = 0.0) -> Request | None:
    band = room.first(now)
    return None if band is None else band.head()


def take(queue: ReadyQueue, room: Room, now: float = 0.0) -> Request | None:
    band = room.first(now)
    if band is None:
        return None
    taken = band.head()
    assert queue.pop_head(room, band, now) is taken
    queue.check_invariants()
    return taken


def drop(queue: ReadyQueue, dropped: Request) -> None:
    queue.drop(dropped)
    dropped.ended = True
    queue.check_invariants()


def test_an_empty_queue(queue: ReadyQueue) -> None:
    assert (queue.length, queue.bytes, queue.waiting()) == (0, 0, [])
    assert head(alone(queue)) is None


def test_the_requests_of_one_session_come_in_order(queue: ReadyQueue) -> None:
    peer = session()
    first, second = request(of=peer), request(of=peer, size=5)
    queue.append(first)
    queue.append(second)
    assert (queue.length, queue.bytes) == (2, 15)
    assert head(alone(queue)) is first
    assert [take(queue, alone(queue)) for _ in range(3)] == [first, second, None]
    assert (queue.length, queue.bytes) == (0, 0)


def test_sessions_take_turns(queue: ReadyQueue) -> None:
    greedy, modest = session(b"greedy"), session(b"modest")
    of_greedy = [request(of=greedy) for _ in range(4)]
    of_modest = [request(of=modest) for _ in range(2)]
    for each in (*of_greedy, *of_modest):
        queue.append(each)
    turns = [take(queue, alone(queue)) for _ in range(6)]
    assert turns == [
        of_greedy[0],
        of_modest[0],
        of_greedy[1],
        of_modest[1],
        of_greedy[2],
        of_greedy[3],
    ]


def test_who_comes_late_waits_for_all_others_once(queue: ReadyQueue) -> None:
    sessions = [session(b"%d" % number) for number in range(3)]
    for each in sessions[:2]:
        for _ in range(3):
            queue.append(request(of=each))
    take(queue, alone(queue))
    queue.append(request(of=sessions[2]))
    turns = [take(queue, alone(queue)) for _ in range(3)]
    assert [turn.session.peer for turn in turns if turn] == [b"1", b"0", b"2"]


def test_what_is_put_back_comes_before_all_others_of_its_session(queue: ReadyQueue) -> None:
    peer, other = session(), session(b"other")
    again, first, second = (request(of=peer) for _ in range(3))
    for each in (first, second, request(of=other)):
        queue.append(each)
    queue.put_back(again)
    queue.check_invariants()
    turns = [take(queue, alone(queue)) for _ in range(4)]
    assert [turn for turn in turns if turn and turn.session is peer] == [again, first, second]
    assert turns[1] is not None
    assert turns[1].session is other


def test_what_is_put_back_opens_a_lane(queue: ReadyQueue) -> None:
    again = request()
    queue.put_back(again)
    assert (queue.length, take(queue, alone(queue))) == (1, again)


def test_a_dropped_request_is_passed_over(queue: ReadyQueue) -> None:
    peer = session()
    requests = [request(of=peer) for _ in range(4)]
    for each in requests:
        queue.append(each)
    drop(queue, requests[0])
    drop(queue, requests[2])
    assert (queue.length, queue.bytes) == (2, 20)
    assert queue.waiting() == [requests[1], requests[3]]
    assert [take(queue, alone(queue)) for _ in range(3)] == [requests[1], requests[3], None]


def test_a_lane_of_dropped_requests_alone_is_left(queue: ReadyQueue) -> None:
    gone, other = request(of=session(b"gone")), request(of=session(b"other"))
    queue.append(gone)
    queue.append(other)
    drop(queue, gone)
    assert head(alone(queue)) is other


def test_dropped_requests_do_not_pile_up(queue: ReadyQueue) -> None:
    """A client that cancels all it calls, while no worker is free, costs no memory."""
    peer, other = session(), session(b"other")
    queue.append(request(of=other))
    waits = request(of=peer)
    queue.append(waits)
    for _ in range(10 * ENDED_MAX):
        cancelled = request(of=peer)
        queue.append(cancelled)
        drop(queue, cancelled)
    assert len(alone(queue).bands[PRIORITY_DEFAULT].lane(b"peer").requests) <= ENDED_MAX + 2
    assert queue.length == 2
    assert [take(queue, alone(queue)) for _ in range(2)][1] is waits


def test_dropped_requests_do_not_outlive_those_before_them(queue: ReadyQueue) -> None:
    """They stayed, however many, until the last one before them was given out."""
    peer = session()
    waiting, cancelled = ([request(of=peer) for _ in range(5 * ENDED_MAX)] for _ in range(2))
    for each in (*waiting, *cancelled):
        queue.append(each)
    for each in cancelled:
        drop(queue, each)
    lane = alone(queue).bands[PRIORITY_DEFAULT].lane(b"peer")
    assert len(lane.requests) == 10 * ENDED_MAX
    assert take(queue, alone(queue)) is waiting[0]
    assert list(lane.requests) == waiting[1:]
    assert [take(queue, alone(queue)) for _ in waiting] == [*waiting[1:], None]


def test_sessions_whose_requests_have_all_ended_leave_nothing_behind(queue: ReadyQueue) -> None:
    """Their lanes stayed for as long as the one before them was not served."""
    waits = request(of=session(b"waits"))
    queue.append(waits)
    for number in range(100):
        of = session(b"%d" % number)
        gone = [request(of=of) for _ in range(3)]
        for each in gone:
            queue.append(each)
        for each in gone:
            drop(queue, each)
    assert list(alone(queue).bands[PRIORITY_DEFAULT]._lanes) == [b"waits"]
    assert [take(queue, alone(queue)) for _ in range(2)] == [waits, None]


def test_what_is_put_back_is_held_by_nobody(queue: ReadyQueue) -> None:
    again = request(worker_id=5)
    queue.put_back(again)
    assert again.worker_id == 0


def test_a_session_of_the_same_peer_waits_behind_what_has_ended(queue: ReadyQueue) -> None:
    before = request(of=session(b"peer"))
    queue.append(before)
    drop(queue, before)
    after = request(of=session(b"peer"))
    queue.append(after)
    assert take(queue, alone(queue)) is after


def test_what_runs_beside_others_does_not_hold_up_what_runs_alone(queue: ReadyQueue) -> None:
    """One client's sleeping calls wait for other room than another's quick one."""
    sleeping = [request(SLEEP) for _ in range(3)]
    quick = request(QUICK)
    for each in (*sleeping, quick):
        queue.append(each)
    beside, other = queue.rooms()
    assert (head(beside), head(other)) == (sleeping[0], quick)
    assert (beside.length, other.length, queue.length) == (3, 1, 4)
    assert queue.has_before(request(SLEEP), 0.0)
    assert queue.has_before(request(QUICK), 0.0)
    take(queue, other)
    assert not queue.has_before(request(QUICK), 0.0)


def test_a_chunk_of_an_async_node_runs_alone(queue: ReadyQueue) -> None:
    chunk = request(SLEEP, chunk=True)
    queue.append(chunk)
    assert head(alone(queue)) is chunk


# --- priorities ---------------------------------------------------------------------------------


def test_lower_numbers_go_first(queue: ReadyQueue) -> None:
    requests = {priority: request(priority=priority) for priority in (3, 1, 0, 2)}
    for each in requests.values():
        queue.append(each)
    queue.check_invariants()
    assert [take(queue, alone(queue)) for _ in range(5)] == [
        *(requests[priority] for priority in range(4)),
        None,
    ]


def test_what_waits_moves_up_a_band_after_a_while(queue: ReadyQueue) -> None:
    old = request(priority=2, accepted_at=10.0)
    new = request(priority=1, accepted_at=10.0 + AGE_S / 2)
    newest = request(priority=1, accepted_at=10.0 + 2 * AGE_S)
    for each in (old, new):
        queue.append(each)
    assert head(alone(queue), 10.0 + AGE_S / 2) is new
    take(queue, alone(queue), 10.0 + AGE_S / 2)
    queue.append(newest)
    assert head(alone(queue), 10.0 + 2 * AGE_S) is old


def test_a_new_request_waits_behind_those_of_its_band_and_above(queue: ReadyQueue) -> None:
    queue.append(request(priority=1))
    assert [queue.has_before(request(priority=priority), 0.0) for priority in range(4)] == [
        False,
        True,
        True,
        True,
    ]


def test_a_high_one_overtakes_many_low_ones_that_wait_for_long(queue: ReadyQueue) -> None:
    for _ in range(5):
        queue.append(request(priority=2, accepted_at=10.0))
    assert take(queue, alone(queue), 99.0).priority == 2  # type: ignore[union-attr]
    high = request(priority=0, accepted_at=99.1)
    assert not queue.has_before(high, 99.1)
    queue.append(high)
    assert take(queue, alone(queue), 99.1) is high


def test_low_ones_get_a_turn_now_and_then(queue: ReadyQueue) -> None:
    for _ in range(3):
        queue.append(request(priority=3, accepted_at=10.0))
    given, now = [], 10.0
    while len(given) < 100:
        now += AGE_S / 10
        queue.append(request(priority=1, accepted_at=now))
        taken = take(queue, alone(queue), now)
        assert taken is not None
        given.append(taken.priority)
    low = [index for index, priority in enumerate(given) if priority == 3]
    assert len(low) == 3
    assert all(15 < later - before <= 25 for before, later in zip([0, *low], low, strict=False))


def test_a_new_request_does_not_take_the_turn_of_a_band_that_has_waited(queue: ReadyQueue) -> None:
    queue.append(request(priority=3, accepted_at=10.0))
    assert not queue.has_before(request(priority=1), 10.0 + AGE_S)
    assert queue.has_before(request(priority=1), 10.0 + 2 * AGE_S)


def test_a_dropped_request_leaves_its_own_band(queue: ReadyQueue) -> None:
    peer = session()
    low, high = request(of=peer, priority=3), request(of=peer, priority=0)
    queue.append(low)
    queue.append(high)
    drop(queue, high)
    assert head(alone(queue)) is low


# --- rooms --------------------------------------------------------------------------------------


def test_what_waits_for_something_special_keeps_nobody_else_waiting(queue: ReadyQueue) -> None:
    special, plain = request(room=("gate", "m.quick", True)), request()
    queue.append(special)
    queue.append(plain)
    queue.check_invariants()
    assert head(alone(queue)) is plain
    ordinary, gate = queue.rooms()
    assert (head(ordinary), head(gate)) == (plain, special)
    take(queue, gate)
    assert queue.rooms() == [ordinary]


def test_all_of_a_room_can_be_taken(queue: ReadyQueue) -> None:
    key = ("worker", 3, True)
    special = [request(room=key) for _ in range(3)]
    for each in (*special, request()):
        queue.append(each)
    assert queue.take(key) == special
    assert queue.take(key) == []
    queue.check_invariants()
    assert (queue.length, queue.bytes) == (1, 10)


def test_all_can_be_taken(queue: ReadyQueue) -> None:
    for each in (request(), request(SLEEP), request(room=("labels", "gpu", False))):
        queue.append(each)
    assert len(queue.take_all()) == 3
    assert queue.rooms() == []
    queue.check_invariants()
