"""Handles of runs: of one that was just started, or of one whose id is known.

All that a handle does is a call to the broker, which answers when there is something to tell: who
waits for a result sleeps until it is sent. A broker that is lost meanwhile is asked again when
there is another, which has taken up the run.

Mirror: tests/client/test_runs.py.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Iterator,
    Mapping,
    Sequence,
)
from time import monotonic, sleep
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from pronghorn.broker.wire.codec import array_length
from pronghorn.broker.wire.errors import BrokerLostError, NodeError, NotFoundError
from pronghorn.broker.wire.flows import CONTROL, RunOrder
from pronghorn.broker.wire.messages import Error
from pronghorn.broker.wire.runs import (
    AskEvents,
    AskItems,
    AskResult,
    AskStatus,
    CancelRun,
    OfRun,
    RetryRun,
    RunEvent,
    RunEvents,
    RunInfo,
    RunItems,
)
from pronghorn.broker.wire.values import encode_params

from .flows import failure_of
from .invocation import Params, Target, left_of, result_of, target_of, timeout_ms_of
from .results import ResultDecoder, ResultOrder, Results, each_of
from .stopwatch import Extras
from .transport import Answer

R = TypeVar("R")

_ORDER_AGAIN_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 0.0)
"""How long to wait for somebody to take up a workflow that is to be given an order."""


class Call(Protocol):
    """Makes a call and waits for its reply, as `Transport.call`."""

    def __call__(
        self, node: str, params: Params, timeout_ms: float | None, *, extras: Extras | None = None
    ) -> Answer:
        """Make it."""


class AsyncCall(Protocol):
    """The same for an event loop."""

    def __call__(
        self, node: str, params: Params, timeout_ms: float | None, *, extras: Extras | None = None
    ) -> Awaitable[Answer]:
        """Make it."""


_PLAIN: Final = target_of("a run")


class _Ask:
    """One question, asked again as long as its broker is lost and there is time."""

    def __init__(self, asks: OfRun, timeout_s: float | None) -> None:
        self.name = str(type(asks).__struct_config__.tag)
        self.params = encode_params(msgspec.structs.asdict(asks))
        self._timeout_ms = timeout_ms_of(timeout_s)
        self._begun = 0.0 if timeout_s is None else monotonic()

    @property
    def left_ms(self) -> float | None:
        """The time that is left; raises `DeadlineExceededError` if none is."""
        return left_of(self._timeout_ms, self._begun, again=True)

    @staticmethod
    def is_lost(reply: object) -> bool:
        """Whether the broker was lost before it could answer, so that another one is asked."""
        return type(reply) is Error and reply.code == BrokerLostError.code


class _Items:
    """The results of a map's items, as far as they were told."""

    def __init__(self, run_id: str, target: Target, *, ordered: bool) -> None:
        self._run_id = run_id
        self._target = target._replace(result_type=RunItems)
        self._decoder = ResultDecoder(target.name, target.result_type)
        self._order = ResultOrder(ordered=ordered)
        self._from_seq = 0
        self._count = 0  # of items whose results were told
        self.is_whole = False  # whether those of all items were
        self.is_over = False  # whether no more are to come

    @property
    def asks(self) -> AskItems:
        """The next question."""
        return AskItems(self._run_id, self._from_seq)

    def take(self, reply: object, buffers: Sequence[bytes]) -> Iterator[Results]:
        """Take in an answer; gives what can be given out.

        Raises:
            PronghornError: It is an error, or no results.
        """
        told: RunItems = result_of(self._target, reply, buffers)
        for part in told.parts:
            count = array_length(part.values)
            results = self._decoder.decode(part.values, part.failures, count)
            self._order.add(part.first, results)
            self._from_seq = part.seq + 1
            self._count += count
        self.is_whole = self._count >= told.items
        self.is_over = self.is_whole or told.ended
        return self._order.given_out()


