"""One generator process: sends the calls of a plan at their times, and counts what becomes of them.

Run as ``python -m pronghorn.bench.load.generator``, its order and the time of its beginning on
standard input, what it has to tell on standard output (orders.py). An IO shell.

A call leaves when the kernel's timer says so, whether those before were answered or not; what could
not leave in time leaves as soon as possible, and its latency still runs from its planned time.

Mirror: tests/bench/load/test_generator.py.
"""

import asyncio
import gc
import os
import resource
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import monotonic_ns, process_time_ns
from typing import Final

import uvloop
import zmq

from pronghorn.broker.wire.errors import PronghornError

from ..children import die_with_parent
from .histogram import Recorder
from .lanes import FrameLane, Lane, PronghornLane, Sent
from .mix import PlannedCall, calls
from .orders import Begin, Done, Failed, Order, Progress, Ready, receive, send
from .pieces import pieces_of
from .record import UNSENT_BY_ITSELF
from .replay import replayed
from .tally import Tally, packed
from .timer import Timer

OPEN_MAX: Final = 100_000
"""Open calls of a process; those planned beyond are not sent, and counted as unsent."""

BURST: Final = 32
"""Calls sent before replies get their turn, when the generator is behind."""

BEHIND_MAX_NS: Final = 1_000_000_000
"""So long after the plan's end calls are still sent, if the generator is behind its schedule."""

DRAIN_S: Final = 1.0
"""Beyond the timeout of the last call; what is not answered then never will be."""

_PROGRESS_S: Final = 0.25
_INPUT, _OUTPUT = 0, 1


