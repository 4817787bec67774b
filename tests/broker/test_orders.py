"""Mirror of broker/orders.py: orders of administrators, from their calls to their replies."""

from typing import Any

import msgspec
import pytest
from core_driver import (
    ADD,
    LIMITS,
    PARAMS,
    PEER,
    Driver,
    error_of,
)
from msgspec import Raw

from pronghorn.broker.core import BrokerCore, CoreConfig
from pronghorn.broker.events import (
    Administer,
    Administered,
    DrainBegun,
    PeerGone,
    Received,
    Send,
    TableKnown,
)
from pronghorn.broker.wire.administration import (
    Drain,
    ListWorkers,
    Order,
    OrderError,
    Recycle,
    Reload,
    Scale,
    SeenWorker,
)
from pronghorn.broker.wire.messages import NIL, Call, Cancel, MapChunk, Options, Result

DONE = Raw(msgspec.msgpack.encode({"workers": 3}))


def encoded(value: Any) -> Raw:
    return Raw(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    ("name", "params", "order"),
    [
        ("pronghorn.workers", {}, ListWorkers()),
        ("pronghorn.recycle", {"workers": [1, 2]}, Recycle((1, 2))),
        ("pronghorn.scale", [3], Scale(3)),
        ("pronghorn.drain", {"worker": 4}, Drain(4)),
        ("pronghorn.reload", None, Reload()),
    ],
)
def test_an_order_goes_to_the_supervisor_and_its_result_to_the_client(
    driver: Driver, name: str, params: Any, order: Order
) -> None:
    assert driver.say(Call(5, name, encoded(params))) == [Administer(1, order, ())]
    assert driver.do(Administered(1, DONE)) == [Send(PEER, Result(5, DONE))]
    assert driver.do(Administered(1, DONE)) == []
    assert driver.core.statistics(driver.now).sessions == 0


def test_a_list_of_workers_comes_with_what_the_broker_knows(serving: Driver) -> None:
    run = serving.say(Call(1, "m.add", PARAMS))
    assert run
    (command,) = serving.say(Call(2, "pronghorn.workers"))
    assert command == Administer(1, ListWorkers(), (SeenWorker(1, "ready", 1, 1),))


def test_json_gets_json(driver: Driver) -> None:
    (command,) = driver.json("pronghorn.scale", b'{"workers": 3}', id=7)
    assert command == Administer(1, Scale(3), ())
    (reply,) = driver.do(Administered(1, DONE))
    assert isinstance(reply, Send)
    assert isinstance(reply.message, Result)
    assert bytes(reply.message.value) == b'{"workers":3}'


def test_what_can_not_be_carried_out_is_an_error_with_its_outcome(driver: Driver) -> None:
    driver.say(Call(5, "pronghorn.drain", encoded([9])))
    error = OrderError("NOT_FOUND", "no worker 9 serves", "not_started")
    answer = error_of(driver.do(Administered(1, NIL, error)))
    assert (answer.code, answer.message) == ("NOT_FOUND", "no worker 9 serves")
    assert answer.details.outcome == "not_started"
    assert answer.details.node == "pronghorn.drain"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (Call(5, "pronghorn.scale", encoded({})), "missing required field `workers`"),
        (Call(5, "pronghorn.scale", encoded(["two"])), "Expected `int`, got `str`"),
        (Call(5, "pronghorn.scale", Raw(b"\xc1")), "pronghorn.scale: "),
        (MapChunk(5, "pronghorn.scale", encoded([[1]])), "can be called, not mapped"),
        (Call(5, "pronghorn.scale", encoded([1]), Options(timeout_ms=-1.0)), "timeout_ms"),
    ],
)
def test_bad_orders_are_refused(driver: Driver, message: Any, told: str) -> None:
    error = error_of(driver.say(message))
    assert error.code == "INVALID_ARGUMENT"
    assert told in error.message
    assert driver.core.statistics(driver.now).counters["accepted"] == 0


def test_a_client_that_waits_no_longer_is_answered_and_the_order_goes_on(driver: Driver) -> None:
    driver.say(Call(5, "pronghorn.reload", encoded([]), Options(timeout_ms=1000.0)))
    error = error_of(driver.tick(driver.now + 1.0))
    assert (error.code, error.details.outcome) == ("DEADLINE_EXCEEDED", "maybe_executed")
    driver.say(Call(6, "pronghorn.reload", encoded([])))
    assert error_of(driver.say(Cancel(6))).code == "CANCELLED"
    driver.say(Call(7, "pronghorn.reload", encoded([])))
    assert driver.do(PeerGone(PEER)) == []
    for ticket in (1, 2, 3):
        assert driver.do(Administered(ticket, DONE)) == []


def test_nothing_is_begun_at_the_end_and_what_was_is_answered(driver: Driver) -> None:
    driver.say(Call(5, "pronghorn.reload", encoded([])))
    commands = driver.do(DrainBegun())
    assert [type(command).__name__ for command in commands] == ["Send", "Drained"]
    assert error_of(commands[:1]).details.outcome == "maybe_executed"
    error = error_of(driver.say(Call(6, "pronghorn.reload", encoded([]))))
    assert (error.code, error.details.outcome) == ("RESOURCE_EXHAUSTED", "not_started")
    assert error.details.retryable


def test_who_may_not_give_orders_is_refused_and_may_call_nodes() -> None:
    config = CoreConfig(epoch="e1", server="test", pid=7, limits=LIMITS, administrators=(b"local",))
    core = BrokerCore(config)
    core.handle(TableKnown(Driver().core._life.catalog.table), 0.0)
    order = Call(5, "pronghorn.workers", encoded([]))
    core.handle(Received(b"remote", order, 10), 0.0)
    error = error_of(core.settle(0.0))
    assert error.code == "PERMISSION_DENIED"
    assert "--remote-admin" in error.message
    core.handle(Received(b"local 1", order, 10), 0.0)
    (command,) = core.settle(0.0)
    assert isinstance(command, Administer)
    core.handle(Received(b"remote", Call(6, "m.add", PARAMS), 10), 0.0)
    assert core.settle(0.0) == []
    assert core._life.queue.waiting()[0].node.index == ADD
