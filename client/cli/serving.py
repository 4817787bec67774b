"""``pronghorn serve``: a process tree in the foreground, to its end or a signal. An IO shell.

What happens is told as it happens: for people, or as one JSON object a line, and to systemd where
that has started it. Between two events nothing runs here: one `select` waits for the tree's channel
and for signals.

The first signal to end has the tree drain, the second ends it at once. SIGHUP reloads, unless the
terminal is gone, whose end is the end.

Mirror: tests/client/cli/test_serving.py.
"""

import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from types import FrameType
from typing import NoReturn, Protocol

import msgspec

from pronghorn.broker.wire.control import Confinement, PoolReady, PoolReloaded
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    InvalidArgumentError,
    PronghornError,
    UnimplementedError,
)
from pronghorn.broker.wire.keyfiles import KeyFolder
from pronghorn.broker.wire.limits import Bounds
from pronghorn.broker.wire.linux import require_linux
from pronghorn.broker.wire.logline import LogFormat, LogLevel
from pronghorn.broker.wire.places import data_folder, is_tcp, keys_folder, runtime_folder
from pronghorn.broker.wire.table import BUILTIN_PREFIX, NodeTable
from pronghorn.broker.wire.version import VERSION

from ..launch import ProcessTree
from ..supervisor import StartedSupervisor, start_supervisor
from .notify import notify, notify_reloading
from .output import error_fields, is_terminal, warn, write
from .recording import RECORD_BYTES, Recorded, TraceFile

_QUIET_DRAIN_S = 0.3  # a drain is told of only if it takes longer


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve and how; see ``pronghorn serve --help``."""

    modules: Sequence[str]
    workers: int
    name: str
    bind: Sequence[str]
    insecure: bool
    keys: str | None  # None: the folder of the name
    cpus: Sequence[int]
    recycle_requests: int | None
    recycle_age_s: float | None
    recycle_memory: int | None
    drain_s: float
    bounds: Bounds
    labels: Mapping[str, int]
    hosts: int | None
    reload: bool
    remote_admin: bool
    confinement: Confinement
    data: str | None  # None: the one of the name
    log_level: LogLevel
    log_format: LogFormat
    metrics: tuple[str, int] | None = None
    record: str | None = None
    record_bytes: int | None = None
    record_sizes: bool = False


def serve(options: ServeOptions, supervisor: StartedSupervisor | None, *, as_json: bool) -> None:
    """Serve until SIGINT, SIGTERM or the end of the terminal.

    Args:
        options: What to serve and how.
        supervisor: One that waits for its config; by default it is started here.
        as_json: Tell what happens as JSON.

    Raises:
        PoolStartError: It can't be started.
        InvalidArgumentError: What is recorded can't be written.
        BrokerLostError: The process tree ended by itself.
    """
    try:
        require_linux()
    except ImportError as error:
        raise UnimplementedError(str(error)) from error
    if options.record is None and (options.record_bytes or options.record_sizes):
        raise InvalidArgumentError("--record-bytes and --record-sizes are for --record FILE")
    voice: _Voice = _JsonVoice(options) if as_json else _TextVoice(options)
    tree: ProcessTree | None = None
    trace: TraceFile | None = None
    try:
        with _signals() as signals:
            if options.record is not None:
                trace = TraceFile(options.record, options.record_bytes or RECORD_BYTES)
            # What nodes print must not come between lines of JSON.
            supervisor = supervisor or start_supervisor(output=2 if as_json else None)
            tree = _start(options, supervisor)
            if trace is not None:
                record = partial(tree.record, sizes_only=options.record_sizes)
                trace.begin(record, voice.recorded)
            with _metrics(options, tree) as url:
                try:
                    voice.ready(tree.ready, url)
                    notify("READY=1")
                    signals.twice = options.drain_s > 0
                    _watch(tree, signals, voice)
                except _EndedBySignal as ended:
                    notify("STOPPING=1")
                    if options.drain_s:
                        _drain(tree, voice, ended.name)
                    signals.ignore()
                    raise
    except _EndedBySignal as ended:
        voice.end(ended.name, None)
    except PronghornError as error:
        voice.end(error.code, error)
        raise
    finally:
        if tree is not None:
            tree.close()
        if trace is not None:
            recorded = trace.close()
            if recorded.bytes and recorded.reason is None:  # else it was told
                voice.recorded(recorded)


def _metrics(options: ServeOptions, tree: ProcessTree) -> AbstractContextManager[str | None]:
    """Serve metrics, if that is wanted, for the time of a block; gives their URL."""
    if options.metrics is None:
        return nullcontext()
    from .metrics import serving_metrics  # http.server takes 15 ms to import

    return serving_metrics(options.metrics, tree.ready.endpoints[0])


def usable_cpus() -> Sequence[int]:
    """Return the CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0))


