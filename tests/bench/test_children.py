"""Children of the benchmark: ready when they say so, and gone afterwards."""

import io
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pronghorn.bench.children import ChildError, running, stop, wait_until_ready

PEERS = "pronghorn.bench.floors.zeromq_peers"

ORPHANED = """
import subprocess, sys
from pronghorn.bench.children import python_command
child = subprocess.Popen(
    python_command("pronghorn.bench.floors.zeromq_peers", ["router", sys.argv[1]]),
    stdout=subprocess.PIPE,
)
child.stdout.readline()
print("up", flush=True)
"""


def test_a_child_runs_while_the_block_does() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with running(PEERS, "router", f"ipc://{folder}/front") as child:
            assert child.poll() is None
        assert child.returncode == -signal.SIGTERM


def test_a_child_that_does_not_become_ready_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ChildError, match="did not become ready"), running(PEERS, "nonsense"):
        pytest.fail("must not get here")
    assert "KeyError: 'nonsense'" in capfd.readouterr().err


def test_anything_but_ready_is_refused() -> None:
    with pytest.raises(ChildError, match="'what'"):
        wait_until_ready(io.StringIO("what\n"), "child")


def test_a_child_dies_with_its_parent() -> None:
    with tempfile.TemporaryDirectory() as folder:
        # The grandchild inherits the pipe of standard error: it is at its end when both are gone.
        done = subprocess.run(
            [sys.executable, "-c", ORPHANED, f"ipc://{Path(folder) / 'front'}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    assert done.stdout == "up\n"


def test_a_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pronghorn.bench.children.STOP_TIMEOUT_S", 0.05)
    program = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    wait_until_ready(child.stdout, "child")
    stop(child)
    assert child.returncode == -signal.SIGKILL
