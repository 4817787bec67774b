"""The processes of a running pool, by their roles, as /proc shows them.

A role is read off the command line. Workers are forks of the template and have its command line;
the template is the eldest of them.

Mirror: tests/bench/test_tree.py.
"""

import os
from collections.abc import Callable
from typing import Literal

import msgspec

from .processes import command_line, cpu_ns, descendants, memory, started_at

Role = Literal["client", "supervisor", "broker", "template", "worker"]

_MODULES: dict[str, Role] = {
    "pronghorn.broker.supervisor": "supervisor",
    "pronghorn.broker.server": "broker",
    "pronghorn.worker.template": "template",
    "pronghorn.worker.spawned": "worker",  # where forking was not safe
}


class Tree(msgspec.Struct, frozen=True):
    """Who is who around one pool; its host is the client. Workers in the order of their start."""

    pids: dict[Role, list[int]]

    @classmethod
    def below(cls, host: int) -> "Tree":
        """Find the tree of the only pool that this host process has."""
        pids: dict[Role, list[int]] = {"client": [host], "broker": [], "worker": []}
        pids |= {"supervisor": [], "template": []}
        for pid in sorted(descendants(host), key=started_at):
            role = _role(pid)
            if role == "template" and pids["template"]:
                role = "worker"
            if role is not None:
                pids[role].append(pid)
        return cls(pids)

    @classmethod
    def of_this_process(cls) -> "Tree":
        """Find the tree of the only pool that this process has."""
        return cls.below(os.getpid())

    def members(self) -> list[tuple[str, int]]:
        """Return (label, pid) of every process; the label numbers workers from 1."""
        return [
            (f"{role} {number}" if role == "worker" else role, pid)
            for role, pids in self.pids.items()
            for number, pid in enumerate(pids, start=1)
        ]

    def cpu_us_per_call(self, calls: int) -> Callable[[], dict[str, float]]:
        """Start the clock of all processes; the function returned stops it and divides by calls."""
        before = self._cpu_ns()

        def stop() -> dict[str, float]:
            after = self._cpu_ns()
            return {
                f"{role} CPU per call, us": (after[role] - before[role]) / calls / 1000
                for role in after
            }

        return stop

    def memory_mib(self) -> dict[str, float]:
        """Return what each process holds now, MiB."""
        found: dict[str, float] = {}
        for label, pid in self.members():
            held = memory(pid)
            found[f"{label} memory pss, MiB"] = held.pss_kib / 1024
            found[f"{label} memory uss, MiB"] = held.uss_kib / 1024
        return found

    def _cpu_ns(self) -> dict[Role, int]:
        return {role: cpu_ns(pids) for role, pids in self.pids.items()}


def _role(pid: int) -> Role | None:
    for word in command_line(pid):
        if word in _MODULES:
            return _MODULES[word]
    return None
