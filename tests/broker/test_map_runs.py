"""Mirror of broker/map_runs.py: maps that are recorded, with a journal that is played here."""

from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from core_driver import SLEEP, Driver, error_of
from durable_driver import DurableDriver, events, info, replies, started
from msgspec import Raw

from pronghorn.broker.events import Assign, Command, DrainBegun, Drained, TableKnown, WorkerGone
from pronghorn.broker.journal.record import (
    Accepted,
    Ended,
    Record,
    Reopened,
    Started,
    TaskDone,
)
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import CancelRun, ChunkDone, Failed, RunChunk
from pronghorn.broker.wire.messages import Call, Error, ItemFailure, Options, Run
from pronghorn.broker.wire.runs import ITEMS_MAX, RunItems, RunPart
from pronghorn.broker.wire.table import NodeInfo, NodeTable

KILLED = "signal 9 (SIGKILL)"
QUICK_NS = 1  # of an item: the next chunks are larger


class Given(NamedTuple):
    """A chunk, and the worker that it is given to; each has one at first."""

    chunk: RunChunk
    worker_id: int

    @property
    def indexes(self) -> list[int]:
        return [index for index, _ in msgspec.msgpack.decode(self.chunk.items)]


@pytest.fixture
def wide() -> DurableDriver:
    """Give a broker that has five workers."""
    return started(workers=5)


def params(count: int) -> Raw:
    return Raw(msgspec.msgpack.encode([[index, 1] for index in range(count)]))


def start_map(
    driver: DurableDriver, count: int, id_: int = 1, node: str = "m.add", **options: Any
) -> list[Command]:
    """Be a client that starts a map, and the journal."""
    told = driver.say(Run(id_, node, params(count), Options(items=True, **options)))
    return told + driver.keep()


def chunks(commands: list[Command]) -> list[Given]:
    return [
        Given(one.message, one.worker_id)
        for one in commands
        if isinstance(one, Assign) and isinstance(one.message, RunChunk)
    ]


def done(
    driver: DurableDriver,
    given: Given,
    *,
    failed: dict[int, str] | None = None,
    only: int | None = None,
) -> list[Command]:
    """Be a worker that runs a chunk and gives each item's index, and the journal."""
    driver.begin(given.chunk, given.worker_id)
    values: list[Any] = [index * 10 for index in given.indexes[:only]]
    details = ErrorDetails(outcome="executed")
    failures = tuple(
        ItemFailure(index, "NODE_ERROR", why, details) for index, why in (failed or {}).items()
    )
    for index in failed or {}:
        values[index] = None
    word = ChunkDone(
        given.chunk.token,
        Raw(msgspec.msgpack.encode(values)),
        QUICK_NS * len(values),
        len(values),
        failures or None,
    )
    return driver.work(word, given.worker_id) + driver.keep()


def run_all(driver: DurableDriver, commands: list[Command]) -> list[Command]:
    """Be the workers that run all that they are given, one after the other."""
    told, waiting = list(commands), chunks(commands)
    while waiting:
        more = done(driver, waiting.pop(0))
        told += more
        waiting += chunks(more)
    return told


def until_large(driver: DurableDriver, commands: list[Command]) -> Given:
    """Be a worker that runs the single items that come first; gives the first larger chunk."""
    (given,) = chunks(commands)
    while len(given.indexes) == 1:
        (given,) = chunks(done(driver, given))
    return given


def items(told: Any) -> RunItems:
    assert not isinstance(told, Error), told
    return msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=RunItems)


def values(told: RunItems) -> dict[int, Any]:
    """Give what is told: index of the item -> its result, or its failure's code."""
    found: dict[int, Any] = {}
    for part in told.parts:
        part_values = msgspec.msgpack.decode(part.values)
        for failure in part.failures:
            part_values[failure.index] = failure.code
        found |= dict(enumerate(part_values, part.first))
    return found


def story(driver: DurableDriver) -> list[type[Record]]:
    (records,) = driver.kept.records.values()
    return [type(record) for _, record in records]


def run_id(commands: list[Command], id_: int = 1) -> str:
    return info(replies(commands)[id_]).id


