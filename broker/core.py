"""The broker's decisions: admit, assign, complete, cancel, expire. Pure: no socket, no clock.

Contract: `handle(event, now)` for each event of a burst, then `settle(now)` once for the commands;
a `Tick` is handed in when `next_due` has come. `now` is monotonic seconds.

Clients' events go to clients.py, workers' to workers.py; both turn them into steps in the life of
requests, which lifecycle.py knows. Here the parts are put together.

Mirror: tests/broker/test_core.py; joined with the other cores in tests/sim/.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import inf
from typing import Any

import msgspec

from .clients import Clients
from .durable import Durable
from .events import (
    Administered,
    Command,
    Denied,
    DrainBegun,
    Drained,
    Event,
    JournalAnswered,
    JournalBroke,
    JournalCommitted,
    JournalGone,
    JournalRefused,
    JournalRefusing,
    JournalWelcomed,
    Malformed,
    MemoryTight,
    PeerGone,
    Probed,
    Received,
    ReceivedJson,
    TableComing,
    TableKnown,
    Tick,
    WorkerGone,
    WorkerRetired,
    WorkerSent,
    WorkerStarting,
    WriteRecords,
)
from .lifecycle import Lifecycle
from .nested import NestedCalls
from .orders import Orders
from .parts import Parts
from .sessions import Sessions
from .statistics import Steps
from .wire.limits import DEFAULT_BOUNDS, PROTOCOL_VERSION, Bounds, Limits
from .wire.messages import WelcomeInfo
from .wire.statistics import Statistics, WorkerStatistics
from .workers import Workers


class CoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the core needs to know.

    Attributes:
        epoch: Identity of this start of the broker.
        server: Program and version, for people.
        pid: Process id of the broker.
        limits: Limits towards clients.
        bounds: What is held at most.
        sessions: Sessions that are kept without a question whether their clients are still there.
        labels: Those that some workers have.
        administrators: How the routing ids of those begin who may give orders; b"": all may. What
            those of them may who have shown a key is checked before. The runs of the others are
            theirs alone, as are those of these.
        keyed: How the routing ids of those begin who have shown a key (`Sessions`); b"": nobody
            has. Each key has runs of its own.
    """

    epoch: str
    server: str
    pid: int
    limits: Limits
    bounds: Bounds = DEFAULT_BOUNDS
    sessions: int = 10_000
    administrators: tuple[bytes, ...] = (b"",)
    keyed: bytes = b""
    labels: frozenset[str] = frozenset()


