"""Starting a process tree and keeping hold of it: what `Pool` and ``pronghorn serve`` share.

Only names of modules are known here: the tree is started by exec, so no main guard is needed, and
the client imports nothing of the server side. An IO shell.

Mirror: tests/client/test_launch.py.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path

import msgspec

from pronghorn.broker.wire.administration import WORKERS_MAX, size_refusal
from pronghorn.broker.wire.channel import GONE, ControlChannel
from pronghorn.broker.wire.control import (
    HOOKS_GRACE_S,
    UNCONFINED,
    Confinement,
    DrainPool,
    ModuleFailure,
    PoolConfig,
    PoolFailed,
    PoolReady,
    PoolReloaded,
    RecordArrivals,
    ReloadPool,
    Shutdown,
    decode_control,
    encode_control,
)
from pronghorn.broker.wire.errors import BrokerLostError, InvalidArgumentError, PronghornError
from pronghorn.broker.wire.limits import DEFAULT_BOUNDS, DEFAULT_LIMITS, MIB, Bounds, Limits
from pronghorn.broker.wire.linux import require_linux
from pronghorn.broker.wire.logline import LogFormat, LogLevel
from pronghorn.broker.wire.places import check_endpoint
from pronghorn.broker.wire.shortage import explained
from pronghorn.broker.wire.table import BUILTIN_PREFIX, LABEL, WORKFLOW_SUFFIXES

from .supervisor import StartedSupervisor, start_supervisor

_RECYCLE_MEMORY_MIN = 32 * MIB
_END_WAIT_S = HOOKS_GRACE_S + 4.0  # less than a second where there are no stop hooks


class PoolStartError(PronghornError):
    """The pool could not be started; the message and `failures` say why."""

    code = "POOL_START"

    def __init__(self, message: str, failures: Sequence[ModuleFailure] = ()) -> None:
        super().__init__(message)
        self.failures = tuple(failures)

    def __str__(self) -> str:
        parts = [self.message, *(f"{one.module}: {one.reason}" for one in self.failures)]
        return "\n\n".join(parts)


class ProcessTree:
    """A running process tree, from the supervisor down; ends with `close` or with this process."""

    def __init__(
        self,
        modules: Sequence[str | os.PathLike[str]],
        *,
        workers: int | None,
        folder: Path,
        endpoints: Sequence[str] = (),
        insecure: bool = False,
        keys: str | os.PathLike[str] | None = None,
        cpus: Sequence[int] = (),
        limits: Limits = DEFAULT_LIMITS,
        bounds: Bounds = DEFAULT_BOUNDS,
        labels: Mapping[str, int] | None = None,
        hosts: int | None = None,
        recycle_requests: int | None = None,
        recycle_age_s: float | None = None,
        recycle_memory: int | None = None,
        drain_s: float = 0.0,
        reload: bool = False,
        remote_admin: bool = False,
        confinement: Confinement = UNCONFINED,
        data: str | os.PathLike[str] | None = None,
        log_level: LogLevel = "WARNING",
        log_format: LogFormat = "human",
        supervisor: StartedSupervisor | None = None,
    ) -> None:
        """Start the tree and wait until it serves.

        Args:
            modules: What to serve: files, package or module names, entry points.
            workers: Number of workers; by default one for each of `cpus` or, without any, for each
                CPU this process may use.
            folder: Runtime folder of the broker.
            endpoints: Endpoints to bind besides the one in the folder.
            insecure: Allow tcp endpoints other than loopback without keys.
            keys: Folder of the keys that clients have to show at tcp endpoints; by default they
                need none.
            cpus: CPUs that all processes may use; all by default.
            limits: Limits towards clients.
            bounds: What the broker holds and waits for at most.
            labels: How many of the workers have each label, for nodes that need it.
            hosts: Number of run hosts; by default one if there is a workflow among `modules`.
            recycle_requests: Replace a worker after so many requests; by default never.
            recycle_age_s: Replace a worker after so many seconds.
            recycle_memory: Replace a worker when it has come to so many bytes.
            drain_s: Seconds that `drain` gives open calls.
            reload: Reload when a file of the modules changes.
            remote_admin: Allow administration over tcp.
            confinement: What each worker may take of its host.
            data: Folder of the journal, made when it is needed; by default nothing is recorded.
            log_level: Level for all processes.
            log_format: How they write it.
            supervisor: One that waits for its config; by default it is started here.

        Raises:
            PoolStartError: No node can be served, or something it needs can't be had.
            InvalidArgumentError: An argument is wrong.
            BrokerLostError: The supervisor has ended without a word.
        """
        require_linux()
        if workers is None:
            workers = len(set(cpus) or os.sched_getaffinity(0))
        if not 1 <= workers <= WORKERS_MAX:
            raise InvalidArgumentError(size_refusal(workers))
        for name, value in (
            ("recycle_requests", recycle_requests),
            ("recycle_age_s", recycle_age_s),
            ("recycle_memory", recycle_memory),
        ):
            if value is not None and not 0 < value < inf:
                raise InvalidArgumentError(f"{name} is {value}; it must be above 0")
        if recycle_memory is not None and recycle_memory < _RECYCLE_MEMORY_MIN:
            raise InvalidArgumentError(
                f"recycle_memory is {recycle_memory}, and every worker has more from its start: "
                f"give at least {_RECYCLE_MEMORY_MIN} bytes"
            )
        if not 0 <= drain_s < inf:
            raise InvalidArgumentError(f"drain_s is {drain_s}; it must be 0 or more")
        for endpoint in endpoints:
            check_endpoint(endpoint, insecure=insecure or keys is not None)
        if not modules:
            raise InvalidArgumentError("name at least one module of nodes: a file, a package, …")
        config = PoolConfig(
            modules=tuple(os.fspath(module) for module in modules),
            sys_path=_absolute(sys.path),
            workers=workers,
            folder=str(folder),
            endpoints=tuple(endpoints),
            insecure=insecure,
            keys="" if keys is None else os.path.abspath(keys),
            cpus=tuple(cpus),
            limits=limits,
            bounds=bounds,
            labels=_checked_labels(labels or {}, workers),
            hosts=_checked_hosts(hosts, modules),
            host_pid=os.getpid(),
            recycle_requests=recycle_requests or 0,
            recycle_age_s=recycle_age_s or 0.0,
            recycle_memory=recycle_memory or 0,
            drain_s=drain_s,
            reload=reload,
            remote_admin=remote_admin,
            confinement=confinement,
            data="" if data is None else os.path.abspath(data),
            log_level=log_level,
            log_format=log_format,
        )
        _validate(config)
        self._workers = workers
        self._pid = os.getpid()
        try:
            self._process, channel = supervisor or start_supervisor()
        except OSError as error:
            raise PoolStartError(f"no process can be started: {explained(error)}") from error
        self._channel = ControlChannel(channel)
        try:
            with suppress(*GONE):  # it has ended, which is what is read
                self._channel.send(config)
            self.ready = self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        """Number of worker processes."""
        return self._workers

    @property
    def supervisor_pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """Exit status of the supervisor, negative for a signal; `None` while it runs."""
        return self._process.returncode

    def fileno(self) -> int:
        """Return a descriptor that is readable when the tree has news, its end included."""
        return self._channel.fileno()

    def read_news(self) -> list[PoolReady | PoolReloaded] | None:
        """Read what the tree has to say: new epochs and reloads, or `None` for its end."""
        received = self._channel.receive()
        if received is None:
            return None
        news: list[PoolReady | PoolReloaded] = []
        for message, _ in received:
            if isinstance(message, PoolReady):
                self.ready = message
                news.append(message)
            elif isinstance(message, PoolReloaded):
                self.ready = msgspec.structs.replace(
                    self.ready,
                    table=message.table,
                    failures=message.failures,
                    warnings=message.warnings,
                )
                news.append(message)
        return news

    def reload(self) -> None:
        """Have the modules imported anew; what comes of it is news."""
        with suppress(*GONE):  # its end is news
            self._channel.send(ReloadPool())

    def record(self, descriptor: int, *, sizes_only: bool) -> None:
        """Have what calls come written to a socket of packets, which the caller keeps too."""
        with suppress(*GONE):  # its end is news
            self._channel.send(RecordArrivals(sizes_only), (descriptor,))

    def begin_drain(self) -> None:
        """Have the tree accept nothing more, and end when all that is open has ended."""
        with suppress(*GONE):
            self._channel.send(DrainPool())

    def drain(self) -> None:
        """Have the tree end when all that is open has ended, `drain_s` at the latest; wait for it.

        In a forked child, and where it has ended already, nothing happens.
        """
        if self._pid != os.getpid() or self._channel.fileno() < 0:
            return
        self.begin_drain()
        while self.read_news() is not None:
            pass

    def close(self) -> None:
        """End the tree and wait for its end; in a forked child only let go of it."""
        if self._pid != os.getpid():
            self._channel.close()
            return
        with suppress(OSError):  # it has ended, or this is not the first time
            self._channel.send(Shutdown())  # a child that we forked may hold the channel open
        self._channel.close()
        try:
            self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel then ends the workers, the broker ends itself
            self._process.wait()

    def _wait_until_ready(self) -> PoolReady:
        while True:
            received = self._channel.receive()
            if received is None:
                raise BrokerLostError(
                    f"the supervisor ended with status {self._process.wait()} before it was ready"
                )
            for message, _ in received:
                if isinstance(message, PoolFailed):
                    raise PoolStartError(message.message, message.failures)
                if isinstance(message, PoolReady):
                    return message


def _checked_hosts(hosts: int | None, modules: Sequence[str | os.PathLike[str]]) -> int:
    """Give the number of run hosts.

    Raises:
        InvalidArgumentError: It makes no sense.
    """
    if hosts is None:
        return int(any(os.fspath(module).endswith(WORKFLOW_SUFFIXES) for module in modules))
    if type(hosts) is not int or not 0 <= hosts <= WORKERS_MAX:
        raise InvalidArgumentError(f"hosts is {hosts!r}; give 0 to {WORKERS_MAX} run hosts")
    return hosts


def _checked_labels(labels: Mapping[str, int], workers: int) -> dict[str, int]:
    """Give labels as they are, if they make sense.

    Raises:
        InvalidArgumentError: They are no mapping, one is no word, or more workers should have it
            than there are.
    """
    if not isinstance(labels, Mapping):
        raise InvalidArgumentError(
            f"labels is {labels!r}: give how many workers have each, as in {{'gpu': 1}}"
        )
    for label, count in labels.items():
        is_word = isinstance(label, str) and LABEL.fullmatch(label)
        if not is_word or label.startswith(BUILTIN_PREFIX):
            raise InvalidArgumentError(f"{label!r} is no label: give a word, as in gpu")
        if type(count) is not int or not 1 <= count <= workers:
            raise InvalidArgumentError(
                f"{count!r} workers should have the label {label}: give 1 to {workers}"
            )
    return dict(labels)


def _validate(config: PoolConfig) -> None:
    """Refuse what the supervisor could not decode.

    Raises:
        InvalidArgumentError: Names the field.
    """
    try:
        decode_control.decode(encode_control(config))
    except (msgspec.ValidationError, OverflowError, TypeError) as error:
        raise InvalidArgumentError(f"can't start a pool: {error}") from error


def _absolute(paths: Sequence[str]) -> tuple[str, ...]:
    """Make the entries of ``sys.path`` absolute; the empty one stands for the current folder."""
    return tuple(os.path.abspath(path) for path in paths)
