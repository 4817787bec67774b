"""Served functions behind the standard library's `Executor` interface.

Mirror: tests/client/test_executor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, TypeVar

from .invocation import check_arguments, encode_arguments, target_of
from .transport import Transport

if TYPE_CHECKING:
    from .sync import Client

R = TypeVar("R")


class NodeExecutor(Executor):
    """Runs nodes, given as decorated functions or by name; refuses everything else.

    Nothing is pickled and no name makes a worker import anything: only what is served can be run.
    The client stays open after `shutdown`; it belongs to whoever made it.
    """

    def __init__(self, client: Client, transport: Transport, timeout_ms: float | None) -> None:
        self._client = client
        self._transport = transport
        self._timeout_ms = timeout_ms
        self._futures: set[Future[Any]] = set()  # those that have not ended
        self._is_shut = False

    def submit(self, fn: Callable[..., R] | str, /, *args: Any, **kwargs: Any) -> Future[R]:
        """Start a call; all arguments are the function's.

        Raises:
            InvalidArgumentError: `fn` is no node, or an argument can't be encoded.
            TypeError: The function does not take these arguments.
            RuntimeError: After `shutdown`.
        """
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        target = target_of(fn)
        check_arguments(target, args, kwargs)
        encoded = encode_arguments(target, args, kwargs, None)
        future: Future[R] = self._transport.submit(target, encoded, self._timeout_ms)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def map(
        self,
        fn: Callable[..., R] | str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 0,
        **options: Any,
    ) -> Iterator[R]:
        """Run a node for the items of the iterables side by side, in chunks, in order.

        Args:
            fn: The node.
            *iterables: Its positional arguments.
            timeout: Seconds that each chunk may take.
            chunksize: Items per chunk; chosen by run time when 0.
            **options: What later versions of Python add (``buffersize``); has no effect here, as
                items are taken as needed anyway.
        """
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        items = zip(*iterables, strict=False)
        return self._client.map(fn, items, timeout_s=timeout, chunk_size=chunksize or None)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; by default wait for those that are open."""
        self._is_shut = True
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
        if wait:
            futures.wait(list(self._futures))