def serve(driver: DurableDriver, *nodes: NodeInfo) -> None:
    driver.do(TableKnown(NodeTable(nodes, "digest"), 0))


# --- from acceptance to end ----------------------------------------------------------------------


def test_a_map_is_one_run_of_which_each_range_is_recorded(recording: DurableDriver) -> None:
    commands = start_map(recording, 200, durability="sync", key="order-17")
    told = info(replies(commands)[1])
    assert (told.status, told.items, told.items_done, told.key) == ("open", 200, 0, "order-17")
    commands = run_all(recording, commands)
    story_ = story(recording)
    assert story_[0] is Accepted
    assert story_[-1] is Ended
    assert set(story_[1:-1]) == {TaskDone}
    assert 66 < len(story_) < 100  # single items at first, then chunks
    told = info(replies(recording.ask(2, "status", told.id))[2])
    assert (told.status, told.items_done, told.code) == ("done", 200, "")
    result = replies(recording.ask(3, "result", told.id))[3]
    assert result == [index * 10 for index in range(200)]


def test_nothing_is_begun_before_the_acceptance_is_kept(recording: DurableDriver) -> None:
    commands = recording.say(Run(1, "m.add", params(5), Options(items=True)))
    assert commands == []
    assert chunks(recording.keep())


def test_a_map_of_nothing_is_done(recording: DurableDriver) -> None:
    id_ = run_id(start_map(recording, 0))
    assert replies(recording.ask(2, "result", id_))[2] == []
    told = items(replies(recording.ask(3, "items", id_))[3])
    assert (told.parts, told.items, told.ended) == ((), 0, True)


def test_workers_are_told_of_which_run_a_chunk_is(recording: DurableDriver) -> None:
    commands = start_map(recording, 1)
    ((chunk, _),) = chunks(commands)
    (told,) = recording.told
    assert (told.token, told.run_id, told.attempt) == (chunk.token, run_id(commands), 1)


def test_results_are_told_when_their_range_is_kept(wide: DurableDriver) -> None:
    commands = start_map(wide, 2, durability="sync")
    id_ = run_id(commands)
    (first, worker_id), second = chunks(commands)
    assert replies(wide.ask(2, "items", id_)) == {}
    wide.begin(first, worker_id)
    word = ChunkDone(first.token, Raw(b"\x91\x07"), 1, 1)
    assert replies(wide.work(word, worker_id)) == {}
    told = items(replies(wide.keep())[2])
    assert (values(told), told.items, told.ended) == ({0: 7}, 2, False)
    wide.acknowledge(2)
    after = told.parts[-1].seq + 1
    assert replies(wide.ask(3, "items", id_, after)) == {}
    told = items(replies(done(wide, second))[3])
    assert values(told) == {1: 10}


def test_who_waits_for_nothing_is_told_at_once(recording: DurableDriver) -> None:
    id_ = run_id(start_map(recording, 2))
    told = items(replies(recording.ask(2, "items", id_, 0, False))[2])
    assert (told.parts, told.ended) == ((), False)


def test_a_failed_item_is_its_failure_and_the_map_goes_on(wide: DurableDriver) -> None:
    commands = start_map(wide, 3)
    id_ = run_id(commands)
    first, second, third = chunks(commands)
    done(wide, first)
    done(wide, third, failed={0: "no, too"})
    done(wide, second, failed={0: "no"})
    told = items(replies(wide.ask(2, "items", id_))[2])
    assert (values(told), told.ended) == ({0: 0, 1: "NODE_ERROR", 2: "NODE_ERROR"}, True)
    assert info(replies(wide.ask(3, "status", id_))[3]).status == "done"
    wide.acknowledge(3)
    error = replies(wide.ask(4, "result", id_))[4]
    assert isinstance(error, Error)
    assert (error.code, error.message, error.details.item) == ("NODE_ERROR", "no", 1)


def test_a_chunk_that_fails_as_a_whole_is_the_failure_of_its_items(
    recording: DurableDriver,
) -> None:
    commands = start_map(recording, 1)
    ((chunk, _),) = chunks(commands)
    recording.begin(chunk)
    recording.work(Failed(chunk.token, "INTERNAL", "mixed up", ErrorDetails()))
    recording.keep()
    told = items(replies(recording.ask(2, "items", run_id(commands)))[2])
    assert values(told) == {0: "INTERNAL"}


