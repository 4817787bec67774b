"""A headless Chromium, driven over the DevTools protocol: what tests of pages look with.

`scripts/_browser` installs it. Where it is missing tests are skipped and say so; with
``PRONGHORN_TEST_BROWSER=needed``, as in CI, they fail.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

LAYOUT = Path(__file__).with_name("layout.js").read_text()
"""Evaluated on a page, it lists what is wrong with how that is laid out."""

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # which root can't have; it is shown nothing but our own files
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
_END_S = 10.0


class Tab:
    """A page that is shown; commands are those of the DevTools protocol."""

    def __init__(self, commands: int, messages: int) -> None:
        self._commands = commands  # descriptor that it reads from
        self._messages = messages  # descriptor that it writes to
        self._number = 0  # of the last command
        self._session: str | None = None
        self._unread = b""
        self.events: deque[dict[str, Any]] = deque()  # in their order, of all that was shown
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command and wait for its result; events that come before it are kept."""
        self._number += 1
        order = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            order["sessionId"] = self._session
        os.write(self._commands, json.dumps(order).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def show(self, path: Path, *, width: int, height: int = 900, scheme: Scheme = "light") -> None:
        """Open a file in a window of so many pixels, and wait until it is drawn."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", features=[feature])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.command("Page.navigate", url=path.resolve().as_uri())
        self._wait_for("Page.loadEventFired")
        drawn = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.evaluate(f"document.fonts.ready.then(() => {drawn})")

    def evaluate(self, script: str) -> Any:
        """Give the value of an expression on the page; that of its promise, if it is one."""
        done = self.command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def complaints(self) -> list[str]:
        """Tell what the browser had to say of what it shows: errors, warnings and all else."""
        told = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(each["params"]) for each in self.events if each["method"] in told]

    def fetched(self) -> list[str]:
        """Tell what the page was made of: the URLs that were asked for."""
        return [
            each["params"]["request"]["url"]
            for each in self.events
            if each["method"] == "Network.requestWillBeSent"
        ]

    def _wait_for(self, method: str) -> None:
        while all(each["method"] != method for each in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        """Read the next message; each ends with a zero byte."""
        while b"\0" not in self._unread:
            read = os.read(self._messages, 1 << 16)
            assert read, "the browser has ended"
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Run a browser for the time of a block; its profile is in a folder. Skips if there is none."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        _skip("there is no Chromium")
        raise AssertionError
    ours_in, commands = _pipe()
    messages, ours_out = _pipe()
    # A DevTools pipe is descriptors 3 and 4. Ours are from 10 on, so that none is in the way.
    arguments = (*_OPTIONS, f"--user-data-dir={folder}", "about:blank")
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{ours_in} 4>&{ours_out}', "bash", program, *arguments],
        pass_fds=(ours_in, ours_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(ours_in)
    os.close(ours_out)
    try:
        yield Tab(commands, messages)
    finally:
        os.close(commands)  # which ends it
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        with suppress(ProcessLookupError):  # what it has not ended of its own
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(messages)


def _pipe() -> tuple[int, int]:
    """Make a pipe whose descriptors are none of those that programs give a meaning to."""
    found = []
    for end in os.pipe():
        found.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return found[0], found[1]


def _skip(reason: str) -> None:
    if os.environ.get("PRONGHORN_TEST_BROWSER") == "needed":
        pytest.fail(f"{reason}: scripts/_browser should have seen to it", pytrace=False)
    pytest.skip(reason)
