"""For the tests of the broker's core and its parts: a core in use."""

import pytest
from core_driver import Driver
from durable_driver import DurableDriver, started


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def serving(driver: Driver) -> Driver:
    """Give a broker with one worker and one client that said hello."""
    driver.start_worker()
    driver.hello()
    return driver


@pytest.fixture
def recording() -> DurableDriver:
    """Give a broker with a journal, one worker and one client."""
    return started()
