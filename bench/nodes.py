"""The nodes that the benchmarks call, served by Pronghorn.

Mirror: tests/bench/test_nodes.py.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from pronghorn.bench.floors.functions import count
from pronghorn.broker.wire.stream import FrameWriter
from pronghorn.worker import node


@node
def add(a: int, b: int) -> int:
    """Sum of two integers: the smallest call there is."""
    return a + b


@node
def add_after(a: int, b: int, spin_ns: int) -> int:
    """Sum of two integers after a busy wait: a call made slower on purpose, for `guard --prove`."""
    end = time.perf_counter_ns() + spin_ns
    while time.perf_counter_ns() < end:
        pass
    return a + b


@node
def stamps(count: int, apart_s: float) -> Iterator[int]:
    """Yield the time, again and again, asleep in between: the cores are for who passes it on."""
    for _ in range(count):
        yield time.perf_counter_ns()
        if apart_s:
            time.sleep(apart_s)


@node
def numbers(count: int) -> Iterator[int]:
    """Yield what `range` does: the smallest part there is."""
    yield from range(count)


@node
def blocks(count: int, size: int) -> Iterator[bytes]:
    """Yield bytes."""
    block = bytes(size)
    for _ in range(count):
        yield block


@node
def echo(value: bytes) -> bytes:
    """Give back what came."""
    return value


@node
def concat(a: str, b: str) -> str:
    """Two strings joined."""
    return a + b


@node
def cpu_1ms(loops: int) -> int:
    """Count that far: CPU-bound, 1 ms when `loops` comes from `calibrate_count`."""
    return count(loops)


@node
def nap_2ms() -> None:
    """Sleep for 2 ms, as a blocking call to elsewhere would."""
    time.sleep(0.002)


@node
def nap_5ms() -> None:
    """Sleep for 5 ms: what an overload is made of, for it takes a worker and no core."""
    time.sleep(0.005)


@node
def quick_or_slow(slow_s: float = 0.0) -> float:
    """Quick, except when its argument says how long to take."""
    if slow_s:
        time.sleep(slow_s)
    return slow_s


@node
def nothing() -> None:
    """Do nothing: what is left is what a call costs."""


@node
def block_1s() -> None:
    """Sit in one blocking call for a second."""
    time.sleep(1.0)


@node
def stay(told: str) -> None:
    """Tell the worker's pid, then sleep for longer than anybody waits."""
    with open(told, "w") as fifo:
        print(os.getpid(), file=fifo)
    time.sleep(1000.0)


@node
def spin() -> None:
    """Run for ever and never yield."""
    while True:
        pass


@node
def finish_and_die(value: int) -> int:
    """Give back what came; the worker is killed as soon as it has written that to its link."""
    write: Callable[[FrameWriter, bytes], bool] = FrameWriter.write

    def write_and_die(link: FrameWriter, frame: bytes) -> bool:
        write(link, frame)
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    FrameWriter.write = write_and_die  # type: ignore[assignment, method-assign]
    return value


@node
def nap_100us() -> None:
    """Sleep for a tenth of a millisecond: quick, and takes no core."""
    time.sleep(0.0001)


@node
def results(count: int, lists: bool = False) -> list[list[int]] | list[str]:
    """Results of 10 KB each, as a context that has grown: texts, or lists of small integers."""
    size = 10 * 1024
    if lists:
        return [[number % 100] * size for number in range(count)]
    return [str(number % 10) * size for number in range(count)]


@node
def large(kind: str) -> str | list[int]:
    """1 MB, encoded: a text, or integers of 5 bytes each."""
    return "x" * 1_000_000 if kind == "text" else list(range(100_000, 300_000))


@node
def add_beside_text(big: str, a: int, b: int) -> int:
    """Sum of two integers, with a large text that it can't change."""
    return a + b


@node
def add_beside_list(big: list[int], a: int, b: int) -> int:
    """Sum of two integers, with a large list that is its own."""
    return a + b


@node
def add_beside_sequence(big: Sequence[int], a: int, b: int) -> int:
    """Sum of two integers, with a large list that it must not change."""
    return a + b


@node
async def nap(seconds: float) -> None:
    """Sleep, beside others."""
    await asyncio.sleep(seconds)


@node
def spin_for(seconds: float) -> None:
    """Take a core for so long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
