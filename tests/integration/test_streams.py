"""Streams against a real pool: what only they do, and what is written to them by mistake or malice.

What they have in common with ZeroMQ is in test_raw_clients.py.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from struct import pack
from time import monotonic
from typing import Any

import pytest
from msgspec.msgpack import Ext, encode
from pools import SMALL_LIMITS, served
from raw_client import (
    BUNDLE,
    CALL,
    CANCEL,
    GOODBYE,
    HELLO,
    MAP_CHUNK,
    PING,
    RESULT,
    RawStreamClient,
)
from trees import PATIENCE_S, Fifo

from pronghorn.broker.wire.limits import KIB
from pronghorn.client import Client
from pronghorn.client.pool import Pool
from pronghorn.client.streamsocket import StreamSocket

SOON_S = 0.25


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with served(tmp_path_factory.mktemp("streams"), limits=SMALL_LIMITS) as pool:
        yield pool


@pytest.fixture
def client(pool: Pool) -> Iterator[RawStreamClient]:
    client = RawStreamClient(pool.endpoint)
    yield client
    client.close()


def status(client: RawStreamClient) -> dict[str, Any]:
    kind, id_, answer, _ = client.ask([CALL, "status", "pronghorn.stats"])
    assert (kind, id_) == (RESULT, "status")
    return answer  # type: ignore[no-any-return]


def held(client: RawStreamClient) -> int:
    """How many requests are waiting or in a worker."""
    answer = status(client)
    return answer["queued"] + sum(worker["held"] for worker in answer["workers"])  # type: ignore[no-any-return]


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask the broker again and again."""
    until = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < until


def test_our_own_clients_use_it(pool: Pool) -> None:
    with pool.client() as client:
        assert client.call("add", 1, 2) == 3
        connection = client._transport._my_connection()  # type: ignore[attr-defined]
        assert isinstance(connection._socket, StreamSocket)


def test_a_client_is_greeted_by_who_it_is_connected_to(client: RawStreamClient) -> None:
    assert client.info == client.hello()


def test_buffers_announced_and_never_sent_harm_nobody(pool: Pool, client: RawStreamClient) -> None:
    waiting = RawStreamClient(pool.endpoint)
    waiting.send([CALL, 1, "size", [Ext(1, b"\0")], {"buffers": 2}], b"one of two")
    assert client.ask([CALL, 1, "add", [1, 2]]) == [RESULT, 1, 3, 0]
    waiting.send(b"the other", [CALL, 2, "add", [3, 4]])
    assert sorted(waiting.receive()[1:3] for _ in range(2)) == [[1, len(b"one of two")], [2, 7]]
    waiting.send([CALL, 3, "size", [Ext(1, b"\0")], {"buffers": 1}])
    waiting.close()
    assert client.ask([CALL, 2, "add", [1, 2]]) == [RESULT, 2, 3, 0]


@pytest.mark.parametrize(
    "data",
    [
        pack("<I", 4 * 256 * KIB + 1),
        b"GET / HTTP/1.1\r\n",
        b"\xff\0\0\0\0\0\0\0\x01\x7f" + b"\xff" * 64,  # how ZeroMQ begins, and more
    ],
    ids=["beyond all bounds", "http", "zeromq"],
)
def test_what_is_no_frame_that_is_waited_for_ends_its_stream_alone(
    pool: Pool, client: RawStreamClient, data: bytes
) -> None:
    lost = RawStreamClient(pool.endpoint)
    lost.send([CALL, 1, "wait_for_ever"])
    assert lost.nothing_more_comes()
    wait_until(lambda: held(client) == 1)
    lost.socket.sendall(data)
    if data.startswith(b"\xff"):  # a frame of 255 bytes, and then nonsense
        lost.socket.sendall(b"\xff" * 1024)
    with suppress(EOFError, ConnectionResetError):
        while True:
            lost.receive_frame()
    lost.close()
    wait_until(lambda: held(client) == 0)
    assert client.ask([CALL, 1, "add", [1, 2]]) == [RESULT, 1, 3, 0]


# --- clients that are gone ----------------------------------------------------------------------