class RunHandle(Generic[R]):
    """A run, which goes on whether or not anybody has its handle.

    Attributes:
        id: By which `Client.attach` finds it, from anywhere. Whoever knows it, and may use the
            broker, can do all that this handle can.
    """

    def __init__(
        self, call: Call, run_id: str, target: Target = _PLAIN, *, is_map: bool = False
    ) -> None:
        self._call = call
        self._target = target  # of a map, as it is for one item
        self._whole = of_all_items(target) if is_map else target
        self.id = run_id

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}>"

    def status(self) -> RunInfo:
        """Tell what is known of the run.

        Raises:
            NotFoundError: There is no such run, or it is kept no longer.
            PermissionDeniedError: It is somebody else's.
            JournalError: The journal can't be asked.
        """
        return _info(*self._ask(AskStatus(self.id), None))

    def result(self, timeout_s: float | None = None) -> R:
        """Wait for the end of the run and return its result; of a map, the list of all results.

        Giving up, at the timeout too, does not stop the run. What is longer than 16 MiB in all is
        for `items`.

        Raises:
            DeadlineExceededError: It has not ended in time.
            InterruptedRunError: It may have run, and must not be tried again.
            WorkerLostError: It was parked, for one worker after the other died of it.
            RunFailedError: It is of a workflow, and has failed.
            PronghornError: What it, or the first failed item, has failed with; or as for `status`.
        """
        result: R = _result(self._whole, *self._ask(AskResult(self.id), timeout_s))
        return result

    def events(self, from_seq: int = 0, *, follow: bool = True) -> Iterator[RunEvent]:
        """Give what has happened to the run, as it is kept, until it has ended.

        Args:
            from_seq: Leave out what has a lower number, as what was seen before.
            follow: Wait for more while the run is open; else give what there is.
        """
        while True:
            asks = AskEvents(self.id, from_seq, follow)
            told = _events(*self._ask(asks, None))
            yield from told.events
            if told.events:
                from_seq = told.events[-1].seq + 1
            if told.ended or not (follow or told.events):
                return

    def items(self, *, ordered: bool = True, return_exceptions: bool = False) -> Iterator[Any]:
        """Give the results of a map's items, each when it is kept; to leave it does not stop it.

        Args:
            ordered: Give them in the order of the items; else as they come.
            return_exceptions: Give a failed item's exception in its place instead of raising it.

        Raises:
            InvalidArgumentError: The run is a call.
            PronghornError: That of the first failed item, or what the run has ended with before all
                its items had ended.
        """
        items = _Items(self.id, self._target, ordered=ordered)
        while not items.is_over:
            for results in items.take(*self._ask(items.asks, None)):
                yield from each_of(results, return_exceptions=return_exceptions)
        if not items.is_whole:
            self.result()

    def cancel(self) -> RunInfo:
        """Cancel the run and tell how it has ended, when that is kept; one that has ended stays."""
        return _info(*self._ask(CancelRun(self.id), None))

    def pause(self) -> None:
        """Have a workflow start nothing more until it is resumed; what runs ends.

        Raises:
            NotFoundError: It is not a workflow, or nobody conducts it, for it has ended.
            InvalidArgumentError: It can't be paused as it stands.
        """
        self._order("pause")

    def resume(self) -> None:
        """Have a workflow go on; see `pause`."""
        self._order("resume")

    def signal(self, name: str, value: Any = None) -> None:
        """Tell a task of a workflow that waits for an event of that name, or will wait."""
        self._order("signal", name=name, value=value)

    def retry(self) -> RunInfo:
        """Have the run tried again, which has ended without a result; a workflow from where it was.

        Of a workflow the tasks are run again that have failed and were not handled.

        Raises:
            InvalidArgumentError: It is open, or has a result.
            PronghornError: As for `status`.
        """
        return _info(*self._ask(RetryRun(self.id), None))

    def _order(self, order: RunOrder, **more: Any) -> None:
        """Give an order to whoever conducts the run, which after a crash may take a while."""
        params, extras = _order_params(self.id, order, more), Extras(affinity=self.id)
        for delay_s in _ORDER_AGAIN_S:
            reply, buffers = self._call(CONTROL, params, None, extras=extras)
            if not _is_worth_another(reply) or self.status().status != "open":
                break
            sleep(delay_s)
        result_of(_PLAIN, reply, buffers)

    def _ask(self, asks: OfRun, timeout_s: float | None) -> Answer:
        question = _Ask(asks, timeout_s)
        while True:
            answer = self._call(question.name, question.params, question.left_ms)
            if not question.is_lost(answer[0]):
                return answer


