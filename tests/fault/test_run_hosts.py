"""Run hosts that die, that make way for other code, and runs that are open while all drains."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pronghorn.client import Pool, WorkerLostError
from pronghorn.client.sync import Client

pytestmark = pytest.mark.slow  # each test ends something of the pool that the next needs

SERVED = Path(__file__).parents[1] / "support" / "served"

NAPS: dict[str, Any] = {
    "tasks": {
        "a": {"action": "nap", "input": {"seconds": 0.05}, "next": [{"do": "b"}]},
        "b": {"action": "nap", "input": {"seconds": 0.05}},
    },
}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        files = [SERVED / "flow_tasks.py", SERVED / "doubled.yaml"]
        with Pool(*files, workers=1, drain_s=10.0) as made:
            yield made


@pytest.fixture
def client(pool: Pool) -> Iterator[Client]:
    with pool.client() as made:
        yield made


def host_pid(client: Client) -> int:
    (pid,) = [each.pid for each in client.admin.workers() if each.host]
    return pid


def test_a_host_that_dies_takes_its_runs_and_is_replaced(client: Client) -> None:
    before = host_pid(client)
    with client.submit_run(NAPS) as run:
        os.kill(before, signal.SIGKILL)
        with pytest.raises(WorkerLostError):
            run.result()
    assert client.run("doubled", n=1) == {"it": 2}
    assert host_pid(client) != before


def test_a_run_ends_with_the_host_that_has_begun_it(client: Client) -> None:
    with client.submit_run(NAPS) as run:
        client.admin.reload()
        assert client.run("doubled", n=1) == {"it": 2}
        assert run.report().status == "succeeded"


def test_an_open_run_has_its_tasks_run_while_all_drains(pool: Pool, client: Client) -> None:
    with client.submit_run(NAPS) as run:
        draining = threading.Thread(target=pool.close)
        draining.start()
        assert run.report().status == "succeeded"
    draining.join()
