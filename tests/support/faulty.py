"""Nodes that die, hang and misbehave, served by the tests of faults."""

import asyncio
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from pronghorn.worker import Context, Retry, node


@node
def add(a: int, b: int) -> int:
    return a + b


@node
def pid() -> int:
    return os.getpid()


@node
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@node
def die(how: str) -> None:
    _die(how)


@node(thread=True)
def die_in_thread(how: str) -> None:
    _die(how)


@node
async def die_in_coroutine(how: str) -> None:
    await asyncio.sleep(0)
    _die(how)


@node
async def wait_forever(told: str) -> None:
    _tell(told)
    await asyncio.Event().wait()


@node
def die_at(index: int, at: int) -> int:
    if index == at:
        _die("SIGKILL")
    return index


@node(thread=True)
def die_at_in_thread(index: int, at: int) -> int:
    return die_at(index, at)


@node
def text(size: int) -> str:
    return "x" * size


@node
def gate(told: str, opened: str) -> int:
    """Say that it has begun, then wait until somebody opens a FIFO."""
    _tell(told)
    with open(opened) as fifo:
        fifo.read()
    return os.getpid()


@node
def spin_in_c(told: str) -> int:
    """Hold the GIL in one call of C for hours."""
    _tell(told)
    return sum(range(10**12))


@node
def sleep_long(told: str) -> None:
    _tell(told)
    time.sleep(1000)


@node
def deaf(told: str) -> None:
    """Ignore every signal that can be ignored, and sleep."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    _tell(told)
    time.sleep(1000)


@node(thread=True)
def sleep_in_thread(told: str) -> None:
    _tell(told)
    time.sleep(1000)


@node
async def stubborn(told: str) -> None:
    """Refuse to be cancelled."""
    _tell(told)
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            continue


@node
async def tidy(told: str, cleaned: str) -> None:
    _tell(told)
    try:
        await asyncio.Event().wait()
    finally:
        _tell(cleaned)


@node
def fork_child() -> int:
    """Leave a forked child behind, which sleeps."""
    child = os.fork()
    if child == 0:
        time.sleep(1000)
        os._exit(0)
    return child


@node
def fork_and_return() -> int:
    """Return twice, in the worker and in a forked child; the child's own return is nobody's."""
    return os.fork()


@node
def fork_and_raise() -> int:
    """As `fork_and_return`, but the child raises."""
    child = os.fork()
    if child == 0:
        raise RuntimeError("in the child")
    return child


@node
async def fork_in_coroutine() -> int:
    """As `fork_and_return`, and both go on through the loop that they share."""
    child = os.fork()
    await asyncio.sleep(0)
    return child


@node(thread=True)
def nap_in_thread(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@node
def daemons() -> list[int]:
    """Leave a family behind: a daemon in a session of its own, and children it has started."""
    script = "sleep 1000 & echo $!; sleep 1000 & echo $!; wait"
    shell = subprocess.Popen(
        ["sh", "-c", f"echo $$; {script}"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert shell.stdout is not None
    return [int(shell.stdout.readline()) for _ in range(3)]


@node
def brief_child() -> int:
    """Start a process that ends at once and is not waited for."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return child


@node
async def run_command(word: str) -> str:
    process = await asyncio.create_subprocess_exec("echo", word, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode().strip()


@node
def descriptors() -> dict[int, str]:
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the one that lists
            continue
    return found


@node
def say(word: str) -> None:
    print(word)


@node
def close_standard_descriptors() -> int:
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    return os.getpid()


@node
def go_to(folder: str) -> str:
    os.chdir(folder)
    return os.getcwd()


@node
def session() -> tuple[int, int]:
    """Return the ids of the session and of the process group."""
    return os.getsid(0), os.getpgid(0)


@node
def value_and_die(value: int, when: str) -> int:
    """Return the value; the worker is killed around the write of the result."""
    _kill_around_send(when)
    return value


@node
def die_within(microseconds: int, mark: str) -> int:
    """Have the kernel end this process some time from now, and note the end of the node."""
    signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6)
    _tell(mark)
    return microseconds


