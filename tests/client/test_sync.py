"""Every line of the API, on processes and in one process alike."""

import asyncio
import functools
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import client_nodes
import pytest
from client_nodes import Colour, Order, Point
from shown import shown
from trees import PATIENCE_S, Fifo, children, command_line

from pronghorn.broker.wire.limits import KIB, MIB, Limits
from pronghorn.broker.wire.places import default_endpoint
from pronghorn.client import (
    BrokerLostError,
    Client,
    DeadlineExceededError,
    InvalidArgumentError,
    LocalPool,
    NodeError,
    NotFoundError,
    Pool,
    PronghornError,
    ProtocolError,
    Statistics,
)

AnyPool = Pool | LocalPool
ADDS = [client_nodes.add, client_nodes.add_async, client_nodes.add_threaded]
NAMES = ["add", "add_async", "add_threaded"]


# --- call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_call_by_name(client: Client, name: str) -> None:
    assert client.call(name, a=1, b=2) == 3
    assert client.call(name, 1, 2) == 3
    assert client.call(name, params={"a": 1, "b": 2}) == 3
    assert client.call(f"client_nodes.{name}", 1, 2, timeout_s=5.0) == 3


@pytest.mark.parametrize("function", ADDS, ids=NAMES)
def test_call_by_function(client: Client, function: Any) -> None:
    assert client.call(function, 1, 2) == 3
    assert client.call(function, 1, b=2) == 3
    assert client.call(function, a=1, b=2, timeout_s=5.0) == 3
    assert client.call(function, params={"a": 1, "b": 2}) == 3


def test_parameters_of_all_kinds(client: Client) -> None:
    assert client.call(client_nodes.keyword_only, 2) == 20
    assert client.call(client_nodes.keyword_only, 2, b=3) == 6
    assert client.call("keyword_only", a=2, b=3) == 6
    assert client.call(client_nodes.nothing) is None
    assert client.call("nothing", params={}) is None


def test_parameters_named_like_options(client: Client) -> None:
    assert client.call(client_nodes.named_like_options, timeout_s=1.5, params=2) == 3.0
    assert client.call(client_nodes.named_like_options, 1.5, 2) == 3.0
    assert client.call("named_like_options", params={"timeout_s": 1.5, "params": 2}) == 3.0
    submitted = client.submit(client_nodes.named_like_options, timeout_s=1.5, params=2)
    assert submitted.result(PATIENCE_S) == 3.0


def test_an_injected_context_is_not_given(client: Client) -> None:
    assert client.call("in_context", 3) == 6
    assert client.call("in_context", a=3, b=4) == 12
    in_context: Any = client_nodes.in_context  # for a type checker it wants a context
    assert client.call(in_context, 3, b=4) == 12
    assert list(client.map(in_context, [(3,), {"a": 4, "b": 5}])) == [6, 20]


def test_values_keep_their_types(client: Client) -> None:
    moment = datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=2)))
    assert client.call(client_nodes.paint, Colour.RED) is Colour.GREEN
    assert client.call(client_nodes.move, Point(1, 2), by=3) == Point(4, 5)
    assert client.call(client_nodes.evens, {1, 2, 3, 4}) == {2, 4}
    assert client.call(client_nodes.pairs, "x", 2) == (("x", 0), ("x", 1))
    assert client.call(client_nodes.later, moment, timedelta(days=1)) == moment + timedelta(days=1)
    assert client.call(client_nodes.same_day, moment, date(2024, 2, 29)) is True
    identity = UUID("12345678-1234-5678-1234-567812345678")
    assert client.call(client_nodes.same, identity) == identity
    order = Order("hay", Decimal("1.10"), moment)
    repriced = client.call(client_nodes.reprice, order, Decimal("1.5"))
    assert repriced == Order("hay", Decimal("1.650"), moment)
    assert list(client.map(client_nodes.move, [(Point(1),), {"point": Point(2)}])) == [
        Point(2, 1),
        Point(3, 1),
    ]


