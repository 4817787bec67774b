"""Runs what PROTOCOL.md shows: its clients as programs, its examples frame by frame."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import protocol_document as document
import pytest
from msgspec.msgpack import decode
from pools import served
from protocol_document import Example
from raw_sockets import RawSockets

from pronghorn.client.pool import Pool

EXAMPLES = [example for example in document.examples() if example.received]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with served(tmp_path_factory.mktemp("protocol")) as pool:
        yield pool


def run(source: str, pool: Pool) -> str:
    assert "pronghorn" not in source.lower().replace("pronghorn_endpoint", "")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source],
        env={**os.environ, "PRONGHORN_ENDPOINT": pool.endpoint},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_the_shortest_client(pool: Pool) -> None:
    source = document.blocks("python")[0]
    assert run(source, pool) == '{"jsonrpc":"2.0","id":1,"result":3}\n'


@pytest.mark.slow
def test_the_client_in_msgpack(pool: Pool) -> None:
    source = document.blocks("python")[1]
    [expected] = document.blocks("text")
    assert sorted(run(source, pool).splitlines()) == sorted(expected.splitlines())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_an_example_is_answered_as_it_says(
    pool: Pool, sockets: RawSockets, example: Example
) -> None:
    socket = sockets.dealer(pool.endpoint)
    socket.send_multipart([frame.data for frame in example.sent])
    received: list[bytes] = []
    wanted = normalized([frame.data for frame in example.received])
    while len(normalized(received)) < len(wanted):
        received += socket.recv_multipart()
    assert normalized(received) == wanted


def normalized(frames: list[bytes]) -> list[Any]:
    """Decode replies, without what differs from run to run: epochs, times and the order."""
    replies: list[Any] = []
    for frame in frames:
        if frame[:1] == b"[":
            replies += json.loads(frame)
        elif frame[:1] == b"{":
            replies.append(json.loads(frame))
        elif not frame:
            replies.append([])
        else:
            message = decode(frame)
            replies += message[1] if message[0] == 56 else [message]
    for reply in replies:
        if isinstance(reply, dict) and isinstance(reply.get("result"), dict):
            reply["result"].pop("epoch", None)
        elif reply and isinstance(reply, list) and reply[0] in (50, 54):
            reply.pop()  # run_ms, epoch
        elif reply and isinstance(reply, list) and reply[0] == 57:
            del reply[2:]  # all of them moments
    return sorted(replies, key=repr)