def test_what_a_chunk_has_not_come_to_is_given_again(recording: DurableDriver) -> None:
    large = until_large(recording, start_map(recording, 200))
    commands = done(recording, large, only=1)
    waiting = chunks(commands)
    while waiting and waiting[0].indexes != large.indexes[1:]:
        waiting = chunks(done(recording, waiting[0]))
    assert waiting


def test_a_key_leads_to_the_same_map(recording: DurableDriver) -> None:
    commands = start_map(recording, 1, durability="sync", key="order-17")
    id_ = run_id(commands)
    assert run_id(start_map(recording, 1, 2, durability="sync", key="order-17"), 2) == id_
    run_all(recording, commands)
    assert run_id(start_map(recording, 1, 3, durability="sync", key="order-17"), 3) == id_
    recording.acknowledge(3)
    other = replies(start_map(recording, 2, 4, durability="sync", key="order-17"))[4]
    assert isinstance(other, Error)
    assert other.code == "INVALID_ARGUMENT"
    call = Run(5, "m.add", params(1), Options(durability="sync", key="order-17"))
    refused = error_of(recording.say(call) + recording.keep())
    assert "has a run already" in refused.message


def test_events_tell_of_ranges(recording: DurableDriver) -> None:
    commands = run_all(recording, start_map(recording, 2))
    told = events(replies(recording.ask(2, "events", run_id(commands)))[2])
    assert [(one.event, one.first, one.count) for one in told.events] == [
        ("accepted", None, None),
        ("part", 0, 1),
        ("part", 1, 1),
        ("ended", None, None),
    ]


# --- crashes -------------------------------------------------------------------------------------


def test_the_next_broker_begins_only_what_is_missing(wide: DurableDriver) -> None:
    commands = start_map(wide, 5, durability="sync")
    id_ = run_id(commands)
    _, second, _, fourth, _ = chunks(commands)
    done(wide, second)
    done(wide, fourth)
    after = started(wide.kept, 2)
    status = info(replies(after.ask(1, "status", id_))[1])
    assert (status.attempt, status.items_done) == (2, 2)
    assert {one.attempt for one in after.told} == {2}
    finish(after)
    assert replies(after.ask(2, "result", id_))[2] == [0, 10, 20, 30, 40]
    seen = [record for _, record in next(iter(after.kept.records.values()))]
    assert [type(one) for one in seen].count(Started) == 1
    assert [one.first for one in seen if isinstance(one, TaskDone)] == [1, 3, 0, 2, 4]


def finish(driver: DurableDriver) -> None:
    """Be a worker that runs all that is there, what it has at first included."""
    worker = driver.core._life.placement.workers[1]
    while worker.held:
        (request,) = worker.held.values()
        chunk = RunChunk(request.token, request.slot, request.node.index, request.params)
        done(driver, Given(chunk, 1))


def test_a_map_of_which_only_the_end_was_lost_ends(recording: DurableDriver) -> None:
    serve(recording, NodeInfo("m.add", "inline", at_most_once=True))
    commands = start_map(recording, 1)
    ((chunk, _),) = chunks(commands)
    recording.begin(chunk)
    recording.work(ChunkDone(chunk.token, Raw(b"\x91\x07"), 1, 1))
    recording.commit(1)  # the range, and not the end
    after = started(recording.kept, 2)
    assert replies(after.ask(1, "result", run_id(commands)))[1] == [7]


def test_what_must_not_run_twice_ends_as_interrupted(wide: DurableDriver) -> None:
    serve(wide, NodeInfo("m.add", "inline", at_most_once=True))
    commands = start_map(wide, 3)
    id_ = run_id(commands)
    done(wide, chunks(commands)[1])
    after = started(wide.kept, 2)
    told = items(replies(after.ask(1, "items", id_))[1])
    assert (values(told), told.ended) == ({1: 10}, True)
    error = replies(after.ask(2, "result", id_))[2]
    assert isinstance(error, Error)
    assert error.code == "INTERRUPTED"
    # On demand the others are begun.
    run_all(after, after.ask(3, "retry", id_))
    assert story(after)[-5:] == [Reopened, Started, TaskDone, TaskDone, Ended]
    after.acknowledge(3)
    assert replies(after.ask(4, "result", id_))[4] == [0, 10, 20]


