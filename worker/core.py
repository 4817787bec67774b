"""What a worker holds and how far it is: claims, requests in flight, cancels, drain. Pure.

A request is *begun* by its claim (wire/slots.py), *in flight* until its node has ended, and then
*finished*. Whoever runs nodes asks `begin` first and says `finish` before it sends the last word.

Mirror: tests/worker/test_core.py; joined with the other cores in tests/sim/.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from pronghorn.broker.wire.slots import SlotsPage

Handle = TypeVar("Handle")


class WorkerCore(Generic[Handle]):
    """The requests of one worker; a `Handle` is whatever the caller can cancel a running one by."""

    __slots__ = ("_in_flight", "_page", "_stopping", "begin", "finish_inline")

    def __init__(self, page: SlotsPage) -> None:
        self._page = page
        # The page's own methods, without a call in between: they run once per request.
        # Claim a request; `False` means that it must be reported as skipped and not run.
        self.begin: Callable[[int, int, int], bool] = page.claim
        # Note that the node of a request that ran at once has ended.
        self.finish_inline: Callable[[int, int], None] = page.finish
        # token -> handle, of requests that run beside others (async, threaded); inline ones are
        # over before anybody could ask
        self._in_flight: dict[int, Handle] = {}
        self._stopping = False

    def running(self, token: int, handle: Handle) -> None:
        """Note that a request runs on beside others."""
        self._in_flight[token] = handle

    def finish(self, slot: int, token: int) -> None:
        """Note that the node of a request noted as `running` has ended."""
        self._page.finish(slot, token)
        del self._in_flight[token]

    def cancelled(self, token: int) -> Handle | None:
        """Return the handle of a request to cancel, `None` if it is not in flight here."""
        return self._in_flight.get(token)

    def stop(self) -> None:
        """Take it that nothing more is to be begun."""
        self._stopping = True

    @property
    def drained(self) -> bool:
        """Whether it was told to stop and nothing is in flight."""
        return self._stopping and not self._in_flight

    @property
    def is_busy(self) -> bool:
        """Whether a request runs beside others."""
        return bool(self._in_flight)

    @property
    def in_flight(self) -> list[Handle]:
        """The handles of all requests in flight."""
        return list(self._in_flight.values())
