"""Has a program take the walk at a `WalkBroker`. An IO shell.

Mirror: tests/client/conformance/test_walking.py.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import zmq

from .findings import Finding
from .walk import OPEN, WalkBroker, step_findings

PATIENCE_S = 20.0
"""How long a client may do nothing: those in slow languages take a second to start."""

_AT_ONCE = 1000  # messages that are taken before the client's output is looked at again


class StartError(Exception):
    """The client's program can't be started."""


def walk(command: Sequence[str]) -> list[Finding]:
    """Start a program with the endpoint as its last argument, and look at all that it does.

    It is killed when it does nothing for `PATIENCE_S`.

    Raises:
        StartError: It can't be started.
    """
    broker = WalkBroker()
    with tempfile.TemporaryDirectory(prefix="pronghorn-walk-") as folder:
        endpoint = f"ipc://{Path(folder) / 'walk.sock'}"
        try:
            process = subprocess.Popen(
                [*command, endpoint],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=os.environ | {"PRONGHORN_ENDPOINT": endpoint},
            )
        except OSError as error:
            raise StartError(f"{command[0]} can't be started: {error.strerror or error}") from error
        with process:
            try:
                lines = _Walk(broker, process, endpoint).run()
            finally:
                process.kill()
    return [*step_findings(lines), _ending(process.returncode), *broker.findings()]


class _Walk:
    """The socket of the broker and the output of the client, which are looked at in turn."""

    def __init__(
        self, broker: WalkBroker, process: "subprocess.Popen[bytes]", endpoint: str
    ) -> None:
        assert process.stdout is not None
        self._broker = broker
        self._process = process
        self._output = process.stdout.fileno()
        self._endpoint = endpoint
        self._printed = b""
        self._lines: list[str] = []

    def run(self) -> list[str]:
        """Serve until the client has ended; returns the lines that it has printed."""
        while self._live():
            self._broker.lose()
        return self._lines

    def _live(self) -> bool:
        """Live one life; whether there is to be another: the client waits for the end of this."""
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.setsockopt(zmq.LINGER, 0)
            router.bind(self._endpoint)
            poller = zmq.Poller()
            poller.register(router, zmq.POLLIN)
            poller.register(self._output, zmq.POLLIN)
            end = monotonic() + PATIENCE_S
            while (now := monotonic()) < end:
                due = self._broker.next_due()
                wait_s = max(0.0, min(end, due or end) - now)
                ready = dict(poller.poll(int(wait_s * 1000) + 1))
                _send(router, self._broker.tick(monotonic()))
                if router in ready:
                    end = monotonic() + PATIENCE_S
                    self._take(router)
                elif self._output in ready:
                    end = monotonic() + PATIENCE_S
                    if not (printed := os.read(self._output, 1 << 16)):
                        self._take(router)  # what it has said last
                        self._process.wait(PATIENCE_S)
                        return False
                    *lines, self._printed = (self._printed + printed).split(b"\n")
                    self._lines += [line.decode(errors="replace").rstrip() for line in lines]
                    if OPEN.encode() in lines:
                        self._take(router)
                        return True
        return False

    def _take(self, router: Any) -> None:
        """Take what has come, and answer it."""
        for _ in range(_AT_ONCE):
            try:
                peer, *frames = router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            _send(router, self._broker.take(peer, frames, monotonic()))


def _send(router: Any, messages: Sequence[list[bytes]]) -> None:
    for message in messages:
        router.send_multipart(message)


def _ending(code: int | None) -> Finding:
    name = "walk: end"
    if code == 0:
        return Finding(name, 15, "passed")
    if code is None or code < 0:
        return Finding(name, 15, "failed", f"it did nothing for {PATIENCE_S:g} s, or was killed")
    return Finding(name, 15, "failed", f"it ends with exit code {code}")
