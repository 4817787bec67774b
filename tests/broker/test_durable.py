"""Mirror of broker/durable.py: a core with a journal, played here."""

from math import inf
from typing import Any

import msgspec
import pytest
from core_driver import JSON, PARAMS, PEER, VALUE, Driver, assigned, error_of
from durable_driver import DurableDriver, replies
from msgspec import Raw

from pronghorn.broker import durable
from pronghorn.broker.durable import QUESTIONS_GIVEN_UP
from pronghorn.broker.events import (
    AskJournal,
    Assign,
    Command,
    DrainBegun,
    Drained,
    HurryJournal,
    JournalAnswered,
    JournalBroke,
    JournalCommitted,
    JournalGone,
    JournalRefused,
    JournalRefusing,
    JournalWelcomed,
    PeerGone,
    Received,
    Send,
    TableKnown,
    WantJournal,
    WorkerGone,
    WriteRecords,
)
from pronghorn.broker.journal.backlog import REFUSE
from pronghorn.broker.journal.messages import FoundOpen
from pronghorn.broker.journal.record import Accepted, Ended, Record, decode_record, sequence_of
from pronghorn.broker.journal.rows import format_run_id
from pronghorn.broker.recorder import GATHER_BYTES, GATHER_CALLS, GATHER_S
from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.link import Done, Failed, RunCall, wrap_json
from pronghorn.broker.wire.messages import (
    Call,
    Cancel,
    Error,
    MapChunk,
    Options,
    Result,
)
from pronghorn.broker.wire.table import NodeInfo, NodeTable

START = sequence_of(1, 0)
SYNC, BATCHED = Options(durability="sync"), Options(durability="batched")
CLOCK_NS = 10**18


def open_journal(driver: Driver, *, acknowledged: int = START, refusing: str = "") -> list[Command]:
    commands = driver.do(JournalWelcomed(acknowledged, refusing, b"seed", CLOCK_NS))
    asked = [command for command in commands if isinstance(command, AskJournal)]
    for command in asked:  # for the first time: which runs are open
        driver.do(JournalAnswered(FoundOpen(command.question.id, ())))
    return [command for command in commands if command not in asked]


def keep(driver: Driver, index: int) -> list[Command]:
    """Be a journal that has committed all records up to that one."""
    return driver.do(JournalCommitted(START + index, CLOCK_NS))


def records(commands: list[Command]) -> list[Record]:
    written = [command.records for command in commands if isinstance(command, WriteRecords)]
    return [decode_record.decode(frames[0]) for of_one in written for frames in of_one]


def gathered(driver: Driver) -> list[Record]:
    """Let the time pass in which calls gather that nobody waits for."""
    assert driver.core.next_due() <= driver.now + GATHER_S
    written = records(driver.tick(driver.now + GATHER_S))
    assert driver.hurried  # for they have waited already
    assert not driver.waited_for
    return written


def split(commands: list[Command]) -> tuple[list[Command], list[Command]]:
    """Split commands in those that write records, and others."""
    written = [command for command in commands if isinstance(command, WriteRecords)]
    return written, [command for command in commands if command not in written]


def begun(driver: Driver, options: Options, id_: int = 1) -> RunCall:
    run: Any = assigned(driver.say(Call(id_, "m.add", PARAMS, options)))
    assert driver.begin(run)
    return run


def result(id_: int = 1) -> Send:
    return Send(PEER, Result(id_, VALUE), None, (), batched=True)


@pytest.fixture
def recording(serving: Driver) -> Driver:
    """Give a broker with a journal, a worker and a client."""
    assert open_journal(serving) == []
    return serving


# --- the journal is opened -----------------------------------------------------------------------


def test_the_first_call_has_the_journal_opened_and_waits_for_it(serving: Driver) -> None:
    assert serving.say(Call(1, "m.add", PARAMS, SYNC)) == [WantJournal()]
    assert serving.say(Call(2, "m.add", PARAMS, BATCHED)) == []
    given = open_journal(serving)
    assert [type(command) for command in given] == [Assign]
    assert serving.count("accepted") == 2


def test_calls_of_a_node_with_a_limit_pass_it_after_the_wait(driver: Driver) -> None:
    table = driver.core._life.catalog.table
    one = [
        node if node.name != "m.sleep" else type(node)("m.sleep", "async", max_concurrency=1)
        for node in table.nodes
    ]
    driver.do(TableKnown(NodeTable(tuple(one), "digest")))
    driver.start_worker()
    driver.hello()
    driver.say(Call(1, "m.sleep", PARAMS, SYNC), Call(2, "m.sleep", PARAMS, SYNC))
    (given,) = open_journal(driver)
    assert isinstance(given, Assign)  # and the other waits at the node's gate


