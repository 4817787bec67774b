"""Requests whose callers want to know where their time goes, or that are part of a trace. Pure.

All others have no `Tracing`, and that is all that it costs them. Nothing is asked of a worker: when
a node began stands in its slot, and how long it ran in its last word.

Mirror: tests/broker/test_tracing.py.
"""

from dataclasses import dataclass

from .wire.messages import Options, RequestId, Times
from .wire.slots import SlotsPage
from .wire.traceparent import well_formed


@dataclass(slots=True, eq=False)
class Tracing:
    """What is noted of one request on its way."""

    traceparent: str | None  # of its caller, well-formed
    times: bool  # whether its caller wants them
    received_at: float  # monotonic seconds, as all that follows
    given_at: float | None = None  # to the worker that ran it
    begun_ns: int | None = None  # by the clock of that worker, which is the same
    run_ns: int | None = None

    @classmethod
    def of(cls, options: Options, now: float) -> "Tracing | None":
        """Make one for a request that is received, if its options ask for it."""
        traceparent = well_formed(options.trace)
        if traceparent is None and not options.times:
            return None
        return cls(traceparent, options.times, now)

    def given(self, now: float) -> None:
        """Note that it is given to a worker; to another one than before, if that was so."""
        self.given_at, self.begun_ns, self.run_ns = now, None, None

    def ended(self, page: SlotsPage, slot: int, run_ns: int) -> None:
        """Note its worker's last word on it."""
        self.begun_ns, self.run_ns = page.started_ns(slot), run_ns

    def told(self, id_: RequestId, now: float) -> Times:
        """Tell where its time went, as its terminal reply is sent."""
        ended_ns = None
        if self.begun_ns is not None and self.run_ns is not None:
            ended_ns = self.begun_ns + self.run_ns
        return Times(
            id_,
            _ns(self.received_at),
            None if self.given_at is None else _ns(self.given_at),
            self.begun_ns,
            ended_ns,
            _ns(now),
        )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
