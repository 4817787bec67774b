"""One broker that all tests of calls share, and folders in which there is none."""

from collections.abc import Callable, Iterator

import pytest
from commands import NODES, Commands


@pytest.fixture(scope="session")
def make_commands(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Commands]:
    def make() -> Commands:
        folder = tmp_path_factory.mktemp("cli")
        (folder / "nodes.py").write_text(NODES)
        return Commands(folder)

    return make


@pytest.fixture
def commands(make_commands: Callable[[], Commands]) -> Commands:
    """Commands in a folder where no broker runs."""
    return make_commands()


@pytest.fixture(scope="session")
def served(make_commands: Callable[[], Commands]) -> Iterator[Commands]:
    """Commands in a folder where a broker with the default name and two workers serves nodes.py."""
    commands = make_commands()
    with commands.serving("nodes.py", "--workers", "2"):
        yield commands
