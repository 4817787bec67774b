"""What the kernel says of processes: CPU time, context switches, memory, and who began whom.

Reads /proc only, so it disturbs nothing that it measures. CPU time comes from ``schedstat``
(nanoseconds); where the kernel lacks it, from ``stat`` (clock ticks of 10 ms, which is said by
`cpu_clock`). Threads that have ended are not counted; Pronghorn's processes keep theirs.

Mirror: tests/bench/test_processes.py.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ThreadSwitches(msgspec.Struct, frozen=True):
    """Context switches of one thread since it began."""

    pid: int
    tid: int
    name: str
    voluntary: int
    involuntary: int


class Memory(msgspec.Struct, frozen=True):
    """Memory of one process: `pss` shares pages out among their users, `uss` is its own alone."""

    pss_kib: int
    uss_kib: int


def parents() -> dict[int, int]:
    """Return pid -> parent's pid of every process that is alive."""
    found: dict[int, int] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        fields = _stat_fields(int(entry.name))
        if fields and fields[0] != "Z":
            found[int(entry.name)] = int(fields[1])
    return found


def descendants(root: int) -> list[int]:
    """Return the pids of all processes below `root`, ascending."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    below: list[int] = []
    todo = [root]
    while todo:
        for pid in children.get(todo.pop(), []):
            below.append(pid)
            todo.append(pid)
    return sorted(below)


def command_line(pid: int) -> list[str]:
    """Return the arguments a process was started with; empty when it is gone or a kernel thread."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return []
    return raw.rstrip(b"\0").decode(errors="replace").split("\0") if raw else []


def started_at(pid: int) -> int:
    """Return when a process was started, clock ticks after boot; 0 when it is gone."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else 0


def cpu_clock() -> str:
    """Say where `cpu_ns` comes from: ``schedstat`` (ns) or ``stat`` (ticks)."""
    return "schedstat" if (PROC / "self" / "schedstat").exists() else "stat"


def cpu_ns(pids: Iterable[int]) -> int:
    """Return the CPU time that all threads of these processes have used so far, ns.

    One that has ended counts as none.
    """
    return sum(_process_cpu_ns(pid) for pid in pids)


def family_cpu_ns() -> int:
    """Return the CPU time that this process and all below it have used so far, ns."""
    return cpu_ns([os.getpid(), *descendants(os.getpid())])


def switches(pid: int) -> list[ThreadSwitches]:
    """Return the context switches of each thread of a process."""
    found = []
    for task in sorted((PROC / str(pid) / "task").iterdir(), key=lambda path: int(path.name)):
        status = dict(
            line.split(":\t", 1)
            for line in (task / "status").read_text().splitlines()
            if "\t" in line
        )
        found.append(
            ThreadSwitches(
                pid=pid,
                tid=int(task.name),
                name=status["Name"],
                voluntary=int(status["voluntary_ctxt_switches"]),
                involuntary=int(status["nonvoluntary_ctxt_switches"]),
            )
        )
    return found


def memory(pid: int) -> Memory:
    """Return the memory of a process as the kernel sums it up."""
    sizes: dict[str, int] = {}
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith(" kB"):
            sizes[name] = int(rest.removesuffix(" kB"))
    return Memory(pss_kib=sizes["Pss"], uss_kib=sizes["Private_Clean"] + sizes["Private_Dirty"])


def resident_bytes(pid: int) -> int:
    """Return how much memory of a process is in use; cheap, so that it can be asked often."""
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had in use; 0 once it has ended."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except FileNotFoundError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _process_cpu_ns(pid: int) -> int:
    tasks = PROC / str(pid) / "task"
    if cpu_clock() == "schedstat":
        try:
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir())
        except (FileNotFoundError, ProcessLookupError):
            return 0
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK_NS if fields else 0


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; empty when the process is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()
