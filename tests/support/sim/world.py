"""All that there is in one run: clients, a network, a broker, workers, and whom misfortune hits."""

import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pronghorn.broker.events import DrainBegun, TableComing, TableKnown, WorkerRetired
from pronghorn.broker.wire.table import NodeTable

from .actions import Action
from .agenda import Agenda
from .brokers import FakeBroker
from .clients import OurClient
from .connections import Connection, Frames
from .dice import Dice
from .journal import FakeJournal
from .network import DELAY_MAX_S
from .nodes import NAMES, TABLE, TABLES
from .oracle import Oracle
from .strangers import Stranger
from .workers import Doom, FakeWorker

STORY_EVENTS = 40
_CHECKED_EVERY = 4
"""Events from one look at all indexes of the cores to the next: it takes longer than an event."""

_ADDRESS = re.compile(" object at 0x[0-9a-f]+")  # differs from run to run
_CLIENTS_MAX = 5
_STREAMS = 1_000_003  # of dice for workers, by their ids
_STRANGERS_MAX = 3
_EXIT_S = 0.003  # longest time from a worker's death to the report of it
_KILLED_S = 0.002  # longest time from the broker's wish to a worker's death
_REPLACED_S = 0.01
_BROKER_AWAY_S = 0.02
_WARMING_S = 0.01  # longest time from the start of a generation's workers until it is served
_NOTICED_S = 0.01  # longest time until a client notices that the broker is gone
_PEER_NOTICED_S = 1.0  # time until the broker notices that a peer is gone that it sends nothing
_DRAINED_S = 120.0  # everything comes to an end within that time once nothing more goes wrong


def in_words(what: Any) -> str:
    """Describe a value equally in every run."""
    return _ADDRESS.sub("", repr(what))


