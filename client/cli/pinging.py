"""``pronghorn ping``: how long a round trip to the broker itself takes. An IO shell.

Mirror: tests/client/cli/test_pinging.py.
"""

from statistics import median

import msgspec

from ..sync import Client
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .output import write


def ping(endpoint: str, *, count: int, timeout_s: float, as_json: bool) -> None:
    """Ask the broker for a sign of life, so many times, and print the times."""
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        times_ms = [client.ping(timeout_s) * 1000 for _ in range(count)]
    if as_json:
        found = {"endpoint": endpoint, "round_trips_ms": [round(each, 4) for each in times_ms]}
        write(msgspec.json.encode(found) + b"\n")
        return
    trips = "1 round trip" if count == 1 else f"{count} round trips"
    write(
        f"{endpoint}: {trips}, min {min(times_ms):.3f} ms, median {median(times_ms):.3f} ms, "
        f"max {max(times_ms):.3f} ms\n"
    )
