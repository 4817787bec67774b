"""Mirror of broker/crew.py: a supervisor's decisions about workers, time being a number."""

from math import inf
from random import Random

import pytest

from pronghorn.broker.crew import ABORT_WAIT_S, Crew, Worker
from pronghorn.broker.recycling import Recycling
from pronghorn.broker.restart import BACKOFF_FIRST_S, INTENSITY, JITTER, SETTLED_S, RestartPolicy

TIMEOUT_S = 30.0
FIRST_AT_MOST_S = BACKOFF_FIRST_S * (1 + JITTER)


def crew_of(size: int) -> Crew:
    return Crew(size, RestartPolicy(Random(7)), start_timeout_s=TIMEOUT_S)


def started(crew: Crew, now: float) -> list[Worker]:
    """Start all that may be started."""
    found = []
    while (worker := crew.start(now)) is not None:
        found.append(worker)
    return found


def all_ready(crew: Crew, now: float) -> list[Worker]:
    workers = started(crew, now)
    for worker in workers:
        crew.ready(worker.id, now)
    return workers


def exhaust(crew: Crew, now: float) -> float:
    """Have starts fail until the intensity is exceeded; returns the time then."""
    for _ in range(INTENSITY + 1):
        now = max(now, crew.next_due(can_start=True))
        worker = crew.start(now)
        assert worker is not None
        crew.ended(worker, now, served=False)
    return now


def test_all_places_are_filled_at_first_and_each_worker_has_its_own_id() -> None:
    crew = crew_of(3)
    assert [worker.id for worker in started(crew, 5.0)] == [1, 2, 3]
    assert started(crew, 1000.0) == []
    crew.ended(crew.workers[2], 1000.0, served=True)
    assert [worker.id for worker in started(crew, 1000.0)] == [4]
    assert sorted(crew.workers) == [1, 3, 4]


def test_a_worker_that_served_is_replaced_at_once_however_young() -> None:
    crew = crew_of(1)
    for now in range(10):
        (worker,) = all_ready(crew, float(now))
        crew.ended(worker, now + 0.1, served=True)
    assert len(started(crew, 9.1)) == 1


def test_a_worker_that_was_ready_for_a_while_is_replaced_at_once() -> None:
    crew = crew_of(1)
    for number in range(10):
        (worker,) = all_ready(crew, 10.0 * number)
        crew.ended(worker, 10.0 * number + SETTLED_S, served=False)
        assert crew.next_due(can_start=True) == 10.0 * number + SETTLED_S


def test_a_worker_that_ended_before_it_was_ready_is_replaced_after_a_back_off() -> None:
    crew = crew_of(2)
    first, second = started(crew, 5.0)
    crew.ready(second.id, 5.0)
    crew.ended(first, 5.0, served=False)
    due = crew.next_due(can_start=True)
    assert 5.0 + BACKOFF_FIRST_S <= due <= 5.0 + FIRST_AT_MOST_S
    assert started(crew, due - 0.001) == []
    assert len(started(crew, due)) == 1


def test_a_back_off_does_not_hold_up_the_replacement_of_one_that_served() -> None:
    crew = crew_of(2)
    first, second = started(crew, 5.0)
    crew.ready(second.id, 5.0)
    crew.ended(first, 5.0, served=False)
    crew.ended(second, 5.0, served=True)
    assert [worker.id for worker in started(crew, 5.0)] == [3]


def test_a_start_that_fails_is_tried_again_after_a_back_off_and_counts() -> None:
    crew, now = crew_of(1), 5.0
    for number in range(INTENSITY + 1):
        assert not crew.hopeless(now)
        worker = crew.start(now)
        assert worker is not None
        crew.failed(worker, now)
        assert crew.workers == {}
        assert crew.next_due(can_start=True) >= now + BACKOFF_FIRST_S * 2**number
        now = crew.next_due(can_start=True)
    assert crew.hopeless(now)


def test_a_worker_withdrawn_leaves_a_place_and_no_trace() -> None:
    crew = crew_of(1)
    for _ in range(10 * INTENSITY):
        worker = crew.start(5.0)
        assert worker is not None
        crew.withdraw(worker)
    assert not crew.hopeless(5.0)


