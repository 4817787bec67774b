"""The embedded pool: a process tree that this program starts and stops.

Mirror: tests/client/test_pool.py.
"""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakSet

from pronghorn.broker.wire.control import ModuleFailure
from pronghorn.broker.wire.embedding import StopImport, importing_nodes
from pronghorn.broker.wire.limits import DEFAULT_BOUNDS, DEFAULT_LIMITS, Bounds, Limits
from pronghorn.broker.wire.logline import LogFormat, LogLevel
from pronghorn.broker.wire.places import POOL_PREFIX, endpoint_in, runtime_folder

from .aio import AsyncClient
from .launch import ProcessTree
from .sync import Client


class Pool:
    """A broker and its workers, for as long as this object is open.

    Works in a script without a main guard, in a notebook, in a thread. ``Pool(__file__)`` serves
    the nodes that the script has defined above it: where a worker imports the script, its import
    ends at that line.

    Args:
        *modules: What to serve: files, package or module names, entry points; workflows, by their
            files (``.yaml``, ``.json``).
        workers: Number of worker processes; by default one for each of `cpus` or, without any, for
            each CPU this process may use.
        name: A name for others to find it by, as with ``pronghorn serve --name``; by default it is
            private to whoever is told its `endpoint`.
        bind: Endpoints to bind besides its own.
        insecure: Allow tcp endpoints other than loopback.
        cpus: CPUs that all its processes may use; all by default.
        limits: Limits towards clients.
        bounds: What the broker holds and waits for at most.
        labels: How many of the workers have each label, for nodes that need it, as in
            ``{"gpu": 1}`` for ``@node(labels=["gpu"])``.
        hosts: Number of run hosts: processes beside the workers that conduct workflows; by default
            one if there is a workflow among `modules`. Without any, workers conduct those that
            clients send.
        recycle_requests: Replace a worker when it was given so many requests, by one that is ready
            before; by default however many. This limit and the next two are up to a tenth more or
            less for each worker.
        recycle_age_s: Replace a worker after so many seconds.
        recycle_memory: Replace a worker when its resident memory, looked at once a second while it
            is given requests, has come to so many bytes. What a fresh one takes must be less.
        drain_s: Seconds that `close` gives open calls to end; by default they are lost.
        remote_admin: Allow administration over tcp.
        data: Folder of the journal, for calls with a durability (`Client.within`); it is made when
            the first such call comes. By default there is none, and such calls are refused.
        log_level: What its processes log: lines on this program's standard error, as is what nodes
            print, each with the ids of worker and call.
        log_format: Lines for people (``human``) or for programs (``json``).

    Raises:
        PoolStartError: No node can be served, or something it needs can't be had.
        InvalidArgumentError: An argument is wrong.
    """

    def __init__(
        self,
        *modules: str | os.PathLike[str],
        workers: int | None = None,
        name: str | None = None,
        bind: Sequence[str] = (),
        insecure: bool = False,
        cpus: Sequence[int] = (),
        limits: Limits = DEFAULT_LIMITS,
        bounds: Bounds = DEFAULT_BOUNDS,
        labels: Mapping[str, int] | None = None,
        hosts: int | None = None,
        recycle_requests: int | None = None,
        recycle_age_s: float | None = None,
        recycle_memory: int | None = None,
        drain_s: float = 0.0,
        remote_admin: bool = False,
        data: str | os.PathLike[str] | None = None,
        log_level: LogLevel = "WARNING",
        log_format: LogFormat = "human",
    ) -> None:
        if importing_nodes():
            raise StopImport("a pool is started below: the module's nodes are those above")
        folder = _private_folder() if name is None else runtime_folder(name)
        self.endpoint = endpoint_in(folder)
        self._clients: WeakSet[Client] = WeakSet()  # to be closed with the pool
        self._tree = ProcessTree(
            modules,
            workers=workers,
            folder=folder,
            endpoints=bind,
            insecure=insecure,
            cpus=cpus,
            limits=limits,
            bounds=bounds,
            labels=labels,
            hosts=hosts,
            recycle_requests=recycle_requests,
            recycle_age_s=recycle_age_s,
            recycle_memory=recycle_memory,
            drain_s=drain_s,
            remote_admin=remote_admin,
            data=data,
            log_level=log_level,
            log_format=log_format,
        )
        self._drain_s = drain_s

    @property
    def endpoints(self) -> tuple[str, ...]:
        """All endpoints that clients may connect to."""
        return self._tree.ready.endpoints

    @property
    def workers(self) -> int:
        """Number of worker processes that it was started with."""
        return self._tree.workers

    @property
    def failures(self) -> tuple[ModuleFailure, ...]:
        """The modules and nodes that can't be served, and why."""
        return self._tree.ready.failures

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why workers are spawned instead of forked, if they are."""
        return self._tree.ready.warnings

    def client(self) -> Client:
        """Make a client; it is closed with the pool at the latest."""
        client = Client(self.endpoint)
        self._clients.add(client)
        return client

    def async_client(self) -> AsyncClient:
        """Make a client for asyncio; close it with ``async with`` or `AsyncClient.aclose`."""
        return AsyncClient(self.endpoint)

    def close(self) -> None:
        """Close the clients made here, then end all processes.

        With `drain_s` open calls, of other threads and programs, get so long to end before that;
        new ones are refused meanwhile.
        """
        if self._drain_s:
            self._tree.drain()
        for client in list(self._clients):
            client.close()
        self._tree.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _private_folder() -> Path:
    """Choose a runtime folder that nobody else uses."""
    return runtime_folder(f"{POOL_PREFIX}{os.getpid()}-{secrets.token_hex(4)}")
