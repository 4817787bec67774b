"""The supervisor process: starts, watches, replaces and ends all others. An IO shell.

::

    host ──channel──► supervisor ──channel──► broker    routes; told of each worker's start and end
                          │ ────channel─────► template  imports users' modules, forks workers
                          └──── pidfds ─────► workers   children by re-parenting (subreaper)

It runs no code of users and holds no request. It ends the whole tree when the host closes the
channel or ends, and on SIGTERM or SIGINT; when it is itself killed, the kernel kills template and
workers (PR_SET_PDEATHSIG) and the broker, seeing the channel closed, removes the files and ends.

`watcher` is its loop, `program` keeps broker and template running, `workforce` the workers; here is
what one of them means for the others, and for the host.

Mirror: tests/broker/test_supervisor.py.
"""

import logging
import os
import secrets
import select
import signal
import sys
from pathlib import Path
from time import monotonic

from .folder import RuntimeFolder, remove_stale
from .processes import end_children, use_cpus
from .program import Program
from .watcher import Watcher
from .wire.channel import ControlChannel
from .wire.control import (
    HOOKS_GRACE_S,
    BrokerBound,
    BrokerConfig,
    BrokerFailed,
    ControlMessage,
    KillWorker,
    Loaded,
    PoolConfig,
    PoolFailed,
    PoolReady,
    ServeTable,
    Shutdown,
    TemplateConfig,
    WorkerForked,
    WorkerReady,
)
from .wire.errors import InvalidArgumentError
from .wire.linux import become_subreaper
from .wire.places import POOL_PREFIX, endpoint_in
from .wire.table import BUILTIN_PREFIX
from .workforce import Workforce

_log = logging.getLogger("pronghorn.broker.supervisor")  # as a program it would be __main__

_REAP_WAIT_S = 0.5  # after a SIGKILL, before the supervisor ends without having reaped


