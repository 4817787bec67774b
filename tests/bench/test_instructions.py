"""Counting with perf: with a software event, for not every machine has the processor's counter."""

import os
import subprocess
import sys

import pytest

from pronghorn.bench.instructions import EVENT, CountError, counting, parse, unsupported

SOFTWARE_EVENT = "page-faults"


def test_a_count_is_read() -> None:
    assert parse(f"123456,,{EVENT},1000,100.00,,\n") == 123456.0


def test_an_event_that_is_not_supported_is_an_error() -> None:
    with pytest.raises(CountError, match="instructions:u: not supported"):
        parse(f"<not supported>,,{EVENT},0,100.00,,\n")


def test_output_without_the_event_is_an_error() -> None:
    with pytest.raises(CountError, match="perf did not count"):
        parse("perf: not found\n")


def test_a_machine_without_perf_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert unsupported() == "perf is not installed"


def test_only_what_happens_within_the_block_is_counted() -> None:
    why_not = unsupported(SOFTWARE_EVENT)
    if why_not is not None:
        pytest.skip(why_not)
    pages = 2000
    program = (
        "import mmap, sys\n"
        "for line in sys.stdin:\n"
        f"    memory = mmap.mmap(-1, {pages} * mmap.PAGESIZE)\n"
        "    memory.madvise(mmap.MADV_NOHUGEPAGE)\n"
        f"    for page in range({pages}): memory[page * mmap.PAGESIZE] = 1\n"
        "    print('done', flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def touch_pages() -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        child.stdout.readline()

    touch_pages()
    with counting([child.pid], SOFTWARE_EVENT) as counts:
        touch_pages()
    touch_pages()
    child.communicate()
    assert pages <= counts[0] < 1.5 * pages


def test_a_process_that_is_gone_is_an_error() -> None:
    if unsupported(SOFTWARE_EVENT) is not None:
        pytest.skip("perf can't count here")
    with pytest.raises((CountError, BrokenPipeError)), counting([2**22 - 1], SOFTWARE_EVENT):
        os.getpid()
