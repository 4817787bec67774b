"""The broker's process: the core between its parser and its writer, without sockets."""

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from pronghorn.broker.core import BrokerCore, CoreConfig
from pronghorn.broker.egress import Egress
from pronghorn.broker.events import (
    AskJournal,
    Assign,
    Command,
    DrainBegun,
    Drained,
    Event,
    HurryJournal,
    JournalAnswered,
    JournalCommitted,
    JournalGone,
    JournalRefusing,
    JournalWelcomed,
    Kill,
    PeerGone,
    Report,
    Send,
    TableComing,
    TableKnown,
    Tick,
    WantJournal,
    WorkerGone,
    WorkerRetired,
    WorkerSent,
    WorkerStarting,
    WriteRecords,
)
from pronghorn.broker.ingress import Ingress
from pronghorn.broker.wire.limits import KIB, Bounds, Limits
from pronghorn.broker.wire.link import CODEC_JSON, ToBroker
from pronghorn.broker.wire.messages import Result
from pronghorn.broker.wire.table import NodeTable

from .dice import Dice
from .watch import Watch
from .workers import FakeWorker

if TYPE_CHECKING:
    from .world import World

LIMITS = Limits(
    request_bytes=16 * KIB,
    result_bytes=16 * KIB,
    grant_requests=24,
    grant_bytes=40 * KIB,
    stranger_requests=6,
)
KILL_GRACE_S = 0.02  # so short that slow nodes overstay it as well as those that hang
BOUNDS = Bounds(queue_requests=100, queue_bytes=100 * KIB, kill_grace_s=KILL_GRACE_S)

SESSIONS = 1  # so few that nearly each hello has others looked at

BURST_S = 0.000_03  # longest time that events wait for those after them before they are dealt with
LATE_TICK_S = 0.003


