"""The threads of the in-process pool: one with a loop for async nodes, a few for submitted calls.

None of them keeps a program alive, and none is waited for longer than `GRACE_S`: Python can't stop
a thread. Its futures end all the same.

Mirror: tests/worker/test_local_threads.py.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final, TypeVar

from pronghorn.broker.wire.errors import (
    BrokerLostError,
    CancelledError,
    ErrorDetails,
    Outcome,
)

from .loops import GRACE_S, end_tasks, other_tasks

_log = logging.getLogger(__name__)

T = TypeVar("T")

# A signal that comes just as the main thread begins to wait wakes nobody, and that is where the
# thread of the node gets the interpreter: Ctrl-C is seen at the next look, at the latest.
_LOOK_S: Final = 0.25


def pool_closed(outcome: Outcome) -> BrokerLostError:
    """Make the error of a call that the end of the pool has met."""
    return BrokerLostError("the pool is closed", ErrorDetails(outcome=outcome))


class OpenFutures:
    """Futures that were given out and have not ended; the first to end one does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows, and the step from waiting to running
        self._futures: set[Future[Any]] = set()

    def make(self) -> "Future[Any]":
        """Make a future."""
        future: Future[Any] = Future()
        self._futures.add(future)
        return future

    def begin(self, future: "Future[Any]") -> bool:
        """Note that a call runs from now on; `False` if nobody waits for it any more."""
        with self._lock:
            if future in self._futures and future.set_running_or_notify_cancel():
                return True
            self._futures.discard(future)
            return False

    def end(self, future: "Future[Any]", error: BaseException | None, value: Any = None) -> None:
        """End a future, unless it has ended or was cancelled."""
        with self._lock:
            if future not in self._futures:
                return
            self._futures.remove(future)
            if not future.running() and not future.set_running_or_notify_cancel():
                return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def forget(self, future: "Future[Any]") -> None:
        """Have nothing more to do with a future that nobody waits for."""
        self._futures.discard(future)

    def end_all(self) -> int:
        """End what is left for the pool is closed; returns how many that were."""
        left = list(self._futures)
        for future in left:
            self.end(future, pool_closed("maybe_executed"))
        return len(left)


