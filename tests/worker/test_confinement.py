"""Mirror of worker/confinement.py: what lasts as long as a process is tried in forked ones."""

import errno
import os
import resource
import signal
import socket
from collections.abc import Callable

import pytest

from pronghorn.broker.wire.control import UNCONFINED, Confinement
from pronghorn.broker.wire.linux import can_leave_network
from pronghorn.worker.confinement import confine

MIB = 2**20


def in_child(confinement: Confinement, act: Callable[[], bool]) -> int:
    """Fork, confine, act; returns the wait status: 0 if what was done says yes."""
    child = os.fork()
    if child == 0:
        try:
            confine(confinement)
            os._exit(0 if act() else 2)
        except BaseException:
            os._exit(3)
    return os.waitpid(child, 0)[1]


def test_unconfined_is_as_before() -> None:
    kinds = (resource.RLIMIT_DATA, resource.RLIMIT_NOFILE, resource.RLIMIT_CPU)
    before = [resource.getrlimit(kind) for kind in kinds]
    same = lambda: [resource.getrlimit(kind) for kind in kinds] == before  # noqa: E731
    assert in_child(UNCONFINED, same) == 0


def test_memory_beyond_the_bound_is_an_error_and_what_fits_is_not() -> None:
    def tried() -> bool:
        bytearray(8 * MIB)
        try:
            bytearray(1024 * MIB)
        except MemoryError:
            return True
        return False

    assert in_child(Confinement(memory_bytes=800 * MIB), tried) == 0


def test_files_beyond_the_bound_are_refused() -> None:
    def tried() -> bool:
        last = 0
        try:
            while True:
                last = os.dup(0)
        except OSError as error:
            return error.errno == errno.EMFILE and last < 100

    assert in_child(Confinement(files=100), tried) == 0


def test_cpu_time_beyond_the_bound_ends_the_process() -> None:
    def spun() -> bool:
        used = resource.getrusage(resource.RUSAGE_SELF)
        assert used.ru_utime + used.ru_stime < 1
        assert resource.getrlimit(resource.RLIMIT_CPU) == (1, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.SIGXCPU)  # what the kernel does then
        return False

    status = in_child(Confinement(cpu_s=1), spun)
    assert os.WTERMSIG(status) == signal.SIGXCPU


def test_a_limit_that_is_lower_already_stays() -> None:
    def tried() -> bool:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        confine(Confinement(files=100))
        return resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 64)

    assert in_child(UNCONFINED, tried) == 0


def test_without_a_network_nobody_is_reached_and_paths_still_are() -> None:
    if not can_leave_network():
        pytest.skip("this system lets no process give up its network")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def tried() -> bool:
            ours, theirs = socket.socketpair()
            ours.send(b"x")
            if theirs.recv(1) != b"x" or os.getuid() != uid:
                return False
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return True
            return False

        uid = os.getuid()
        assert in_child(Confinement(network=False), tried) == 0
