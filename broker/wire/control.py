"""Messages between host, supervisor, broker, template, journal and workers' launch.

Private to one installation, like the link. A message's file descriptors travel beside it
(`channel.ControlChannel`), in the order its docstring names.

Mirror: tests/broker/wire/test_control.py.
"""

import msgspec
from msgspec import Raw

from .administration import Order, OrderError, SeenWorker
from .limits import DEFAULT_BOUNDS, DEFAULT_LIMITS, Bounds, Limits
from .logline import LogFormat, LogLevel
from .table import NodeTable

RETIRE_S = 600.0
"""What a worker that is replaced gets to end what it has begun. It harms nobody meanwhile, so there
is time for slow nodes; it must not stay for ever, for each takes memory."""

HOOKS_GRACE_S = 9.0
"""What workers with stop hooks get to end: they end themselves in time (worker/process.py)."""


EXIT_START_HOOK = 78
"""Exit status of a worker whose start hook has failed: that of sysexits.h for a configuration
error, so that it can be told from what users' code ends with. Where crashes write their stack it
has written the traceback, the exception in its last line."""


class ModuleFailure(msgspec.Struct, frozen=True):
    """A module, or one node of it, that can't be served, and why (a formatted traceback)."""

    module: str
    reason: str


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What each worker may take of its host; 0: as much as there is.

    Attributes:
        memory_bytes: Of its own, writable memory. Beyond it a node gets a `MemoryError`.
        cpu_s: Seconds of CPU time in its life, after which it ends.
        files: Descriptors it may have open.
        network: Whether it has one.
    """

    memory_bytes: int = 0
    cpu_s: int = 0
    files: int = 0
    network: bool = True


UNCONFINED = Confinement()


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Host to supervisor, first of all: what to serve and how.

    Attributes:
        modules: Files, package names or entry points.
        sys_path: The host's ``sys.path``, so that the same names import the same modules.
        workers: Number of worker processes.
        folder: Runtime folder; made, locked and removed by the supervisor.
        shared: Folder of values that go by reference; the supervisor says which.
        endpoints: Endpoints to bind besides the one in the folder.
        insecure: Whether tcp endpoints other than loopback are allowed without keys.
        keys: Folder of the keys that clients over tcp have to show; "": they need none.
        cpus: CPUs that all processes of the tree may use; all when empty.
        limits: Limits towards clients.
        bounds: What the broker holds and waits for at most.
        labels: How many workers have each label.
        hosts: Number of run hosts; without any, workers conduct workflows too.
        host_pid: The host's process, whose end ends the tree.
        grace_s: Seconds that running nodes get to finish at shutdown before they are killed, unless
            there are stop hooks.
        start_timeout_s: Seconds that a worker gets from its start until it is ready; where workers
            are spawned, what their imports take comes on top.
        recycle_requests: Requests after which a worker is replaced, 0: however many.
        recycle_age_s: Seconds after which a worker is replaced, 0: however old.
        recycle_memory: Bytes of resident memory from which on a worker is replaced, 0: never.
        drain_s: Seconds that open requests of clients get to end when the tree is told to drain.
        retire_s: Seconds that a worker which is replaced gets to end what it has begun.
        reload: Whether to reload when a file of the modules changes.
        remote_admin: Whether clients over tcp may administer the pool.
        confinement: What each worker may take.
        data: Folder of the journal; "": nothing can be recorded.
        log_level: Level for all processes of the tree.
        log_format: How they write it.
    """

    modules: tuple[str, ...]
    sys_path: tuple[str, ...]
    workers: int
    folder: str
    shared: str = ""
    endpoints: tuple[str, ...] = ()
    insecure: bool = False
    keys: str = ""
    cpus: tuple[int, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    bounds: Bounds = DEFAULT_BOUNDS
    labels: dict[str, int] = {}
    hosts: int = 0
    host_pid: int = 0
    grace_s: float = 0.3
    start_timeout_s: float = 30.0
    recycle_requests: int = 0
    recycle_age_s: float = 0.0
    recycle_memory: int = 0
    drain_s: float = 0.0
    retire_s: float = RETIRE_S
    reload: bool = False
    remote_admin: bool = False
    confinement: Confinement = UNCONFINED
    data: str = ""
    log_level: LogLevel = "WARNING"
    log_format: LogFormat = "human"


class PoolReady(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to host: as many workers are ready as can be had, once for each broker."""

    endpoints: tuple[str, ...]
    epoch: str
    table: NodeTable
    failures: tuple[ModuleFailure, ...]
    warnings: tuple[str, ...] = ()


class PoolFailed(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to host: the pool can't be started; the supervisor ends after it."""

    message: str
    failures: tuple[ModuleFailure, ...] = ()


class PoolReloaded(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to host: what the modules hold was imported anew; or not, if `error` says why."""

    table: NodeTable
    failures: tuple[ModuleFailure, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str = ""


class ReloadPool(msgspec.Struct, frozen=True, tag=True):
    """Host to supervisor: import the modules anew and serve what they hold then."""


class DrainPool(msgspec.Struct, frozen=True, tag=True):
    """Host to supervisor: accept nothing more, let open requests end, then end the tree."""


class RecordArrivals(msgspec.Struct, frozen=True, tag=True):
    """Host to supervisor and on to each broker: record what calls come. Descriptor: socket.

    That is a ``SOCK_SEQPACKET`` for packets of whole records (TRACE.md); its end ends the
    recording. With `sizes_only` parameters are left out.
    """

    sizes_only: bool = False


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Supervisor to broker, first of all."""

    endpoints: tuple[str, ...]
    epoch: str
    limits: Limits
    insecure: bool
    keys: str = ""
    bounds: Bounds = DEFAULT_BOUNDS
    labels: tuple[str, ...] = ()  # those that some workers have
    files: tuple[str, ...]  # what to remove if the supervisor is gone without a word
    remote_admin: bool = False
    log_level: LogLevel = "WARNING"
    log_format: LogFormat = "human"


class BrokerBound(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: it is bound to these endpoints."""

    endpoints: tuple[str, ...]


class BrokerFailed(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: it can't serve, and why."""

    message: str


class ServeTable(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: serve these nodes from now on; with the first it reads clients.

    Workers of earlier generations are told to stop.
    """

    table: NodeTable
    generation: int = 0


class ExpectTable(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: workers of these nodes are about to start, to be kept warm."""

    table: NodeTable
    generation: int


class WorkerStarted(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: a worker is being started. Descriptors: link, page.

    They are missing where the broker could not take them: then the worker is of no use. After
    `look_requests` requests, and each `look_s` seconds as long as it gets some, `WorkerServed` is
    wanted; 0 stands for never.
    """

    worker_id: int
    generation: int = 0
    look_requests: int = 0
    look_s: float = 0.0
    labels: tuple[str, ...] = ()


class WorkerServed(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: a worker was given so many requests so far."""

    worker_id: int
    requests: int


class RetireWorker(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: give a worker nothing more and tell it to stop."""

    worker_id: int


class CarryOut(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: a client's order; `workers` is what `ListWorkers` needs to know."""

    ticket: int
    order: Order
    workers: tuple[SeenWorker, ...] = ()


class CarriedOut(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: the result of an order, in msgpack, or why there is none."""

    ticket: int
    value: Raw
    error: OrderError | None = None


class BeginDrain(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: accept no more requests of clients."""


class HasDrained(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: no client has a request open, and none will."""


class WorkerReady(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: a worker takes requests, or will when its generation is served."""

    worker_id: int


class WorkerExited(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: a worker was reaped; `cause` says how it ended.

    `stack` has the stacks of its threads where it has crashed or was aborted, "" otherwise.
    """

    worker_id: int
    cause: str
    stack: str = ""


class KillWorker(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: end that worker."""

    worker_id: int
    reason: str


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """Host to supervisor: end the tree. Supervisor to broker: send what is to be sent and exit."""


class TemplateConfig(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Supervisor to template, first of all.

    `endpoint` is the broker's own, for workflows, which have their tasks run by other workers;
    `shared` the folder of large values that these hand to them, "" if there is none.
    """

    modules: tuple[str, ...]
    sys_path: tuple[str, ...]
    supervisor_pid: int
    result_bytes: int
    confinement: Confinement = UNCONFINED
    endpoint: str = ""
    shared: str = ""
    log_level: LogLevel = "WARNING"
    log_format: LogFormat = "human"


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """Template to supervisor: what the modules hold.

    `unsafe` says why it must not be forked; `stop_hooks` whether workers have some, which get
    `HOOKS_GRACE_S` at their end; `sources` are the files that it has imported from the folders of
    the modules, and those of the modules.
    """

    table: NodeTable
    failures: tuple[ModuleFailure, ...]
    unsafe: tuple[str, ...]
    stop_hooks: bool = False
    sources: tuple[str, ...] = ()


class StartWorker(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to template: fork a worker. Descriptors: link, page."""

    worker_id: int


class WorkerForked(msgspec.Struct, frozen=True, tag=True):
    """Template to supervisor: the worker's process, now a child of the supervisor."""

    worker_id: int
    pid: int


class JournalConfig(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Supervisor to journal, first of all.

    Attributes:
        folder: Where the store is, or is to be made.
        age_s: Seconds for which ended runs are kept.
        runs: How many ended runs are kept.
        bytes: Bytes of records and values from which on ended runs are removed.
        quota_bytes: Bytes of the store from which on no new runs are accepted.
        ballast_bytes: Room that is reserved for the end of open runs; by the disk's size if `None`.
        floor_bytes: Room on the disk below which no new runs are accepted; likewise.
        log_level: Level of what it logs.
        log_format: How it writes it.
    """

    folder: str
    age_s: float = 7 * 24 * 3600.0
    runs: int = 1_000_000
    bytes: int = 4 * 1024**3
    quota_bytes: int = 16 * 1024**3
    ballast_bytes: int | None = None
    floor_bytes: int | None = None
    log_level: LogLevel = "WARNING"
    log_format: LogFormat = "human"


class JournalOpened(msgspec.Struct, frozen=True, tag=True):
    """Journal to supervisor: it takes brokers.

    `open_runs` says how many runs are to be taken up; `warnings` what is damaged and does no harm
    to others.
    """

    open_runs: int
    warnings: tuple[str, ...] = ()


class JournalFailed(msgspec.Struct, frozen=True, tag=True):
    """Journal to supervisor: the store can't be used, and why; it ends after it."""

    message: str


class AttachBroker(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to journal: the next broker, the one before it has ended. Descriptor: stream."""


class OpenJournal(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: a call is to be recorded, and there is no journal yet.

    Answered by `JournalAttached` or `JournalAbsent`, as soon as it is known which.
    """


class JournalAttached(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: the journal; again when that, or its stream, has ended. Descriptor: it.

    `stream` is its number.
    """

    stream: int


class JournalLost(msgspec.Struct, frozen=True, tag=True):
    """Broker to supervisor: that stream to the journal has ended, and why if that is known."""

    stream: int
    why: str


class JournalAbsent(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to broker: there is no journal for now, and why."""

    message: str


ControlMessage = (
    PoolConfig
    | PoolReady
    | PoolFailed
    | PoolReloaded
    | ReloadPool
    | DrainPool
    | RecordArrivals
    | BrokerConfig
    | BrokerBound
    | BrokerFailed
    | ServeTable
    | ExpectTable
    | WorkerStarted
    | WorkerServed
    | WorkerReady
    | RetireWorker
    | CarryOut
    | CarriedOut
    | BeginDrain
    | HasDrained
    | WorkerExited
    | KillWorker
    | Shutdown
    | TemplateConfig
    | Loaded
    | StartWorker
    | WorkerForked
    | JournalConfig
    | JournalOpened
    | JournalFailed
    | AttachBroker
    | OpenJournal
    | JournalAttached
    | JournalLost
    | JournalAbsent
)

DESCRIPTORS = {
    WorkerStarted: 2,
    StartWorker: 2,
    AttachBroker: 1,
    JournalAttached: 1,
    RecordArrivals: 1,
}
"""How many file descriptors travel beside a message, none for all others. What comes out of a
channel is all of them or, where the receiver could not take them, none."""

encode_control = msgspec.msgpack.Encoder().encode
decode_control: msgspec.msgpack.Decoder[ControlMessage] = msgspec.msgpack.Decoder(ControlMessage)
