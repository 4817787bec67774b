"""Mirror of broker/wire/errors.py."""

import pickle

import msgspec
import pytest

from pronghorn.broker.wire.errors import (
    ERROR_CLASSES,
    NO_DETAILS,
    BrokerLostError,
    CancelledError,
    DeadlineExceededError,
    ErrorDetails,
    InternalError,
    NodeError,
    NotFoundError,
    OverloadedError,
    PronghornError,
    WorkerLostError,
    error_from_wire,
)


@pytest.mark.parametrize("code", ERROR_CLASSES)
def test_each_code_makes_its_class(code: str) -> None:
    error = error_from_wire(code, "what is wrong", ErrorDetails(node="nodes.add"))
    assert type(error) is ERROR_CLASSES[code]
    assert error.code == code
    assert error.message == "what is wrong"
    assert error.details.node == "nodes.add"
    assert str(error).endswith("what is wrong")


def test_a_code_of_a_newer_broker_is_an_internal_error_that_names_it() -> None:
    error = error_from_wire("QUOTA_USED_UP", "no more today", None)
    assert type(error) is InternalError
    assert str(error) == "QUOTA_USED_UP: no more today"
    assert error.details is NO_DETAILS


def test_the_codes_are_the_ones_the_protocol_promises() -> None:
    assert sorted(ERROR_CLASSES) == [
        "BROKER_LOST",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "INTERNAL",
        "INTERRUPTED",
        "INVALID_ARGUMENT",
        "JOURNAL_ERROR",
        "NODE_ERROR",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "PROTOCOL_ERROR",
        "RESOURCE_EXHAUSTED",
        "UNIMPLEMENTED",
        "WORKER_LOST",
    ]


def test_the_details_outcome_goes_before_the_one_the_class_implies() -> None:
    assert NotFoundError("no").outcome == "not_started"
    assert WorkerLostError("lost").outcome == "maybe_executed"
    assert WorkerLostError("lost", ErrorDetails(outcome="executed")).outcome == "executed"
    assert DeadlineExceededError("late").outcome is None
    assert CancelledError("cancelled").outcome is None
    assert BrokerLostError("gone").outcome is None


def test_retrying_is_said_in_seconds() -> None:
    error = OverloadedError("full", ErrorDetails(retryable=True, retry_after_ms=50.0))
    assert error.retryable
    assert error.retry_after_s == 0.05
    assert not OverloadedError("full").retryable
    assert OverloadedError("full").retry_after_s is None


def test_a_node_error_shows_type_message_and_remote_traceback() -> None:
    details = ErrorDetails(exception="ZeroDivisionError", traceback="Traceback …\n")
    error = NodeError("division by zero", details)
    assert error.exception == "ZeroDivisionError"
    assert error.traceback == "Traceback …\n"
    assert str(error) == ("ZeroDivisionError: division by zero\n\nRemote traceback:\nTraceback …\n")


def test_a_node_error_without_an_exception_is_its_message() -> None:
    error = NodeError("the result can't be encoded")
    assert (error.exception, error.traceback) == ("Exception", "")
    assert str(error) == "the result can't be encoded"


def test_a_lost_worker_tells_its_cause() -> None:
    assert WorkerLostError("lost", ErrorDetails(cause="signal 9 (SIGKILL)")).cause == (
        "signal 9 (SIGKILL)"
    )
    assert WorkerLostError("lost").cause == "unknown cause"


def test_details_that_are_not_known_are_not_sent() -> None:
    assert msgspec.to_builtins(ErrorDetails(outcome="executed", limit=3)) == {
        "outcome": "executed",
        "limit": 3,
    }


def test_details_of_a_newer_broker_are_ignored() -> None:
    encoded = msgspec.msgpack.encode({"outcome": "executed", "invented_later": [1, 2]})
    assert msgspec.msgpack.decode(encoded, type=ErrorDetails) == ErrorDetails(outcome="executed")


@pytest.mark.parametrize("cls", ERROR_CLASSES.values())
def test_errors_survive_pickle(cls: type[PronghornError]) -> None:
    error = cls("what is wrong", ErrorDetails(limit=3))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (again.message, again.details) == (error.message, error.details)
