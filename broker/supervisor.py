"""The supervisor process: starts, watches, replaces and ends all others. An IO shell.

::

    host ──channel──► supervisor ──channel──► broker    routes; told of each worker's start and end
                          │ ────channel─────► template  imports users' modules, forks workers
                          └──── pidfds ─────► workers   children by re-parenting (subreaper)

It runs no code of users and holds no request. It ends the whole tree when the host closes the
channel or ends, and on SIGTERM or SIGINT; when it is itself killed, the kernel kills template and
workers (PR_SET_PDEATHSIG) and the broker, seeing the channel closed, removes the files and ends.

Mirror: tests/broker/test_supervisor.py.
"""

import logging
import os
import secrets
import selectors
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import msgspec

from .folder import RuntimeFolder
from .processes import children, kill, reap, spawn_module, use_cpus
from .restart import RestartPolicy
from .wire.channel import ControlChannel, make_pair
from .wire.control import (
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
    StartWorker,
    TemplateConfig,
    WorkerExited,
    WorkerForked,
    WorkerReady,
    WorkerStarted,
)
from .wire.errors import InvalidArgumentError
from .wire.linux import become_subreaper
from .wire.places import endpoint_in
from .wire.slots import PAGE_BYTES
from .wire.table import BUILTIN_PREFIX

_log = logging.getLogger(__name__)

_REAP_WAIT_S = 0.5  # after a SIGKILL, before the supervisor ends without having reaped


class _Worker(msgspec.Struct):
    """One worker of this epoch, from the request for its start until it was reaped."""

    id: int
    pid: int | None = None  # None until the template has told it
    ready_at: float | None = None
    killed: str = ""  # why we killed it, if we did


