"""For all tests: async tests run on uvloop, and a test that leaves something behind fails."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from hypothesis import settings

from pronghorn.client.leaks import held, left_behind

pytest_plugins = ["pytester"]

# Without a deadline, from which also follows how long inputs may take to be made: both tell of what
# else the machine does, not of the code. That is measured by `scripts/bench guard`.
settings.register_profile("any pace", deadline=None)
settings.load_profile("any pace")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    # libuv makes a pipe for signals with its first loop and keeps it: that is no test's leak.
    uvloop.new_event_loop().close()
    # Whoever starts the suite in the background of a shell hands it an ignored SIGINT, which every
    # program that a test interrupts would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves open files, children or threads that would hold up the exit.

    What fixtures of a wider scope hold was there before. Costs half a millisecond a test.
    """
    before = held()
    yield
    left = left_behind(before)
    if left:
        pytest.fail("left behind by this test: " + ", ".join(left), pytrace=False)
