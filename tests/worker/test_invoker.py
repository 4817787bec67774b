"""Mirror of worker/invoker.py."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pronghorn.broker.wire.errors import NodeError
from pronghorn.broker.wire.items import ItemResults
from pronghorn.worker import Context, node
from pronghorn.worker.invoker import Invoker, compile_invoker
from pronghorn.worker.signature import read_signature


def compiled(function: Callable[..., Any]) -> Invoker:
    return compile_invoker(read_signature("nodes.it", node(name="it")(function)))


LIMIT = 1000


def make_results() -> ItemResults:
    return ItemResults(
        bytearray(2 * LIMIT),
        memoryview(bytearray(8)).cast("Q"),
        0,
        limit=LIMIT,
        encode=msgspec.msgpack.encode,
        unencodable=lambda error, value: NodeError(str(error)),
        too_large=lambda size: NodeError(f"{size} bytes"),
    )


def values_of(results: ItemResults) -> Any:
    return msgspec.msgpack.decode(results.collect()[0])


def params(*values: Any) -> Any:
    return SimpleNamespace(**{f"p{index}": value for index, value in enumerate(values)})


def test_every_parameter_gets_its_value() -> None:
    def it(a: int, /, b: int, *, c: int) -> tuple[int, int, int]:
        return a, b, c

    assert compiled(it).invoke(params(1, 2, 3)) == (1, 2, 3)


def test_names_that_the_compiled_code_uses_itself() -> None:
    def it(p: int, fn: int, *, ctx: int, values: int, append: int) -> list[int]:
        return [p, fn, ctx, values, append]

    assert compiled(it).invoke(params(1, 2, 3, 4, 5)) == [1, 2, 3, 4, 5]


def test_a_context_is_handed_in() -> None:
    def it(a: int, here: Context, b: int) -> tuple[int, str, int]:
        return a, here.request_id, b

    context = Context(request_id="7", node="nodes.it", worker_id=1)
    invoker = compiled(it)
    assert invoker.invoke(params(1, 2), context) == (1, "7", 2)
    results = make_results()
    invoker.invoke_items([params(1, 2)], results, context)
    assert values_of(results) == [[1, "7", 2]]


def test_items_go_on_behind_one_that_failed() -> None:
    def it(a: int) -> float:
        return 6 / a

    remaining = iter([params(1), params(0), params(3)])
    results = make_results()
    invoke_items = compiled(it).invoke_items
    with pytest.raises(ZeroDivisionError):
        invoke_items(remaining, results)
    assert values_of(results) == [6.0]
    results.fail(NodeError("no"))
    invoke_items(remaining, results)
    assert values_of(results) == [6.0, None, 2.0]


def test_items_go_on_behind_a_result_that_can_not_be_encoded() -> None:
    def it(a: int) -> Any:
        return object() if a == 2 else a

    results = make_results()
    compiled(it).invoke_items([params(1), params(2), params(3)], results)
    assert values_of(results) == [1, None, 3]


def test_items_end_when_the_results_are_full() -> None:
    seen: list[int] = []

    def it(a: int) -> str:
        seen.append(a)
        return "x" * (LIMIT - 10)

    results = make_results()
    compiled(it).invoke_items([params(1), params(2), params(3)], results)
    assert results.is_full
    assert seen == [1, 2]


async def test_async_nodes_give_coroutines() -> None:
    async def it(a: int) -> int:
        return a + 1

    invoker = compiled(it)
    assert await invoker.invoke(params(1)) == 2


@pytest.mark.parametrize("awaits", [True, False])
async def test_a_plain_wrapper_of_an_async_function_may_answer_either_way(awaits: bool) -> None:
    async def inner(a: int) -> int:
        return a + 1

    @functools.wraps(inner)
    def it(a: int) -> Any:
        return inner(a) if awaits else -1

    invoker = compiled(it)
    expected = 2 if awaits else -1
    assert await invoker.invoke(params(1)) == expected


async def test_a_plain_wrapper_gets_its_context() -> None:
    async def inner(a: int, ctx: Context) -> str:
        return ctx.request_id

    @functools.wraps(inner)
    def it(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    context = Context(request_id="7", node="nodes.it", worker_id=1)
    assert await compiled(it).invoke(params(1), context) == "7"


def test_compiled_frames_are_told_by_their_module() -> None:
    invoker = compiled(lambda: 0)
    for function in invoker:
        assert function.__globals__["__name__"].startswith("pronghorn.")
