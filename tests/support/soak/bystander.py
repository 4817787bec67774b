"""A program that calls while others are hostile: ``python -m soak.bystander ENDPOINT``.

It has two connections: a client of ours, and a bare DEALER whose routing id others may want. Both
make one call at a time, with a pause between. For each line on its standard input it prints what
has become of the calls since the last one, and goes on; it ends with the input.
"""

import select
import sys
from time import perf_counter_ns, sleep
from typing import Any

import msgspec
import zmq
from msgspec.msgpack import decode, encode

from pronghorn.bench.children import die_with_parent, say_ready
from pronghorn.client import Client

from .attacks import VICTIM

_PAUSE_S = 0.001
_PATIENCE_S = 10.0
_QUOTED = 20


class Seen(msgspec.Struct):
    """What has become of the calls; times in microseconds."""

    calls: int
    p50_us: float
    p99_us: float
    max_us: float
    wrong: list[str]


def main(endpoint: str) -> None:
    """Call until the input ends."""
    die_with_parent()
    with (
        zmq.Context() as context,
        context.socket(zmq.DEALER) as dealer,
        Client(endpoint) as client,
    ):
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.ROUTING_ID, VICTIM)
        dealer.connect(endpoint)
        _call(client, dealer, 0)
        say_ready()
        number, times, wrong = 0, [0], [""]
        times.clear()
        wrong.clear()
        while True:
            number += 1
            _try(wrong, number, lambda n: client.call("add", n, 1, timeout_s=_PATIENCE_S), times)
            _try(wrong, number, lambda n: _raw(dealer, n), times)
            sleep(_PAUSE_S)
            if select.select([sys.stdin], [], [], 0)[0]:
                if not sys.stdin.readline():
                    return
                print(msgspec.json.encode(_seen(times, wrong)).decode(), flush=True)
                times.clear()
                wrong.clear()


def _call(client: Client, dealer: Any, number: int) -> None:
    assert client.call("add", number, 1) == number + 1
    assert _raw(dealer, number) == number + 1


def _try(wrong: list[str], number: int, call: Any, times: list[int]) -> None:
    """Make a call and check its result."""
    begun = perf_counter_ns()
    try:
        result = call(number)
    except Exception as error:  # whatever it is, it is what an attacker must not bring about
        wrong.append(f"call {number}: {type(error).__name__}: {error}")
    else:
        if result != number + 1:
            wrong.append(f"call {number} has the result {result!r}")
    times.append(perf_counter_ns() - begun)


def _raw(dealer: Any, number: int) -> Any:
    """Make a call by hand; what comes must be its reply and nothing else."""
    dealer.send(encode([35, number, "add", [number, 1]]))
    if not dealer.poll(_PATIENCE_S * 1000):
        raise TimeoutError(f"no reply within {_PATIENCE_S:g} s")
    frames = dealer.recv_multipart()
    kind, id_, value, *_ = decode(frames[0])
    if (kind, id_, len(frames)) != (49, number, 1):
        raise ValueError(f"a reply that is not its own: {frames}")
    return value


def _seen(times: list[int], wrong: list[str]) -> Seen:
    ordered = sorted(times) or [0]
    p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return Seen(len(times), p50 / 1000, p99 / 1000, ordered[-1] / 1000, wrong[:_QUOTED])


if __name__ == "__main__":
    main(sys.argv[1])
