"""A worker process as far as others can see it: a link, a page, and a loop that may be blocked.

Around the real core stands what the shell (worker/runtime.py) does, in events of its own wherever
the process could die or others could act in between.
"""

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.errors import ErrorDetails, NodeError
from pronghorn.broker.wire.items import ItemResults
from pronghorn.broker.wire.link import (
    CODEC_JSON,
    Alive,
    AskAlive,
    CancelNested,
    CancelRun,
    ChunkDone,
    Done,
    Emitted,
    Failed,
    MoreCredit,
    Nested,
    NestedDone,
    NestedFailed,
    Progressed,
    Ready,
    RunCall,
    RunChunk,
    RunContext,
    RunHere,
    RunStream,
    Skipped,
    Stop,
    ToBroker,
    ToWorker,
    Yielded,
    unwrap_json,
    wrap_json,
)
from pronghorn.broker.wire.messages import Error, ItemFailure, Result
from pronghorn.broker.wire.table import NodeTable
from pronghorn.worker.core import WorkerCore

from .dice import Dice
from .network import Channel
from .nodes import CALLERS, DEPTH_MAX, NAMES, duration, parts_of
from .oracle import Record
from .pages import ITEMS_BYTES_MAX, InterleavedPage, make_memory

if TYPE_CHECKING:
    from .world import World

_TURN_S = 0.000_02  # longest time from one thing that a free loop does to the next
_BOOT_S = 0.004


class Doom(Enum):
    """Where a worker is going to die."""

    NONE = 0
    BEFORE_CLAIM = 1
    IN_CLAIM = 2
    AFTER_CLAIM = 3
    BEFORE_SEND = 4
    AFTER_SEND = 5


class _Body:
    """A node that runs, and makes calls one after the other."""

    __slots__ = ("depth", "left", "record", "running", "then", "token", "waits")

    def __init__(
        self,
        record: Record,
        token: int,
        depth: int,
        running: "_Running | None",
        then: Callable[[], None],
        *,
        calls: int,
        waits: bool,
    ) -> None:
        self.record = record
        self.token = token
        self.depth = depth
        self.running = running  # what can be cancelled; None for what holds up the worker
        self.then = then  # what to do at its end
        self.left = calls  # that it has still to make
        self.waits = waits  # whether it holds up the worker meanwhile


class _Running:
    """A request that runs beside others; the handle that the core is given."""

    __slots__ = ("begun", "cancelled", "message")

    def __init__(self, message: RunCall | RunChunk) -> None:
        self.message = message
        self.begun = False  # whether its first step was made
        self.cancelled = False


class _Streaming(_Running):
    """A streaming node that runs."""

    __slots__ = ("bytes", "events", "is_planned", "items", "left", "record", "runs")

    def __init__(self, message: RunStream, record: Record) -> None:
        super().__init__(message)
        self.record = record
        self.items, self.bytes, self.events = message.items, message.bytes, message.events
        self.left = list(parts_of(record.uid))  # parts that it has not yielded
        self.is_planned = False  # whether its next step is
        self.runs = False  # whether it is in a step, holding up the worker


