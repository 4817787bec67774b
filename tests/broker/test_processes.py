"""Starting, reaping and ending processes."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import is_alive

from pronghorn.broker.processes import (
    children,
    forbid_core_dumps,
    kill,
    reap,
    resident_bytes,
    spawn_module,
    use_cpus,
)


def shell(script: str) -> int:
    """Start a child that runs a script."""
    return os.posix_spawn("/bin/sh", ["sh", "-c", script], os.environ)


@pytest.mark.parametrize(
    ("action", "cause"),
    [
        ("exit 0", "exit status 0"),
        ("exit 3", "exit status 3"),
        ("kill -KILL $$", "signal 9 (SIGKILL)"),
        ("kill -HUP $$", "signal 1 (SIGHUP)"),
        (f"kill -{signal.SIGRTMIN + 3} $$", f"signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_reaping_says_how_it_ended(action: str, cause: str) -> None:
    assert reap(shell(action)) == cause


def test_killing_what_has_ended_is_harmless_until_it_is_reaped() -> None:
    pid = shell("exit 0")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    kill(pid)
    assert reap(pid) == "exit status 0"


def test_children_are_listed_until_they_are_reaped() -> None:
    before = set(children())
    pid = shell("exec sleep 100")
    assert set(children()) - before == {pid}
    kill(pid, signal.SIGTERM)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert set(children()) - before == {pid}
    assert reap(pid) == "signal 15 (SIGTERM)"
    assert set(children()) == before


def test_a_module_is_started_with_the_descriptors_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "told.py").write_text(
        "import os, sys\n"
        "open_ones = {int(name) for name in os.listdir('/proc/self/fd')}\n"
        "word, given, other = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
        "os.write(given, f'{word} {given in open_ones} {other in open_ones}'.encode())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    reader, writer = os.pipe()
    pid = spawn_module("told", ["word", str(writer), str(reader)], [writer])
    assert not os.get_inheritable(writer)
    assert reap(pid) == "exit status 0"
    assert os.read(reader, 1000).decode() == "word True False"
    os.close(reader)
    os.close(writer)


def test_the_current_folder_does_not_stand_in_for_our_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit(77)\n")
    (tmp_path / "pronghorn.py").write_text("raise SystemExit(78)\n")
    monkeypatch.chdir(tmp_path)
    assert reap(spawn_module("pronghorn.broker.wire.control", [], [])) == "exit status 0"


SUBREAPER = """
import os, subprocess, sys, time
from pronghorn.broker.processes import children, end_children
from pronghorn.broker.wire.linux import become_subreaper
become_subreaper()
shell = subprocess.Popen(
    ["sh", "-c", "sleep 100 & echo $!; (sleep 100 & echo $!; sleep 100 & echo $!; wait) & wait"],
    stdout=subprocess.PIPE,
)
pids = [int(shell.stdout.readline()) for _ in range(3)]
end_children(5.0)
print(*pids, *children())
"""


def test_ending_children_ends_their_families_too() -> None:
    out = subprocess.run([sys.executable, "-c", SUBREAPER], capture_output=True, check=True).stdout
    pids = [int(pid) for pid in out.split()]
    assert len(pids) == 3
    assert not any(is_alive(pid) for pid in pids)


FORK_BOMB = """
import os, sys, time
from pronghorn.broker.processes import end_children
from pronghorn.broker.wire.linux import become_subreaper
become_subreaper()
if os.fork() == 0:
    for _ in range(400):  # each child goes on for its parent, which is soon killed
        if os.fork():
            time.sleep(0.2)
            os._exit(0)
    os._exit(0)
begun = time.monotonic()
end_children(0.3)
print(time.monotonic() - begun)
"""


@pytest.mark.slow
def test_what_breeds_is_given_up_after_a_while() -> None:
    done = subprocess.run([sys.executable, "-c", FORK_BOMB], capture_output=True, check=True)
    assert float(done.stdout) < 1.0


def test_ending_no_children_takes_no_time() -> None:
    end = "from pronghorn.broker.processes import end_children; end_children(100.0)"
    subprocess.run([sys.executable, "-c", end], check=True, timeout=20)


@pytest.fixture
def cpus() -> Iterator[list[int]]:
    before = os.sched_getaffinity(0)
    yield sorted(before)
    os.sched_setaffinity(0, before)


def test_cpus_are_those_asked_for(cpus: list[int]) -> None:
    use_cpus([])
    assert sorted(os.sched_getaffinity(0)) == cpus
    use_cpus(cpus[:1])
    assert sorted(os.sched_getaffinity(0)) == cpus[:1]


@pytest.mark.parametrize("wrong", [[100_000], [-1], [2**63]])
def test_cpus_that_can_not_be_are_refused(cpus: list[int], wrong: list[int]) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - the text is the system's
        use_cpus(wrong)
    assert sorted(os.sched_getaffinity(0)) == cpus


def test_all_descriptors_the_system_allows() -> None:
    script = (
        "import resource\n"
        "from pronghorn.broker.processes import allow_all_descriptors\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))\n"
        "allow_all_descriptors()\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_core_dumps_are_forbidden_for_good() -> None:
    child = os.fork()
    if child == 0:
        forbid_core_dumps()
        os._exit(0 if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0) else 1)
    assert reap(child) == "exit status 0"


def test_resident_memory_is_that_of_a_process_and_none_once_it_has_ended() -> None:
    assert resident_bytes(os.getpid()) > 1_000_000
    pid = shell("exit 0")
    reap(pid)
    assert resident_bytes(pid) == 0
