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

from trees import Tree, children, command_line

from pronghorn.client import Pool

_NAME: Final = "soak"


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
        """Kill something; `False` if it is not there, for it is being started again.

        After a whole tree there is another when this returns.
        """
        supervisor = self._pool._tree.supervisor_pid
        tree = Tree.below(supervisor)
        if self._broker and tree.broker != self._broker:
            self._found.violations.append("the broker has ended, and was not killed")
        self._broker = 0 if target in ("broker", "tree") else tree.broker
        journal = [one for one in children(supervisor) if "journal.writer" in command_line(one)]
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

    def close(self) -> None:
        """End the tree in good order."""
        self._pool.close()

    def _start(self) -> Pool:
        pool = Pool(*self._modules, workers=2, name=_NAME, data=self._data, log_level="CRITICAL")
        return pool.__enter__()

    def _host(self) -> list[int]:
        with self._pool.client() as client:
            return [each.pid for each in client.admin.workers() if each.host and each.pid][:1]