class _EndedBySignal(BaseException):
    """Raised by the signal handlers, from wherever the program is."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name


class _Signals:
    """The signals that are acted upon; those that are ignored, as by nohup, stay so.

    One to end raises; where `twice` is set so does the second. `wakeup` is readable when any has
    come: one that came just before a `select` would wait unseen until the next event.
    """

    def __init__(self, wakeup: socket.socket) -> None:
        self.wakeup = wakeup
        self.twice = False
        self._handled = [
            number
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) != signal.SIG_IGN
        ]
        self._had_terminal = _has_terminal()
        for number in self._handled:
            signal.signal(number, self._on_signal)

    def ignore(self) -> None:
        """Act upon no more signals: the tree ends within a second in any case."""
        for number in self._handled:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
            return  # `wakeup` tells it
        if not self.twice:
            self.ignore()
        self.twice = False
        raise _EndedBySignal(number)


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Act upon signals until the end of the block."""
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield _Signals(reader)
        finally:
            signal.set_wakeup_fd(-1)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


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
            keys=_keys(options),
            cpus=options.cpus,
            recycle_requests=options.recycle_requests,
            recycle_age_s=options.recycle_age_s,
            recycle_memory=options.recycle_memory,
            drain_s=options.drain_s,
            bounds=options.bounds,
            labels=options.labels,
            hosts=options.hosts,
            reload=options.reload,
            remote_admin=options.remote_admin,
            confinement=options.confinement,
            data=options.data or data_folder(options.name),
            log_level=options.log_level,
            log_format=options.log_format,
            supervisor=supervisor,
        )
    finally:
        sys.path.pop(0)  # what is imported here from now on is ours


def _keys(options: ServeOptions) -> Path | None:
    """Choose the folder of keys for tcp endpoints; `None` where clients need none.

    Raises:
        InvalidArgumentError: They would need some, and there are none.
    """
    folder = Path(options.keys) if options.keys is not None else keys_folder(options.name)
    over_tcp = [endpoint for endpoint in options.bind if is_tcp(endpoint)]
    if options.insecure:
        if over_tcp:
            warn(
                f"--insecure: whoever reaches {', '.join(over_tcp)} can run the nodes, and read "
                "and change what others send"
            )
        return None
    if not over_tcp:
        return None
    if not KeyFolder(folder).has_server:
        raise InvalidArgumentError(
            f"{over_tcp[0]}: clients over tcp have to show a key, and {folder} has none: make some "
            "by `pronghorn keys new CLIENT`, or give --insecure to let in whoever can connect"
        )
    return folder


