"""What this process holds that somebody has to let go of: open files, children, threads.

For tests: `held` before and after; what is there after and was not before is left behind.

Mirror: tests/client/test_leaks.py.
"""

import gc
import multiprocessing.resource_tracker as tracker
import os
import sys
import threading
from pathlib import Path
from typing import NamedTuple

_THREAD_WAIT_S = 1.0  # for a thread that is on its way out


class Held(NamedTuple):
    """What a process holds at one moment; nothing of it where there is no /proc, but threads."""

    files: frozenset[tuple[int, str]]  # descriptor and what it is of
    children: frozenset[int]
    threads: frozenset[threading.Thread]  # those that would hold up the exit


def held() -> Held:
    """Look at this process now; costs a fifth of a millisecond."""
    return Held(_open_files(), _children(), _threads())


def left_behind(before: Held) -> list[str]:
    """Say what this process holds that it did not hold before, in words and sorted."""
    for thread in _threads() - before.threads:
        thread.join(timeout=_THREAD_WAIT_S)
    if _open_files() - before.files or _children() - before.children:
        gc.collect()  # what only a cycle keeps is not left behind
    left = [f"thread {thread.name}" for thread in _threads() - before.threads]
    left += [f"child process {pid}: {_command(pid)}" for pid in _children() - before.children]
    left += [f"file descriptor {fd}: {target}" for fd, target in _open_files() - before.files]
    return sorted(left)


def _threads() -> frozenset[threading.Thread]:
    return frozenset(thread for thread in threading.enumerate() if not thread.daemon)


if sys.platform == "linux":

    def _open_files() -> frozenset[tuple[int, str]]:
        files: set[tuple[int, str]] = set()
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:  # the one that listed the folder
                continue
            if fd != _of_tracker("_fd"):  # for the life of the process, by design
                files.add((fd, target))
        return frozenset(files)

    def _children() -> frozenset[int]:
        pids: set[int] = set()
        for thread in os.listdir("/proc/self/task"):
            try:
                listed = Path(f"/proc/self/task/{thread}/children").read_text()
            except FileNotFoundError:  # a thread that has just ended
                continue
            pids.update(map(int, listed.split()))
        return frozenset(pids - {_of_tracker("_pid")})

    def _of_tracker(name: str) -> int | None:
        """Return what the process has for Python's own resource tracker."""
        value: int | None = getattr(tracker._resource_tracker, name)
        return value

    def _command(pid: int) -> str:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            return "ended just now"
        return b" ".join(words).decode(errors="replace").strip() or "ended, but not waited for"

else:  # only clients are served there

    def _open_files() -> frozenset[tuple[int, str]]:
        return frozenset()

    def _children() -> frozenset[int]:
        return frozenset()

    def _command(pid: int) -> str:
        return ""