PLAIN = [
    None,
    True,
    -(2**63),
    2**64 - 1,
    1.5,
    "text ✓",
    b"bytes",
    [1, [2, {"three": None}]],
    {"a": {"b": [1.5, b"x"]}, 7: "seven"},
]
CONVERTED: list[tuple[Any, Any]] = [
    ((1, 2), [1, 2]),
    ({3}, [3]),
    (bytearray(b"x"), b"x"),
    (memoryview(b"x"), b"x"),
    (Point(1, 2), {"x": 1, "y": 2}),
    (Colour.RED, "red"),
    (Decimal("1.5"), "1.5"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (date(2024, 2, 29), "2024-02-29"),
    (timedelta(days=1), "P1D"),
]


@pytest.mark.parametrize("value", PLAIN, ids=shown)
def test_plain_values_come_back_as_they_are(client: Client, value: Any) -> None:
    for result in client.call("echo", value), next(client.map("echo", [(value,)])):
        assert result == value
        assert type(result) is type(value)


@pytest.mark.parametrize(("value", "seen"), CONVERTED, ids=shown)
def test_other_values_come_back_as_plain_ones(client: Client, value: Any, seen: Any) -> None:
    for result in client.call("echo", value), next(client.map("echo", [(value,)])):
        assert result == seen
        assert type(result) is type(seen)


# --- errors -------------------------------------------------------------------------------------


def fails(client: Client, *call: Any, **named: Any) -> PronghornError:
    """Make a call in each way; return its one error."""
    with pytest.raises(PronghornError) as caught:
        client.call(*call, **named)
    submitted = client.submit(*call, **named).exception(PATIENCE_S)
    assert isinstance(submitted, PronghornError)
    assert (type(submitted), submitted.message) == (type(caught.value), caught.value.message)
    assert submitted.outcome == caught.value.outcome
    return caught.value


def test_an_unknown_node(client: Client) -> None:
    error = fails(client, "ad", 1, 2)
    assert isinstance(error, NotFoundError)
    assert error.message == "no node named 'ad'; did you mean 'add'?"
    assert error.outcome == "not_started"
    with pytest.raises(NotFoundError, match="no node named 'ad'"):
        list(client.map("ad", [(1, 2)]))


@pytest.mark.parametrize("name", ["\udcff", "add\ud800"])
def test_a_name_that_is_no_text_is_refused_at_once(client: Client, name: str) -> None:
    attempts: list[Callable[[], Any]] = [
        lambda: client.call(name),
        lambda: client.submit(name),
        lambda: list(client.map(name, [(1, 2)])),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidArgumentError, match="is no node's name") as caught:
            attempt()
        assert caught.value.outcome == "not_started"
        assert caught.value.message.encode(), "it can be printed"
    assert client.submit("add", 1, 2).result(PATIENCE_S) == 3


@pytest.mark.parametrize(
    ("arguments", "named", "message", "field"),
    [
        ((), {"a": 1}, "missing required parameter `b`", "$.b"),
        ((), {"a": 1, "b": 2, "c": 3}, "unknown parameter `c`", "$.c"),
        ((), {"a": 1, "b": "two"}, "Expected `int`, got `str` - at `$.b`", "$.b"),
        ((), {"a": 1, "b": 1.5}, "Expected `int`, got `float` - at `$.b`", "$.b"),
        ((1, "two"), {}, "Expected `int`, got `str`", "$[1]"),
        ((1,), {}, "takes 2 by position", "$"),
    ],
    ids=["missing", "unknown", "wrong type", "float", "wrong type by position", "too few"],
)
def test_wrong_arguments(
    client: Client, arguments: Any, named: Any, message: str, field: str
) -> None:
    error = fails(client, "add", *arguments, **named)
    assert isinstance(error, InvalidArgumentError)
    assert error.message.startswith("client_nodes.add: ")
    assert message in error.message
    assert error.details.node == "client_nodes.add"
    assert error.details.field == field
    assert error.outcome == "not_started"


@pytest.mark.parametrize("name", ["divide", "divide_async"])
def test_a_node_that_raises(client: Client, name: str) -> None:
    error = fails(client, name, 1, 0)
    assert isinstance(error, NodeError)
    assert (error.exception, error.message) == ("ZeroDivisionError", "division by zero")
    assert error.outcome == "executed"
    assert error.details.node == f"client_nodes.{name}"
    assert error.traceback.startswith("Traceback (most recent call last):\n  File ")
    assert "return a / b" in error.traceback
    assert "pronghorn" not in error.traceback.replace("test", "")
    assert str(error).startswith("ZeroDivisionError: division by zero\n\nRemote traceback:\n")


def test_a_result_that_can_not_be_encoded(client: Client) -> None:
    error = fails(client, "unencodable")
    assert isinstance(error, NodeError)
    assert "returned a `object` that can't be encoded" in error.message


def test_a_result_of_another_type_than_promised(client: Client) -> None:
    assert client.call("untrue") == "seven"  # by name nothing was promised
    error = fails(client, client_nodes.untrue)
    assert isinstance(error, ProtocolError)
    assert "Expected `int`, got `str`" in error.message


def test_what_is_wrong_before_anything_is_sent(client: Client) -> None:
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((lambda: None,), {}, "is not a node"),
        ((len,), {}, "is not a node"),
        (("add", 1), {"b": 2}, "by position or all by name"),
        (("add", 1), {"params": {}}, "not both"),
        (("add", object(), 2), {}, "can't encode the arguments"),
        (("add", 2**64, 2), {}, "can't encode the arguments"),
        (("add", 1, 2), {"timeout_s": 0}, "must be above 0"),
        (("add", 1, 2), {"timeout_s": -1}, "must be above 0"),
        (("add", 1, 2), {"timeout_s": 1e9}, "at most 2592000"),
    ]
    for arguments, named, message in wrong:
        for attempt in client.call, client.submit:
            with pytest.raises(InvalidArgumentError, match=message) as caught:
                attempt(*arguments, **named)
            assert caught.value.outcome == "not_started"