def lose_first(driver: DurableDriver, commands: list[Command]) -> list[Command]:
    """Have the worker die in the item that it is given, and another one start."""
    chunk, worker_id = chunks(commands)[0]
    assert driver.begin(chunk, worker_id)
    told = driver.do(WorkerGone(worker_id, KILLED)) + driver.keep()
    return told + driver.start_worker(worker_id + 1)


def retried(driver: DurableDriver) -> list[Command]:
    """Let the time pass until what has lost its worker is given again."""
    return driver.tick(driver.core._delayed.next_due)


def test_an_item_whose_worker_dies_is_tried_again_alone(recording: DurableDriver) -> None:
    commands = start_map(recording, 2)
    id_ = run_id(commands)
    lost = lose_first(recording, commands)
    assert [one.indexes for one in chunks(lost)] == [[1]]
    run_all(recording, lost)
    (again,) = chunks(retried(recording))
    assert again.indexes == [0]
    done(recording, again)
    assert replies(recording.ask(2, "result", id_))[2] == [0, 10]
    assert info(replies(recording.ask(3, "status", id_))[3]).attempt == 1


def test_an_item_that_takes_three_workers_is_a_failure_among_results(
    recording: DurableDriver,
) -> None:
    commands = start_map(recording, 2)
    id_ = run_id(commands)
    run_all(recording, lose_first(recording, commands))
    lose_first(recording, retried(recording))
    lose_first(recording, retried(recording))
    told = items(replies(recording.ask(2, "items", id_))[2])
    assert (values(told), told.ended) == ({0: "WORKER_LOST", 1: 10}, True)


def test_items_before_the_one_that_was_lost_keep_their_results(recording: DurableDriver) -> None:
    large = until_large(recording, start_map(recording, 200))
    recording.begin(large.chunk)
    recording.pages[1].put(large.chunk.slot, "a", "b")
    recording.do(WorkerGone(1, KILLED))
    recording.keep()
    kept = [
        record.count
        for _, record in next(iter(recording.kept.records.values()))
        if isinstance(record, TaskDone) and record.first == large.indexes[0]
    ]
    assert kept == [2]


def test_of_a_node_that_runs_at_most_once_the_lost_item_is_interrupted(
    recording: DurableDriver,
) -> None:
    serve(recording, NodeInfo("m.add", "inline", at_most_once=True))
    commands = start_map(recording, 2)
    id_ = run_id(commands)
    run_all(recording, lose_first(recording, commands))
    told = items(replies(recording.ask(2, "items", id_))[2])
    assert (values(told), told.ended) == ({0: "INTERRUPTED", 1: 10}, True)


def test_of_an_async_chunk_each_item_is_tried_again(recording: DurableDriver) -> None:
    commands = start_map(recording, 1, node="m.sleep")
    assert chunks(commands)[0].chunk.node == SLEEP
    lose_first(recording, commands)
    assert chunks(retried(recording))


# --- ends before its time ------------------------------------------------------------------------


def test_a_map_is_cancelled_when_what_is_under_way_has_ended(wide: DurableDriver) -> None:
    commands = start_map(wide, 200)
    id_ = run_id(commands)
    first, second, *_ = chunks(commands)
    wide.begin(*first)
    done(wide, second)
    commands = wide.ask(2, "cancel", id_)
    assert CancelRun in {type(one.message) for one in commands if isinstance(one, Assign)}
    told = info(replies(commands)[2])
    assert (told.status, told.code, told.items_done) == ("cancelled", "CANCELLED", 1)
    assert chunks(wide.work(ChunkDone(first.chunk.token, Raw(b"\x91\x07"), 1, 1))) == []
    parts = items(replies(wide.ask(3, "items", id_))[3])
    assert (len(values(parts)), parts.ended) == (1, True)
    wide.acknowledge(3)
    again = wide.ask(4, "retry", id_)
    assert first.indexes in [one.indexes for one in chunks(again)]


