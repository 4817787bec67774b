"""Mirror of broker/watcher.py: in this process, but for signals."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

import pytest

from pronghorn.broker.processes import children, kill, reap
from pronghorn.broker.watcher import Watcher


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watcher = Watcher()
    yield watcher
    watcher.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def no_descriptors() -> Iterator[None]:
    """Leave this process no descriptor."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    fillers = []
    with suppress(OSError):
        while True:
            fillers.append(os.dup(0))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for descriptor in fillers:
        os.close(descriptor)


def shell(script: str) -> int:
    """Start a child that runs a script."""
    return os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ)


# --- descriptors and times ---------------------------------------------------------------------


def test_a_handler_is_called_as_long_as_there_is_something_to_read(
    watcher: Watcher, pipe: tuple[int, int]
) -> None:
    read: list[bytes] = []
    watcher.watch(pipe[0], lambda: read.append(os.read(pipe[0], 1)))
    os.write(pipe[1], b"ab")
    watcher.turn()
    watcher.turn()
    assert read == [b"a", b"b"]
    watcher.unwatch(pipe[0])
    watcher.unwatch(pipe[0])
    os.write(pipe[1], b"c")
    watcher.turn(monotonic())
    assert read == [b"a", b"b"]


def test_a_handler_may_close_what_another_was_about_to_read(watcher: Watcher) -> None:
    called: list[int] = []
    pipes = [os.pipe() for _ in range(2)]

    def close_other(own: int, other: int) -> None:
        called.append(own)
        watcher.unwatch(other)
        os.close(other)
        watcher.watch(os.dup(own), lambda: called.append(-1))  # gets the number of the other

    (first, _), (second, _) = pipes
    watcher.watch(first, lambda: close_other(first, second))
    watcher.watch(second, lambda: close_other(second, first))
    for _, writer in pipes:
        os.write(writer, b"x")
    watcher.turn()
    assert len(called) == 1
    assert called[0] in (first, second)
    for number in (first, second, pipes[0][1], pipes[1][1]):
        watcher.unwatch(number)
        os.close(number)


def test_a_turn_ends_at_its_time(watcher: Watcher) -> None:
    until = monotonic() + 0.02
    watcher.turn(until)
    assert monotonic() >= until


def test_timers_are_due_in_their_time_once_and_are_replaced_by_name(watcher: Watcher) -> None:
    done: list[str] = []
    now = monotonic()
    watcher.at("one", now + 0.02, lambda: done.append("first thought"))
    watcher.at("one", now + 0.01, lambda: done.append("one"))
    watcher.at("two", now + 0.03, lambda: done.append("two"))
    while len(done) < 2:
        watcher.turn()
    assert monotonic() >= now + 0.03
    watcher.turn(monotonic())
    assert done == ["one", "two"]


def test_a_timer_may_be_set_anew_by_what_it_does(watcher: Watcher) -> None:
    done: list[int] = []

    def again() -> None:
        done.append(len(done))
        if len(done) < 3:
            watcher.at("again", monotonic(), again)

    watcher.at("again", monotonic(), again)
    for _ in range(3):
        watcher.turn()
    assert done == [0, 1, 2]


# --- children ----------------------------------------------------------------------------------


def test_the_end_of_a_child_is_told_with_its_cause(watcher: Watcher) -> None:
    ends: list[str] = []
    pids = [shell("exit 3"), shell("kill -KILL $$")]
    for pid in pids:
        watcher.watch_child(pid, ends.append)
    while len(ends) < 2:
        watcher.turn()
    assert sorted(ends) == ["exit status 3", "signal 9 (SIGKILL)"]
    assert not set(pids) & set(children())


def test_a_child_that_can_not_be_watched_is_ended(watcher: Watcher, no_descriptors: None) -> None:
    pid = shell("exec sleep 100")
    with pytest.raises(OSError, match="Too many open files"):
        watcher.watch_child(pid, lambda _: None)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_ended_on_purpose_is_not_told(watcher: Watcher) -> None:
    pid = shell("exec sleep 100")
    watcher.watch_child(pid, lambda _: pytest.fail("told"))
    kill(pid)
    watcher.end_child(pid)
    watcher.turn(monotonic())
    assert pid not in children()


def test_others_children_are_reaped_when_they_have_ended_and_not_before(watcher: Watcher) -> None:
    ended, runs, watched = shell("exit 0"), shell("exec sleep 100"), shell("exit 0")
    watcher.watch_child(watched, lambda _: None)
    for pid in (ended, watched):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    watcher.reap_others()
    assert {runs, watched} <= set(children())
    assert ended not in children()
    watcher.turn()
    assert watched not in children()
    kill(runs)
    reap(runs)


def test_where_no_descriptor_is_free_to_list_children_they_stay_a_while(
    watcher: Watcher, no_descriptors: None
) -> None:
    pid = shell("exit 0")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    watcher.reap_others()
    assert reap(pid) == "exit status 0"


def test_all_children_are_waited_for_and_no_longer_than_said(watcher: Watcher) -> None:
    begun = monotonic()
    watcher.wait_for_children(100.0)  # there are none
    pids = [shell("exit 0"), shell("exec sleep 100")]
    for pid in pids:
        watcher.watch_child(pid, lambda _: pytest.fail("told"))
    watcher.wait_for_children(0.05)
    assert begun + 0.05 <= monotonic() < begun + 20.0
    watcher.kill_children()
    watcher.wait_for_children(100.0)
    assert not set(pids) & set(children())
    assert monotonic() < begun + 20.0


def test_one_child_may_be_spared(watcher: Watcher) -> None:
    begun = monotonic()
    spared, other = shell("exec sleep 100"), shell("exec sleep 100")
    for pid in (spared, other):
        watcher.watch_child(pid, lambda _: pytest.fail("told"))
    watcher.kill_children(spared=spared)
    watcher.wait_for_children(100.0, spared=spared)
    assert set(children()) & {spared, other} == {spared}
    watcher.kill_children()
    watcher.wait_for_children(100.0)
    assert monotonic() < begun + 20.0


def test_waiting_for_children_takes_no_descriptor(
    watcher: Watcher, request: pytest.FixtureRequest
) -> None:
    watcher.watch_child(shell("exit 0"), lambda _: None)
    request.getfixturevalue("no_descriptors")
    watcher.wait_for_children(20.0)


SIGNALLED = """
import os, signal
from pronghorn.broker.watcher import Watcher
watcher = Watcher()
numbers = []
watcher.watch_signals(signal.SIGTERM, signal.SIGCHLD, handler=lambda new: numbers.extend(new))
os.kill(os.getpid(), signal.SIGTERM)
watcher.turn()
if os.fork() == 0:
    os._exit(0)
while len(numbers) < 2:
    watcher.turn()
os.wait()
watcher.close()
print(*(signal.Signals(number).name for number in numbers), len(os.listdir("/proc/self/fd")))
"""


def test_signals_wake_the_loop_up_and_are_told() -> None:
    out = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, check=True).stdout
    assert out.decode() == "SIGTERM SIGCHLD 4\n"


def test_a_timer_that_was_cancelled_does_nothing(watcher: Watcher) -> None:
    watcher.at("a name", monotonic(), lambda: pytest.fail("called"))
    watcher.cancel("a name")
    watcher.cancel("another")
    watcher.turn(monotonic())


def test_no_unwatched_child_is_reaped_while_one_is_expected(watcher: Watcher) -> None:
    pid = shell("exit 0")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    watcher.expected.add(7)
    watcher.reap_others()
    assert pid in children()
    watcher.expected.discard(7)
    watcher.reap_others()
    assert pid not in children()
