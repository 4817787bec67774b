"""Who works and who is to be started next: the supervisor's decisions about workers. Pure.

A worker's life; whatever ends it leaves a vacancy, to be filled at once or after a back-off::

    vacancy ──start──► starting ──ready──► ready
       ▲                  │ │                │
       └──failed, ended───┘ └─overdue: killed└─ended

Contract: what happens is told with its time (`now`, monotonic seconds); `start` and `overdue` say
what is to be done, and `next_due` when they have something to say without any event before.

Mirror: tests/broker/test_crew.py.
"""

from math import inf

import msgspec

from .restart import RestartPolicy

ABORT_WAIT_S = 1.0
"""What a worker that hangs gets to write its stack before it is killed; it takes a millisecond,
unless the machine is busy, and one that is stopped never does."""


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


class Crew:
    """The workers of a tree and the vacancies among them; together always `size`."""

    def __init__(self, size: int, policy: RestartPolicy, *, start_timeout_s: float) -> None:
        self.start_timeout_s = start_timeout_s  # what a worker gets from its start until ready
        self.workers: dict[int, Worker] = {}  # worker id -> worker, until reaped
        self._size = size
        self._policy = policy
        self._vacancies = [-inf] * size  # when each may be filled
        self._ids = 0  # the id given out last; never reused, also not for a new broker

    @property
    def ready_count(self) -> int:
        """How many workers take requests."""
        return sum(worker.ready_at is not None for worker in self.workers.values())

    def start(self, now: float) -> Worker | None:
        """Fill a vacancy whose time has come: the worker that is to be started."""
        earliest = min(self._vacancies, default=inf)
        if earliest > now:
            return None
        self._vacancies.remove(earliest)
        self._ids += 1
        worker = self.workers[self._ids] = Worker(self._ids, now + self.start_timeout_s)
        return worker

    def failed(self, worker: Worker, now: float) -> None:
        """Note that a worker could not be started."""
        self._leave(worker, now + self._policy.died(now, ready_at=None))

    def withdraw(self, worker: Worker) -> None:
        """Note that a worker was not started, for a reason that says nothing about its like."""
        self._leave(worker, -inf)

    def ready(self, worker_id: int, now: float) -> None:
        """Note that a worker takes requests; one that is gone already is passed over."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.ready_at = now
            if not worker.aborted:
                worker.deadline = inf

    def condemn(self, worker: Worker, reason: str, now: float) -> None:
        """Note that a worker is to be told to write its stack and end now."""
        worker.killed = worker.killed or reason
        worker.deadline = min(worker.deadline, now)

    def ended(self, worker: Worker, now: float, *, served: bool) -> None:
        """Note the end of a worker; one that has served did not end by how it starts."""
        delay = 0.0 if served else self._policy.died(now, ready_at=worker.ready_at)
        self._leave(worker, now + delay)

    def disband(self) -> list[Worker]:
        """Give up all workers, whose epoch has ended; new ones may be started at once."""
        workers = list(self.workers.values())
        self.workers.clear()
        self._vacancies = [-inf] * self._size
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
                    worker.killed = f"it was not ready after {self.start_timeout_s:.3g} s"
        return late

    def next_due(self, *, can_start: bool) -> float:
        """Tell when `overdue`, or `start` if that is possible now, has something to say."""
        due = [worker.deadline for worker in self.workers.values()]
        return min([*due, *(self._vacancies if can_start else ())], default=inf)

    def stands(self, now: float) -> bool:
        """Whether as many workers are ready as can be had: all, or some when starts fail."""
        ready = self.ready_count
        return ready == self._size or (ready > 0 and self._policy.exhausted(now))

    def hopeless(self, now: float) -> bool:
        """Whether none is ready and the policy's intensity is exceeded."""
        return not self.ready_count and self._policy.exhausted(now)

    def _leave(self, worker: Worker, vacant_from: float) -> None:
        del self.workers[worker.id]
        self._vacancies.append(vacant_from)
