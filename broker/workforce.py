"""Starts, watches and ends the worker processes of one generation, as `crew` decides. An IO shell.

The template forks a worker; where it must not be forked the worker is spawned. Either way it
becomes a child of the supervisor, and the broker is told of its start and its end.

Mirror: tests/broker/test_workforce.py.
"""

import logging
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from math import inf
from random import Random
from time import monotonic

from .crew import Crew, Worker
from .folder import remove_owned
from .processes import kill, reap, resident_bytes, spawn_module
from .program import Program
from .recycling import Recycling
from .restart import RestartPolicy
from .stacks import read_stack
from .watcher import Watcher
from .wire.administration import SeenWorker, WorkerReport
from .wire.channel import GONE, ControlChannel, make_pair
from .wire.control import (
    EXIT_START_HOOK,
    RETIRE_S,
    RetireWorker,
    StartWorker,
    TemplateConfig,
    WorkerExited,
    WorkerStarted,
)
from .wire.shortage import explained
from .wire.slots import PAGE_BYTES, SLOTS_PER_WORKER, SlotsPage, stack_at
from .wire.table import HOST_LABEL

_log = logging.getLogger("pronghorn.broker.supervisor")

_AS_TOLD = "exit status 0"
_START_HOOK_FAILED = f"exit status {EXIT_START_HOOK}"


