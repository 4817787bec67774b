"""Mirror of broker/journal/fold.py."""

from random import Random

import pytest
from journal_records import FIRST, Story, accepted, chains, ended, told, value
from msgspec.structs import replace

from pronghorn.broker.journal.errors import HistoryError
from pronghorn.broker.journal.fold import (
    DEATHS_MAX,
    End,
    Resume,
    RunState,
    advance,
    ended_at_once,
    fold,
    recover,
)
from pronghorn.broker.journal.record import AttemptLost, Ended, Record, Reopened, Started, TaskDone


@pytest.fixture
def story() -> Story:
    return Story()


def refused(state: RunState | None, record: Record, match: str) -> None:
    with pytest.raises(HistoryError, match=match):
        advance(state, (state.last if state else FIRST) + 1, record)


# --- runs ------------------------------------------------------------------------------------


def test_a_run_goes_from_accepted_to_done(story: Story) -> None:
    run = story.accept(key="order-17")
    assert story.states[run].status == "open"
    assert story.states[run].key == "order-17"
    story.end(run, run_ns=5)
    state = story.states[run]
    assert (state.status, state.records, state.last, state.run_ns) == ("done", 2, run + 1, 5)
    assert state.ended_at_ns


def test_a_run_that_fails_has_the_code_of_its_failure(story: Story) -> None:
    run = story.accept()
    story.end(run, "failed")
    assert story.states[run].code == "WORKER_LOST"


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
@pytest.mark.parametrize(
    "fields", [{}, {"durability": "batched", "attempts_max": 1}, {"items": 0}, {"key": "order-17"}]
)
def test_two_records_that_begin_and_end_a_run_lead_to_the_same_at_once(
    status: str, fields: dict[str, object]
) -> None:
    first = accepted(**fields)
    opened = advance(None, FIRST, first)
    for token in (FIRST, 0) if status != "done" else (FIRST,):
        last = replace(ended(opened, status, run_ns=7), token=token)
        assert ended_at_once(FIRST, first, last) == advance(opened, FIRST + 1, last)


@pytest.mark.parametrize(
    ("run", "wrong"),
    [
        (FIRST + 1, {}),
        (FIRST, {"run": FIRST + 1}),
        (FIRST, {"previous": FIRST + 1}),
        (FIRST, {"token": FIRST + 1}),
    ],
)
def test_two_records_that_do_not_fit_are_refused_at_once(run: int, wrong: dict[str, int]) -> None:
    last = replace(ended(advance(None, FIRST, accepted())), **wrong)
    with pytest.raises(HistoryError):
        ended_at_once(FIRST, accepted(run), last)


def test_items_that_are_missing_are_noticed_at_once() -> None:
    first = accepted(items=2)
    last = ended(advance(None, FIRST, first))
    with pytest.raises(HistoryError, match="are open"):
        ended_at_once(FIRST, first, last)


def test_a_run_that_was_never_accepted_is_refused() -> None:
    refused(None, Started(FIRST, FIRST, 1, 0), "was never accepted")


def test_a_run_is_accepted_once_and_under_its_own_number(story: Story) -> None:
    run = story.accept()
    refused(story.states[run], accepted(run), "not itself")
    refused(None, accepted(FIRST + 5), "not itself")


def test_a_missing_record_is_noticed_by_the_next(story: Story) -> None:
    run = story.accept()
    story.add(Started(run, run, 1, 0))
    story.end(run)
    (first, _, last) = story.records
    with pytest.raises(HistoryError, match=f"the last known of run {run} is {run}"):
        fold([first, last])


def test_a_record_of_another_run_is_refused(story: Story) -> None:
    run, other = story.accept(), story.accept()
    refused(story.states[run], ended(story.states[other]), "the last known of run")


def test_an_ended_run_takes_no_more_records(story: Story) -> None:
    run = story.accept()
    story.end(run)
    state = story.states[run]
    refused(state, ended(state), "has ended, done")
    refused(state, Started(run, state.last, 2, 0), "has ended, done")
    refused(state, Reopened(run, state.last, 0), "is done, not reopened")


# --- attempts --------------------------------------------------------------------------------


def test_the_first_attempt_needs_no_record_and_has_the_runs_number_as_token(story: Story) -> None:
    run = story.accept()
    assert (story.states[run].attempt, story.states[run].token) == (1, run)
    assert not story.states[run].begun


def test_results_of_a_stale_attempt_are_refused(story: Story) -> None:
    run = story.accept(items=4)
    stale = story.states[run].token
    token = story.add(Started(run, run, 2, 0))
    state = story.states[run]
    assert state.token == token != stale
    for record in (
        TaskDone(run, state.last, stale, 0, "", 0, 1),
        AttemptLost(run, state.last, stale, "", 0),
        Ended(run, state.last, stale, 0, "done"),
        Ended(run, state.last, stale, 0, "failed"),
    ):
        refused(state, record, f"is of attempt {stale}")


def test_attempts_are_counted_without_gaps(story: Story) -> None:
    run = story.accept()
    refused(story.states[run], Started(run, run, 3, 0), "whose latest is 1")
    story.add(Started(run, run, 1, 0))
    refused(story.states[run], Started(run, run + 1, 1, 0), "whose latest is 1")
    story.add(Started(run, run + 1, 2, 0))
    assert story.states[run].attempt == 2


