"""Workers that are lost so many times, for what is called beside a run."""

from collections import deque
from typing import Any

from msgspec import Raw
from msgspec.msgpack import encode

from pronghorn.broker.wire.errors import ErrorDetails, WorkerLostError
from pronghorn.broker.wire.messages import Error, Part, Result
from pronghorn.worker.flow.calls import Called
from pronghorn.worker.flow.events import ItemEnded
from pronghorn.worker.flow.pooling import WorkerPool

LOST = Called("abandoned", None, "the worker was lost")


class LosingPool(WorkerPool):
    """Loses the worker of everything so many times."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.begun = 0

    async def task(self, *_: Any) -> Called:
        self.begun += 1
        return LOST if self.begun <= self.losses else Called("succeeded", self.begun)

    async def items(self, entry: Any, items: Any, *_: Any) -> list[ItemEnded]:
        self.begun += 1
        ok = self.begun > self.losses
        return [
            ItemEnded(each.index, *(Called("succeeded", each.index) if ok or each.index else LOST))
            for each in items
        ]


class LosingStreams(LosingPool):
    """Loses the worker of a generator of 5 numbers behind the third, so many times."""

    async def stream(self, *_: Any) -> Any:
        self.begun += 1
        loses = self.begun <= self.losses
        return _Arrivals(3 if loses else 5, loses=loses)


class _Arrivals:
    """Some parts, then the loss of the worker, or the end."""

    def __init__(self, parts: int, *, loses: bool) -> None:
        self._arrivals: deque[Any] = deque(
            (Part(1, number, Raw(encode(number))), ()) for number in range(parts)
        )
        lost = Error(1, WorkerLostError.code, "gone", ErrorDetails(outcome="maybe_executed"))
        self._arrivals.append((lost if loses else Result(1, Raw(encode(None))), ()))

    def take(self) -> Any:
        return self._arrivals.popleft()

    async def wait(self) -> None:
        raise AssertionError("all is there")

    def close(self) -> None:
        pass
