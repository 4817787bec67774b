"""For all tests: async tests run on uvloop, and a test that leaves something behind fails."""

import asyncio
import gc
import multiprocessing.resource_tracker as tracker
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_configure(config: pytest.Config) -> None:
    # libuv makes a pipe for signals with its first loop and keeps it: that is no test's leak.
    uvloop.new_event_loop().close()


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """Fail a test that leaves open files, children or threads that would hold up the exit.

    What fixtures of a wider scope hold was there before. Costs half a millisecond a test.
    """
    files, children, threads = _open_files(), _children(), _threads()
    yield
    for thread in _threads() - threads:
        thread.join(timeout=1.0)  # it may be on its way out
    if _open_files() - files or _children() - children:
        gc.collect()  # what only a cycle keeps is not left behind
    left = [f"thread {thread.name}" for thread in _threads() - threads]
    left += [f"child process {pid}: {_command(pid)}" for pid in _children() - children]
    left += [f"file descriptor {fd}: {target}" for fd, target in _open_files() - files]
    if left:
        pytest.fail("left behind by this test: " + ", ".join(sorted(left)), pytrace=False)


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.daemon}


if sys.platform == "linux":

    def _open_files() -> set[tuple[int, str]]:
        files: set[tuple[int, str]] = set()
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except FileNotFoundError:  # the one that listed the folder
                continue
            if fd != tracker._resource_tracker._fd:  # for the life of the process, by design
                files.add((fd, target))
        return files

    def _children() -> set[int]:
        pids: set[int] = set()
        for thread in os.listdir("/proc/self/task"):
            try:
                listed = Path(f"/proc/self/task/{thread}/children").read_text()
            except FileNotFoundError:  # a thread that has just ended
                continue
            pids.update(map(int, listed.split()))
        return pids - {tracker._resource_tracker._pid}

    def _command(pid: int) -> str:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            return "ended just now"
        return b" ".join(words).decode(errors="replace").strip() or "ended, but not waited for"

else:  # only clients are served there

    def _open_files() -> set[tuple[int, str]]:
        return set()

    def _children() -> set[int]:
        return set()

    def _command(pid: int) -> str:
        return ""
