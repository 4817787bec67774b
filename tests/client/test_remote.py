"""The sync client's connections: by thread, for maps, in forked children, and their end."""

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import client_nodes
import pytest
from scripted_broker import ScriptedBroker
from trees import PATIENCE_S, Fifo

from pronghorn.broker.wire.errors import BrokerLostError, DeadlineExceededError, PronghornError
from pronghorn.broker.wire.messages import MapChunk
from pronghorn.client import Client, Pool
from pronghorn.client.remote import RemoteTransport

SOON_S = 0.1


@pytest.fixture
def client(pool: Pool) -> Iterator[Client]:
    with pool.client() as client:
        yield client


@pytest.fixture(scope="module", params=["stream", "zmq"])
def endpoint(request: pytest.FixtureRequest, pool: Pool) -> Iterator[str]:
    """That of a pool, over each transport."""
    if request.param == "stream":
        yield pool.endpoint
        return
    with Pool(client_nodes.FILE, workers=1, bind=["tcp://127.0.0.1:0"]) as bound:
        yield bound.endpoints[1]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def status(client: Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.call("pronghorn.stats")
    return answer


# --- threads ------------------------------------------------------------------------------------


def test_many_threads_use_one_client_at_once(client: Client) -> None:
    begin = threading.Barrier(20)

    def work(number: int) -> int:
        begin.wait(PATIENCE_S)
        total = sum(client.call("add", number, index) for index in range(20))
        total += sum(client.map("add", [(number, index) for index in range(20)]))
        return total + int(client.submit("add", number, 1).result(PATIENCE_S))

    with ThreadPoolExecutor(20) as threads:
        totals = list(threads.map(work, range(20)))
    assert totals == [41 * number + 2 * 190 + 1 for number in range(20)]


def test_a_thread_s_connection_ends_with_the_thread(client: Client) -> None:
    client.call("add", 1, 2)
    before, sessions = descriptors(), status(client)["sessions"]

    def visit() -> None:
        assert client.call("add", 1, 2) == 3

    for _ in range(200):
        thread = threading.Thread(target=visit)
        thread.start()
        thread.join()
    # The last of them may be on their way out still; not two hundred times six.
    assert descriptors() < before + 30
    assert status(client)["sessions"] < sessions + 30


@pytest.mark.slow
def test_more_threads_than_a_context_has_sockets_by_default(client: Client) -> None:
    count = 350
    begin = threading.Barrier(count)

    def visit() -> int:
        result: int = client.call("add", 1, 2)
        begin.wait(PATIENCE_S)  # so that all connections are there at once
        return result

    with ThreadPoolExecutor(count) as threads:
        answers = [threads.submit(visit) for _ in range(count)]
        assert [answer.result() for answer in answers] == [3] * count


def test_threads_that_use_a_fresh_client_at_once_make_one_context(pool: Pool) -> None:
    for _ in range(10):
        begin = threading.Barrier(4)
        with pool.client() as client, ThreadPoolExecutor(4) as threads:

            def visit(client: Client = client, begin: threading.Barrier = begin) -> int:
                begin.wait(PATIENCE_S)
                result: int = client.call("add", 1, 2)
                return result

            assert [one.result() for one in [threads.submit(visit) for _ in range(4)]] == [3] * 4


def test_a_map_may_be_iterated_in_another_thread(client: Client) -> None:
    results = client.map("add", ((index, 1) for index in range(5000)), chunk_size=100)
    assert next(results) == 1
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(next, results).result() == 2
        assert list(results) == list(range(3, 5001))


# --- maps ---------------------------------------------------------------------------------------


def test_maps_one_after_the_other_share_a_connection(client: Client) -> None:
    assert list(client.map("add", [(1, 2)])) == [3]
    before = descriptors()
    for _ in range(20):
        assert list(client.map("add", [(1, 2), (3, 4)])) == [3, 7]
    assert descriptors() == before


def test_leaving_a_map_cancels_the_rest(client: Client, pool: Pool, fifo: Fifo) -> None:
    results = client.map("note", ((fifo.path, str(index)) for index in range(10**9)), chunk_size=1)
    assert next(results) == "0"
    results.close()  # type: ignore[attr-defined]
    # A cancelled map leaves its connection as good as new; what comes behind the cancels on it is
    # taken in behind them.
    assert list(client.map("add", [(1, 2)])) == [3]
    assert client.call("pronghorn.stats")["queued"] == 0


def test_an_interrupted_map_is_cancelled_with_its_connection(broker: ScriptedBroker) -> None:
    def interrupt(broker: ScriptedBroker) -> Any:
        broker.greet()
        chunk = broker.take()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
        return chunk

    interrupted = broker.play(interrupt)
    client = Client(broker.endpoint)
    with pytest.raises(KeyboardInterrupt):
        list(client.map("add", [(1, 2)]))
    assert isinstance(interrupted.result(), MapChunk)
    assert broker.is_left()
    client.close()


def test_an_iterable_that_raises_ends_the_map(client: Client) -> None:
    def items() -> Iterator[tuple[int, int]]:
        yield from ((index, 1) for index in range(100))
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(client.map("add", items()))
    assert list(client.map("add", [(1, 2)])) == [3]


def test_a_lost_broker_ends_a_map_at_once(broker: ScriptedBroker) -> None:
    def die(broker: ScriptedBroker) -> float:
        broker.greet()
        broker.take()
        begun = monotonic()
        broker.stop()
        return begun

    died = broker.play(die)
    client = Client(broker.endpoint, connect_timeout_s=0.2)
    with pytest.raises(BrokerLostError) as caught:
        list(client.map("add", [(1, 2), (3, 4)]))
    assert monotonic() - died.result() < SOON_S
    assert caught.value.outcome == "maybe_executed"
    with pytest.raises(BrokerLostError, match="no broker answers"):
        list(client.map("add", [(1, 2), (3, 4)]))
    client.close()


def test_a_map_that_goes_on_after_losses_gives_up_without_a_broker(broker: ScriptedBroker) -> None:
    def die(broker: ScriptedBroker) -> None:
        broker.greet()
        broker.take()
        broker.stop()

    died = broker.play(die)
    client = Client(broker.endpoint, connect_timeout_s=0.2)
    results = client.map("add", ((index, 1) for index in range(10**9)), return_exceptions=True)
    assert isinstance(next(results), BrokerLostError)
    died.result()
    with pytest.raises(BrokerLostError, match="no broker answers"):
        all(isinstance(result, BrokerLostError) for result in results)
    client.close()


# --- closing ------------------------------------------------------------------------------------


def test_closing_ends_calls_of_other_threads(pool: Pool, fifo: Fifo) -> None:
    client = pool.client()
    with ThreadPoolExecutor(3) as threads:
        called = threads.submit(client.call, "linger", fifo.path)
        mapped = threads.submit(list, client.map("linger", [(fifo.path,)]))
        submitted: Future[Any] = client.submit("linger", fifo.path)
        assert [fifo.line() for _ in range(3)] == ["begun"] * 3
        begun = monotonic()
        client.close()
        for future in called, mapped, submitted:
            error = future.exception(PATIENCE_S)
            assert isinstance(error, BrokerLostError)
            assert (error.message, error.outcome) == ("the client was closed", "maybe_executed")
        assert monotonic() - begun < SOON_S
    assert [fifo.line() for _ in range(3)] == ["cancelled"] * 3


def test_a_closed_client_refuses_everything(pool: Pool) -> None:
    used, fresh = pool.client(), pool.client()
    started = used.map("nap", ((0.0,), *[(PATIENCE_S,)] * 100), chunk_size=1)
    assert used.call("add", 1, 2) == used.submit("add", 1, 2).result() == 3
    assert next(started) == 0.0
    for client in used, fresh:
        client.close()
        client.close()
        for attempt in (
            lambda client=client: client.call("add", 1, 2),
            lambda client=client: client.submit("add", 1, 2),
            lambda client=client: list(client.map("add", [(1, 2)])),
            lambda client=client: client.ping(),
            lambda client=client: client.__enter__(),
        ):
            with pytest.raises(BrokerLostError, match="the client was closed") as caught:
                attempt()
            assert caught.value.outcome == "not_started"
    with pytest.raises(BrokerLostError, match="the client was closed") as caught:
        list(started)
    assert caught.value.outcome == "maybe_executed", "chunks of it were sent"


def test_a_client_that_is_dropped_leaves_nothing(pool: Pool) -> None:
    client = Client(pool.endpoint)
    assert client.call("add", 1, 2) == client.submit("add", 1, 2).result() == 3
    assert list(client.map("add", [(1, 2)])) == [3]
    gone = weakref.ref(client._transport)
    del client
    gc.collect()
    assert gone() is None
    assert "pronghorn-client" not in [thread.name for thread in threading.enumerate()]


def test_a_client_that_can_not_connect_can_try_again(broker: ScriptedBroker) -> None:
    broker.stop()
    client = Client(broker.endpoint, connect_timeout_s=0.05)
    before = descriptors()
    for _ in range(2):
        with pytest.raises(BrokerLostError, match="no broker answers"), client:
            pass
        assert descriptors() == before
    began = broker.play(lambda broker: (broker.start(), broker.greet(), broker.answer(1)))
    client._transport._connect_timeout_s = 5.0  # type: ignore[attr-defined]
    with client:
        assert client.call("add", 1, 2) == 1
    began.result()


def test_a_signal_handler_may_make_calls_within_a_call(pool: Pool, fifo: Fifo) -> None:
    """It may strike anywhere, so that it must not touch the connection that is in use."""
    client = pool.client()
    mine = client._transport._my_connection()  # type: ignore[attr-defined]
    inner: list[float] = []

    def handle(*_: object) -> None:
        inner.extend((client.call("add", 1, 2), client.ping()))

    def interrupt() -> None:
        assert fifo.line() == "begun"
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        with ThreadPoolExecutor(1) as thread:
            interrupted = thread.submit(interrupt)
            with pytest.raises(DeadlineExceededError):
                client.call("linger", fifo.path, timeout_s=0.2)
            interrupted.result()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert inner[0] == 3
    assert inner[1] < 0.2
    assert mine.core._ids == 1
    assert client.call("add", 3, 4) == 7
    assert mine.core._ids == 2
    client.close()


def test_a_signal_handler_may_close_the_client(pool: Pool, fifo: Fifo) -> None:
    client = pool.client()
    previous = signal.signal(signal.SIGUSR1, lambda *_: client.close())

    def interrupt() -> None:
        assert fifo.line() == "begun"
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]

    try:
        with ThreadPoolExecutor(1) as thread:
            interrupted = thread.submit(interrupt)
            with pytest.raises(BrokerLostError, match="the client was closed"):
                client.call("linger", fifo.path)
            interrupted.result()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert fifo.line() == "cancelled"