# --- deadlines ----------------------------------------------------------------------------------


def test_an_async_node_ends_at_its_deadline(client: Client) -> None:
    begun = monotonic()
    error = fails(client, "doze", 60.0, timeout_s=0.05)
    assert isinstance(error, DeadlineExceededError)
    assert error.message == "client_nodes.doze: the deadline has passed"
    assert error.outcome == "maybe_executed"
    assert 0.1 <= monotonic() - begun < 1.0
    with pytest.raises(DeadlineExceededError):
        list(client.map("doze", [(60.0,)], timeout_s=0.05))


@pytest.mark.parametrize("name", ["nap", "doze"])
def test_a_node_within_its_deadline(client: Client, name: str) -> None:
    assert client.call(name, 0.001, timeout_s=10.0) == 0.001
    assert client.submit(name, 0.001, timeout_s=10.0).result(PATIENCE_S) == 0.001
    assert list(client.map(name, [(0.001,)], timeout_s=10.0)) == [0.001]


def test_a_def_node_over_its_deadline(client: Client) -> None:
    with pytest.raises(DeadlineExceededError) as caught:
        client.call("nap", 0.1, timeout_s=0.02)
    assert caught.value.outcome in ("maybe_executed", "executed")
    with pytest.raises(DeadlineExceededError):
        list(client.map("nap", [(0.1,)], timeout_s=0.02))


def test_nodes_know_their_deadline(client: Client) -> None:
    assert client.call("time_left") is None
    assert 0 < client.call("time_left", timeout_s=10.0) <= 10.0


def test_statistics_are_typed(client: Client) -> None:
    client.call("add", 1, 2)
    before = {node.name: node for node in client.stats().nodes}["client_nodes.add"]
    client.call("add", 1, 2)
    list(client.map("add", [(1, 2)] * 5))
    with pytest.raises(InvalidArgumentError):
        client.call("add", 1, "2")
    statistics = client.stats()
    assert isinstance(statistics, Statistics)
    after = {node.name: node for node in statistics.nodes}["client_nodes.add"]
    assert after.calls - before.calls == 6
    assert after.run.count == after.calls
    code = "INVALID_ARGUMENT"
    assert after.errors[code] - before.errors.get(code, 0) == 1
    assert statistics.at > statistics.started_at


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("node", ["traceparents", "traceparents_sync"])
def test_a_trace_is_carried_on_with_a_new_span_for_each_run(client: Client, node: str) -> None:
    assert client.call(node) == [None] * 3
    told = client.within(traceparent=TRACEPARENT).call(node)
    assert {text[:35] for text in told} == {TRACEPARENT[:35]}
    assert {text[-3:] for text in told} == {"-01"}
    spans = {text[36:52] for text in (*told, TRACEPARENT)}
    assert len(spans) == 4
    assert client.call("traceparent") is None


def test_a_malformed_trace_is_ignored(client: Client) -> None:
    assert client.within(traceparent="nonsense").call("traceparent") is None
    assert client.within(traceparent="x" * 100_000).call("traceparent") is None


