"""NATS request-reply through nats-server. Mirror: tests/bench/peers/test_peers.py."""

import asyncio
import contextlib
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ..children import ChildError, die_with_parent, running, say_ready
from ..floors.functions import add
from .measuring import Peer
from .redis_server import free_port, running_server

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """The server on loopback, one responder process, one connection; messages in msgpack."""
    nats = importlib.import_module("nats")
    beside = Path(sys.executable).parent / "nats-server"
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise ChildError("nats-server is not installed")
    port = free_port()
    url = f"nats://127.0.0.1:{port}"
    with (
        running_server([program, "--addr", "127.0.0.1", "--port", str(port)], port),
        running("pronghorn.bench.peers.nats_requests", url),
    ):
        loop = asyncio.new_event_loop()
        connection = loop.run_until_complete(nats.connect(url))

        async def ask(a: int, b: int) -> int:
            value: int = _decode((await connection.request("add", _encode((a, b)))).data)
            return value

        async def once() -> int:
            return await ask(1, 2)

        async def burst(count: int) -> list[int]:
            return list(await asyncio.gather(*(ask(index, 1) for index in range(count))))

        try:
            yield Peer(once, burst, loop)
        finally:
            loop.run_until_complete(connection.close())
            loop.close()


async def _respond(url: str) -> None:
    nats = importlib.import_module("nats")
    connection = await nats.connect(url)

    async def answer(message: Any) -> None:
        await message.respond(_encode(add(*_decode(message.data))))

    await connection.subscribe("add", cb=answer)
    await connection.flush()
    say_ready()
    await asyncio.Event().wait()


def main() -> None:
    """Answer requests at the server given, until killed."""
    die_with_parent()
    asyncio.run(_respond(sys.argv[1]))


if __name__ == "__main__":
    main()
