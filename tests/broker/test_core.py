"""Mirror of broker/core.py: events in, commands out; its parts have tests of their own."""

from core_driver import (
    ADD,
    OTHER,
    PARAMS,
    PEER,
    REQ,
    TABLE,
    VALUE,
    Driver,
    assigned,
    error_of,
)

from pronghorn.broker.events import (
    Assign,
    DrainBegun,
    Drained,
    Received,
    Send,
    TableKnown,
)
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import (
    CODEC_MSGPACK,
    ChunkDone,
    Done,
    Failed,
    Nested,
    RunCall,
    RunChunk,
    Skipped,
)
from pronghorn.broker.wire.messages import (
    Call,
    Error,
    ItemFailure,
    MapChunk,
    MapResult,
    Options,
    Result,
)


def test_a_call_goes_to_a_worker_and_its_result_back(serving: Driver) -> None:
    run = RunCall(1, 0, ADD, CODEC_MSGPACK, PARAMS, None, 0)
    assert serving.say(Call(5, "add", PARAMS)) == [Assign(1, run)]
    assert serving.begin(run)
    assert serving.work(Done(1, VALUE, 1000)) == [Send(PEER, Result(5, VALUE), batched=True)]
    snapshot = serving.core.statistics(serving.now)
    assert (snapshot.counters["accepted"], snapshot.counters["completed"]) == (1, 1)
    assert (snapshot.nodes[ADD].calls, snapshot.nodes[ADD].estimate_ns) == (1, 1000.0)
    assert (snapshot.epoch, snapshot.pid, snapshot.sessions, snapshot.queued) == ("e1", 7, 1, 0)
    assert [(one.id, one.pid, one.state, one.held) for one in snapshot.workers] == [
        (1, 101, "ready", 0)
    ]


def test_a_short_name_stands_for_a_full_one(serving: Driver) -> None:
    assert serving.core.full_name("add") == serving.core.full_name("m.add") == "m.add"
    assert serving.core.full_name("nowhere") is None


def test_buffers_go_along_both_ways(serving: Driver) -> None:
    call = Call(5, "m.add", PARAMS, Options(buffers=1))
    commands = serving.do(Received(PEER, call, 20, None, [b"in"]))
    run = RunCall(1, 0, ADD, CODEC_MSGPACK, PARAMS, None, 1)
    assert commands == [Assign(1, run, [b"in"])]
    assert serving.work(Done(1, VALUE, 1000, 1), buffers=[b"out"]) == [
        Send(PEER, Result(5, VALUE, 1), None, [b"out"], batched=True)
    ]


def test_a_reply_goes_back_through_the_envelope(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS), peer=OTHER, origin=REQ))
    assert serving.work(Done(run.token, VALUE, 1000)) == [Send(OTHER, Result(5, VALUE), REQ)]


def test_a_chunk_goes_to_a_worker_and_its_results_back(serving: Driver) -> None:
    run = RunChunk(1, 0, ADD, PARAMS, None)
    assert serving.say(MapChunk(5, "m.add", PARAMS)) == [Assign(1, run)]
    failures = (ItemFailure(1, "NODE_ERROR", "boom", ErrorDetails()),)
    assert serving.work(ChunkDone(1, VALUE, 3_000_000, 3, failures)) == [
        Send(PEER, MapResult(5, VALUE, failures, 3.0), batched=True)
    ]
    node = serving.core.statistics(serving.now).nodes[ADD]
    assert (node.calls, node.errors, node.estimate_ns) == (2, {"NODE_ERROR": 1}, 1_000_000.0)


def test_an_empty_chunk_says_nothing_of_the_run_time(serving: Driver) -> None:
    run = assigned(serving.say(MapChunk(5, "m.add", PARAMS)))
    assert len(serving.work(ChunkDone(run.token, VALUE, 10, 0))) == 1
    assert serving.core.statistics(serving.now).nodes[ADD].estimate_ns is None


def test_a_failure_goes_back_as_it_came(serving: Driver) -> None:
    run = assigned(serving.say(Call(5, "m.add", PARAMS)))
    details = ErrorDetails(outcome="executed", exception="ValueError")
    assert serving.work(Failed(run.token, "NODE_ERROR", "boom", details)) == [
        Send(PEER, Error(5, "NODE_ERROR", "boom", details), batched=True)
    ]
    assert serving.count("failed") == 1
    assert serving.core.statistics(serving.now).nodes[ADD].errors == {"NODE_ERROR": 1}


def test_a_call_waits_until_a_worker_is_ready(driver: Driver) -> None:
    assert driver.say(Call(5, "m.add", PARAMS)) == []
    assert (
        driver.core.statistics(driver.now).queued,
        driver.core.statistics(driver.now).queued_bytes,
    ) == (1, 10)
    assert assigned(driver.start_worker()).token == 1
    assert driver.core.statistics(driver.now).queued == 0


def test_a_burst_is_dealt_out_in_turn(serving: Driver) -> None:
    serving.hello(OTHER)
    run = assigned(serving.say(Call(1, "m.add", PARAMS)))
    for id_ in (2, 3, 4):
        serving.say(Call(id_, "m.add", PARAMS))
    serving.say(Call(9, "m.add", PARAMS), peer=OTHER)
    served = []
    for _ in range(5):
        result, *rest = serving.work(Done(run.token, VALUE, 10**9))
        assert isinstance(result, Send)
        assert isinstance(result.message, Result)
        served.append(result.message.id)
        run = assigned(rest) if rest else run
    assert served == [1, 2, 9, 3, 4]


def test_sleeping_calls_do_not_hold_up_a_quick_one(serving: Driver) -> None:
    """They had filled the worker's room for them, and all calls behind them waited as well."""
    peers = [b"sleeper %d" % number for number in range(17)]
    for peer in peers:
        serving.say(Call(1, "sleep", PARAMS), Call(2, "sleep", PARAMS), peer=peer)
    assert serving.core.statistics(serving.now).queued == 2
    assert assigned(serving.say(Call(5, "m.add", PARAMS))).node == ADD


# --- the end -----------------------------------------------------------------------------------


def test_nothing_more_is_accepted_at_the_end_and_what_is_open_is_answered(
    serving: Driver,
) -> None:
    run = assigned(serving.say(Call(1, "m.add", PARAMS)))
    serving.begin(run)
    assert serving.do(DrainBegun()) == []
    for name in ("m.add", "add"):
        error = error_of(serving.say(Call(2, name, PARAMS)))
        assert (error.code, error.details.outcome) == ("RESOURCE_EXHAUSTED", "not_started")
        assert error.details.retryable
    assert error_of(serving.say(Call(3, "m.none", PARAMS))).code == "NOT_FOUND"
    commands = serving.work(Done(run.token, VALUE, 1000))
    assert [type(command) for command in commands] == [Send, Drained]
    assert serving.work(Skipped(99)) == [], "it is told once"


def test_calls_of_nodes_are_taken_in_to_the_last(serving: Driver) -> None:
    serving.start_worker(2)
    run = assigned(serving.say(Call(1, "m.thread", PARAMS)))
    serving.begin(run)
    serving.do(DrainBegun())
    (command,) = serving.work(Nested(1, run.token, "m.add", PARAMS, None, False, 1))
    assert isinstance(command, Assign)
    assert isinstance(command.message, RunCall)


def test_a_reload_meanwhile_opens_no_door(serving: Driver) -> None:
    assert serving.do(DrainBegun()) == [Drained()]
    serving.do(TableKnown(TABLE, 1))
    assert error_of(serving.say(Call(2, "m.add", PARAMS))).code == "RESOURCE_EXHAUSTED"