class FakeBroker:
    """One epoch of the broker."""

    def __init__(self, world: "World", epoch: int, table: NodeTable, generation: int) -> None:
        config = CoreConfig(
            epoch=f"epoch {epoch}",
            server="simulated",
            pid=epoch,
            limits=LIMITS,
            bounds=BOUNDS,
            sessions=SESSIONS,
        )
        self.core = BrokerCore(config)
        self.alive = True
        self._world = world
        self._ingress = Ingress(LIMITS)
        self._egress = Egress(LIMITS)
        self._settle_is_planned = False
        self._tick_due = inf  # what the core wants a tick for
        self._watch = Watch(self.core)
        self.core.handle(TableKnown(table, generation), world.agenda.now)

    def on_frames(self, peer: bytes, frames: Sequence[bytes]) -> None:
        """Take in one message of a client."""
        if self.alive:
            for event in self._ingress.parse(peer, frames):
                self._handle(event)
            self._settle_soon()

    def on_word(self, worker_id: int, word: ToBroker) -> None:
        """Take in one message of a worker."""
        if self.alive:
            self._handle(WorkerSent(worker_id, word))
            self._settle_soon()

    def on_worker_started(self, worker: FakeWorker) -> None:
        """Take in a worker that was started."""
        self._handle(WorkerStarting(worker.id, worker.brokers_page, worker.generation))

    def told(self, event: TableKnown | TableComing | WorkerRetired | DrainBegun) -> None:
        """Take in what the supervisor has decided."""
        if self.alive:
            self._handle(event)
            self._watch.forget_turns()
            self._settle()

    def lost(self, peer: bytes) -> None:
        """Take in that a peer is gone."""
        if self.alive:
            self._egress.forget(peer)
            self._handle(PeerGone(peer))
            self._settle()

    def journal_says(
        self,
        event: JournalWelcomed | JournalCommitted | JournalRefusing | JournalGone | JournalAnswered,
    ) -> None:
        """Take in what has become of the journal, or of what was written to it."""
        if self.alive:
            self._handle(event)
            self._settle()

    def on_worker_exited(self, worker: FakeWorker) -> None:
        """Take in the end of a worker, after all that it wrote."""
        if self.alive:
            worker.to_broker.hurry(len(worker.to_broker))
            self._handle(WorkerGone(worker.id, "signal 9 (SIGKILL)"))
            self._settle()

    def check(self, *, indexes: bool) -> None:
        """Check what has to hold between any two events; of the core's indexes only if told to."""
        if indexes:
            self.core.check_invariants()
        self._watch.check(self._world.agenda.now)

    def check_drained(self) -> None:
        """Check that nothing is left once everything has come to its end."""
        self._watch.check_drained()

    def _handle(self, event: Event) -> None:
        self.core.handle(event, self._world.agenda.now)

    def _dice(self) -> Dice:
        """Make the dice of this moment, so that what came before has no part in them."""
        return Dice(int(self._world.agenda.now * 1e9) + self._world.seed)

    def _settle_soon(self) -> None:
        """Deal with what came in now, or together with what comes next."""
        if self._settle_is_planned:
            return
        dice = self._dice()
        if dice.chance(3):
            self._settle_is_planned = True
            self._world.agenda.after(dice.between(0.0, BURST_S), self._settle)
        else:
            self._settle()

    def _settle(self) -> None:
        if not self.alive:
            return
        self._settle_is_planned = False
        now = self._world.agenda.now
        commands = self.core.settle(now)
        while commands:
            commands = self._carry_out(commands)
        self._watch.settled()
        due = self.core.next_due()
        if due != self._tick_due:
            self._tick_due = due
            dice = self._dice()
            late = dice.between(0.0, LATE_TICK_S) if dice.chance(10) else 0.0
            if due < inf:
                self._world.agenda.at(due + late, self._tick, due)

    def _tick(self, due: float) -> None:
        """Hand in a tick, unless it was for something that is over."""
        if self.alive and self._tick_due == due:
            self._tick_due = inf
            now = self._world.agenda.now
            self._handle(Tick())
            assert self.core.next_due() > now, "a tick deals with all that is due"
            self._settle()

    def _told(self, report: Report) -> Send:
        """Answer who has asked for the statistics."""
        as_json = report.origin is not None and report.origin.codec == CODEC_JSON
        encode = msgspec.json.encode if as_json else msgspec.msgpack.encode
        statistics = self.core.statistics(self._world.agenda.now)
        result = Result(report.id, Raw(encode(statistics)))
        return Send(report.peer, result, report.origin)

    def _carry_out(self, commands: list[Command]) -> list[Command]:
        """Carry out commands and return those that follow from peers found gone."""
        sends: dict[bytes, list[Send]] = {}
        for command in commands:
            if isinstance(command, Report):
                command = self._told(command)
            if isinstance(command, Assign):
                self._world.log("assign", command.worker_id, command.message)
                self._watch.assigned(command, self._world.agenda.now)
                worker = self._world.workers.get(command.worker_id)
                if worker is not None:  # else it has ended since the core decided so
                    worker.to_worker.send(command.message)
            elif isinstance(command, Send):
                self._watch.sent(command)
                sends.setdefault(command.peer, []).append(command)
            elif isinstance(command, Drained):
                assert not any(one.open for one in self.core._sessions.by_peer.values())
                self._world.agenda.after(0.0, self._world.on_drained, self)
            elif isinstance(command, WantJournal):
                self._world.agenda.after(0.0, self._world.on_journal_wanted, self)
            elif isinstance(command, HurryJournal):
                self._world.journal.hurry()
            elif isinstance(command, WriteRecords):
                self._world.journal.write(command)
            elif isinstance(command, AskJournal):
                self._world.journal.ask(command)
            else:
                assert isinstance(command, Kill)
                self._world.kill(command.worker_id, command.reason)
        gone: list[PeerGone] = []
        for peer, of_peer in sends.items():
            for frames in self._egress.messages(peer, of_peer):
                self._world.log("reply", peer, len(frames), frames[-1])
                connection = self._world.connections.get(peer)
                if connection is None or len(connection.to_client) > LIMITS.socket_high_water_mark:
                    self._egress.forget(peer)
                    gone.append(PeerGone(peer, banned=connection is not None))
                    self._world.log("gone", gone[-1])
                    break
                connection.to_client.send([bytes(frame) for frame in frames])
        for event in gone:
            self._handle(event)
        return self.core.settle(self._world.agenda.now) if gone else []
