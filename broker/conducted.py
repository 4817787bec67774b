"""Recorded runs of workflows: how far they come is written down, and told who goes on. Pure.

A run host tells by `Advance` what its conductor has taken in, under the token of the request that
the attempt is. So a host that was given up, or is of an earlier broker, has nothing that it could
say: its request is over here, and its link is gone. Who goes on with a run asks for all that was
told of it before (`AskHistory`), which comes from the journal in parts.

A run that is paused, or waits for a signal or a later time, is let go (`Rest`): it takes no place
in a host until there is an order to it, or that time has come. Then it goes on as after a crash.

Mirror: tests/broker/test_conducted.py.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from .events import Assign, WorkerSent
from .inquiries import Inquiries, Steps
from .journal.messages import FoundHistory, ReadHistory
from .journal.record import Advanced
from .lifecycle import Lifecycle
from .placement import Worker
from .requests import Request, Run
from .runs import Runs
from .wire.errors import JournalError
from .wire.link import Advance, AdvanceKept, AskHistory, History, Rest

REST_MAX_S = 86_400.0
"""After so long a run that only waits for an order is looked at all the same."""

_NO_PARTS = Raw(msgspec.msgpack.encode(()))
_encode_parts = msgspec.msgpack.Encoder().encode


class Conducted:
    """What run hosts say of the runs that they conduct."""

    def __init__(self, life: Lifecycle, runs: Runs, inquiries: Inquiries) -> None:
        self._life = life
        self._recorder = life.recorder
        self._runs = runs
        self._inquiries = inquiries
        # number of a record -> the attempt whose host wants to know when it is kept
        self._asked: dict[int, Request] = {}

    def on_advance(self, worker: Worker, message: Advance, event: WorkerSent) -> None:
        """Record how far a run has come."""
        found = _attempt(worker, message.token)
        if found is None:
            return
        request, run = found
        now, state = worker.progress_at, run.state
        record = Advanced(
            run.number,
            state.last,
            state.token,
            self._recorder.wall_ns(now),
            message.value,
            len(event.buffers),
            tasks=message.tasks,
            moved=message.moved,
        )
        self._runs.write(run, record, now, event.buffers)
        if message.asks:
            self._asked[run.state.last] = request
        if message.asks or run.watchers:
            self._recorder.await_step(run, run.state.last, hurries=message.asks)

    def on_rest(self, worker: Worker, message: Rest, event: WorkerSent) -> None:
        """Take in that a run has nothing to do: it rests once its request has ended."""
        found = _attempt(worker, message.token)
        if found is not None:
            left_s = REST_MAX_S if message.left_s is None else message.left_s
            found[1].rest_due = worker.progress_at + left_s

    def on_attempt_failed(self, request: Request, now: float) -> bool:
        """Have a run rest if it is that for which its request has ended."""
        run = None if request.keep is None else request.keep.run
        if run is None or run.rest_due is None:
            return False
        self._runs.rest(run, now)
        return True

    def on_kept(self, sequence: int) -> None:
        """Tell the host of a record that is kept, if it wants to know."""
        request = self._asked.pop(sequence, None)
        if request is not None and not request.ended:
            self._life.commands.append(Assign(request.worker_id, AdvanceKept(request.token)))

    def on_ask_history(self, worker: Worker, message: AskHistory, event: WorkerSent) -> None:
        """Have a host told what was recorded of a run that it is to go on with."""
        found = _attempt(worker, message.token)
        if found is not None:
            self._inquiries.begin(self._tell_history(*found, message), worker.progress_at)
            self._life.commands += self._inquiries.commands
            self._inquiries.commands.clear()

    def _tell_history(self, request: Request, run: Run, asks: AskHistory) -> Steps:
        problem, parts, is_last = "", _NO_PARTS, True
        buffers: Sequence[bytes] = ()
        try:
            found, buffers = yield ReadHistory(0, run.number, asks.after)
            assert isinstance(found, FoundHistory)
            parts, is_last = Raw(_encode_parts(found.parts)), found.is_last
        except JournalError as error:
            problem = error.message
        if request.token == asks.token and not request.ended:
            told = History(asks.token, parts, is_last, problem, len(buffers))
            self._life.commands.append(Assign(request.worker_id, told, buffers))


def _attempt(worker: Worker, token: int) -> tuple[Request, Run] | None:
    """Find the attempt of a run that a worker speaks of; `None` if it is one no more."""
    request = worker.held.get(token)
    if request is None or request.ended or request.keep is None or request.keep.run is None:
        return None
    return request, request.keep.run