def _watch(tree: ProcessTree, signals: _Signals, voice: "_Voice") -> NoReturn:
    """Tell of new epochs and reloads; left when a signal handler raises.

    Raises:
        BrokerLostError: The tree ended by itself.
    """
    epoch = tree.ready.epoch
    with selectors.DefaultSelector() as selector:
        selector.register(tree, selectors.EVENT_READ)
        selector.register(signals.wakeup, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is signals.wakeup:
                    if signal.SIGHUP in signals.wakeup.recv(4096):  # those to end have raised
                        notify_reloading()
                        tree.reload()
                    continue
                news = tree.read_news()
                if news is None:
                    tree.close()
                    raise BrokerLostError(
                        "the processes ended by themselves: "
                        f"the supervisor with status {tree.exit_status}"
                    )
                for one in news:
                    if isinstance(one, PoolReloaded):
                        voice.reloaded(one)
                        notify("READY=1")
                    elif one.epoch != epoch:
                        epoch = one.epoch
                        voice.epoch(one)


def _drain(tree: ProcessTree, voice: "_Voice", reason: str) -> None:
    """Wait until the tree has drained and ended; left when a signal handler raises."""
    tree.begin_drain()
    with selectors.DefaultSelector() as selector:
        selector.register(tree, selectors.EVENT_READ)
        if not selector.select(_QUIET_DRAIN_S):
            voice.drain(reason)
        while tree.read_news() is not None:
            pass


class _Voice(Protocol):
    """Tells what happens."""

    def ready(self, ready: PoolReady, metrics: str | None) -> None:
        """Tell that calls are answered from now on, and where metrics are."""

    def epoch(self, ready: PoolReady) -> None:
        """Tell that a new broker has taken the place of one that died."""

    def reloaded(self, message: PoolReloaded) -> None:
        """Tell what is served after a reload, or why that is what was served before."""

    def recorded(self, recorded: Recorded) -> None:
        """Tell what a recording has come to, and why it ended if that was before the end."""

    def drain(self, reason: str) -> None:
        """Tell that it waits for open calls, after the signal of that name."""

    def end(self, reason: str, error: PronghornError | None) -> None:
        """Tell that it ends: by the signal of that name, or by the error with that code."""


class _TextVoice:
    """Tells people: on standard output, what went wrong on standard error."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options

    def ready(self, ready: PoolReady, metrics: str | None) -> None:
        for failure in ready.failures:
            warn(f"{failure.module} is not served: {failure.reason}\n")
        for warning in ready.warnings:
            warn(f"workers start slowly, for they can't be forked: {warning}")
        names = _nodes(ready.table)
        write(
            f"Pronghorn {VERSION} is ready: {_counted(len(names), 'node')}, "
            f"{_counted(self._options.workers, 'worker')}, pid {os.getpid()}\n"
            + "".join(f"  {endpoint}\n" for endpoint in ready.endpoints)
            + (f"  metrics: {metrics}\n" if metrics else "")
            + (f"  recording calls in {self._options.record}\n" if self._options.record else "")
            + _listed(names)
        )

    def epoch(self, ready: PoolReady) -> None:
        warn("the broker was replaced: the calls that were open are lost, others are answered")

    def reloaded(self, message: PoolReloaded) -> None:
        if not message.error:  # else the supervisor has logged it
            names = _nodes(message.table)
            write(f"Pronghorn has reloaded: {_counted(len(names), 'node')}\n{_listed(names)}")

    def recorded(self, recorded: Recorded) -> None:
        told = f"{_counted(recorded.calls, 'call')}, {recorded.bytes:,} bytes, in {recorded.path}"
        with suppress(OSError):  # the terminal may be gone
            if recorded.reason is not None:
                warn(f"calls are recorded no more: {recorded.reason}; there are {told}")
            else:
                write(f"Pronghorn has recorded {told}\n")

    def drain(self, reason: str) -> None:
        write(
            f"Pronghorn waits for open calls, {self._options.drain_s:g} s at most: {reason}; "
            "another signal ends it at once\n"
        )

    def end(self, reason: str, error: PronghornError | None) -> None:
        if error is None:
            with suppress(OSError):  # the terminal may be gone
                write(f"Pronghorn ends: {reason}\n")


class _JsonVoice:
    """Tells programs: one JSON object a line."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options

    def ready(self, ready: PoolReady, metrics: str | None) -> None:
        self._write(
            event="ready",
            pid=os.getpid(),
            endpoints=ready.endpoints,
            epoch=ready.epoch,
            workers=self._options.workers,
            nodes=_nodes(ready.table),
            failures=ready.failures,
            warnings=ready.warnings,
            metrics=metrics,
            insecure=self._options.insecure and any(map(is_tcp, ready.endpoints)),
        )

    def epoch(self, ready: PoolReady) -> None:
        self._write(event="epoch", endpoints=ready.endpoints, epoch=ready.epoch)

    def reloaded(self, message: PoolReloaded) -> None:
        self._write(
            event="reload",
            nodes=_nodes(message.table),
            failures=message.failures,
            warnings=message.warnings,
            error=message.error or None,
        )

    def recorded(self, recorded: Recorded) -> None:
        with suppress(OSError):  # its reader may have gone
            self._write(
                event="recorded",
                path=recorded.path,
                calls=recorded.calls,
                bytes=recorded.bytes,
                reason=recorded.reason,
            )

    def drain(self, reason: str) -> None:
        self._write(event="drain", reason=reason, drain_s=self._options.drain_s)

    def end(self, reason: str, error: PronghornError | None) -> None:
        with suppress(OSError):  # its reader may have gone
            if error is None:
                self._write(event="end", reason=reason)
            else:
                self._write(event="end", reason=reason, error=error_fields(error))

    def _write(self, **event: object) -> None:
        write(msgspec.json.encode(event) + b"\n")


def _nodes(table: NodeTable) -> list[str]:
    """Return the names of users' nodes."""
    names = [node.name for node in table.nodes]
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