PROGRAM = """
import os, sys, threading
from pronghorn.client import Client

with Client(sys.argv[1]) as client:
    for _ in range(3):
        client.submit("wait_for_ever")
    threading.Thread(target=client.call, args=("wait_for_ever",), daemon=True).start()
    if len(sys.argv) > 3:
        client.call("add", 1, 2)
        if os.fork() == 0:
            open(sys.argv[2], "w").write("forked\\n")
            os.read(0, 1)  # lives on until the test lets go
            os._exit(0)
    client.call("hold", sys.argv[-1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a child that lives on"])
def test_the_calls_of_a_killed_program_are_cancelled_at_once(
    pool: Pool, client: RawStreamClient, tmp_path: Path, forks: bool
) -> None:
    fifo, never = Fifo(tmp_path / "fifo"), tmp_path / "never"
    os.mkfifo(never)
    arguments = [fifo.path] if forks else []
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, pool.endpoint, *arguments, str(never)],
        stdin=subprocess.PIPE,
    ) as program:
        if forks:
            assert fifo.line() == "forked"
        wait_until(lambda: held(client) >= 5)  # what is taken back is in two places
        # The one that holds a worker reads from here, so it can be let go.
        with never.open("w"):
            program.send_signal(signal.SIGKILL)
            program.wait()
            killed = monotonic()
            while status(client)["queued"] or status(client)["sessions"] > 1:
                assert monotonic() < killed + SOON_S
        wait_until(lambda: held(client) == 0)
    fifo.close()


# --- nonsense -----------------------------------------------------------------------------------

VALID: list[bytes] = [
    encode([CALL, 1, "add", [1, 2]]),
    encode([CALL, 2, "add", {"a": 1, "b": 2}, {"timeout_ms": 250}]),
    encode([CALL, 3, "echo", [Ext(1, b"\0")], {"buffers": 1}]),
    encode([CALL, 4, "echo", [b"x" * 2000]]),
    encode([MAP_CHUNK, 5, "add", [[1, 2], {"a": 1}, None]]),
    encode([HELLO, 6, "nonsense"]),
    encode([PING, 7]),
    encode([CANCEL, 1]),
    encode([GOODBYE]),
    encode([BUNDLE, [[CALL, 8, "add", [1, 2]], [PING, 9]]]),
    b'{"jsonrpc":"2.0","id":1,"method":"add","params":{"a":1,"b":2}}',
    b'[{"jsonrpc":"2.0","id":1,"method":"echo","params":[1]},{"jsonrpc":"2.0"}]',
    b"",
]


def nonsense(random: Random) -> bytes:
    """Make some bytes that are nearly, or not at all, what a stream should carry."""
    data = bytearray()
    for _ in range(random.randint(1, 20)):
        body = bytearray(random.choice(VALID))
        for _ in range(random.choice([0, 0, 1, 5])):
            if body:
                body[random.randrange(len(body))] = random.randrange(256)
        match random.randrange(8):
            case 0:
                body = bytearray(random.randbytes(random.randrange(300)))
            case 1:
                del body[random.randrange(len(body) + 1) :]
        length = len(body)
        if random.random() < 0.05:
            length = random.choice([0, length + 1, random.randrange(2**20), 2**32 - 1])
        data += pack("<I", length) + body
    return bytes(data)


def write_nonsense(endpoint: str, seed: int, ended: threading.Event) -> None:
    """Connect, write nonsense for a while, and hang up, again and again."""
    random = Random(seed)
    path = endpoint.removeprefix("ipc://") + ".stream"
    while not ended.is_set():
        with socket.socket(socket.AF_UNIX) as stream, suppress(OSError):
            stream.settimeout(0.1)  # it reads little: then the broker has to keep the replies
            stream.connect(path)
            for _ in range(random.choice([0, 1, 3, 30])):
                data = nonsense(random)
                at = random.choice([1, 4, 5, len(data)])
                stream.sendall(data[:at])
                stream.sendall(data[at:])
                if random.random() < 0.5 and select.select([stream], [], [], 0)[0]:
                    stream.recv(random.choice([1, 100_000]))
            if random.random() < 0.1:
                stream.shutdown(random.choice([socket.SHUT_RD, socket.SHUT_WR]))


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nonsense_harms_nobody_and_leaves_nothing(
    pool: Pool, client: RawStreamClient, seed: int
) -> None:
    ended = threading.Event()
    writers = [
        threading.Thread(target=write_nonsense, args=(pool.endpoint, 10 * seed + index, ended))
        for index in range(3)
    ]
    broker = status(client)["pid"]
    with Client(pool.endpoint) as good:
        assert good.call("add", a=1, b=2) == 3
        before, malformed = descriptors(broker), client.counters()["malformed"]
        for writer in writers:
            writer.start()
        try:
            until = monotonic() + 1.0
            number = 0
            while monotonic() < until:
                number += 1
                assert good.call("add", a=number, b=1) == number + 1
                blob = bytes([number % 256]) * 70_000
                assert good.call("echo", x=blob) == blob
                assert client.ask([CALL, number, "add", [number, 2]])[2] == number + 2
        finally:
            ended.set()
            for writer in writers:
                writer.join()
        wait_until(lambda: descriptors(broker) <= before and held(client) == 0)
        assert good.call("add", a=1, b=2) == 3
        assert status(client)["pid"] == broker
    assert number > 20
    assert client.counters()["malformed"] > malformed + 100