def test_a_run_may_end_without_an_attempt_but_not_be_done(story: Story) -> None:
    run = story.accept()
    state = story.states[run]
    refused(state, Ended(run, run, 0, 0, "done"), "is of attempt 0")
    assert advance(state, run + 1, Ended(run, run, 0, 0, "cancelled")).status == "cancelled"


def test_a_reopened_run_has_attempts_and_deaths_as_at_first(story: Story) -> None:
    run = story.accept(attempts_max=2, at_most_once=True)
    story.add(Started(run, run, 1, 0))
    stale = story.states[run].token
    story.end(run, "interrupted")
    reopened = story.add(Reopened(run, story.sequence, 0))
    state = story.states[run]
    assert (state.status, state.attempt, state.attempts_max, state.deaths) == ("open", 2, 3, 0)
    assert (state.ended_at_ns, state.code) == (0, "")
    assert state.token == reopened != stale
    assert recover(state) == Resume(2)
    story.add(Started(run, reopened, 2, 0))
    assert isinstance(recover(story.states[run]), End)


# --- maps ------------------------------------------------------------------------------------


def test_ranges_of_items_are_joined_and_tell_what_is_missing(story: Story) -> None:
    run = story.accept(items=10)
    for first, count in ((3, 2), (8, 2), (5, 1)):
        state = story.states[run]
        story.add(TaskDone(run, state.last, run, 0, "", first, count, value([0] * count)))
    state = story.states[run]
    assert state.ranges == ((3, 3), (8, 2))
    assert state.missing == ((0, 3), (6, 2))


@pytest.mark.parametrize(("first", "count"), [(0, 1), (2, 3), (4, 1), (9, 2), (-1, 1)])
def test_ranges_that_are_done_or_outside_are_refused(story: Story, first: int, count: int) -> None:
    run = story.accept(items=10)
    story.add(TaskDone(run, run, run, 0, "", 0, 5))
    refused(story.states[run], TaskDone(run, run + 1, run, 0, "", first, count), "done already")


def test_a_map_is_done_when_all_its_items_are(story: Story) -> None:
    run = story.accept(items=2)
    refused(story.states[run], ended(story.states[run]), r"items \(\(0, 2\),\) .* are open")
    story.add(TaskDone(run, run, run, 0, "", 0, 2))
    story.end(run)
    assert story.states[run].status == "done"


def test_an_empty_map_is_done_at_once(story: Story) -> None:
    run = story.accept(items=0)
    story.end(run)
    assert story.states[run].status == "done"


def test_named_tasks_are_no_ranges(story: Story) -> None:
    run = story.accept()
    story.add(TaskDone(run, run, run, 0, "fetch", 0, 0, value("page")))
    assert story.states[run].ranges == ()


# --- after a crash ---------------------------------------------------------------------------


def test_a_run_goes_on_as_another_attempt_for_it_may_have_begun(story: Story) -> None:
    assert recover(story.states[story.accept()]) == Resume(2)


def test_a_run_that_may_run_once_and_has_not_begun_goes_on(story: Story) -> None:
    assert recover(story.states[story.accept(at_most_once=True)]) == Resume(1)


def test_a_run_that_may_run_once_and_has_begun_is_interrupted(story: Story) -> None:
    run = story.accept(at_most_once=True)
    story.add(Started(run, run, 1, 0))
    end = recover(story.states[run])
    assert isinstance(end, End)
    assert end.status == "interrupted"
    assert "must not run twice" in end.reason


def test_a_run_whose_attempts_are_used_up_is_interrupted(story: Story) -> None:
    run = story.accept(attempts_max=2)
    assert recover(story.states[run]) == Resume(2)
    story.add(Started(run, run, 2, 0))
    assert recover(story.states[run]) == End(
        "interrupted", "attempt 2 of shop.sell was the last one"
    )


def test_a_run_that_kills_its_workers_is_parked(story: Story) -> None:
    run = story.accept(attempts_max=100)
    for death in range(1, DEATHS_MAX + 1):
        state = story.states[run]
        assert isinstance(recover(state), Resume)
        story.add(AttemptLost(run, state.last, state.token, "signal 11 (SIGSEGV)", 0))
        if death < DEATHS_MAX:
            story.add(Started(run, story.sequence, death + 1, 0))
    assert recover(story.states[run]) == End(
        "poisoned", f"{DEATHS_MAX} workers died running shop.sell for it"
    )


# --- properties ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_replays_are_equal_and_every_prefix_is_a_state_that_was(seed: int) -> None:
    story = told(Random(seed), 150)
    assert fold(story.records) == story.states
    states: dict[int, RunState] = {}
    for count, (sequence, record) in enumerate(story.records, 1):
        states[record.run] = advance(states.get(record.run), sequence, record)
        if count % 10 == 0:
            assert fold(story.records[:count]) == states


@pytest.mark.parametrize("seed", range(20))
def test_a_missing_record_is_noticed_unless_it_is_the_last(seed: int) -> None:
    for chain in chains(told(Random(seed), 150).records):
        for missing in range(len(chain) - 1):
            with pytest.raises(HistoryError):
                fold([*chain[:missing], *chain[missing + 1 :]])


@pytest.mark.parametrize("seed", range(20))
def test_swapped_and_doubled_records_are_noticed(seed: int) -> None:
    for chain in chains(told(Random(seed), 150).records):
        for place in range(len(chain) - 1):
            with pytest.raises(HistoryError):
                fold([*chain[:place], chain[place + 1], chain[place], *chain[place + 2 :]])
            with pytest.raises(HistoryError):
                fold([*chain[: place + 1], chain[place]])
