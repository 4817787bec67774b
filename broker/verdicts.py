"""Why a request is refused, and what is said of one whose worker ended. Pure.

Mirror: tests/broker/test_verdicts.py.
"""

from math import inf

import msgspec

from .placement import Worker
from .queue import ReadyQueue
from .requests import Node, Request, Session
from .wire.errors import (
    ErrorDetails,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
    PronghornError,
    UnimplementedError,
    WorkerLostError,
)
from .wire.limits import (
    AFFINITY_CHARACTERS_MAX,
    ID_BYTES_MAX,
    PRIORITIES,
    TIMEOUT_MS_MAX,
    Bounds,
    Limits,
)
from .wire.messages import Options, RequestId
from .wire.slots import SlotState

RUNNING_MAX = 16  # entries of `running_in`

ENDING = "this pool is about to end and begins nothing more"

RETRY_AFTER_MS = 50.0  # told to refused clients: some thousand quick calls later


class Overload(OverloadedError):
    """A request was refused for a limit, whose name in statistics is `reason`."""

    def __init__(self, reason: str, message: str, details: ErrorDetails) -> None:
        super().__init__(message, details)
        self.reason = reason


def refusal(
    session: Session,
    queue: ReadyQueue,
    bounds: Bounds,
    *,
    grant_bytes: int,
    id_: RequestId,
    options: Options,
    size: int,
) -> PronghornError | None:
    """Return why a request can't be accepted, `None` if it can."""
    grant = session.grant
    if len(session.open) + session.unacknowledged >= grant:
        message = f"{grant} requests of this client are open, its grant"
        return _overloaded("grant_requests", message, grant)
    if session.open_bytes + size > grant_bytes:
        message = f"{grant_bytes} bytes of this client's requests are open, its grant"
        return _overloaded("grant_bytes", message, grant_bytes)
    overfull = queue_refusal(queue, bounds, size)
    if overfull is not None:
        return overfull
    if id_ in session.open:
        return InvalidArgumentError(f"a request with id {id_!r} is open already")
    if isinstance(id_, str) and len(id_) > ID_BYTES_MAX:
        return InvalidArgumentError(f"an id has at most {ID_BYTES_MAX} characters")
    timeout_ms = options.timeout_ms
    if timeout_ms is not None and not 0 < timeout_ms <= TIMEOUT_MS_MAX:
        return InvalidArgumentError(
            f"timeout_ms is {timeout_ms}; it must be above 0 and at most {TIMEOUT_MS_MAX:.0f}"
        )
    if options.priority is not None and not 0 <= options.priority < PRIORITIES:
        return InvalidArgumentError(
            f"priority is {options.priority}; it must be 0, which goes first, to {PRIORITIES - 1}",
            ErrorDetails(limit=PRIORITIES - 1),
        )
    if options.affinity is not None and len(options.affinity) > AFFINITY_CHARACTERS_MAX:
        limit = AFFINITY_CHARACTERS_MAX
        return InvalidArgumentError(
            f"an affinity has at most {limit} characters", ErrorDetails(limit=limit)
        )
    if options.value_ref:
        return UnimplementedError("value_ref is reserved, not served")
    return None


def is_ending(node: str) -> OverloadedError:
    """Make the error for a request that comes when all is about to end."""
    details = ErrorDetails(outcome="not_started", retryable=True, node=node)
    return OverloadedError(f"{node}: {ENDING}", details)


def in_quarantine(node: Node, now: float) -> PronghornError:
    """Make the error for a request of a node that ends one worker after the other, or has none."""
    left_s = node.refused_until - now
    if left_s == inf:
        labels = ", ".join(sorted(node.labels))
        return NotFoundError(
            f"{node.name} needs a worker with the labels {labels}, and there is none: "
            "start some, as with serve --label NAME:COUNT",
            ErrorDetails(outcome="not_started", node=node.name),
        )
    details = ErrorDetails(
        outcome="not_started", retryable=True, retry_after_ms=left_s * 1000, node=node.name
    )
    return Overload(
        "quarantine",
        f"{node.name} is in quarantine for {left_s:.1f} s: it has ended one worker after the other",
        details,
    )


def not_mapped(node: Node) -> InvalidArgumentError:
    """Make the error for a map of a node that yields parts."""
    details = ErrorDetails(outcome="not_started", node=node.name)
    return InvalidArgumentError(f"{node.name}: a streaming node can be called, not mapped", details)


def journal_overload(node: Node) -> PronghornError:
    """Make the error for requests that come while the journal is far behind."""
    details = ErrorDetails(
        outcome="not_started", retryable=True, retry_after_ms=RETRY_AFTER_MS, node=node.name
    )
    why = "too much is not kept yet: the disk is slow, or the journal is being started again"
    return Overload("journal", f"{node.name} can't be recorded: {why}", details)


def memory_refusal(bounds: Bounds) -> PronghornError:
    """Make the error for requests that come while the broker has no memory left for them."""
    limit = bounds.memory_bytes
    return _overloaded("memory", f"the broker's memory is beyond {limit} bytes, its bound", limit)


def queue_refusal(queue: ReadyQueue, bounds: Bounds, size: int) -> PronghornError | None:
    """Return why a request can't be queued, `None` if it can."""
    if queue.length >= bounds.queue_requests:
        limit = bounds.queue_requests
        message = f"{limit} requests wait for a worker, the limit"
        return _overloaded("queue_requests", message, limit)
    if queue.bytes + size > bounds.queue_bytes:
        limit = bounds.queue_bytes
        message = f"{limit} bytes of requests wait for a worker, the limit"
        return _overloaded("queue_bytes", message, limit)
    return None


def size_refusal(limits: Limits, *, size: int, buffers: int) -> PronghornError | None:
    """Return why a call of a node is too large, `None` if it is not; clients' never come so far."""
    for unit, count, limit in (
        ("bytes", size, limits.request_bytes),
        ("buffers", buffers, limits.buffers),
    ):
        if count > limit:
            message = f"the request has {count} {unit}, the limit is {limit}"
            return InvalidArgumentError(message, ErrorDetails(limit=limit))
    return None


def full_details(error: PronghornError) -> ErrorDetails:
    """Return the error's details, the outcome that its class implies filled in."""
    if error.details.outcome is not None or error.outcome is None:
        return error.details
    return msgspec.structs.replace(error.details, outcome=error.outcome)


def running_in(worker: Worker, now: float) -> tuple[str, ...]:
    """Tell what a worker had begun and not finished when it ended, the longest first."""
    page = worker.page
    begun = sorted(
        (page.started_ns(request.slot), request.node.name)
        for request in worker.held.values()
        if page.state(request.slot, request.token) is SlotState.STARTED
    )
    return tuple(f"{name} for {now * 1e3 - ns / 1e6:.1f} ms" for ns, name in begun[:RUNNING_MAX])


def worker_lost(
    worker: Worker,
    request: Request,
    state: SlotState,
    cause: str,
    *,
    stack: str,
    running: tuple[str, ...],
) -> WorkerLostError:
    """Make the error for a request that a worker had begun when it ended."""
    finished = state is SlotState.FINISHED and not request.chunk
    details = ErrorDetails(
        outcome="executed" if finished else "maybe_executed",
        node=request.node.name,
        cause=cause,
        traceback=stack or None,
        running=running,
    )
    return WorkerLostError(f"{request.node.name}: its worker ended with {cause}", details)


def _overloaded(reason: str, message: str, limit: int) -> Overload:
    details = ErrorDetails(
        outcome="not_started", retryable=True, retry_after_ms=RETRY_AFTER_MS, limit=limit
    )
    return Overload(reason, message, details)