# --- forks --------------------------------------------------------------------------------------

FORK = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pronghorn.client import Client

client = Client(sys.argv[1])
everything = lambda: (
    client.call("add", 1, 2),
    client.submit("add", 3, 4).result(20),
    list(client.map("add", [(5, 6), (7, 8)])),
)
print(everything())
half = client.map("add", ((index, 1) for index in range(10**9)))
next(half)
pid = os.fork()
if pid == 0:
    with ThreadPoolExecutor(4) as threads:  # all notice the fork at once
        for one in [threads.submit(everything) for _ in range(4)]:
            print("child", one.result())
    half.close()
    grandchild = os.fork()
    if grandchild == 0:
        print("grandchild", everything())
        sys.exit()
    assert os.waitpid(grandchild, 0)[1] == 0
    print("child", everything())
    if sys.argv[2] == "closed":
        client.close()
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
print(next(half))
print(everything())
if sys.argv[2] == "closed":
    client.close()
"""

MULTIPROCESSING = """
import multiprocessing, sys
from pronghorn.client import Client

client = Client(sys.argv[1])

def work(number):
    return client.call("add", number, 1) + client.submit("add", number, 1).result(20)

if __name__ == "__main__":
    print(work(0))
    with multiprocessing.get_context(sys.argv[2]).Pool(2) as pool:
        print(pool.map(work, range(5)))
    print(work(5))
