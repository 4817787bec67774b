"""``pronghorn serve``: a process tree in the foreground, to its end or a signal. An IO shell.

What happens is told as it happens: for people, or as one JSON object a line. Between two events
nothing runs here: one `select` waits for the tree's channel and for signals.

Mirror: tests/client/cli/test_serving.py.
"""

import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from shutil import get_terminal_size
from textwrap import fill
from types import FrameType
from typing import NoReturn, Protocol

import msgspec

from pronghorn.broker.wire.control import PoolReady
from pronghorn.broker.wire.errors import BrokerLostError, PronghornError, UnimplementedError
from pronghorn.broker.wire.linux import require_linux
from pronghorn.broker.wire.places import runtime_folder
from pronghorn.broker.wire.table import BUILTIN_PREFIX
from pronghorn.broker.wire.version import VERSION

from ..launch import ProcessTree
from ..supervisor import StartedSupervisor, start_supervisor
from .output import error_fields, is_terminal, warn, write


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve and how; see ``pronghorn serve --help``."""

    modules: Sequence[str]
    workers: int
    name: str
    bind: Sequence[str]
    insecure: bool
    cpus: Sequence[int]
    log_level: str


def serve(options: ServeOptions, supervisor: StartedSupervisor | None, *, as_json: bool) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Args:
        options: What to serve and how.
        supervisor: One that waits for its config; by default it is started here.
        as_json: Tell what happens as JSON.

    Raises:
        PoolStartError: It can't be started.
        BrokerLostError: The process tree ended by itself.
    """
    try:
        require_linux()
    except ImportError as error:
        raise UnimplementedError(str(error)) from error
    voice: _Voice = _JsonVoice(options) if as_json else _TextVoice(options)
    tree: ProcessTree | None = None
    try:
        with _signals() as wakeup:
            # What nodes print must not come between lines of JSON.
            supervisor = supervisor or start_supervisor(output=2 if as_json else None)
            tree = _start(options, supervisor)
            voice.ready(tree.ready)
            _watch(tree, wakeup, voice)
    except _EndedBySignal as ended:
        voice.end(ended.name, None)
    except PronghornError as error:
        voice.end(error.code, error)
        raise
    finally:
        if tree is not None:
            tree.close()


def usable_cpus() -> Sequence[int]:
    """Return the CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0))


class _EndedBySignal(BaseException):
    """Raised by the signal handlers, from wherever the program is."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Have the signals that end a program raise; those that are ignored, as by nohup, stay so.

    Yields:
        A socket that is readable when a signal has come: one that came just before a `select` would
        wait unseen until the next event.
    """
    ending = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]

    def end(number: int, _: FrameType | None) -> NoReturn:
        for each in ending:
            signal.signal(each, signal.SIG_IGN)  # the tree ends within a second in any case
        raise _EndedBySignal(number)

    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            for number in ending:
                signal.signal(number, end)
            yield reader
        finally:
            signal.set_wakeup_fd(-1)


def _start(options: ServeOptions, supervisor: StartedSupervisor) -> ProcessTree:
    """Start the tree, with the current folder in front of the path as for ``python -m``."""
    sys.path.insert(0, os.getcwd())
    try:
        return ProcessTree(
            options.modules,
            workers=options.workers,
            folder=runtime_folder(options.name),
            endpoints=options.bind,
            insecure=options.insecure,
            cpus=options.cpus,
            log_level=options.log_level,
            supervisor=supervisor,
        )
    finally:
        sys.path.pop(0)  # what is imported here from now on is ours


def _watch(tree: ProcessTree, wakeup: socket.socket, voice: "_Voice") -> NoReturn:
    """Tell of new epochs; left when a signal handler raises.

    Raises:
        BrokerLostError: The tree ended by itself.
    """
    epoch = tree.ready.epoch
    with selectors.DefaultSelector() as selector:
        selector.register(tree, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is wakeup:
                    wakeup.recv(4096)  # other programs' signals; ours have raised by now
                    continue
                news = tree.read_news()
                if news is None:
                    tree.close()
                    raise BrokerLostError(
                        "the processes ended by themselves: "
                        f"the supervisor with status {tree.exit_status}"
                    )
                if news.epoch != epoch:
                    epoch = news.epoch
                    voice.epoch(news)


class _Voice(Protocol):
    """Tells what happens."""

    def ready(self, ready: PoolReady) -> None:
        """Tell that calls are answered from now on."""

    def epoch(self, ready: PoolReady) -> None:
        """Tell that a new broker has taken the place of one that died."""

    def end(self, reason: str, error: PronghornError | None) -> None:
        """Tell that it ends: by the signal of that name, or by the error with that code."""


class _TextVoice:
    """Tells people: on standard output, what went wrong on standard error."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options

    def ready(self, ready: PoolReady) -> None:
        for failure in ready.failures:
            warn(f"{failure.module} is not served: {failure.reason}\n")
        for warning in ready.warnings:
            warn(f"workers start slowly, for they can't be forked: {warning}")
        names = _nodes(ready)
        write(
            f"Pronghorn {VERSION} is ready: {_counted(len(names), 'node')}, "
            f"{_counted(self._options.workers, 'worker')}, pid {os.getpid()}\n"
            + "".join(f"  {endpoint}\n" for endpoint in ready.endpoints)
            + _listed(names)
        )

    def epoch(self, ready: PoolReady) -> None:
        warn("the broker was replaced: the calls that were open are lost, others are answered")

    def end(self, reason: str, error: PronghornError | None) -> None:
        if error is None:
            with suppress(OSError):  # the terminal may be gone
                write(f"Pronghorn ends: {reason}\n")


class _JsonVoice:
    """Tells programs: one JSON object a line."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options

    def ready(self, ready: PoolReady) -> None:
        self._write(
            event="ready",
            pid=os.getpid(),
            endpoints=ready.endpoints,
            epoch=ready.epoch,
            workers=self._options.workers,
            nodes=_nodes(ready),
            failures=ready.failures,
            warnings=ready.warnings,
        )

    def epoch(self, ready: PoolReady) -> None:
        self._write(event="epoch", endpoints=ready.endpoints, epoch=ready.epoch)

    def end(self, reason: str, error: PronghornError | None) -> None:
        with suppress(OSError):  # its reader may have gone
            if error is None:
                self._write(event="end", reason=reason)
            else:
                self._write(event="end", reason=reason, error=error_fields(error))

    def _write(self, **event: object) -> None:
        write(msgspec.json.encode(event) + b"\n")


def _nodes(ready: PoolReady) -> list[str]:
    """Return the names of users' nodes."""
    names = [node.name for node in ready.table.nodes]
    return [name for name in names if not name.startswith(BUILTIN_PREFIX)]


def _listed(names: Sequence[str]) -> str:
    """Lay out names on one line, for a terminal on as many as it needs."""
    width = get_terminal_size().columns if is_terminal(1) else sys.maxsize
    indent = "  "
    return (
        fill(
            ", ".join(names),
            width=width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
