"""Notes when a call is sent and answered, and what the broker tells of the time between. Pure.

Mirror: tests/client/test_stopwatch.py.
"""

from collections.abc import Callable
from types import EllipsisType
from typing import Generic, NamedTuple, TypeVar, get_args

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.limits import AFFINITY_CHARACTERS_MAX, PRIORITIES
from pronghorn.broker.wire.messages import Durability, Times
from pronghorn.broker.wire.runs import KEY_BYTES_MAX
from pronghorn.broker.wire.waterfall import Waterfall

R = TypeVar("R")

_DURABILITIES = get_args(Durability)


class Traced(NamedTuple, Generic[R]):
    """What `trace` returns.

    Attributes:
        result: What `call` would have returned.
        waterfall: Where the time went; `None` if the broker does not tell, or its clock is not
            that of this host.
    """

    result: R
    waterfall: Waterfall | None


class Stopwatch:
    """Of one call; whoever makes the call shows it what happens.

    Args:
        clock: Tells the time: the monotonic clock in ns.
    """

    __slots__ = ("_answered", "_asked", "_clock", "_sent", "_times")

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._asked = self._sent = clock()
        self._times: Times | None = None
        self._answered = 0

    def sent(self) -> None:
        """Note that the call is about to leave; of several times the last one counts."""
        self._sent = self._clock()

    def told(self, times: Times) -> None:
        """Note what the broker tells."""
        self._times = times

    def answered(self) -> None:
        """Note that the reply is here."""
        self._answered = self._clock()

    def ran(self, run_ns: int) -> None:
        """Note that a node has just run for so long in this process, with nothing in between."""
        now = self._clock()
        self.told(Times(0, self._sent, self._sent, max(self._sent, now - run_ns), now, now))
        self.answered()

    def waterfall(self) -> Waterfall | None:
        """Put all together."""
        times = self._times
        if times is None:
            return None
        told = (times.received, times.given, times.begun, times.ended, times.replied)
        moments = [moment for moment in told if moment is not None]
        if not self._sent <= min(moments) <= max(moments) <= self._answered:
            return None
        return Waterfall(
            asked=self._asked,
            sent=self._sent,
            received=times.received,
            given=times.given,
            begun=times.begun,
            ended=times.ended,
            replied=times.replied,
            answered=self._answered,
        )


class Extras(NamedTuple):
    """What few calls have.

    Attributes:
        traceparent: Of the trace that it is part of.
        stopwatch: Is told where its time goes.
        priority: Its band, 0 first.
        affinity: Calls of the same one go to the same worker.
        durability: What is promised of its result.
        key: Idempotency key.
        starts: Whether it starts a run, and does not wait for its result.
        maps: Whether that is a map, so that its params are those of many items.
    """

    traceparent: str | None = None
    stopwatch: Stopwatch | None = None
    priority: int | None = None
    affinity: str | None = None
    durability: Durability | None = None
    key: str | None = None
    starts: bool = False
    maps: bool = False


def with_options(
    extras: Extras | None,
    *,
    priority: int | EllipsisType | None = ...,
    affinity: str | EllipsisType | None = ...,
    traceparent: str | EllipsisType | None = ...,
    durability: Durability | EllipsisType | None = ...,
    key: str | EllipsisType | None = ...,
) -> Extras | None:
    """Return extras with those changed that are not ``...``; `None` if there are none.

    Raises:
        InvalidArgumentError: One makes no sense.
    """
    changed = extras or Extras()
    if priority is not ...:
        if priority is not None and not (type(priority) is int and 0 <= priority < PRIORITIES):
            raise InvalidArgumentError(
                f"priority is {priority!r}; it must be 0, which goes first, to {PRIORITIES - 1}"
            )
        changed = changed._replace(priority=priority)
    if affinity is not ...:
        limit = AFFINITY_CHARACTERS_MAX
        if affinity is not None and not (isinstance(affinity, str) and len(affinity) <= limit):
            raise InvalidArgumentError(
                f"affinity is {affinity!r}; it must be a text of at most {limit} characters"
            )
        changed = changed._replace(affinity=affinity)
    if traceparent is not ...:
        changed = changed._replace(traceparent=traceparent)
    if durability is not ...:
        if durability is not None and durability not in _DURABILITIES:
            known = ", ".join(_DURABILITIES)
            raise InvalidArgumentError(f"durability is {durability!r}; it must be one of {known}")
        changed = changed._replace(durability=durability)
    if key is not ...:
        if key is not None and not (isinstance(key, str) and 0 < _size(key) <= KEY_BYTES_MAX):
            raise InvalidArgumentError(
                f"key is {key!r:.300}; it must be a text of 1 to {KEY_BYTES_MAX} bytes"
            )
        changed = changed._replace(key=key)
    return None if changed == Extras() else changed


def recorded(
    extras: Extras | None, durability: Durability | None, key: str | None
) -> Extras | None:
    """Return extras with the options of a recording that are given.

    Raises:
        InvalidArgumentError: One makes no sense.
    """
    return with_options(
        extras,
        durability=... if durability is None else durability,
        key=... if key is None else key,
    )


def is_recorded(extras: Extras) -> bool:
    """Whether what goes with these is recorded."""
    return extras.durability not in (None, "none") or extras.key is not None


def _size(key: str) -> int:
    return len(key.encode("utf-8", "surrogatepass"))
