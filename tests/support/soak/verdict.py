"""What nodes did, against what their callers were told: the oracle of the soaks. Pure.

It knows nothing of messages, slots and processes, only the logs of both ends and which callers
could not listen.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import msgspec

from .ledger import CALLS_PER_CALLER
from .records import Event, Outcome, Record, Told

LATE_S = 3.0
"""A caller is told at most so long after its deadline: the broker tells it within milliseconds, the
client itself a second later if it does not, and the machine is busy."""

HANG_S = 30.0  # no call lasts so long: whatever befalls its worker or broker is over by then
CANCELLED_S = 3.0  # after its client was gone nothing of it begins any more
QUOTED_MAX = 20  # violations of a kind that are told one by one

_ALLOWED = {
    Outcome.RESULT: {""},
    Outcome.NOT_STARTED: {
        "",
        "BROKER_LOST",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "own close",
    },
    Outcome.MAYBE_EXECUTED: {
        "BROKER_LOST",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "NODE_ERROR",  # struck by a signal's handler, or out of memory in our own code
        "WORKER_LOST",
        "own close",
    },
    Outcome.EXECUTED: {"NODE_ERROR", "WORKER_LOST"},
}
"""Codes of errors that may come with an outcome."""


class Listeners(msgspec.Struct, frozen=True, kw_only=True):
    """Which callers could not listen to what they were told.

    Attributes:
        vanished_ns: Number of a caller that was killed -> when.
        stopped: Numbers of those that stood still for a while, and so may have heard late.
        broker_died: Whether a broker was killed at any time.
    """

    vanished_ns: Mapping[int, int] = {}
    stopped: Collection[int] = ()
    broker_died: bool = False


class Verdict(msgspec.Struct, kw_only=True):
    """What became of all calls.

    Attributes:
        calls: How many there were.
        told: Outcome -> how often callers were told it.
        codes: Code of an error -> how often.
        late_s: Longest time from a deadline until its caller was told of it.
        violations: Broken promises, for people.
    """

    calls: int = 0
    told: dict[str, int] = {}
    codes: dict[str, int] = {}
    late_s: float = 0.0
    violations: list[str] = []


class _Call:
    """All that is known of one call."""

    __slots__ = ("begun", "begun_ns", "ended", "opened_ns", "timeout_us", "told", "told_ns")

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.begun_ns = 0  # when it began last
        self.opened_ns = 0
        self.timeout_us = 0
        self.told: list[int] = []
        self.told_ns = 0


def judge(records: Iterable[Record], listeners: Listeners) -> Verdict:
    """Judge all calls of a run that is over: nothing runs any more, nobody waits."""
    calls: dict[int, _Call] = {}
    for record in records:
        call = calls.get(record.call)
        if call is None:
            call = calls[record.call] = _Call()
        _take_in(call, record)
    told: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    problems: dict[str, list[int]] = {}
    late_ns = 0
    for number, call in calls.items():
        caller = number // CALLS_PER_CALLER
        for value in call.told:
            one = Told.of_value(value)
            told[one.outcome.name.lower()] += 1
            if one.code:
                codes[one.code] += 1
            timed = call.timeout_us and caller not in listeners.stopped
            if timed and one.outcome != Outcome.WITHDRAWN:
                late_ns = max(late_ns, call.told_ns - call.opened_ns - call.timeout_us * 1000)
        for problem in _problems(call, caller, listeners):
            problems.setdefault(problem, []).append(number)
    return Verdict(
        calls=len(calls),
        told=dict(told),
        codes=dict(codes),
        late_s=late_ns / 1e9,
        violations=[_quoted(problem, numbers) for problem, numbers in problems.items()],
    )


def _take_in(call: _Call, record: Record) -> None:
    if record.event == Event.BEGUN:
        call.begun += 1
        call.begun_ns = record.ns
    elif record.event == Event.ENDED:
        call.ended += 1
    elif record.event == Event.OPENED:
        call.opened_ns = record.ns
        call.timeout_us = record.value
    else:
        call.told.append(record.value)
        call.told_ns = record.ns


def _problems(call: _Call, caller: int, listeners: Listeners) -> Iterable[str]:
    """Give the promises that were broken for one call."""
    if call.begun > 1:
        yield f"ran {call.begun} times"
    if call.ended > call.begun:
        yield "ended without having begun"
    if not call.opened_ns:
        yield "was never made"
    answers = [Told.of_value(value) for value in call.told]
    heard = [one for one in answers if one.outcome != Outcome.WITHDRAWN]
    vanished_ns = listeners.vanished_ns.get(caller)
    if not answers and vanished_ns is None:
        yield "was never answered"
    if len(heard) > 1:
        yield f"was answered {len(heard)} times"
    if vanished_ns is not None and call.begun_ns > vanished_ns + CANCELLED_S * 1e9:
        yield f"began more than {CANCELLED_S:g} s after its client was gone"
    if answers and caller not in listeners.stopped:
        lasted_s = (call.told_ns - call.opened_ns) / 1e9
        if call.timeout_us and lasted_s > call.timeout_us / 1e6 + LATE_S:
            yield f"was told more than {LATE_S:g} s after its deadline"
        elif lasted_s > HANG_S:
            yield f"lasted more than {HANG_S:g} s"
    for one in heard:
        yield from _untruths(call, one, listeners)


def _untruths(call: _Call, told: Told, listeners: Listeners) -> Iterable[str]:
    """Give what is wrong with what its caller was told."""
    code = f", code {told.code}" if told.code else ""
    allowed = _ALLOWED.get(told.outcome)
    if allowed is None:
        yield f"was told {told.outcome.name}{code}"
    elif told.code not in allowed or (told.code == "BROKER_LOST" and not listeners.broker_died):
        yield f"was told {told.outcome.name}{code}, for which there is no reason"
    elif told.outcome == Outcome.NOT_STARTED and call.begun:
        yield f"was told NOT_STARTED{code}, and ran"
    elif told.outcome in (Outcome.RESULT, Outcome.EXECUTED) and not call.ended:
        yield f"was told {told.outcome.name}{code}, and was not run to its end"


def _quoted(problem: str, numbers: list[int]) -> str:
    few = ", ".join(map(str, numbers[:QUOTED_MAX]))
    more = ", …" if len(numbers) > QUOTED_MAX else ""
    return f"{len(numbers)} calls: each {problem} ({few}{more})"
