"""What workers say, and what their end means for the requests they held. Pure.

Mirror: tests/broker/test_workers.py.
"""

from collections.abc import Callable
from math import inf
from typing import Any

from msgspec import Raw

from .conducted import Conducted
from .events import WorkerGone, WorkerRetired, WorkerSent, WorkerStarting
from .lifecycle import Lifecycle
from .nested import NestedCalls
from .parts import Parts
from .placement import Worker, WorkerState
from .requests import Request
from .verdicts import running_in, worker_lost
from .window import estimate
from .wire.codec import array_length
from .wire.errors import WorkerLostError
from .wire.items import Mark, collect
from .wire.link import (
    CODEC_JSON,
    Advance,
    Alive,
    AskHistory,
    CancelNested,
    ChunkDone,
    Done,
    Emitted,
    Failed,
    Nested,
    Progressed,
    Ready,
    Rest,
    Skipped,
    Yielded,
    unwrap_json,
)
from .wire.messages import Error, MapResult, Result
from .wire.slots import SlotState


class Workers:
    """Turns the words of workers into ends of requests."""

    def __init__(
        self, life: Lifecycle, nested: NestedCalls, parts: Parts, conducted: Conducted
    ) -> None:
        self._life = life
        self._nested = nested
        self._conducted = conducted
        self._count = life.count
        self._placement = life.placement
        self._workers = life.placement.workers
        self._on_word: dict[type[Any], Callable[[Worker, Any, WorkerSent], None]] = {
            Done: self._on_done,
            ChunkDone: self._on_chunk_done,
            Failed: self._on_failed,
            Skipped: self._on_skipped,
            Nested: self._on_nested,
            CancelNested: self._on_cancel_nested,
            Yielded: parts.on_yielded,
            Progressed: parts.on_progressed,
            Emitted: parts.on_emitted,
            Ready: self._on_ready,
            Alive: self._on_alive,
            Advance: conducted.on_advance,
            AskHistory: conducted.on_ask_history,
            Rest: conducted.on_rest,
        }

    def on_starting(self, event: WorkerStarting, now: float) -> None:
        """Take in that a worker was started."""
        worker = self._placement.add(event.worker_id, event.page, now, event.labels)
        worker.generation = event.generation
        worker.look_at = event.look_requests or inf
        if event.look_s:
            worker.look_s = event.look_s
            worker.look_due = now + event.look_s

    def on_retired(self, event: WorkerRetired, now: float) -> None:
        """Have a worker end that the supervisor has no more use for."""
        worker = self._workers.get(event.worker_id)
        if worker is not None:
            self._life.retire(worker, now)

    def serve(self, now: float) -> None:
        """Give requests to workers of the nodes that are served from now on, and to no others."""
        served = self._life.catalog.served
        for worker in self._workers.values():
            if worker.generation == served and worker.state is WorkerState.WARM:
                self._placement.ready(worker, worker.pid)
        for worker in list(self._workers.values()):
            if worker.generation < served:
                self._life.retire(worker, now)

    def on_sent(self, event: WorkerSent, now: float) -> None:
        """Take in one message of a worker."""
        worker = self._workers.get(event.worker_id)
        if worker is None:
            return
        worker.progress_at = now
        if worker.stalled:
            self._placement.unblock(worker)
        self._on_word[type(event.message)](worker, event.message, event)

    def on_gone(self, event: WorkerGone, now: float) -> None:
        """Take in the end of a worker: what it has not begun runs elsewhere, the rest is lost."""
        worker = self._workers.get(event.worker_id)
        if worker is None:
            return
        if worker.state is not WorkerState.DRAINING or worker.held:
            self._count.workers_lost += 1
        self._placement.remove(worker)
        self._nested.on_worker_gone(worker, now)
        self._blame(worker, event.cause, now)
        not_begun: list[Request] = []
        running = running_in(worker, now)
        for request in worker.held.values():
            if request.ended:
                self._life.routes.leave(request)
                continue
            state = worker.page.state(request.slot, request.token)
            if state is SlotState.HELD:
                not_begun.append(request)
            elif _is_of_run(request) or not self._life.retry(request, now):
                self._life.tell_times(request, now)
                error = worker_lost(
                    worker, request, state, event.cause, stack=event.stack, running=running
                )
                # An earlier attempt may have come further: then nobody knows what did not run.
                if request.chunk and request.node.marks_items and request.attempts == 1:
                    self._rescue(worker, request, error, now)
                else:
                    self._life.fail(request, error)
        self._life.put_back(not_begun, now)
        self._life.rehouse(worker, now)

    def _rescue(self, worker: Worker, request: Request, error: WorkerLostError, now: float) -> None:
        """End a chunk with the results of the items that were over; the rest was not begun.

        Only the item that was begun last is in doubt, unless it was the last of all.
        """
        mark = Mark.of(worker.page.mark(request.slot))
        items = array_length(request.params)
        complete = mark.items == items
        in_doubt = None if complete else error
        values, failures = collect(worker.page.read_area(mark.size), mark, in_doubt)
        if complete:
            self._count.completed += 1
        else:
            self._count.failed += 1
        run_ms = now * 1e3 - worker.page.started_ns(request.slot) / 1e6
        mean_ns = max(0, int(run_ms * 1e6)) // max(1, mark.items)
        request.node.counts.items_ended(mean_ns, items, failures)
        self._life.finish(request, MapResult(request.id, values, failures or None, run_ms))

    def _blame(self, worker: Worker, cause: str, now: float) -> None:
        """Put a node into quarantine that ends one worker after the other."""
        begun = [
            request
            for request in worker.held.values()
            if worker.page.state(request.slot, request.token) is SlotState.STARTED
        ]
        if len(begun) != 1 or worker.state is WorkerState.CONDEMNED:
            return
        node = begun[0].node
        if node.record.died(cause, node.counts.run.count, now):
            self._count.quarantined += 1
            node.refused_until = node.record.until

    def _on_nested(self, worker: Worker, message: Nested, event: WorkerSent) -> None:
        self._nested.on_call(worker, message, event.buffers)

    def _on_cancel_nested(self, worker: Worker, message: CancelNested, event: WorkerSent) -> None:
        self._nested.on_cancel(worker, message)

    def _on_alive(self, worker: Worker, message: Alive, event: WorkerSent) -> None:
        """Do nothing more: `on_sent` has noticed that it is not blocked."""

    def _on_ready(self, worker: Worker, message: Ready, event: WorkerSent) -> None:
        worker.pid = message.pid
        if worker.state is not WorkerState.STARTING:  # it was told to end before
            return
        catalog = self._life.catalog
        if not catalog.has_digest(worker.generation, message.table_digest):
            why = "its nodes differ from those of the template"
            self._life.kill(worker, why, worker.progress_at)
        elif worker.generation == catalog.served:
            self._placement.ready(worker, message.pid)
        elif worker.generation > catalog.served:
            worker.state = WorkerState.WARM
        else:
            self._life.retire(worker, worker.progress_at)

    def _on_done(self, worker: Worker, message: Done, event: WorkerSent) -> None:
        """Take in a result. Guarded by ``scripts/bench guard``."""
        request = self._placement.take(worker, message.token)
        if request is None:
            return
        node = request.node
        node.estimate_ns = estimate(node.estimate_ns, message.run_ns)
        if request.ended:
            self._life.routes.leave(request)
            self._count.late_results += 1
            return
        node.counts.run.record(message.run_ns)
        if node.retry is not None:
            node.budget.succeeded()
        self._count.completed += 1
        if request.tracing is not None:
            self._trace(worker, request, message.run_ns)
        if request.keep is not None:
            request.keep.run_ns = message.run_ns
        value, origin = message.value, request.origin
        if origin is not None and origin.codec == CODEC_JSON:
            value = Raw(unwrap_json(value))
        self._life.finish(request, Result(request.id, value, message.buffers), event.buffers)

    def _on_chunk_done(self, worker: Worker, message: ChunkDone, event: WorkerSent) -> None:
        request = self._placement.take(worker, message.token)
        if request is None:
            return
        node, failures = request.node, message.failures or ()
        sample_ns = 0
        if message.item_count:
            sample_ns = message.run_ns // message.item_count
            node.estimate_ns = estimate(node.estimate_ns, sample_ns)
        if request.ended:
            self._life.routes.leave(request)
            self._count.late_results += 1
            return
        node.counts.items_ended(sample_ns, message.item_count, failures)
        if node.retry is not None:
            node.budget.succeeded()
        self._count.completed += 1
        if request.tracing is not None:
            self._trace(worker, request, message.run_ns)
        run_ms = message.run_ns / 1e6
        self._life.finish(request, MapResult(request.id, message.values, message.failures, run_ms))

    def _on_failed(self, worker: Worker, message: Failed, event: WorkerSent) -> None:
        request = self._placement.take(worker, message.token)
        if request is None:
            return
        if request.ended:
            self._life.routes.leave(request)
            self._count.late_results += 1
            return
        if request.keep is not None and self._conducted.on_attempt_failed(
            request, worker.progress_at
        ):
            return
        if message.details.retryable and self._life.retry(request, worker.progress_at):
            return
        request.node.counts.failed(message.code)
        self._count.failed += 1
        if request.tracing is not None:
            self._trace(worker, request, message.run_ns)
        if request.keep is not None:
            request.keep.run_ns = message.run_ns
        error = Error(request.id, message.code, message.message, message.details)
        self._life.finish(request, error)

    def _trace(self, worker: Worker, request: Request, run_ns: int) -> None:
        """Tell where the time of a request went on which its worker has said its last word."""
        assert request.tracing is not None
        request.tracing.ended(worker.page, request.slot, run_ns)
        self._life.tell_times(request, worker.progress_at)

    def _on_skipped(self, worker: Worker, message: Skipped, event: WorkerSent) -> None:
        """Queue a request again when both sides saw each other at the claim, so that none ran it.

        What was revoked in time is no longer held, and `take` only frees its slot.
        """
        request = self._placement.take(worker, message.token)
        if request is None:
            return
        if request.ended:
            self._life.routes.leave(request)
        else:
            self._life.put_back([request], worker.progress_at)


def _is_of_run(request: Request) -> bool:
    """Whether a request is an attempt of a run, which counts its attempts itself."""
    return request.keep is not None and request.keep.run is not None
