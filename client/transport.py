"""What carries a client's requests: the network (remote.py), or this process (worker/local.py).

The clients' API stands on these two interfaces, so that a pool in one process behaves as any other.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from .inbox import OnEvent
from .invocation import Params, Target
from .mapping import MapPlan
from .results import Results
from .stopwatch import Extras
from .streaming import Arrivals, AsyncArrivals

Answer = tuple[object, Sequence[bytes]]
"""A terminal reply and its buffers, for `invocation.result_of`."""


class Transport(Protocol):
    """For the sync client; any number of threads may use it."""

    def connect(self) -> None:
        """Make sure that the other side is there."""

    def call(
        self, node: str, params: Params, timeout_ms: float | None, *, extras: Extras | None = None
    ) -> Answer:
        """Make a call and wait for its reply."""

    def submit(
        self,
        target: Target,
        params: Params,
        timeout_ms: float | None,
        on_event: OnEvent | None = None,
        extras: Extras | None = None,
    ) -> "Future[Any]":
        """Start a call and return the future of its decoded result."""

    def stream(
        self,
        node: str,
        params: Params,
        timeout_ms: float | None,
        *,
        parts: bool,
        on_event: OnEvent | None,
        extras: Extras | None = None,
    ) -> Arrivals:
        """Make a call whose parts, if wanted, or events, if somebody hears them, are taken."""

    def map(
        self, plan: MapPlan, timeout_ms: float | None, extras: Extras | None = None
    ) -> Generator[Results, None, None]:
        """Carry out a plan; gives its results in lists. Closing it cancels what is open."""

    def ping(self, timeout_s: float) -> float:
        """Return the seconds of one round trip."""

    def close(self) -> None:
        """End all connections."""


class AsyncTransport(Protocol):
    """For the client of one event loop."""

    async def connect(self) -> None:
        """Make sure that the other side is there."""

    async def call(
        self, node: str, params: Params, timeout_ms: float | None, *, extras: Extras | None = None
    ) -> Answer:
        """Make a call and wait for its reply."""

    async def stream(
        self,
        node: str,
        params: Params,
        timeout_ms: float | None,
        *,
        parts: bool,
        on_event: OnEvent | None,
        extras: Extras | None = None,
    ) -> AsyncArrivals:
        """Make a call whose parts, if wanted, or events, if somebody hears them, are taken."""

    async def chunk(
        self, node: str, items: bytes, timeout_ms: float | None, extras: Extras | None = None
    ) -> object:
        """Run a chunk of a map and wait for its reply; cancelling the wait cancels the chunk."""

    async def ping(self, timeout_s: float) -> float:
        """Return the seconds of one round trip."""

    async def close(self) -> None:
        """End the connection."""