def test_a_map_whose_node_is_served_no_more_fails_and_can_go_on(recording: DurableDriver) -> None:
    commands = start_map(recording, 200)
    id_ = run_id(commands)
    done(recording, chunks(commands)[0])
    serve(recording, NodeInfo("m.other", "inline"))
    recording.keep()
    error = replies(recording.ask(2, "result", id_))[2]
    assert isinstance(error, Error)
    assert error.code == "NOT_FOUND"
    status = info(replies(recording.ask(3, "status", id_))[3])
    assert (status.status, status.items_done) == ("failed", 1)


def test_a_broker_that_ends_begins_no_more_chunks(recording: DurableDriver) -> None:
    commands = start_map(recording, 200)
    id_ = run_id(commands)
    recording.ask(2, "result", id_)
    told = recording.do(DrainBegun())
    ending = replies(told)[2]
    assert isinstance(ending, Error)
    assert ending.code == "RESOURCE_EXHAUSTED"
    assert Drained() in run_all(recording, commands)
    after = started(recording.kept, 2)
    status = info(replies(after.ask(1, "status", id_))[1])
    assert (status.status, status.attempt, status.items_done) == ("open", 2, 64)


def test_while_the_journal_is_behind_no_more_is_begun(recording: DurableDriver) -> None:
    waiting = chunks(start_map(recording, 500))
    ended = 0
    while waiting:
        chunk, _ = waiting.pop(0)
        recording.begin(chunk)
        recording.now += 0.01
        waiting += chunks(recording.work(ChunkDone(chunk.token, Raw(b"\x91\x07"), 10**7, 1)))
        ended += 1
    assert 64 <= ended < 100
    (run,) = recording.core._durable._calls.runs.by_number.values()
    assert not run.cuts
    run_all(recording, recording.keep())
    assert recording.kept.states[run.number].status == "done"


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "body", "why"),
    [
        ("m.add", Raw(b"\x81\xa1a\x01"), "an array"),
        ("m.add", Raw(b"\xc0"), "an array"),
        ("m.add", Raw(b"\xdd" + (ITEMS_MAX + 1).to_bytes(4, "big")), "at most 100,000 items"),
        ("m.rows", Raw(b"\x91\x90"), "a streaming node"),
    ],
)
def test_what_can_not_be_a_map_is_refused(
    recording: DurableDriver, node: str, body: Raw, why: str
) -> None:
    error = error_of(recording.say(Run(1, node, body, Options(items=True))))
    assert (error.code, error.details.outcome) == ("INVALID_ARGUMENT", "not_started")
    assert why in error.message


def test_a_call_has_no_items(recording: DurableDriver) -> None:
    commands = recording.start()
    refused = replies(recording.ask(2, "items", run_id(commands)))[2]
    assert isinstance(refused, Error)
    assert "is a call" in refused.message


def test_items_are_told_in_json(recording: DurableDriver) -> None:
    commands = run_all(recording, start_map(recording, 1))
    body = msgspec.json.encode([run_id(commands)])
    told = recording.json("pronghorn.run.items", body, id=7) + recording.keep()
    (reply,) = (one.message for one in told if hasattr(one, "message"))
    assert msgspec.json.decode(reply.value)["parts"][0]["values"] == [0]


def test_without_a_journal_a_map_is_refused() -> None:
    driver = Driver()
    driver.start_worker()
    driver.hello()
    driver.say(Run(1, "m.add", params(2), Options(items=True)))
    assert driver.say(Call(2, "m.add"))  # which needs none


