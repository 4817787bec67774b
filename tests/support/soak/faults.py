"""What goes wrong, and when: faults of each kind, at random times from a seed.

Signals go through pidfds to processes that are the tree's own, looked up just before: a pid may be
somebody else's a moment later.
"""

import heapq
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from random import Random
from time import monotonic
from typing import Any, NamedTuple

from raw_client import CALL, HELLO, RawClient
from raw_sockets import RawSockets

from pronghorn.client import Client, PronghornError

from .crowd import Crowd
from .ledger import Ledger
from .records import Outcome
from .served import Served

MUTE_CALLS = 200  # of one that reads none of the replies, of 64 KiB each
MUTE_S = 1.0
HANGS_AT_ONCE = 2  # the other workers serve on
BACK_S = 20.0  # for a broker to be there again; shows a hang, is no budget


class Kind(NamedTuple):
    """A kind of fault.

    Attributes:
        number: How many there are in a full run.
        per_second: How many there are a second, on average.
        share: How often it is chosen where everything happens at once.
    """

    number: int
    per_second: float
    share: int


KINDS = {
    "kill": Kind(number=1000, per_second=15.0, share=40),  # SIGKILL of a worker
    "stop": Kind(number=200, per_second=4.0, share=12),  # SIGSTOP of one; then it goes on, or dies
    "hang": Kind(number=200, per_second=3.0, share=8),  # a node that holds the GIL for hours
    "exit": Kind(number=200, per_second=8.0, share=12),  # a node that calls os._exit
    "hog": Kind(number=200, per_second=8.0, share=12),  # a node that takes all memory
    "broker": Kind(number=100, per_second=1.0, share=4),  # SIGKILL of the broker
    "client": Kind(number=200, per_second=3.0, share=10),  # one that vanishes or does not read
    "template": Kind(number=50, per_second=2.0, share=2),  # SIGKILL of what forks the workers
}
EVERYTHING = "everything"
EVERYTHING_PER_SECOND = 6.0


