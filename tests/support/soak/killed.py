"""A tree that is served while it is killed, in part or as a whole."""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final, Protocol

from tapped import write_between
from trees import Tree, children, command_line

from pronghorn.broker.journal.messages import frames_of
from pronghorn.broker.journal.record import Started
from pronghorn.broker.wire.statistics import STATS
from pronghorn.client import Pool, PronghornError

_NAME: Final = "soak"
_NO_MESSAGE: Final = (b"\xc1",)
_OUT_OF_ORDER: Final = frames_of(Started(77, 76, 1, 5))  # of a run that there is not


class Counted(Protocol):
    """What a service notes."""

    kills: Counter[str]
    violations: list[str]


class Service:
    """A tree that is killed, in part or as a whole; then there is another."""

    def __init__(self, data: Path, found: Counted, modules: Sequence[str]) -> None:
        self._data = data
        self._found = found
        self._modules = modules
        self._broker = 0  # that should be there; 0: not known
        self.losses: list[float] = []  # when brokers were killed, monotonic seconds
        self._pool = self._start()
        self.endpoint = self._pool.endpoint

    def kill(self, target: str, random: Random) -> bool:
        """Kill something, or break a stream; `False` if it is not there, for it is being started.

        After a whole tree there is another when this returns.
        """
        supervisor = self._pool._tree.supervisor_pid
        tree = Tree.below(supervisor)
        if self._broker and tree.broker != self._broker:
            self._found.violations.append("the broker has ended, and was not killed")
        self._broker = 0 if target in ("broker", "tree") else tree.broker
        journal = [one for one in children(supervisor) if "journal.writer" in command_line(one)]
        if target == "stream":
            return bool(tree.broker and journal) and self._break(tree.broker, journal[0], random)
        pids = {
            "worker": [random.choice(tree.workers)] if tree.workers else [],
            "journal": journal,
            "broker": [tree.broker] if tree.broker else [],
            "tree": [supervisor, *children(supervisor)],
            "host": self._host() if target == "host" else [],
        }[target]
        if not pids:
            return False
        if target in ("broker", "tree"):
            self.losses.append(monotonic())
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._found.kills[target] += 1
        if target == "tree":
            self._pool.close()
            self._pool = self._start()
        return True

    def check_records(self) -> None:
        """Check that nothing of ours was refused, as far as this broker has counted it."""
        try:
            with self._pool.client() as client:
                counters = client.call(STATS)["counters"]
        except PronghornError:  # it has just been killed
            return
        if counters["records_refused"]:
            self._found.violations.append("a record was refused that the broker has written")

    def _break(self, broker: int, journal: int, random: Random) -> bool:
        """Write what no end of the stream would, or not in this place; `False` if there is none."""
        self.check_records()
        pid, peer, frames = random.choice(
            (
                (broker, journal, _NO_MESSAGE),
                (journal, broker, _NO_MESSAGE),
                (broker, journal, _OUT_OF_ORDER),
            )
        )
        if not write_between(pid, peer, frames):
            return False
        self._found.kills["stream"] += 1
        return True

    def close(self) -> None:
        """End the tree in good order."""
        self._pool.close()

    def _start(self) -> Pool:
        pool = Pool(*self._modules, workers=2, name=_NAME, data=self._data, log_level="CRITICAL")
        return pool.__enter__()

    def _host(self) -> list[int]:
        with self._pool.client() as client:
            return [each.pid for each in client.admin.workers() if each.host and each.pid][:1]