@pytest.mark.parametrize("name", NAMES)
def test_where_the_time_goes(client: Client, name: str) -> None:
    traced = client.trace(name, 1, 2)
    assert traced.result == 3
    assert traced.waterfall is not None
    stages = traced.waterfall.stages()
    assert [stage.name for stage in stages][-2:] == ["run", "return"]
    assert len(stages) == 6
    assert all(stage.ns >= 0 for stage in stages)
    assert sum(stage.ns for stage in stages) == traced.waterfall.total_ns > 0


def test_where_the_time_of_an_error_went(client: Client) -> None:
    with pytest.raises(NodeError) as caught:
        client.trace(client_nodes.divide, 1, 0)
    assert caught.value.waterfall is not None
    assert caught.value.waterfall.ended is not None
    with pytest.raises(NodeError) as caught:
        client.call(client_nodes.divide, 1, 0)
    assert caught.value.waterfall is None


def test_of_a_slow_node_the_run_takes_most(client: Client) -> None:
    waterfall = client.trace(client_nodes.nap, 0.05).waterfall
    assert waterfall is not None
    run_ns = {stage.name: stage.ns for stage in waterfall.stages()}["run"]
    assert run_ns >= 49_000_000


def test_within(client: Client) -> None:
    hurried = client.within(0.05)
    assert type(hurried) is type(client)
    assert hurried.endpoint == client.endpoint
    assert hurried.call(client_nodes.add, 1, 2) == 3
    begun = monotonic()
    for attempt in (
        lambda: hurried.call(client_nodes.doze, 60.0),
        lambda: hurried.submit(client_nodes.doze, 60.0).result(PATIENCE_S),
        lambda: list(hurried.map(client_nodes.doze, [(60.0,)])),
        lambda: hurried.executor().submit(client_nodes.doze, 60.0).result(PATIENCE_S),
        lambda: client.within(60.0).call("doze", 60.0, timeout_s=0.05),
    ):
        with pytest.raises(DeadlineExceededError):
            attempt()
    assert monotonic() - begun < 2.0
    assert hurried.within(None).call("time_left") is None
    assert client.call("time_left") is None
    assert 1.0 < hurried.call("time_left", timeout_s=5.0) <= 5.0
    with pytest.raises(InvalidArgumentError, match="must be above 0"):
        client.within(0).call("add", 1, 2)


# --- submit -------------------------------------------------------------------------------------


def test_submit_gives_real_futures(client: Client) -> None:
    submitted = {client.submit(name, a=index, b=1): index for index in range(20) for name in NAMES}
    assert futures.wait(submitted, PATIENCE_S).not_done == set()
    for future in futures.as_completed(submitted, PATIENCE_S):
        assert future.result() == submitted[future] + 1
    assert client.submit(client_nodes.move, Point(1)).result(PATIENCE_S) == Point(2, 1)


def test_futures_wait_first_exception(client: Client, fifo: Fifo) -> None:
    held = client.submit("hold", fifo.path)
    failing = client.submit("divide", 1, 0)
    done, pending = futures.wait([held, failing], PATIENCE_S, futures.FIRST_EXCEPTION)
    assert (done, pending) == ({failing}, {held})
    Path(fifo.path).write_text("go on\n")
    assert held.result(PATIENCE_S) == "go on"


def test_futures_in_asyncio(client: Client) -> None:
    async def wait() -> int:
        return await asyncio.wrap_future(client.submit(client_nodes.add, 1, 2))

    assert asyncio.run(wait()) == 3


def test_callbacks(client: Client) -> None:
    called = threading.Event()
    results: list[Any] = []

    def callback(future: Any) -> None:
        results.append(future.result())
        called.set()

    client.submit("add", 1, 2).add_done_callback(callback)
    assert called.wait(PATIENCE_S)
    assert results == [3]


def test_cancelling_what_waits_keeps_it_from_running(
    any_pool: AnyPool, client: Client, fifo: Fifo, tmp_path: Path
) -> None:
    gates = [Fifo(tmp_path / f"gate{number}") for number in range(any_pool.workers)]
    blocked = [client.submit("hold", gate.path) for gate in gates]
    waiting = [client.submit("note", fifo.path, "should not run") for _ in range(5)]
    last = client.submit("note", fifo.path, "last")
    assert all(future.cancel() for future in waiting)
    for gate in gates:
        Path(gate.path).write_text("go on\n")
    assert [future.result(PATIENCE_S) for future in blocked] == ["go on"] * len(gates)
    assert last.result(PATIENCE_S) == "last"
    assert fifo.line() == "last"
    assert futures.wait(waiting, PATIENCE_S).done == set(waiting)
    for future in waiting:
        with pytest.raises(futures.CancelledError):
            future.result()
    for gate in gates:
        gate.close()