class Supervisor:
    """The running supervisor. Owns all processes of the tree."""

    def __init__(self, config: PoolConfig, host: ControlChannel) -> None:
        self._config = config
        self._host = host
        self._folder = RuntimeFolder(Path(config.folder))
        self._endpoints = (endpoint_in(config.folder), *config.endpoints)
        self._lock_endpoints()
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, Callable[[], None]]] = []  # (due, what to do), unordered
        self._workers: dict[int, _Worker] = {}  # worker id -> worker, until reaped
        self._worker_ids = 0  # the id given out last; never reused, also not by a new broker
        self._watched: dict[int, int] = {}  # pid of a child -> its pidfd, until reaped
        self._broker: ControlChannel | None = None
        self._broker_pid = 0
        self._broker_ready_at: float | None = None
        self._bound: tuple[str, ...] = ()  # () until the broker of this epoch is bound
        self._template: ControlChannel | None = None
        self._template_pid = 0
        self._template_ready = False  # whether the present template has imported the modules
        self._loaded: Loaded | None = None
        self._epoch = ""
        self._announced = ""  # the epoch that the host was told of last
        self._broker_policy = RestartPolicy()
        self._template_policy = RestartPolicy()
        self._worker_policy = RestartPolicy()
        self._stopping = False
        self._exit_status = 0

    # --- the loop -------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit status. Leaves no process and no file."""
        try:
            self._watch(self._host.fileno(), self._read_host)
            self._watch_host_process()
            self._watch_signals()
            self._start_broker()
            self._start_template()
            while not self._stopping:
                self._turn()
        finally:
            self._end_tree()
            self._folder.remove()
        return self._exit_status

    def _turn(self) -> None:
        now = monotonic()
        due = [timer for timer in self._timers if timer[0] <= now]
        for timer in due:
            self._timers.remove(timer)
            timer[1]()
        timeout = min((timer[0] for timer in self._timers), default=None)
        for key, _ in self._selector.select(
            None if timeout is None else max(0.0, timeout - monotonic())
        ):
            if key.fd in self._selector.get_map():  # an earlier handler may have closed it
                key.data()

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, handler)

    def _after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._timers.append((monotonic() + delay_s, action))

    def _watch_host_process(self) -> None:
        """Watch the host's process too: a child of the host may keep the channel open."""
        try:
            pidfd = os.pidfd_open(self._config.host_pid)
        except ProcessLookupError:
            self._stopping = True
            return
        self._watch(pidfd, self._stop)

    def _watch_signals(self) -> None:
        reader, writer = make_pair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the wake-up descriptor does the work
        self._signals = (reader, writer)  # kept open
        self._watch(reader.fileno(), self._read_signals)

    def _read_signals(self) -> None:
        numbers = self._signals[0].recv(4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        self._reap_adopted()

    def _reap_adopted(self) -> None:
        """Reap what nodes have started and left behind: it became ours when their worker ended."""
        for pid in children():
            if pid not in self._watched:
                os.waitpid(pid, os.WNOHANG)

    def _stop(self) -> None:
        self._stopping = True

    def _lock_endpoints(self) -> None:
        for endpoint in self._config.endpoints:
            if endpoint.startswith("ipc:///"):
                self._folder.lock(Path(endpoint.removeprefix("ipc://") + ".lock"))

    # --- the host -------------------------------------------------------------------------------

    def _read_host(self) -> None:
        if self._host.receive() is None:
            self._stop()

    def _tell_host(self, message: PoolReady | PoolFailed) -> None:
        try:
            self._host.send(message)
        except OSError:  # it is gone
            self._stop()

    def _give_up(self, message: str) -> None:
        failures = self._loaded.failures if self._loaded else ()
        self._tell_host(PoolFailed(message, failures))
        self._exit_status = 1
        self._stop()

    def _announce(self) -> None:
        """Tell the host once an epoch that its workers are all ready."""
        workers = self._workers.values()
        ready = sum(worker.ready_at is not None for worker in workers)
        if self._loaded is None or ready < self._config.workers or self._announced == self._epoch:
            return
        self._announced = self._epoch
        loaded = self._loaded
        self._tell_host(
            PoolReady(self._bound, self._epoch, loaded.table, loaded.failures, loaded.unsafe)
        )

    # --- the broker -----------------------------------------------------------------------------

    def _start_broker(self) -> None:
        self._epoch = secrets.token_hex(8)
        self._broker_ready_at = None
        config = BrokerConfig(
            endpoints=self._endpoints,
            epoch=self._epoch,
            limits=self._config.limits,
            insecure=self._config.insecure,
            files=self._folder.files,
            log_level=self._config.log_level,
        )
        self._broker, self._broker_pid = self._spawn("pronghorn.broker.server", config)
        self._watch(self._broker.fileno(), self._read_broker)
        self._watch_child(self._broker_pid, self._on_broker_exit)

    def _read_broker(self) -> None:
        assert self._broker is not None
        received = self._broker.receive()
        if received is None:  # its exit is about to be reported by its pidfd
            self._selector.unregister(self._broker.fileno())
            return
        for message, _ in received:
            self._on_broker_message(message)

    def _on_broker_message(self, message: ControlMessage) -> None:
        match message:
            case BrokerBound(endpoints):
                self._bound = endpoints
                # A port chosen by the system stays the same for the next broker.
                self._endpoints = endpoints
                if self._loaded is not None:
                    self._begin_serving()
            case BrokerFailed(text):
                self._give_up(text)
            case WorkerReady(worker_id):
                worker = self._workers.get(worker_id)
                if worker is not None:
                    worker.ready_at = self._broker_ready_at = monotonic()
                    self._announce()
            case KillWorker(worker_id, reason):
                self._kill_worker(worker_id, reason)
            case _:
                raise AssertionError(f"not for the supervisor: {message!r}")

    def _on_broker_exit(self, cause: str) -> None:
        """End the epoch: every worker is killed and reaped before a new broker binds."""
        _log.error("the broker ended with %s; all calls in flight are lost", cause)
        assert self._broker is not None
        self._close_channel(self._broker)
        self._broker = None
        self._bound = ()
        for worker in list(self._workers.values()):
            self._end_worker(worker)
        delay = self._broker_policy.died(monotonic(), ready_at=self._broker_ready_at)
        if not self._announced and self._broker_policy.exhausted(monotonic()):
            self._give_up(f"the broker ended again and again, at last with {cause}")
            return
        self._after(delay, self._start_broker)

    def _begin_serving(self) -> None:
        """Let the broker serve; called when it is bound and the nodes are known."""
        assert self._broker is not None
        assert self._loaded is not None
        self._broker.send(ServeTable(self._loaded.table))
        self._fill()

    # --- the template ---------------------------------------------------------------------------

    def _start_template(self) -> None:
        config = self._template_config()
        self._template, self._template_pid = self._spawn("pronghorn.worker.template", config)
        self._watch(self._template.fileno(), self._read_template)
        self._watch_child(self._template_pid, self._on_template_exit)

    def _template_config(self) -> TemplateConfig:
        return TemplateConfig(
            modules=self._config.modules,
            sys_path=self._config.sys_path,
            supervisor_pid=os.getpid(),
            result_bytes=self._config.limits.result_bytes,
            log_level=self._config.log_level,
        )

    def _read_template(self) -> None:
        assert self._template is not None
        received = self._template.receive()
        if received is None:
            self._selector.unregister(self._template.fileno())
            return
        for message, _ in received:
            match message:
                case Loaded():
                    self._on_loaded(message)
                case WorkerForked(worker_id, pid):
                    self._on_forked(worker_id, pid)
                case _:
                    raise AssertionError(f"not for the supervisor: {message!r}")

    def _on_loaded(self, loaded: Loaded) -> None:
        first = self._loaded is None
        self._loaded = loaded
        self._template_ready = True
        if not any(not node.name.startswith(BUILTIN_PREFIX) for node in loaded.table.nodes):
            self._give_up("no node can be served from " + ", ".join(self._config.modules))
            return
        if first and self._bound:
            self._begin_serving()
        else:
            self._fill()

    def _on_template_exit(self, cause: str) -> None:
        assert self._template is not None
        _log.error("the template ended with %s; running workers are not affected", cause)
        self._close_channel(self._template)
        self._template = None
        self._template_ready = False
        for worker in [one for one in self._workers.values() if one.pid is None]:
            self._forget_worker(worker, "its template ended before it was forked")
        now = monotonic()
        delay = self._template_policy.died(now, ready_at=None)
        if self._loaded is None and self._template_policy.exhausted(now):
            self._give_up(f"importing {', '.join(self._config.modules)} ended with {cause}")
            return
        self._after(delay, self._start_template)

    # --- workers --------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start workers until there are as many as there should be, if that is possible now."""
        if self._bound and self._template_ready:
            while len(self._workers) < self._config.workers:
                self._start_worker()

    def _start_worker(self) -> None:
        """Start one worker: its link and page go to the broker and to the process it becomes."""
        assert self._broker is not None
        assert self._loaded is not None
        self._worker_ids += 1
        worker = _Worker(self._worker_ids)
        self._workers[worker.id] = worker
        broker_end, worker_end = make_pair()
        page = os.memfd_create("pronghorn-slots", os.MFD_CLOEXEC)
        try:
            os.ftruncate(page, PAGE_BYTES)
            self._broker.send(WorkerStarted(worker.id), (broker_end.fileno(), page))
            self._launch(worker, worker_end.fileno(), page)
        except OSError as error:  # the other end is gone; its exit is reported next
            _log.warning("can't start worker %d: %s", worker.id, error)
        finally:
            broker_end.close()
            worker_end.close()
            os.close(page)

    def _launch(self, worker: _Worker, link: int, page: int) -> None:
        """Have the template fork the worker; spawn it if the template must not be forked."""
        assert self._loaded is not None
        assert self._template is not None
        if not self._loaded.unsafe:
            self._template.send(StartWorker(worker.id), (link, page))
            return
        arguments = [str(worker.id), str(link), str(page)]
        ours, theirs = make_pair()
        channel = ControlChannel(ours)
        pid = spawn_module(
            "pronghorn.worker.spawned",
            [*arguments, str(theirs.fileno())],
            [link, page, theirs.fileno()],
        )
        theirs.close()
        channel.send(self._template_config())
        channel.close()
        self._on_forked(worker.id, pid)

    def _on_forked(self, worker_id: int, pid: int) -> None:
        worker = self._workers.get(worker_id)
        if worker is None:  # the epoch in which it was asked for has ended
            kill(pid)
            reap(pid)
            return
        worker.pid = pid
        try:
            self._watch_child(pid, lambda cause: self._on_worker_exit(worker, cause))
        except ProcessLookupError:  # it ended at once and was reaped as an adopted one
            self._on_worker_exit(worker, "an early end")

    def _on_worker_exit(self, worker: _Worker, cause: str) -> None:
        """Report the end of a worker and start another in its place."""
        cause = f"{cause}: {worker.killed}" if worker.killed else cause
        _log.warning("worker %d (pid %s) ended with %s", worker.id, worker.pid, cause)
        self._forget_worker(worker, cause)
        now = monotonic()
        delay = 0.0 if worker.killed else self._worker_policy.died(now, ready_at=worker.ready_at)
        if not self._announced and self._worker_policy.exhausted(now):
            self._give_up(f"workers end before they are ready, the last with {cause}")
            return
        if delay:
            self._after(delay, self._fill)
        else:
            self._fill()

    def _forget_worker(self, worker: _Worker, cause: str) -> None:
        """Tell the broker that a worker is gone."""
        del self._workers[worker.id]
        if self._broker is not None:
            try:
                self._broker.send(WorkerExited(worker.id, cause))
            except OSError:
                _log.info("the broker is gone too; the next one starts with new workers")

    def _kill_worker(self, worker_id: int, reason: str) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None and worker.pid is not None:
            worker.killed = reason
            kill(worker.pid)

    def _end_worker(self, worker: _Worker) -> None:
        """Kill and reap a worker of an epoch that has ended."""
        del self._workers[worker.id]
        if worker.pid is not None:
            kill(worker.pid)
            self._unwatch_child(worker.pid)
            reap(worker.pid)

    # --- children -------------------------------------------------------------------------------

    def _spawn(
        self, module: str, config: BrokerConfig | TemplateConfig
    ) -> tuple[ControlChannel, int]:
        """Start a process with a channel to it, its config being the first message."""
        ours, theirs = make_pair()
        pid = spawn_module(module, [str(theirs.fileno())], [theirs.fileno()])
        theirs.close()
        channel = ControlChannel(ours)
        channel.send(config)
        return channel, pid

    def _watch_child(self, pid: int, on_exit: Callable[[str], None]) -> None:
        pidfd = os.pidfd_open(pid)  # a child's id stays its own until we reap it
        self._watched[pid] = pidfd

        def ended() -> None:
            self._unwatch_child(pid)
            on_exit(reap(pid))

        self._watch(pidfd, ended)

    def _unwatch_child(self, pid: int) -> None:
        pidfd = self._watched.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)

    def _close_channel(self, channel: ControlChannel) -> None:
        if channel.fileno() in self._selector.get_map():
            self._selector.unregister(channel.fileno())
        channel.close()

    def _end_tree(self) -> None:
        """Let the broker and running nodes finish within the grace time, then kill what is left."""
        if self._broker is not None:
            try:
                self._broker.send(Shutdown())
            except OSError:
                _log.warning("the broker is gone already")
        if self._template is not None:
            self._template.close()  # which ends it
        self._wait_for_children(self._config.grace_s)
        for pid in self._watched:
            kill(pid)
        self._wait_for_children(_REAP_WAIT_S)
        # Processes that users' nodes started became children of this one when their worker ended.
        for pid in children():
            kill(pid)
            reap(pid)

    def _wait_for_children(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while self._watched and (left := deadline - monotonic()) > 0:
            with selectors.DefaultSelector() as selector:
                for pid, pidfd in self._watched.items():
                    selector.register(pidfd, selectors.EVENT_READ, pid)
                for key, _ in selector.select(left):
                    self._unwatch_child(key.data)
                    reap(key.data)


def main() -> int:
    """Run the supervisor over the channel whose descriptor is the first argument."""
    host = ControlChannel.inherited(int(sys.argv[1]))
    first = host.receive()
    if first is None:
        return 1
    config = first[0][0]
    assert isinstance(config, PoolConfig)
    logging.basicConfig(level=config.log_level, format="%(levelname)s %(name)s: %(message)s")
    become_subreaper()
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
