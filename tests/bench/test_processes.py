"""What /proc says, compared with what is known of this process and its children."""

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pronghorn.bench import processes

HELD_BYTES = 2**24


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """Run a child with a child of its own; both end when the pipe closes."""
    grandchild = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    program = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {grandchild!r}], check=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    yield child.pid, int(child.stdout.readline())
    child.communicate()


def test_descendants_are_found_over_generations(family: tuple[int, int]) -> None:
    child, grandchild = family
    assert set(family) <= set(processes.descendants(os.getpid()))
    assert processes.descendants(child) == [grandchild]
    assert processes.parents()[grandchild] == child
    assert processes.started_at(child) <= processes.started_at(grandchild)


def test_command_line_has_all_arguments(family: tuple[int, int]) -> None:
    assert processes.command_line(family[1])[1:2] == ["-c"]
    assert processes.command_line(2**30) == []


def test_cpu_time_grows_with_work() -> None:
    own = [os.getpid()]
    before = processes.cpu_ns(own)
    end = time.process_time_ns() + 20_000_000
    while time.process_time_ns() < end:
        pass
    assert processes.cpu_ns(own) - before >= 10_000_000
    assert processes.cpu_ns([2**22 + 1]) == 0  # there is no such process


def test_cpu_time_without_schedstat_comes_in_ticks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "7"
    (folder / "task").mkdir(parents=True)
    (folder / "stat").write_text("7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 3 2 0 0 20 0 1 0 99\n")
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert processes.cpu_clock() == "stat"
    assert processes.cpu_ns([7]) == 5 * processes._TICK_NS
    assert processes.started_at(7) == 99


def test_a_voluntary_switch_is_counted(family: tuple[int, int]) -> None:
    (main, *_) = [one for one in processes.switches(os.getpid()) if one.tid == os.getpid()]
    select_nothing, waiting = os.pipe()
    os.close(waiting)
    os.read(select_nothing, 1)  # at its end: does not block
    os.close(select_nothing)
    subprocess.run([sys.executable, "-c", "pass"], check=True)  # blocks until it has ended
    (later, *_) = [one for one in processes.switches(os.getpid()) if one.tid == os.getpid()]
    assert later.voluntary > main.voluntary
    assert later.name == main.name


def test_memory_of_its_own_is_part_of_what_it_shares() -> None:
    held = processes.memory(os.getpid())
    assert 1024 < held.uss_kib <= held.pss_kib


def test_what_is_gone_has_no_start() -> None:
    assert processes.started_at(2**30) == 0


def test_memory_in_use_is_known() -> None:
    before = processes.resident_bytes(os.getpid())
    with mmap.mmap(-1, HELD_BYTES) as held:  # no memory that was there before and is free
        held.write(b"x" * HELD_BYTES)
        assert processes.resident_bytes(os.getpid()) >= before + HELD_BYTES // 2
