"""Carries out the orders of administrators, and tells when that is done. An IO shell.

Mirror: tests/fault/test_lifecycle.py, by real pools.
"""

from collections.abc import Callable

import msgspec
from msgspec import Raw

from .generations import Generations
from .program import Program
from .wire.administration import (
    WORKERS_MAX,
    Drain,
    DrainedWorker,
    ListWorkers,
    OrderError,
    Recycle,
    Recycled,
    Reload,
    Reloaded,
    Scale,
    Scaled,
    WorkerReport,
    size_refusal,
)
from .wire.control import CarriedOut, CarryOut

Result = list[WorkerReport] | Recycled | Scaled | DrainedWorker | Reloaded | OrderError

Progress = Callable[[], Result | None]
"""Tells what became of an order, `None` as long as it is not carried out."""


class Administrator:
    """The orders of this epoch that are not carried out yet."""

    def __init__(self, broker: Program, generations: Generations) -> None:
        self._broker = broker
        self._generations = generations
        self._open: dict[int, Progress] = {}  # ticket -> how far it is

    def carry_out(self, message: CarryOut) -> None:
        """Begin with an order; its result is told now or by `tend`."""
        ticket, order = message.ticket, message.order
        match order:
            case ListWorkers():
                seen = {worker.id: worker for worker in message.workers}
                of_all = [
                    each.reports(seen)
                    for one in self._generations.present
                    for each in one.workforces
                ]
                self._answer(ticket, [report for reports in of_all for report in reports])
            case Recycle(workers):
                self._begin(ticket, self._recycle(workers))
            case Scale(workers):
                self._begin(ticket, self._scale(workers))
            case Drain(worker):
                self._begin(ticket, self._drain(worker))
            case Reload():
                self._generations.reload(lambda result: self._answer(ticket, result))

    def tend(self) -> None:
        """Tell of the orders that are carried out by now."""
        for ticket, progress in list(self._open.items()):
            result = progress()
            if result is not None:
                del self._open[ticket]
                self._answer(ticket, result)

    def end_epoch(self) -> None:
        """Forget all orders: who gave them has lost the broker."""
        self._open.clear()

    def _begin(self, ticket: int, progress: Progress | OrderError) -> None:
        if isinstance(progress, OrderError):
            self._answer(ticket, progress)
        else:
            self._open[ticket] = progress

    def _answer(self, ticket: int, result: Result) -> None:
        if isinstance(result, OrderError):
            self._broker.send(CarriedOut(ticket, Raw(b"\xc0"), result))
        else:
            self._broker.send(CarriedOut(ticket, Raw(msgspec.msgpack.encode(result))))

    def _recycle(self, worker_ids: tuple[int, ...]) -> Progress | OrderError:
        generations = self._generations
        workforce = generations.current.workforce
        serving = workforce.serving
        for worker_id in worker_ids:
            if worker_id not in serving:
                return _unknown(worker_id, serving)
        chosen = set(worker_ids or serving)
        failures = workforce.failures
        workforce.recycle(chosen)

        def progress() -> Result | None:
            if workforce is not generations.current.workforce:  # all were replaced by a reload
                return Recycled(len(chosen))
            left = chosen.intersection(workforce.serving)
            if left and workforce.failing and workforce.failures > failures:
                return OrderError(
                    "RESOURCE_EXHAUSTED",
                    f"{len(left)} of {len(chosen)} workers are not replaced yet and serve on, for "
                    f"others can't be started, which is tried again: {workforce.last_failure}",
                    "maybe_executed",
                )
            return None if left else Recycled(len(chosen))

        return progress

    def _scale(self, size: int) -> Progress | OrderError:
        if not 1 <= size <= WORKERS_MAX:
            return OrderError("INVALID_ARGUMENT", size_refusal(size))
        generations = self._generations
        failures = generations.current.workforce.failures
        generations.scale(size)

        def progress() -> Result | None:
            workforce = generations.current.workforce
            if generations.size != size:
                now = generations.size
                message = f"the pool was scaled to {now} workers before it had {size}"
                return OrderError("CANCELLED", message, "maybe_executed")
            if workforce.ready_count >= size:
                return Scaled(size)
            if workforce.failing and workforce.failures > failures:
                return OrderError(
                    "RESOURCE_EXHAUSTED",
                    f"only {workforce.ready_count} of {size} workers are ready, others are tried "
                    f"again: {workforce.last_failure}",
                    "maybe_executed",
                )
            return None

        return progress

    def _drain(self, worker_id: int) -> Progress | OrderError:
        workforce = self._generations.current.workforce
        if worker_id not in workforce.serving:
            return _unknown(worker_id, workforce.serving)
        workforce.drain(worker_id)
        return lambda: None if worker_id in workforce else DrainedWorker(worker_id)


def _unknown(worker_id: int, serving: list[int]) -> OrderError:
    listed = ", ".join(map(str, sorted(serving)[:20]))
    return OrderError("NOT_FOUND", f"no worker {worker_id} serves; there are {listed or 'none'}")