def test_what_was_never_begun_is_told_at_once_and_truly(recording: Driver) -> None:
    """Its record promises nothing, so there is nothing to wait for (found by the simulation)."""
    recording.do(WorkerGone(1, "signal 9 (SIGKILL)"))
    assert recording.say(Call(1, "m.add", PARAMS, SYNC)) == []
    table = recording.core._life.catalog.table
    others = tuple(node for node in table.nodes if node.name != "m.add")
    commands = recording.do(TableKnown(NodeTable(others, "others"), 1))
    error = error_of(commands)
    assert (error.code, error.details.outcome) == ("NOT_FOUND", "not_started")
    assert [type(record) for record in gathered(recording)] == [Accepted, Ended]
    assert recording.do(JournalGone("no folder")) == []


def test_without_a_journal_what_waits_is_refused_and_all_that_comes(serving: Driver) -> None:
    serving.say(Call(1, "m.add", PARAMS, SYNC))
    error = error_of(serving.do(JournalGone("no folder")))
    assert (error.id, error.code) == (1, "JOURNAL_ERROR")
    assert error.message == "m.add can't be recorded: no folder"
    assert error.details.outcome == "not_started"
    assert error_of(serving.say(Call(2, "m.add", PARAMS, BATCHED))).message == error.message
    assert assigned(serving.say(Call(3, "m.add", PARAMS)))  # others go on
    open_journal(serving)  # its folder is there again
    serving.say(Call(4, "m.add", PARAMS, SYNC))
    assert serving.count("accepted") == 3


def test_a_call_that_waits_for_the_journal_can_be_cancelled_and_be_late(serving: Driver) -> None:
    late = Options(durability="sync", timeout_ms=1000.0)
    serving.say(Call(1, "m.add", PARAMS, SYNC), Call(2, "m.add", PARAMS, late))
    cancelled = error_of(serving.say(Cancel(1)))
    assert (cancelled.code, cancelled.details.outcome) == ("CANCELLED", "not_started")
    expired = error_of(serving.tick(serving.now + 1.0))
    assert (expired.code, expired.details.outcome) == ("DEADLINE_EXCEEDED", "not_started")
    assert serving.core.next_due() == inf
    assert open_journal(serving) == []


def test_what_waits_goes_with_its_client(serving: Driver) -> None:
    serving.say(Call(1, "m.add", PARAMS, SYNC))
    assert serving.do(PeerGone(PEER)) == []
    assert open_journal(serving) == []


def test_only_so_many_wait_for_the_journal(
    serving: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "WAITING_MAX", 1)
    serving.say(Call(1, "m.add", PARAMS, SYNC))
    error = error_of(serving.say(Call(2, "m.add", PARAMS, SYNC)))
    assert (error.code, error.details.retryable) == ("RESOURCE_EXHAUSTED", True)


# --- calls are recorded --------------------------------------------------------------------------


def test_sync_is_answered_when_its_end_is_kept(recording: Driver) -> None:
    run = begun(recording, SYNC)
    recording.now += 0.5
    commands = recording.work(Done(run.token, VALUE, 1234))
    accepted, ended = records(commands)
    assert len(commands) == 1  # and no reply
    assert recording.waited_for
    assert isinstance(accepted, Accepted)
    assert (accepted.run, accepted.node, accepted.durability) == (START + 1, "m.add", "sync")
    assert (accepted.value, len(accepted.secret)) == (PARAMS, 16)
    assert accepted.at_ns == CLOCK_NS + 1000 * 10**9
    assert isinstance(ended, Ended)
    assert (ended.run, ended.previous, ended.token) == (START + 1,) * 3
    assert (ended.status, ended.run_ns, ended.value) == ("done", 1234, VALUE)
    assert ended.at_ns - accepted.at_ns == 5 * 10**8
    assert keep(recording, 1) == []
    assert keep(recording, 2) == [result()]


def test_batched_is_answered_at_once(recording: Driver) -> None:
    run = begun(recording, BATCHED)
    assert recording.work(Done(run.token, VALUE, 1)) == [result()]
    assert not recording.hurried  # nobody waits
    recording.now += GATHER_S / 2
    run = begun(recording, BATCHED, 2)
    assert recording.work(Done(run.token, VALUE, 1)) == [result(2)]
    recording.now -= GATHER_S / 2
    first, ended, second, _ = gathered(recording)
    assert isinstance(first, Accepted)
    assert isinstance(ended, Ended)
    assert isinstance(second, Accepted)
    assert (first.run, ended.previous, second.run) == (START + 1, START + 1, START + 3)
    assert ended.at_ns == CLOCK_NS + 1000 * 10**9  # when it has ended, not when it was written
    assert recording.core._recorder.gather_due == inf
    assert keep(recording, 4) == []


