"""Faults for tests: kill or stall the workers and the broker of a pool on this host. An IO shell.

Mirror: tests/client/test_testing.py.
"""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pronghorn.broker.wire.administration import WorkerReport
from pronghorn.broker.wire.errors import NotFoundError

from .sync import Client

_END_S = 10.0  # a killed process has ended long before; shows that it can't be killed


class Faults:
    """What can be done to the pool of a client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def workers(self) -> list[WorkerReport]:
        """List the workers that take requests."""
        return [one for one in self._client.admin.workers() if one.state == "ready"]

    def kill_worker(self, worker_id: int | None = None) -> WorkerReport:
        """Kill a worker, by default any, and wait until it has ended; another takes its place.

        Raises:
            NotFoundError: There is no such worker.
        """
        worker = self._chosen(worker_id)
        _kill(worker.pid)
        return worker

    @contextmanager
    def stalled_worker(self, worker_id: int | None = None) -> Iterator[WorkerReport]:
        """Keep a worker, by default any, from doing anything for the time of the block.

        Raises:
            NotFoundError: There is no such worker.
        """
        worker = self._chosen(worker_id)
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            yield worker
        finally:
            with suppress(ProcessLookupError):  # it was killed meanwhile, as stalled ones are
                os.kill(worker.pid, signal.SIGCONT)

    def kill_broker(self) -> int:
        """Kill the broker, wait until it has ended, and return its pid; another takes its place.

        Calls that are open end with `BrokerLostError`.
        """
        pid: int = self._client.call("pronghorn.stats")["pid"]
        _kill(pid)
        return pid

    def _chosen(self, worker_id: int | None) -> WorkerReport:
        workers = self.workers()
        for worker in workers:
            if worker_id in (None, worker.id):
                return worker
        ids = ", ".join(str(worker.id) for worker in workers) or "none"
        raise NotFoundError(f"no worker {worker_id} takes requests; there are {ids}")


def _kill(pid: int) -> None:
    """Kill a process, which need not be a child, and wait for its end."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(_END_S * 1000):
                raise TimeoutError(f"process {pid} was killed and has not ended {_END_S} s later")
        finally:
            os.close(pidfd)