class AsyncRunHandle(Generic[R]):
    """What `AsyncClient.start` returns; see `RunHandle`."""

    def __init__(
        self, call: AsyncCall, run_id: str, target: Target = _PLAIN, *, is_map: bool = False
    ) -> None:
        self._call = call
        self._target = target  # of a map, as it is for one item
        self._whole = of_all_items(target) if is_map else target
        self.id = run_id

    def __repr__(self) -> str:
        return f"<AsyncRunHandle {self.id}>"

    async def status(self) -> RunInfo:
        """Tell what is known of the run."""
        return _info(*await self._ask(AskStatus(self.id), None))

    async def result(self, timeout_s: float | None = None) -> R:
        """Wait for the end of the run and return its result; see `RunHandle.result`."""
        result: R = _result(self._whole, *await self._ask(AskResult(self.id), timeout_s))
        return result

    async def events(self, from_seq: int = 0, *, follow: bool = True) -> AsyncIterator[RunEvent]:
        """Give what has happened to the run, until it has ended; see `RunHandle.events`."""
        while True:
            asks = AskEvents(self.id, from_seq, follow)
            told = _events(*await self._ask(asks, None))
            for event in told.events:
                yield event
            if told.events:
                from_seq = told.events[-1].seq + 1
            if told.ended or not (follow or told.events):
                return

    async def items(
        self, *, ordered: bool = True, return_exceptions: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Give the results of a map's items, each when it is kept; see `RunHandle.items`."""
        items = _Items(self.id, self._target, ordered=ordered)
        while not items.is_over:
            for results in items.take(*await self._ask(items.asks, None)):
                for value in each_of(results, return_exceptions=return_exceptions):
                    yield value
        if not items.is_whole:
            await self.result()

    async def cancel(self) -> RunInfo:
        """Cancel the run and tell how it has ended, when that is kept."""
        return _info(*await self._ask(CancelRun(self.id), None))

    async def pause(self) -> None:
        """Have a workflow start nothing more until it is resumed; see `RunHandle.pause`."""
        await self._order("pause")

    async def resume(self) -> None:
        """Have a workflow go on."""
        await self._order("resume")

    async def signal(self, name: str, value: Any = None) -> None:
        """Tell a task of a workflow that waits for an event of that name, or will wait."""
        await self._order("signal", name=name, value=value)

    async def retry(self) -> RunInfo:
        """Have the run tried again, which has ended without a result."""
        return _info(*await self._ask(RetryRun(self.id), None))

    async def _order(self, order: RunOrder, **more: Any) -> None:
        params, extras = _order_params(self.id, order, more), Extras(affinity=self.id)
        for delay_s in _ORDER_AGAIN_S:
            reply, buffers = await self._call(CONTROL, params, None, extras=extras)
            if not _is_worth_another(reply) or (await self.status()).status != "open":
                break
            await asyncio.sleep(delay_s)
        result_of(_PLAIN, reply, buffers)

    async def _ask(self, asks: OfRun, timeout_s: float | None) -> Answer:
        question = _Ask(asks, timeout_s)
        while True:
            answer = await self._call(question.name, question.params, question.left_ms)
            if not question.is_lost(answer[0]):
                return answer


def of_all_items(target: Target) -> Target:
    """Return a node with the type of the list of results that a map has."""
    return target._replace(result_type=list[target.result_type])  # type: ignore[name-defined]


def id_of(target: Target, reply: object, buffers: Sequence[bytes]) -> str:
    """Return the id of the run that was started.

    Raises:
        PronghornError: It was not.
    """
    return _info(reply, buffers, target).id


def _result(target: Target, reply: object, buffers: Sequence[bytes]) -> Any:
    try:
        return result_of(target, reply, buffers)
    except NodeError as error:
        raise failure_of(error, error.details.node or target.name) from None


def _info(reply: object, buffers: Sequence[bytes], target: Target = _PLAIN) -> RunInfo:
    return msgspec.convert(result_of(target._replace(result_type=Any), reply, buffers), RunInfo)


def _events(reply: object, buffers: Sequence[bytes]) -> RunEvents:
    return msgspec.convert(result_of(_PLAIN, reply, buffers), RunEvents)


def _order_params(run_id: str, order: RunOrder, more: Mapping[str, Any]) -> Params:
    return encode_params({"run": run_id, "order": order, **more})


def _is_worth_another(reply: object) -> bool:
    """Whether nobody conducts the run just now."""
    return type(reply) is Error and reply.code in (NotFoundError.code, BrokerLostError.code)
