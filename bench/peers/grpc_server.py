"""gRPC over a Unix socket, messages in msgpack. Mirror: tests/bench/peers/test_peers.py."""

import contextlib
import importlib
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from ..children import die_with_parent, running, say_ready
from ..floors.functions import add
from .measuring import Peer

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@contextlib.contextmanager
def peer() -> Iterator[Peer]:
    """One server process with a thread pool, as its guide has it; one channel."""
    grpc = importlib.import_module("grpc")
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        address = f"unix:{Path(folder) / 'grpc'}"
        with (
            running("pronghorn.bench.peers.grpc_server", address),
            grpc.insecure_channel(address) as channel,
        ):
            call = channel.unary_unary(
                "/nodes/add", request_serializer=_encode, response_deserializer=_decode
            )

            def burst(count: int) -> list[int]:
                futures = [call.future((index, 1)) for index in range(count)]
                return [future.result() for future in futures]

            yield Peer(lambda: call((1, 2)), burst)


def main() -> None:
    """Serve `add` at the address given, until killed."""
    die_with_parent()
    grpc = importlib.import_module("grpc")
    server = grpc.server(ThreadPoolExecutor(2))

    def handle(request: Any, _: Any) -> int:
        return add(*request)

    handler = grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=_decode, response_serializer=_encode
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("nodes", {"add": handler}),)
    )
    server.add_insecure_port(sys.argv[1])
    server.start()
    say_ready()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
