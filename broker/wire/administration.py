"""What an administrator asks of a broker and is told: the calls ``pronghorn.workers`` and others.

They are calls like those of nodes; the broker hands them to the supervisor, which carries them out.

Mirror: tests/broker/wire/test_administration.py.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from .builtin import decode_asked, kinds_by_name
from .errors import Outcome

WORKERS_MAX: Final = 1_000
"""Most workers of one pool. Each takes three descriptors and some 5 MB; more than a few for each
CPU only take memory from the others."""


class ListWorkers(msgspec.Struct, frozen=True, tag="pronghorn.workers"):
    """Tell of each worker; the result is an array of `WorkerReport`."""


class Recycle(msgspec.Struct, frozen=True, tag="pronghorn.recycle"):
    """Replace workers, one after the other; the result is `Recycled`.

    Attributes:
        workers: Their ids; all when empty.
    """

    workers: tuple[int, ...] = ()


class Scale(msgspec.Struct, frozen=True, tag="pronghorn.scale"):
    """Have so many workers; the result is `Scaled`."""

    workers: int


class Drain(msgspec.Struct, frozen=True, tag="pronghorn.drain"):
    """Give a worker nothing more, let it finish and end; another takes its place.

    The result is `DrainedWorker`.
    """

    worker: int


class Reload(msgspec.Struct, frozen=True, tag="pronghorn.reload"):
    """Import the modules anew and serve what they hold now; the result is `Reloaded`."""


Order = ListWorkers | Recycle | Scale | Drain | Reload

ORDERS: Final[Mapping[str, type[Order]]] = kinds_by_name(ListWorkers, Recycle, Scale, Drain, Reload)
"""Name of the call -> what it asks for."""


class OrderError(msgspec.Struct, frozen=True):
    """Why an order was not carried out, or not wholly: an error's code, message and outcome."""

    code: str
    message: str
    outcome: Outcome = "not_started"


class SeenWorker(msgspec.Struct, frozen=True):
    """What the broker knows of a worker.

    Attributes:
        id: Its number, never used again.
        state: ``starting``, ``warm``, ``ready``, ``draining`` or ``condemned``.
        in_flight: Requests that it holds.
        requests: Requests that it was given so far; a chunk counts as one.
    """

    id: int
    state: str
    in_flight: int
    requests: int


class WorkerReport(msgspec.Struct, frozen=True):
    """One worker, for people and for programs.

    Attributes:
        id: Its number, never used again.
        pid: Its process; 0 while that is not known yet.
        state: ``starting``, ``warm`` (of the generation that is to be served next), ``ready``,
            ``draining`` (it ends what it has begun) or ``condemned`` (about to be killed).
        generation: How often the modules had been imported anew when it was started.
        in_flight: Requests that it holds.
        requests: Requests that it was given so far; a chunk counts as one.
        age_s: Seconds since it was started.
        memory_bytes: Its resident memory, what it shares with others included.
        restarts: Workers that have ended unasked in its place before it.
        host: Whether it is a run host, which conducts workflows and is not counted among workers.
    """

    id: int
    pid: int
    state: str
    generation: int
    in_flight: int
    requests: int
    age_s: float
    memory_bytes: int
    restarts: int
    host: bool = False


class Recycled(msgspec.Struct, frozen=True):
    """How many workers were replaced."""

    recycled: int


class Scaled(msgspec.Struct, frozen=True):
    """How many workers there are now."""

    workers: int


class DrainedWorker(msgspec.Struct, frozen=True):
    """Which worker has ended."""

    worker: int


class Reloaded(msgspec.Struct, frozen=True):
    """What is served after a reload.

    Attributes:
        generation: Its number.
        nodes: How many nodes there are.
        added: Names of nodes that there were not before.
        removed: Names of those that there are no more.
    """

    generation: int
    nodes: int
    added: tuple[str, ...]
    removed: tuple[str, ...]


def size_refusal(size: int) -> str:
    """Say why a pool can't have so many workers."""
    if size < 1:
        return f"workers is {size}; a pool needs at least 1"
    return (
        f"workers is {size}; a pool has at most {WORKERS_MAX}, for each takes descriptors and "
        "memory, and more than a few for each CPU make nothing faster"
    )


def decode_order(name: str, params: Raw, *, as_json: bool) -> Order:
    """Decode the params of an order, by name or by position.

    Raises:
        InvalidArgumentError: They are not what the order takes; names the field.
    """
    return decode_asked(name, ORDERS[name], params, as_json=as_json)