"""


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-uc", program, *arguments], capture_output=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["closed", "left open"])
def test_after_a_fork_parent_and_child_both_work(endpoint: str, ending: str) -> None:
    everything = "(3, 7, [11, 15])"
    assert sorted(run(FORK, endpoint, ending).splitlines()) == sorted(
        ["2", *[everything] * 2, *[f"child {everything}"] * 5, f"grandchild {everything}"]
    )


def test_closing_ends_calls_of_other_threads_whatever_a_forked_child_holds(
    pool: Pool, fifo: Fifo
) -> None:
    client = pool.client()
    reader, writer = os.pipe()
    with ThreadPoolExecutor(1) as thread:
        called = thread.submit(client.call, "linger", fifo.path)
        assert fifo.line() == "begun"
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)  # until the parent is done, or dead
            os._exit(0)
        try:
            begun = monotonic()
            client.close()
            assert isinstance(called.exception(PATIENCE_S), BrokerLostError)
            assert monotonic() - begun < SOON_S
            assert fifo.line() == "cancelled"
        finally:
            os.close(writer)
            os.waitpid(pid, 0)
            os.close(reader)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_client_in_the_processes_of_multiprocessing(
    pool: Pool, method: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(MULTIPROCESSING)
    done = subprocess.run(
        [sys.executable, str(script), pool.endpoint, method],
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    assert done.stdout.decode().split("\n") == ["2", "[2, 4, 6, 8, 10]", "12", ""]


LEFT_OPEN = """
import sys, threading
from pronghorn.client import Client
client = Client(sys.argv[1])
print(client.call("add", 1, 2), client.submit("add", 1, 2).result(20))
results = client.map("add", ((index, 1) for index in range(10**9)))
next(results)
never = client.submit("linger", sys.argv[2])
thread = threading.Thread(target=client.call, args=("linger", sys.argv[2]), daemon=True)
thread.start()
"""


@pytest.mark.slow
def test_a_program_that_closes_nothing_ends_all_the_same(endpoint: str, fifo: Fifo) -> None:
    assert run(LEFT_OPEN, endpoint, fifo.path) == "3 3\n"


def test_a_transport_that_was_never_used_costs_nothing() -> None:
    before = descriptors()
    transport = RemoteTransport("ipc:///nowhere", 1.0)
    assert descriptors() == before
    transport.close()


def test_errors_do_not_keep_a_connection_from_being_closed(pool: Pool) -> None:
    client = pool.client()
    kept: list[PronghornError] = []

    def fail() -> None:
        try:
            client.call("no_such")
        except PronghornError as error:
            kept.append(error)  # with its traceback, and the connection in there

    for _ in range(5):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    client.close()
    assert len(kept) == 5