def test_an_epoch_s_workers_are_given_up_together_and_all_places_are_free() -> None:
    crew = crew_of(3)
    (worker, *others) = started(crew, 5.0)
    crew.ended(worker, 5.0, served=False)  # its place waits for a back-off
    assert crew.disband() == others
    assert [worker.id for worker in started(crew, 5.0)] == [4, 5, 6]


def test_news_of_a_worker_of_an_ended_epoch_is_passed_over() -> None:
    crew = crew_of(1)
    started(crew, 5.0)
    crew.disband()
    crew.ready(1, 6.0)
    assert crew.ready_count == 0


# --- start-up in time --------------------------------------------------------------------------


def test_a_worker_that_is_not_ready_in_time_is_aborted_and_then_killed() -> None:
    crew = crew_of(2)
    late, good = started(crew, 5.0)
    crew.ready(good.id, 6.0)
    assert crew.next_due(can_start=True) == 5.0 + TIMEOUT_S
    assert crew.overdue(5.0 + TIMEOUT_S - 0.001) == []
    assert crew.overdue(5.0 + TIMEOUT_S) == [(late, False)]
    assert late.killed == "it was not ready after 30 s"
    assert crew.overdue(5.0 + TIMEOUT_S) == []
    assert crew.next_due(can_start=True) == 5.0 + TIMEOUT_S + ABORT_WAIT_S
    assert crew.overdue(5.0 + TIMEOUT_S + ABORT_WAIT_S) == [(late, True)]
    assert crew.overdue(1e9) == []
    assert crew.next_due(can_start=True) == inf
    crew.ended(late, 50.0, served=False)
    assert crew.next_due(can_start=True) >= 50.0 + BACKOFF_FIRST_S  # as any failed start


def test_ready_workers_are_never_late() -> None:
    crew = crew_of(2)
    all_ready(crew, 5.0)
    assert crew.overdue(1e9) == []
    assert crew.next_due(can_start=True) == inf


def test_a_condemned_worker_is_aborted_at_once_and_then_killed() -> None:
    crew = crew_of(2)
    bad, _ = all_ready(crew, 5.0)
    crew.condemn(bad, "it is stuck", 7.0)
    assert crew.next_due(can_start=True) == 7.0
    assert crew.overdue(7.0) == [(bad, False)]
    crew.condemn(bad, "it is still stuck", 7.5)
    assert bad.killed == "it is stuck"
    assert crew.overdue(7.0 + ABORT_WAIT_S) == [(bad, True)]


def test_a_worker_that_gets_ready_when_it_was_aborted_is_killed_all_the_same() -> None:
    crew = crew_of(1)
    (late,) = started(crew, 5.0)
    assert crew.overdue(5.0 + TIMEOUT_S) == [(late, False)]
    crew.ready(late.id, 5.1 + TIMEOUT_S)
    assert crew.overdue(5.0 + TIMEOUT_S + ABORT_WAIT_S) == [(late, True)]


def test_what_a_start_may_take_can_be_set_for_those_to_come() -> None:
    crew = crew_of(2)
    assert crew.start(5.0) is not None
    crew.start_timeout_s = 2.0
    second = crew.start(5.0)
    assert crew.overdue(7.0) == [(second, False)]


def test_nothing_is_due_while_nothing_can_be_started() -> None:
    crew = crew_of(2)
    assert crew.next_due(can_start=False) == inf
    worker = crew.start(5.0)
    assert worker is not None
    assert crew.next_due(can_start=False) == 5.0 + TIMEOUT_S


# --- how it stands -----------------------------------------------------------------------------


def test_a_crew_stands_when_all_are_ready() -> None:
    crew = crew_of(2)
    first, second = started(crew, 5.0)
    crew.ready(first.id, 5.0)
    assert not crew.stands(5.0)
    crew.ready(second.id, 5.0)
    assert crew.stands(5.0)
    assert not crew.hopeless(5.0)