def test_only_so_many_calls_gather(recording: Driver) -> None:
    written: list[Command] = []
    for number in range(GATHER_CALLS):
        assert not written
        run = begun(recording, BATCHED, number)
        written, replies = split(recording.work(Done(run.token, VALUE, 1)))
        assert len(replies) == 1
        assert recording.hurried == bool(written)
        recording.acknowledge(number + 1)
    assert len(records(written)) == 2 * GATHER_CALLS


def test_only_so_many_bytes_gather(recording: Driver) -> None:
    run = begun(recording, BATCHED)
    large = Raw(msgspec.msgpack.encode(bytes(GATHER_BYTES)))
    written, _ = split(recording.work(Done(run.token, large, 1)))
    assert len(records(written)) == 2


def test_what_has_gathered_is_written_before_what_ends_later(recording: Driver) -> None:
    """So who is told that a later call is kept can rely on the earlier ones, too."""
    run = begun(recording, BATCHED)
    recording.work(Done(run.token, VALUE, 1))
    run = begun(recording, SYNC, 2)
    written = records(recording.work(Done(run.token, VALUE, 1)))
    assert [record.run - START for record in written] == [1, 1, 3, 3]
    assert keep(recording, 4) == [result(2)]
    assert recording.core._recorder.gather_due == inf


def test_what_has_gathered_is_written_before_the_journal_is_asked(recording: Driver) -> None:
    run = begun(recording, BATCHED)
    recording.work(Done(run.token, VALUE, 1))
    params = Raw(msgspec.msgpack.encode([format_run_id(START + 1, bytes(16))]))
    written, hurry, asked = recording.do_all(
        Received(PEER, Call(2, "pronghorn.run.status", params), 10)
    )
    assert len(records([written])) == 2
    assert isinstance(hurry, HurryJournal)
    assert isinstance(asked, AskJournal)


def test_what_has_gathered_goes_to_the_next_journal(recording: Driver) -> None:
    run = begun(recording, BATCHED)
    recording.work(Done(run.token, VALUE, 1))
    recording.do(JournalGone())
    assert records(open_journal(recording)) == []
    assert len(gathered(recording)) == 2
    run = begun(recording, BATCHED, 2)
    recording.work(Done(run.token, VALUE, 1))
    recording.do(JournalGone())
    assert gathered(recording) == []  # it is held
    assert len(records(open_journal(recording, acknowledged=START + 2))) == 2


def test_at_the_end_it_is_told_what_is_unwritten(recording: Driver) -> None:
    run = begun(recording, BATCHED)
    recording.work(Done(run.token, VALUE, 1))
    assert len(recording.core.unwritten()) == 2
    assert len(recording.core.unwritten()) == 0


def test_batched_waits_when_the_journal_is_behind(recording: Driver) -> None:
    run = begun(recording, BATCHED)
    recording.work(Done(run.token, VALUE, 1))
    assert len(gathered(recording)) == 2
    recording.now += 0.2
    run = begun(recording, BATCHED, 2)
    assert len(records(recording.work(Done(run.token, VALUE, 1)))) == 2
    assert recording.waited_for
    assert keep(recording, 4) == [result(2)]


def test_a_failure_is_recorded_and_waits_too(recording: Driver) -> None:
    run = begun(recording, SYNC)
    details = ErrorDetails(outcome="executed")
    _, ended = records(recording.work(Failed(run.token, "NODE_ERROR", "boom", details)))
    assert isinstance(ended, Ended)
    assert ended.failure is not None
    assert (ended.status, ended.failure.code) == ("failed", "NODE_ERROR")
    assert error_of(keep(recording, 2)).code == "NODE_ERROR"


def test_a_lost_worker_is_recorded_and_told_at_once(recording: Driver) -> None:
    begun(recording, SYNC)
    error = error_of(recording.do(WorkerGone(1, "signal 9 (SIGKILL)")))
    assert error.details.outcome == "maybe_executed"
    _, ended = gathered(recording)
    assert isinstance(ended, Ended)
    assert ended.failure is not None
    assert (ended.status, ended.failure.code) == ("failed", "WORKER_LOST")
    assert keep(recording, 2) == []