class FakeWorker:
    """One worker, from its start to its death."""

    def __init__(
        self,
        world: "World",
        worker_id: int,
        dice: Dice,
        *,
        table: NodeTable,
        generation: int,
        digest: str,
    ) -> None:
        self.id = worker_id
        self.table = table
        self.generation = generation
        self.retired = False  # whether the supervisor wants it to end
        self.alive = True
        self.doom = Doom.NONE
        memory = make_memory()
        self.brokers_page = InterleavedPage(memory, self._in_revoke)
        self._page = InterleavedPage(memory, self._in_claim)
        self.core: WorkerCore[_Running] = WorkerCore(self._page)
        self._world = world
        self.dice = dice
        self._agenda = world.agenda
        self._inbox: deque[ToWorker] = deque()  # read from the link, not yet begun
        self._blocked = False  # in an inline node, or in the middle of a claim
        self._waiting = False  # whether the inline node that blocks it waits for another
        self._calls = 0  # made so far
        # id -> call of a node whose reply has not come, and its caller
        self._open: dict[int, tuple[Record, _Body]] = {}
        self._here: list[tuple[Record, _Body]] = []  # those that run right here, and their callers
        self._turn_planned = False
        self._when_free: list[tuple[Callable[..., None], tuple[Any, ...]]] = []  # if blocked
        self.to_worker = Channel(world.agenda, dice, self._receive)
        self.to_broker = Channel(world.agenda, dice, self._at_broker)
        world.agenda.after(dice.between(0.0, _BOOT_S), self._boot, digest)

    def claim(self, slot: int, token: int) -> bool:
        """Claim a request; whether it may run."""
        return self.core.begin(slot, token, int(self._agenda.now * 1e9))

    def die(self) -> None:
        """End at once: what it has sent can still be read, what it has not read is lost."""
        if self.alive:
            self.alive = False
            for record, _ in (*self._open.values(), *self._here):
                self._world.oracle.abandon(record)
            self.to_worker.close(lose=True)
            self.to_broker.close(lose=False)
            self._world.on_worker_died(self)

    # --- its loop -------------------------------------------------------------------------------

    def _boot(self, digest: str) -> None:
        if self.alive:
            self.say(Ready(self.id, 10_000 + self.id, digest))

    def _receive(self, message: ToWorker) -> None:
        if self._waiting and not isinstance(message, RunCall | RunChunk | Stop | AskAlive):
            self._handle(message)
        else:
            self._inbox.append(message)
            self._plan_turn()

    def _plan_turn(self) -> None:
        if self._inbox and not (self._turn_planned or self._blocked):
            self._turn_planned = True
            self._agenda.after(self.dice.between(0.0, _TURN_S), self._turn)

    def _turn(self) -> None:
        self._turn_planned = False
        if self.alive and not self._blocked and self._inbox:
            self._handle(self._inbox.popleft())
            self._plan_turn()

    def _handle(self, message: ToWorker) -> None:
        if isinstance(message, CancelRun):
            running = self.core.cancelled(message.token)
            if running is not None:
                self._cancel(running)
            return
        if isinstance(message, NestedDone | NestedFailed | RunHere):
            self._replied(message)
            return
        if isinstance(message, Stop):
            self.core.stop()
            self._end_if_drained()
            return
        if isinstance(message, MoreCredit):
            self._take_credit(message)
            return
        if isinstance(message, AskAlive):
            self.say(Alive())
            return
        if isinstance(message, RunContext):
            self._world.oracle.fenced(message)
            return
        assert isinstance(message, RunCall | RunChunk)
        if self._dies(Doom.BEFORE_CLAIM):
            return
        name = self.table.nodes[message.node].name
        for record in self._records(message):
            assert name == f"m.{record.name.removeprefix('m.')}", "it is of another node"
            record.claimed = True
        self._blocked = True
        begun = self.claim(message.slot, message.token)
        self._unblock()
        if not self.alive or (begun and self._dies(Doom.AFTER_CLAIM)):
            return
        self._world.log("claim", self.id, message.token, begun)
        if not begun:
            self.say(Skipped(message.token))
        elif isinstance(message, RunStream):
            streaming = _Streaming(message, self._records(message)[0])
            self.core.running(message.token, streaming)
            self._plan_step(streaming)
        elif self.table.nodes[message.node].kind != "inline":
            self._start(message)
        elif isinstance(message, RunChunk):
            self._blocked = True
            self._run_items(message, self._records(message), 0, None)
        else:
            self._blocked = True
            (record,) = self._records(message)
            end = partial(self._end, message, record)
            self._run_body(record, message.token, message.depth, None, end, waits=True)

    # --- nodes that call nodes ------------------------------------------------------------------

    def _run_body(
        self,
        record: Record,
        token: int,
        depth: int,
        running: "_Running | None",
        then: Callable[[], None],
        *,
        waits: bool,
    ) -> None:
        """Run a node: its own time, then its calls."""
        self._world.oracle.ran(record)
        calls = 0
        if record.name in CALLERS and depth < DEPTH_MAX and not self._world.draining:
            calls = self.dice.below(4)
        body = _Body(record, token, depth, running, then, calls=calls, waits=waits)
        self._agenda.after(record.duration_s, self._go_on, body)

    def _go_on(self, body: _Body) -> None:
        """Make the next call of a node, or end it."""
        if not self.alive or (body.running is not None and body.running.cancelled):
            return
        if not body.waits and self._blocked:
            self._when_free.append((self._go_on, (body,)))
            return
        if not body.left:
            body.then()
            return
        body.left -= 1
        dice = self.dice
        name = dice.choose((*NAMES, *CALLERS, *CALLERS))
        record = self._world.oracle.open(name, duration(name, dice))
        self._calls += 1
        self._open[self._calls] = (record, body)
        self._waiting = self._waiting or body.waits
        params = Raw(msgspec.msgpack.encode({"uid": record.uid}))
        left_ms = dice.between(0.05, 20.0) if dice.chance(10) else None
        depth = body.depth + 1
        self.say(Nested(self._calls, body.token, name, params, left_ms, body.waits, depth))

    def _replied(self, reply: NestedDone | NestedFailed | RunHere) -> None:
        record, body = self._open.pop(reply.id, (None, None))
        if record is None or body is None:  # it was cancelled, and this was under way
            return
        if body.waits:
            self._waiting = False
        oracle = self._world.oracle
        if isinstance(reply, RunHere):
            if record.name not in self.table.names():
                oracle.tell_error(record, "NOT_FOUND", "not_started", "not here either")
                self._agenda.after(self.dice.between(0.0, _TURN_S), self._go_on, body)
                return
            record.claimed = True
            self._here.append((record, body))
            end = partial(self._end_here, record, body)
            depth = body.depth + 1
            self._run_body(record, body.token, depth, body.running, end, waits=body.waits)
            return
        if isinstance(reply, NestedDone):
            oracle.tell(record, Result(0, reply.value))
        else:
            oracle.tell(record, Error(0, reply.code, reply.message, reply.details))
        self._agenda.after(self.dice.between(0.0, _TURN_S), self._go_on, body)

    def _end_here(self, record: Record, body: _Body) -> None:
        """End a call that ran right here, and go on with its caller."""
        self._here.remove((record, body))
        if record.fails:
            self._world.oracle.tell_error(record, "NODE_ERROR", "executed", "fails")
        else:
            self._world.oracle.tell_value(record, record.value)
        self._go_on(body)

    def _abandon_calls(self, running: "_Running") -> None:
        """Give up what a cancelled node waits for."""
        for id_, (record, body) in list(self._open.items()):
            if body.running is running:
                del self._open[id_]
                self._world.oracle.abandon(record)
                self.say(CancelNested(id_))
        for record, body in list(self._here):
            if body.running is running:
                self._here.remove((record, body))
                self._world.oracle.abandon(record)

    # --- requests -------------------------------------------------------------------------------

    def _records(self, message: RunCall | RunChunk) -> list[Record]:
        records = self._world.oracle.records
        if isinstance(message, RunCall):
            return [records[_uid(message)]]
        return [records[item["uid"]] for item in msgspec.msgpack.decode(message.items)]

    def _run_items(
        self, chunk: RunChunk, records: list[Record], over: int, running: _Running | None
    ) -> None:
        """Run the items of a chunk one after the other; the result of each is kept at once."""
        if not self.alive:
            return
        results = self._item_results(chunk)
        if over:
            record = records[over - 1]
            if record.fails:
                results.fail(NodeError("fails", ErrorDetails(outcome="executed")))
            else:
                results.put(msgspec.msgpack.encode(record.value))
        if over < len(records) and not results.is_full:
            record = records[over]
            self._world.oracle.ran(record)
            self._agenda.after(
                record.duration_s, self._run_items, chunk, records, over + 1, running
            )
            return
        run_ns = int(sum(record.duration_s for record in records[:over]) * 1e9)
        values, failures = results.collect()
        word = ChunkDone(chunk.token, values, run_ns, over, failures or None)
        if running is None:
            self._finish(chunk, word)
        else:
            self._last_step(running, word)

    def _item_results(self, chunk: RunChunk) -> ItemResults:
        words, word = self._page.mark_word(chunk.slot)
        return ItemResults(
            self._page.area,
            words,
            word,
            limit=ITEMS_BYTES_MAX,
            encode=msgspec.msgpack.encode,
            unencodable=_no_such_result,
            too_large=_no_such_result,
        )

    def _end(self, message: RunCall, record: Record) -> None:
        if self.alive:
            self._finish(message, self._word(message, record))

    def _word(self, message: RunCall, record: Record) -> ToBroker:
        if record.retried and self.dice.chance(3):
            details = ErrorDetails(outcome="executed", retryable=True)
            return Failed(message.token, "NODE_ERROR", "for once", details, 1000)
        return _done(message, record)

    def _finish(self, message: RunCall | RunChunk, word: ToBroker) -> None:
        """Note the end of a node, and send its last word if there is time for it."""
        node = self.table.nodes[message.node]
        is_inline = node.kind == "inline" and not node.streams
        if is_inline:
            self.core.finish_inline(message.slot, message.token)
        else:
            self.core.finish(message.slot, message.token)
        if self._dies(Doom.BEFORE_SEND):
            return
        self.say(word)
        if self._dies(Doom.AFTER_SEND):
            return
        if is_inline:
            self._unblock()
        else:
            self._end_if_drained()
        self._plan_turn()

    def _end_if_drained(self) -> None:
        """End as the broker has asked for, once nothing runs here any more."""
        if self.core.drained:
            self._world.log("drained", self.id)
            self.die()

    def _unblock(self) -> None:
        """Let the loop go on with what it could not do in between."""
        self._blocked = False
        for act, arguments in self._when_free:
            self._agenda.after(self.dice.between(0.0, _TURN_S), act, *arguments)
        self._when_free.clear()

    # --- streams --------------------------------------------------------------------------------

    def _take_credit(self, message: MoreCredit) -> None:
        running = self.core.cancelled(message.token)
        if isinstance(running, _Streaming):
            running.items += message.items
            running.bytes += message.bytes
            running.events += message.events
            self._plan_step(running)

    def _plan_step(self, streaming: _Streaming) -> None:
        if not (streaming.is_planned or streaming.runs):
            streaming.is_planned = True
            self._agenda.after(self.dice.between(0.0, _TURN_S), self._step, streaming)

    def _step(self, streaming: _Streaming) -> None:
        """Begin a step; one of a plain generator holds up the worker."""
        if self._blocked:
            self._when_free.append((self._step, (streaming,)))
            return
        streaming.is_planned = False
        if not self.alive or streaming.cancelled:
            return
        if streaming.items <= 0 or streaming.bytes <= 0:
            return
        if not streaming.begun:
            streaming.begun = True
            self._world.oracle.ran(streaming.record)
        streaming.runs = True
        message = streaming.message
        if self.table.nodes[message.node].kind == "inline":
            self._blocked = True
            self._page.set_mark(message.slot, 1)
        step_s = streaming.record.duration_s / (1 + len(parts_of(streaming.record.uid)))
        self._agenda.after(step_s, self._end_step, streaming)

    def _end_step(self, streaming: _Streaming) -> None:
        if not self.alive:
            return
        message = streaming.message
        assert isinstance(message, RunStream)
        if self.table.nodes[message.node].kind == "inline":
            self._page.set_mark(message.slot, 0)
            self._unblock()
            self._plan_turn()
        elif streaming.cancelled and not self._is_stepped(streaming):  # a task ends at once
            return
        streaming.runs = False
        token, record = message.token, streaming.record
        if streaming.cancelled:
            details = ErrorDetails(outcome="maybe_executed")
            self._finish(message, Failed(token, "CANCELLED", "cancelled", details))
        elif not streaming.left:
            self._finish(message, _done(message, record))
        elif record.retried and self.dice.chance(40):
            details = ErrorDetails(outcome="executed", retryable=True)
            self._finish(message, Failed(token, "NODE_ERROR", "for once", details, 1000))
        else:
            self._yield(streaming)
            self._plan_step(streaming)

    def _yield(self, streaming: _Streaming) -> None:
        token = streaming.message.token
        value = Raw(msgspec.msgpack.encode(streaming.left.pop(0)))
        if streaming.events and self.dice.chance(4):
            streaming.events -= 1
            self.say(Emitted(token, "about to yield", value))
        if streaming.events and self.dice.chance(4):
            streaming.events -= 1
            self.say(Progressed(token, 0.5, None, ""))
        streaming.items -= 1
        streaming.bytes -= len(value)
        self.say(Yielded(token, value))

    # --- requests that run beside others --------------------------------------------------------

    def _start(self, message: RunCall | RunChunk) -> None:
        running = _Running(message)
        self.core.running(message.token, running)
        self._agenda.after(self.dice.between(0.0, _TURN_S), self._first_step, running)

    def _first_step(self, running: _Running) -> None:
        if not self.alive or running.cancelled:
            return
        message = running.message
        if self._blocked and self.table.nodes[message.node].kind == "async":
            self._when_free.append((self._first_step, (running,)))
            return
        running.begun = True
        if isinstance(message, RunCall):
            (record,) = self._records(message)
            end = partial(self._last_step, running, self._word(message, record))
            self._run_body(record, message.token, message.depth, running, end, waits=False)
            return
        if self.table.nodes[message.node].kind == "thread":
            self._run_items(message, self._records(message), 0, running)
            return
        records = self._records(message)
        for record in records:  # all of them at once
            self._world.oracle.ran(record)
        longest_s = max(record.duration_s for record in records)
        done = _chunk_done(message, records, longest_s)
        self._agenda.after(longest_s, self._last_step, running, done)

    def _last_step(self, running: _Running, word: ToBroker) -> None:
        if not self.alive or running.cancelled:
            return
        if self._blocked:
            self._when_free.append((self._last_step, (running, word)))
        else:
            self._finish(running.message, word)

    def _cancel(self, running: _Running) -> None:
        """Cancel a task: one that has begun fails, one that has not is as if it had not come."""
        message, is_stepped = running.message, self._is_stepped(running)
        is_thread = self.table.nodes[message.node].kind == "thread"
        if running.cancelled or (is_thread and running.begun and not is_stepped):
            return
        running.cancelled = True
        if isinstance(running, _Streaming) and running.runs and is_stepped:
            return  # it is closed at the end of its step
        self._abandon_calls(running)
        if running.begun or is_stepped:
            details = ErrorDetails(outcome="maybe_executed")
            self._finish(message, Failed(message.token, "CANCELLED", "cancelled", details))
        else:
            self._finish(message, Skipped(message.token))

    def _is_stepped(self, running: _Running) -> bool:
        """Whether it is a plain generator, which is closed only where it is suspended."""
        node = self.table.nodes[running.message.node]
        return node.streams and node.kind != "async"

    # --- the fences -----------------------------------------------------------------------------

    def _in_claim(self) -> None:
        """Between "started" and the look at "revoked": others act, or the process dies."""
        if not self._dies(Doom.IN_CLAIM):
            self._world.interlude(self.dice)

    def _in_revoke(self) -> None:
        """Between "revoked" and the broker's look at "started": the worker goes on."""
        with self._world.inside_the_broker():
            if self.alive and self.dice.chance(3):
                self.to_worker.hurry(self.dice.below(4))
                for _ in range(self.dice.below(3)):
                    self._turn()

    # --- the link -------------------------------------------------------------------------------

    def say(self, word: ToBroker) -> None:
        """Send a message to the broker."""
        self._world.log("word", self.id, word)
        self.to_broker.send(word)

    def _at_broker(self, word: ToBroker) -> None:
        self._world.on_word(self.id, word)

    def _dies(self, place: Doom) -> bool:
        if self.doom is not place:
            return False
        self.die()
        return True


