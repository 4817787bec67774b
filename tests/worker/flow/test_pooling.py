"""What becomes of the replies of workers; whole runs are in tests/integration/test_workflows.py."""

import pytest
from flow_nodes import TABLE
from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    ErrorDetails,
    OverloadedError,
    PronghornError,
    WorkerLostError,
)
from pronghorn.broker.wire.messages import ItemFailure, MapResult
from pronghorn.worker.flow.calls import Called
from pronghorn.worker.flow.lending import Lending
from pronghorn.worker.flow.placing import PROOFS, Record
from pronghorn.worker.flow.pooling import _encode_items, _outcomes, is_worth_sending_again
from pronghorn.worker.flow.sharing import Sharing

ADD = TABLE.lookup("add")


def test_results_tell_how_long_a_node_takes() -> None:
    record = Record()
    for _ in range(PROOFS):
        reply = MapResult(1, Raw(encode([1, 2])), None, 0.002)
        assert _outcomes(ADD, reply, 2, record) == [Called("succeeded", 1), Called("succeeded", 2)]
    assert record.place(None, item=True) == "inline"


def test_items_that_failed_stand_among_the_others() -> None:
    record = Record()
    lost = ItemFailure(1, WorkerLostError.code, "gone", ErrorDetails(node="n"))
    reply = MapResult(1, Raw(encode([1, None])), (lost,), 0.001)
    first, second = _outcomes(ADD, reply, 3, record)
    assert first == Called("succeeded", 1)
    assert (second.status, second.message) == ("abandoned", "gone")
    for _ in range(PROOFS):
        record.ran(1000)
    assert record.place(None, item=True) == "pool"  # it has ended a worker


@pytest.mark.parametrize("values", [[], [1, 2, 3], 5])
def test_replies_that_break_the_protocol(values: object) -> None:
    reply = MapResult(1, Raw(encode(values)), None, 0.001)
    outcomes = _outcomes(ADD, reply, 2, Record())
    assert [each.result["code"] for each in outcomes] == ["PROTOCOL_ERROR"] * 2


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OverloadedError("full", ErrorDetails(outcome="not_started", retryable=True)), True),
        (BrokerLostError("away", ErrorDetails(outcome="not_started", retryable=True)), True),
        (BrokerLostError("closed", ErrorDetails(outcome="not_started")), False),
        (BrokerLostError("lost", ErrorDetails(outcome="maybe_executed")), False),
        (WorkerLostError("dead", ErrorDetails(outcome="not_started", retryable=True)), False),
    ],
)
def test_only_what_had_no_room_is_sent_again(error: PronghornError, again: bool) -> None:
    assert is_worth_sending_again(error) == again


def test_input_that_can_t_be_encoded() -> None:
    called = _encode_items(Lending(Sharing(), [{"a": object()}]))
    assert isinstance(called, Called)
    assert called.result["code"] == "INVALID_ARGUMENT"
