"""Mirror of worker/execution.py."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.msgpack import decode, encode

from pronghorn.broker.wire.items import Mark
from pronghorn.broker.wire.link import (
    CODEC_JSON,
    CODEC_MSGPACK,
    ChunkDone,
    Done,
    Failed,
    RunCall,
    RunChunk,
    unwrap_json,
    wrap_json,
)
from pronghorn.broker.wire.references import Reference
from pronghorn.broker.wire.slots import PAGE_BYTES, SlotsPage, area_bytes
from pronghorn.broker.wire.values import class_name, encode_params
from pronghorn.worker import Context, node
from pronghorn.worker.dispatch import DispatchTable, Entry
from pronghorn.worker.execution import CONCURRENT_ITEMS, Execution, Word, struck
from pronghorn.worker.shared import SharedFolder, SharedValues

LIMIT = 10_000


@node
def divide(a: int, b: int = 1) -> float:
    return a / b


@node
def give_up(how: str) -> None:
    raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "stop": StopIteration(1)}[how]


@node
def recurse(depth: int) -> int:
    return recurse(depth + 1)  # type: ignore[no-any-return]


@node
def repeat(text: str, times: int) -> str:
    return text * times


@node
def odd() -> object:
    return object()


@node
def echo(data: memoryview) -> memoryview:
    return data


@node
def told(ctx: Context, a: int) -> tuple[str, str, int, bool, int]:
    return ctx.request_id, ctx.node, ctx.worker_id, ctx.deadline is None, a


@node
async def divide_later(a: int, b: int = 1) -> float:
    await asyncio.sleep(0)
    return a / b


@node
async def cancel_itself(a: int) -> int:
    if a == 1:
        raise asyncio.CancelledError
    await asyncio.sleep(0)
    return a


@node
async def time_out(a: int) -> int:
    async with asyncio.timeout(0 if a else None):
        await asyncio.sleep(1 if a else 0)
    return a


@node
async def cancel_own_task(a: int) -> int:
    task = asyncio.current_task()
    assert task is not None
    if a == 1:
        task.cancel()
    await asyncio.sleep(0)
    return task.cancelling()


class PanicException(BaseException):
    """As the libraries written in Rust raise it."""


ODD: dict[str, type[BaseException]] = {
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "cancel": asyncio.CancelledError,
    "panic": PanicException,
}


@dataclass
class Given:
    """Params that raise while they are decoded."""

    how: str

    def __post_init__(self) -> None:
        if self.how in ODD:
            raise ODD[self.how]


class Returned(set[int]):
    """A result that raises while it is encoded, and while it is looked at for why."""

    def __init__(self, how: str) -> None:
        super().__init__([1])
        self._how = how

    def __iter__(self) -> Iterator[int]:
        raise ODD[self._how]

    def __getattr__(self, name: str) -> Any:
        raise ODD[self._how]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit


@node
def take(given: Given) -> str:
    return given.how


@node
async def take_later(given: Given) -> str:
    return given.how


@node
def give(how: str) -> object:
    return Returned(how) if how in ODD else how


@node
async def give_later(how: str) -> object:
    return Returned(how) if how in ODD else how


@node
def raise_unspeakable() -> None:
    raise Unspeakable


@node
async def hang(a: int) -> None:
    await asyncio.Event().wait()


@node
async def told_later(ctx: Context) -> str:
    return ctx.node


def entry_of(function: Callable[..., Any]) -> Entry:
    return DispatchTable.of({f"nodes.{function.__name__}": function}).entries[0]


def call(function: Callable[..., Any], params: Any, *, codec: int = CODEC_MSGPACK) -> Word:
    raw = Raw(encode(params)) if codec == CODEC_MSGPACK else wrap_json(msgspec.json.encode(params))
    message = RunCall(token=7, slot=0, node=0, codec=codec, params=raw, left_ms=None)
    execution, entry = Execution(3, LIMIT), entry_of(function)
    context = execution.context(entry, message) if entry.takes_context else None
    if entry.kind == "async":
        return asyncio.run(execution.call_async(entry, message, (), context))
    return execution.call(entry, message, (), context)


def chunk(function: Callable[..., Any], items: Any, page: Any = None) -> Word:
    message = RunChunk(token=7, slot=0, node=0, items=Raw(encode(items)))
    execution, entry = Execution(3, LIMIT), entry_of(function)
    if page is not None:
        execution.page, execution.area = page, mmap(-1, area_bytes(LIMIT))
    context = execution.context(entry, message) if entry.takes_context else None
    if entry.kind == "async":
        return asyncio.run(execution.chunk_async(entry, message, context))
    return execution.chunk(entry, message, context)


def value_of(word: Word) -> Any:
    message, buffers = word
    assert isinstance(message, Done)
    assert (message.token, message.buffers, len(buffers)) == (7, 0, 0)
    assert message.run_ns >= 0
    return decode(message.value)


def failure_of(word: Word) -> Failed:
    message, buffers = word
    assert isinstance(message, Failed)
    assert message.token == 7
    assert not buffers
    return message


def results_of(word: Word) -> tuple[list[Any], dict[int, str]]:
    message, buffers = word
    assert isinstance(message, ChunkDone)
    assert not buffers
    values = decode(message.values)
    assert message.item_count == len(values)
    failures = message.failures or ()
    assert [one.index for one in failures] == sorted(one.index for one in failures)
    return values, {one.index: f"{one.code}: {one.message}" for one in failures}


# --- one call ----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [divide, divide_later])
def test_a_result(function: Callable[..., Any]) -> None:
    assert value_of(call(function, {"a": 6, "b": 4})) == 1.5
    assert value_of(call(function, [6])) == 6.0


@pytest.mark.parametrize("function", [divide, divide_later])
def test_json_in_and_out(function: Callable[..., Any]) -> None:
    message, _ = call(function, {"a": 6, "b": 4}, codec=CODEC_JSON)
    assert isinstance(message, Done)
    assert unwrap_json(message.value) == b"1.5"


@pytest.mark.parametrize("function", [divide, divide_later])
def test_refused_params_are_not_run(function: Callable[..., Any]) -> None:
    failure = failure_of(call(function, {"a": "six"}))
    assert (failure.code, failure.details.field) == ("INVALID_ARGUMENT", "$.a")
    assert failure.run_ns == 0


@pytest.mark.parametrize("function", [divide, divide_later])
def test_what_a_node_raises(function: Callable[..., Any]) -> None:
    failure = failure_of(call(function, {"a": 1, "b": 0}))
    assert failure.details.exception == "ZeroDivisionError"
    assert failure.details.traceback is not None
    assert failure.details.traceback.count("File ") == 1  # users' code alone
    assert failure.run_ns > 0


@pytest.mark.parametrize(
    ("how", "exception"),
    [("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"), ("stop", "StopIteration")],
)
def test_nothing_that_a_node_raises_ends_the_worker(how: str, exception: str) -> None:
    assert failure_of(call(give_up, [how])).details.exception == exception
    values, failures = results_of(chunk(give_up, [[how], [how]]))
    assert values == [None, None]
    assert len(failures) == 2


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("function", [take, take_later])
def test_nothing_that_params_raise_leaves_a_call_unanswered(
    function: Callable[..., Any], how: str
) -> None:
    failure = failure_of(call(function, [{"how": how}]))
    assert (failure.code, failure.details.outcome) == ("INVALID_ARGUMENT", "not_started")
    assert failure.details.exception == class_name(ODD[how])
    assert failure_of(call(function, [{"how": how}], codec=CODEC_JSON)).code == "INVALID_ARGUMENT"
    values, failures = results_of(chunk(function, [[{"how": each}] for each in ("a", how, "b")]))
    assert values == ["a", None, "b"]
    assert set(failures) == {1}


def test_what_strikes_from_outside_while_items_are_decoded_fails_all_of_them() -> None:
    struck: list[bool] = []

    @dataclass
    class Once:
        a: int

        def __post_init__(self) -> None:
            if not struck:
                struck.append(True)
                raise KeyboardInterrupt

    async def take_once(given: Once) -> int:
        return given.a

    take_once.__annotations__ = {"given": Once}
    failure = failure_of(chunk(node(take_once), [[{"a": 1}], [{"a": 2}]]))
    assert (failure.code, failure.details.outcome) == ("INVALID_ARGUMENT", "not_started")
    assert failure.details.exception == "KeyboardInterrupt"


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("function", [give, give_later])
def test_nothing_that_a_result_raises_leaves_a_call_unanswered(
    function: Callable[..., Any], how: str
) -> None:
    failure = failure_of(call(function, [how]))
    assert (failure.code, failure.details.outcome) == ("NODE_ERROR", "executed")
    assert failure.details.exception == class_name(ODD[how])
    assert failure_of(call(function, [how], codec=CODEC_JSON)).code == "NODE_ERROR"
    values, failures = results_of(chunk(function, [["a"], [how], ["b"]]))
    assert values == ["a", None, "b"]
    assert set(failures) == {1}


def test_an_exception_that_can_not_be_shown_is_an_error_all_the_same() -> None:
    failure = failure_of(call(raise_unspeakable, []))
    assert failure.message == "(its __str__ raised SystemExit)"
    assert failure.details.exception == class_name(Unspeakable)


def test_what_struck_outside_of_a_node_leaves_its_outcome_open() -> None:
    failure = struck(entry_of(divide), 7, KeyboardInterrupt("ctrl-c"))
    assert (failure.token, failure.code, failure.message) == (7, "NODE_ERROR", "ctrl-c")
    assert failure.details.outcome == "maybe_executed"
    assert failure.details.exception == "KeyboardInterrupt"


def test_endless_recursion_is_an_error_like_others() -> None:
    assert failure_of(call(recurse, [0])).details.exception == "RecursionError"


def test_a_result_that_can_not_be_encoded_was_executed_none_the_less() -> None:
    failure = failure_of(call(odd, []))
    assert failure.details.outcome == "executed"


@pytest.mark.parametrize("codec", [CODEC_MSGPACK, CODEC_JSON])
def test_a_result_over_the_limit_names_it(codec: int) -> None:
    failure = failure_of(call(repeat, ["x", LIMIT], codec=codec))
    assert failure.message.startswith("nodes.repeat: the result has 1000")
    assert failure.message.endswith(f" bytes, the limit is {LIMIT}")
    assert (failure.details.outcome, failure.details.limit) == ("executed", LIMIT)


def test_buffers_go_in_and_out_and_count_for_the_limit() -> None:
    data = bytes(100_000)
    body, lifted = encode_params({"data": data})
    buffers = [bytes(one) for one in lifted]
    message = RunCall(7, 0, 0, CODEC_MSGPACK, Raw(body), None, len(buffers))
    done, out = Execution(3, 1_000_000).call(entry_of(echo), message, buffers, None)
    assert isinstance(done, Done)
    assert done.buffers == 1
    assert [bytes(one) for one in out] == [data]
    refused = failure_of(Execution(3, LIMIT).call(entry_of(echo), message, buffers, None))
    assert refused.details.limit == LIMIT


def test_a_context_knows_its_call() -> None:
    assert value_of(call(told, {"a": 1})) == ["7", "nodes.told", 3, True, 1]
    assert value_of(call(told_later, {})) == "nodes.told_later"
    values, _ = results_of(chunk(told, [[1], [2]]))
    assert values == [["7", "nodes.told", 3, True, 1], ["7", "nodes.told", 3, True, 2]]


def test_time_left_becomes_a_deadline() -> None:
    message = RunCall(7, 0, 0, CODEC_MSGPACK, Raw(b"\x90"), 2500.0)
    deadline = Execution(3, LIMIT).context(entry_of(told), message).deadline
    assert deadline is not None
    assert 2.4 < deadline - monotonic() <= 2.5


# --- chunks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [divide, divide_later])
def test_failed_items_leave_the_others_alone(function: Callable[..., Any]) -> None:
    items = [{"a": 1}, {"a": "x"}, [4, 0], [4, 2], {}, [9]]
    values, failures = results_of(chunk(function, items))
    assert values == [1.0, None, None, 2.0, None, 9.0]
    assert {index: text.split(":")[0] for index, text in failures.items()} == {
        1: "INVALID_ARGUMENT",
        2: "NODE_ERROR",
        4: "INVALID_ARGUMENT",
    }


@pytest.mark.parametrize("items", [[], [[1]], [[0, 0]], [{}]])
def test_each_item_is_counted_on_the_page_when_it_is_over(items: list[Any]) -> None:
    items = [*items, [1], [1, 0], {"a": 2}]
    shared = SlotsPage(memoryview(bytearray(PAGE_BYTES)))
    shared.claim(0, 7, 1)
    counts: list[int] = []

    @node
    def count(a: float, b: float = 1) -> float:
        counts.append(Mark.of(shared.mark(0)).items)
        return a / b

    values, failures = results_of(chunk(count, items, shared))
    assert Mark.of(shared.mark(0)).items == len(items) == len(values)
    run = [index for index, item in enumerate(items) if item]  # the others are refused
    assert counts == run
    assert len(failures) == sum(item in ([0, 0], [1, 0], {}) for item in items)


class Striking:
    """A page on which an exception strikes after an item of a number was counted.

    As a handler for a signal can raise one, between two steps of ours.
    """

    def __init__(self, at: int) -> None:
        self._at = at
        self._word = 0

    def mark_word(self, slot: int) -> tuple["Striking", int]:
        return self, slot

    def __getitem__(self, word: int) -> int:
        return self._word

    def __setitem__(self, word: int, value: int) -> None:
        self._word = value
        if Mark.of(value).items == self._at + 1:
            self._at = -1
            raise TimeoutError("struck")


@pytest.mark.parametrize("at", [0, 2, 4])
def test_results_that_can_not_be_told_apart_are_none(at: int) -> None:
    failure = failure_of(chunk(divide, [[i] for i in range(5)], Striking(at)))
    assert (failure.code, failure.message) == ("NODE_ERROR", "struck")
    assert failure.details.outcome == "maybe_executed"


def test_an_empty_chunk_is_done_at_once() -> None:
    assert results_of(chunk(divide, [])) == ([], {})
    assert results_of(chunk(divide_later, [])) == ([], {})


def test_items_that_are_no_array_fail_as_a_whole() -> None:
    for function in (divide, divide_later):
        assert failure_of(chunk(function, {"a": 1})).code == "INVALID_ARGUMENT"


def test_a_chunk_ends_with_the_item_that_goes_beyond_the_limit() -> None:
    items = [["x", LIMIT // 2]] * 3
    values, failures = results_of(chunk(repeat, items))
    assert (values, failures) == (["x" * (LIMIT // 2)] * 2, {})


def test_an_item_s_result_over_the_limit_names_it() -> None:
    values, failures = results_of(chunk(repeat, [["x", 1], ["x", LIMIT], ["x", 2]]))
    assert values == ["x", None, "xx"]
    assert str(LIMIT) in failures[1]


def test_items_that_can_not_be_encoded_are_failures() -> None:
    values, failures = results_of(chunk(odd, [[], []]))
    assert values == [None, None]
    assert set(failures) == {0, 1}


def test_items_of_an_async_node_run_side_by_side_but_not_all() -> None:
    running, most = 0, 0

    @node
    async def count(a: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return a

    values, _ = results_of(chunk(count, [[i] for i in range(100)]))
    assert values == list(range(100))
    assert most == CONCURRENT_ITEMS


# --- cancelling --------------------------------------------------------------------------------


async def cancelled_when_begun(word: Any) -> Word:
    task = asyncio.create_task(word)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    result: Word = await task
    return result


@pytest.mark.parametrize("whole", [True, False])
async def test_a_cancelled_call_may_have_done_something(whole: bool) -> None:
    execution, entry = Execution(3, LIMIT), entry_of(hang)
    if whole:
        message = RunCall(7, 0, 0, CODEC_MSGPACK, Raw(encode([1])))
        word = await cancelled_when_begun(execution.call_async(entry, message, (), None))
    else:
        items = RunChunk(7, 0, 0, Raw(encode([[1], [2]])))
        word = await cancelled_when_begun(execution.chunk_async(entry, items, None))
    failure = failure_of(word)
    assert (failure.code, failure.details.outcome) == ("CANCELLED", "maybe_executed")
    assert failure.message == "nodes.hang: the call was cancelled"


def test_a_node_that_cancels_itself_has_failed() -> None:
    assert failure_of(call(cancel_itself, [1])).code == "NODE_ERROR"
    values, failures = results_of(chunk(cancel_itself, [[i] for i in (0, 1, 2, 1, 4)]))
    assert values == [0, None, 2, None, 4]
    assert set(failures) == {1, 3}


def test_items_behind_many_that_cancel_themselves_run() -> None:
    items = [[1]] * (2 * CONCURRENT_ITEMS) + [[5]]
    values, failures = results_of(chunk(cancel_itself, items))
    assert values[-1] == 5
    assert len(failures) == 2 * CONCURRENT_ITEMS


def test_an_item_that_cancels_its_own_task_has_failed_and_the_others_run() -> None:
    items = [[1]] * CONCURRENT_ITEMS + [[2]] * 40
    values, failures = results_of(chunk(cancel_own_task, items))
    assert set(failures) == set(range(CONCURRENT_ITEMS))
    assert values[CONCURRENT_ITEMS:] == [0] * 40


async def test_items_whose_tasks_are_cancelled_by_another_are_not_taken_for_done() -> None:
    message = RunChunk(7, 0, 0, Raw(encode([[index] for index in range(100)])))
    running = Execution(3, LIMIT).chunk_async(entry_of(divide_later), message, None)
    whole = asyncio.create_task(running)
    before = asyncio.all_tasks()
    await asyncio.sleep(0)  # its tasks are made, and have not begun
    items = asyncio.all_tasks() - before
    assert len(items) == CONCURRENT_ITEMS
    for task in items:
        task.cancel()
    failure = failure_of(await whole)
    assert failure.message.startswith("nodes.divide_later: the results of a chunk are lost")
    assert failure.details.outcome == "maybe_executed"


@pytest.mark.parametrize("makes_of_it", ["result", "error"])
async def test_no_item_is_begun_once_a_chunk_is_cancelled(makes_of_it: str) -> None:
    begun = []

    @node
    async def insist(a: int) -> int:
        begun.append(a)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if makes_of_it == "error":
                raise ValueError("something else") from None
        return a

    message = RunChunk(7, 0, 0, Raw(encode([[index] for index in range(100)])))
    execution = Execution(3, LIMIT)
    word = await cancelled_when_begun(execution.chunk_async(entry_of(insist), message, None))
    assert failure_of(word).code == "CANCELLED"
    assert begun == list(range(CONCURRENT_ITEMS))


async def test_a_node_that_is_dropped_unfinished_is_closed() -> None:
    for running in (
        Execution(3, LIMIT).call_async(
            entry_of(hang), RunCall(7, 0, 0, CODEC_MSGPACK, Raw(encode([1]))), (), None
        ),
        Execution(3, LIMIT).chunk_async(entry_of(hang), RunChunk(7, 0, 0, Raw(b"\x90")), None),
    ):
        task = asyncio.create_task(running)
        await asyncio.sleep(0)
        task.cancel()
        await task


def test_a_timeout_inside_a_node_is_no_cancel() -> None:
    assert failure_of(call(time_out, [1])).details.exception == "TimeoutError"
    values, failures = results_of(chunk(time_out, [[0], [1]]))
    assert values == [0, None]
    assert set(failures) == {1}


# --- values that come by reference -------------------------------------------------------------


@node
async def repeat_later(text: str, times: int) -> str:
    return text * times


@node
def count(rows: list[int]) -> int:
    rows.append(1)
    return len(rows)


@pytest.fixture
def shared(tmp_path: Path) -> SharedFolder:
    return SharedFolder(str(tmp_path))


def put(folder: SharedFolder, value: Any) -> Raw:
    content = encode(value)
    reference = Reference(1, secrets.token_bytes(16), len(content))
    folder.write(reference, content)
    return Raw(reference.encode())


def run_shared(folder: SharedFolder, function: Callable[..., Any], params: Any) -> Word:
    """Run a call or, given a list, a chunk."""
    execution, entry = Execution(3, LIMIT), entry_of(function)
    execution.values = SharedValues(folder)
    raw = Raw(encode(params))
    if isinstance(params, list):
        chunk = RunChunk(token=7, slot=0, node=0, items=raw)
        if entry.kind == "async":
            return asyncio.run(execution.chunk_async(entry, chunk, None))
        return execution.chunk(entry, chunk, None)
    message = RunCall(token=7, slot=0, node=0, codec=CODEC_MSGPACK, params=raw, left_ms=None)
    if entry.kind == "async":
        return asyncio.run(execution.call_async(entry, message, (), None))
    return execution.call(entry, message, (), None)


@pytest.mark.parametrize("function", [repeat, repeat_later])
def test_references_stand_for_values(shared: SharedFolder, function: Callable[..., Any]) -> None:
    text = put(shared, "ab")
    assert value_of(run_shared(shared, function, {"text": text, "times": 2})) == "abab"
    items: list[Any] = [
        {"text": text, "times": 1},
        {"text": "c", "times": 2},
        {"text": text, "times": "x"},
        {"text": Raw(Reference(1, bytes(16), 3).encode()), "times": 1},
        {"text": text, "times": 2},
    ]
    values, failures = results_of(run_shared(shared, function, items))
    assert values == ["ab", "cc", None, None, "abab"]
    assert sorted(failures) == [2, 3]
    assert "Expected `int`, got `str` - at `$.times`" in failures[2]
    assert "leads nowhere" in failures[3]


def test_each_item_has_a_value_of_its_own(shared: SharedFolder) -> None:
    rows = put(shared, [1, 2])
    assert results_of(run_shared(shared, count, [{"rows": rows}] * 3)) == ([3, 3, 3], {})


def test_what_leads_nowhere_is_refused_and_may_be_sent_again(shared: SharedFolder) -> None:
    gone = Raw(Reference(1, bytes(16), 3).encode())
    failure = failure_of(run_shared(shared, count, {"rows": gone}))
    assert (failure.code, failure.details.outcome) == ("INVALID_ARGUMENT", "not_started")
    assert failure.details.retryable
    failure = failure_of(call(count, {"rows": gone}))  # by a worker that has no folder
    assert failure.code == "INVALID_ARGUMENT"


def test_items_by_reference_that_are_no_array(shared: SharedFolder) -> None:
    execution, entry = Execution(3, LIMIT), entry_of(count)
    chunk = RunChunk(token=7, slot=0, node=0, items=Raw(encode({"a": put(shared, [1])})))
    assert failure_of(execution.chunk(entry, chunk, None)).code == "INVALID_ARGUMENT"
