"""Exit codes tell apart what a script has to tell apart."""

import pytest

from pronghorn.broker.wire.errors import ERROR_CLASSES
from pronghorn.client.cli.status import Status, status_of
from pronghorn.client.launch import PoolStartError

EXPECTED = {
    "NODE_ERROR": 1,
    "INVALID_ARGUMENT": 2,
    "NOT_FOUND": 2,
    "PERMISSION_DENIED": 2,
    "BROKER_LOST": 3,
    "DEADLINE_EXCEEDED": 4,
}


@pytest.mark.parametrize("code", sorted(ERROR_CLASSES))
def test_every_error_has_its_exit_code(code: str) -> None:
    assert status_of(ERROR_CLASSES[code]("why")) == EXPECTED.get(code, 5)


def test_a_pool_that_can_not_start_is_not_wrong_usage() -> None:
    assert status_of(PoolStartError("why")) == Status.NODE_ERROR


def test_codes_of_signals_are_the_shells() -> None:
    assert (Status.INTERRUPTED, Status.BROKEN_PIPE) == (128 + 2, 128 + 13)
