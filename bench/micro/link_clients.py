"""The client of the links benchmark: a plain DEALER, one call at a time or with many outstanding.

The same for both links. Closed loops: the round trip of a lone call, and the most calls a second
with a fixed number outstanding. It sends as many new requests in one message as it got replies
in one.

Mirror: tests/bench/micro/test_links.py.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from time import perf_counter_ns

import msgspec
import zmq
from zmq import backend

from pronghorn.broker.wire.messages import Result

from ..children import running
from ..figures import Measurement
from ..floors.requests import request
from ..processes import cpu_ns, descendants
from ..timing import Measure, check, time_each
from .link_brokers import front_endpoint, receive_message, send_message
from .link_router import WINDOW

_decode_result = msgspec.msgpack.Decoder(Result).decode


@contextlib.contextmanager
def round_trip(link: str, workers: int = 1) -> Iterator[Measure]:
    """One call at a time."""
    with _served(link, workers) as (dealer, _):
        frame = request()

        def once() -> bytes:
            dealer.send(frame)
            return dealer.recv()

        reply = once()
        check(msgspec.msgpack.decode(_decode_result(reply).value), 3)
        yield lambda calls: time_each(once, reply, calls)


@contextlib.contextmanager
def outstanding(link: str, count: int, workers: int = 2, window: int = WINDOW) -> Iterator[Measure]:
    """`count` calls outstanding all the time; also the CPU time per call of broker and workers."""
    with _served(link, workers, window) as (dealer, broker_pid):
        worker_pids = descendants(broker_pid)

        def measure(calls: int) -> Measurement:
            before = cpu_ns([broker_pid]), cpu_ns(worker_pids)
            elapsed = _keep_outstanding(dealer, count, calls)
            after = cpu_ns([broker_pid]), cpu_ns(worker_pids)
            return Measurement(
                calls=calls,
                elapsed_ns=elapsed,
                extra={
                    "broker_cpu_us_per_call": (after[0] - before[0]) / calls / 1000,
                    "worker_cpu_us_per_call": (after[1] - before[1]) / calls / 1000,
                },
            )

        yield measure


def _keep_outstanding(dealer: backend.Socket, count: int, calls: int) -> int:
    frame = request()
    begin = perf_counter_ns()
    sent = min(count, calls)
    send_message(dealer, [frame] * sent)
    received = 0
    while received < calls:
        replies = len(receive_message(dealer))
        received += replies
        more = min(replies, calls - sent)
        if more:
            send_message(dealer, [frame] * more)
            sent += more
    elapsed = perf_counter_ns() - begin
    check(received, calls)
    return elapsed


@contextlib.contextmanager
def _served(link: str, workers: int, window: int = WINDOW) -> Iterator[tuple[backend.Socket, int]]:
    with tempfile.TemporaryDirectory(prefix="pronghorn-bench-") as folder:
        arguments = (link, folder, str(workers), str(window))
        with running("pronghorn.bench.micro.link_brokers", *arguments) as broker:
            context = backend.Context()
            dealer = backend.Socket(context, zmq.DEALER)
            dealer.connect(front_endpoint(folder))
            try:
                yield dealer, broker.pid
            finally:
                dealer.close(linger=0)
                context.term()
