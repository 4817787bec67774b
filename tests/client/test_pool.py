"""The embedded pool as a program uses it; what its processes do is in tests/fault."""

import gc
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import client_nodes
import pytest
from trees import PATIENCE_S, Ends, Tree

from pronghorn.broker.wire.embedding import StopImport, import_of_nodes
from pronghorn.broker.wire.limits import KIB, Limits
from pronghorn.client import (
    BrokerLostError,
    Client,
    InvalidArgumentError,
    NodeError,
    Pool,
    PoolStartError,
)

BROKEN = "import no_such_module\n"


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder for runtime folders, by a path short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def test_what_a_pool_tells(pool: Pool) -> None:
    assert pool.workers == 2
    assert pool.endpoint.startswith("ipc:///")
    assert pool.endpoints == (pool.endpoint,)
    assert pool.failures == ()
    assert pool.warnings == ()


@pytest.mark.slow
def test_a_pool_can_be_found_by_its_name_and_other_endpoints(runtime: Path) -> None:
    with Pool(client_nodes.FILE, workers=1, name="shop", bind=["tcp://127.0.0.1:0"]) as pool:
        assert pool.endpoint == f"ipc://{runtime}/pronghorn/shop/broker.sock"
        own, other = pool.endpoints
        assert own == pool.endpoint
        assert other.startswith("tcp://127.0.0.1:")
        for endpoint in pool.endpoints:
            with Client(endpoint) as client:
                assert client.call("add", 1, 2) == 3
        with pytest.raises(PoolStartError, match="another broker"):
            Pool(client_nodes.FILE, workers=1, name="shop")


@pytest.mark.slow
def test_a_pool_on_some_cpus_has_as_many_workers() -> None:
    cpu = min(os.sched_getaffinity(0))
    with Pool(client_nodes.FILE, cpus=[cpu]) as pool:
        assert pool.workers == 1
        tree = Tree.below(pool._tree.supervisor_pid)
        assert len(tree.workers) == 1
        assert all(os.sched_getaffinity(pid) == {cpu} for pid in tree.pids)


@pytest.mark.slow
def test_the_limits_of_a_pool_are_its_clients() -> None:
    limits = Limits(request_bytes=4 * KIB, result_bytes=4 * KIB)
    with Pool(client_nodes.FILE, workers=1, limits=limits) as pool, pool.client() as client:
        assert client.call("size", b"x" * 1000) == 1000
        with pytest.raises(InvalidArgumentError, match="4096"):
            client.call("size", b"x" * 5000)
        with pytest.raises(NodeError, match="4096"):
            client.call("zeros", 5000)


@pytest.mark.slow
async def test_a_pool_gives_clients_for_asyncio() -> None:
    with Pool(client_nodes.FILE, workers=1) as pool:
        async with pool.async_client() as client:
            assert await client.call("add", 1, 2) == 3


@pytest.mark.slow
def test_a_pool_ends_with_its_block_however_that_is_left() -> None:
    pool = Pool(client_nodes.FILE, workers=1)
    with Ends(Tree.below(pool._tree.supervisor_pid).pids) as ends:
        with pytest.raises(KeyError), pool:
            raise KeyError
        ends.wait()
    pool.close()  # once more


@pytest.mark.slow
def test_the_clients_of_a_pool_are_closed_with_it() -> None:
    with Pool(client_nodes.FILE, workers=1) as pool:
        clients = [pool.client() for _ in range(3)]
        hurried = pool.client().within(1.0)
        dropped = weakref.ref(pool.client())
        gc.collect()
        assert dropped() is None
        for client in *clients, hurried:
            assert client.call("add", 1, 2) == client.submit("add", 1, 2).result(PATIENCE_S) == 3
        clients[0].close()
    for client in *clients, hurried:
        with pytest.raises(BrokerLostError, match="the client was closed"):
            client.call("add", 1, 2)


def test_a_pool_in_a_thread(tmp_path: Path) -> None:
    def work() -> int:
        with Pool(client_nodes.FILE, workers=1) as pool, pool.client() as client:
            answer: int = client.call("add", 1, 2)
            return answer

    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(work) for _ in range(2)]
        assert [answer.result() for answer in answers] == [3, 3]