def test_cancelling_an_async_node_that_runs(client: Client, fifo: Fifo) -> None:
    future = client.submit("linger", fifo.path)
    assert fifo.line() == "begun"
    assert future.cancel()
    assert fifo.line() == "cancelled"
    with pytest.raises(futures.CancelledError):
        future.result(PATIENCE_S)


# --- map ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_map_in_order(client: Client, name: str, count: int) -> None:
    items = [{"a": index, "b": 1} for index in range(count)]
    assert list(client.map(name, items)) == list(range(1, count + 1))
    assert sorted(client.map(name, items, ordered=False)) == list(range(1, count + 1))


@pytest.mark.slow
def test_map_of_the_size_that_is_promised(client: Client) -> None:
    items = [{"a": index, "b": 1} for index in range(10_000)]
    assert list(client.map("add", items)) == list(range(1, 10_001))
    assert sum(client.map(client_nodes.add, items, ordered=False)) == sum(range(1, 10_001))


def test_map_of_items_in_every_form(client: Client) -> None:
    items = [(1, 2), [3, 4], {"a": 5, "b": 6}, Pair(7, 8)]
    assert list(client.map("add", items)) == [3, 7, 11, 15]
    assert list(client.map("nothing", [(), {}, [], None])) == [None] * 4
    assert list(client.map("add", iter(items))) == [3, 7, 11, 15]


@dataclass
class Pair:
    a: int
    b: int


@pytest.mark.parametrize("chunk_size", [1, 7, 100_000])
def test_map_with_chunks_of_a_size(client: Client, chunk_size: int) -> None:
    items = [(index, 1) for index in range(50)]
    assert list(client.map("add", items, chunk_size=chunk_size)) == list(range(1, 51))


def test_map_refuses_wrong_options_at_once(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="chunk_size is 0; it must be at least 1"):
        client.map("add", [], chunk_size=0)
    with pytest.raises(InvalidArgumentError, match="must be above 0"):
        client.map("add", [], timeout_s=0)
    with pytest.raises(InvalidArgumentError, match="is not a node"):
        client.map(lambda a: a, [])
    with pytest.raises(TypeError):
        client.map("add", None)  # type: ignore[arg-type]


def test_map_sends_nothing_before_it_is_asked(client: Client) -> None:
    taken: list[int] = []

    def items() -> Iterator[tuple[int, int]]:
        for index in range(10):
            taken.append(index)
            yield index, 1

    results = client.map("add", items())
    assert taken == []
    assert next(results) == 1
    assert taken


def test_map_over_what_never_ends(client: Client) -> None:
    results = client.map("add", ((index, 1) for index in itertools.count()))
    assert list(itertools.islice(results, 2000)) == list(range(1, 2001))
    del results
    assert client.call("add", 1, 2) == 3


@pytest.mark.parametrize("name", ["divide", "divide_async"])
@pytest.mark.parametrize("chunk_size", [None, 1, 4])
def test_map_gives_what_comes_before_the_first_error(
    client: Client, name: str, chunk_size: int | None
) -> None:
    items = [(10, 5 - index) for index in range(10)]  # the sixth fails
    results = client.map(name, items, chunk_size=chunk_size)
    given: list[float] = []
    with pytest.raises(NodeError, match="division by zero"):
        given.extend(results)
    assert given == [2.0, 2.5, 10 / 3, 5.0, 10.0]
    assert list(results) == []


@pytest.mark.parametrize("name", ["divide", "divide_async"])
def test_map_with_errors_as_results(client: Client, name: str) -> None:
    items: list[Any] = [(1, 1), (1, 0), (1,), {"a": 1, "b": "x"}, (4, 2), {"c": 1}]
    kinds = [float, NodeError, InvalidArgumentError, InvalidArgumentError, float]
    results = list(client.map(name, items, return_exceptions=True))
    assert [type(result) for result in results] == [*kinds, InvalidArgumentError]
    assert [results[0], results[4]] == [1.0, 2.0]
    unordered = list(client.map(name, items, return_exceptions=True, ordered=False))
    assert sorted(map(repr, unordered)) == sorted(map(repr, results))


