"""Where the time of one call went, as a value. Pure.

Mirror: tests/broker/wire/test_waterfall.py.
"""

from typing import NamedTuple

import msgspec


class Stage(NamedTuple):
    """One part of a call's time."""

    name: str
    ns: int


class Waterfall(msgspec.Struct, frozen=True, kw_only=True):
    """Moments in the life of one call, by the monotonic clock of the host, ns.

    Attributes:
        asked: The caller has asked for it.
        sent: It leaves the client, where it may have waited for the broker's grant.
        received: The broker has read it.
        given: The broker gave it to the worker that ran it; `None` if it never did.
        begun: The worker has begun it; `None` if it did not, or that is not known.
        ended: The node has ended: the run time that is counted in statistics, behind `begun`.
            Decoding is counted to what follows. `None` if that is not known.
        replied: The broker has the reply.
        answered: The caller's client has it.
    """

    asked: int
    sent: int
    received: int
    given: int | None
    begun: int | None
    ended: int | None
    replied: int
    answered: int

    @property
    def total_ns(self) -> int:
        """All of it."""
        return self.answered - self.asked

    def stages(self) -> list[Stage]:
        """Divide the whole time, in order; what it did not come to is left out.

        ``to worker`` has the way there and the wait behind what the worker had to do before.
        """
        reached = [
            ("client queue", self.sent),
            ("to broker", self.received),
            ("broker queue", self.given),
            ("to worker", self.begun),
            ("run", self.ended),
        ]
        stages: list[Stage] = []
        before = self.asked
        for name, moment in reached:
            if moment is None:  # it ended there
                stages.append(Stage(name, self.replied - before))
                before = self.replied
                break
            stages.append(Stage(name, moment - before))
            before = moment
        return [*stages, Stage("return", self.answered - before)]