def test_what_is_given_up_is_recorded_and_told_at_once(recording: Driver) -> None:
    begun(recording, SYNC)
    assert [type(command) for command in recording.say(Cancel(1))] == [Assign, Send]
    accepted, ended = gathered(recording)
    assert isinstance(accepted, Accepted)
    assert accepted.value == PARAMS
    assert isinstance(ended, Ended)
    assert ended.status == "cancelled"


def test_the_time_may_be_up_while_the_record_is_not_kept(recording: Driver) -> None:
    run = begun(recording, Options(durability="sync", timeout_ms=1000.0))
    recording.work(Done(run.token, VALUE, 1))
    error = error_of(recording.tick(recording.now + 1.0))
    assert (error.code, error.details.outcome) == ("DEADLINE_EXCEEDED", "executed")
    assert keep(recording, 2) == []
    assert recording.core.next_due() == inf


def test_json_is_kept_as_json(recording: Driver) -> None:
    run = assigned(recording.json("m.add", id=1, durability="sync"))
    recording.begin(run)
    text = wrap_json(b"3")
    accepted, ended = records(recording.work(Done(run.token, text, 1)))
    assert isinstance(accepted, Accepted)
    assert isinstance(ended, Ended)
    assert (accepted.codec, accepted.value) == (1, wrap_json(b"[1,2]"))
    assert (ended.codec, ended.value) == (1, text)
    (reply,) = keep(recording, 2)
    assert isinstance(reply, Send)
    assert reply.origin == JSON


def test_a_plain_call_is_not_recorded(recording: Driver) -> None:
    run = assigned(recording.say(Call(1, "m.add", PARAMS, Options(durability="none"))))
    recording.begin(run)
    assert recording.work(Done(run.token, VALUE, 1)) == [result()]


def test_nodes_of_pronghorns_own_are_not_recorded(driver: Driver) -> None:
    driver.do(TableKnown(NodeTable((NodeInfo("pronghorn.nodes", "inline"),), "digest")))
    driver.start_worker()
    driver.hello()
    run = assigned(driver.say(Call(1, "pronghorn.nodes", PARAMS, SYNC)))
    driver.begin(run)
    assert driver.work(Done(run.token, VALUE, 1)) == [result()]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (MapChunk(1, "m.add", PARAMS, SYNC), "chunks are not recorded"),
        (Call(1, "m.rows", PARAMS, Options(durability="sync", stream=(1, 100))), "parts are taken"),
    ],
)
def test_what_is_not_recorded_yet_is_refused(recording: Driver, message: Any, why: str) -> None:
    error = error_of(recording.say(message))
    assert (error.code, error.details.outcome) == ("UNIMPLEMENTED", "not_started")
    assert why in error.message


# --- the journal is full, slow, dead -------------------------------------------------------------


def test_a_full_journal_refuses_until_there_is_room(recording: Driver) -> None:
    assert recording.do(JournalRefusing("the disk is full")) == []
    error = error_of(recording.say(Call(1, "m.add", PARAMS, SYNC)))
    assert (error.code, error.message) == (
        "JOURNAL_ERROR",
        "m.add can't be recorded: the disk is full",
    )
    recording.do(JournalRefusing(""))
    begun(recording, SYNC, 2)


def test_a_journal_far_behind_refuses(recording: Driver) -> None:
    run = begun(recording, BATCHED)
    recording.work(Done(run.token, VALUE, 1))
    gathered(recording)
    recording.now += REFUSE.age_s
    error = error_of(recording.say(Call(2, "m.add", PARAMS, BATCHED)))
    assert (error.code, error.details.retryable) == ("RESOURCE_EXHAUSTED", True)


def test_another_writer_gets_what_the_one_before_has_not_kept(recording: Driver) -> None:
    run = begun(recording, SYNC)
    first = recording.work(Done(run.token, VALUE, 1))
    assert recording.do(JournalGone()) == []
    run = begun(recording, SYNC, 2)  # calls go on
    assert recording.work(Done(run.token, VALUE, 1)) == []  # what is written arrives nowhere
    again = open_journal(recording, acknowledged=START + 1)
    assert records(again)[0] == records(first)[1]
    assert [record.run for record in records(again)] == [START + 1, START + 3, START + 3]
    assert keep(recording, 4) == [result(1), result(2)]


def test_a_writer_that_had_kept_all_before_it_died_releases_the_replies(recording: Driver) -> None:
    run = begun(recording, SYNC)
    recording.work(Done(run.token, VALUE, 1))
    recording.do(JournalGone())
    assert open_journal(recording, acknowledged=START + 2) == [result()]