class Supervisor:
    """The running supervisor. Owns all processes of the tree."""

    def __init__(self, config: PoolConfig, host: ControlChannel) -> None:
        self._config = config
        self._host = host
        self._modules = ", ".join(config.modules)
        self._folder = RuntimeFolder(Path(config.folder))
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
        self._template = Program(
            "pronghorn.worker.template",
            self._watcher,
            configure=self._configure_template,
            on_message=self._on_template_message,
            on_exit=self._on_template_exit,
            on_failure=self._on_template_failure,
        )
        self._workers = Workforce(
            config.workers,
            self._watcher,
            broker=self._broker,
            template=self._template,
            start_timeout_s=config.start_timeout_s,
            result_bytes=config.limits.result_bytes,
            on_stillborn=self._on_stillborn,
        )
        self._bound: tuple[str, ...] = ()  # () until the broker of this epoch is bound
        self._loaded: Loaded | None = None  # what the modules hold, as they were imported last
        self._outdated = False  # whether it was told that spawned workers fail, maybe for a change
        self._epoch = ""
        self._announced = ""  # the epoch that the host was told of last
        self._stopping = False
        self._exit_status = 0

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit status. Leaves no process and no file."""
        try:
            self._watcher.watch(self._host.fileno(), self._read_host)
            self._watch_host_process()
            self._watcher.watch_signals(
                signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, handler=self._on_signals
            )
            self._broker.start()
            self._template.start()
            # The others are starting: nobody waits for this.
            remove_stale(self._folder.path.parent, POOL_PREFIX)
            while not self._stopping:
                self._workers.can_start = bool(self._bound) and self._template.ready_at is not None
                self._workers.tend()
                self._tell_how_it_stands()
                self._watcher.turn(self._workers.next_due)
        finally:
            try:
                self._end_tree()
            finally:
                self._folder.remove()
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
        self._workers.reap_others()

    def _stop(self) -> None:
        self._stopping = True

    def _end_tree(self) -> None:
        """Let the broker and running nodes finish within the grace time, then kill what is left."""
        self._broker.send(Shutdown())
        self._template.close()
        hooks = self._loaded is not None and self._loaded.stop_hooks
        grace_s = HOOKS_GRACE_S if hooks else self._config.grace_s
        self._watcher.wait_for_children(grace_s)
        self._watcher.kill_children()
        self._watcher.wait_for_children(_REAP_WAIT_S)
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
            self._folder.remove()
            raise

    # --- the host -------------------------------------------------------------------------------

    def _read_host(self) -> None:
        received = self._host.receive()
        if received is None or any(isinstance(message, Shutdown) for message, _ in received):
            self._stop()

    def _tell_host(self, message: PoolReady | PoolFailed) -> None:
        """Send news; a host that takes none in, as `Pool` once it runs, must not block the tree."""
        try:
            if _is_writable(self._host):
                self._host.send(message)
        except OSError:  # it is gone, or can't be told of its pool
            self._stop()

    def _give_up(self, message: str) -> None:
        failures = self._loaded.failures if self._loaded else ()
        self._tell_host(PoolFailed(message, failures))
        self._exit_status = 1
        self._stop()

    def _tell_how_it_stands(self) -> None:
        """Tell the host once an epoch that there are workers, or that none will ever be ready."""
        loaded, workers = self._loaded, self._workers
        if loaded is not None and self._bound and self._announced != self._epoch and workers.stands:
            if workers.ready_count < self._config.workers:
                _log.error(
                    "only %d of %d workers are ready, others are tried again: %s",
                    workers.ready_count,
                    self._config.workers,
                    workers.last_failure,
                )
            self._announced = self._epoch
            self._tell_host(
                PoolReady(self._bound, self._epoch, loaded.table, loaded.failures, loaded.unsafe)
            )
        elif not self._announced and workers.hopeless:
            self._give_up(workers.last_failure)

    # --- the broker -----------------------------------------------------------------------------

    def _configure_broker(self) -> tuple[BrokerConfig, tuple[int, ...]]:
        self._epoch = secrets.token_hex(8)
        config = BrokerConfig(
            endpoints=self._endpoints,
            epoch=self._epoch,
            limits=self._config.limits,
            bounds=self._config.bounds,
            insecure=self._config.insecure,
            files=self._folder.files,
            log_level=self._config.log_level,
        )
        return config, self._folder.descriptors

    def _on_broker_message(self, message: ControlMessage) -> None:
        match message:
            case BrokerBound(endpoints):
                self._bound = endpoints
                # A port chosen by the system stays the same for the next broker.
                self._endpoints = endpoints
                if self._loaded is not None:
                    self._broker.send(ServeTable(self._loaded.table))
            case BrokerFailed(text):
                if self._announced:
                    _log.error("a new broker can't serve and is started again: %s", text)
                else:
                    self._give_up(text)
            case WorkerReady(worker_id):
                self._workers.ready(worker_id)
                self._outdated = False
                if self._broker.ready_at is None:
                    self._broker.ready_at = monotonic()
            case KillWorker(worker_id, reason):
                self._workers.kill(worker_id, reason)
            case _:
                raise AssertionError(f"not for the supervisor: {message!r}")

    def _on_broker_exit(self, cause: str) -> None:
        """End the epoch: every worker is killed and reaped before a new broker binds."""
        _log.error("the broker ended with %s; all calls in flight are lost", cause)
        self._bound = ()
        self._workers.end_epoch()
        self._broker.start_again()
        if not self._announced and self._broker.exhausted:
            self._give_up(f"the broker ended again and again, at last with {cause}")

    def _on_broker_failure(self, reason: str) -> None:
        if not self._announced and self._broker.exhausted:
            self._give_up(f"the broker can't be started: {reason}")

    # --- the template ---------------------------------------------------------------------------

    def _configure_template(self) -> tuple[TemplateConfig, tuple[int, ...]]:
        config = TemplateConfig(
            modules=self._config.modules,
            sys_path=self._config.sys_path,
            supervisor_pid=os.getpid(),
            result_bytes=self._config.limits.result_bytes,
            log_level=self._config.log_level,
        )
        return config, ()

    def _on_template_message(self, message: ControlMessage) -> None:
        match message:
            case Loaded():
                self._on_loaded(message)
            case WorkerForked(worker_id, pid):
                self._workers.forked(worker_id, pid)
            case _:
                raise AssertionError(f"not for the supervisor: {message!r}")

    def _on_loaded(self, loaded: Loaded) -> None:
        served = self._loaded
        if all(node.name.startswith(BUILTIN_PREFIX) for node in loaded.table.nodes):
            if served is None:
                self._loaded = loaded
                self._give_up(f"no node can be served from {self._modules}")
                return
            _log.error("no node can be served from %s any more: importing again", self._modules)
            self._template.kill()  # which is started again; running workers serve on
            return
        self._loaded = loaded
        self._template.ready_at = monotonic()
        self._prepare_starts(loaded, self._template.ready_at - self._template.started_at)
        if not self._bound:
            return
        if served is None:
            self._broker.send(ServeTable(loaded.table))
        elif served.table != loaded.table:
            _log.error("the nodes of %s have changed: a new broker serves them", self._modules)
            self._bound = ()  # nothing is started for this epoch any more
            self._broker.kill()

    def _prepare_starts(self, loaded: Loaded, loading_s: float) -> None:
        """Have workers forked, or spawned where that is not safe."""
        start_timeout_s = self._config.start_timeout_s
        if loaded.unsafe:
            # Each imports what the template did, all of them maybe on one CPU.
            start_timeout_s += loading_s * self._config.workers
        spawn = self._configure_template()[0] if loaded.unsafe else None
        self._workers.prepare(spawn=spawn, start_timeout_s=start_timeout_s)
        for reason in loaded.unsafe:
            _log.warning("workers are spawned, which is slow, for they can't be forked: %s", reason)

    def _on_template_exit(self, cause: str) -> None:
        _log.error("the template ended with %s; running workers are not affected", cause)
        if self._workers.template_ended():
            # It ended forking, as it does when the system allows no more processes: it is no good
            # start then, however long it has stood.
            self._template.ready_at = None
        self._template.start_again()
        if self._loaded is None:  # what killed it, most likely, is what it was importing
            self._give_up(f"importing {self._modules} ended with {cause}")

    def _on_template_failure(self, reason: str) -> None:
        if self._loaded is None and self._template.exhausted:
            self._give_up(f"the template can't be started: {reason}")

    def _on_stillborn(self) -> None:
        """See to it that spawned workers, which import modules anew, can be of the served nodes.

        When modules change on disk what they start with is not what is served, and the broker has
        them killed. As long as others run these serve on; when none is left nothing is lost by
        serving what the modules hold now.
        """
        if not (self._announced and self._loaded and self._loaded.unsafe):
            return
        if self._workers.ready_count:
            if not self._outdated:
                self._outdated = True
                _log.error(
                    "%s; if %s changed on disk, restart to serve what is there now: "
                    "%d workers serve on, others are tried again",
                    self._workers.last_failure,
                    self._modules,
                    self._workers.ready_count,
                )
        elif self._template.ready_at is not None:
            _log.error("%s: importing %s again", self._workers.last_failure, self._modules)
            self._template.ready_at = None  # nothing is started by what it has told
            self._template.kill()


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
    logging.basicConfig(level=config.log_level, format="%(levelname)s %(name)s: %(message)s")
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
