"""The page of slots a worker shares with the broker: who has begun what, readable after a crash.

One page per worker, one slot per request it holds, all words unsigned 64-bit in native order. Each
word has one writer. A request is named by its *token*, never used twice in an epoch, so nothing
needs to be reset between requests.

=============  ======  ======================================================================
word           writer  meaning
=============  ======  ======================================================================
STARTED        worker  token of the request whose node it began last in this slot
REVOKED        broker  token of the request it has taken back
STARTED_NS     worker  monotonic clock when it began, ns
FINISHED       worker  token of the request whose node ended last in this slot
MARK           worker  of a chunk: how many items are over and how many bytes their results
                       have, which lie behind the page (wire/items.py); of a generator:
                       whether it runs
=============  ======  ======================================================================

**Starting is a claim.** The worker writes STARTED, then reads REVOKED; the broker writes REVOKED,
then reads STARTED. With a full fence between the two steps on both sides at least one of them sees
the other, so a request that was taken back never runs. When both see each other neither runs it:
the worker reports it as skipped and the broker, which waited for that report, gives it to another.

A slot is used again only after the worker's last word on its request (result, failure or skipped),
so that a REVOKED word is never overwritten before the worker could read it.

Behind the page, in the same file, lie the area for the results of a chunk's items, and what a
crash writes of its stack. The file is sparse: what is never used takes no memory.

Mirror: tests/broker/wire/test_slots.py.
"""

from collections.abc import Callable
from enum import Enum
from mmap import PAGESIZE
from threading import Lock
from typing import Final

SLOTS_PER_WORKER: Final = 64
"""Most requests a worker holds, async ones included: deep enough to fill it between two wake-ups of
the broker, and each request here is one that may have to be taken back."""

_WORDS_PER_SLOT: Final = 8  # one cache line each: neighbours do not slow each other down
_WORD_BYTES: Final = 8
PAGE_BYTES: Final = SLOTS_PER_WORKER * _WORDS_PER_SLOT * _WORD_BYTES

_STARTED, _REVOKED, _STARTED_NS, _FINISHED, _MARK = range(5)
assert _STARTED == 0, "`claim` writes it at the slot's begin"


def area_bytes(result_bytes: int) -> int:
    """Tell the length of the area behind the page, which begins at `PAGE_BYTES`.

    Results of a chunk are taken in up to the limit, and one more that may have as many bytes.
    """
    return -(-2 * result_bytes // PAGESIZE) * PAGESIZE


def stack_at(result_bytes: int) -> int:
    """Tell where in the file a crash writes its stack: behind the area."""
    return PAGE_BYTES + area_bytes(result_bytes)


class SlotState(Enum):
    """How far the worker came with a request, as the page tells it."""

    HELD = "held"
    STARTED = "started"
    FINISHED = "finished"


class SlotsPage:
    """One worker's page over a shared buffer of `PAGE_BYTES` bytes.

    Both sides make one over the same memory; the methods say which side may call them.

    Args:
        memory: The page.
        read_area: Broker: reads so many bytes from the begin of the area behind it.
    """

    __slots__ = ("_acquire", "_read_area", "_release", "_words")

    def __init__(self, memory: memoryview, read_area: Callable[[int], bytes] | None = None) -> None:
        if memory.nbytes < PAGE_BYTES:
            raise ValueError(f"a page of slots needs {PAGE_BYTES} bytes, got {memory.nbytes}")
        self._words = memory[:PAGE_BYTES].cast("B").cast("Q")
        self._read_area = read_area
        # Acquiring an uncontended lock is an atomic exchange, a full fence on every machine that
        # CPython runs on; Python has no fence of its own (80 ns together).
        fence = Lock()
        self._acquire = fence.acquire
        self._release = fence.release

    def claim(self, slot: int, token: int, now_ns: int) -> bool:
        """Worker: begin a request; `False` means it was taken back and must not run."""
        words = self._words
        base = slot * _WORDS_PER_SLOT
        words[base + _STARTED_NS] = now_ns
        words[base + _MARK] = 0  # or a death before the first item would tell of another chunk's
        words[base] = token
        self._acquire()
        self._release()
        return words[base + _REVOKED] != token

    def revoked(self, slot: int, token: int) -> bool:
        """Worker: whether the request has been given up while it runs."""
        return self._words[slot * _WORDS_PER_SLOT + _REVOKED] == token

    def finish(self, slot: int, token: int) -> None:
        """Worker: the node has ended; to be called before the result is sent."""
        self._words[slot * _WORDS_PER_SLOT + _FINISHED] = token

    def mark_word(self, slot: int) -> tuple[memoryview, int]:
        """Worker: the words of the page, and which of them is the slot's mark."""
        return self._words, slot * _WORDS_PER_SLOT + _MARK

    def set_mark(self, slot: int, mark: int) -> None:
        """Worker: note whether a generator runs (1) or is suspended (0)."""
        self._words[slot * _WORDS_PER_SLOT + _MARK] = mark

    def revoke(self, slot: int, token: int) -> bool:
        """Broker: take a request back; `True` means the worker will not run it.

        On `False` it has begun or is just being skipped; the worker's next message tells which.
        """
        words = self._words
        base = slot * _WORDS_PER_SLOT
        words[base + _REVOKED] = token
        self._acquire()
        self._release()
        return words[base + _STARTED] != token

    def state(self, slot: int, token: int) -> SlotState:
        """Broker: how far the worker came with the request."""
        words = self._words
        base = slot * _WORDS_PER_SLOT
        if words[base + _STARTED] != token:
            return SlotState.HELD
        return SlotState.FINISHED if words[base + _FINISHED] == token else SlotState.STARTED

    def started_ns(self, slot: int) -> int:
        """Broker: monotonic clock at the last claim in this slot, ns."""
        return self._words[slot * _WORDS_PER_SLOT + _STARTED_NS]

    def mark(self, slot: int) -> int:
        """Broker: the mark of a chunk, see wire/items.py, or of a generator."""
        return self._words[slot * _WORDS_PER_SLOT + _MARK]

    def read_area(self, size: int) -> bytes:
        """Broker: what the worker has put into the area behind the page."""
        assert self._read_area is not None, "this is the worker's side"
        return self._read_area(size)

    def close(self) -> None:
        """Let go of the memory, so that the mapping can be closed."""
        self._words.release()
