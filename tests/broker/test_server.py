"""Mirror of broker/server.py: a broker as a process, all that it talks to played here."""

import mmap
import os
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from msgspec.msgpack import decode, encode
from raw_client import CALL, ERROR, GOODBYE, PING, RESULT, RawClient, RawStreamClient
from raw_sockets import RawSockets
from trees import PATIENCE_S

from pronghorn.broker.folder import LOCK_NAME
from pronghorn.broker.processes import reap, spawn_module
from pronghorn.broker.wire.channel import ControlChannel, make_pair
from pronghorn.broker.wire.control import (
    BrokerBound,
    BrokerConfig,
    BrokerFailed,
    ControlMessage,
    KillWorker,
    ServeTable,
    Shutdown,
    WorkerExited,
    WorkerReady,
    WorkerStarted,
)
from pronghorn.broker.wire.limits import DEFAULT_BOUNDS, MEMORY_BYTES_MIN, MIB, Bounds, Limits
from pronghorn.broker.wire.link import (
    CancelRun,
    Done,
    Ready,
    RunCall,
    ToBroker,
    ToWorker,
    pack,
    worker_end,
)
from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage
from pronghorn.broker.wire.table import NodeInfo, NodeTable

TABLE = NodeTable(
    nodes=(NodeInfo("shop.add", "inline"), NodeInfo("pronghorn.nodes", "inline")), digest="d1"
)


