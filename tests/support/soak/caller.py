"""A program that calls, in every way that there is: one of the load of ``scripts/soak faults``.

    python -m soak.caller ENDPOINT LEDGER NUMBER SEED steady|vanishing

Runs until its standard input ends, then waits for what is open and ends. One that is to vanish has
besides calls open that nobody but their cancellation ends.
"""

import asyncio
import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import zmq
from raw_client import ACK, CALL, ERROR, HELLO, RESULT, WELCOME, RawClient
from raw_sockets import RawSockets

from pronghorn.client import AsyncClient, Client, OverloadedError, PronghornError

from .ledger import Ledger
from .records import Outcome

CONNECT_TIMEOUT_S = 15.0  # brokers that are killed again and again come back after some seconds
SUBMITTED_MAX = 24
RAW_MAX = 4
RAW_WAIT_MS = 100
RAW_END_S = 20.0
TASKS = 8
ENDLESS = 4
ACKNOWLEDGE_EVERY = 500
PAUSE_S = 0.005  # between two calls of a loop, on average: the logs of minutes have to be read


class Caller:
    """The loops of one program, each in a thread of its own."""

    def __init__(self, endpoint: str, ledger: Ledger, seed: int) -> None:
        self.endpoint = endpoint
        self.ledger = ledger
        self.client = Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S)
        self.stopping = threading.Event()
        self._seed = seed
        self._threads: list[threading.Thread] = []
        self.broken = False  # whether a loop ended by what should not happen

    def start(self, loop: Callable[[Random], None]) -> None:
        """Run a loop in a thread."""
        random = Random(f"{self._seed} {len(self._threads)}")

        def run() -> None:
            try:
                loop(random)
            except BaseException:
                traceback.print_exc()
                self.broken = True

        thread = threading.Thread(target=run, name=loop.__name__)
        thread.start()
        self._threads.append(thread)

    def finish(self) -> None:
        """Have the loops come to an end, and wait for it."""
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        self.client.close()

    # --- one thread each ------------------------------------------------------------------------

    def call_one_by_one(self, random: Random) -> None:
        while not self.stopping.is_set():
            node, rest, timeout_s = some_call(random)
            call = self.ledger.open(timeout_s)
            try:
                value = self.client.call(node, call, *rest, timeout_s=timeout_s)
            except PronghornError as error:
                self.ledger.tell_error(call, error)
                _heed(error)
            else:
                self.ledger.tell_value(call, value)
            time.sleep(random.expovariate(1 / PAUSE_S))

    def submit(self, random: Random) -> None:
        """Keep futures open, cancel some."""
        room = threading.Semaphore(SUBMITTED_MAX)
        open_: dict[int, Future[Any]] = {}
        while not self.stopping.is_set():
            room.acquire()
            node, rest, timeout_s = some_call(random)
            call = self.ledger.open(timeout_s)
            future = self.client.submit(node, call, *rest, timeout_s=timeout_s)
            open_[call] = future

            def ended(future: "Future[Any]", call: int = call) -> None:
                self._tell_future(call, future)
                open_.pop(call, None)
                room.release()

            future.add_done_callback(ended)
            if random.random() < 0.05 and (some := list(open_.values())):
                random.choice(some).cancel()
            if random.random() < 0.005:
                self._leave_block(random)
            time.sleep(random.expovariate(1 / PAUSE_S))
        for _ in range(SUBMITTED_MAX):
            room.acquire()

    def map_items(self, random: Random) -> None:
        """Map over some items again and again; leave some maps early."""
        while not self.stopping.is_set():
            node = random.choice(["quick", "quick", "nap", "patient", "wrong"])
            timeout_s = random.choice([None, None, 0.005, 1.0])
            taken: list[int] = []  # calls whose callers were not told, in order
            items = self._items(node, timeout_s, random.randint(1, 200), taken)
            leave_after = random.randint(0, 50) if random.random() < 0.1 else None
            results = self.client.map(
                node,
                items,
                return_exceptions=True,
                timeout_s=timeout_s,
                chunk_size=random.choice([None, None, 1, 20]),
            )
            try:
                with closing(results):  # type: ignore[type-var]
                    for index, value in enumerate(results):
                        self._tell(taken.pop(0), value)
                        if index == leave_after:
                            break
                for call in taken:
                    self.ledger.tell(call, Outcome.WITHDRAWN)
            except PronghornError as error:  # of the map as a whole: nothing is said of its items
                for call in taken:
                    self.ledger.tell(call, Outcome.WITHDRAWN, error.code)
            time.sleep(random.expovariate(0.01 / PAUSE_S))

    def call_async(self, random: Random) -> None:
        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(TASKS):
                    group.create_task(self._one_async(client, random))

        client = AsyncClient(self.endpoint, connect_timeout_s=CONNECT_TIMEOUT_S)

        async def run_and_close() -> None:
            try:
                await run()
            finally:
                await client.aclose()

        asyncio.run(run_and_close())

    def call_raw(self, random: Random) -> None:
        """Speak the protocol itself, so that it shows if a call gets more than one reply."""
        sockets = RawSockets()
        try:
            _RawLoop(self, sockets, random).run()
        finally:
            sockets.close()

    def keep_endless(self, random: Random) -> None:
        """Keep calls open that end with their cancellation alone; a new one for each that ends."""
        while not self.stopping.is_set():
            open_ = []
            for _ in range(ENDLESS):
                call = self.ledger.open()
                future = self.client.submit("endless", call)
                future.add_done_callback(partial(self._tell_future, call))
                open_.append(future)
            while not self.stopping.wait(0.05) and not all(future.done() for future in open_):
                pass
            for future in open_:
                future.cancel()

    # --- inside ---------------------------------------------------------------------------------

    def _items(
        self, node: str, timeout_s: float | None, number: int, taken: list[int]
    ) -> Iterator[tuple[float, ...]]:
        """Give so many items of a map, each with a call of its own, noted in `taken`."""
        for _ in range(number):
            call = self.ledger.open(timeout_s)
            taken.append(call)
            yield (call, 0.3) if node in ("nap", "patient") else (call,)

    def _leave_block(self, random: Random) -> None:
        """Close a client with calls open: each of them ends, and says how."""
        open_ = []
        with Client(self.endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
            for _ in range(10):
                call = self.ledger.open()
                open_.append((call, client.submit("nap", call, random.uniform(0.0, 5.0))))
        for call, future in open_:
            self._tell_future(call, future, own_close=True)

    async def _one_async(self, client: AsyncClient, random: Random) -> None:
        while not self.stopping.is_set():
            node, rest, timeout_s = some_call(random)
            call = self.ledger.open(timeout_s)
            task = asyncio.create_task(client.call(node, call, *rest, timeout_s=timeout_s))
            if random.random() < 0.1:
                await asyncio.wait([task], timeout=random.uniform(0.0, 0.004))
                task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                self.ledger.tell(call, Outcome.WITHDRAWN)
            elif (error := task.exception()) is not None:
                self.ledger.tell_error(call, error)
                if isinstance(error, OverloadedError):
                    await asyncio.sleep(error.retry_after_s or 0.0)
            else:
                self.ledger.tell_value(call, task.result())
            await asyncio.sleep(random.expovariate(1 / (TASKS * PAUSE_S)))

    def _tell(self, call: int, value: object) -> None:
        if isinstance(value, PronghornError):
            self.ledger.tell_error(call, value)
        else:
            self.ledger.tell_value(call, value)

    def _tell_future(self, call: int, future: "Future[Any]", *, own_close: bool = False) -> None:
        try:
            error = future.exception()
        except FutureCancelledError:
            self.ledger.tell(call, Outcome.WITHDRAWN)
            return
        if error is not None:
            self.ledger.tell_error(call, error, own_close=own_close)
        else:
            self.ledger.tell_value(call, future.result())


class _RawLoop:
    """A DEALER that knows of each reply whether it was due."""

    def __init__(self, caller: Caller, sockets: RawSockets, random: Random) -> None:
        self._ledger = caller.ledger
        self._stopping = caller.stopping
        self._random = random
        self._client = RawClient(
            sockets, caller.endpoint, PROBE_ROUTER=1, IMMEDIATE=1, RCVTIMEO=RAW_WAIT_MS, SNDTIMEO=0
        )
        self._welcome = False  # whether our hello was answered on this connection
        self._open: set[int] = set()
        self._replies = 0  # terminal ones since the hello

    def run(self) -> None:
        end = None
        while True:
            if self._stopping.is_set():
                end = end or time.monotonic() + RAW_END_S
                if not self._open or time.monotonic() > end:
                    return
            elif self._welcome:
                while len(self._open) < RAW_MAX:
                    if not self._send():
                        break
            try:
                self._take_in(self._client.receive())
            except zmq.Again:
                continue

    def _send(self) -> bool:
        node, rest, timeout_s = some_call(self._random)
        call = self._ledger.open(timeout_s)
        options = [] if timeout_s is None else [{"timeout_ms": timeout_s * 1000}]
        try:
            self._client.send([CALL, call, node, [call, *rest], *options])
        except zmq.Again:
            self._ledger.tell(call, Outcome.NOT_STARTED)  # there is no connection
            return False
        self._open.add(call)
        return True

    def _take_in(self, reply: list[Any]) -> None:
        kind, id_, *rest = reply
        if kind == WELCOME:
            self._on_welcome(id_)
        elif kind in (RESULT, ERROR):
            self._open.discard(id_)  # if it is not in there, this is its second reply
            if kind == RESULT:
                self._ledger.tell_value(id_, rest[0])
            else:
                self._ledger.tell_wire(id_, rest[0], rest[2].get("outcome"))
            self._replies += 1
            if self._replies % ACKNOWLEDGE_EVERY == 0:
                self._send_control([ACK, self._replies])

    def _on_welcome(self, id_: object) -> None:
        if id_ is not None:
            self._welcome = True
            self._replies = 0
            return
        self._welcome = False  # a new connection: nothing more comes of the old one
        for call in self._open:
            self._ledger.tell(call, Outcome.WITHDRAWN)
        self._open.clear()
        self._send_control([HELLO, "hello", "raw"])

    def _send_control(self, message: list[Any]) -> None:
        try:
            self._client.send(message)
        except zmq.Again:  # the connection is gone: a welcome will come
            self._welcome = False


def some_call(random: Random) -> tuple[str, tuple[float, ...], float | None]:
    """Choose a node, its arguments besides the call's number, and a timeout in seconds."""
    timeout_s = random.choice([None, None, 1.0, random.uniform(0.0002, 0.02)])
    kind = random.random()
    if kind < 0.4:
        return "quick", (), timeout_s
    if kind < 0.5:
        return "wrong", (), timeout_s
    node = random.choice(["nap", "nap", "threaded", "patient"])
    return node, (random.choice([0.05, 0.5, 2.0, 8.0]),), timeout_s


def _heed(error: PronghornError) -> None:
    if isinstance(error, OverloadedError):
        time.sleep(error.retry_after_s or 0.0)


def main() -> int:
    endpoint, path, number, seed, profile = sys.argv[1:]
    faulthandler.enable()
    ledger = Ledger(Path(path), int(number))
    caller = Caller(endpoint, ledger, int(seed))
    caller.start(caller.call_one_by_one)
    caller.start(caller.submit)
    if profile == "vanishing":
        caller.start(caller.keep_endless)
    else:
        caller.start(caller.call_one_by_one)
        caller.start(caller.map_items)
        caller.start(caller.call_raw)
    caller.start(caller.call_async)
    print("ready", flush=True)
    sys.stdin.read()
    caller.finish()
    return int(caller.broken)


if __name__ == "__main__":
    sys.exit(main())
