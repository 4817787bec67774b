"""Results of a map's items: from chunks or recorded ranges to values, put in order. Pure.

Mirror: tests/client/test_results.py.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from pronghorn.broker.wire.errors import (
    ErrorDetails,
    PronghornError,
    ProtocolError,
    error_from_wire,
)
from pronghorn.broker.wire.messages import ItemFailure
from pronghorn.broker.wire.values import decode_value


class Results(NamedTuple):
    """Results of consecutive items; where `failed`, some of them are exceptions."""

    values: list[Any]
    failed: bool


class ResultDecoder:
    """Decodes results of items of one node."""

    def __init__(self, node: str, result_type: Any) -> None:
        self._node = node
        self._result_type = result_type
        self._results_type: Any = list[result_type]

    def decode(self, values: Raw, failures: Sequence[ItemFailure] | None, most: int) -> Results:
        """Decode the results of consecutive items, errors in the place of those that have failed.

        What is not of the node's type is the `ProtocolError` of the item.

        Args:
            values: Array of the results.
            failures: Of items.
            most: Of so many items at most, and at least one.

        Raises:
            ProtocolError: They can't be those of so many items.
        """
        found, failed = self._decoded(values, failures)
        failures = failures or ()
        count = len(found)
        if not 1 <= count <= most or any(not 0 <= one.index < count for one in failures):
            raise ProtocolError(
                f"{self._node}: {most} items have {count} results and failures "
                f"of {[one.index for one in failures]}",
                ErrorDetails(outcome="maybe_executed", node=self._node),
            )
        for one in failures:
            found[one.index] = error_from_wire(one.code, one.message, one.details)
        return Results(found, failed or bool(failures))

    def _decoded(self, values: Raw, failures: Sequence[ItemFailure] | None) -> Results:
        """Decode the values, also those that stand for failed items.

        Raises:
            ProtocolError: They are no array.
        """
        if not failures or self._result_type is Any:  # else nils may not be of the type
            try:
                return Results(decode_value(values, (), self._results_type), failed=False)
            except ProtocolError:  # find out which
                pass
        found = [self._value(one) for one in decode_value(values, (), list[msgspec.Raw])]
        return Results(found, failed=any(isinstance(one, ProtocolError) for one in found))

    def _value(self, raw: Raw) -> Any:
        try:
            return decode_value(raw, (), self._result_type)
        except ProtocolError as error:
            return error


class ResultOrder:
    """What has come and is not given out: in the order of the items, or as it came."""

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        # first item's number -> results that can't be given out yet; only if ordered
        self._early: dict[int, Results] = {}
        self._next = 0  # number of the item that is given out next; only if ordered
        self._ready: deque[Results] = deque()

    @property
    def is_empty(self) -> bool:
        """Whether all that has come was given out."""
        return not (self._ready or self._early)

    def add(self, first: int, results: Results) -> None:
        """Take in the results of items from one on."""
        if not self._ordered:
            self._ready.append(results)
            return
        self._early[first] = results
        while self._next in self._early:
            ready = self._early.pop(self._next)
            self._next += len(ready.values)
            self._ready.append(ready)

    def given_out(self) -> Iterator[Results]:
        """Give out what can be given out now."""
        while self._ready:
            yield self._ready.popleft()


def each_of(results: Results, *, return_exceptions: bool) -> Iterator[Any]:
    """Give results one by one.

    Raises:
        PronghornError: That of the first failed item, unless exceptions are wanted.
    """
    values, failed = results
    if not failed or return_exceptions:
        yield from values
        return
    for value in values:
        if isinstance(value, PronghornError):
            raise value
        yield value
