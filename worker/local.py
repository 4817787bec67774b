"""The pool in one process: the same API, no broker, no processes; for tests and notebooks.

Params and results go through the same dispatch table, encoding and checks as in any worker, so that
a program sees the same values, types and errors. What needs processes is different, and only that:
a node that ends its process ends this one, and a `def` node can't be stopped at its deadline. The
pool is one worker: start hooks run once, in the thread that makes it, and stop hooks in the one
that closes it; those that are an ``async def``, on the loop of the sync clients' async nodes.

Mirror: tests/worker/test_local.py.
"""

import os
from types import TracebackType
from typing import Self

from pronghorn.broker.wire.control import ModuleFailure
from pronghorn.broker.wire.embedding import StopImport, importing_nodes
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.limits import Limits
from pronghorn.client.aio import AsyncClient
from pronghorn.client.launch import PoolStartError
from pronghorn.client.sync import Client

from .failures import format_traceback
from .lifecycle import StartHookError
from .loader import load
from .local_aio import LocalAsyncTransport
from .local_host import LocalHost
from .local_nested import LocalCalls
from .local_transport import LocalTransport

ENDPOINT = "local:"
"""Stands for the endpoint of a pool that has none."""

_THREADS = 4  # of submitted calls


class LocalPool:
    """Nodes served in this process, for as long as this object is open.

    Args:
        *modules: What to serve: files, package or module names, entry points.
        workers: Number of threads that submitted calls share.
        limits: Limits of requests and results.

    Raises:
        PoolStartError: No node can be served, or a start hook has failed.
        InvalidArgumentError: An argument is wrong.
    """

    def __init__(
        self,
        *modules: str | os.PathLike[str],
        workers: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        if importing_nodes():
            raise StopImport("a pool is started below: the module's nodes are those above")
        self.workers = _THREADS if workers is None else workers
        if self.workers < 1:
            raise InvalidArgumentError(f"workers is {workers}; a pool needs at least 1")
        if not modules:
            raise InvalidArgumentError("name at least one module of nodes: a file, a package, …")
        loaded = load([os.fspath(module) for module in modules])
        self.endpoint = ENDPOINT
        self.endpoints: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.failures = tuple(
            ModuleFailure(one.subject, f"{one.message}\n{one.traceback}".rstrip())
            for one in loaded.failures
        )
        if not loaded.entries:
            names = ", ".join(map(str, modules))
            raise PoolStartError(f"no node can be served from {names}", self.failures)
        table = loaded.table()
        self._host = LocalHost(table, loaded.hooks, self.workers, limits or Limits())
        self._host.execution.caller = LocalCalls(self._host)
        loaded.conducting.use(table, caller=self._host.execution.caller)
        try:
            self._host.start()
        except StartHookError as error:
            failure = ModuleFailure(error.name, format_traceback(error.error))
            raise PoolStartError(str(error), (*self.failures, failure)) from error.error

    def client(self) -> Client:
        """Make a client."""
        return _LocalClient(LocalTransport(self._host))

    def async_client(self) -> AsyncClient:
        """Make a client for asyncio; `async def` nodes run on the loop that calls them."""
        return _LocalAsyncClient(LocalAsyncTransport(self._host))

    def close(self) -> None:
        """Refuse calls from now on, cancel async nodes, run the stop hooks and end all threads.

        What does not end within a second is left alone: its caller gets a `BrokerLostError`, and no
        thread of the pool keeps the program alive. A ``def`` hook takes the time it takes.
        """
        self._host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _LocalClient(Client):
    """A client whose transport is this process."""

    def __init__(self, transport: LocalTransport) -> None:
        self.endpoint = ENDPOINT
        self._transport = transport


class _LocalAsyncClient(AsyncClient):
    """An async client whose transport is this process."""

    def __init__(self, transport: LocalAsyncTransport) -> None:
        self.endpoint = ENDPOINT
        self._transport = transport