class Broker:
    """A broker process and the supervisor's end of its channel."""

    def __init__(
        self,
        folder: Path,
        *endpoints: str,
        files: tuple[str, ...] = (),
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        ours, theirs = make_pair()
        ours.settimeout(PATIENCE_S)
        with theirs:
            descriptors = [theirs.fileno()]
            self.pid = spawn_module("pronghorn.broker.server", [str(theirs.fileno())], descriptors)
        self.channel = ControlChannel(ours)
        self.endpoint = f"ipc://{folder}/broker.sock"
        self.channel.send(
            BrokerConfig(
                endpoints=(self.endpoint, *endpoints),
                epoch="e1",
                limits=Limits(),
                insecure=False,
                bounds=bounds,
                files=files,
            )
        )
        self._received: list[ControlMessage] = []

    def message(self) -> ControlMessage:
        """Wait for the next message to the supervisor."""
        while not self._received:
            received = self.channel.receive()
            assert received is not None, "the broker has ended"
            self._received += [message for message, _ in received]
        return self._received.pop(0)

    def serve(self) -> None:
        """Wait until it is bound and have it serve."""
        bound = self.message()
        assert isinstance(bound, BrokerBound)
        self.channel.send(ServeTable(TABLE))

    def worker(self, worker_id: int, *, digest: str = "d1", ready: bool = True) -> "Worker":
        """Give it a worker that is played here."""
        worker = Worker(worker_id)
        with worker.their_link:
            self.channel.send(
                WorkerStarted(worker_id), (worker.their_link.fileno(), worker.page_fd)
            )
        worker.send(Ready(worker_id, 1000 + worker_id, digest))
        if ready:
            assert self.message() == WorkerReady(worker_id)
        return worker

    def close(self) -> str:
        """Tell it to end and return how it did."""
        self.channel.send(Shutdown())
        status = reap(self.pid)
        self.channel.close()
        return status


class Worker:
    """The worker's end of a link, and its page."""

    def __init__(self, worker_id: int) -> None:
        self.id = worker_id
        self.link, self.their_link = make_pair()
        self.link.settimeout(PATIENCE_S)
        self.page_fd = os.memfd_create("pronghorn-slots", os.MFD_CLOEXEC)
        os.ftruncate(self.page_fd, PAGE_BYTES)
        self._memory = mmap.mmap(self.page_fd, PAGE_BYTES)
        self.page = SlotsPage(memoryview(self._memory))
        self._reader = worker_end()
        self._read: list[tuple[ToWorker, list[bytes]]] = []

    def send(self, *messages: ToBroker) -> None:
        self.link.sendall(b"".join(pack(message) for message in messages))

    def receive(self) -> ToWorker:
        """Wait for the next message of the broker."""
        while not self._read:
            data = self.link.recv(65536)
            assert data, "the broker has closed the link"
            self._read += self._reader.feed(data)
        return self._read.pop(0)[0]

    def begin(self) -> RunCall:
        """Wait for the next call and claim it."""
        message = self.receive()
        assert isinstance(message, RunCall)
        assert self.page.claim(message.slot, message.token, 1)
        return message

    def answer(self, call: RunCall, value: Any) -> None:
        """Finish a call with a value."""
        self.page.finish(call.slot, call.token)
        self.send(done(call, value))

    def is_told_to_end(self) -> bool:
        """Wait for the end of the link."""
        assert select.select([self.link], [], [], PATIENCE_S)[0]
        return self.link.recv(1) == b""

    def close(self) -> None:
        self.link.close()
        self.page.close()
        self._memory.close()
        os.close(self.page_fd)


def done(call: RunCall, value: Any) -> Done:
    return Done(call.token, Raw(encode(value)), 1000)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sockets() -> Iterator[RawSockets]:
    sockets = RawSockets()
    yield sockets
    sockets.close()


@pytest.fixture
def broker(folder: Path) -> Iterator[Broker]:
    broker = Broker(folder)
    broker.serve()
    yield broker
    assert broker.close() == "exit status 0"
    assert list(folder.iterdir()) == []


@pytest.fixture(params=["zmq", "stream"])
def client(
    request: pytest.FixtureRequest, broker: Broker, sockets: RawSockets
) -> Iterator[RawClient]:
    """A client over ZeroMQ, and one over a stream."""
    if request.param == "stream":
        streaming = RawStreamClient(broker.endpoint)
        streaming.hello()
        yield streaming
        streaming.close()
        return
    client = RawClient(sockets, broker.endpoint)
    client.hello()
    yield client


@pytest.fixture
def connect(broker: Broker) -> Iterator[Callable[[], RawStreamClient]]:
    """Make clients over streams, closed at the end."""
    clients: list[RawStreamClient] = []

    def make() -> RawStreamClient:
        clients.append(RawStreamClient(broker.endpoint))
        clients[-1].hello()
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def employ(broker: Broker) -> Iterator[Callable[..., Worker]]:
    """Make workers, closed at the end."""
    workers: list[Worker] = []

    def make(worker_id: int, **options: Any) -> Worker:
        workers.append(broker.worker(worker_id, **options))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def test_it_tells_where_it_is_bound(folder: Path) -> None:
    broker = Broker(folder, "tcp://127.0.0.1:0")
    bound = broker.message()
    assert isinstance(bound, BrokerBound)
    ipc, tcp = bound.endpoints
    assert ipc == broker.endpoint
    assert int(tcp.rpartition(":")[2]) > 0
    for name in "broker.sock", "broker.sock.stream":
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert broker.close() == "exit status 0"


def test_it_tells_why_it_can_not_serve(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        broker = Broker(folder, address)
        failed = broker.message()
        assert isinstance(failed, BrokerFailed)
        assert failed.message.startswith(f"can't bind {address}: Address already in use")
        assert reap(broker.pid) == "exit status 1"
        broker.channel.close()
    assert not (folder / "broker.sock.stream").exists()


def test_it_tells_why_it_can_not_listen_for_streams(folder: Path) -> None:
    (folder / "broker.sock.stream").mkdir()
    broker = Broker(folder)
    failed = broker.message()
    assert isinstance(failed, BrokerFailed)
    assert failed.message.startswith(f"can't listen at {folder}/broker.sock.stream: ")
    assert reap(broker.pid) == "exit status 1"
    broker.channel.close()
    assert [path.name for path in folder.iterdir()] == ["broker.sock.stream"]


def test_clients_wait_until_the_nodes_are_known(folder: Path, sockets: RawSockets) -> None:
    broker = Broker(folder)
    assert isinstance(broker.message(), BrokerBound)
    client = RawClient(sockets, broker.endpoint)
    client.send([CALL, 1, "add", [1, 2]])
    broker.channel.send(ServeTable(TABLE))
    worker = broker.worker(1)
    worker.answer(worker.begin(), 3)
    while (reply := client.receive())[0] != RESULT:
        pass  # the welcome
    assert reply[:3] == [RESULT, 1, 3]
    worker.close()
    assert broker.close() == "exit status 0"


def test_a_call_goes_to_a_worker_and_its_result_back(
    client: RawClient, employ: Callable[..., Worker]
) -> None:
    worker = employ(1)
    client.send([CALL, 7, "add", {"a": 1, "b": 2}])
    call = worker.begin()
    assert decode(call.params) == {"a": 1, "b": 2}
    worker.answer(call, 3)
    assert client.receive()[:3] == [RESULT, 7, 3]


def test_a_worker_with_other_nodes_is_killed_and_never_ready(
    broker: Broker, client: RawClient, employ: Callable[..., Worker]
) -> None:
    employ(1, digest="d2", ready=False)
    assert broker.message() == KillWorker(1, "its nodes differ from those of the template")
    good = employ(2)
    client.send([CALL, 7, "add", [1, 2]])
    good.answer(good.begin(), 3)
    assert client.receive()[:3] == [RESULT, 7, 3]


def test_a_worker_that_writes_what_can_not_be_read_is_killed(
    broker: Broker, client: RawClient, employ: Callable[..., Worker]
) -> None:
    worker = employ(1)
    client.send([CALL, 7, "add", [1, 2]])
    call = worker.begin()
    worker.link.sendall(b"\x03\0\0\0abc")
    killed = broker.message()
    assert isinstance(killed, KillWorker)
    assert killed.worker_id == 1
    assert killed.reason.startswith("worker 1 wrote what can't be read: ")
    worker.send(done(call, 3))  # which nobody reads any more
    broker.channel.send(WorkerExited(1, "signal 9 (SIGKILL)"))
    error = client.receive()
    assert error[:2] == [ERROR, 7]
    assert error[3].endswith("its worker ended with signal 9 (SIGKILL)")


@pytest.mark.parametrize("told_first", [True, False])
def test_all_that_a_worker_wrote_before_its_end_counts(
    broker: Broker, client: RawClient, employ: Callable[..., Worker], told_first: bool
) -> None:
    """Both ways in which the end of the link and the word of the supervisor may come in."""
    worker = employ(1)
    client.send([CALL, 7, "add", ["x" * 200_000, 2]])
    call = worker.begin()
    os.kill(broker.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, broker.pid, os.WSTOPPED)
    steps = [
        lambda: broker.channel.send(WorkerExited(1, "exit status 0")),
        lambda: (worker.answer(call, "y" * 150_000), worker.link.shutdown(socket.SHUT_RDWR)),
    ]
    for step in steps if told_first else reversed(steps):
        step()
    os.kill(broker.pid, signal.SIGCONT)
    assert client.receive()[:3] == [RESULT, 7, "y" * 150_000]
    next_one = employ(2)
    client.send([CALL, 8, "add", [1, 2]])
    next_one.answer(next_one.begin(), 3)
    assert client.receive()[:3] == [RESULT, 8, 3]


@pytest.mark.parametrize(
    ("progress", "outcome"), [("claimed", "maybe_executed"), ("finished", "executed")]
)
def test_the_page_tells_how_far_a_dead_worker_came(
    broker: Broker,
    client: RawClient,
    employ: Callable[..., Worker],
    progress: str,
    outcome: str,
) -> None:
    worker = employ(1)
    client.send([CALL, 7, "add", [1, 2]])
    call = worker.begin()
    if progress == "finished":
        worker.page.finish(call.slot, call.token)
    worker.link.close()
    broker.channel.send(WorkerExited(1, "signal 11 (SIGSEGV)"))
    error = client.receive()
    assert error[:3] == [ERROR, 7, "WORKER_LOST"]
    assert error[4]["outcome"] == outcome
    assert error[4]["cause"] == "signal 11 (SIGSEGV)"


def test_what_a_dead_worker_had_not_begun_goes_to_the_next(
    broker: Broker, client: RawClient, employ: Callable[..., Worker]
) -> None:
    first = employ(1)
    client.send([CALL, 7, "add", [1, 2]])
    assert isinstance(first.receive(), RunCall)
    first.link.close()
    broker.channel.send(WorkerExited(1, "signal 9 (SIGKILL)"))
    second = employ(2)
    second.answer(second.begin(), 3)
    assert client.receive()[:3] == [RESULT, 7, 3]


def test_a_worker_may_go_before_it_was_ready(
    broker: Broker, client: RawClient, employ: Callable[..., Worker]
) -> None:
    worker = Worker(1)
    with worker.their_link:
        broker.channel.send(WorkerStarted(1), (worker.their_link.fileno(), worker.page_fd))
    worker.close()
    broker.channel.send(WorkerExited(1, "exit status 1"))
    broker.channel.send(WorkerExited(99, "never heard of"))
    good = employ(2)
    client.send([CALL, 7, "add", [1, 2]])
    good.answer(good.begin(), 3)
    assert client.receive()[:3] == [RESULT, 7, 3]


def test_a_worker_that_does_not_read_gets_the_rest_when_it_does(
    client: RawClient, employ: Callable[..., Worker]
) -> None:
    worker = employ(1)
    size, count = 900_000, 3
    for id_ in range(count):
        client.send([CALL, id_, "add", ["x" * size, 2]])
    assert client.nothing_more_comes()
    for id_ in range(count):
        call = worker.begin()
        assert len(call.params) > size
        worker.answer(call, id_)
    assert [client.receive()[:3] for _ in range(count)] == [
        [RESULT, id_, id_] for id_ in range(count)
    ]


def test_what_a_client_that_says_goodbye_has_open_is_cancelled(
    client: RawClient, employ: Callable[..., Worker]
) -> None:
    worker = employ(1)
    client.send([CALL, 7, "add", [1, 2]])
    call = worker.begin()
    client.send([GOODBYE])
    assert worker.receive() == CancelRun(call.token)


def test_a_deadline_passes_without_anybody_saying_a_word(
    client: RawClient, employ: Callable[..., Worker]
) -> None:
    worker = employ(1)
    client.send([CALL, 7, "add", [1, 2], {"timeout_ms": 20}])
    call = worker.begin()
    error = client.receive()
    assert error[:3] == [ERROR, 7, "DEADLINE_EXCEEDED"]
    assert worker.receive() == CancelRun(call.token)


# --- streams ------------------------------------------------------------------------------------


def test_who_connects_over_a_stream_waits_until_the_nodes_are_known(folder: Path) -> None:
    broker = Broker(folder)
    assert isinstance(broker.message(), BrokerBound)
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(f"{folder}/broker.sock.stream")
        assert not select.select([early], [], [], 0.05)[0]
        broker.channel.send(ServeTable(TABLE))
        assert select.select([early], [], [], PATIENCE_S)[0]
    assert broker.close() == "exit status 0"


def test_what_a_client_has_open_is_cancelled_as_soon_as_its_stream_ends(
    connect: Callable[[], RawStreamClient], employ: Callable[..., Worker]
) -> None:
    worker, client, other = employ(1), connect(), connect()
    client.send([CALL, 7, "add", [1, 2]])
    call = worker.begin()
    client.send([CALL, 8, "add", [1, 2]])
    client.close()
    assert worker.receive() == CancelRun(call.token)
    assert other.ask([CALL, "s", "pronghorn.stats"])[2]["queued"] == 0
    worker.answer(call, 3)
    other.send([CALL, 7, "add", [1, 2]])
    worker.answer(worker.begin(), 4)
    assert other.receive()[:3] == [RESULT, 7, 4], "and not what the other one had asked for"


def test_many_requests_over_a_stream_are_answered_in_order(
    connect: Callable[[], RawStreamClient],
) -> None:
    client = connect()
    client.send(*([PING, id_] for id_ in range(500)))
    assert [client.receive()[1] for _ in range(500)] == list(range(500))


def test_a_client_over_a_stream_that_does_not_read_hinders_nobody(
    connect: Callable[[], RawStreamClient], employ: Callable[..., Worker]
) -> None:
    worker, idle, other = employ(1), connect(), connect()
    large = "x" * 5_000_000
    for id_ in range(3):
        idle.send([CALL, id_, "add", [1, 2]])
        worker.answer(worker.begin(), large)
    other.send([CALL, 7, "add", [1, 2]])
    worker.answer(worker.begin(), 3)
    assert other.receive()[:3] == [RESULT, 7, 3]
    assert [idle.receive()[:3] for _ in range(3)] == [[RESULT, id_, large] for id_ in range(3)]


@pytest.mark.slow
def test_beyond_its_memory_it_drops_who_does_not_read_and_serves_the_others(folder: Path) -> None:
    broker = Broker(folder, bounds=Bounds(memory_bytes=MEMORY_BYTES_MIN, kill_grace_s=PATIENCE_S))
    broker.serve()
    worker = broker.worker(1)
    idle, other = (RawStreamClient(broker.endpoint) for _ in range(2))
    idle.hello()
    other.hello()
    other.send([CALL, 1, "add", [1, 2]])  # which shows that several may be in a worker
    worker.answer(worker.begin(), 3)
    assert other.receive()[:3] == [RESULT, 1, 3]
    idle.send(*([CALL, id_, "add", [1, 2]] for id_ in range(8)))
    for call in [worker.begin() for _ in range(8)]:
        worker.answer(call, "x" * 10 * MIB)
    assert all(other.nothing_more_comes() for _ in range(40))  # the memory is looked at meanwhile
    assert idle.ends()
    other.send([CALL, 7, "add", [1, 2]])
    while not isinstance(message := worker.receive(), RunCall):
        assert isinstance(message, CancelRun)  # of what the other has lost
    worker.answer(message, 3)
    assert other.receive()[:3] == [RESULT, 7, 3]
    for end in worker, idle, other:
        end.close()
    assert broker.close() == "exit status 0"


def test_a_client_over_a_stream_that_breaks_its_grant_is_dropped(
    connect: Callable[[], RawStreamClient], employ: Callable[..., Worker]
) -> None:
    worker, idle, other = employ(1), connect(), connect()
    idle.send([CALL, 7, "add", [1, 2]])
    call = worker.begin()

    def flood() -> None:
        while True:
            idle.send(*([PING, "x" * 10_000] for _ in range(100)))

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        flood()
    assert worker.receive() == CancelRun(call.token)
    assert other.nothing_more_comes()
    assert other.ask([CALL, "s", "pronghorn.stats"])[2]["sessions"] == 1


# --- the end -----------------------------------------------------------------------------------


def test_told_to_end_it_sends_what_is_there_and_lets_the_workers_go(
    folder: Path, sockets: RawSockets
) -> None:
    broker = Broker(folder)
    broker.serve()
    worker = broker.worker(1)
    client = RawClient(sockets, broker.endpoint)
    client.hello()
    client.send([CALL, 7, "add", [1, 2]])
    worker.answer(worker.begin(), 3)
    assert client.receive()[:3] == [RESULT, 7, 3]
    assert broker.close() == "exit status 0"
    assert worker.is_told_to_end()
    assert list(folder.iterdir()) == []
    worker.close()


def test_told_to_end_it_lets_a_client_over_a_stream_read_what_it_has_for_it(folder: Path) -> None:
    broker = Broker(folder)
    broker.serve()
    worker = broker.worker(1)
    client = RawStreamClient(broker.endpoint)
    client.send([CALL, 7, "add", [1, 2]])
    large = "x" * 5_000_000
    worker.answer(worker.begin(), large)
    assert select.select([client.socket], [], [], PATIENCE_S)[0]  # the first of it has come
    with ThreadPoolExecutor(1) as thread:
        reply = thread.submit(client.receive)
        assert broker.close() == "exit status 0"
        assert reply.result()[:3] == [RESULT, 7, large]
    assert client.is_closed()
    client.close()
    worker.close()


def test_without_its_supervisor_it_removes_all_files_and_ends(
    folder: Path, sockets: RawSockets, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime, outside = folder / "shop", folder / "outside.sock"
    runtime.mkdir()
    (runtime / LOCK_NAME).touch()
    files = (str(outside), f"{outside}.stream", f"{outside}.lock", str(runtime))
    broker = Broker(runtime, f"ipc://{outside}", files=files)
    Path(f"{outside}.lock").touch()
    broker.serve()
    worker = broker.worker(1)
    assert outside.exists()
    assert Path(f"{outside}.stream").exists()
    broker.channel.close()
    assert reap(broker.pid) == "exit status 0"
    assert worker.is_told_to_end()
    worker.close()
    assert list(folder.iterdir()) == []
    assert "the supervisor is gone; the broker ends" in capfd.readouterr().err


def test_a_supervisor_that_goes_before_it_is_bound_leaves_nothing_behind(folder: Path) -> None:
    broker = Broker(folder, files=(str(folder),))
    broker.channel.close()
    assert reap(broker.pid) == "exit status 0"
    assert not folder.exists()


def test_without_a_config_it_does_not_start() -> None:
    ours, theirs = make_pair()
    with theirs:
        pid = spawn_module("pronghorn.broker.server", [str(theirs.fileno())], [theirs.fileno()])
    ours.close()
    assert reap(pid) == "exit status 1"
