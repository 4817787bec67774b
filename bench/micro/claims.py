"""Slots and claims (broker/wire/slots.py): what a claim costs, and whether its fence holds.

`cost`: claiming, finishing and looking, as a worker and the broker do once per call. `race`: a
worker that claims and a broker that revokes the same request at the same moment, on two cores.
At least one must see the other: that both go on is what may never happen. The race without a
fence is the control: where it shows such cases, the race is sharp enough to find them. It says
nothing on one core.

Mirror: tests/bench/micro/test_claims.py.
"""

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from time import perf_counter_ns

from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage

from ..figures import Measurement
from ..timing import Measure, time_tight

BOTH, NEITHER = "both went on", "neither went on"

_BURST = 100
_STARTED, _REVOKED = 0, 1  # words of the control's own page, as in slots.py
_ARRIVED = (
    PAGE_BYTES // 8,
    PAGE_BYTES // 8 + 8,
)  # words where worker and broker say where they are


@contextlib.contextmanager
def cost() -> Iterator[Measure]:
    """Claim, finish and look at a slot."""
    with mmap.mmap(-1, PAGE_BYTES) as memory, memoryview(memory) as view:
        page = SlotsPage(view)

        def once() -> bool:
            begun = page.claim(0, 1, 1)
            page.finish(0, 1)
            page.state(0, 1)
            return begun

        yield lambda calls: time_tight(once, True, calls, burst=_BURST)
        page.close()


@contextlib.contextmanager
def race(fenced: bool) -> Iterator[Measure]:
    """Let two processes race for so many requests; `fenced` races the real page."""

    def measure(calls: int) -> Measurement:
        begin = perf_counter_ns()
        begun, taken_back = _race(calls, fenced=fenced)
        outcomes = list(zip(begun, taken_back, strict=True))
        return Measurement(
            calls=calls,
            elapsed_ns=perf_counter_ns() - begin,
            extra={
                BOTH: float(outcomes.count((1, 1))),
                NEITHER: float(outcomes.count((0, 0))),
            },
        )

    yield measure


def _race(calls: int, *, fenced: bool) -> tuple[bytes, bytes]:
    """Return, per request, whether the worker began it and whether the broker took it back."""
    shared = mmap.mmap(-1, 2 * PAGE_BYTES + calls)
    with shared, memoryview(shared) as view:
        claim, revoke, close = _fenced(view) if fenced else _unfenced(view)
        words = view[: 2 * PAGE_BYTES].cast("Q")
        child = os.fork()  # this process has one thread
        if child == 0:
            for token in range(1, calls + 1):
                _meet(words, _ARRIVED[0], _ARRIVED[1], token)
                shared[2 * PAGE_BYTES + token - 1] = claim(token)
            os._exit(0)
        taken_back = bytearray(calls)
        for token in range(1, calls + 1):
            _meet(words, _ARRIVED[1], _ARRIVED[0], token)
            taken_back[token - 1] = revoke(token)
        _, status = os.waitpid(child, 0)
        begun = bytes(view[2 * PAGE_BYTES :])
        words.release()
        close()
    if status:
        raise RuntimeError(f"the racing worker ended with status {status}")
    return begun, bytes(taken_back)


def _meet(words: memoryview, own: int, other: int, token: int) -> None:
    """Spin until the other side is at the same request: the one way to meet within nanoseconds."""
    words[own] = token
    while words[other] < token:
        pass


Race = tuple[Callable[[int], bool], Callable[[int], bool], Callable[[], None]]


def _fenced(view: memoryview) -> Race:
    page = SlotsPage(view)
    return lambda token: page.claim(0, token, 1), lambda token: page.revoke(0, token), page.close


def _unfenced(view: memoryview) -> Race:
    words = view[:PAGE_BYTES].cast("Q")

    def claim(token: int) -> bool:
        words[_STARTED] = token
        return bool(words[_REVOKED] != token)

    def revoke(token: int) -> bool:
        words[_REVOKED] = token
        return bool(words[_STARTED] != token)

    return claim, revoke, words.release