class Workforce:
    """The worker processes of one generation. Owns their pages."""

    def __init__(
        self,
        size: int,
        watcher: Watcher,
        *,
        broker: Program,
        template: Program,
        start_timeout_s: float,
        result_bytes: int,
        on_stillborn: Callable[[], None],
        generation: int = 0,
        ids: Iterator[int] | None = None,
        recycling: Recycling | None = None,
        retire_s: float = RETIRE_S,
        labels: Mapping[str, int] | None = None,
        shared: str = "",
    ) -> None:
        """Set it up; nothing is started.

        Args:
            size: How many workers there should be.
            watcher: The loop that they are watched by.
            broker: Told of starts and ends.
            template: Forks them, if it may be forked.
            start_timeout_s: What a worker gets from its start until it is ready.
            result_bytes: Largest result, for which each worker's file of slots has room.
            on_stillborn: Called when one has ended before it was ready.
            generation: Its number.
            ids: Gives ids that no worker of any generation had before.
            recycling: When workers are replaced; by default they never are.
            retire_s: What one that is replaced gets to end.
            labels: How many should have each label.
            shared: Folder in which they may have files, which go with them.
        """
        self._stack_at = stack_at(result_bytes)
        self._generation = generation
        self._recycling = recycling or Recycling()
        self._shared = shared
        self._watcher = watcher
        self._broker = broker
        self._template = template
        self._on_stillborn = on_stillborn
        random = Random()
        self._crew = Crew(
            size,
            RestartPolicy(random),
            start_timeout_s=start_timeout_s,
            retire_s=retire_s,
            recycling=self._recycling,
            random=random,
            ids=ids,
            labels=labels,
        )
        self._forking: set[int] = set()  # ids of workers whose process is not known yet
        self._lacking = False  # whether the last start failed for want of something, told once
        self._spawn_config: TemplateConfig | None = None  # where they must not be forked
        self.can_start = False  # whether the broker serves and the template stands
        self.last_failure = ""  # why workers were lost early or not started, for people
        self.failures = 0  # how often that was so

    @property
    def size(self) -> int:
        """How many workers there should be."""
        return self._crew.size

    @property
    def ready_count(self) -> int:
        """How many workers take requests."""
        return self._crew.ready_count

    @property
    def serving(self) -> list[int]:
        """Ids of the workers that were not told to end."""
        return [one.id for one in self._crew.workers.values() if not one.retired]

    @property
    def is_empty(self) -> bool:
        """Whether no worker is left."""
        return not self._crew.workers

    @property
    def is_forking(self) -> bool:
        """Whether the template forks workers whose processes are not known yet."""
        return bool(self._forking)

    def __contains__(self, worker_id: int) -> bool:
        return worker_id in self._crew.workers

    def awaits(self, worker_id: int) -> bool:
        """Whether the template was told to fork this worker and has not said that it has."""
        return worker_id in self._forking

    @property
    def stands(self) -> bool:
        """Whether as many are ready as can be had."""
        return self._crew.stands(monotonic())

    @property
    def hopeless(self) -> bool:
        """Whether none is ready and starts have failed too often; `last_failure` says how."""
        return self._crew.hopeless(monotonic())

    @property
    def failing(self) -> bool:
        """Whether starts have failed often lately; `last_failure` says how."""
        return self._crew.failing(monotonic())

    @property
    def next_due(self) -> float:
        """When `tend` has something to do without any event before, monotonic seconds."""
        return self._crew.next_due(can_start=self.can_start)

    def prepare(self, *, spawn: TemplateConfig | None, start_timeout_s: float) -> None:
        """Set how workers are started from now on: spawned with that config, or forked."""
        self._spawn_config = spawn
        self._crew.start_timeout_s = start_timeout_s

    def tend(self) -> None:
        """Start the workers whose time has come, and end those whose time is over."""
        for late, again in self._crew.overdue(monotonic()):
            self._end_late(late, again=again)
        while (replaced := self._crew.retire(monotonic())) is not None:
            self._retire(replaced)
        while self.can_start and (worker := self._crew.start(monotonic())) is not None:
            self._start(worker)

    def ready(self, worker_id: int) -> None:
        """Note that a worker takes requests."""
        self._crew.ready(worker_id, monotonic())
        _log.info("worker %d is ready", worker_id)

    def served(self, worker_id: int, requests: int) -> None:
        """Note how many requests a worker was given, and look at its memory if that counts."""
        worker = self._crew.workers.get(worker_id)
        if worker is not None:
            looks = self._recycling.memory_bytes and worker.pid is not None
            memory_bytes = resident_bytes(worker.pid) if looks and worker.pid else 0
            self._crew.served(worker_id, requests=requests, memory_bytes=memory_bytes)

    def recycle(self, worker_ids: Collection[int]) -> None:
        """Have workers replaced, one after the other."""
        self._crew.recycle(worker_ids)

    def drain(self, worker_id: int) -> None:
        """Take a worker out of service; another one takes its place."""
        self._retire(self._crew.drain(worker_id, monotonic()))

    def scale(self, size: int) -> None:
        """Have so many workers from now on."""
        for worker in self._crew.scale(size, monotonic()):
            self._retire(worker)

    def retire_all(self) -> None:
        """Have all workers end, for those of another generation have taken their places."""
        self.can_start = False
        for worker in self._crew.retire_all(monotonic()):
            self._retire(worker)

    def reports(self, seen: dict[int, SeenWorker]) -> list[WorkerReport]:
        """Tell of each worker, with what the broker knows of it."""
        now = monotonic()
        reports = []
        for worker in self._crew.workers.values():
            known = seen.get(worker.id) or SeenWorker(worker.id, "starting", 0, 0)
            reports.append(
                WorkerReport(
                    id=worker.id,
                    pid=worker.pid or 0,
                    state="condemned" if worker.killed else known.state,
                    generation=self._generation,
                    in_flight=known.in_flight,
                    requests=known.requests,
                    age_s=now - worker.started_at,
                    memory_bytes=resident_bytes(worker.pid) if worker.pid else 0,
                    restarts=worker.restarts,
                    host=HOST_LABEL in worker.labels,
                )
            )
        return reports

    def kill(self, worker_id: int, reason: str) -> None:
        """End a worker that does not do what it should; one that is gone already is passed over."""
        worker = self._crew.workers.get(worker_id)
        if worker is None:
            return
        if worker.ready_at is not None:
            self._crew.condemn(worker, reason, monotonic())
            self.tend()
            return
        worker.killed = reason  # no node can have run, so there is no stack worth waiting for
        if worker.pid is not None:
            kill(worker.pid)

    def forked(self, worker_id: int, pid: int) -> None:
        """Take in the process of a worker that the template has forked."""
        self._forking.discard(worker_id)
        self._watcher.expected.discard(worker_id)
        worker = self._crew.workers.get(worker_id)
        if worker is None:  # the epoch in which it was asked for has ended
            kill(pid)
            reap(pid)
        else:
            try:
                self._adopt(worker, pid)
            except OSError as error:
                self._on_lack(worker, error)
        self._watcher.reap_others()

    def template_ended(self) -> bool:
        """Give up the workers that were to be forked and are not; returns whether there are any."""
        left = self._forking & self._crew.workers.keys()
        for worker_id in left:
            worker = self._crew.workers[worker_id]
            self._crew.withdraw(worker)
            self._forget(worker, "its template ended before it was forked")
        self._watcher.expected -= self._forking
        self._forking.clear()
        self._watcher.reap_others()
        return bool(left)

    def end_epoch(self) -> None:
        """Kill and reap all: their broker has ended."""
        workers = self._crew.disband()
        pids = [worker.pid for worker in workers if worker.pid is not None]
        for pid in pids:
            kill(pid)
        for pid in pids:
            self._watcher.end_child(pid)
            remove_owned(self._shared, pid)
        for worker in workers:
            os.close(worker.page)

    def abandon(self) -> None:
        """Kill all workers of a generation that will not be served, and tell the broker.

        Those whose processes are not known yet end when the broker lets go of their links.
        """
        self.can_start = False
        for worker in self._crew.disband():
            if worker.pid is not None:
                kill(worker.pid)
                self._watcher.end_child(worker.pid)
                remove_owned(self._shared, worker.pid)
            self._forget(worker, "its generation was given up")
        self._watcher.expected -= self._forking
        self._forking.clear()

    # --- starts ---------------------------------------------------------------------------------

    def _start(self, worker: Worker) -> None:
        """Start a worker: its link and page go to the broker and to the process it becomes."""
        try:
            worker.page = os.memfd_create("pronghorn-slots", os.MFD_CLOEXEC)
            os.ftruncate(worker.page, self._stack_at)
            broker_end, worker_end = make_pair()
            with broker_end, worker_end:
                started = WorkerStarted(
                    worker.id,
                    self._generation,
                    0 if worker.limits.requests == inf else int(worker.limits.requests),
                    self._recycling.look_s,
                    worker.labels,
                )
                self._broker.send(started, (broker_end.fileno(), worker.page))
                if self._spawn_config is None:
                    self._template.send(StartWorker(worker.id), (worker_end.fileno(), worker.page))
                    self._forking.add(worker.id)
                    self._watcher.expected.add(worker.id)
                else:
                    self._spawn(worker, worker_end.fileno(), self._spawn_config)
        except OSError as error:
            self._on_lack(worker, error)
        else:
            self._lacking = False

    def _spawn(self, worker: Worker, link: int, config: TemplateConfig) -> None:
        """Start a worker as a process of its own.

        Raises:
            OSError: The system lacks what it takes; no process is left.
        """
        ours, theirs = make_pair()
        channel = ControlChannel(ours)
        try:
            with theirs:
                given = [link, worker.page, theirs.fileno()]
                pid = spawn_module(
                    "pronghorn.worker.spawned", [str(worker.id), *map(str, given)], given
                )
            self._adopt(worker, pid)
            channel.send(config)
        except GONE:
            return  # it has ended, which its pidfd tells
        finally:
            channel.close()

    def _adopt(self, worker: Worker, pid: int) -> None:
        """Watch a worker's process.

        Raises:
            OSError: The system lacks what it takes; the process was killed and reaped.
        """
        self._watcher.watch_child(pid, lambda cause: self._on_exit(worker, cause))
        worker.pid = pid
        if worker.killed:  # the broker was quicker than the template
            kill(pid)

    def _on_lack(self, worker: Worker, error: OSError) -> None:
        """Give up a start for which the system lacks something, until later."""
        self.last_failure = f"no worker can be started: {explained(error)}"
        self.failures += 1
        if not self._lacking:
            self._lacking = True
            _log.error("%s; it is tried again", self.last_failure)
        self._crew.failed(worker, monotonic())
        self._forget(worker, "it could not be started")

    # --- ends -----------------------------------------------------------------------------------

    def _retire(self, worker: Worker) -> None:
        """Have a worker finish what it has begun and end.

        One that is not ready, as far as is known here, is not killed: it may have begun by now.
        """
        _log.info("worker %d (pid %s) is to end: %s", worker.id, worker.pid, worker.due)
        self._broker.send(RetireWorker(worker.id))

    def _end_late(self, worker: Worker, *, again: bool) -> None:
        """Have a worker that hangs, or the template that should fork it, write its stack and end.

        The stack is written by faulthandler; whoever has not ended by the second time is killed.
        """
        if not again and worker.ready_at is None:
            _log.error("worker %d (pid %s) is ended: %s", worker.id, worker.pid, worker.killed)
        number = signal.SIGKILL if again else signal.SIGABRT
        if worker.pid is not None:
            kill(worker.pid, number)
        elif worker.ready_at is None:  # else it is ended as soon as its process is known
            self._template.kill(number)

    def _on_exit(self, worker: Worker, cause: str) -> None:
        """Report the end of a worker, whose place another takes."""
        if worker.pid is not None:
            remove_owned(self._shared, worker.pid)
        if worker.retired and (cause == _AS_TOLD or worker.ready_at is None):
            _log.info("worker %d (pid %s) has ended as told", worker.id, worker.pid)
            self._crew.ended(worker, monotonic(), served=True)
            self._forget(worker, cause)
            return
        cause = f"{cause}: {worker.killed}" if worker.killed else cause
        stack = read_stack(worker.page, self._stack_at)
        if cause == _START_HOOK_FAILED and stack:
            cause = f"a failed start hook: {stack.splitlines()[-1]}"
        told = f"\n{stack}" if stack else ""
        _log.warning("worker %d (pid %s) ended with %s%s", worker.id, worker.pid, cause, told)
        when = "before" if worker.ready_at is None else "soon after"
        self.last_failure = f"workers end {when} they are ready, the last with {cause}"
        self.failures += 1
        self._crew.ended(worker, monotonic(), served=_has_served(worker))
        self._forget(worker, cause, stack)
        if worker.ready_at is None and not worker.retired:
            self._on_stillborn()

    def _forget(self, worker: Worker, cause: str, stack: str = "") -> None:
        """Tell the broker that a worker is gone."""
        if worker.page >= 0:
            os.close(worker.page)
        self._broker.send(WorkerExited(worker.id, cause, stack))


def _has_served(worker: Worker) -> bool:
    """Tell from its page whether a worker that has ended had begun a request."""
    page = SlotsPage(memoryview(os.pread(worker.page, PAGE_BYTES, 0)))
    return any(page.started_ns(slot) for slot in range(SLOTS_PER_WORKER))