@pytest.mark.parametrize("of", [str, Path])
def test_several_modules_are_served_together(of: type, tmp_path: Path) -> None:
    other = tmp_path / "more_nodes.py"
    other.write_text(
        "from pronghorn.worker import node\n"
        "@node\ndef add(a: str, b: str) -> str: return a + b\n"
        "@node\ndef only_here() -> int: return 7\n"
    )
    broken = tmp_path / "broken_nodes.py"
    broken.write_text(BROKEN)
    with Pool(of(client_nodes.FILE), of(other), of(broken), workers=1) as pool:
        (failure,) = pool.failures
        assert failure.module == str(broken)
        assert "No module named 'no_such_module'" in failure.reason
        assert "Traceback" in failure.reason
        with pool.client() as client:
            assert client.call("client_nodes.add", 1, 2) == 3
            assert client.call("more_nodes.add", "a", "b") == "ab"
            assert client.call("only_here") == 7
            with pytest.raises(Exception, match=r"client_nodes\.add.*more_nodes\.add"):
                client.call("add", 1, 2)


def test_nothing_to_serve(tmp_path: Path) -> None:
    broken = tmp_path / "broken_nodes.py"
    broken.write_text(BROKEN)
    with pytest.raises(PoolStartError) as caught:
        Pool(broken)
    assert "No module named 'no_such_module'" in str(caught.value)
    assert [failure.module for failure in caught.value.failures] == [str(broken)]
    with pytest.raises(InvalidArgumentError, match="at least one module"):
        Pool()
    with pytest.raises(InvalidArgumentError, match="workers is 0"):
        Pool(client_nodes.FILE, workers=0)


def test_no_pool_starts_where_a_worker_imports_its_nodes() -> None:
    with import_of_nodes(), pytest.raises(StopImport):
        Pool(client_nodes.FILE)


NOTEBOOK = """
import asyncio
from pronghorn.client import Pool

async def cells():  # as in a notebook, in whose loop everything runs
    pool = Pool({file!r}, workers=1)
    client = pool.client()
    print(client.call("add", 1, 2), list(client.map("add", [(3, 4)])))
    async with pool.async_client() as other:
        print(await other.call("add", 5, 6))
    pool.close()

asyncio.run(cells())
"""

SCRIPT = """
from pronghorn.client import Pool
from pronghorn.worker import node

@node
def twice(a: int) -> int:
    return 2 * a

with Pool(__file__, workers=1) as pool:
    client = pool.client()
    print(client.call(twice, 4), client.call("twice", 5), list(client.map(twice, [(6,)])))
"""


@pytest.mark.slow
def test_a_pool_in_a_notebook(tmp_path: Path) -> None:
    program = NOTEBOOK.format(file=client_nodes.FILE)
    assert run("-c", program) == "3 [7]\n11\n"


@pytest.mark.slow
def test_a_script_that_serves_itself_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "itself.py"
    script.write_text(SCRIPT)
    assert run(str(script)) == "8 10 [12]\n"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode()


def test_a_client_of_a_pool_that_is_gone(tmp_path: Path) -> None:
    with Pool(client_nodes.FILE, workers=1) as pool:
        client = Client(pool.endpoint, connect_timeout_s=0.05)
        assert client.call("add", 1, 2) == 3
    with pytest.raises(BrokerLostError, match="no broker answers"):
        client.call("add", 1, 2)
    client.close()


@pytest.mark.slow
def test_a_start_hook_that_fails_is_named_by_the_pool_that_does_not_start(tmp_path: Path) -> None:
    module = tmp_path / "hooked.py"
    module.write_text(
        "from pronghorn.worker import node, on_start\n"
        "@on_start\n"
        "def connect() -> None: raise ConnectionError('no database at 10.0.0.7')\n"
        "@node\n"
        "def add(a: int, b: int) -> int: return a + b\n"
    )
    with pytest.raises(PoolStartError) as caught:
        Pool(str(module), workers=1)
    assert "a failed start hook: ConnectionError: no database at 10.0.0.7" in str(caught.value)


@pytest.mark.parametrize("option", [{"log_level": "LOUD"}, {"log_format": "xml"}])
def test_a_level_or_form_of_logs_that_there_is_not_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{next(iter(option))}"):
        Pool(client_nodes.FILE, **option)