def test_a_crew_of_which_some_can_not_be_started_stands_with_the_others() -> None:
    crew = crew_of(2)
    good = crew.start(5.0)
    assert good is not None
    crew.ready(good.id, 5.0)
    now = exhaust(crew, 5.0)
    assert crew.stands(now)
    assert not crew.hopeless(now)


def test_a_crew_of_which_none_can_be_started_is_hopeless_and_tried_on() -> None:
    crew = crew_of(1)
    now = exhaust(crew, 5.0)
    assert crew.hopeless(now)
    assert not crew.stands(now)
    due = crew.next_due(can_start=True)
    assert due < inf
    (worker,) = started(crew, due)
    crew.ready(worker.id, due)
    assert crew.stands(due)


@pytest.mark.parametrize("size", [1, 3, 32])
def test_a_crew_that_fails_as_one_is_given_the_same_number_of_rounds(size: int) -> None:
    crew, now, rounds = crew_of(size), 5.0, 0
    while not crew.hopeless(now):
        rounds += 1
        workers = started(crew, now)
        assert len(workers) == size
        for worker in workers:
            crew.ended(worker, now, served=False)
        now = crew.next_due(can_start=True)
    assert rounds == INTENSITY + 1


def test_random_lives_keep_every_place_accounted_for() -> None:
    """Whatever happens: workers and vacancies together are as many as there should be."""
    random = Random(2024)
    crew, now = crew_of(5), 0.0
    for _ in range(5000):
        now += random.expovariate(10.0)
        workers = list(crew.workers.values())
        worker = random.choice(workers) if workers else None
        match random.randrange(6):
            case 0 | 1:
                crew.start(now)
            case 2 if worker is not None:
                crew.ready(worker.id, now)
            case 3 if worker is not None:
                crew.ended(worker, now, served=random.random() < 0.5)
            case 4 if worker is not None and worker.ready_at is None:
                crew.failed(worker, now)
            case 5:
                crew.overdue(now)
        if random.random() < 0.001:
            crew.disband()
        due = crew.next_due(can_start=True)
        if len(crew.workers) < 5:
            assert due < now + 15.0  # a place that is free is filled before long
    while crew.next_due(can_start=True) < inf:
        now = max(now, crew.next_due(can_start=True))
        all_ready(crew, now)
        for worker in list(crew.workers.values()):
            crew.ready(worker.id, now)
    assert crew.ready_count == 5


# --- replacements ------------------------------------------------------------------------------


def recycling_crew(size: int, **limits: float) -> Crew:
    return Crew(
        size,
        RestartPolicy(Random(7)),
        start_timeout_s=TIMEOUT_S,
        retire_s=60.0,
        recycling=Recycling(**limits),  # type: ignore[arg-type]
        random=Random(7),
    )


def test_a_worker_is_retired_only_when_its_successor_is_ready() -> None:
    crew = recycling_crew(2, requests=100)
    first, second = all_ready(crew, 0.0)
    crew.served(first.id, requests=110, memory_bytes=0)
    (successor,) = started(crew, 1.0)
    crew.check_invariants()
    assert crew.retire(1.0) is None
    crew.ready(successor.id, 2.0)
    assert crew.ready_count == 3
    assert crew.retire(2.0) is first
    assert crew.retire(2.0) is None
    crew.check_invariants()
    assert crew.ready_count == 2
    crew.ended(first, 3.0, served=True)
    crew.check_invariants()
    assert started(crew, 3.0) == []
    assert sorted(crew.workers) == [second.id, successor.id]


def test_one_is_replaced_at_a_time() -> None:
    crew = recycling_crew(3)
    workers = all_ready(crew, 0.0)
    crew.recycle([worker.id for worker in workers])
    for number, worker in enumerate(workers):
        (successor,) = started(crew, float(number))
        crew.ready(successor.id, float(number))
        assert crew.retire(float(number)) is worker
        crew.check_invariants()
    assert started(crew, 10.0) == []