def test_map_inside_map(client: Client) -> None:
    inner = (
        {"a": total, "b": 1} for total in client.map("add", [(index, 1) for index in range(100)])
    )
    assert list(client.map("add", inner)) == list(range(2, 102))
    for first in client.map("add", [(1, 1), (2, 2)]):
        assert list(client.map("add", [(first, 1)])) == [first + 1]


def test_map_in_another_thread(client: Client) -> None:
    with ThreadPoolExecutor(1) as thread:
        results = client.map("add", [(index, 1) for index in range(100)], chunk_size=10)
        assert next(results) == 1
        assert thread.submit(list, results).result() == list(range(2, 101))


def test_map_of_large_items_and_results(client: Client) -> None:
    contents = [bytes([index]) * (300 * KIB) for index in range(20)]
    assert list(client.map("size", [(content,) for content in contents])) == [300 * KIB] * 20
    assert list(client.map("echo", [(content,) for content in contents])) == contents
    chunked = client.map("zeros", [(300 * KIB,)] * 20, chunk_size=10)
    assert [len(content) for content in chunked] == [300 * KIB] * 20


def test_map_of_an_item_over_the_limit(client: Client) -> None:
    items = [(b"x",), (bytes(17 * MIB),), (b"yy",)]
    one, too_large, two = client.map("size", items, chunk_size=1, return_exceptions=True)
    assert (one, two) == (1, 2)
    assert isinstance(too_large, InvalidArgumentError)
    assert too_large.details.limit == 16 * MIB
    given: list[int] = []
    with pytest.raises(InvalidArgumentError, match="limit is 16777216"):
        given.extend(client.map("size", items, chunk_size=1))
    assert given == [1]


