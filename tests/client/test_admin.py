"""Mirror of client/admin.py: orders of sync and async clients to a real pool."""

import tempfile
from collections.abc import Iterator

import pytest
from pools import NODES

from pronghorn.broker.wire.administration import DrainedWorker, Recycled, Reloaded, Scaled
from pronghorn.client import NotFoundError, Pool

pytestmark = pytest.mark.slow


@pytest.fixture
def own_pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    """Give a pool of two workers for one test alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        with Pool(NODES, workers=2) as pool:
            yield pool


def test_orders_have_typed_results(own_pool: Pool) -> None:
    admin = own_pool.client().admin
    first, second = admin.workers()
    assert (first.state, first.generation, first.restarts) == ("ready", 0, 0)
    assert first.pid != second.pid
    assert first.memory_bytes > 1_000_000
    assert first.age_s > 0.0
    assert admin.scale(1) == Scaled(1)
    assert admin.recycle() == Recycled(1)
    (worker,) = (one for one in admin.workers() if one.state == "ready")
    assert admin.drain(worker.id) == DrainedWorker(worker.id)
    report = admin.reload()
    assert isinstance(report, Reloaded)
    assert (report.generation, report.added, report.removed) == (1, (), ())


async def test_async_clients_give_the_same_orders(own_pool: Pool) -> None:
    async with own_pool.async_client() as client:
        first, _ = await client.admin.workers()
        assert await client.admin.drain(first.id) == DrainedWorker(first.id)
        assert await client.admin.scale(3) == Scaled(3)
        assert await client.admin.recycle() == Recycled(3)
        assert (await client.admin.reload()).generation == 1
        with pytest.raises(NotFoundError):
            await client.admin.drain(first.id)
