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
import select
import selectors
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

import msgspec

from .folder import RuntimeFolder, remove_stale
from .processes import children, end_children, kill, reap, spawn_module, use_cpus
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
from .wire.places import POOL_PREFIX, endpoint_in
from .wire.slots import PAGE_BYTES, SLOTS_PER_WORKER, SlotsPage
from .wire.table import BUILTIN_PREFIX

_log = logging.getLogger("pronghorn.broker.supervisor")  # as a program it would be __main__

_REAP_WAIT_S = 0.5  # after a SIGKILL, before the supervisor ends without having reaped


class _Worker(msgspec.Struct):
    """One worker of this epoch, from the request for its start until it was reaped."""

    id: int
    page: int  # descriptor of the page of slots it shares with the broker
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
        self._claim_sockets()
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, Callable[[], None]]] = []  # (due, what to do), unordered
        self._workers: dict[int, _Worker] = {}  # worker id -> worker, until reaped
        self._worker_ids = 0  # the id given out last; never reused, also not by a new broker
        # Ids of workers whose process the template has not told yet. While there are any no adopted
        # child is reaped: it may be such a worker, whose end is to be reported with its cause.
        self._forking: set[int] = set()
        self._watched: dict[int, int] = {}  # pid of a child -> its pidfd, until reaped
        self._broker: ControlChannel | None = None
        self._broker_pid = 0
        self._broker_ready_at: float | None = None
        self._bound: tuple[str, ...] = ()  # () until the broker of this epoch is bound
        self._template: ControlChannel | None = None
        self._template_pid = 0
        # When the present template had imported the modules, so that it can fork; None until then.
        self._template_ready_at: float | None = None
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
            # The others are starting: nobody waits for this.
            remove_stale(self._folder.path.parent, POOL_PREFIX)
            while not self._stopping:
                self._turn()
        finally:
            try:
                self._end_tree()
            finally:
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
            # An earlier handler may have closed it, and another may have its number by now.
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def _watch(self, fd: int, handler: Callable[[], object]) -> None:
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
        if self._forking:
            return
        for pid in children():
            if pid not in self._watched:
                os.waitpid(pid, os.WNOHANG)

    def _stop(self) -> None:
        self._stopping = True

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
            if _is_ready(self._host.fileno(), select.POLLOUT):
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
        self._broker, self._broker_pid = self._spawn(
            "pronghorn.broker.server", config, self._folder.descriptors
        )
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
                if self._announced:
                    _log.error("a new broker can't serve and is started again: %s", text)
                else:
                    self._give_up(text)
            case WorkerReady(worker_id):
                worker = self._workers.get(worker_id)
                if worker is not None:
                    worker.ready_at = monotonic()
                    if self._broker_ready_at is None:
                        self._broker_ready_at = worker.ready_at
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
        self._end_workers()
        delay = self._broker_policy.died(monotonic(), ready_at=self._broker_ready_at)
        if not self._announced and self._broker_policy.exhausted(monotonic()):
            self._give_up(f"the broker ended again and again, at last with {cause}")
            return
        self._after(delay, self._start_broker)

    def _tell_broker(
        self,
        message: ServeTable | WorkerStarted | WorkerExited | Shutdown,
        descriptors: tuple[int, ...] = (),
    ) -> None:
        """Send to the broker; when it has ended its pidfd tells, and the next one starts anew."""
        assert self._broker is not None
        with suppress(OSError):
            self._broker.send(message, descriptors)

    def _begin_serving(self) -> None:
        """Let the broker serve; called when it is bound and the nodes are known."""
        assert self._loaded is not None
        self._tell_broker(ServeTable(self._loaded.table))
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

    def _read_template(self) -> bool:
        """Take in what the template has to say; `False` when it is gone."""
        assert self._template is not None
        received = self._template.receive()
        if received is None:
            if self._template.fileno() in self._selector.get_map():
                self._selector.unregister(self._template.fileno())
            return False
        for message, _ in received:
            match message:
                case Loaded():
                    self._on_loaded(message)
                case WorkerForked(worker_id, pid):
                    self._forking.discard(worker_id)
                    self._on_forked(worker_id, pid)
                    self._reap_adopted()
                case _:
                    raise AssertionError(f"not for the supervisor: {message!r}")
        return True

    def _on_loaded(self, loaded: Loaded) -> None:
        served, modules = self._loaded, ", ".join(self._config.modules)
        if all(node.name.startswith(BUILTIN_PREFIX) for node in loaded.table.nodes):
            if served is None:
                self._loaded = loaded
                self._give_up(f"no node can be served from {modules}")
                return
            _log.error("no node can be served from %s any more: importing it again", modules)
            kill(self._template_pid)  # which is started again; running workers serve on
            return
        self._loaded = loaded
        self._template_ready_at = monotonic()
        for reason in loaded.unsafe:
            _log.warning("workers are spawned, which is slow, for they can't be forked: %s", reason)
        if served is None and self._bound:
            self._begin_serving()
        elif served is not None and served.table != loaded.table and self._bound:
            _log.error("the nodes of %s have changed: a new broker serves them", modules)
            kill(self._broker_pid)
        else:
            self._fill()

    def _on_template_exit(self, cause: str) -> None:
        assert self._template is not None
        while _is_ready(self._template.fileno(), select.POLLIN) and self._read_template():
            pass  # what it wrote last: the processes of workers
        _log.error("the template ended with %s; running workers are not affected", cause)
        self._close_channel(self._template)
        self._template = None
        ready_at, self._template_ready_at = self._template_ready_at, None
        for worker in [
            self._workers[worker_id] for worker_id in self._forking & self._workers.keys()
        ]:
            self._forget_worker(worker, "its template ended before it was forked")
        self._forking.clear()
        self._reap_adopted()
        if self._loaded is None:  # what killed it, most likely, is what it was importing
            self._give_up(f"importing {', '.join(self._config.modules)} ended with {cause}")
            return
        delay = self._template_policy.died(monotonic(), ready_at=ready_at)
        self._after(delay, self._start_template)

    # --- workers --------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Start workers until there are as many as there should be, if that is possible now."""
        if self._bound and self._template_ready_at is not None:
            while len(self._workers) < self._config.workers:
                self._start_worker()

    def _start_worker(self) -> None:
        """Start one worker: its link and page go to the broker and to the process it becomes."""
        self._worker_ids += 1
        page = os.memfd_create("pronghorn-slots", os.MFD_CLOEXEC)
        os.ftruncate(page, PAGE_BYTES)
        worker = self._workers[self._worker_ids] = _Worker(self._worker_ids, page)
        broker_end, worker_end = make_pair()
        with broker_end, worker_end:
            self._tell_broker(WorkerStarted(worker.id), (broker_end.fileno(), page))
            self._launch(worker, worker_end.fileno())

    def _launch(self, worker: _Worker, link: int) -> None:
        """Have the template fork the worker; spawn it if the template must not be forked."""
        assert self._loaded is not None
        assert self._template is not None
        if not self._loaded.unsafe:
            self._forking.add(worker.id)
            with suppress(OSError):  # it is gone, which is reported next
                self._template.send(StartWorker(worker.id), (link, worker.page))
            return
        arguments = [str(worker.id), str(link), str(worker.page)]
        ours, theirs = make_pair()
        channel = ControlChannel(ours)
        with theirs:
            pid = spawn_module(
                "pronghorn.worker.spawned",
                [*arguments, str(theirs.fileno())],
                [link, worker.page, theirs.fileno()],
            )
        with suppress(OSError):  # as above
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
        self._watch_child(pid, lambda cause: self._on_worker_exit(worker, cause))
        if worker.killed:  # the broker was quicker than the template
            kill(pid)

    def _on_worker_exit(self, worker: _Worker, cause: str) -> None:
        """Report the end of a worker and start another in its place."""
        cause = f"{cause}: {worker.killed}" if worker.killed else cause
        _log.warning("worker %d (pid %s) ended with %s", worker.id, worker.pid, cause)
        now = monotonic()
        # One that has begun requests did not end by how it starts, and is replaced at once.
        has_served = _has_served(worker)
        delay = 0.0 if has_served else self._worker_policy.died(now, ready_at=worker.ready_at)
        self._forget_worker(worker, cause)
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
        os.close(worker.page)
        if self._broker is not None:
            self._tell_broker(WorkerExited(worker.id, cause))

    def _kill_worker(self, worker_id: int, reason: str) -> None:
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.killed = reason
            if worker.pid is not None:
                kill(worker.pid)

    def _end_workers(self) -> None:
        """Kill and reap the workers of an epoch that has ended."""
        workers = list(self._workers.values())
        self._workers.clear()
        pids = [worker.pid for worker in workers if worker.pid is not None]
        for pid in pids:
            kill(pid)
        for pid in pids:
            self._unwatch_child(pid)
            reap(pid)
        for worker in workers:
            os.close(worker.page)

    # --- children -------------------------------------------------------------------------------

    def _spawn(
        self,
        module: str,
        config: BrokerConfig | TemplateConfig,
        descriptors: tuple[int, ...] = (),
    ) -> tuple[ControlChannel, int]:
        """Start a process with a channel to it, its config being the first message."""
        ours, theirs = make_pair()
        with theirs:
            pid = spawn_module(module, [str(theirs.fileno())], [theirs.fileno(), *descriptors])
        channel = ControlChannel(ours)
        with suppress(OSError):  # it has ended, which its pidfd tells
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
            self._tell_broker(Shutdown())
        if self._template is not None:
            self._template.close()  # which ends it
        self._wait_for_children(self._config.grace_s)
        for pid in self._watched:
            kill(pid)
        self._wait_for_children(_REAP_WAIT_S)
        # Processes that users' nodes started became children of this one when their worker ended.
        end_children(_REAP_WAIT_S)

    def _wait_for_children(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while self._watched and (left := deadline - monotonic()) > 0:
            with selectors.DefaultSelector() as selector:
                for pid, pidfd in self._watched.items():
                    selector.register(pidfd, selectors.EVENT_READ, pid)
                for key, _ in selector.select(left):
                    self._unwatch_child(key.data)
                    reap(key.data)


def _is_ready(descriptor: int, event: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(0))


def _has_served(worker: _Worker) -> bool:
    """Tell from its page whether a worker that has ended had begun a request."""
    page = SlotsPage(memoryview(os.pread(worker.page, PAGE_BYTES, 0)))
    return any(page.started_ns(slot) for slot in range(SLOTS_PER_WORKER))


def main() -> int:
    """Run the supervisor over the channel whose descriptor is the first argument."""
    host = ControlChannel.inherited(int(sys.argv[1]))
    first = host.receive()
    if first is None:
        return 1
    config = first[0][0]
    if not isinstance(config, PoolConfig):  # the host gave up before
        return 1
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