def _no_such_result(*given: object) -> NodeError:
    raise AssertionError(f"no result of the simulation is like that: {given}")


def _uid(message: RunCall) -> int:
    if message.codec == CODEC_JSON:
        params = msgspec.json.decode(unwrap_json(message.params))
    else:
        params = msgspec.msgpack.decode(message.params)
    uid: int = params["uid"]
    return uid


def _done(message: RunCall, record: Record) -> ToBroker:
    run_ns = int(record.duration_s * 1e9)
    if record.fails:
        details = ErrorDetails(outcome="executed")
        return Failed(message.token, "NODE_ERROR", "fails", details, run_ns)
    if message.codec == CODEC_JSON:
        value = wrap_json(msgspec.json.encode(record.value))
    else:
        value = Raw(msgspec.msgpack.encode(record.value))
    return Done(message.token, value, run_ns)


def _chunk_done(chunk: RunChunk, records: list[Record], run_s: float) -> ChunkDone:
    values = [None if record.fails else record.value for record in records]
    failures = tuple(_failures(records))
    body = Raw(msgspec.msgpack.encode(values))
    return ChunkDone(chunk.token, body, int(run_s * 1e9), len(records), failures or None)


def _failures(records: list[Record]) -> Iterator[ItemFailure]:
    for index, record in enumerate(records):
        if record.fails:
            yield ItemFailure(index, "NODE_ERROR", "fails", ErrorDetails(outcome="executed"))
