"""Has tasks and items run by the workers, over the broker. An IO shell, for one event loop.

Tasks are calls. What is only a function goes as a chunk of one item instead, for then the worker
tells how long it took; items go as chunks, as those of a ``map``. What the broker has no room for
is sent again, as long as somebody waits for it.

Mirror: tests/worker/flow/test_pooling.py.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msgspec import Raw

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import (
    BrokerLostError,
    InvalidArgumentError,
    OverloadedError,
    PronghornError,
    ProtocolError,
    WorkerLostError,
    error_from_wire,
)
from pronghorn.broker.wire.messages import Error, MapResult
from pronghorn.broker.wire.values import Buffer, decode_value, encode_inline, encode_params
from pronghorn.broker.wire.version import CONDUCTOR_NAME
from pronghorn.client.aioremote import AsyncRemoteTransport
from pronghorn.client.invocation import Target, error_of, refused, result_of
from pronghorn.client.stopwatch import Extras
from pronghorn.client.streaming import AsyncArrivals

from ..dispatch import Entry
from .calls import Called, failed_by
from .events import ItemEnded, ItemToRun
from .lending import Lending
from .placing import INPUT_BYTES_MAX, Record
from .sharing import Sharing

CHUNK_BYTES_MAX: Final = 1 << 20
"""Of the items of a chunk; one with more goes alone."""

CONNECT_S: Final = 5.0

_AGAIN_S: Final = 0.02  # before the first time that something is sent again; it doubles
_AGAIN_MAX_S: Final = 1.0


class WorkerPool:
    """The workers as the runs of one loop see them.

    Args:
        endpoint: Of the broker.
    """

    def __init__(self, endpoint: str) -> None:
        self._transport = AsyncRemoteTransport(endpoint, CONNECT_S, client=CONDUCTOR_NAME)

    async def task(
        self,
        entry: Entry,
        given: dict[str, Any] | None,
        record: Record,
        sharing: Sharing,
        extras: Extras | None = None,
    ) -> Called:
        """Run a node once; cancelling it cancels the call.

        Args:
            entry: The node.
            given: Its parameters by name.
            record: What is known of it.
            sharing: Has the large values of the run.
            extras: Of the run's caller.
        """
        if entry.is_plain:
            with Lending(sharing, [given or {}]) as lending:
                body = _encode_items(lending)
                if isinstance(body, Called):
                    return body
                if len(body) <= INPUT_BYTES_MAX:
                    (called,) = await self._chunk(entry, body, 1, record, extras)
                    if not lending.withdraw(called.result):
                        return called
        return await self.call(entry, given, record, sharing, extras)

    async def call(
        self,
        entry: Entry,
        given: dict[str, Any] | None,
        record: Record,
        sharing: Sharing,
        extras: Extras | None = None,
    ) -> Called:
        """Run a node once, by a call; see `task`."""
        with Lending(sharing, [given or {}]) as lending:
            try:
                params = encode_lent(lending)
            except (TypeError, *DECODE_ERRORS) as error:
                return _unencodable(error)
            delays = again_delays()
            while True:
                try:
                    answer = await self._transport.call(entry.name, params, None, extras=extras)
                    return Called("succeeded", result_of(Target(entry.name, Any, None), *answer))
                except PronghornError as error:
                    if lending.withdraw(failed_by(error).result):
                        params = encode_lent(lending)
                        continue
                    if not is_worth_sending_again(error):
                        return _failed(error, record)
                await asyncio.sleep(next(delays))

    async def items(
        self,
        entry: Entry,
        items: Sequence[ItemToRun],
        record: Record,
        sharing: Sharing,
        extras: Extras | None = None,
    ) -> list[ItemEnded]:
        """Run a node for items, all in one message unless that gets too large; see `task`."""
        with Lending(sharing, [item.input or {} for item in items]) as lending:
            body = _encode_items(lending)
            if isinstance(body, Called) and len(items) == 1:
                return [ItemEnded(items[0].index, *body)]
            if isinstance(body, Called) or (len(body) > CHUNK_BYTES_MAX and len(items) > 1):
                half = len(items) // 2
                first = await self.items(entry, items[:half], record, sharing, extras)
                return first + await self.items(entry, items[half:], record, sharing, extras)
            ended = await self._chunk(entry, body, len(items), record, extras)
            done, left = [], list(items[len(ended) :])  # of which results were too large together
            for item, one in zip(items, ended, strict=False):
                if lending.was_lost_on(one.result):
                    left.append(item)
                else:
                    done.append(ItemEnded(item.index, *one))
        if left:
            done += await self.items(entry, left, record, sharing, extras)
        return done

    async def stream(
        self, entry: Entry, lending: Lending, extras: Extras | None = None
    ) -> AsyncArrivals:
        """Run a generator with one input; gives its parts as they come, and then its end.

        Raises:
            PronghornError: There is no broker, or the input can't be encoded.
        """
        try:
            params = encode_lent(lending)
        except (TypeError, *DECODE_ERRORS) as error:
            raise InvalidArgumentError(f"the input can't be encoded: {error}") from error
        return await self._transport.stream(
            entry.name, params, None, parts=True, on_event=None, extras=extras
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.close()

    async def _chunk(
        self, entry: Entry, body: bytes, count: int, record: Record, extras: Extras | None
    ) -> list[Called]:
        """Run a chunk; gives at least one outcome, and fewer than asked for if they were large."""
        delays = again_delays()
        while True:
            reply = await self._reply_to_chunk(entry, body, extras)
            if isinstance(reply, MapResult):
                return _outcomes(entry, reply, count, record)
            assert isinstance(reply, Error), "a chunk is answered by a map result or an error"
            error = error_of(reply)
            if not is_worth_sending_again(error):
                return [_failed(error, record)] * count
            await asyncio.sleep(next(delays))

    async def _reply_to_chunk(self, entry: Entry, body: bytes, extras: Extras | None) -> object:
        try:
            return await self._transport.chunk(entry.name, body, None, extras)
        except PronghornError as error:
            return refused(error)


def _outcomes(entry: Entry, reply: MapResult, count: int, record: Record) -> list[Called]:
    try:
        values = decode_value(reply.values, (), list[Raw] if reply.failures else list[Any])
    except ProtocolError as error:
        return [failed_by(error)] * count
    if not 1 <= len(values) <= count:
        why = f"{entry.name}: {len(values)} results for {count} items"
        return [failed_by(ProtocolError(why))] * count
    record.ran(reply.run_ms * 1e6, len(values))
    if not reply.failures:
        return [Called("succeeded", value) for value in values]
    failures = {one.index: one for one in reply.failures}
    outcomes = []
    for index, value in enumerate(values):
        failure = failures.get(index)
        if failure is None:
            outcomes.append(Called("succeeded", decode_value(value)))
        else:
            known = error_from_wire(failure.code, failure.message, failure.details)
            outcomes.append(_failed(known, record))
    return outcomes


def _failed(error: PronghornError, record: Record) -> Called:
    if isinstance(error, WorkerLostError):
        record.distrust()
    return failed_by(error)


def again_delays() -> Iterator[float]:
    """Give the seconds before each further time that something is sent."""
    delay_s = _AGAIN_S
    while True:
        yield delay_s
        delay_s = min(delay_s * 2, _AGAIN_MAX_S)


def is_worth_sending_again(error: PronghornError) -> bool:
    """Whether a request was not begun because there was no room, or no broker just then."""
    no_room = isinstance(error, OverloadedError | BrokerLostError)
    return no_room and error.details.outcome == "not_started" and bool(error.details.retryable)


def encode_lent(lending: Lending) -> tuple[bytes, Sequence[Buffer]]:
    """Encode one input for a call; errors as in `encode_params`."""
    params = encode_params(lending.inputs[0])
    if lending.look(len(params[0]) + sum(memoryview(each).nbytes for each in params[1])):
        return encode_params(lending.inputs[0])
    return params


def _encode_items(lending: Lending) -> bytes | Called:
    try:
        body = encode_inline(lending.inputs)
        return encode_inline(lending.inputs) if lending.look(len(body)) else body
    except (TypeError, *DECODE_ERRORS) as error:
        return _unencodable(error)


def _unencodable(error: Exception) -> Called:
    return failed_by(InvalidArgumentError(f"the input can't be encoded: {error}"))