class BrokerCore:
    """The state of one broker. See the module's docstring for the contract."""

    def __init__(self, config: CoreConfig) -> None:
        limits = config.limits
        self._config = config
        bounds = config.bounds
        self._sessions = Sessions(limits, config.sessions, config.administrators, config.keyed)
        self._life = life = Lifecycle(self._sessions, bounds.kill_grace_s, config.labels)
        self._routes = life.routes
        self._deadlines, self._placement = life.deadlines, life.placement
        self._delayed, self._recorder = life.delayed, life.recorder
        self._steps = Steps(0.0)  # they begin with the nodes
        self._nested = NestedCalls(life, limits, bounds)
        parts = Parts(life, limits)
        self._orders = orders = Orders(life, limits, bounds, config.administrators)
        self._durable = durable = Durable(life, limits, bounds)
        self._workers = workers = Workers(life, self._nested, parts, durable.conducted)
        self._clients = clients = Clients(
            self._sessions,
            life,
            orders,
            welcome=WelcomeInfo(
                version=PROTOCOL_VERSION,
                epoch=config.epoch,
                server=config.server,
                pid=config.pid,
                limits=limits,
            ),
            bounds=bounds,
            parts=parts,
            durable=durable,
        )
        # Give ready requests to workers and return what is to be done, in order.
        self.settle: Callable[[float], list[Command]] = life.settle
        self._on_event: dict[type[Any], Callable[[Any, float], None]] = {
            Received: clients.on_received,
            ReceivedJson: clients.on_received_json,
            Malformed: clients.on_malformed,
            Denied: clients.on_denied,
            Probed: clients.on_probed,
            PeerGone: clients.on_peer_gone,
            TableKnown: self._on_table_known,
            MemoryTight: self._on_memory_tight,
            TableComing: self._on_table_coming,
            WorkerStarting: workers.on_starting,
            WorkerSent: workers.on_sent,
            WorkerGone: workers.on_gone,
            WorkerRetired: workers.on_retired,
            Administered: orders.on_answered,
            DrainBegun: self._on_drain_begun,
            JournalWelcomed: durable.on_welcomed,
            JournalCommitted: durable.on_committed,
            JournalRefusing: durable.on_refusing,
            JournalGone: durable.on_gone,
            JournalRefused: durable.on_refused,
            JournalBroke: durable.on_broke,
            JournalAnswered: durable.on_answered,
            Tick: self._on_tick,
        }

    def handle(self, event: Event, now: float) -> None:
        """Take in one event. Never raises on what a peer has sent."""
        self._on_event[type(event)](event, now)

    def next_due(self) -> float:
        """Tell when the next `Tick` is due, monotonic seconds; `inf` when none is."""
        due, check_at = self._deadlines.next_due, self._placement.check_at
        if check_at < due:
            due = check_at
        retry_at = self._delayed.next_due
        if retry_at < due:
            due = retry_at
        gather_due = self._recorder.gather_due
        if gather_due < due:
            due = gather_due
        gate_due = self._routes.gate_due
        return due if due < gate_due else gate_due

    def unwritten(self) -> Sequence[Sequence[bytes]]:
        """Take the frames of the records that are to be written yet; to be called at the end."""
        self._recorder.write_gathered()
        commands = self._recorder.take_written()
        return [
            frames
            for command in commands
            if isinstance(command, WriteRecords)
            for frames in command.records
        ]

    def full_name(self, name: str) -> str | None:
        """Give the full name of a node that is served; `None` if there is none of that name."""
        node = self._life.catalog.by_name.get(name)
        return None if node is None else node.name

    def step(self, now: float) -> None:
        """Let what counts as recent begin later; to be called now and then, and before a report."""
        for _ in range(self._steps.over(now)):
            for node in self._life.catalog.nodes:
                node.counts.step()

    def statistics(self, now: float) -> Statistics:
        """Return a snapshot of all that is counted here; the shell knows the rest."""
        life = self._life
        workers = life.placement.workers.values()
        held = Counter(request.node.name for worker in workers for request in worker.held.values())
        return Statistics(
            epoch=self._config.epoch,
            pid=self._config.pid,
            sessions=len(self._sessions.by_peer),
            queued=life.queue.length,
            queued_bytes=life.queue.bytes,
            counters={"accepted": life.accepted, **asdict(life.count)},
            refused=dict(life.refusals.by_reason),
            nodes=tuple(
                node.counts.snapshot(
                    node.name,
                    since=self._steps.since,
                    held=held[node.name],
                    quarantined=now < node.refused_until < inf,
                    estimate_ns=node.estimate_ns,
                )
                for node in life.catalog.nodes
            ),
            workers=tuple(
                WorkerStatistics(
                    id=one.id,
                    pid=one.pid,
                    state=one.state.value,
                    stalled=one.stalled,
                    held=len(one.held),
                    served=one.given - len(one.held),
                    started_at=one.started_at,
                )
                for one in workers
            ),
        )

    def check_invariants(self) -> None:
        """Check that every index agrees with every other; tests call it after each event."""
        life = self._life
        life.placement.check_invariants()
        life.queue.check_invariants()
        self._sessions.check_invariants()
        waiting = life.queue.waiting()
        held = [r for w in life.placement.workers.values() for r in w.held.values()]
        everywhere = [
            *waiting,
            *held,
            *life.delayed.items(),
            *life.asked.values(),
            *self._durable.waiting(),
        ]
        count = len({id(request) for request in everywhere})
        assert len(everywhere) == count, "I2: no request is in two places"
        queued = Counter(request.node.name for request in waiting)
        nodes = life.catalog.nodes
        assert all(node.counts.queued == queued[node.name] for node in nodes)
        alive = {id(request) for request in everywhere if not request.ended}
        sessions = (
            *self._sessions.by_peer.values(),
            *self._nested.sessions.values(),
            self._durable.runs_session,
        )
        open_ = [request for session in sessions for request in session.open.values()]
        assert {id(request) for request in open_} == alive, "I1, I4: open iff not ended"
        life.check_invariants()
        self._durable.check_invariants()

    def _on_table_known(self, event: TableKnown, now: float) -> None:
        if not self._life.catalog.nodes:
            self._steps = Steps(now)
        self._life.catalog.serve(event.generation, event.table)
        self._clients.serve()
        self._life.serve_queued(now)
        self._workers.serve(now)
        self._durable.serve(now)

    def _on_table_coming(self, event: TableComing, now: float) -> None:
        self._life.catalog.announce(event.generation, event.table)

    def _on_drain_begun(self, event: DrainBegun, now: float) -> None:
        self._clients.end()
        self._orders.end()
        self._durable.end(now)
        self.settle = self._settle_until_drained

    def _settle_until_drained(self, now: float) -> list[Command]:
        """Do what `settle` does, and tell once that all has ended."""
        commands = self._life.settle(now)
        if not self._clients.have_open:
            self.settle = self._life.settle
            commands.append(Drained())
        return commands

    def _on_memory_tight(self, event: MemoryTight, now: float) -> None:
        self._clients.memory_is_tight = event.tight

    def _on_tick(self, event: Tick, now: float) -> None:
        self._life.on_tick(now)
