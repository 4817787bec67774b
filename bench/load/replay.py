"""Traces of ``serve --record`` as schedules: what is in one, and its calls at their times. Pure.

Whoever reads the file gives its bytes in pieces, so a trace of any length takes no memory. It is
gone through once before the run, for what there is to be checked and shown, and then by each
generator process, which picks the calls of its own connections.

Mirror: tests/bench/load/test_replay.py.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any, Final

import msgspec

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.link import unwrap_json
from pronghorn.broker.wire.trace import (
    PARAMS_JSON,
    PARAMS_LEFT_OUT,
    Arrival,
    Lost,
    TraceStart,
    read_trace,
)

from .mix import Kind, PlannedCall
from .plan import CLIENTS_MAX, INTERVAL_MIN_S, Plan

SAMPLES: Final = 100
"""Parameter sets of a node that are kept of a trace, to be tried before the run."""

NODES_MAX: Final = 10_000
SPEED_MIN, SPEED_MAX = 0.001, 1000.0

Bodies = Mapping[str, tuple[bytes, ...]]
"""By a node's name, full or bare: what its calls send instead of what was recorded."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a trace.

    Attributes:
        kinds: Of each node its calls as weight, and a sample of what they send.
        calls: Calls and chunks that can be replayed.
        seconds: From the first to the last of them.
        clients: Connections that they came over.
        left_out: Those whose parameters are not there, so that they can't be replayed.
        lost: Those that the recording has missed.
    """

    kinds: tuple[Kind, ...]
    calls: int
    seconds: float
    clients: int
    left_out: int
    lost: int

    def plan(self, speed: float, **said: Any) -> Plan:
        """Make the plan of its replay.

        Args:
            speed: Seconds of the trace in a second.
            said: What the user has said of the fields of `Plan`; a duration ends it early.

        Raises:
            InvalidArgumentError: Something is beyond its limits.
        """
        if not SPEED_MIN <= speed <= SPEED_MAX:
            raise InvalidArgumentError(f"speed {speed:g}: expected {SPEED_MIN:g} to {SPEED_MAX:,g}")
        whole_s = self.seconds / speed
        warmup_s = said.setdefault("warmup_s", 0.0)
        # Up to the next millisecond, so that the last call lies within.
        until_s = (int(whole_s * 1000) + 1) / 1000
        said.setdefault("duration_s", max(INTERVAL_MIN_S, round(until_s - warmup_s, 3)))
        said.setdefault("clients", max(1, said.get("processes", 1), min(self.clients, CLIENTS_MAX)))
        rate = self.calls / max(whole_s, INTERVAL_MIN_S)
        return Plan(profile="replay", rate=round(rate, 6), speed=speed, **said)


def survey(pieces: Iterable[bytes], origin: str, instead: Bodies | None = None) -> Trace:
    """Go through a trace.

    Args:
        pieces: Its bytes, cut anywhere.
        origin: What errors call it.
        instead: What the calls are to send instead of what was recorded.

    Raises:
        InvalidArgumentError: It is none, or nothing in it can be replayed.
    """
    digest = hashlib.sha256()
    random = Random(1)
    counts: dict[str, int] = {}
    samples: dict[str, list[bytes]] = {}
    clients: set[int] = set()
    first_ns = last_ns = left_out = lost = 0
    for record, client, bodies in _read(_digested(pieces, digest.update), origin, instead):
        if isinstance(record, Lost):
            lost += record.count
        elif not bodies:
            left_out += 1
        else:
            node = record.node
            if not counts:
                first_ns = record.at_ns
            last_ns = max(last_ns, record.at_ns)
            clients.add(client)
            counts[node] = count = counts.get(node, 0) + 1
            if len(counts) > NODES_MAX:
                raise InvalidArgumentError(f"{origin} has calls of more than {NODES_MAX:,} nodes")
            _sample(samples.setdefault(node, []), count, record, bodies, random)
    if not counts:
        raise InvalidArgumentError(
            f"{origin} has no call that can be replayed"
            + (f": the parameters of its {left_out:,} were not recorded" if left_out else "")
        )
    for bodies in (instead or {}).values():
        for body in bodies:
            digest.update(body)
    return Trace(
        kinds=tuple(
            Kind(node, float(count), tuple(samples[node]), digest.hexdigest()[:16])
            for node, count in counts.items()
        ),
        calls=sum(counts.values()),
        seconds=(last_ns - first_ns) / 1e9,
        clients=len(clients),
        left_out=left_out,
        lost=lost,
    )


def replayed(
    pieces: Iterable[bytes],
    origin: str,
    plan: Plan,
    kinds: list[str],
    process: int,
    instead: Bodies | None = None,
) -> Iterator[PlannedCall]:
    """Give one process's share of the calls of a trace that was surveyed, at the plan's times."""
    numbers = {node: number for number, node in enumerate(kinds)}
    end_ns = round(plan.planned_s * 1e9)
    begin_ns: int | None = None
    cursors = dict.fromkeys(kinds, 0)
    at_ns = 0
    for record, client, bodies in _read(pieces, origin, instead):
        if isinstance(record, Lost) or not bodies:
            continue
        begin_ns = record.at_ns if begin_ns is None else begin_ns
        at_ns = max(at_ns, round((record.at_ns - begin_ns) / plan.speed))
        if at_ns >= end_ns:
            return
        cursor = cursors[record.node]
        cursors[record.node] = cursor + 1
        lane = (client - 1) % plan.clients
        if lane % plan.processes == process:
            body = bodies[cursor % len(bodies)]
            is_chunk = record.items >= 0 and instead is None
            yield PlannedCall(at_ns, numbers[record.node], body, lane // plan.processes, is_chunk)


def _read(
    pieces: Iterable[bytes], origin: str, instead: Bodies | None
) -> Iterator[tuple[Arrival | Lost, int, tuple[bytes, ...]]]:
    """Give what has come, the number of its client, and what to send: nothing if unknown."""
    before = most = 0  # clients of earlier brokers; of all so far
    for record in read_trace(pieces, origin):
        if isinstance(record, TraceStart):
            before = most
        elif isinstance(record, Lost):
            yield record, 0, ()
        else:
            client = before + record.client
            most = max(most, client)
            yield record, client, _bodies(record, origin, instead)


def _bodies(record: Arrival, origin: str, instead: Bodies | None) -> tuple[bytes, ...]:
    if instead is not None:
        node = record.node
        return instead.get(node) or instead.get(node.rpartition(".")[2]) or ()
    if record.codec == PARAMS_LEFT_OUT:
        return ()
    if record.codec != PARAMS_JSON:
        return (bytes(record.params),)
    try:
        return (msgspec.msgpack.encode(msgspec.json.decode(unwrap_json(record.params))),)
    except DECODE_ERRORS as error:
        raise InvalidArgumentError(f"{origin}: parameters of {record.node}: {error}") from error


def _sample(
    samples: list[bytes], count: int, record: Arrival, bodies: tuple[bytes, ...], random: Random
) -> None:
    """Keep what one of so many calls sends, or not: each is kept with the same chance."""
    place = len(samples) if count <= SAMPLES else random.randrange(count)
    if place >= SAMPLES:
        return
    body = bodies[(count - 1) % len(bodies)]
    if record.items >= 0 and record.codec != PARAMS_LEFT_OUT:
        try:
            items = msgspec.msgpack.decode(body, type=list[msgspec.Raw])
        except DECODE_ERRORS:
            return  # the broker, or a worker, says what is wrong with it
        if not items:
            return
        body = bytes(items[0])
    samples[place : place + 1] = [body]


def _digested(pieces: Iterable[bytes], update: Any) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece
