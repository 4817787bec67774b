"""The kernel's timer."""

import os
import select
from time import monotonic_ns

from pronghorn.bench.load.timer import Timer

MS = 1_000_000


def readable(timer: Timer, seconds: float) -> bool:
    return bool(select.select([timer.fd], [], [], seconds)[0])


def test_comes_at_its_time_and_not_before() -> None:
    timer = Timer()
    due_ns = monotonic_ns() + 3 * MS
    timer.set(due_ns)
    assert not readable(timer, 0)
    assert readable(timer, 5)
    assert monotonic_ns() >= due_ns
    assert int.from_bytes(os.read(timer.fd, 8), "little") == 1
    timer.close()


def test_what_is_past_comes_at_once() -> None:
    timer = Timer()
    timer.set(monotonic_ns() - MS)
    assert readable(timer, 5)
    timer.set(0)
    assert readable(timer, 5)
    timer.close()


def test_setting_anew_forgets_what_was_set() -> None:
    timer = Timer()
    timer.set(monotonic_ns() + MS)
    timer.set(monotonic_ns() + 10_000 * MS)
    assert not readable(timer, 0.02)
    timer.close()