class Injector:
    """Makes faults happen, one after the other, some side by side."""

    def __init__(
        self, served: Served, crowd: Crowd, client: Client, ledger: Ledger, random: Random
    ) -> None:
        self._served = served
        self._crowd = crowd
        self._client = client
        self._ledger = ledger
        self._random = random
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []  # heap of what is to be done
        self._order = count()
        self._hanging = 0
        self.faults: dict[str, int] = {}  # kind -> how many there were
        self._acts: dict[str, Callable[[], bool]] = {
            "kill": self._kill,
            "stop": self._stop,
            "hang": self._hang,
            "exit": lambda: self._poison("leave"),
            "hog": lambda: self._poison("hog", random.random() < 0.5),
            "broker": self._kill_broker,
            "client": self._client_fails,
            "template": self._kill_template,
        }

    def run(self, kind: str, *, faults: int, seconds: float) -> None:
        """Have so many faults happen, or as many as there is time for; returns with the last.

        Raises:
            TimeoutError: There is no broker for a long time after one was killed.
        """
        if kind in (EVERYTHING, "client"):
            self._crowd.prepare(2)
        try:
            self._happen(kind, faults, monotonic() + seconds)
        finally:
            self._do_until(float("inf"))  # nobody is left standing still

    def _happen(self, kind: str, faults: int, end: float) -> None:
        everything = kind == EVERYTHING
        per_second = EVERYTHING_PER_SECOND if everything else KINDS[kind].per_second
        happened = 0
        while happened < faults and (now := monotonic()) < end:
            self._do_until(min(end, now + self._random.expovariate(per_second)))
            chosen = self._choose() if everything else kind
            if self._acts[chosen]():
                self.faults[chosen] = self.faults.get(chosen, 0) + 1
                happened += 1

    def _choose(self) -> str:
        names = list(KINDS)
        return self._random.choices(names, [KINDS[name].share for name in names])[0]

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (monotonic() + seconds, next(self._order), act))

    def _do_until(self, end: float) -> None:
        """Let time pass, and do what was left for later; until infinity: until nothing is left."""
        while self._agenda and self._agenda[0][0] <= end:
            due, _, act = heapq.heappop(self._agenda)
            time.sleep(max(0.0, due - monotonic()))
            act()
        if end != float("inf"):
            time.sleep(max(0.0, end - monotonic()))

    # --- workers --------------------------------------------------------------------------------

    def _kill(self) -> bool:
        return self._signal_worker(signal.SIGKILL) is not None

    def _stop(self) -> bool:
        """Stop a worker for a while: as long as a hiccup, or past every deadline and grace."""
        pidfd = self._signal_worker(signal.SIGSTOP, keep=True)
        if pidfd is None:
            return False
        then = self._random.choice([signal.SIGCONT, signal.SIGCONT, signal.SIGKILL])

        def end() -> None:
            with suppress(ProcessLookupError):  # it was killed meanwhile, as it did not obey
                signal.pidfd_send_signal(pidfd, then)
            os.close(pidfd)

        self._later(self._random.choice([0.01, 0.1, 0.5, 1.5]), end)
        return True

    def _hang(self) -> bool:
        if self._hanging >= HANGS_AT_ONCE:
            return False
        self._hanging += 1

        def ended() -> None:
            self._hanging -= 1

        self._poison("hang", timeout_s=self._random.choice([0.03, 0.1]))
        self._later(0.6, ended)  # the deadline, and the grace time after it
        return True

    def _poison(self, node: str, *arguments: Any, timeout_s: float | None = None) -> bool:
        """Call a node that does harm."""
        ledger = self._ledger
        call = ledger.open(timeout_s)
        future = self._client.submit(node, call, *arguments, timeout_s=timeout_s)

        def tell(future: Any) -> None:
            error = future.exception()
            if error is None:
                ledger.tell_value(call, future.result())
            else:
                ledger.tell_error(call, error)

        future.add_done_callback(tell)
        return True

    def _signal_worker(self, number: signal.Signals, *, keep: bool = False) -> int | None:
        """Send a signal to some worker; returns its pidfd if it is to be kept, else 0."""
        workers = self._served.tree.workers
        return self._signal(self._random.choice(workers), number, keep=keep) if workers else None

    def _signal(self, pid: int, number: signal.Signals, *, keep: bool = False) -> int | None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        kept = False
        try:
            if pid not in self._served.children():  # it ended, and another has its number
                return None
            signal.pidfd_send_signal(pidfd, number)
            kept = keep
            return pidfd if keep else 0
        except ProcessLookupError:
            return None
        finally:
            if not kept:
                os.close(pidfd)

    # --- the tree -------------------------------------------------------------------------------

    def _kill_broker(self) -> bool:
        """Kill the broker; go on once there is another that serves."""
        broker = self._served.tree.broker
        if not broker or self._signal(broker, signal.SIGKILL) is None:
            return False
        end = monotonic() + BACK_S
        while monotonic() < end:
            call = self._ledger.open(1.0)
            try:
                self._ledger.tell_value(call, self._client.call("quick", call, timeout_s=1.0))
                return True
            except PronghornError as error:
                self._ledger.tell_error(call, error)
        raise TimeoutError(f"no broker serves {BACK_S:g} s after the last was killed")

    def _kill_template(self) -> bool:
        template = self._served.tree.template
        return bool(template) and self._signal(template, signal.SIGKILL) is not None

    # --- clients --------------------------------------------------------------------------------

    def _client_fails(self) -> bool:
        how = self._random.choice(["vanish", "vanish", "freeze", "pause", "mute"])
        if how == "mute":
            self._mute()
        elif how == "pause":
            program = self._random.choice(self._crowd.steady)
            program.pause()
            self._later(self._random.choice([0.05, 0.5, 1.0]), program.go_on)
        else:
            program = self._crowd.take_spare()
            if how == "freeze":
                program.pause()
                self._later(self._random.choice([0.2, 1.0]), program.vanish)
            else:
                program.vanish()
        return True

    def _mute(self) -> None:
        """Ask for much and read nothing of it, then be gone."""
        sockets = RawSockets()
        client = RawClient(sockets, self._served.endpoint, RCVHWM=1, SNDTIMEO=0)
        try:
            client.send([HELLO, "hello", "mute"])
            for _ in range(MUTE_CALLS):
                call = self._ledger.open()
                self._ledger.tell(call, Outcome.WITHDRAWN)
                client.send([CALL, call, "bulk", [call]])
        finally:
            self._later(MUTE_S, sockets.close)