def _die(how: str) -> None:
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case name:
            os.kill(os.getpid(), signal.Signals[name])


def _kill_around_send(when: str) -> None:
    """Have the next write to the link be this process's last, done or not done."""
    from pronghorn.broker.wire.stream import FrameWriter

    def write(writer: FrameWriter, frame: bytes) -> bool:
        if when == "after":
            original(writer, frame)
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    original: Callable[[FrameWriter, bytes], bool] = FrameWriter.write
    FrameWriter.write = write  # type: ignore[method-assign]


@node
def deep(ctx: Context, levels: int, kinds: list[str]) -> int:
    """Call oneself or another of its kind so deep, each level of the next kind in turn."""
    if not levels:
        return 0
    return 1 + ctx.call_sync(kinds[0], levels - 1, [*kinds[1:], kinds[0]])


@node
async def deep_async(ctx: Context, levels: int, kinds: list[str]) -> int:
    if not levels:
        return 0
    return 1 + await ctx.call(kinds[0], levels - 1, [*kinds[1:], kinds[0]])


@node(thread=True)
def deep_thread(ctx: Context, levels: int, kinds: list[str]) -> int:
    if not levels:
        return 0
    return 1 + ctx.call_sync(kinds[0], levels - 1, [*kinds[1:], kinds[0]])


@node
async def fan_out(ctx: Context, name: str, count: int, seconds: float) -> int:
    return len(await asyncio.gather(*(ctx.call(name, seconds) for _ in range(count))))


@node
async def nap_async(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@node
def parent_of(ctx: Context, told: str, name: str, arguments: list[str | int]) -> str:
    """Say that it has begun, then wait for another node."""
    _tell(told)
    try:
        return f"child: {ctx.call_sync(name, *arguments)}"
    finally:
        _tell(told)


@node
async def async_parent_of(ctx: Context, told: str, name: str, arguments: list[str | int]) -> str:
    _tell(told)
    return f"child: {await ctx.call(name, *arguments)}"


@node
def survive(ctx: Context, name: str, how: str) -> str:
    """Call what kills its worker, which is another one, and tell what came of it."""
    try:
        ctx.call_sync(name, how)
    except Exception as error:
        return type(error).__name__
    return "nothing"


@node
def reverse_by_another(ctx: Context, data: bytes) -> bytes:
    result: bytes = ctx.call_sync(reverse, data)
    return result


@node
def reverse(data: bytes) -> bytes:
    return data[::-1]


@node
def crash_in_child() -> int:
    """Have a forked child crash, and tell by which signal."""
    child = os.fork()
    if child == 0:
        _die("segfault")
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@node(retry=Retry(attempts=3, backoff_s=0.01))
def die_first(times: int, counter: str) -> int:
    """End the process so many times, then return."""
    runs = _count(counter)
    if runs <= times:
        os._exit(3)
    return runs


@node(retry=Retry(attempts=4, backoff_s=0.0, on=(ConnectionError,)))
async def fail_first(times: int, counter: str) -> int:
    runs = _count(counter)
    if runs <= times:
        raise ConnectionError(f"run {runs}")
    return runs


def _count(path: str) -> int:
    _tell(path)
    with open(path) as lines:
        return len(lines.readlines())


def _tell(path: str) -> None:
    """Write a line to a FIFO or file: this node has come so far."""
    with open(path, "a") as out:
        print(os.getpid(), file=out)


assert sys.platform == "linux"


@node
def parts_then(count: int, how: str, told: str = "") -> Iterator[int]:
    """Yield some parts, then die, hang, fork or go on, as `how` says."""
    try:
        yield from range(count)
        if how == "hang":
            while True:
                pass
        if how == "fork":
            if os.fork() == 0:
                yield -1
                _tell(told)  # never: the child may not come back from its node
            os.wait()
            yield count
        elif how == "on":
            yield from itertools.count(count)
        else:
            _die(how)
    finally:
        if told and how == "on":
            _tell(told)
