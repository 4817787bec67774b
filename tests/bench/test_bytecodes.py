"""Mirror of bench/bytecodes.py and bench/tracing.py: counts of code that is known."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pronghorn.bench import tracing
from pronghorn.bench.injected import ask, counting_children
from pronghorn.bench.subject import Subject, started
from pronghorn.bench.subjects.counted import EXTRA

LOOP = """
import sys
for line in sys.stdin:
    for _ in range(int(line)):
        pass
    print("done", flush=True)
"""


@contextmanager
def looping(*, forks: bool = False) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """Start a traced program that loops as often as it is told to."""
    code = f"import os\nif os.fork(): os._exit(os.wait()[1])\n{LOOP}" if forks else LOOP
    with counting_children(tracing) as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with process:
            loop(process, 0)  # it has begun
            yield folder, process
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait() == 0


def loop(process: "subprocess.Popen[str]", times: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{times}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


@pytest.mark.slow
def test_what_a_process_runs_is_counted() -> None:
    counts = []
    with looping() as (folder, process):
        ask(folder, [process.pid])
        for times in (0, 100, 1100):
            loop(process, times)
            counts.append(ask(folder, [process.pid]))
    none, few, many = counts
    per_loop = (few - none) / 100
    assert 2 <= per_loop <= 4  # FOR_ITER, STORE_NAME, JUMP_BACKWARD
    # Asked before it is back in its read, it has a few of one time counted with the next.
    assert (many - few) / 1000 == pytest.approx(per_loop, abs=0.1)


@pytest.mark.slow
def test_a_fork_goes_on_counting() -> None:
    with looping(forks=True) as (folder, process):
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        (child,) = map(int, path.read_text().split())
        ask(folder, [child])
        loop(process, 500)
        assert 1000 <= ask(folder, [child]) <= 2100


@pytest.mark.slow
def test_a_call_runs_code_in_all_processes() -> None:
    subject = Subject(
        name="traced",
        factory="subjects.counted:bytecodes",
        options={"factory": "subjects.calls:sync_round_trip", "workers": 1},
    )
    with started(subject) as running:
        first, second = (running.measure(50).extra for _ in range(2))
    assert first.keys() == {"client", "broker", "worker", EXTRA}
    assert all(count > 100 for count in first.values())
    assert second["worker"] == pytest.approx(first["worker"], rel=0.01)