# --- at random -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_whatever_dies_each_item_has_one_result(seed: int) -> None:
    """Workers, the journal's writer and brokers die at random moments, and commits come late."""
    chance = Random(seed)
    count = chance.randint(1, 300)
    driver, lives = started(workers=2), 1
    id_ = run_id(start_map(driver, count, durability=chance.choice(["batched", "sync"])))
    next_worker, told, brokers = 3, dict[int, Any](), 1
    while driver.kept.states[int(id_[:16], 16)].status == "open":
        held = [
            (worker.id, request)
            for worker in driver.core._life.placement.workers.values()
            for request in worker.held.values()
            if not request.ended
        ]
        fate = chance.random()
        if held and fate < 0.03 and lives < 40:
            worker_id, request = held[0]
            if driver.pages[worker_id].claim(request.slot, request.token, 1):
                indexes = Given(as_chunk(request), worker_id).indexes
                over = indexes[: chance.randrange(len(indexes))]
                driver.pages[worker_id].put(request.slot, *(10 * index for index in over))
            driver.do(WorkerGone(worker_id, KILLED))
            driver.start_worker(next_worker)
            next_worker, lives = next_worker + 1, lives + 1
        elif fate < 0.04 and brokers < 3:  # with what was not kept
            driver, brokers = started(driver.kept, driver.generation + 1, workers=2), brokers + 1
            next_worker = 3
        elif fate < 0.06:
            driver.lose_journal()
            driver.open_journal()
        elif held and fate < 0.9:
            done_unkept(driver, as_chunk(held[0][1]), held[0][0], chance)
        else:
            driver.keep()
            driver.tick(driver.now + 1.0)
            for part in read_parts(driver, id_):
                for index, value in values(RunItems((part,), count, False)).items():
                    assert told.setdefault(index, value) == value
    for part in read_parts(driver, id_):
        told |= values(RunItems((part,), count, True))
    lost = {index for index, value in told.items() if value == "WORKER_LOST"}
    assert told == {index: "WORKER_LOST" if index in lost else index * 10 for index in range(count)}
    assert len(lost) <= lives / 3


def as_chunk(request: Any) -> RunChunk:
    return RunChunk(request.token, request.slot, request.node.index, request.params)


def done_unkept(driver: DurableDriver, chunk: RunChunk, worker_id: int, chance: Random) -> None:
    """Be a worker that runs a chunk, or only a part of it."""
    if not driver.begin(chunk, worker_id):
        return
    indexes = Given(chunk, worker_id).indexes
    count = chance.randint(1, len(indexes)) if chance.random() < 0.2 else len(indexes)
    results = Raw(msgspec.msgpack.encode([10 * index for index in indexes[:count]]))
    driver.work(ChunkDone(chunk.token, results, QUICK_NS * count, count), worker_id)


def read_parts(driver: DurableDriver, id_: str) -> list[RunPart]:
    """Give what the journal has of a map's ranges."""
    return [
        RunPart(seq=seq, first=record.first, values=record.value, failures=record.failures or ())
        for seq, record in driver.kept.records[int(id_[:16], 16)]
        if isinstance(record, TaskDone)
    ]


def test_a_map_of_which_a_range_is_refused_goes_on_with_what_is_kept(wide: DurableDriver) -> None:
    """What was under way of it is given up, and its workers' last words are heard no more."""
    commands = start_map(wide, 40)
    run = info(replies(commands)[1])
    wide.ask(2, "result", run.id)
    first, second, *others = chunks(commands)
    assert others
    kept = chunks(done(wide, first))
    for given in (second, *others):
        wide.begin(given.chunk, given.worker_id)
    values = Raw(msgspec.msgpack.encode([index * 10 for index in second.indexes]))
    word = ChunkDone(second.chunk.token, values, 1, len(second.indexes), None)
    wide.work(word, second.worker_id)
    commands = wide.refuse()
    cancelled = {
        one.message.token
        for one in commands
        if isinstance(one, Assign) and isinstance(one.message, CancelRun)
    }
    assert {given.chunk.token for given in others} <= cancelled
    wide.core.check_invariants()
    late = [done(wide, given) for given in others]
    assert not any(replies(told) for told in late)
    again = [*chunks(commands), *(given for told in late for given in chunks(told))]
    begun = {index for given in again for index in given.indexes}
    assert begun
    assert not begun & set(first.indexes), "what is kept is not begun again"
    assert kept
    told: list[Command] = []
    for given in again:
        told += done(wide, given)
    told += run_all(wide, told)
    assert replies(told)[2] == [index * 10 for index in range(40)]
