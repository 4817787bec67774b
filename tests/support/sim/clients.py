"""A client of ours: the real core, and what its shells do around it."""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError, PronghornError
from pronghorn.broker.wire.messages import Error, MapResult, Part, Result
from pronghorn.client.completions import Completion
from pronghorn.client.core import ClientCore
from pronghorn.client.inbox import Inbox
from pronghorn.client.mapping import Chunk, MapPlan
from pronghorn.client.stopwatch import Extras

from .connections import Connection
from .dice import Dice
from .nodes import (
    DURABILITIES,
    INLINE_NAMES,
    NAMES,
    RUN_NAMES,
    STREAMING,
    duration,
    parts_of,
)
from .oracle import Record

if TYPE_CHECKING:
    from .world import World

_FLUSH_S = 0.000_05  # longest time until what a turn of the loop produced is sent
_RECONNECT_S = 0.01
_PAUSE_S = 0.02
_READ_S = 0.005  # longest time until a slow reader reads on
_LATE_S = 0.05  # longest time from a deadline until the caller is told, on a rough day
_PADS = (0, 0, 0, 0, 0, 0, 40, 1000, 9_000, 15_000, 20_000)  # bytes; the last is over the limit
_TIMEOUTS_MS = (0.05, 1.0, 5.0, 30.0, 3_600_000.0)
_HANG_TIMEOUTS_MS = (5.0, 30.0, 100.0)
_MAP_ITEMS_MAX = 60


class _Mapping:
    """One map under way, and what its results have to be."""

    def __init__(self, plan: MapPlan, records: list[Record], *, ordered: bool) -> None:
        self.plan = plan
        self.records = records
        self.ordered = ordered
        self.given_out = 0  # results


class _Reading:
    """A stream that is read."""

    def __init__(self, request_id: int, inbox: Inbox) -> None:
        self.request_id = request_id
        self.inbox = inbox
        self.parts: list[int] = []  # taken
        self.is_planned = False  # whether it will be read on
        self.is_given_up = False  # from then on what comes of it is dropped


Handle = Record | tuple[_Mapping, Chunk]