class LoopThread:
    """An event loop in a thread of its own.

    Attributes:
        loop: The loop.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._open = OpenFutures()
        self._stubborn: set[asyncio.Task[Any]] = set()  # that went on although they were cancelled
        self._lock = threading.Lock()  # guards what follows
        self._blocked = False  # it did not answer when it was to end tasks
        self._closed = False
        self._thread = threading.Thread(
            target=self._serve, name="pronghorn-local-loop", daemon=True
        )
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine; cancelling its future cancels it.

        Raises:
            RuntimeError: It would run in the thread that is going to wait for it.
            BrokerLostError: The loop is closed.
            TimeoutError: The loop is blocked.
        """
        future: Future[T] = self._open.make()
        self._start(coroutine, future)
        return future

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout_s: float | None = None) -> T:
        """Run a coroutine to its end; what breaks off the wait cancels it.

        Raises:
            TimeoutError: The time is up.
        """
        future: Future[T] = self._open.make()
        try:
            # Ctrl-C may strike before this has returned, while the coroutine runs already.
            self._start(coroutine, future)
            _wait(future, timeout_s)
        except BaseException:
            future.cancel()
            raise
        return future.result()

    def end_tasks(self, choose: "Callable[[], set[asyncio.Task[Any]]]") -> None:
        """Cancel tasks, given by a function that is called on the loop, and wait for a while."""
        try:
            self.run(self._end_tasks(choose), timeout_s=2 * GRACE_S)
        except TimeoutError:
            _log.warning("the loop of async nodes is blocked, so that they can't be ended")
            with self._lock:
                self._blocked = True

    def close(self) -> None:
        """End the loop and all that is on it; one that is blocked, once it is not any more."""
        with self._lock:
            self._closed = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        if not self._blocked:
            self._thread.join(2 * GRACE_S)
        self._open.end_all()

    def _serve(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._end_tasks(other_tasks))
        finally:
            self.loop.close()

    async def _end_tasks(self, choose: "Callable[[], set[asyncio.Task[Any]]]") -> None:
        left = await end_tasks(choose() - self._stubborn)
        self._stubborn |= left
        if left:
            _log.warning("%d async tasks go on although they were cancelled", len(left))

    def _start(self, coroutine: Coroutine[Any, Any, T], future: "Future[T]") -> None:
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                self.loop.call_soon_threadsafe(self._begin, coroutine, future)
                return
        coroutine.close()
        self._open.forget(future)
        raise refusal

    def _refusal(self) -> Exception | None:
        if threading.current_thread() is self._thread:
            return RuntimeError("an async node that waits here for another one would wait for ever")
        if self._closed:
            return pool_closed("not_started")
        if self._blocked:
            return TimeoutError("the loop of async nodes is blocked")
        return None

    def _begin(self, coroutine: Coroutine[Any, Any, T], future: "Future[T]") -> None:
        """Have a task made on the loop, whose thread no signal's handler interrupts."""
        if future.done():
            coroutine.close()
            self._open.forget(future)
            return
        task = self.loop.create_task(coroutine)
        task.add_done_callback(partial(self._ended, future))
        future.add_done_callback(partial(self._cancel_soon, task))

    def _cancel_soon(self, task: asyncio.Task[Any], _: "Future[Any]") -> None:
        if not task.done():
            with suppress(RuntimeError):  # the loop is closed, and the task has ended with it
                self.loop.call_soon_threadsafe(task.cancel)

    def _ended(self, future: "Future[Any]", task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            error = task.exception()
            self._open.end(future, error, None if error else task.result())
        elif self._closed:
            self._open.end(future, pool_closed("maybe_executed"))
        else:  # by whoever waited, who is not told then, or by a node, which can cancel any task
            details = ErrorDetails(outcome="maybe_executed")
            self._open.end(future, CancelledError("the call was cancelled", details))


def _wait(future: "Future[Any]", timeout_s: float | None) -> None:
    """Wait until a future is done.

    Not with its own `Future.result`: an exception that a signal's handler raises within can leave
    its condition's lock in disorder.

    Raises:
        TimeoutError: The time is up.
    """
    over = threading.Lock()
    over.acquire()
    future.add_done_callback(lambda _: over.release())
    in_main = threading.current_thread() is threading.main_thread()
    due = inf if timeout_s is None else monotonic() + timeout_s
    while True:
        step_s = min(due - monotonic(), _LOOK_S if in_main else inf)
        if over.acquire(timeout=-1 if step_s == inf else max(0.0, step_s)):
            return
        if monotonic() >= due:
            raise TimeoutError


class CallThreads:
    """Threads that take calls from one queue, made as they are needed.

    Args:
        count: How many at most.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._open = OpenFutures()
        # Threads that wait for a call which is not in the queue yet. Not guarded by the lock: that
        # is held while a thread is started, which may have done its first call by then.
        self._waiting = threading.Semaphore(0)
        self._lock = threading.Lock()  # guards what follows
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, function: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Put a call into the queue.

        Raises:
            BrokerLostError: The threads were closed.
        """
        with self._lock:
            if self._closed:
                raise pool_closed("not_started")
            future: Future[T] = self._open.make()
            self._queue.put((future, partial(function, *arguments)))
            if not self._waiting.acquire(blocking=False) and len(self._threads) < self._count:
                number = len(self._threads)
                thread = threading.Thread(
                    target=self._serve, name=f"pronghorn-local_{number}", daemon=True
                )
                thread.start()
                self._threads.append(thread)
        return future

    def close(self) -> None:
        """Refuse what has not begun, and wait for the rest for a while."""
        with self._lock:
            self._closed = True
        try:
            while waiting := self._queue.get_nowait():
                self._open.end(waiting[0], pool_closed("not_started"))
        except Empty:
            pass
        for _ in self._threads:
            self._queue.put(None)
        due = monotonic() + GRACE_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, due - monotonic()))
        if left := self._open.end_all():
            _log.warning("%d submitted calls go on: their threads can't be stopped", left)

    def _serve(self) -> None:
        while (taken := self._queue.get()) is not None:
            future, call = taken
            self._run(future, call)
            del taken, future, call  # or they would live until the next one comes
            self._waiting.release()

    def _run(self, future: "Future[Any]", call: Callable[[], Any]) -> None:
        if not self._open.begin(future):
            return
        try:
            value = call()
        except BaseException as error:
            self._open.end(future, error)
        else:
            self._open.end(future, None, value)
