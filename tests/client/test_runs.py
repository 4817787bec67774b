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
    from pronghorn.worker import Context, node

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
    def identity(ctx: Context) -> tuple:
        return ctx.run_id, ctx.attempt, ctx.fence

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


# --- maps ----------------------------------------------------------------------------------------


def test_a_recorded_map_gives_its_results_and_is_one_run(client: Client) -> None:
    items = [(index, 1) for index in range(300)]
    expected = [index + 1 for index in range(300)]
    assert list(client.map("add", items, durability="sync", key="map-1")) == expected
    assert list(client.map("add", items, durability="sync", key="map-1")) == expected
    run = client.start_map("add", items, key="map-1")
    status = run.status()
    assert (status.status, status.items, status.items_done) == ("done", 300, 300)
    assert run.result() == expected
    assert sorted(client.attach(run.id).items(ordered=False)) == expected
    kinds = [event.event for event in run.events()]
    assert kinds.count("accepted") == kinds.count("ended") == 1
    assert sum(event.count or 0 for event in run.events()) == 300


@pytest.mark.parametrize("durability", ["batched", "sync"])
def test_options_of_a_client_have_its_maps_recorded(client: Client, durability: Any) -> None:
    within = client.within(durability=durability)
    assert list(within.map("add", ({"a": index, "b": 2} for index in range(20)))) == [
        index + 2 for index in range(20)
    ]


def test_failed_items_are_raised_or_given(client: Client) -> None:
    items = [(1, 2), (1, "x"), (3, 4)]
    run = client.start_map("add", items)
    first, error, last = run.items(return_exceptions=True)
    assert (first, last) == (3, 7)
    assert isinstance(error, InvalidArgumentError)
    with pytest.raises(InvalidArgumentError):
        list(run.items())
    with pytest.raises(InvalidArgumentError) as raised:
        run.result()
    assert raised.value.details.item == 1
    assert run.status().status == "done"


def test_a_map_that_is_left_goes_on(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "file"
    run = client.start_map("wait_for", [(str(file),)] * 3)
    file.touch()
    results = run.items()
    assert next(results) == "it is there"
    results.close()  # type: ignore[attr-defined]
    assert run.result(10.0) == ["it is there"] * 3


def test_a_map_that_is_cancelled_tells_so_behind_its_results(
    client: Client, tmp_path: Path
) -> None:
    run = client.start_map("wait_for", [(str(tmp_path / "never"),)] * 3)
    assert run.cancel().status == "cancelled"
    with pytest.raises(CancelledError):
        list(run.items())
    assert run.status().items_done == 0


def test_what_can_not_be_a_recorded_map_is_told(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="chunk_size"):
        client.map("add", [(1, 2)], durability="sync", chunk_size=3)
    with pytest.raises(InvalidArgumentError, match="item 1"):
        client.start_map("add", [(1, 2), (object(), 2)])
    with pytest.raises(InvalidArgumentError, match="at most 100,000"):
        client.start_map("add", ((1, 2) for _ in range(10**9)))
    with pytest.raises(InvalidArgumentError, match="is a call"):
        list(client.start("add", 1, 2).items())
    with pytest.raises(InvalidArgumentError, match="durability"):
        client.map("add", [], durability="maybe")  # type: ignore[arg-type]


def test_without_a_folder_a_map_is_refused() -> None:
    with (
        LocalPool(client_nodes.__file__) as local,
        pytest.raises(JournalError, match="can't be recorded"),
    ):
        list(local.client().map("add", [(1, 2)], durability="sync"))
    with (
        Pool(client_nodes.__file__, workers=1) as pool,
        pool.client() as client,
        pytest.raises(JournalError, match="this pool has no journal"),
    ):
        list(client.map("add", [(1, 2)], durability="sync"))


async def test_an_async_client_has_recorded_maps(pool: Pool) -> None:
    async with pool.async_client() as client:
        items = [(index, 1) for index in range(50)]
        expected = [index + 1 for index in range(50)]
        results = client.map("add", items, durability="sync", key="map-2")
        assert [one async for one in results] == expected
        run = await client.start_map("add", items, durability="sync", key="map-2")
        assert await run.result() == expected
        attached = client.attach(run.id)
        assert sorted([one async for one in attached.items(ordered=False)]) == expected


def test_a_node_sees_of_which_run_it_is(client: Client) -> None:
    run = client.start("identity", durability="sync")
    run_id, attempt, fence = run.result()
    assert (run_id, attempt) == (run.id, 1)
    assert fence > 0
    assert client.call("identity") == [None, 0, 0]
    assert client.call("identity", durability="sync") == [None, 0, 0]
    mapped = client.start_map("identity", [()] * 2)
    assert {one[0] for one in mapped.items()} == {mapped.id}
