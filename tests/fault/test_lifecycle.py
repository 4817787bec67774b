"""Real pools whose workers are replaced, scaled, drained and reloaded while they are called."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from trees import PATIENCE_S, Ends, Running, children, is_alive, unreaped

from pronghorn.client import (
    Client,
    InvalidArgumentError,
    NodeError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    Pool,
)

Start = Callable[..., Running]

NODE = "from pronghorn.worker import node\n"
SHOP = (
    NODE
    + """
import asyncio, os
from pathlib import Path
from pronghorn.worker import Context

HELD = []

@node
def add(a: int, b: int) -> int:
    return a + b

@node
def pid() -> int:
    return os.getpid()

@node
def leak(size: int) -> int:
    HELD.append(b"x" * size)
    return os.getpid()

@node
def wait(fifo: str) -> int:
    Path(fifo).write_text("begun\\n")
    Path(fifo).read_text()
    return os.getpid()

@node
async def wait_then_call(ctx: Context, begun: str, go_on: str) -> int:
    Path(begun).write_text("begun\\n")
    while not Path(go_on).exists():
        await asyncio.sleep(0.01)
    return await ctx.call("add", a=1, b=2)
"""
)


class Load:
    """Clients that call one after the other, and what became of it."""

    def __init__(self, pool: Pool, node: str, arguments: tuple[Any, ...], threads: int) -> None:
        self.errors: list[Exception] = []
        self.calls = 0
        self._ending = threading.Event()
        self._pool = pool
        self._node = node
        self._arguments = arguments
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        with self._pool.client() as client:
            while not self._ending.is_set():
                try:
                    client.call(self._node, *self._arguments, timeout_s=PATIENCE_S)
                except Exception as error:
                    self.errors.append(error)
                self.calls += 1

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def loaded(
    pool: Pool, node: str = "add", arguments: tuple[Any, ...] = (1, 2), threads: int = 2
) -> Iterator[Load]:
    """Call a node all through the block; no call may fail."""
    load = Load(pool, node, arguments, threads)
    load.start()
    try:
        yield load
    finally:
        load.stop()
    assert load.errors == []
    assert load.calls > 0


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    module = tmp_path / "shop.py"
    module.write_text(SHOP)
    return module


@pytest.mark.slow
def test_workers_are_replaced_under_load_and_no_call_fails(start: Start, shop: Path) -> None:
    running = start(str(shop), workers=2)
    admin = running.client.admin
    before = {worker.id for worker in admin.workers()}
    with loaded(running.pool):
        for _ in range(5):
            assert admin.recycle().recycled == 2
    after = [worker for worker in admin.workers() if worker.state == "ready"]
    assert len(after) == 2
    assert not before & {worker.id for worker in after}
    assert {worker.restarts for worker in after} == {0}
    assert unreaped(running.supervisor) == []


@pytest.mark.slow
def test_workers_are_recycled_by_requests(start: Start, shop: Path) -> None:
    running = start(str(shop), workers=2, recycle_requests=100)
    pids: set[int] = set()
    for _ in range(1500):
        pids.add(running.client.call("pid"))
    assert 5 <= len(pids) <= 40, "about one for each hundred calls"
    assert unreaped(running.supervisor) == []


@pytest.mark.slow
def test_workers_are_recycled_by_age_without_any_call(start: Start, shop: Path) -> None:
    running = start(str(shop), workers=1, recycle_age_s=0.3)
    (first,) = running.tree.workers
    with Ends([first]) as ends:
        ends.wait(PATIENCE_S)
    assert running.client.call("pid") != first


@pytest.mark.slow
def test_workers_are_recycled_by_memory(start: Start, shop: Path) -> None:
    running = start(str(shop), workers=1, recycle_memory=200_000_000)
    (first,) = running.tree.workers
    with Ends([first]) as ends:
        assert running.client.call("leak", 300_000_000) == first
        deadline = monotonic() + PATIENCE_S
        while running.client.call("leak", 1) == first:  # it is looked at once a second
            assert monotonic() < deadline
        ends.wait()


@pytest.mark.slow
def test_scaling_under_load_fails_no_call(start: Start, shop: Path) -> None:
    running = start(str(shop), workers=2)
    admin = running.client.admin
    with loaded(running.pool):
        for size in (4, 1, 3, 2):
            assert admin.scale(size).workers == size
    assert len([one for one in admin.workers() if one.state == "ready"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "kind", "told"),
    [
        (lambda admin: admin.scale(0), InvalidArgumentError, "a pool needs at least 1"),
        (lambda admin: admin.scale(-3), InvalidArgumentError, "workers is -3"),
        (lambda admin: admin.scale(10_000), InvalidArgumentError, "at most 1000, for each takes"),
        (lambda admin: admin.drain(77), NotFoundError, "no worker 77 serves; there are 1"),
        (lambda admin: admin.drain(-1), NotFoundError, "no worker -1 serves"),
        (lambda admin: admin.recycle(1, 77), NotFoundError, "no worker 77 serves"),
        (lambda admin: admin.scale("two"), InvalidArgumentError, "Expected `int`, got `str`"),
    ],
)
def test_orders_that_make_no_sense_are_refused_and_change_nothing(
    start: Start, shop: Path, order: Callable[[Any], Any], kind: type[Exception], told: str
) -> None:
    running = start(str(shop))
    with pytest.raises(kind, match=told):
        order(running.client.admin)
    (worker,) = running.client.admin.workers()
    assert (worker.id, worker.state) == (1, "ready")


@pytest.mark.slow
def test_a_drained_worker_ends_what_it_has_begun(start: Start, shop: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = start(str(shop), workers=2)
    begun = running.client.submit("wait", str(fifo))
    assert fifo.read_text() == "begun\n"
    (busy,) = (one for one in running.client.admin.workers() if one.in_flight)
    drained: list[Any] = []
    draining = threading.Thread(
        target=lambda: drained.append(running.pool.client().admin.drain(busy.id))
    )
    draining.start()
    assert running.client.call("pid") != busy.pid
    assert drained == []
    fifo.write_text("go on")
    assert begun.result(PATIENCE_S) == busy.pid
    draining.join(PATIENCE_S)
    assert drained[0].worker == busy.id
    assert not is_alive(busy.pid)


@pytest.mark.slow
def test_recycling_does_not_wait_for_what_has_begun(
    shop: Path, tmp_path: Path, start: Start
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = start(str(shop), workers=1)
    begun = running.client.submit("wait", str(fifo))
    assert fifo.read_text() == "begun\n"
    (worker,) = running.client.admin.workers()
    assert running.client.admin.recycle().recycled == 1
    assert running.client.call("pid") != worker.pid
    states = {one.id: one.state for one in running.client.admin.workers()}
    assert states[worker.id] == "draining"
    with Ends([worker.pid]) as ends:
        fifo.write_text("go on")
        assert begun.result(PATIENCE_S) == worker.pid
        ends.wait(PATIENCE_S)


@pytest.mark.slow
def test_a_reload_under_load_fails_no_call_also_when_nodes_change(start: Start, shop: Path) -> None:
    running = start(str(shop), workers=2)
    variants = [
        NODE + "@node\ndef first() -> int: return 0\n" + SHOP.replace(NODE, ""),
        SHOP.replace("def add(a: int, b: int)", "def add(b: int, a: int, c: int = 0)"),
        SHOP.replace("@node\ndef add", "@node(thread=True)\ndef add"),
        SHOP.replace("@node\ndef add", "@node\nasync def add"),
        SHOP,
    ]
    with loaded(running.pool):
        for number, text in enumerate(variants, start=1):
            shop.write_text(text)
            assert running.client.admin.reload().generation == number
    assert {worker.generation for worker in running.client.admin.workers()} >= {len(variants)}
    assert unreaped(running.supervisor) == []


@pytest.mark.slow
def test_what_a_reload_adds_and_removes_is_told(start: Start, shop: Path) -> None:
    running = start(str(shop))
    shop.write_text(NODE + "@node\ndef other() -> int: return 1\n")
    report = running.client.admin.reload()
    assert report.added == ("shop.other",)
    assert report.removed == (
        "shop.add",
        "shop.leak",
        "shop.pid",
        "shop.wait",
        "shop.wait_then_call",
    )
    assert running.client.call("other") == 1
    with pytest.raises(NotFoundError, match="no node named 'add'"):
        running.client.call("add", 1, 2)
    assert [node.name for node in running.client.nodes() if node.name == "shop.other"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda module: module.write_text("boom(\n"), "SyntaxError"),
        (lambda module: module.unlink(), "there is no file"),
        (lambda module: module.write_text("x = 1\n"), "there are no nodes"),
        (lambda module: module.write_text("import os\nos._exit(3)\n"), "exit status 3"),
        (
            lambda module: module.write_text(
                NODE
                + "from pronghorn.worker import on_start\n"
                + "@on_start\ndef fail() -> None: raise RuntimeError('no database')\n"
                + "@node\ndef add(a: int, b: int) -> int: return 0\n"
            ),
            "workers end before they are ready",
        ),
    ],
    ids=["syntax", "deleted", "no nodes", "exit", "start hook"],
)
def test_what_can_not_be_served_leaves_the_old_serving_and_says_why(
    start: Start, shop: Path, spoil: Callable[[Path], Any], told: str
) -> None:
    running = start(str(shop), workers=2)
    before = running.tree
    with loaded(running.pool):
        spoil(shop)
        with pytest.raises(
            NodeError, match="can't be reloaded, what was served before still is"
        ) as caught:
            running.client.admin.reload()
        assert told in caught.value.message
    assert set(before.pids) <= set(children(running.supervisor)) | {running.supervisor}
    shop.write_text(SHOP)
    assert running.client.admin.reload().generation == 1


@pytest.mark.slow
def test_what_had_begun_before_a_reload_ends_with_its_own_code(
    start: Start, shop: Path, tmp_path: Path
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go on"
    os.mkfifo(begun)
    running = start(str(shop), workers=1)
    call = running.client.submit("wait_then_call", str(begun), str(go_on))
    assert begun.read_text() == "begun\n"
    shop.write_text(NODE + "@node\ndef other() -> int: return 1\n")
    running.client.admin.reload()
    assert running.client.call("other") == 1
    go_on.write_text("")
    assert call.result(PATIENCE_S) == 3, "it has called a node that there is no more"


@pytest.mark.slow
def test_reloads_asked_for_at_once_are_all_answered(start: Start, shop: Path) -> None:
    running = start(str(shop))
    reports = [running.client.submit("pronghorn.reload") for _ in range(5)]
    generations = [report.result(PATIENCE_S)["generation"] for report in reports]
    assert 1 in generations
    assert max(generations) <= 3, "those asked for meanwhile are one"


@pytest.mark.slow
def test_a_worker_that_dies_during_a_reload_and_a_broker_too(start: Start, shop: Path) -> None:
    running = start(str(shop), workers=2)
    for victim in ("worker", "template", "broker"):
        tree = running.tree
        pid = {"worker": tree.workers[0], "template": tree.template, "broker": tree.broker}[victim]
        report = running.client.submit("pronghorn.reload")
        with Ends([pid]) as ends:
            os.kill(pid, signal.SIGKILL)
            ends.wait()
        report.exception(PATIENCE_S)
        deadline = monotonic() + PATIENCE_S
        while True:
            try:
                assert running.client.call("add", 1, 2, timeout_s=PATIENCE_S) == 3
                break
            except Exception:
                assert monotonic() < deadline
    assert running.client.admin.reload().nodes == 5


@pytest.mark.slow
def test_administration_over_tcp_is_refused_unless_it_is_allowed(start: Start, shop: Path) -> None:
    for allowed in (False, True):
        running = start(str(shop), bind=["tcp://127.0.0.1:0"], remote_admin=allowed)
        with Client(running.pool.endpoints[1]) as remote:
            assert remote.call("add", 1, 2) == 3
            if allowed:
                assert len(remote.admin.workers()) == 1
            else:
                with pytest.raises(PermissionDeniedError, match="--remote-admin"):
                    remote.admin.workers()
        assert len(running.client.admin.workers()) == 1


@pytest.mark.slow
def test_closing_a_pool_that_drains_waits_for_open_calls_and_refuses_others(
    shop: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pool = Pool(str(shop), workers=2, drain_s=PATIENCE_S)
    with Client(pool.endpoint) as client:
        begun = client.submit("wait", str(fifo))
        assert fifo.read_text() == "begun\n"
        closing = threading.Thread(target=pool.close)
        closing.start()
        refused: OverloadedError | None = None
        while refused is None:
            try:
                client.call("pid")
            except OverloadedError as error:
                refused = error
        assert (refused.outcome, refused.retryable) == ("not_started", True)
        fifo.write_text("go on")
        assert begun.result(PATIENCE_S)
        closing.join(PATIENCE_S)
        assert not closing.is_alive()


@pytest.mark.slow
def test_a_pool_that_drains_closes_within_its_limit(shop: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pool = Pool(str(shop), workers=1, drain_s=0.3)
    with Client(pool.endpoint) as client:
        begun = client.submit("wait", str(fifo))
        assert fifo.read_text() == "begun\n"
        start_s = monotonic()
        pool.close()
        assert 0.2 < monotonic() - start_s < 5.0
        assert begun.exception(PATIENCE_S) is not None
    pool.close()


@pytest.mark.slow
def test_workers_that_must_be_spawned_are_reloaded_and_replaced_too(
    start: Start, shop: Path
) -> None:
    threaded = "import threading, time\n" + (
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    )
    shop.write_text(threaded + SHOP)
    running = start(str(shop), workers=1)
    assert running.pool.warnings
    with loaded(running.pool):
        shop.write_text(threaded + SHOP + "@node\ndef other() -> int: return 1\n")
        assert running.client.admin.reload().added == ("shop.other",)
        assert running.client.admin.recycle().recycled == 1
    assert running.client.call("other") == 1


@pytest.mark.slow
def test_sighup_to_the_supervisor_reloads(start: Start, shop: Path) -> None:
    running = start(str(shop), workers=1)
    before = running.tree.workers
    with Ends(before) as ends:
        os.kill(running.supervisor, signal.SIGHUP)
        ends.wait(PATIENCE_S)
    (worker,) = running.client.admin.workers()
    assert worker.generation == 1


@pytest.mark.slow
@pytest.mark.parametrize("head", ["def", "async def"])
def test_a_stream_goes_on_while_its_worker_makes_way(start: Start, shop: Path, head: str) -> None:
    text = NODE + f"@node\n{head} rows(n: int):\n    for i in range(n):\n        yield i\n"
    shop.write_text(text)
    running = start(str(shop), workers=1)
    parts = iter(running.client.stream("rows", n=10_000))  # more than its credit
    assert next(parts) == 0
    shop.write_text(text.replace("yield i", "yield -i"))
    running.client.admin.reload()
    (draining,) = (one for one in running.client.admin.workers() if one.state == "draining")
    assert draining.in_flight == 1
    assert list(parts) == list(range(1, 10_000)), "of the code that it began with"
    assert list(running.client.stream("rows", n=3)) == [0, -1, -2]
