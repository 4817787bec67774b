"""A pytest plugin: pools and clients as fixtures, faults, and a look at what a test leaves behind.

pytest loads it by itself where Pronghorn is installed; it costs nothing until a fixture is used.

::

    [tool.pytest.ini_options]
    pronghorn_modules = ["nodes.py"]       # from the folder of this file
    pronghorn_workers = 2

    def test_add(pronghorn_client):        # or pronghorn_local: the same without any process
        assert pronghorn_client.call("add", 1, 2) == 3

    @pytest.mark.pronghorn("other.py", workers=1)
    def test_of_other_nodes(pronghorn_client): ...

Tests that ask for the same modules and options share a pool, to the end of the session. A fixture
can be overridden in a ``conftest.py``, as can `pronghorn_modules` alone.

Mirror: tests/client/test_testing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .faults import Faults
    from .pool import Pool
    from .sync import Client

_MARKER = "pronghorn"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the settings."""
    parser.addini(
        "pronghorn_modules",
        "modules of nodes that pools of tests serve: files, packages, entry points",
        type="args",
        default=[],
    )
    parser.addini(
        "pronghorn_workers", "worker processes of pools of tests", type="string", default="2"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(*modules, **options): serve these modules; options as those of Pool",
    )


@pytest.fixture(scope="session")
def pronghorn_modules(pytestconfig: pytest.Config) -> tuple[str, ...]:
    """Name what is served to tests that have no mark: the setting ``pronghorn_modules``."""
    modules: list[str] = pytestconfig.getini("pronghorn_modules")
    return tuple(modules)


@pytest.fixture
def pronghorn_pool(request: pytest.FixtureRequest, _pronghorn_pools: Callable[..., Pool]) -> Pool:
    """Give a running pool, shared by all tests of the session that want the same."""
    modules, options = _wanted(request)
    options.setdefault("workers", int(request.config.getini("pronghorn_workers")))
    return _pronghorn_pools(modules, options)


@pytest.fixture
def pronghorn_client(pronghorn_pool: Pool) -> Iterator[Client]:
    """Give a client of `pronghorn_pool`, of this test alone."""
    with pronghorn_pool.client() as client:
        yield client


@pytest.fixture
def pronghorn_local(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Give a client whose nodes run in this process, where debuggers and coverage see them."""
    from . import LocalPool  # here, or each run of pytest would pay for it

    modules, options = _wanted(request)
    options.pop("workers", None)
    with LocalPool(*modules, **options) as pool, pool.client() as client:
        yield client


@pytest.fixture
def pronghorn_faults(pronghorn_pool: Pool) -> Iterator[Faults]:
    """Do harm to `pronghorn_pool`: kill a worker or the broker, stall a worker."""
    from .faults import Faults

    with pronghorn_pool.client() as client:
        yield Faults(client)


@pytest.fixture
def pronghorn_no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if it leaves open files, child processes or threads in this process.

    Name it first: what fixtures before it and those of a wider scope have made is not the test's,
    what those after it have made is gone by then.
    """
    import uvloop

    from .leaks import held, left_behind

    # What lasts for the session is no test's: its pool, and the pipe that libuv keeps for signals.
    if "pronghorn_pool" in request.fixturenames:
        request.getfixturevalue("pronghorn_pool")
    uvloop.new_event_loop().close()
    before = held()
    yield
    left = left_behind(before)
    if left:
        pytest.fail("left behind by this test: " + ", ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def _pronghorn_pools() -> Iterator[Callable[..., Pool]]:
    """Start pools, each once, and end them with the session."""
    from .pool import Pool

    pools: dict[str, Pool] = {}
    with ExitStack() as ending:

        def pool_of(modules: tuple[str, ...], options: dict[str, Any]) -> Pool:
            key = repr((modules, sorted(options.items())))
            if key not in pools:
                pools[key] = ending.enter_context(Pool(*modules, **options))
            return pools[key]

        yield pool_of


def _wanted(request: pytest.FixtureRequest) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Tell what a test wants to be served and with which options.

    Files are looked for from the folder of the configuration, those of a mark from the test's.
    """
    mark = request.node.get_closest_marker(_MARKER)
    if mark is not None and mark.args:
        return _resolved(mark.args, request.path.parent), dict(mark.kwargs)
    modules = request.getfixturevalue("pronghorn_modules")
    if not modules:
        pytest.fail(
            "no modules of nodes are named: set pronghorn_modules in the configuration, mark the "
            'test with @pytest.mark.pronghorn("nodes.py"), or override the fixture '
            "pronghorn_modules",
            pytrace=False,
        )
    folder = request.config.inipath.parent if request.config.inipath else request.config.rootpath
    return _resolved(modules, folder), dict(mark.kwargs) if mark is not None else {}


def _resolved(modules: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Make the paths of files absolute, and leave names of modules as they are."""
    return tuple(
        str(folder / module) if str(module).endswith(".py") else str(module) for module in modules
    )
