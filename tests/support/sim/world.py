"""All that there is in one run: clients, a network, a broker, workers, and whom misfortune hits."""

import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .actions import Action
from .agenda import Agenda
from .brokers import FakeBroker
from .clients import OurClient
from .connections import Connection, Frames
from .dice import Dice
from .nodes import NAMES, TABLE
from .oracle import Oracle
from .strangers import Stranger
from .workers import Doom, FakeWorker

STORY_EVENTS = 40

_ADDRESS = re.compile(" object at 0x[0-9a-f]+")  # differs from run to run
_CLIENTS_MAX = 5
_STREAMS = 1_000_003  # of dice for workers, by their ids
_STRANGERS_MAX = 3
_EXIT_S = 0.003  # longest time from a worker's death to the report of it
_KILLED_S = 0.002  # longest time from the broker's wish to a worker's death
_REPLACED_S = 0.01
_BROKER_AWAY_S = 0.02
_NOTICED_S = 0.01  # longest time until a client notices that the broker is gone
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
        self.oracle = Oracle()
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
        if self.broker is not None:
            self.broker.check()
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
        self.connections.pop(connection.peer, None)

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
        if broker is self.broker and len(self.workers) < self._workers_wanted:
            self._start_worker(TABLE.digest)

    def _start_worker(self, digest: str) -> None:
        assert self.broker is not None
        self._worker_ids += 1
        dice = Dice(self.seed * _STREAMS + self._worker_ids)
        worker = self.worker_type(self, self._worker_ids, dice, digest=digest)
        self.workers[worker.id] = worker
        self.log("worker", worker.id)
        self.broker.on_worker_started(worker)

    def _start_broker(self) -> None:
        self._epochs += 1
        self.broker = FakeBroker(self, self._epochs)
        for _ in range(self._workers_wanted):
            self._start_worker(TABLE.digest)

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
            self._start_worker("another digest")

    def _restart(self, dice: Dice) -> None:
        """End the epoch: the broker dies, its workers are killed, another one starts."""
        if self.broker is None:
            return
        self.log("broker dies")
        self.broker.alive = False
        self.broker = None
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
    "restart": World._restart,
}
