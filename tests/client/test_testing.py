"""Mirror of client/testing.py: sessions of pytest that use the plugin, as users have it."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import Ends, is_alive

pytestmark = pytest.mark.slow

NODES = """
import os
from pronghorn.worker import node

@node
def add(a: int, b: int) -> int:
    return a + b

@node
def pid() -> int:
    return os.getpid()
"""
CONFIGURATION = """
[pytest]
addopts = -p no:cacheprovider --strict-markers --strict-config
filterwarnings = error
asyncio_default_fixture_loop_scope = function
pronghorn_modules = nodes.py
pronghorn_workers = 1
"""


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the pools of the sessions have their files: the names of sockets must be short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def project(pytester: pytest.Pytester, runtime: Path) -> pytest.Pytester:
    """A folder with nodes and a configuration."""
    (pytester.path / "nodes.py").write_text(NODES)
    (pytester.path / "pytest.ini").write_text(CONFIGURATION)
    return pytester


def run(project: pytest.Pytester, **files: str) -> pytest.RunResult:
    if files:
        project.makepyfile(**files)
    return project.runpytest_subprocess("-v")


def test_fixtures_serve_the_modules_of_the_configuration_from_one_pool(
    project: pytest.Pytester, runtime: Path
) -> None:
    result = run(
        project,
        test_it="""
        import os
        pids = set()
        def test_one(pronghorn_client, pronghorn_pool):
            assert pronghorn_client.call("add", 1, 2) == 3
            assert pronghorn_pool.workers == 1
            pids.add(pronghorn_client.call("pid"))
        def test_two(pronghorn_client):
            pids.add(pronghorn_client.call("pid"))
            assert len(pids) == 1
            assert os.getpid() not in pids
        def test_local(pronghorn_local):
            assert pronghorn_local.call("add", 1, 2) == 3
            assert pronghorn_local.call("pid") == os.getpid()
        """,
    )
    result.assert_outcomes(passed=3)
    assert not list((runtime / "pronghorn").glob("*")), "the pool has ended with the session"


def test_a_mark_names_other_modules_from_the_folder_of_the_test(project: pytest.Pytester) -> None:
    (project.path / "inner").mkdir()
    (project.path / "inner" / "shop.py").write_text(NODES)
    (project.path / "inner" / "test_inner.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.pronghorn('shop.py', workers=2)\n"
        "def test_it(pronghorn_client, pronghorn_pool, pronghorn_local):\n"
        "    assert pronghorn_pool.workers == 2\n"
        "    assert pronghorn_client.call('shop.add', 1, 2) == 3\n"
        "    assert pronghorn_local.call('shop.add', 1, 2) == 3\n"
        "@pytest.mark.pronghorn(recycle_requests=5)\n"
        "def test_options_alone(pronghorn_client):\n"
        "    assert pronghorn_client.call('nodes.add', 1, 2) == 3\n"
    )
    run(project).assert_outcomes(passed=2)


def test_modules_can_be_overridden(project: pytest.Pytester) -> None:
    (project.path / "other.py").write_text(NODES)
    run(
        project,
        conftest="""
        import pytest
        @pytest.fixture(scope="session")
        def pronghorn_modules():
            return ("other.py",)
        """,
        test_it="""
        def test_it(pronghorn_client):
            assert pronghorn_client.call("other.add", 1, 2) == 3
        """,
    ).assert_outcomes(passed=1)


def test_what_is_not_configured_is_told(pytester: pytest.Pytester) -> None:
    result = run(pytester, test_it="def test_it(pronghorn_client): ...")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no modules of nodes are named: set pronghorn_modules*"])


def test_faults_strike_and_are_survived(project: pytest.Pytester) -> None:
    run(
        project,
        test_it="""
        import os, pytest
        from pronghorn.client import BrokerLostError, NotFoundError
        def test_worker(pronghorn_client, pronghorn_faults):
            killed = pronghorn_faults.kill_worker()
            assert not os.path.exists(f"/proc/{killed.pid}/exe")
            assert pronghorn_client.call("add", 1, 2) == 3
            assert pronghorn_faults.workers()[0].restarts == 1
            with pytest.raises(NotFoundError):
                pronghorn_faults.kill_worker(killed.id)
        def test_stall(pronghorn_client, pronghorn_faults):
            with pronghorn_faults.stalled_worker():
                future = pronghorn_client.submit("add", 1, 2)
                with pytest.raises(TimeoutError):
                    future.result(0.2)
            assert future.result(10) == 3
        def test_broker(pronghorn_client, pronghorn_faults):
            pronghorn_client.call("add", 1, 2)
            pronghorn_faults.kill_broker()
            for _ in range(2):
                try:
                    assert pronghorn_client.call("add", 1, 2) == 3
                except BrokerLostError:
                    continue
        """,
    ).assert_outcomes(passed=3)


def test_what_a_test_leaves_behind_fails_it(project: pytest.Pytester) -> None:
    result = run(
        project,
        test_it="""
        import os, subprocess, threading
        kept = []
        def test_tidy(pronghorn_no_leaks, pronghorn_client):
            assert pronghorn_client.call("add", 1, 2) == 3
            assert pronghorn_client.submit("add", 1, 2).result() == 3
        def test_file(pronghorn_no_leaks):
            kept.append(os.open("/dev/null", os.O_RDONLY))
        def test_child(pronghorn_no_leaks):
            kept.append(os.posix_spawn("/bin/sleep", ["sleep", "5"], os.environ))
        def test_end():
            os.close(kept[0])
            os.kill(kept[1], 9)
            os.waitpid(kept[1], 0)
        """,
    )
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(["*file descriptor * /dev/null*", "*child process *sleep 5*"])


def test_a_session_that_is_killed_leaves_no_pool(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import os, signal
        def test_it(pronghorn_client):
            print(pronghorn_client.call("pid"), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-q"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    worker = int(done.stdout.split()[0])
    if is_alive(worker):
        with Ends([worker]) as ends:
            ends.wait()


def test_it_costs_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        test_it="""
        import sys
        def test_it():
            heavy = ("zmq", "uvloop", "pronghorn.client.pool", "pronghorn.client.sync")
            assert not [name for name in heavy if name in sys.modules]
        """,
    ).assert_outcomes(passed=1)
