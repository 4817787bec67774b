"""Who works, who is to be started next and who is to make way: decisions about workers. Pure.

A worker's life; what ends it unasked leaves a vacancy, to be filled at once or after a back-off::

    vacancy ──start──► starting ──ready──► ready ──retire──► retired
       ▲                  │ │                │                  │
       └──failed, ended───┘ └─overdue: killed└─ended            └─ended: leaves no vacancy

One that is due to be replaced is retired only when its successor is ready; for that there is one
vacancy more than workers are missing. One is replaced at a time.

Contract: what happens is told with its time (`now`, monotonic seconds); `start`, `retire` and
`overdue` say what is to be done, and `next_due` when they have something to say without any event
before.

Mirror: tests/broker/test_crew.py.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import count
from math import inf
from random import Random
from typing import NamedTuple

import msgspec

from .recycling import Recycling, WorkerLimits
from .restart import RestartPolicy
from .wire.control import RETIRE_S

ABORT_WAIT_S = 1.0
"""What a worker that hangs gets to write its stack before it is killed; it takes a millisecond,
unless the machine is busy, and one that is stopped never does."""

NO_LIMITS = WorkerLimits()


class Worker(msgspec.Struct):
    """One worker of this epoch, from the decision to start it until it was reaped."""

    id: int
    # when something is to be done if it is there still: abort it, then kill it; inf while it is
    # as it should be
    deadline: float
    page: int = -1  # descriptor of the page of slots it shares with the broker: its owner's
    pid: int | None = None  # None until the template has told it
    ready_at: float | None = None
    killed: str = ""  # why we killed it, if we did
    aborted: bool = False  # whether it was told to write its stack and end
    started_at: float = 0.0
    limits: WorkerLimits = NO_LIMITS
    restarts: int = 0  # workers that ended unasked in its place before it
    due: str = ""  # why it is to be replaced; "" while it is not
    retired: bool = False  # whether it was told to finish what it has begun and end
    labels: tuple[str, ...] = ()


class Vacancy(NamedTuple):
    """A place for a worker."""

    when: float  # it may be filled, monotonic seconds
    restarts: int = 0  # workers that ended unasked in it so far


class Crew:
    """The workers of one generation and the vacancies among them.

    Together they are `size`, retired ones not counted, and one more while one is being replaced.
    """

    def __init__(
        self,
        size: int,
        policy: RestartPolicy,
        *,
        start_timeout_s: float,
        retire_s: float = RETIRE_S,
        recycling: Recycling | None = None,
        random: Random | None = None,
        ids: Iterator[int] | None = None,
        labels: Mapping[str, int] | None = None,
    ) -> None:
        """Set it up with nobody in it.

        Args:
            size: How many workers there should be.
            policy: When one that ended is started again.
            start_timeout_s: What a worker gets from its start until it is ready.
            retire_s: What one that is retired gets to end.
            recycling: When workers are due to be replaced; by default they never are.
            random: For the limits of each.
            ids: Gives ids that were never used before, also not for an earlier broker.
            labels: How many workers should have each label.
        """
        self.start_timeout_s = start_timeout_s
        self.size = size
        self.workers: dict[int, Worker] = {}  # worker id -> worker, until reaped
        self._retire_s = retire_s
        self._recycling = recycling or Recycling()
        self._random = random or Random()
        self._policy = policy
        self._ids = ids or count(1)
        self._labels = dict(labels or {})
        self._vacancies = [Vacancy(-inf)] * size
        self._replaced = 0  # id of the worker that is being replaced; 0 while none is

    @property
    def ready_count(self) -> int:
        """How many workers take requests."""
        return sum(_serves(worker) for worker in self.workers.values())

    # --- starts ---------------------------------------------------------------------------------

    def start(self, now: float) -> Worker | None:
        """Fill a vacancy whose time has come: the worker that is to be started."""
        self._look_for_due(now)
        earliest = min(self._vacancies, default=None)
        if earliest is None or earliest.when > now:
            return None
        self._vacancies.remove(earliest)
        worker = Worker(
            next(self._ids),
            now + self.start_timeout_s,
            started_at=now,
            limits=self._recycling.limits(self._random),
            restarts=earliest.restarts,
            labels=self._missing_labels(),
        )
        self.workers[worker.id] = worker
        return worker

    def _missing_labels(self) -> tuple[str, ...]:
        """Name the labels that fewer workers have than should, those not counted that make way."""
        return tuple(label for label in self._labels if self._surplus_of(label) < 0)

    def _surplus_of(self, label: str) -> int:
        """Tell how many more workers have a label than should, those not counted that make way."""
        have = sum(
            label in worker.labels and not worker.retired and worker.id != self._replaced
            for worker in self.workers.values()
        )
        return have - min(self._labels[label], self.size)

    def failed(self, worker: Worker, now: float) -> None:
        """Note that a worker could not be started."""
        when = now + self._policy.died(now, ready_at=None)
        self._leave(worker, Vacancy(when, worker.restarts))

    def withdraw(self, worker: Worker) -> None:
        """Note that a worker was not started, for a reason that says nothing about its like."""
        self._leave(worker, Vacancy(-inf, worker.restarts))

    def ready(self, worker_id: int, now: float) -> None:
        """Note that a worker takes requests; one that is gone already is passed over."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.ready_at = now
            if not (worker.aborted or worker.retired):
                worker.deadline = inf

    # --- replacements ---------------------------------------------------------------------------

    def served(self, worker_id: int, *, requests: int, memory_bytes: int) -> None:
        """Note how much a worker was given, and how large it is."""
        worker = self.workers.get(worker_id)
        if worker is not None and not worker.due:
            worker.due = worker.limits.reached(requests=requests, memory_bytes=memory_bytes)

    def recycle(self, worker_ids: Collection[int]) -> None:
        """Have workers replaced, one after the other."""
        for worker_id in worker_ids:
            worker = self.workers[worker_id]
            worker.due = worker.due or "it was told to"

    def drain(self, worker_id: int, now: float) -> Worker:
        """Take a worker out of service; its place is filled meanwhile. It is to be retired."""
        worker = self.workers[worker_id]
        self._make_way(worker, Vacancy(now, worker.restarts), "it was told to", now)
        return worker

    def scale(self, size: int, now: float) -> list[Worker]:
        """Have so many workers from now on; returns those that are to be retired.

        Vacancies go first, then who was started last, but as long as others are there none that has
        a label which would be missing.
        """
        self._vacancies += [Vacancy(now)] * max(0, size - self.size)
        surplus = max(0, self.size - size)
        self.size = size
        kept = 1 if self._missing_labels() else 0  # for a worker that has them
        while surplus and len(self._vacancies) > kept:
            self._vacancies.remove(max(self._vacancies))
            surplus -= 1
        counted = [worker for worker in self.workers.values() if not worker.retired]
        counted.sort(key=lambda worker: (worker.ready_at is None, worker.id), reverse=True)
        # Who is replaced goes when its successor is ready, who is not counted in `size`.
        counted = [worker for worker in counted if worker.id != self._replaced]
        leaving: list[Worker] = []
        while counted and len(leaving) < surplus:
            worker = next((one for one in counted if not self._is_needed(one)), counted[0])
            counted.remove(worker)
            leaving.append(worker)
            self._make_way(worker, None, "there are fewer workers from now on", now)
        return leaving

    def _is_needed(self, worker: Worker) -> bool:
        """Whether a label would be missing without a worker."""
        return any(self._surplus_of(label) <= 0 for label in worker.labels)

    def retire(self, now: float) -> Worker | None:
        """Say who is to be told to end now, for its successor is ready."""
        worker = self.workers.get(self._replaced)
        if worker is None or self.ready_count <= self.size:
            return None
        self._make_way(worker, None, worker.due, now)
        return worker

    def retire_all(self, now: float) -> list[Worker]:
        """Have all workers make way for those of another crew, and start no more."""
        self._vacancies.clear()
        self.size = 0
        workers = [worker for worker in self.workers.values() if not worker.retired]
        for worker in workers:
            self._make_way(worker, None, "others have taken its place", now)
        return workers

    # --- ends -----------------------------------------------------------------------------------

    def condemn(self, worker: Worker, reason: str, now: float) -> None:
        """Note that a worker is to be told to write its stack and end now."""
        worker.killed = worker.killed or reason
        worker.deadline = min(worker.deadline, now)

    def ended(self, worker: Worker, now: float, *, served: bool) -> None:
        """Note the end of a worker; one that has served did not end by how it starts."""
        if worker.retired:
            del self.workers[worker.id]
            return
        delay = 0.0 if served else self._policy.died(now, ready_at=worker.ready_at)
        self._leave(worker, Vacancy(now + delay, worker.restarts + 1))

    def disband(self) -> list[Worker]:
        """Give up all workers, whose epoch has ended; new ones may be started at once."""
        workers = list(self.workers.values())
        self.workers.clear()
        self._vacancies = [Vacancy(-inf)] * self.size
        self._replaced = 0
        return workers

    def overdue(self, now: float) -> list[tuple[Worker, bool]]:
        """Give the workers that should be ready or gone by now, and whether for the second time.

        At the first time a worker is to be told to write its stack and end, at the second, which
        comes `ABORT_WAIT_S` later, to be killed.
        """
        late = []
        for worker in self.workers.values():
            if worker.deadline <= now:
                late.append((worker, worker.aborted))
                worker.deadline = inf if worker.aborted else now + ABORT_WAIT_S
                worker.aborted = True
                if not worker.killed:
                    worker.killed = self._lateness(worker)
        return late

    # --- how it stands --------------------------------------------------------------------------

    def next_due(self, *, can_start: bool) -> float:
        """Tell when `overdue`, or `start` if that is possible now, has something to say."""
        due = [worker.deadline for worker in self.workers.values()]
        if can_start:
            due += [vacancy.when for vacancy in self._vacancies]
            due += [
                worker.started_at + worker.limits.age_s
                for worker in self.workers.values()
                if _serves(worker) and not worker.due
            ]
        return min(due, default=inf)

    def stands(self, now: float) -> bool:
        """Whether as many workers are ready as can be had: all, or some when starts fail."""
        ready = self.ready_count
        return ready >= self.size or (ready > 0 and self._policy.exhausted(now))

    def hopeless(self, now: float) -> bool:
        """Whether none is ready and the policy's intensity is exceeded."""
        return not self.ready_count and self._policy.exhausted(now)

    def failing(self, now: float) -> bool:
        """Whether starts have failed more often lately than the policy's intensity allows."""
        return self._policy.exhausted(now)

    def check_invariants(self) -> None:
        """Check that the numbers agree; for tests."""
        counted = sum(not worker.retired for worker in self.workers.values())
        wanted = self.size + (self._replaced != 0)
        assert counted + len(self._vacancies) == wanted, "places and workers agree"
        assert not self._replaced or not self.workers[self._replaced].retired

    def _look_for_due(self, now: float) -> None:
        """Begin to replace the next worker that is due, unless one is being replaced."""
        serving = [worker for worker in self.workers.values() if _serves(worker)]
        for worker in serving:
            if not worker.due and worker.started_at + worker.limits.age_s <= now:
                worker.due = f"it is {now - worker.started_at:.0f} s old"
        leaving = sum(worker.retired for worker in self.workers.values())
        if self._replaced or leaving >= max(1, self.size):  # so that memory is bounded
            return
        for worker in serving:
            if worker.due:
                self._replaced = worker.id
                self._vacancies.append(Vacancy(now, worker.restarts))
                return

    def _make_way(self, worker: Worker, vacancy: Vacancy | None, why: str, now: float) -> None:
        """Note that a worker is told to end."""
        worker.retired = True
        worker.due = why
        worker.deadline = min(worker.deadline, now + self._retire_s)
        self._replace(worker, vacancy)

    def _leave(self, worker: Worker, vacancy: Vacancy) -> None:
        del self.workers[worker.id]
        if not worker.retired:
            self._replace(worker, vacancy)

    def _replace(self, worker: Worker, vacancy: Vacancy | None) -> None:
        """Leave a vacancy, unless a successor has it or is on its way."""
        if worker.id == self._replaced:
            self._replaced = 0
        elif vacancy is not None:
            self._vacancies.append(vacancy)

    def _lateness(self, worker: Worker) -> str:
        if worker.retired:
            return f"it had not ended {self._retire_s:.3g} s after it was told to"
        return f"it was not ready after {self.start_timeout_s:.3g} s"


def _serves(worker: Worker) -> bool:
    """Whether a worker takes requests."""
    return worker.ready_at is not None and not worker.retired
