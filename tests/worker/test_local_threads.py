"""Mirror of worker/local_threads.py; what takes as long as `GRACE_S` is in test_local.py."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest

from pronghorn.client import BrokerLostError, CancelledError
from pronghorn.worker.local_threads import CallThreads, LoopThread, OpenFutures

PATIENCE_S = 20.0


# --- futures ------------------------------------------------------------------------------------


def test_the_first_to_end_a_future_does() -> None:
    open_futures = OpenFutures()
    future = open_futures.make()
    open_futures.end(future, None, 1)
    open_futures.end(future, ValueError())
    assert future.result(0) == 1
    assert open_futures.end_all() == 0


@pytest.mark.parametrize("begun", [True, False])
def test_what_is_open_can_be_ended_at_any_time(begun: bool) -> None:
    open_futures = OpenFutures()
    future = open_futures.make()
    if begun:
        assert open_futures.begin(future)
    assert open_futures.end_all() == 1
    error = future.exception(0)
    assert isinstance(error, BrokerLostError)
    assert error.outcome == "maybe_executed"
    assert not open_futures.begin(future)
    open_futures.end(future, None, 1)
    assert future.exception(0) is error


def test_a_cancelled_future_is_not_begun_and_those_who_wait_are_told() -> None:
    open_futures = OpenFutures()
    first, second = open_futures.make(), open_futures.make()
    assert first.cancel()
    assert second.cancel()
    assert not open_futures.begin(first)
    open_futures.end(second, None, 1)
    assert futures.wait([first, second], PATIENCE_S).not_done == set()
    assert first.cancelled()
    assert second.cancelled()


# --- the loop -----------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


def test_coroutines_run_to_their_end(loop: LoopThread) -> None:
    assert loop.run(give(1)) == 1
    assert loop.start(give(2)).result(PATIENCE_S) == 2
    with pytest.raises(ValueError, match="no luck"):
        loop.run(give(ValueError("no luck")))


def test_cancelling_the_future_cancels_the_coroutine(loop: LoopThread) -> None:
    async def wait() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    begun, ended = threading.Event(), threading.Event()
    future = loop.start(wait())
    assert begun.wait(PATIENCE_S)
    assert future.cancel()
    assert ended.wait(PATIENCE_S)
    assert futures.wait([future], PATIENCE_S).done
    begun.clear()
    ended.clear()
    with pytest.raises(TimeoutError):
        loop.run(wait(), timeout_s=0.01)
    assert ended.wait(PATIENCE_S)


def test_a_task_that_was_cancelled_by_others_is_told(loop: LoopThread) -> None:
    async def cancel_all() -> None:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(1)

    with pytest.raises(CancelledError) as caught:
        loop.run(cancel_all())
    assert caught.value.outcome == "maybe_executed"


@pytest.mark.slow
def test_an_interrupt_between_start_and_wait_cancels_too(loop: LoopThread) -> None:
    """The interpreter is handed over to the loop's thread just as the other begins to wait."""

    async def interrupt() -> None:
        try:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            ended.set()

    for _ in range(100):
        ended = threading.Event()
        with pytest.raises(KeyboardInterrupt):
            loop.run(interrupt())
        assert ended.wait(PATIENCE_S)


def test_the_loop_s_own_thread_can_not_wait(loop: LoopThread) -> None:
    async def wait_for_another() -> None:
        loop.run(give(1))

    with pytest.raises(RuntimeError, match="would wait for ever"):
        loop.run(wait_for_another())


def test_a_closed_loop_ends_what_runs_and_takes_no_more() -> None:
    loop = LoopThread()
    running = loop.start(asyncio.Event().wait())
    loop.close()
    for error in (running.exception(0), _raised_by(loop)):
        assert isinstance(error, BrokerLostError)
        assert error.message == "the pool is closed"


def _raised_by(loop: LoopThread) -> BaseException:
    with pytest.raises(BrokerLostError) as caught:
        loop.start(give(1))
    assert caught.value.outcome == "not_started"
    return caught.value


# --- the threads --------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[CallThreads]:
    threads = CallThreads(2)
    yield threads
    threads.close()


def test_calls_run_in_so_many_daemon_threads(threads: CallThreads) -> None:
    barrier = threading.Barrier(2)

    def meet() -> threading.Thread:
        barrier.wait(PATIENCE_S)
        return threading.current_thread()

    found = {one.result(PATIENCE_S) for one in [threads.submit(meet) for _ in range(20)]}
    assert len(found) == 2
    assert all(thread.daemon for thread in found)


def test_a_thread_that_waits_is_used_again() -> None:
    threads = CallThreads(100)
    used = {threads.submit(threading.get_ident).result(PATIENCE_S) for _ in range(100)}
    assert len(used) < 10  # one may be on its way back when the next call comes
    threads.close()


def test_what_a_call_raises(threads: CallThreads) -> None:
    assert isinstance(threads.submit(divmod, 1, 0).exception(PATIENCE_S), ZeroDivisionError)

    def leave() -> None:
        raise SystemExit(3)

    assert isinstance(threads.submit(leave).exception(PATIENCE_S), SystemExit)
    assert threads.submit(divmod, 1, 1).result(PATIENCE_S) == (1, 0)


def test_a_call_that_was_cancelled_is_not_run(threads: CallThreads) -> None:
    ran: list[int] = []
    opened, begun = threading.Event(), threading.Barrier(3)
    holding = [
        threads.submit(lambda: (begun.wait(PATIENCE_S), opened.wait(PATIENCE_S))) for _ in range(2)
    ]
    begun.wait(PATIENCE_S)
    waiting = threads.submit(ran.append, 1)
    last = threads.submit(ran.append, 2)
    assert waiting.cancel()
    assert not holding[0].cancel()
    opened.set()
    last.result(PATIENCE_S)
    assert ran == [2]


def test_closing_refuses_what_has_not_begun() -> None:
    threads = CallThreads(1)
    opened, begun = threading.Event(), threading.Event()
    running = threads.submit(lambda: begun.set() or opened.wait(PATIENCE_S))  # type: ignore[func-returns-value]
    assert begun.wait(PATIENCE_S)
    waiting = [threads.submit(divmod, 1, 1) for _ in range(3)]
    for one in waiting:
        one.add_done_callback(lambda _: opened.set())
    threads.close()
    assert running.result(0)
    with pytest.raises(BrokerLostError):
        threads.submit(divmod, 1, 1)
    for one in waiting:
        error = one.exception(0)
        assert isinstance(error, BrokerLostError)
        assert error.outcome == "not_started"


def test_closing_in_one_of_the_threads() -> None:
    threads = CallThreads(2)
    error = threads.submit(threads.close).exception(PATIENCE_S)
    assert isinstance(error, BrokerLostError), "the call that closes is open itself"
