"""The supervisor process: starts, watches, replaces and ends all others. An IO shell.

::

    host ──channel──► supervisor ──channel──► broker    routes; told of each worker's start and end
                          │ ────channel─────► template  imports users' modules, forks workers
                          │ ────channel─────► journal   keeps what is to survive, if anything is
                          └──── pidfds ─────► workers   children by re-parenting (subreaper)

It runs no code of users and holds no request. It ends the whole tree when the host closes the
channel or ends, and on SIGTERM or SIGINT; when it is itself killed, the kernel kills template and
workers (PR_SET_PDEATHSIG) and the broker, seeing the channel closed, removes the files and ends,
as the journal ends when it has kept what the broker wrote.

`watcher` is its loop, `program` keeps broker and templates running, `keeper` the journal,
`generations` has what is served and reloads it, `administrator` carries out orders; here is what
one of them means for the others, and for the host.

Mirror: tests/broker/test_supervisor.py.
"""

import logging
import os
import secrets
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic

import msgspec

from .administrator import Administrator
from .folder import RuntimeFolder, make_shared, remove_stale
from .generations import Generations
from .keeper import ENDS_WITHIN_S, Keeper
from .processes import end_children, use_cpus
from .program import Program
from .sources import SourceWatch
from .watcher import Watcher
from .wire.channel import ControlChannel
from .wire.control import (
    HOOKS_GRACE_S,
    BeginDrain,
    BrokerBound,
    BrokerConfig,
    BrokerFailed,
    CarryOut,
    ControlMessage,
    DrainPool,
    HasDrained,
    JournalLost,
    KillWorker,
    OpenJournal,
    PoolConfig,
    PoolFailed,
    PoolReady,
    PoolReloaded,
    RecordArrivals,
    ReloadPool,
    Shutdown,
    WorkerReady,
    WorkerServed,
)
from .wire.errors import InvalidArgumentError
from .wire.linux import become_subreaper
from .wire.logs import set_up_logs
from .wire.places import POOL_PREFIX, endpoint_in
from .wire.table import HOST_LABEL

_log = logging.getLogger("pronghorn.broker.supervisor")  # as a program it would be __main__

_REAP_WAIT_S = 0.5  # after a SIGKILL, before the supervisor ends without having reaped
_SETTLED_S = 0.1  # after the last change of a file, before the modules are imported anew


