"""Runs real commands of the command line as processes of their own."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

COMMAND = [sys.executable, "-m", "pronghorn.client.cli"]
TIMEOUT_S = 30.0

NODES = '''\
import asyncio
import itertools
import os
from collections.abc import Iterator
from pronghorn.worker import Context, node

@node
def add(a: int, b: int) -> int:
    """Sum of two integers.

    Both are needed.
    """
    return a + b

@node
def greet(who: str, excited: bool = False) -> str:
    return f"Hello, {who}" + ("!" if excited else ".")

@node
def reverse(content: bytes) -> bytes:
    return content[::-1]

@node
def words(text: str) -> int:
    return len(text.split())

@node
def total(table: list[int]) -> int:
    return sum(table)

@node
def kind(anything) -> str:
    return type(anything).__name__

@node
def nothing() -> None:
    print("a node prints", flush=True)

@node
def by_pair():
    return {(1, 2): 3}

@node
def divide(a: int) -> int:
    return 1 // a

@node
def die(code: int) -> int:
    os._exit(code)

@node
def count(n: int) -> Iterator[int]:
    yield from range(n)

@node
def lines(n: int) -> Iterator[str]:
    for number in range(n):
        yield f"line {number}"

@node
def fails_later() -> Iterator[int]:
    yield 1
    raise ValueError("in the middle")

@node
def endless(told: str) -> Iterator[int]:
    with open(told, "w", buffering=1) as out:
        out.write("begun\\n")
        try:
            yield from itertools.count()
        finally:
            out.write("closed\\n")

@node
def works(ctx: Context, n: int) -> int:
    for number in range(n):
        ctx.progress(number, n, f"step {number}")
        ctx.emit("step", number)
    return n

@node
async def linger(told: str) -> None:
    with open(told, "w", buffering=1) as out:
        out.write("begun\\n")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            out.write("cancelled\\n")
            raise
'''


HEAVY = (
    *("jinja2", "yaml", "zmq", "lmdb", "asyncio", "uvloop", "rich"),
    *("pronghorn.broker.journal", "pronghorn.client.sync", "pronghorn.client.launch"),
)
"""What neither help nor a usage error may wait for."""


def imported_by(*arguments: str) -> set[str]:
    """Return the names of all modules that a command imports."""
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], *arguments]
    traced = subprocess.run(command, capture_output=True, text=True).stderr
    return {line.rpartition("|")[2].strip() for line in traced.splitlines()}


class Done(NamedTuple):
    """What a command has done."""

    status: int
    raw: bytes
    errors: str

    @property
    def output(self) -> str:
        return self.raw.decode()


class Commands:
    """Runs commands in a folder of its own, whose brokers nobody else sees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"XDG_RUNTIME_DIR": str(folder), "COLUMNS": "80"}
        self.environment.pop("PRONGHORN_ENDPOINT", None)

    @property
    def endpoint(self) -> str:
        """Where the broker with the default name is."""
        return f"ipc://{self.folder}/pronghorn/default/broker.sock"

    def __call__(
        self,
        *arguments: str | bytes,
        stdin: str = "",
        stdout: int = subprocess.PIPE,
        environment: dict[str, str] | None = None,
    ) -> "Done":
        """Run a command to its end."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin.encode(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment | (environment or {}),
            timeout=TIMEOUT_S,
        )
        return Done(done.returncode, done.stdout or b"", done.stderr.decode())

    def shows_help(self, *words: str) -> str:
        """Check that a command has help, and ``--json`` as each has; return what it shows."""
        shown = self(*words, "--help")
        assert shown.status == 0
        assert "--json" in shown.output
        return shown.output

    def refuses(self, *arguments: str) -> str:
        """Check that arguments are wrong usage, told without a result; return what is told."""
        done = self(*arguments)
        assert (done.status, done.output) == (2, "")
        assert "Usage: pronghorn" in done.errors
        assert "Traceback" not in done.errors
        return done.errors

    @contextlib.contextmanager
    def start(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a command with pipes; what is left of it at the end of the block is killed."""
        with subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # or `communicate` would miss what `readline` has read ahead
            cwd=self.folder,
            env=self.environment,
        ) as process:
            try:
                yield process
            finally:
                process.kill()  # of one that has ended nothing

    def on_terminal(self, *arguments: str, stdout: bool = True) -> str:
        """Run a command on a terminal and return what it shows.

        Args:
            stdout: Whether standard output is the terminal too, not only standard error.
        """
        master, slave = pty.openpty()
        try:
            with subprocess.Popen(
                [*COMMAND, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=slave if stdout else subprocess.DEVNULL,
                stderr=slave,
                cwd=self.folder,
                env=self.environment | {"TERM": "xterm-256color"},
            ):
                os.close(slave)
                shown = b""
                with contextlib.suppress(OSError):  # EIO: nobody has it open any more
                    while part := os.read(master, 65536):
                        shown += part
        finally:
            os.close(master)
        return shown.decode()

    @contextlib.contextmanager
    def serving(self, *arguments: str) -> Iterator["Serving"]:
        """Serve for the time of a block."""
        with self.start("serve", "--json", *arguments) as process:
            try:
                yield Serving(process)
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=TIMEOUT_S)


class Serving:
    """A server that has said that it is ready."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.ready = self.next_event()

    def next_event(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line and self.process.stderr is not None:
            pytest.fail(f"it ended: {self.process.stderr.read().decode()}")
        return json.loads(line)

    @property
    def supervisor(self) -> int:
        (pid,) = children(self.process.pid)
        return pid

    @property
    def broker(self) -> int:
        (pid,) = (
            pid
            for pid in children(self.supervisor)
            if b"pronghorn.broker.server" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        return pid


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]
