"""Calls at half of the capacity, planned in an open loop, while workers are replaced or reloaded.

The node sleeps 5 ms, a `def` in two workers. Capacity is what a closed loop gets done in the same
pool just before. Latency runs from the planned time of a call to its reply. Load, server and the
processes that are started share the cores.

Mirror: tests/bench/subjects/test_changes.py.
"""

import contextlib
import select
import threading
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from pronghorn.broker.wire.messages import Result
from pronghorn.broker.wire.places import stream_path
from pronghorn.client import Pool
from pronghorn.client.admin import Admin

from ..figures import Measurement
from ..timing import Measure
from .calls import NODES
from .overload import Peer, closed_loop

WORKERS = 2
CONNECTIONS = 16
SHARE = 0.5  # of the capacity
FAILED, CHANGES = "failed calls", "changes begun"

_ACKNOWLEDGE_EVERY = 1_000


def _recycle(admin: Admin) -> None:
    admin.recycle()


def _reload(admin: Admin) -> None:
    admin.reload()


def _scale(admin: Admin) -> None:
    admin.scale(WORKERS + 2)
    admin.scale(WORKERS)


_CHANGES: dict[str, Callable[[Admin], None]] = {
    "recycle": _recycle,
    "reload": _reload,
    "scale": _scale,
}


@contextlib.contextmanager
def changed(change: str | None) -> Iterator[Measure]:
    """Offer half of the capacity for so many seconds (the `calls` of the plan).

    Args:
        change: What is done again and again meanwhile, once a second: ``recycle``, ``reload`` or
            ``scale``; `None`: nothing.
    """
    with Pool(NODES, workers=WORKERS) as pool, contextlib.ExitStack() as stack:
        path = stream_path(pool.endpoint)
        assert path is not None
        peers = [Peer(path, _ACKNOWLEDGE_EVERY) for _ in range(CONNECTIONS)]
        for peer in peers:
            stack.callback(peer.close)

        def measure(seconds: int) -> Measurement:
            capacity = closed_loop(peers, max(1.0, seconds / 5))
            with _changing(pool, change) as count:
                return _planned(peers, capacity * SHARE, seconds, count)

        yield measure


@contextlib.contextmanager
def _changing(pool: Pool, change: str | None) -> Iterator[Callable[[], int]]:
    """Change the pool once a second, in a thread; gives what tells how often that was begun."""
    begun = 0
    ending = threading.Event()

    def go_on(act: Callable[[Admin], None]) -> None:
        nonlocal begun
        with pool.client() as client:
            while not ending.is_set():
                begun += 1
                act(client.admin)
                ending.wait(1.0)

    if change is None:
        yield lambda: 0
        return
    thread = threading.Thread(target=go_on, args=(_CHANGES[change],))
    thread.start()
    try:
        yield lambda: begun
    finally:
        ending.set()
        thread.join()


def _planned(
    peers: Sequence[Peer], rate: float, seconds: float, count: Callable[[], int]
) -> Measurement:
    """Make calls at the times planned for them and wait for all replies."""
    total = round(rate * seconds)
    latencies_ns: list[int] = []
    failed = sent = replies = 0
    begin = perf_counter()
    while replies < total:
        now = perf_counter()
        while sent < total and begin + sent / rate <= now:
            peers[sent % len(peers)].call(sent)
            sent += 1
        wait = begin + sent / rate - perf_counter() if sent < total else None
        for peer in select.select(peers, (), (), None if wait is None else max(0.0, wait))[0]:
            for reply in peer.receive():
                assert isinstance(reply.id, int)
                replies += 1
                failed += not isinstance(reply, Result)
                took_s = perf_counter() - (begin + reply.id / rate)
                latencies_ns.append(round(took_s * 1e9))
    return Measurement(
        calls=total,
        elapsed_ns=round((perf_counter() - begin) * 1e9),
        latencies_ns=latencies_ns,
        extra={"offered, calls/s": rate, FAILED: float(failed), CHANGES: float(count())},
    )
