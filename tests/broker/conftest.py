"""For the tests of the broker's core and its parts: a core in use."""

import pytest
from core_driver import Driver


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def serving(driver: Driver) -> Driver:
    """Give a broker with one worker and one client that said hello."""
    driver.start_worker()
    driver.hello()
    return driver