# --- large values -------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 64 * KIB - 1, 64 * KIB, 600 * KIB, 4 * MIB])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_length(client: Client, length: int, kind: Any) -> None:
    content = kind(b"ab" * (length // 2) + b"c" * (length % 2))
    assert client.call("echo", content) == content
    assert client.call("echo", value=content) == content
    assert client.submit("echo", content).result(PATIENCE_S) == content
    assert client.call("count_up", content) == bytes(byte + 1 for byte in content[:16])


def test_several_buffers_in_one_call(client: Client) -> None:
    contents = [bytes([index]) * (70 * KIB) for index in range(10)]
    assert client.call("echo", contents) == contents  # deeper, so inline
    assert client.call("sizes", contents=contents) == [70 * KIB] * 10


def test_what_a_call_was_given_may_change_afterwards(client: Client) -> None:
    content = bytearray(b"a" * MIB)
    for byte in b"abcdefgh":
        content[:] = bytes([byte]) * MIB
        assert client.call("echo", content) == bytes([byte]) * MIB
        content += b"more"  # which a buffer in use would not let
        del content[MIB:]
    view = memoryview(bytearray(b"a" * MIB))
    result = client.call("echo", view)
    view[:] = b"b" * MIB
    assert result == b"a" * MIB


def test_over_the_limits(client: Client) -> None:
    for content in bytes(16 * MIB), [bytes(8 * MIB), bytes(8 * MIB)]:
        error = fails(client, "echo", content)
        assert isinstance(error, InvalidArgumentError)
        assert error.details.limit == 16 * MIB
    error = fails(client, "zeros", 16 * MIB)
    assert isinstance(error, NodeError)
    assert error.details.limit == 16 * MIB
    assert error.outcome == "executed"
    assert client.call("add", 1, 2) == 3


@pytest.mark.parametrize("pool_of", [Pool, LocalPool])
def test_limits_of_one_s_own(pool_of: type[AnyPool]) -> None:
    limits = Limits(request_bytes=8 * KIB, result_bytes=8 * KIB)
    with pool_of(client_nodes.FILE, workers=1, limits=limits) as pool, pool.client() as client:
        with pytest.raises(InvalidArgumentError, match="limit is 8192"):
            client.call("size", bytes(8 * KIB))
        with pytest.raises(NodeError, match="limit is 8192"):
            client.call("zeros", 8 * KIB)
        assert client.call("size", bytes(7 * KIB)) == 7 * KIB


# --- nodes, ping, executor ----------------------------------------------------------------------


def test_nodes(client: Client) -> None:
    nodes = {node.name: node for node in client.nodes()}
    add = nodes["client_nodes.add"]
    assert add.aliases == ("add",)
    assert add.kind == "inline"
    assert add.signature == "add(a: int, b: int) -> int"
    assert add.doc == "Sum of two integers."
    assert add.params["required"] == ["a", "b"]
    assert add.result == {"type": "integer"}
    assert nodes["client_nodes.add_async"].kind == "async"
    assert nodes["client_nodes.add_threaded"].kind == "thread"
    assert list(nodes["client_nodes.in_context"].params["properties"]) == ["a", "b"]
    assert client.call("pronghorn.nodes")[0]["name"] == "client_nodes.add"


def test_ping(client: Client) -> None:
    assert 0 <= client.ping() < PATIENCE_S
    assert 0 <= client.ping(1.0) < 1.0


def test_an_executor(client: Client) -> None:
    with client.executor() as executor:
        assert executor.submit(client_nodes.add, 1, 2).result(PATIENCE_S) == 3
        assert list(executor.map(client_nodes.add, [1, 2], [3, 4])) == [4, 6]


# --- surroundings -------------------------------------------------------------------------------


def test_a_sync_client_within_a_running_loop(client: Client) -> None:
    async def cell() -> Any:
        return (
            client.call("add", 1, 2),
            client.call("add_async", 1, 2),
            client.submit("add_async", 1, 2).result(PATIENCE_S),
            list(client.map("add_async", [(1, 2)])),
        )

    assert asyncio.run(cell()) == (3, 3, 3, [3])


def test_a_client_in_a_thread(client: Client) -> None:
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(client.call, "add", 1, 2).result() == 3
        assert thread.submit(lambda: list(client.map("add_async", [(1, 2)]))).result() == [3]


def test_an_interrupt_ends_a_call_and_what_comes_next_works(client: Client, fifo: Fifo) -> None:
    def interrupt() -> None:
        assert fifo.line() == "begun"
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]

    for attempt in (
        functools.partial(client.call, "linger", fifo.path),
        lambda: list(client.map("linger", [(fifo.path,)])),
    ):
        with ThreadPoolExecutor(1) as thread:
            interrupted = thread.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                attempt()
            interrupted.result()
        assert fifo.line() == "cancelled"
        assert client.call("add", 1, 2) == 3


def test_clients_are_closed_by_their_block(any_pool: AnyPool) -> None:
    with any_pool.client() as client:
        assert client.call("add", 1, 2) == 3
    for attempt in (
        lambda: client.call("add", 1, 2),
        lambda: client.call("add_async", 1, 2),
        lambda: client.submit("add", 1, 2),
        lambda: client.submit("add_async", 1, 2),
        lambda: list(client.map("add", [(1, 2)])),
        lambda: client.ping(),
        lambda: client.within(1.0).call("add", 1, 2),
        lambda: client.__enter__(),
    ):
        with pytest.raises(BrokerLostError, match="the client was closed") as caught:
            attempt()
        assert caught.value.outcome == "not_started"


def test_closing_ends_an_open_call(any_pool: AnyPool, fifo: Fifo) -> None:
    client = any_pool.client()
    with ThreadPoolExecutor(1) as thread:
        called = thread.submit(client.call, "linger", fifo.path)
        submitted = client.submit("linger", fifo.path)
        assert [fifo.line(), fifo.line()] == ["begun", "begun"]
        client.close()
        for future in called, submitted:
            error = future.exception(PATIENCE_S)
            assert isinstance(error, BrokerLostError)
            assert error.outcome == "maybe_executed"
    assert [fifo.line(), fifo.line()] == ["cancelled", "cancelled"]


# --- endpoints ----------------------------------------------------------------------------------


def test_where_a_client_connects_to(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("PRONGHORN_ENDPOINT", raising=False)
    assert Client().endpoint == f"ipc://{tmp_path}/pronghorn/default/broker.sock"
    monkeypatch.setenv("PRONGHORN_ENDPOINT", pool.endpoint)
    with Client() as client:
        assert client.endpoint == pool.endpoint
        assert client.call("add", a=1, b=2) == 3
    monkeypatch.setenv("PRONGHORN_ENDPOINT", "ipc:///not/there.sock")
    assert default_endpoint() == "ipc:///not/there.sock"
    with Client(endpoint=pool.endpoint) as client:
        assert client.call("add", a=1, b=2) == 3


@pytest.mark.slow
def test_the_default_broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("PRONGHORN_ENDPOINT", raising=False)
    client = Client()  # before there is a broker
    with (
        Pool(client_nodes.FILE, workers=1, name="default", bind=["tcp://127.0.0.1:0"]) as pool,
        ThreadPoolExecutor(1) as thread,
    ):
        assert thread.submit(client.call, "add", 1, 2).result(PATIENCE_S) == 3
        (tcp,) = [endpoint for endpoint in pool.endpoints if endpoint.startswith("tcp:")]
        with Client(tcp) as over_tcp:
            assert over_tcp.call("echo", b"x" * MIB) == b"x" * MIB
    client.close()


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://here", "ipc://here", "local:", "http://x"])
def test_what_is_no_endpoint(endpoint: str) -> None:
    client = Client(endpoint)
    for attempt in (
        lambda: client.call("add", 1, 2),
        lambda: client.submit("add", 1, 2).result(PATIENCE_S),
        lambda: list(client.map("add", [(1, 2)])),
        lambda: client.ping(),
        lambda: client.__enter__(),
    ):
        with pytest.raises(InvalidArgumentError):
            attempt()
    client.close()


def test_a_call_s_deadline_holds_where_no_broker_is(tmp_path: Path) -> None:
    client = Client(f"ipc://{tmp_path}/none.sock", connect_timeout_s=PATIENCE_S)
    for attempt in (
        lambda: client.call("add", 1, 2, timeout_s=0.05),
        lambda: client.submit("add", 1, 2, timeout_s=0.05).result(PATIENCE_S),
    ):
        begun = monotonic()
        with pytest.raises(DeadlineExceededError) as caught:
            attempt()
        assert 0.04 < monotonic() - begun < 2.0
        assert caught.value.outcome == "not_started"
    client.close()


def test_no_broker_is_told_in_time(tmp_path: Path) -> None:
    client = Client(f"ipc://{tmp_path}/none.sock", connect_timeout_s=0.05)
    for attempt in (
        lambda: client.call("add", 1, 2),
        lambda: client.submit("add", 1, 2).result(PATIENCE_S),
        lambda: list(client.map("add", [(1, 2)])),
        lambda: client.ping(),
        lambda: client.__enter__(),
    ):
        begun = monotonic()
        with pytest.raises(BrokerLostError) as caught:
            attempt()
        assert 0.04 < monotonic() - begun < 0.25
        assert caught.value.message == (
            f"no broker answers at ipc://{tmp_path}/none.sock within 0.05 s: "
            "is `pronghorn serve` running?"
        )
        assert caught.value.outcome == "not_started"
        assert caught.value.retryable
    client.close()


# --- a broker that dies -------------------------------------------------------------------------


def kill_broker(pool: Pool) -> float:
    """Kill the broker and return when."""
    (broker,) = [
        pid for pid in children(pool._tree.supervisor_pid) if "server" in command_line(pid)
    ]
    killed = monotonic()
    os.kill(broker, signal.SIGKILL)
    return killed


SOON_S = 1.0  # there is nothing to wait for; and nothing of ours waits for so little

WAYS: dict[str, Callable[[Client, str, Any], Any]] = {
    "call": lambda client, node, argument: client.call(node, argument),
    "submit": lambda client, node, argument: client.submit(node, argument).result(PATIENCE_S),
    "map": lambda client, node, argument: next(client.map(node, [(argument,)] * 3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_broker_killed_in_the_middle(way: str, fifo: Fifo) -> None:
    make = WAYS[way]

    def kill() -> float:
        assert fifo.line() == "begun"
        return kill_broker(pool)

    with (
        Pool(client_nodes.FILE, workers=1) as pool,
        pool.client() as client,
        ThreadPoolExecutor(1) as thread,
    ):
        killed = thread.submit(kill)
        with pytest.raises(BrokerLostError) as caught:
            make(client, "linger", fifo.path)
        assert monotonic() - killed.result() < SOON_S
        assert caught.value.outcome == "maybe_executed"
        assert make(client, "echo", "again") == "again"  # waits for the new broker
        for make in WAYS.values():
            assert make(client, "echo", "again") == "again"


@pytest.mark.slow
def test_an_idle_client_does_not_notice_a_new_broker() -> None:
    with Pool(client_nodes.FILE, workers=1) as pool, pool.client() as client:
        for make in WAYS.values():
            assert make(client, "echo", "before") == "before"
        kill_broker(pool)
        pool._tree.read_news()  # that a new one serves
        for make in WAYS.values():
            assert make(client, "echo", "after") == "after"
