"""The peers that are there anyway; the others need what `./scripts/bench peers` installs."""

import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pronghorn.bench.children import ChildError
from pronghorn.bench.peers.measuring import IN_FLIGHT, rate_at
from pronghorn.bench.peers.redis_server import free_port, running_server
from pronghorn.bench.subject import Subject, started

PRESENT = [
    *("executor", "pool", "ours", "ours:durable"),
    *(("pyro_daemon",) if find_spec("Pyro5") else ()),
]


@pytest.mark.slow
@pytest.mark.parametrize("module", PRESENT)
def test_it_adds_and_ends(module: str) -> None:
    subject = Subject(name=module, factory="peers.measuring:measured", options={"peer": module})
    with started(subject) as running:
        found = running.measure(5)
    assert found.calls == 5
    assert set(found.extra) in ({rate_at(size) for size in IN_FLIGHT}, set())


KILLED = """
import os, signal, sys
from pronghorn.bench.subject import Subject, started
options = {"peer": "ours"}
with started(Subject(name="ours", factory="peers.measuring:measured", options=options)):
    print("up", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_what_it_has_started_ends_with_a_benchmark_that_is_killed() -> None:
    # All that it starts inherits the pipe of standard error, which is at its end when all are gone.
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "up\n")


@pytest.mark.slow
def test_a_server_is_waited_for_and_ended(tmp_path: Path) -> None:
    port = free_port()
    serve = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with running_server([*serve, "--directory", str(tmp_path)], port):
        pass
    with (
        pytest.raises(ChildError, match="did not start"),
        running_server([sys.executable, "-c", "pass"], free_port()),
    ):
        raise AssertionError("it is not there")
