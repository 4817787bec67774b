"""Processes that a benchmark starts: by exec, tied to their parent, ended by it.

Each child says ``ready`` in one line when it can serve, so nobody sleeps and looks again. A
child also dies with its parent (`die_with_parent`), so that a benchmark that was killed leaves
nothing behind.

Mirror: tests/bench/test_children.py.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import IO

READY = "ready"
STOP_TIMEOUT_S = 5.0
_PR_SET_PDEATHSIG = 1


class ChildError(RuntimeError):
    """A process of the benchmark did not start or ended too soon."""


def python_command(module: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs one of our modules in the same interpreter.

    ``-P`` keeps the current folder off the import path: only the installed package is measured.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


@contextlib.contextmanager
def running(
    module: str, *arguments: str, pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Run a module in a child from its ``ready`` until the block ends."""
    child = subprocess.Popen(
        python_command(module, arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=pass_fds,
        text=True,
    )
    try:
        assert child.stdout is not None
        wait_until_ready(child.stdout, module)
        yield child
    finally:
        stop(child)


def wait_until_ready(output: IO[str], what: str) -> None:
    """Block until the child says ``ready``; anything else or its end is an error."""
    line = output.readline().strip()
    if line != READY:
        raise ChildError(f"{what} did not become ready, it said {line!r}")


def say_ready() -> None:
    """Tell the parent, from within the child, that it may begin."""
    print(READY, flush=True)


def stop(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """End a child that we started and reap it; SIGKILL when it ignores SIGTERM."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            stream.close()


def die_with_parent(by: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel, from within the child, for a signal when the starting thread ends.

    To be called first of all; the parent starts children from its main thread only.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent or parent == 1:
        raise ChildError("the parent is gone already")