class Supervisor:
    """The running supervisor. Owns all processes of the tree."""

    def __init__(self, config: PoolConfig, host: ControlChannel) -> None:
        self._folder = RuntimeFolder(Path(config.folder))
        self._shared, shared = make_shared(self._folder)
        self._config = config = msgspec.structs.replace(config, shared=shared)
        self._host = host
        self._endpoints = (endpoint_in(config.folder), *config.endpoints)
        self._claim_sockets()
        self._watcher = Watcher()
        self._broker = Program(
            "pronghorn.broker.server",
            self._watcher,
            configure=self._configure_broker,
            on_message=self._on_broker_message,
            on_exit=self._on_broker_exit,
            on_failure=self._on_broker_failure,
        )
        self._keeper = Keeper(
            config.data, config.log_level, config.log_format, self._watcher, self._broker.send
        )
        self._generations = Generations(
            config,
            self._watcher,
            broker=self._broker,
            give_up=self._give_up,
            on_reloaded=self._on_reloaded,
        )
        self._administrator = Administrator(self._broker, self._generations)
        self._sources: SourceWatch | None = None  # None unless changes of files are to be seen
        self._bound: tuple[str, ...] = ()  # () until the broker of this epoch is bound
        # What brokers are told to record what comes, the socket for it included.
        self._recording: tuple[RecordArrivals, tuple[int, ...]] | None = None
        self._epoch = ""
        self._announced = ""  # the epoch that the host was told of last
        self._draining = False
        self._stopping = False
        self._exit_status = 0

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit status. Leaves no process and no file."""
        try:
            self._watcher.watch(self._host.fileno(), self._read_host)
            self._watch_host_process()
            self._watcher.watch_signals(
                signal.SIGTERM,
                signal.SIGINT,
                signal.SIGHUP,
                signal.SIGCHLD,
                handler=self._on_signals,
            )
            self._broker.start()
            self._generations.current.start()
            self._keeper.start_if_used()
            # The others are starting: nobody waits for this.
            remove_stale(self._folder.path.parent, POOL_PREFIX)
            if self._shared is not None:
                remove_stale(self._shared.path.parent, "")
            while not self._stopping:
                self._generations.tend()
                self._administrator.tend()
                self._tell_how_it_stands()
                self._watcher.turn(self._generations.next_due)
        finally:
            try:
                self._end_tree()
            finally:
                self._remove_folders()
        return self._exit_status

    def _watch_host_process(self) -> None:
        """Watch the host's process too: a child of the host may keep the channel open."""
        try:
            pidfd = os.pidfd_open(self._config.host_pid)
        except ProcessLookupError:
            self._stopping = True
            return
        self._watcher.watch(pidfd, self._stop)

    def _on_signals(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        if signal.SIGHUP in numbers:
            self._generations.reload()
        self._watcher.reap_others()

    def _stop(self) -> None:
        self._stopping = True

    def _drain(self) -> None:
        """Accept nothing more and stop when all that is open has ended, or when the time is up."""
        if not (self._bound and self._generations.served):
            self._stop()
        elif not self._draining:
            self._draining = True
            _log.info("the pool drains, for %g s at most", self._config.drain_s)
            self._broker.send(BeginDrain())
            self._watcher.at("drain", monotonic() + self._config.drain_s, self._stop)

    def _end_tree(self) -> None:
        """Let the broker and running nodes finish within the grace time, then kill what is left."""
        _log.info("the pool ends")
        self._broker.send(Shutdown())
        self._generations.close()
        grace_s = HOOKS_GRACE_S if self._generations.have_stop_hooks else self._config.grace_s
        journal = self._keeper.pid
        self._watcher.wait_for_children(grace_s, spared=journal)
        self._watcher.kill_children(spared=journal)
        self._watcher.wait_for_children(_REAP_WAIT_S, spared=journal)
        self._keeper.close()  # what the broker has written last can be read now
        self._watcher.wait_for_children(ENDS_WITHIN_S)
        self._watcher.kill_children()
        self._watcher.wait_for_children(_REAP_WAIT_S)
        if self._sources is not None:
            self._sources.close()
        self._watcher.close()  # what is to be done yet takes descriptors, of which none may be left
        # Processes that users' nodes started became children of this one when their worker ended.
        end_children(_REAP_WAIT_S)

    def _claim_sockets(self) -> None:
        """Keep other brokers off the sockets outside of our folder."""
        try:
            for endpoint in self._config.endpoints:
                if endpoint.startswith("ipc:///"):
                    self._folder.claim_socket(Path(endpoint.removeprefix("ipc://")))
        except InvalidArgumentError:
            self._remove_folders()
            raise

    def _remove_folders(self) -> None:
        if self._shared is not None:
            self._shared.remove()
            with suppress(OSError):  # those of other trees may be there
                self._shared.path.parent.rmdir()
        self._folder.remove()

    # --- the host -------------------------------------------------------------------------------

    def _read_host(self) -> None:
        received = self._host.receive()
        if received is None:
            self._stop()
            return
        for message, descriptors in received:
            match message:
                case RecordArrivals():
                    self._record(message, descriptors)
                case Shutdown():
                    self._stop()
                case DrainPool():
                    self._drain()
                case ReloadPool():
                    self._generations.reload()
                case _:
                    raise AssertionError(f"not for the supervisor: {message!r}")

    def _record(self, message: RecordArrivals, descriptors: tuple[int, ...]) -> None:
        """Have this broker and those after it record what calls come."""
        if not descriptors:
            _log.error("calls can't be recorded: the supervisor has too many files open")
            return
        if self._recording is not None:
            os.close(self._recording[1][0])
        self._recording = (message, descriptors)
        if self._bound:
            self._broker.send(message, descriptors)

    def _tell_host(self, message: PoolReady | PoolFailed | PoolReloaded) -> None:
        """Send news; a host that takes none in, as `Pool` once it runs, must not block the tree."""
        try:
            if _is_writable(self._host):
                self._host.send(message)
        except OSError:  # it is gone, or can't be told of its pool
            self._stop()

    def _give_up(self, message: str) -> None:
        loaded = self._generations.current.loaded
        self._tell_host(PoolFailed(message, loaded.failures if loaded else ()))
        self._exit_status = 1
        self._stop()

    def _tell_how_it_stands(self) -> None:
        """Tell the host once an epoch that there are workers, or that none will ever be ready."""
        current, size = self._generations.current, self._generations.size
        loaded, workers = current.loaded, current.workforce
        is_news = self._bound and self._announced != self._epoch
        if loaded is not None and is_news and current.is_manned:
            if workers.ready_count < size:
                _log.error(
                    "only %d of %d workers are ready, others are tried again: %s",
                    workers.ready_count,
                    size,
                    workers.last_failure,
                )
            self._announced = self._epoch
            self._generations.served = True
            _log.info("%d workers serve, epoch %s", workers.ready_count, self._epoch)
            self._tell_host(
                PoolReady(self._bound, self._epoch, loaded.table, loaded.failures, loaded.unsafe)
            )
            self._watch_sources()
        elif not self._announced and current.hopeless:
            self._give_up(current.last_failure)

    def _on_reloaded(self, message: PoolReloaded) -> None:
        self._tell_host(message)
        self._watch_sources()

    def _watch_sources(self) -> None:
        """Have changes of the files seen that the nodes were imported from."""
        loaded = self._generations.last_loaded
        if not self._config.reload or loaded is None:
            return
        try:
            if self._sources is None:
                self._sources = SourceWatch()
                self._watcher.watch(self._sources.fileno(), self._on_sources)
            self._sources.watch(loaded.sources)
        except OSError as error:
            _log.error("changes of files can't be seen, so they are not reloaded: %s", error)

    def _on_sources(self) -> None:
        assert self._sources is not None
        if self._sources.have_changed():
            # An editor, or a checkout, writes more than once.
            self._watcher.at("sources", monotonic() + _SETTLED_S, self._generations.reload)

    # --- the broker -----------------------------------------------------------------------------

    def _configure_broker(self) -> tuple[BrokerConfig, tuple[int, ...]]:
        self._epoch = secrets.token_hex(8)
        config = BrokerConfig(
            endpoints=self._endpoints,
            epoch=self._epoch,
            limits=self._config.limits,
            bounds=self._config.bounds,
            labels=(*self._config.labels, *([HOST_LABEL] if self._config.hosts else ())),
            insecure=self._config.insecure,
            keys=self._config.keys,
            files=(*self._folder.files, *(self._shared.files if self._shared else ())),
            remote_admin=self._config.remote_admin,
            log_level=self._config.log_level,
            log_format=self._config.log_format,
        )
        shared = self._shared.descriptors if self._shared else ()
        return config, (*self._folder.descriptors, *shared)

    def _on_broker_message(self, message: ControlMessage) -> None:
        match message:
            case BrokerBound(endpoints):
                self._bound = endpoints
                # A port chosen by the system stays the same for the next broker.
                self._endpoints = endpoints
                self._generations.broker_bound()
                self._keeper.broker_bound()
                if self._recording is not None:
                    self._broker.send(*self._recording)
            case BrokerFailed(text):
                if self._announced:
                    _log.error("a new broker can't serve and is started again: %s", text)
                else:
                    self._give_up(text)
            case WorkerReady(worker_id):
                self._generations.ready(worker_id)
                if self._broker.ready_at is None:
                    self._broker.ready_at = monotonic()
            case WorkerServed(worker_id, requests):
                self._generations.served_requests(worker_id, requests)
            case KillWorker(worker_id, reason):
                self._generations.kill(worker_id, reason)
            case CarryOut():
                self._administrator.carry_out(message)
            case OpenJournal():
                self._keeper.open()
            case JournalLost(stream, why):
                self._keeper.stream_ended(stream, why)
            case HasDrained():
                self._stop()
            case _:
                raise AssertionError(f"not for the supervisor: {message!r}")

    def _on_broker_exit(self, cause: str) -> None:
        """End the epoch: every worker is killed and reaped before a new broker binds."""
        _log.error("the broker ended with %s; all calls in flight are lost", cause)
        self._bound = ()
        self._generations.broker_ended()
        self._keeper.broker_ended()
        self._administrator.end_epoch()
        if self._draining:
            self._stop()
            return
        self._broker.start_again()
        if not self._announced and self._broker.exhausted:
            self._give_up(f"the broker ended again and again, at last with {cause}")

    def _on_broker_failure(self, reason: str) -> None:
        if not self._announced and self._broker.exhausted:
            self._give_up(f"the broker can't be started: {reason}")


def _is_writable(channel: ControlChannel) -> bool:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLOUT)
    return bool(poll.poll(0))


def main() -> int:
    """Run the supervisor over the channel whose descriptor is the first argument."""
    host = ControlChannel.inherited(int(sys.argv[1]))
    first = host.receive()
    if first is None or len(first) > 1 or not isinstance(config := first[0][0], PoolConfig):
        return 1  # the host has given up meanwhile
    set_up_logs("supervisor", config.log_level, config.log_format)
    become_subreaper()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # those the host's thread had blocked
    try:
        use_cpus(config.cpus)
    except OSError as error:
        host.send(PoolFailed(f"can't use CPUs {config.cpus}: {error}"))
        return 1
    try:
        supervisor = Supervisor(config, host)
    except InvalidArgumentError as error:
        host.send(PoolFailed(str(error)))
        return 1
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