class Generator:
    """The share that one process has of a run."""

    def __init__(self, order: Order) -> None:
        plan = order.plan
        self._order = order
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._nodes = [kind.called for kind in order.kinds]
        self._calls = _calls_of(order)
        self._next = next(self._calls, None)
        self._timer = Timer()
        self._timeout_ns = round(plan.timeout_s * 1e9)
        self._begin_ns = 0  # when the plan begins; set by `run`
        self._end_ns = 0  # when it ends
        self._tally = Tally(plan, len(order.kinds))
        self._recent = Recorder()  # latencies since progress was told
        self._number = 0  # of the call that was sent last, for its lane
        self._open = self._answered = self._errors = 0
        self._is_full = False  # whether a call was not sent because of OPEN_MAX
        self._is_sending = True
        self._stopped = False
        self._ran_s = plan.duration_s  # after the warm-up; less if it is stopped
        self._sent_all = asyncio.Event()  # nothing more is sent
        self._drained = asyncio.Event()  # nothing more is sent or awaited
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._lanes = self._make_lanes()

    async def connect(self) -> None:
        """Connect all lanes.

        Raises:
            PronghornError: One can't be.
        """
        for lane in self._lanes:
            await lane.connect()

    async def run(self, begin_ns: int) -> Done:
        """Carry out the plan and report."""
        self._begin_ns = begin_ns
        self._end_ns = begin_ns + round(self._plan.planned_s * 1e9)
        gc.collect()
        gc.freeze()
        self._loop.add_reader(_INPUT, self._stop)
        self._loop.add_reader(self._timer.fd, self._on_timer)
        self._timer.set(begin_ns)
        keepers = [asyncio.ensure_future(lane.keep()) for lane in self._lanes]
        telling = asyncio.ensure_future(self._tell())
        try:
            cpu = await self._send_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._plan.timeout_s + DRAIN_S):
                    await self._drained.wait()
            self._give_up()
        finally:
            telling.cancel()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(telling, *keepers, return_exceptions=True)
            self.close()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Done(
            pid=os.getpid(),
            cpu=cpu,
            memory_bytes=memory,
            stopped=self._stopped,
            ran_s=self._ran_s,
            tally=self._tally.values(),
        )

    def close(self) -> None:
        """Close all lanes."""
        for lane in self._lanes:
            lane.close()
        if self._context is not None:
            self._context.term()

    async def _send_all(self) -> float:
        """Wait until all is sent; returns the share of a core that it took."""
        await asyncio.sleep(max(0, self._begin_ns - monotonic_ns()) / 1e9)
        cpu_ns, wall_ns = process_time_ns(), monotonic_ns()
        await self._sent_all.wait()
        return (process_time_ns() - cpu_ns) / max(1, monotonic_ns() - wall_ns)

    def _make_lanes(self) -> Sequence[Lane]:
        order, plan = self._order, self._plan
        lanes = range(order.process, plan.clients, plan.processes)
        if order.protocol == "pronghorn":
            workflows = {index for index, kind in enumerate(order.kinds) if kind.workflow}
            return [
                PronghornLane(
                    order.endpoint,
                    plan.timeout_s,
                    self._on_answer,
                    self._on_event,
                    plan.durability,
                    workflows,
                )
                for _ in lanes
            ]
        self._context = context = zmq.Context()
        envelope = order.protocol == "req"
        return [
            FrameLane(context, order.endpoint, self._on_answer, envelope=envelope) for _ in lanes
        ]

    # --- sending --------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._timer.fd, 8)
        if self._plan.closed is not None:
            self._fill()
        else:
            self._send_due()

    def _send_due(self) -> None:
        """Send what is due; the rest is for the timer, or for the next turn if it is much."""
        for _ in range(BURST):
            call = self._next
            if call is None or not self._is_sending:
                self._end_sending()
                return
            now_ns = monotonic_ns()
            planned_ns = self._begin_ns + call.at_ns
            if planned_ns > now_ns:
                self._timer.set(planned_ns)
                return
            if now_ns > self._end_ns + BEHIND_MAX_NS:
                self._drop_rest()
                return
            self._send(call, call.at_ns, now_ns - self._begin_ns)
            self._next = next(self._calls, None)
        self._loop.call_soon(self._send_due)

    def _fill(self) -> None:
        """Open the calls of a closed loop; each answer brings the next."""
        assert self._plan.closed is not None
        share = range(self._order.process, self._plan.closed, self._plan.processes)
        for _ in share:
            self._send_next()
        self._loop.call_later(self._plan.planned_s, self._end_sending)

    def _send_next(self) -> None:
        if self._is_sending and self._next is not None:
            call = self._next
            self._next = next(self._calls, None)
            now_ns = monotonic_ns() - self._begin_ns
            self._send(call, now_ns, now_ns)

    def _send(self, call: PlannedCall, planned_ns: int, now_ns: int) -> None:
        if self._open >= OPEN_MAX:
            self._tally.on_unsent(planned_ns)
            if not self._is_full:
                self._on_event(f"{OPEN_MAX:,} calls are open: those planned meanwhile are not sent")
            self._is_full = True
            return
        self._is_full = False
        _, kind, body, number, is_chunk = call
        lane = self._lanes[self._number % len(self._lanes) if number is None else number]
        self._number += 1
        self._open += 1
        sent = Sent(planned_ns, now_ns, kind)
        if lane.send(sent, self._nodes[kind], body, is_chunk=is_chunk):
            self._tally.on_sent(planned_ns, now_ns, held_back=lane.is_holding_back)
            return
        self._open -= 1
        self._tally.on_unsent(planned_ns)
        if self._plan.closed is not None:
            self._loop.call_later(0.01, self._send_next)

    def _drop_rest(self) -> None:
        """Give up the calls that should have been sent long ago."""
        assert self._next is not None
        dropped = self._plan.left(self._next.at_ns, self._order.process)
        self._next = None
        self._tally.on_dropped(dropped)
        self._on_event(f"the generator {UNSENT_BY_ITSELF}: {dropped:,} calls were not sent")
        self._end_sending()

    def _stop(self) -> None:
        """End before the plan does, as the session wishes or is gone."""
        self._loop.remove_reader(_INPUT)
        if self._is_sending:
            self._stopped = True
            now_ns = monotonic_ns() - self._begin_ns
            ran_s = round(now_ns / 1e9 - self._plan.warmup_s, 6)
            self._ran_s = min(self._plan.duration_s, max(0.0, ran_s))
            self._tally.on_stopped(now_ns)
            if self._next is not None and self._plan.closed is None:
                process = self._order.process
                was_due = self._plan.left(self._next.at_ns, process)
                self._tally.on_dropped(max(0, was_due - self._plan.left(now_ns, process)))
            self._on_event("stopped before the end of the plan")
            self._end_sending()

    def _end_sending(self) -> None:
        self._is_sending = False
        self._sent_all.set()
        self._look_if_drained()

    # --- answers --------------------------------------------------------------------------------

    def _on_answer(self, call: Sent, code: str | None) -> None:
        now_ns = monotonic_ns() - self._begin_ns
        self._open -= 1
        self._answered += 1
        if code is None and now_ns - call.sent_ns > self._timeout_ns:
            code = "DEADLINE_EXCEEDED"  # a bare service knows of no deadline
        self._errors += code is not None
        self._tally.on_answered(call.planned_ns, call.sent_ns, now_ns, call.kind, code)
        self._recent.record(now_ns - call.planned_ns)
        if not self._is_sending:
            self._look_if_drained()
        elif self._plan.closed is not None:
            self._loop.call_soon(self._send_next)

    def _look_if_drained(self) -> None:
        if not self._is_sending and not self._open:
            self._drained.set()

    def _give_up(self) -> None:
        """Count what was never answered, with the time that it was waited for."""
        now_ns = monotonic_ns() - self._begin_ns
        for lane in self._lanes:
            for call in lane.open_calls():
                self._tally.on_answered(
                    call.planned_ns, call.sent_ns, now_ns, call.kind, "UNANSWERED"
                )

    def _on_event(self, what: str) -> None:
        self._tally.on_event(monotonic_ns() - self._begin_ns, what)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            if select.select([], [_OUTPUT], [], 0)[1]:  # else nobody reads, and we don't wait
                recent = packed(self._recent.take())
                send(_OUTPUT, Progress(self._number, self._answered, self._errors, recent))


def _calls_of(order: Order) -> Iterator[PlannedCall]:
    """Give the calls of a process, one after the other."""
    plan, process = order.plan, order.process
    if order.trace is None:
        return calls(plan, order.kinds, process)
    nodes = [kind.node for kind in order.kinds]
    return replayed(pieces_of(order.trace), order.trace, plan, nodes, process, order.instead)


async def _serve(order: Order) -> None:
    try:
        generator = Generator(order)
        try:
            await generator.connect()
        except PronghornError:
            generator.close()
            raise
    except PronghornError as error:
        send(_OUTPUT, Failed(error.code, error.message))
        return
    send(_OUTPUT, Ready())
    begin = receive(_INPUT)
    if isinstance(begin, Begin):
        send(_OUTPUT, await generator.run(begin.at_ns))
    else:
        generator.close()


def main() -> None:
    """Take an order from standard input and carry it out."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the session hears it, and ends us
    order = receive(_INPUT)
    if isinstance(order, Order):
        uvloop.run(_serve(order))


if __name__ == "__main__":
    main()
