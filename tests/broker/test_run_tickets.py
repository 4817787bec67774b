"""Mirror of broker/run_tickets.py: a core with a journal that is played here."""

from typing import Any

import msgspec
from core_driver import JSON, PARAMS, VALUE, error_of
from durable_driver import KEYED, DurableDriver, error, info, replies

from pronghorn.broker.events import Send
from pronghorn.broker.run_tickets import all_of, wait
from pronghorn.broker.wire.link import Done
from pronghorn.broker.wire.messages import Call, Options, Run


def test_who_waits_for_a_result_gets_it_when_it_is_kept(recording: DurableDriver) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    assert recording.ask(2, "result", run.id) == []
    token = recording.begun(commands)
    assert recording.work(Done(token, VALUE, 1)) == []
    assert replies(recording.commit()) == {2: 3}


def test_batched_is_told_at_once_but_begins_only_when_it_is_kept(recording: DurableDriver) -> None:
    assert recording.say(Run(1, "add", PARAMS, Options(durability="batched"))) == []
    commands = recording.commit()
    run = info(replies(commands)[1])
    recording.ask(2, "result", run.id)
    token = recording.begun(commands)
    assert replies(recording.work(Done(token, VALUE, 1))) == {2: 3}
    assert len(recording.written) == 1


def test_a_run_is_started_by_a_call_and_in_json(recording: DurableDriver) -> None:
    params = msgspec.Raw(msgspec.msgpack.encode({"node": "add", "params": [1, 2]}))
    commands = recording.say(Call(1, "pronghorn.run.start", params)) + recording.keep()
    assert info(replies(commands)[1]).node == "m.add"
    recording.run(commands)
    text = b'{"node":"add","params":[1,2],"key":"k","durability":"batched"}'
    recording.json("pronghorn.run.start", text, id=2)
    commands = recording.keep()
    (sent,) = (one for one in commands if isinstance(one, Send))
    run = msgspec.json.decode(sent.message.value)  # type: ignore[union-attr]
    assert (run["key"], run["durability"], sent.origin) == ("k", "batched", JSON)
    token = recording.begun(commands)
    recording.work(Done(token, msgspec.Raw(msgspec.msgpack.encode(b'{"sum":3}')), 1))
    recording.keep()
    # Each gets the result in the language that he speaks.
    assert replies(recording.ask(3, "result", run["id"])) == {3: {"sum": 3}}
    recording.json("pronghorn.run.result", b'["%s"]' % run["id"].encode(), id=4)
    (sent,) = (one for one in recording.keep() if isinstance(one, Send))
    assert bytes(sent.message.value) == b'{"sum":3}'  # type: ignore[union-attr]


def test_without_a_journal_nothing_can_be_asked(recording: DurableDriver) -> None:
    commands = recording.start()
    run = info(replies(commands)[1])
    token = recording.begun(commands)
    recording.ask(2, "result", run.id)
    recording.say(Run(3, "add", PARAMS), Call(4, "add", PARAMS, KEYED))
    recording.lose_journal()
    told = replies(recording.lose_journal("no folder"))
    assert {id_: error(one).code for id_, one in told.items()} == dict.fromkeys(
        (3, 4), "JOURNAL_ERROR"
    )
    assert error(told[3]).details.outcome == "maybe_executed"  # when it is there again
    recording.acknowledge(3)
    told = replies(recording.work(Done(token, VALUE, 1)))
    assert (error(told[2]).code, error(told[2]).details.outcome) == ("JOURNAL_ERROR", "executed")
    refused = error_of(recording.ask(5, "status", run.id))
    assert refused.message == "the journal can't be asked: no folder"
    commands = recording.open_journal()
    recording.acknowledge(5)
    recording.run(commands)  # what was accepted meanwhile
    assert replies(recording.ask(6, "result", run.id)) == {6: 3}


def test_tickets_that_nobody_waits_with_any_more_go_from_time_to_time() -> None:
    asked: dict[int, Any] = {1: None, 1000: None}
    tickets: list[int] = []
    for ticket in range(1, 1001):
        wait(tickets, ticket, asked)
        assert len(tickets) <= 65
    assert tickets[0] == 1
    assert all_of(tickets)[-1] == 1000
    assert tickets == []
