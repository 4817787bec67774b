"""Conditions such as ``p99>5ms`` and what a record says of them. Pure.

Mirror: tests/bench/load/test_verdict.py.
"""

import operator
import re
from collections.abc import Callable
from math import ceil
from typing import Final

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError

from .record import BEYOND_MIN, PERCENTS, Record

_TEXT = re.compile(r"\s*([a-z0-9_.]+)\s*(<=|>=|<|>)\s*([0-9.]+)\s*(%|[a-z/]*)\s*")
_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TIMES: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_PERCENTILES: Final = {f"p{percent:g}": percent for percent in PERCENTS}
_DURATIONS: Final = ("max", "mean")
_COUNTS: Final = ("errors", "unsent", "late", "timeouts")
_SHARES: Final = ("error_rate",)
_RATES: Final = ("achieved",)


class Condition(msgspec.Struct, frozen=True):
    """A metric, how it is compared, and with what: ns, a count, a share or calls a second."""

    text: str
    metric: str
    symbol: str
    limit: float

    @property
    def calls_least(self) -> int:
        """How many calls a run must have to be judged by it."""
        percent = _PERCENTILES.get(self.metric)
        return 1 if percent is None else ceil(round(BEYOND_MIN * 100 / (100 - percent), 6))

    @property
    def is_limit(self) -> bool:
        """Whether it is one that a service leaves as it gets more to do: ``p99<5ms``."""
        return (self.symbol in ("<", "<=")) == (self.metric not in _RATES)

    def holds(self, record: Record) -> bool | None:
        """Tell whether it holds; `None` where the run had too few calls to tell."""
        value = value_of(self.metric, record)
        return None if value is None else _OPERATORS[self.symbol](value, self.limit)


def parse_condition(text: str) -> Condition:
    """Parse ``METRIC OPERATOR VALUE``.

    Raises:
        InvalidArgumentError: It is something else.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise InvalidArgumentError(
            f"{text!r} is no condition: expected such as p99>5ms or errors>0"
        )
    metric, symbol, digits, unit = found.groups()
    try:
        number = float(digits)
    except ValueError:
        raise InvalidArgumentError(f"{text!r}: {digits} is no number") from None
    if metric in _PERCENTILES or metric in _DURATIONS:
        if unit not in _TIMES:
            raise InvalidArgumentError(f"{text!r}: {metric} wants a unit: {', '.join(_TIMES)}")
        return Condition(text, metric, symbol, number * _TIMES[unit])
    if metric in _SHARES and unit in ("%", ""):
        return Condition(text, metric, symbol, number / 100 if unit else number)
    if (metric in _COUNTS and not unit) or (metric in _RATES and unit in ("", "/s")):
        return Condition(text, metric, symbol, number)
    known = (*_PERCENTILES, *_DURATIONS, *_COUNTS, *_SHARES, *_RATES)
    if metric in known:
        raise InvalidArgumentError(f"{text!r}: {metric} has no unit {unit!r}")
    raise InvalidArgumentError(f"{text!r}: there is no {metric}, but {', '.join(known)}")


def value_of(metric: str, record: Record) -> float | None:
    """Return what a record says of a metric; `None` where it had too few calls."""
    if metric in _PERCENTILES:
        return record.latency.at(_PERCENTILES[metric])
    if metric == "timeouts":
        return record.errors.get("DEADLINE_EXCEEDED", 0) + record.errors.get("UNANSWERED", 0)
    if metric in _COUNTS:
        return record.counts[metric]
    if metric == "achieved":
        return record.achieved_per_s
    if metric == "error_rate":
        planned = record.counts["planned"]
        return (record.counts["errors"] + record.counts["unsent"]) / planned if planned else None
    if not record.latency.count:
        return None
    return record.latency.max_ns if metric == "max" else record.latency.mean_ns


def failures(conditions: list[Condition], record: Record) -> list[str]:
    """Say which conditions to fail upon hold, or can't be judged: that is no success either."""
    found: list[str] = []
    for condition in conditions:
        holds = condition.holds(record)
        if holds is None:
            found.append(
                f"{condition.text} can't be judged: fewer than {BEYOND_MIN} of "
                f"{record.latency.count:,} calls lie beyond it"
            )
        elif holds:
            found.append(f"{condition.text} holds: {_shown(condition.metric, record)}")
    if conditions and not record.valid:
        found += record.problems
    return found


def _shown(metric: str, record: Record) -> str:
    value = value_of(metric, record)
    assert value is not None
    if metric in _PERCENTILES or metric in _DURATIONS:
        return f"{metric} is {value / 1e6:.3f} ms"
    return f"{metric} is {value:g}"