class OurClient:
    """A client of ours: the core, and what its shells (client/connection.py) do around it."""

    def __init__(self, world: "World", dice: Dice) -> None:
        self.core: ClientCore[Handle] = ClientCore("simulated")
        self._world = world
        self._agenda = world.agenda
        self._dice = dice
        self._open: dict[int, Record] = {}  # request id -> call that may still be cancelled
        self._mappings: list[_Mapping] = []
        self._streams: dict[Record, _Reading] = {}  # those without their terminal reply
        self._gone = False
        self._flush_is_planned = False
        self._wake_up_at = inf  # when a deadline of what waits is looked at next
        self.connection: Connection | None = None
        self.connect()

    def connect(self) -> None:
        """Connect, or connect again, as soon as there is a broker."""
        if self._gone or self.connection is not None:
            return
        self.connection = connection = self._world.reach(
            self.on_message, lambda why: self._lost(connection, why), self._dice
        )
        if connection is None:
            self._agenda.after(self._dice.between(0.0, _RECONNECT_S), self.connect)
            return
        connection.to_broker.send([b""])  # the probe leaves by itself
        if self.core.info is None:
            self.core.hello()
        self._plan_flush()

    def call(self, dice: Dice, name: str | None = None) -> None:
        """Open one call, of any node or of the one that is named."""
        known = name is not None or not dice.chance(40)
        name = name or (dice.choose(NAMES) if known else "nobody")
        record = self._world.oracle.open(name, duration(name, dice) if known else 0.0, known=known)
        timeout_ms = dice.choose(_TIMEOUTS_MS) if dice.chance(4) else None
        self._call(record, timeout_ms, dice)

    def hang(self, dice: Dice) -> None:
        """Open a call that never returns by itself."""
        record = self._world.oracle.open(dice.choose(INLINE_NAMES), inf)
        self._call(record, dice.choose(_HANG_TIMEOUTS_MS), dice)

    def _call(self, record: Record, timeout_ms: float | None, dice: Dice) -> None:
        pad = dice.choose(_PADS)
        buffers: list[bytes] = [b"b" * (pad // 2)] * 2 if pad > 100 and dice.chance(3) else []
        body = {"uid": record.uid, "pad": b"" if buffers else b"p" * pad}
        record.due = self._due(timeout_ms)
        params = msgspec.msgpack.encode(body), buffers
        extras = None
        if dice.chance(8):
            record.durability = dice.choose(DURABILITIES)
            extras = Extras(durability=record.durability)
        try:
            request_id = self.core.call(
                record, record.name, params, timeout_ms, record.due, extras=extras
            )
        except InvalidArgumentError as error:
            self._world.oracle.tell(record, error)
            return
        self._open[request_id] = record
        self._world.log("call", self._name, request_id, record.name, record.uid)
        self._plan_flush()

    def run(self, dice: Dice) -> None:
        """Start a run, or call with a key, perhaps with that of a run that there is already."""
        oracle = self._world.oracle
        keyed = dice.chance(2)
        if keyed and oracle.runs and dice.chance(2):
            run = dice.choose(oracle.runs)
        else:
            name = dice.choose(RUN_NAMES)
            durability = dice.choose(DURABILITIES)
            if dice.chance(2):
                count = 1 + dice.below(_MAP_ITEMS_MAX)
                durations_s = [duration(name, dice) / 10 for _ in range(count)]
                run = oracle.open_map(name, durations_s, durability)
            else:
                run = oracle.open_run(name, duration(name, dice), durability)
            if not keyed:
                self._start(run, dice, key=None, starts=True)
                oracle.runs.remove(run)  # nobody else can start it
                oracle.started.append(run)
                return
        self._start(run, dice, key=f"key {run.uid}", starts=dice.chance(2))

    def _start(self, run: Record, dice: Dice, *, key: str | None, starts: bool) -> None:
        body: Any = {"uid": run.uid}
        if run.items:
            body, starts = [{"uid": item.uid, "of": run.uid} for item in run.items], True
        params = msgspec.msgpack.encode(body), ()
        extras = Extras(durability=run.durability, key=key, starts=starts, maps=bool(run.items))
        self._ask_of_run(run, "start" if starts else "call", run.name, params, extras, dice)

    def ask(self, dice: Dice) -> None:
        """Ask something of a run that is known."""
        known = [run for run in self._world.oracle.all_runs if run.run_id]
        if known:
            run = dice.choose(known)
            asks = dice.choose(("status", "result", "events", "cancel"))
            if run.items and dice.chance(2):
                asks = "items"
            params = msgspec.msgpack.encode([run.run_id]), ()
            self._ask_of_run(run, asks, f"pronghorn.run.{asks}", params, None, dice)

    def _ask_of_run(
        self,
        run: Record,
        asks: str,
        name: str,
        params: tuple[bytes, Sequence[bytes]],
        extras: Extras | None,
        dice: Dice,
    ) -> None:
        record = self._world.oracle.open(name, 0.0)
        record.run, record.asks = run, asks
        timeout_ms = dice.choose(_TIMEOUTS_MS) if dice.chance(4) else None
        record.due = self._due(timeout_ms)
        request_id = self.core.call(record, name, params, timeout_ms, record.due, extras=extras)
        self._open[request_id] = record
        self._world.log(asks, self._name, request_id, name, run.uid)
        self._plan_flush()

    def map(self, dice: Dice) -> None:
        """Begin a map."""
        name = dice.choose(NAMES)
        oracle = self._world.oracle
        count = 1 + dice.below(_MAP_ITEMS_MAX)
        records = [oracle.open(name, duration(name, dice) / 10) for _ in range(count)]
        ordered = dice.chance(2)
        plan = MapPlan(
            name,
            [{"uid": record.uid} for record in records],
            ordered=ordered,
            chunk_size=dice.choose((None, None, 1, 7, 100)),
            result_type=Any,
        )
        mapping = _Mapping(plan, records, ordered=ordered)
        self._mappings.append(mapping)
        self._go_on(mapping)

    def stream(self, dice: Dice) -> None:
        """Open a stream, of which parts are read now and then."""
        name = dice.choose(STREAMING)
        record = self._world.oracle.open(name, duration(name, dice))
        timeout_ms = dice.choose(_TIMEOUTS_MS) if dice.chance(4) else None
        record.due = self._due(timeout_ms)
        inbox = Inbox(
            parts=True,
            events=dice.chance(2),
            items=1 + dice.below(12),
            bytes_=1 + dice.below(100),
            event_count=2 + dice.below(6),
        )
        params = msgspec.msgpack.encode({"uid": record.uid}), ()
        request_id = self.core.call(record, name, params, timeout_ms, record.due, inbox)
        self._open[request_id] = record
        self._streams[record] = reading = _Reading(request_id, inbox)
        inbox.wake = lambda: self._read_soon(record, reading)
        self._world.log("stream", self._name, request_id, record.name, record.uid)
        self._plan_flush()

    def _read_soon(self, record: Record, reading: "_Reading") -> None:
        if not reading.is_planned:
            reading.is_planned = True
            delay_s = self._dice.between(0.0, _READ_S if self._dice.chance(3) else 0.0)
            self._agenda.after(delay_s, self._read, record, reading)

    def _read(self, record: Record, reading: "_Reading") -> None:
        """Take some of what has come of a stream, and give credit for it."""
        reading.is_planned = False
        if self._gone:
            return
        for _ in range(1 + self._dice.below(8)):
            self._take_part(reading)
        owed = reading.inbox.owed()
        if owed is not None:
            self.core.credit(reading.request_id, owed)
            self._plan_flush()
        if reading.inbox:
            self._read_soon(record, reading)

    @staticmethod
    def _take_part(reading: "_Reading") -> None:
        taken = reading.inbox.take()
        if taken is not None and isinstance(taken[0], Part):
            reading.parts.append(msgspec.msgpack.decode(taken[0].value))

    def _end_stream(self, record: Record, reading: "_Reading", reply: Any) -> None:
        """Check what has come of a stream that has its terminal reply."""
        while reading.inbox:
            self._take_part(reading)
        expected = parts_of(record.uid)
        if isinstance(reply, Result) and not reading.is_given_up:
            assert reading.parts == expected, "a stream that ends well is whole"
        else:
            assert reading.parts == expected[: len(reading.parts)], "a stream has no gaps"

    def cancel(self, dice: Dice) -> None:
        """Cancel one of the calls, or one that never was."""
        request_id = dice.choose(list(self._open)) if self._open else 10_000_000
        reading = self._streams.get(self._open[request_id]) if self._open else None
        if reading is not None:
            reading.is_given_up = True
        self._world.log("cancel", self._name, request_id)
        completion = self.core.cancel(request_id)
        if completion is not None:
            self._deliver([completion])
        self._plan_flush()

    def ping(self, dice: Dice) -> None:
        """Ask the broker for a sign of life."""
        self.core.ping(self._world.oracle.open("ping", 0.0))
        self._plan_flush()

    def goodbye(self, dice: Dice) -> None:
        """Leave as a program does that is done, its calls given up."""
        self._gone = True
        self._deliver(self.core.lost("the client was closed"))
        if self.connection is not None:
            self.core.goodbye()
            self._flush()
        self._let_go(lose=False)

    def vanish(self, dice: Dice) -> None:
        """End without a word: nobody waits for anything any more."""
        self._gone = True
        for mapping in self._mappings:
            for record in mapping.records:
                self._world.oracle.abandon(record)
        for completion in self.core.lost("the client has vanished"):
            if isinstance(completion.handle, Record):
                self._world.oracle.abandon(completion.handle)
        self._let_go(lose=dice.chance(2))

    def cut(self, dice: Dice) -> None:
        """Break the connection."""
        if self.connection is not None:
            self._lost(self.connection, "the connection broke")

    def _lost(self, connection: Connection | None, why: str) -> None:
        """Connect anew; the program may notice before, or by the broker's answer to the probe."""
        if self._gone or connection is not self.connection:
            return
        self._let_go(lose=True)
        if self.core.info is None or self._dice.chance(2):
            self._deliver(self.core.lost(why))
        if self._dice.chance(2):
            self.connect()
        else:
            self._agenda.after(self._dice.between(0.0, _RECONNECT_S), self.connect)

    def pause(self, dice: Dice) -> None:
        """Read nothing for a while."""
        if self.connection is not None:
            self.connection.to_client.hold_until(self._agenda.now + dice.between(0.0, _PAUSE_S))

    def on_message(self, frames: Sequence[bytes]) -> None:
        """Take in one message of the broker."""
        if not self._gone:
            self._deliver(self.core.receive(frames))
            self._plan_flush()

    def check(self) -> None:
        """Check what has to hold between any two events."""
        self.core.check_invariants()

    def check_drained(self) -> None:
        """Check that nothing is left once everything has come to its end."""
        assert self._gone or self.core.open_requests == 0
        if not self._gone:
            for mapping in self._mappings:
                assert mapping.plan.finished
                assert mapping.given_out == len(mapping.records)

    @property
    def _name(self) -> str:
        return self.connection.peer.decode() if self.connection else "unconnected"

    def _let_go(self, *, lose: bool) -> None:
        if self.connection is not None:
            self._world.disconnect(self.connection, lose=lose)
            self.connection = None

    def _go_on(self, mapping: _Mapping) -> None:
        for chunk in mapping.plan.next_chunks():
            timeout_ms = self._dice.choose(_TIMEOUTS_MS) if self._dice.chance(20) else None
            handle, due = (mapping, chunk), self._due(timeout_ms)
            self.core.chunk(handle, mapping.plan.node, chunk.body, timeout_ms, due)
        self._plan_flush()

    def _deliver(self, completions: list[Completion[Handle]]) -> None:
        oracle = self._world.oracle
        for completion in completions:
            handle, reply = completion.handle, completion.reply
            if isinstance(handle, Record):
                assert not isinstance(reply, MapResult)
                assert handle.due is None or self._agenda.now < handle.due + _LATE_S, "told late"
                _check_refusal(reply)
                if handle in self._streams:
                    self._end_stream(handle, self._streams.pop(handle), reply)
                oracle.tell(handle, reply)
            else:
                mapping, chunk = handle
                _check_refusal(reply)
                mapping.plan.replied(chunk, reply)
                self._take_results(mapping, chunk.first)
                if not self._gone:
                    self._go_on(mapping)
        for request_id in [key for key, record in self._open.items() if record.told]:
            del self._open[request_id]

    def _take_results(self, mapping: _Mapping, first: int) -> None:
        """Judge what a map gives out after the reply to the chunk that begins with that item."""
        oracle = self._world.oracle
        for results in mapping.plan.results():
            number = mapping.given_out if mapping.ordered else first
            mapping.given_out += len(results.values)
            for record, result in zip(mapping.records[number:], results.values, strict=False):
                if isinstance(result, PronghornError):
                    oracle.tell(record, result)
                else:
                    oracle.tell_value(record, result)

    def _due(self, timeout_ms: float | None) -> float | None:
        return None if timeout_ms is None else self._agenda.now + timeout_ms / 1000

    def _plan_flush(self) -> None:
        if not self._flush_is_planned:
            self._flush_is_planned = True
            self._agenda.after(self._dice.between(0.0, _FLUSH_S), self._flush)

    def _flush(self) -> None:
        self._flush_is_planned = False
        now = self._agenda.now
        self._deliver(self.core.expire(now))
        while frames := self.core.outgoing(now):
            if self.connection is None:
                self._deliver(self.core.lost("there is no connection"))
                return
            self.connection.to_broker.send([bytes(frame) for frame in frames])
        due = self.core.next_due()
        if due < self._wake_up_at:
            self._wake_up_at = due
            self._agenda.at(due, self._wake_up)

    def _wake_up(self) -> None:
        self._wake_up_at = inf
        self._flush()


def _check_refusal(reply: object) -> None:
    if isinstance(reply, Error) and reply.code == "RESOURCE_EXHAUSTED":
        assert "its grant" not in reply.message, "a client of ours keeps to its grant"