def test_no_more_are_draining_than_there_are_places() -> None:
    crew = recycling_crew(1)
    (first,) = all_ready(crew, 0.0)
    crew.recycle([first.id])
    (second,) = all_ready(crew, 1.0)
    assert crew.retire(1.0) is first
    crew.recycle([second.id])
    assert started(crew, 2.0) == [], "the first has not ended yet"
    crew.ended(first, 3.0, served=True)
    assert len(started(crew, 3.0)) == 1


def test_age_is_due_at_a_time_that_is_told_and_never_by_default() -> None:
    crew = recycling_crew(1, age_s=100.0)
    (worker,) = all_ready(crew, 0.0)
    due = crew.next_due(can_start=True)
    assert 90.0 <= due <= 110.0
    assert started(crew, due - 0.1) == []
    assert len(started(crew, due)) == 1
    assert worker.due == f"it is {due:.0f} s old"
    assert crew_of(1).next_due(can_start=False) == inf


def test_memory_makes_a_worker_due() -> None:
    crew = recycling_crew(1, memory_bytes=1000)
    (worker,) = all_ready(crew, 0.0)
    crew.served(worker.id, requests=1, memory_bytes=800)
    assert started(crew, 0.0) == []
    crew.served(worker.id, requests=2, memory_bytes=1200)
    assert len(started(crew, 0.0)) == 1
    crew.served(99, requests=1, memory_bytes=0)  # it is gone


def test_a_worker_that_dies_while_it_is_replaced_leaves_its_place_to_its_successor() -> None:
    crew = recycling_crew(1)
    (worker,) = all_ready(crew, 0.0)
    crew.recycle([worker.id])
    (successor,) = started(crew, 1.0)
    crew.ended(worker, 2.0, served=True)
    crew.check_invariants()
    assert started(crew, 100.0) == []
    crew.ready(successor.id, 3.0)
    assert crew.retire(3.0) is None
    assert crew.ready_count == 1


def test_a_successor_that_can_not_be_started_is_tried_again_while_the_old_one_serves() -> None:
    crew = recycling_crew(1)
    (worker,) = all_ready(crew, 0.0)
    crew.recycle([worker.id])
    now = exhaust(crew, 1.0)
    crew.check_invariants()
    assert crew.failing(now)
    assert not crew.hopeless(now)
    assert crew.ready_count == 1
    assert crew.retire(now) is None
    (successor,) = started(crew, now + 100.0)
    crew.ready(successor.id, now + 100.0)
    assert crew.retire(now + 100.0) is worker


def test_a_drained_worker_is_retired_at_once_and_its_place_filled() -> None:
    crew = recycling_crew(2)
    first, _ = all_ready(crew, 0.0)
    assert crew.drain(first.id, 1.0) is first
    crew.check_invariants()
    assert crew.ready_count == 1
    assert len(started(crew, 1.0)) == 1
    crew.ended(first, 2.0, served=True)
    assert started(crew, 2.0) == []


def test_a_drained_worker_that_was_being_replaced_has_its_successor_on_its_way() -> None:
    crew = recycling_crew(1)
    (worker,) = all_ready(crew, 0.0)
    crew.recycle([worker.id])
    (successor,) = started(crew, 1.0)
    crew.drain(worker.id, 1.0)
    crew.check_invariants()
    assert started(crew, 1.0) == []
    crew.ready(successor.id, 2.0)
    assert crew.retire(2.0) is None


def test_a_retired_worker_that_does_not_end_is_aborted_then_killed() -> None:
    crew = recycling_crew(1)
    (worker,) = all_ready(crew, 0.0)
    crew.drain(worker.id, 1.0)
    started(crew, 1.0)
    assert crew.overdue(60.9) == [(crew.workers[2], False)], "the other was not ready in time"
    assert crew.overdue(61.0) == [(worker, False)]
    assert worker.killed == "it had not ended 60 s after it was told to"
    assert (worker, True) in crew.overdue(61.0 + ABORT_WAIT_S)


def test_scaling_up_starts_and_scaling_down_retires_the_youngest() -> None:
    crew = recycling_crew(2)
    first, second = all_ready(crew, 0.0)
    assert crew.scale(4, 1.0) == []
    crew.check_invariants()
    third, fourth = started(crew, 1.0)
    crew.ready(third.id, 2.0)
    assert not crew.stands(2.0)
    assert crew.scale(1, 3.0) == [fourth, third, second], "who is not ready first"
    crew.check_invariants()
    assert crew.stands(3.0)
    for worker in (fourth, third, second):
        crew.ended(worker, 4.0, served=True)
    crew.check_invariants()
    assert started(crew, 4.0) == []
    assert list(crew.workers) == [first.id]


def test_scaling_down_takes_vacancies_first() -> None:
    crew = recycling_crew(3)
    (worker, *_) = started(crew, 0.0)
    crew.failed(worker, 0.0)
    assert crew.scale(2, 0.0) == []
    crew.check_invariants()
    assert started(crew, 1000.0) == []


def test_scaling_down_while_one_is_replaced_ends_with_the_right_number() -> None:
    for size in (1, 2):
        crew = recycling_crew(3)
        workers = all_ready(crew, 0.0)
        crew.recycle([workers[0].id])
        (successor,) = started(crew, 1.0)
        leaving = crew.scale(size, 2.0)
        crew.check_invariants()
        if successor not in leaving:
            crew.ready(successor.id, 3.0)
        while crew.retire(3.0) is not None:
            crew.check_invariants()
        assert crew.ready_count == size


def test_a_crew_that_makes_way_starts_nobody_any_more() -> None:
    crew = recycling_crew(2)
    workers = all_ready(crew, 0.0)
    crew.recycle([workers[0].id])
    (successor,) = started(crew, 1.0)
    assert crew.retire_all(2.0) == [*workers, successor]
    crew.check_invariants()
    assert crew.stands(2.0)
    for worker in list(crew.workers.values()):
        crew.ended(worker, 3.0, served=False)
    assert started(crew, 1000.0) == []
    assert crew.next_due(can_start=True) == inf


def test_restarts_are_counted_by_place_and_only_those_unasked() -> None:
    crew = recycling_crew(1)
    (worker,) = all_ready(crew, 0.0)
    crew.ended(worker, 1.0, served=True)
    (worker,) = all_ready(crew, 1.0)
    assert worker.restarts == 1
    crew.recycle([worker.id])
    (successor,) = all_ready(crew, 2.0)
    assert crew.retire(2.0) is worker
    crew.ended(worker, 3.0, served=True)
    assert successor.restarts == 1


def labelled(crew: Crew) -> list[int]:
    return [one.id for one in crew.workers.values() if "gpu" in one.labels and not one.retired]


def test_fewer_workers_still_have_the_labels_that_there_should_be() -> None:
    crew = Crew(3, RestartPolicy(Random(7)), start_timeout_s=TIMEOUT_S, labels={"gpu": 1})
    all_ready(crew, 1.0)
    crew.ended(crew.workers[1], 2.0, served=True)
    all_ready(crew, 2.0)
    assert labelled(crew) == [4]
    assert [worker.id for worker in crew.scale(1, 3.0)] == [3, 2]
    assert labelled(crew) == [4]


def test_fewer_workers_leave_the_place_of_one_whose_labels_are_missing() -> None:
    crew = Crew(3, RestartPolicy(Random(7)), start_timeout_s=TIMEOUT_S, labels={"gpu": 1})
    all_ready(crew, 1.0)
    crew.ended(crew.workers[1], 2.0, served=True)
    assert [worker.id for worker in crew.scale(2, 2.0)] == [3]
    all_ready(crew, 2.0)
    assert labelled(crew) == [4]
    assert crew.size == crew.ready_count == 2


def test_of_workers_that_all_have_a_label_some_make_way() -> None:
    crew = Crew(3, RestartPolicy(Random(7)), start_timeout_s=TIMEOUT_S, labels={"gpu": 3})
    all_ready(crew, 1.0)
    assert [worker.id for worker in crew.scale(1, 2.0)] == [3, 2]
    assert labelled(crew) == [1]
