"""Bare sockets for the tests that need them."""

from collections.abc import Iterator

import pytest
from raw_sockets import RawSockets


@pytest.fixture
def sockets() -> Iterator[RawSockets]:
    sockets = RawSockets()
    yield sockets
    sockets.close()
