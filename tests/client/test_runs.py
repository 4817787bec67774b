"""Mirror of client/runs.py: handles of sync and async clients, at a real pool with a journal."""

import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import client_nodes
import msgspec
import pytest

from pronghorn.broker.wire.errors import ErrorDetails
from pronghorn.broker.wire.messages import Error, Result
from pronghorn.broker.wire.runs import RunInfo
from pronghorn.client import (
    CancelledError,
    Client,
    DeadlineExceededError,
    InvalidArgumentError,
    JournalError,
    LocalPool,
    NodeError,
    NotFoundError,
    Pool,
    RunHandle,
)

SOURCE = """
    import asyncio
    from pathlib import Path
    from pronghorn.worker import node

    @node
    def add(a: int, b: int) -> int:
        return a + b

    @node(durability="sync")
    def kept(text: str) -> str:
        return text

    @node
    async def wait_for(file: str) -> str:
        while not Path(file).exists():
            await asyncio.sleep(0.005)
        return "it is there"

    @node
    def fail_until(file: str) -> int:
        return len(Path(file).read_text())
"""
INFO = {
    **{"id": "ab", "node": "m.add", "status": "open", "durability": "sync", "key": None},
    **{"accepted_at_ns": 1, "ended_at_ns": 0, "run_ns": 0, "attempt": 1, "attempts_max": 3},
    **{"deaths": 0, "at_most_once": False, "code": ""},
}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        module = Path(folder) / "shop.py"
        module.write_text(textwrap.dedent(SOURCE))
        with Pool(module, workers=1, data=Path(folder) / "data") as pool:
            yield pool


@pytest.fixture
def client(pool: Pool) -> Iterator[Client]:
    with pool.client() as client:
        yield client


# --- without a broker ----------------------------------------------------------------------------


def lost() -> Any:
    return Error(1, "BROKER_LOST", "gone", ErrorDetails(outcome="maybe_executed")), ()


def test_a_broker_that_is_lost_is_asked_again() -> None:
    body = msgspec.Raw(msgspec.msgpack.encode(INFO))
    answers = [lost(), lost(), (Result(2, body), ())]
    asked: list[str] = []

    def call(name: str, params: Any, timeout_ms: float | None) -> Any:
        asked.append(name)
        return answers.pop(0)

    handle: RunHandle[Any] = RunHandle(call, "ab")
    assert handle.status() == msgspec.convert(INFO, RunInfo)
    assert asked == ["pronghorn.run.status"] * 3
    assert repr(handle) == "<RunHandle ab>"


def test_nobody_is_asked_when_the_time_is_up() -> None:
    handle: RunHandle[Any] = RunHandle(lambda *_: lost(), "ab")
    with pytest.raises(DeadlineExceededError) as raised:
        handle.result(0.01)
    assert raised.value.outcome == "maybe_executed"


def test_a_pool_in_this_process_has_no_runs() -> None:
    with LocalPool(client_nodes.__file__) as local:
        with pytest.raises(JournalError, match="can't be recorded"):
            local.client().start("add", 1, 2)
        with pytest.raises(NotFoundError):
            local.client().attach("ab").status()


# --- with one ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_started_and_found_again(client: Client) -> None:
    run = client.start("add", 1, 2, key="order-17")
    assert run.result(10.0) == 3
    assert client.attach(run.id).result() == 3
    status = run.status()
    assert (status.node, status.status, status.key) == ("shop.add", "done", "order-17")
    assert [event.event for event in run.events()] == ["accepted", "ended"]
    assert client.start("add", 1, 2, key="order-17").id == run.id
    assert client.call("add", 1, 2, durability="sync", key="order-17") == 3
    assert client.within(durability="sync", key="order-17").call("add", 1, 2) == 3
    future = client.submit("add", 1, 2, durability="batched", key="order-17")
    assert future.result() == 3
    with pytest.raises(InvalidArgumentError, match="has a run already"):
        client.start("add", 1, 3, key="order-17")
    with pytest.raises(InvalidArgumentError, match="is done"):
        run.retry()


@pytest.mark.slow
def test_who_waits_is_told_and_may_give_up(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "file"
    run = client.start("wait_for", str(file), durability="batched")
    with pytest.raises(DeadlineExceededError):
        run.result(0.05)
    (accepted,) = run.events(follow=False)
    followed = run.events(accepted.seq + 1)
    file.touch()
    assert [(event.event, event.status) for event in followed] == [("ended", "done")]
    assert run.result() == "it is there"


@pytest.mark.slow
def test_a_run_is_cancelled_and_tried_again(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "file"
    run = client.start("wait_for", str(file))
    assert run.cancel().status == "cancelled"
    with pytest.raises(CancelledError):
        run.result()
    file.touch()
    assert run.retry().attempt == 2
    assert run.result() == "it is there"
    failing = client.start("fail_until", str(tmp_path / "text"))
    with pytest.raises(NodeError, match="FileNotFoundError"):
        failing.result()
    (tmp_path / "text").write_text("abc")
    failing.retry()
    assert failing.result() == 3


@pytest.mark.slow
async def test_async_clients_have_the_same_handles(pool: Pool, tmp_path: Path) -> None:
    async with pool.async_client() as client:
        run = await client.start("add", 1, 2, key="order-18")
        assert await run.result() == 3
        assert (await client.start("add", 1, 2, key="order-18")).id == run.id
        assert await client.call("add", 1, 2, durability="sync", key="order-18") == 3
        assert [event.event async for event in run.events()] == ["accepted", "ended"]
        file = tmp_path / "file"
        waiting = await client.start("wait_for", str(file))
        assert repr(waiting) == f"<AsyncRunHandle {waiting.id}>"
        assert (await waiting.cancel()).status == "cancelled"
        file.touch()
        assert (await waiting.retry()).status == "open"
        attached = client.attach(waiting.id)
        assert await attached.result() == "it is there"
        assert (await attached.status()).status == "done"


@pytest.mark.slow
def test_a_node_has_a_durability_of_its_own(client: Client) -> None:
    assert client.call("kept", "abc") == "abc"
    assert list(client.map("kept", [("a",), ("b",)])) == ["a", "b"]
    assert client.start("kept", "abc").status().durability == "sync"


@pytest.mark.slow
def test_runs_that_there_are_not_are_told(client: Client) -> None:
    with pytest.raises(NotFoundError, match="there is no run"):
        client.attach("0" * 48).status()
    with pytest.raises(InvalidArgumentError, match="is no id of a run"):
        client.attach("nonsense").status()