def test_nobody_waits_for_a_journal_that_does_not_come_back(recording: Driver) -> None:
    run = begun(recording, SYNC)
    recording.work(Done(run.token, VALUE, 1))
    late = begun(recording, SYNC, 2)
    recording.do(JournalGone())
    error = error_of(recording.do(JournalGone("it is damaged")))
    assert (error.id, error.code, error.details.outcome) == (1, "JOURNAL_ERROR", "executed")
    (reply,) = recording.work(Done(late.token, VALUE, 1))
    assert isinstance(reply, Send)
    assert isinstance(reply.message, Error)
    assert reply.message.message == "m.add: it has run, and its record is not kept: it is damaged"
    assert len(records(open_journal(recording))) == 4  # it did come back


def test_a_drain_waits_until_all_is_kept(recording: Driver) -> None:
    run = begun(recording, BATCHED)
    recording.work(Done(run.token, VALUE, 1))
    assert recording.do(DrainBegun()) == []
    assert len(gathered(recording)) == 2
    assert keep(recording, 2) == [Drained()]


# --- what the journal can do nothing with --------------------------------------------------------


def broken(driver: DurableDriver, *, kept: int = 0) -> list[Command]:
    """Have the stream broken off; the journal has kept so much, and is attached again."""
    for record, buffers in driver.written[:kept]:
        driver.index += 1
        driver.kept.keep(sequence_of(driver.generation, driver.index), record, buffers)
    driver.written.clear()
    driver.asked.clear()
    told = driver.do(JournalBroke("it can't be read"), JournalGone())
    through = sequence_of(driver.generation, driver.index)
    return told + driver.do(JournalWelcomed(through, "", b"seed", CLOCK_NS))


def two_that_have_ended() -> DurableDriver:
    """Give a broker two calls of which have ended, and are not kept."""
    driver = DurableDriver()
    driver.start_worker()
    driver.hello()
    driver.open_journal()
    for id_ in (1, 2):
        call = Call(id_, "m.add", PARAMS, Options(durability="sync"))
        driver.work(Done(driver.begun(driver.say(call)), VALUE, 1))
    assert len(driver.written) == 4
    return driver


def test_a_stream_that_is_broken_off_costs_nothing_if_it_stays_at_that() -> None:
    driver = two_that_have_ended()
    told = [replies(broken(driver, kept=kept)) for kept in (0, 1, 0, 1, 0)]
    assert told == [{}, {}, {}, {1: 3}, {}]
    assert replies(driver.keep()) == {2: 3}
    assert driver.count("journal_broken") == 5
    assert driver.count("records_refused") == 0


def test_what_breaks_each_stream_is_given_up_and_nothing_else() -> None:
    """First the questions that come with it, then what would be kept next."""
    driver = two_that_have_ended()
    run_id = "0" * 48
    raw = Raw(msgspec.msgpack.encode([run_id]))
    assert driver.say(Call(3, "pronghorn.run.status", raw)) == []
    assert broken(driver) == []
    told = replies(broken(driver))
    assert told.keys() == {3}
    assert told[3].code == "JOURNAL_ERROR"
    told = replies(broken(driver))
    assert told.keys() == {1}
    assert (told[1].code, told[1].details.outcome) == ("JOURNAL_ERROR", "executed")
    assert replies(driver.keep()) == {2: 3}
    assert (driver.count("journal_broken"), driver.count("records_refused")) == (3, 1)
    assert [state.status for state in driver.kept.states.values()] == ["done"]


def test_a_stream_that_is_broken_without_end_costs_one_run_a_time() -> None:
    driver = two_that_have_ended()
    for _ in range(QUESTIONS_GIVEN_UP):
        assert broken(driver) == []
    assert replies(broken(driver)).keys() == {1}
    assert broken(driver) == [], "what stands for that is what is next"
    assert driver.count("records_refused") == 1


def test_a_refused_record_that_was_none_of_ours_costs_nothing() -> None:
    """What has come between made the journal count wrong; it is told anew what is what."""
    driver = two_that_have_ended()
    first = sequence_of(driver.generation, 1)
    written = list(driver.written)
    for sequence, run in ((first, 77), (first + 9, first), (first - 1, first)):
        driver.written.clear()
        assert driver.do(JournalRefused(sequence, run, "it follows nothing")) == []
        assert driver.do(JournalWelcomed(first - 1, "", b"seed", CLOCK_NS)) == []
        assert driver.written == written
    assert replies(driver.keep()) == {1: 3, 2: 3}
    assert driver.count("records_refused") == 0