class World:
    """One run. `run` and `drain` raise an `AssertionError` when a promise is broken."""

    def __init__(self, seed: int, worker_type: type[FakeWorker] = FakeWorker) -> None:
        self.seed = seed
        dice = Dice(seed)
        self.worker_type = worker_type
        self.agenda = Agenda()
        self.done: list[Action] = []  # that were done to it, the last one perhaps only waited for
        self.events = 0
        self.digest = 0  # of all events so far
        self.story: deque[tuple[Any, ...]] = deque(maxlen=STORY_EVENTS)
        self.workers: dict[int, FakeWorker] = {}  # worker id -> worker, until its death is known
        self.connections: dict[bytes, Connection] = {}  # routing id -> connection, while it is open
        self._clients: list[OurClient] = []
        self._gone: list[OurClient] = []  # clients that have left
        self._strangers: list[Stranger] = []
        self._worker_ids = 0
        self._peers = 0
        self._epochs = 0
        self._in_interlude = False
        self.draining = False  # nothing is done to it any more
        self.broker: FakeBroker | None = None
        self._workers_wanted = 1 + dice.below(4)
        self.journal = FakeJournal(self, Dice(~seed))
        self.oracle = Oracle(self.journal.kept, self.journal.runs)
        self._table = TABLE  # of the nodes that are served
        self._generation = 0  # of them
        self._imports = 0  # generations so far
        self._start_broker()
        for _ in range(1 + dice.below(3)):
            self._clients.append(OurClient(self, dice.another()))

    # --- the course of things -------------------------------------------------------------------

    def run(self, actions: Iterable[Action], events_max: float = float("inf")) -> None:
        """Do things to the world, and let happen what happens in between."""
        for action in actions:
            self.done.append(action)
            until = self.agenda.now + action.gap_s
            while self.agenda.next_at <= until:
                self._step()
            self.agenda.now = until
            self._act(action)
            if self.events >= events_max:
                return

    def drain(self) -> None:
        """Let everything come to its end, and check that nothing is left."""
        self.draining = True
        for worker in self.workers.values():
            worker.doom = Doom.NONE
        until = self.agenda.now + _DRAINED_S
        while self.agenda.next_at <= until:
            self._step()
        assert self.oracle.untold() == [], "these calls never end"
        assert self.broker is not None
        self.broker.check_drained()
        self.journal.check_drained()
        self.oracle.check_kept()
        self.oracle.check_runs()
        for client in [*self._clients, *self._gone]:
            client.check_drained()
        for stranger in self._strangers:
            stranger.check_drained()

    def interlude(self, dice: Dice) -> None:
        """Let others act in the middle of what somebody does."""
        if self._in_interlude or not dice.chance(6):
            return
        self._in_interlude = True
        for _ in range(1 + dice.below(4)):
            if self.agenda.next_at - self.agenda.now < 0.001:
                self._step()
        self._in_interlude = False

    @contextmanager
    def inside_the_broker(self) -> Iterator[None]:
        """Keep others from acting while the broker is in the middle of something."""
        before, self._in_interlude = self._in_interlude, True
        yield
        self._in_interlude = before

    def log(self, *what: Any) -> None:
        """Note what happens, for the story of a failure."""
        self.story.append((self.events, round(self.agenda.now, 7), *what))
        self.digest = zlib.crc32(in_words(what).encode(), self.digest)

    def _step(self) -> None:
        act, arguments = self.agenda.take()
        self.events += 1
        act(*arguments)
        self._check()

    def _act(self, action: Action) -> None:
        self.events += 1
        self.log("action", action.kind)
        _ACTS[action.kind](self, Dice(action.seed))
        self._check()

    def _check(self) -> None:
        indexes = self.events % _CHECKED_EVERY == 0
        if self.broker is not None:
            self.broker.check(indexes=indexes)
        if indexes:
            for client in self._clients:
                client.check()

    # --- what others ask of it ------------------------------------------------------------------

    def reach(
        self, on_message: Callable[[Frames], None], lost: Callable[[str], None], dice: Dice
    ) -> Connection | None:
        """Make a connection to the broker, `None` if there is none."""
        if self.broker is None:
            return None
        self._peers += 1
        peer = b"peer%d" % self._peers
        connection = Connection(
            self.agenda, dice, peer, at_broker=self._on_frames, at_client=on_message, lost=lost
        )
        self.connections[peer] = connection
        return connection

    def disconnect(self, connection: Connection, *, lose: bool) -> None:
        """End a connection."""
        connection.close(lose=lose)
        if self.connections.pop(connection.peer, None) is not None:
            self.agenda.after(_PEER_NOTICED_S, self._notice_gone, self.broker, connection.peer)

    def _notice_gone(self, broker: FakeBroker, peer: bytes) -> None:
        """Have the broker's shell find out that a peer is gone that is sent nothing."""
        if broker is self.broker:
            broker.lost(peer)

    def on_word(self, worker_id: int, word: Any) -> None:
        """Hand a worker's message to the broker."""
        if self.broker is not None and worker_id in self.workers:
            self.broker.on_word(worker_id, word)

    def on_worker_died(self, worker: FakeWorker) -> None:
        """Have the supervisor notice a death."""
        self.log("died", worker.id)
        if self.broker is not None:
            self.agenda.after(worker.dice.between(0.0, _EXIT_S), self._report_exit, worker)

    def kill(self, worker_id: int, reason: str) -> None:
        """Have the supervisor kill a worker, unless it has ended by itself."""
        assert "without credit" not in reason, "I8: a worker keeps to the credit"
        self.log("kill", worker_id, reason)
        worker = self.workers.get(worker_id)
        if worker is not None:
            self.agenda.after(worker.dice.between(0.0, _KILLED_S), worker.die)

    def _on_frames(self, peer: bytes, frames: Frames) -> None:
        if self.broker is not None:
            self.log("frames", peer, len(frames), frames[-1][:40])
            self.broker.on_frames(peer, frames)

    def _report_exit(self, worker: FakeWorker) -> None:
        if self.workers.get(worker.id) is worker and self.broker is not None:
            self.broker.on_worker_exited(worker)
            del self.workers[worker.id]
            delay = worker.dice.between(0.0, _REPLACED_S)
            self.agenda.after(delay, self._replace, self.broker)

    def _replace(self, broker: FakeBroker) -> None:
        staying = [
            worker
            for worker in self.workers.values()
            if worker.generation == self._generation and not worker.retired
        ]
        if broker is self.broker and len(staying) < self._workers_wanted:
            self._start_worker()

    def _start_worker(
        self,
        table: NodeTable | None = None,
        generation: int | None = None,
        digest: str | None = None,
    ) -> None:
        """Start a worker, by default one of the nodes that are served."""
        assert self.broker is not None
        self._worker_ids += 1
        dice = Dice(self.seed * _STREAMS + self._worker_ids)
        table = table or self._table
        worker = self.worker_type(
            self,
            self._worker_ids,
            dice,
            table=table,
            generation=self._generation if generation is None else generation,
            digest=digest or table.digest,
        )
        self.workers[worker.id] = worker
        self.log("worker", worker.id)
        self.broker.on_worker_started(worker)

    def _start_broker(self) -> None:
        self._epochs += 1
        self.broker = FakeBroker(self, self._epochs, self._table, self._generation)
        self.journal.serve(self.broker)
        for _ in range(self._workers_wanted):
            self._start_worker()

    # --- actions --------------------------------------------------------------------------------

    def _client(self, dice: Dice) -> OurClient:
        if not self._clients:
            self._clients.append(OurClient(self, dice.another()))
        return dice.choose(self._clients)

    def _call(self, dice: Dice) -> None:
        self._client(dice).call(dice)

    def _burst(self, dice: Dice) -> None:
        client = self._client(dice)
        name = dice.choose(NAMES) if dice.chance(2) else None
        for _ in range(2 + dice.below(40)):
            client.call(dice, name)

    def _hang(self, dice: Dice) -> None:
        self._client(dice).hang(dice)

    def _map(self, dice: Dice) -> None:
        self._client(dice).map(dice)

    def _stream(self, dice: Dice) -> None:
        self._client(dice).stream(dice)

    def _run(self, dice: Dice) -> None:
        self._client(dice).run(dice)

    def _ask(self, dice: Dice) -> None:
        self._client(dice).ask(dice)

    def _cancel(self, dice: Dice) -> None:
        self._client(dice).cancel(dice)

    def _ping(self, dice: Dice) -> None:
        self._client(dice).ping(dice)

    def _pause(self, dice: Dice) -> None:
        self._client(dice).pause(dice)

    def _cut(self, dice: Dice) -> None:
        self._client(dice).cut(dice)

    def _goodbye(self, dice: Dice) -> None:
        client = self._client(dice)
        self._clients.remove(client)
        self._gone.append(client)
        client.goodbye(dice)

    def _vanish(self, dice: Dice) -> None:
        client = self._client(dice)
        self._clients.remove(client)
        self._gone.append(client)
        client.vanish(dice)

    def _join(self, dice: Dice) -> None:
        if len(self._clients) < _CLIENTS_MAX:
            self._clients.append(OurClient(self, dice.another()))

    def _stranger(self, dice: Dice) -> None:
        self._strangers = [one for one in self._strangers if one.connection is not None]
        if len(self._strangers) < _STRANGERS_MAX:
            self._strangers.append(Stranger(self, dice.another()))
        stranger = dice.choose(self._strangers)
        stranger.send(dice)
        if dice.chance(20):
            stranger.vanish()

    def _nonsense(self, dice: Dice) -> None:
        Stranger(self, dice.another()).nonsense(dice)

    def _flood(self, dice: Dice) -> None:
        Stranger(self, dice.another()).flood(dice)

    def _kill(self, dice: Dice) -> None:
        if self.workers:
            worker = dice.choose(list(self.workers.values()))
            doom = dice.choose(list(Doom))
            self.log("doom", worker.id, doom)
            if doom is Doom.NONE:
                worker.die()
            else:
                worker.doom = doom

    def _misfit(self, dice: Dice) -> None:
        """Start a worker with other nodes, which the broker will not have."""
        if self.broker is not None and len(self.workers) < 2 * self._workers_wanted:
            self._start_worker(digest="another digest")

    def _retire(self, dice: Dice) -> None:
        """Tell a worker to end; another takes its place, before or after."""
        if self.broker is None or not self.workers:
            return
        worker = dice.choose(list(self.workers.values()))
        if dice.chance(2) and len(self.workers) < 2 * self._workers_wanted:
            self._start_worker()
        self.log("retire", worker.id)
        worker.retired = True
        self.broker.told(WorkerRetired(worker.id))
        self.agenda.after(dice.between(0.0, _REPLACED_S), self._replace, self.broker)

    def _reload(self, dice: Dice) -> None:
        """Start workers of other nodes, and serve those after a while, be they ready or not."""
        if self.broker is None or len(self.workers) > 2 * self._workers_wanted:
            return
        self._imports += 1
        table, generation = dice.choose(TABLES), self._imports
        self.log("reload", generation, table.digest)
        self.broker.told(TableComing(table, generation))
        for _ in range(self._workers_wanted):
            self._start_worker(table, generation)
        delay = dice.between(0.0, _WARMING_S)
        self.agenda.after(delay, self._switch, self.broker, table, generation)

    def _switch(self, broker: FakeBroker, table: NodeTable, generation: int) -> None:
        if broker is self.broker and generation > self._generation:
            self._table, self._generation = table, generation
            self.log("switch", generation)
            broker.told(TableKnown(table, generation))
            for _ in range(self._workers_wanted):  # some may have ended before
                self._replace(broker)

    def on_journal_wanted(self, broker: FakeBroker) -> None:
        """Have the supervisor open the journal."""
        if broker is self.broker:
            self.journal.wanted()

    def _journal(self, dice: Dice) -> None:
        self.journal.suffer(dice)

    def _drain(self, dice: Dice) -> None:
        """Have the broker end when all that is open has ended."""
        if self.broker is not None:
            self.log("drain")
            self.broker.told(DrainBegun())

    def on_drained(self, broker: FakeBroker) -> None:
        """End the epoch of a broker that has nothing open, when what it has sent has arrived."""
        # One that has no journal does not wait for another, even if that is there before it ends.
        is_kept = not self.journal.is_absent
        self.agenda.after(DELAY_MAX_S, self._end_drained, broker, is_kept)

    def _end_drained(self, broker: FakeBroker, is_kept: bool) -> None:
        if broker is self.broker:
            if is_kept:
                self.oracle.check_kept()
            self._restart(Dice(self.seed + self._epochs))

    def _restart(self, dice: Dice) -> None:
        """End the epoch: the broker dies, its workers are killed, another one starts."""
        if self.broker is None:
            return
        self.log("broker dies")
        self.broker.alive = False
        self.broker = None
        self.oracle.forget_batched()
        for worker in list(self.workers.values()):
            worker.die()
        self.workers.clear()
        for connection in list(self.connections.values()):
            connection.close(lose=True)
            delay = dice.between(0.0, _NOTICED_S)
            self.agenda.after(delay, connection.lost, "the broker is gone")
        self.connections.clear()
        self.agenda.after(dice.between(0.0, _BROKER_AWAY_S), self._start_broker)


_ACTS: dict[str, Callable[[World, Dice], None]] = {
    "call": World._call,
    "burst": World._burst,
    "hang": World._hang,
    "map": World._map,
    "stream": World._stream,
    "run": World._run,
    "ask": World._ask,
    "cancel": World._cancel,
    "ping": World._ping,
    "stranger": World._stranger,
    "nonsense": World._nonsense,
    "flood": World._flood,
    "pause": World._pause,
    "goodbye": World._goodbye,
    "vanish": World._vanish,
    "cut": World._cut,
    "join": World._join,
    "kill": World._kill,
    "misfit": World._misfit,
    "retire": World._retire,
    "reload": World._reload,
    "journal": World._journal,
    "restart": World._restart,
    "drain": World._drain,
}
