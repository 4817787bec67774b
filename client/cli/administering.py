"""``pronghorn workers`` and ``pronghorn reload``. An IO shell.

Mirror: tests/client/cli/test_administering.py.
"""

from collections.abc import Sequence

import msgspec

from pronghorn.broker.wire.administration import Reloaded, WorkerReport

from ..sync import Client
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .output import aligned, write

_HEADINGS = (
    "Worker",
    "Pid",
    "State",
    "Generation",
    "In flight",
    "Requests",
    "Age",
    "Memory",
    "Restarts",
)


def list_workers(endpoint: str, *, as_json: bool) -> None:
    """Print the workers: as a table, or as a JSON array."""
    with _client(endpoint) as client:
        workers = client.admin.workers()
    if as_json:
        _write_json(workers)
    else:
        write(aligned([_HEADINGS, *map(row, workers)]))


def recycle(endpoint: str, worker_ids: Sequence[int], *, as_json: bool) -> None:
    """Replace workers, and tell how many."""
    with _client(endpoint) as client:
        result = client.admin.recycle(*worker_ids)
    _tell(result, f"{result.recycled} recycled", as_json=as_json)


def scale(endpoint: str, workers: int, *, as_json: bool) -> None:
    """Have so many workers, and tell."""
    with _client(endpoint) as client:
        result = client.admin.scale(workers)
    _tell(result, f"{result.workers} ready", as_json=as_json)


def drain(endpoint: str, worker_id: int, *, as_json: bool) -> None:
    """Drain a worker, and tell."""
    with _client(endpoint) as client:
        result = client.admin.drain(worker_id)
    _tell(result, f"worker {result.worker} has ended", as_json=as_json)


def reload(endpoint: str, *, as_json: bool) -> None:
    """Reload the modules, and tell what is served now."""
    with _client(endpoint) as client:
        result = client.admin.reload()
    _tell(result, _in_words(result), as_json=as_json)


def row(worker: WorkerReport) -> tuple[str, ...]:
    """Return the cells for a worker."""
    return (
        str(worker.id),
        str(worker.pid or "-"),
        f"{worker.state}, host" if worker.host else worker.state,
        str(worker.generation),
        str(worker.in_flight),
        str(worker.requests),
        _age(worker.age_s),
        f"{worker.memory_bytes / 2**20:.1f} MiB",
        str(worker.restarts),
    )


def _client(endpoint: str) -> Client:
    check_listening(endpoint)
    return Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S)


def _tell(result: msgspec.Struct, words: str, *, as_json: bool) -> None:
    if as_json:
        _write_json(result)
    else:
        write(f"{words}\n")


def _write_json(value: object) -> None:
    write(msgspec.json.encode(value) + b"\n")


def _in_words(result: Reloaded) -> str:
    nodes = "1 node" if result.nodes == 1 else f"{result.nodes} nodes"
    lines = [f"generation {result.generation} serves {nodes}"]
    lines += [f"  + {name}" for name in result.added]
    lines += [f"  - {name}" for name in result.removed]
    return "\n".join(lines)


def _age(seconds: float) -> str:
    """Write a time in its two largest units: ``5 s``, ``2 min 5 s``, ``3 h 0 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
