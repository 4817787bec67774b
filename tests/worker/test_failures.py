"""Mirror of worker/failures.py."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown import shown

from pronghorn.broker.wire.errors import InvalidArgumentError, NodeError
from pronghorn.broker.wire.values import encode_inline, encode_json
from pronghorn.worker import node
from pronghorn.worker.dispatch import Entry
from pronghorn.worker.failures import (
    MESSAGE_BYTES_MAX,
    TRACEBACK_BYTES_MAX,
    bounded,
    message_of,
    node_error,
    refusal,
    result_error,
)


class OutOfStock(Exception):
    pass


def entry(function: Callable[..., Any]) -> Entry:
    return Entry.of(0, "nodes.it", node(name="it")(function))


def raised_by(function: Callable[..., Any], params: bytes = b"\x80") -> NodeError:
    it = entry(function)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        it.invoke(it.decode(params))
    return it.node_error(caught.value)


# Refused params


@pytest.mark.parametrize(
    ("params", "message", "field"),
    [
        ({"a": "x", "b": 1}, "Expected `int`, got `str` - at `$.a`", "$.a"),
        (["x", 1], "Expected `int`, got `str` - at `$[0]` (parameter `a`)", "$[0]"),
        ([1, 2, ["x"]], "Expected `int`, got `str` - at `$[2][0]` (parameter `c`)", "$[2][0]"),
        ({"a": 1, "b": 1, "c": ["x"]}, "Expected `int`, got `str` - at `$.c[0]`", "$.c[0]"),
        ({"b": 1}, "missing required parameter `a`", "$.a"),
        ({"a": 1, "b": 2, "z": 3}, "unknown parameter `z`: it takes `a`, `b`, `c`, `d`", "$.z"),
        ({"a": 1, "b": 2, "`": 3}, "unknown parameter ```: it takes `a`, `b`, `c`, `d`", "$.`"),
        ([1], "takes 2 to 3 by position (`a`, `b`, `c`), got 1", "$"),
        ([1, 2, [], 4], "takes 2 to 3 by position (`a`, `b`, `c`), got 4", "$"),
        (7, "params must be a map (by name), an array (by position) or nil, got `int`", "$"),
        ({1: 2}, "Expected `str`, got `int` - at `key` in `$`", None),
        (None, "missing required parameter `a`", "$.a"),
    ],
    ids=str,
)
def test_refused_params_name_the_node_and_the_field(
    params: Any, message: str, field: str | None
) -> None:
    def it(a: int, b: int, c: list[int] = [], *, d: bool = False) -> None: ...  # noqa: B006

    with pytest.raises(InvalidArgumentError) as caught:
        entry(it).decode(msgspec.msgpack.encode(params))
    error = caught.value
    assert str(error) == f"nodes.it: {message}"
    assert (error.details.node, error.details.field) == ("nodes.it", field)
    assert error.outcome == "not_started"


def test_a_node_without_parameters() -> None:
    it = entry(lambda: 0)
    with pytest.raises(InvalidArgumentError, match="unknown parameter `a`: it takes none"):
        it.decode(msgspec.msgpack.encode({"a": 1}))
    with pytest.raises(InvalidArgumentError, match=r"takes 0 by position \(none\), got 1"):
        it.decode(msgspec.msgpack.encode([1]))


def test_a_required_keyword_only_parameter_asks_for_names() -> None:
    def it(a: int, *, b: int) -> None: ...

    with pytest.raises(InvalidArgumentError, match="by name, as a map: `b` is keyword-only"):
        entry(it).decode(msgspec.msgpack.encode([1, 2]))


def test_long_lists_and_names_are_cut() -> None:
    names = [f"p{index}" for index in range(100)]
    scope: dict[str, Any] = {}
    exec(f"def it({', '.join(names)}): ...", scope)
    with pytest.raises(InvalidArgumentError) as caught:
        entry(scope["it"]).decode(msgspec.msgpack.encode({"x" * 10**6: 1}))
    text = str(caught.value)
    assert "... (100 in all)" in text
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x91", "the params can't be decoded: Input data was truncated"),
        (b"\x91\xc0\x90", "the params can't be decoded: .*trailing characters"),
        (b"\x91\xa1\xff", "the params can't be decoded: .*(?i:utf-8)"),
        (b"\x91" * 5000 + b"\xc0", "the params are nested too deeply"),
        (b"\x91\xc7\x01\x05a", "unknown extension type 5"),
    ],
)
def test_what_is_no_msgpack_is_refused(raw: bytes, reason: str) -> None:
    def it(a: Any) -> None: ...

    with pytest.raises(InvalidArgumentError, match=rf"^nodes\.it: {reason}"):
        entry(it).decode(raw)


def test_what_the_code_of_a_users_type_raises() -> None:
    class Odd(msgspec.Struct):
        def __post_init__(self) -> None:
            raise KeyError("odd")

    class Silent(msgspec.Struct):
        def __post_init__(self) -> None:
            raise ValueError

    def it(a: Odd | None = None, *, b: Silent | None = None) -> None: ...

    with pytest.raises(InvalidArgumentError, match="can't be decoded: KeyError: 'odd'"):
        entry(it).decode(msgspec.msgpack.encode([{}]))
    signature = entry(it).signature
    assert str(refusal(ValueError(), signature)) == "nodes.it: ValueError"
    assert str(refusal(ValueError("a"), signature)) == "nodes.it: a"


def test_refused_items_keep_the_place_in_the_array() -> None:
    def it(a: int) -> None: ...

    with pytest.raises(InvalidArgumentError) as caught:
        entry(it).decode_items(msgspec.msgpack.encode([[1], ["x"]]))
    assert str(caught.value) == "nodes.it: items: Expected `int`, got `str` - at `$[1][0]`"
    assert caught.value.details.field == "$[1][0]"
    with pytest.raises(InvalidArgumentError, match="items: Expected `array`, got `int`"):
        entry(it).decode_items(b"\x05")


# What nodes raise


def test_a_raised_exception() -> None:
    def it(a: int) -> float:
        return 1 / a

    error = raised_by(it, b"\x91\x00")
    assert isinstance(error, NodeError)
    assert (error.exception, error.message, error.outcome) == (
        "ZeroDivisionError",
        "division by zero",
        "executed",
    )
    assert error.details.node == "nodes.it"


def test_the_type_is_named_with_its_module() -> None:
    def it() -> None:
        raise OutOfStock("no hats")

    assert raised_by(it).exception == f"{__name__}.OutOfStock"


@pytest.mark.parametrize(
    "exception",
    [InvalidArgumentError("mine"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()],
    ids=lambda exception: type(exception).__name__,
)
def test_whatever_a_node_raises_is_a_node_error(exception: BaseException) -> None:
    def it() -> None:
        raise exception

    error = raised_by(it)
    assert type(error) is NodeError
    assert error.exception.endswith(type(exception).__name__)


def test_causes_are_told() -> None:
    def it() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise OutOfStock("outer") from error

    text = raised_by(it).traceback
    assert text.index("KeyError: 'inner'") < text.index("direct cause") < text.index("outer")


def test_the_traceback_begins_in_the_node() -> None:
    def it(a: int) -> float:
        return 1 / a

    node_entry = entry(it)
    with ThreadPoolExecutor(1) as executor:
        caught = executor.submit(node_entry.invoke, node_entry.decode(b"\x91\x00")).exception()
    assert caught is not None
    lines = node_entry.node_error(caught).traceback.splitlines()
    line = it.__code__.co_firstlineno + 1
    assert lines[:3] == [
        "Traceback (most recent call last):",
        f'  File "{__file__}", line {line}, in it',
        "    return 1 / a",
    ]
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_an_exception_without_users_frames_has_its_text_only() -> None:
    assert node_error(OutOfStock("x"), node="n").traceback == f"{__name__}.OutOfStock: x\n"


def test_a_call_that_python_itself_refuses() -> None:
    error = raised_by(len_of_nothing)
    assert error.exception == "TypeError"
    assert "len_of_nothing" in error.traceback


def len_of_nothing() -> int:
    return len(None)  # type: ignore[arg-type]


def test_broken_exceptions_are_reported_all_the_same() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise OutOfStock

    assert message_of(Broken()) == f"(its __str__ raised {__name__}.OutOfStock)"
    error = node_error(Broken(), node="n")
    assert "Broken" in error.traceback

    class Hostile(Exception):
        @property
        def __cause__(self) -> Any:
            raise OutOfStock

        @property
        def __notes__(self) -> Any:
            raise OutOfStock

    assert "Hostile" in node_error(Hostile(), node="n").traceback


def test_long_texts_are_cut_in_the_middle() -> None:
    def it() -> None:
        raise OutOfStock("x" * 10**6)

    error = raised_by(it)
    assert len(error.message.encode()) <= MESSAGE_BYTES_MAX
    assert len(error.traceback.encode()) <= TRACEBACK_BYTES_MAX
    assert "bytes cut" in error.message
    assert error.traceback.startswith("Traceback")


def test_deep_stacks_are_told_shortly() -> None:
    def it() -> None:
        it()

    error = raised_by(it)
    assert error.exception == "RecursionError"
    assert len(error.traceback.encode()) <= TRACEBACK_BYTES_MAX


def test_texts_that_utf8_can_not_hold() -> None:
    def it() -> None:
        raise OutOfStock("\udc80")

    error = raised_by(it)
    assert error.message == "\\udc80"
    msgspec.msgpack.encode([error.message, error.details])


@given(st.text(), st.integers(100, 400))
def test_bounded(text: str, bytes_max: int) -> None:
    cut = bounded(text * 3, bytes_max)
    assert len(cut.encode()) <= bytes_max
    if len((text * 3).encode("utf-8", "backslashreplace")) <= bytes_max:
        assert cut == text * 3


def test_bounded_says_how_much_is_missing() -> None:
    assert bounded("a" * 1000, 200) == "a" * 68 + "\n... 864 bytes cut ...\n" + "a" * 68


# Results


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "a `object` that can't be encoded: Encoding objects of type object is unsup"),
        ({"a": [1, object()]}, "a `dict` that can't be encoded: .* - at `\\$.a\\[1\\]`$"),
        ([2**64], "a `list` that can't be encoded: can't serialize ints .* - at `\\$\\[0\\]`$"),
        ((x for x in "a"), "a `generator` that can't be encoded"),
    ],
    ids=shown,
)
def test_a_result_that_can_not_be_encoded(value: Any, message: str) -> None:
    with pytest.raises(NodeError, match=rf"^nodes\.it returned {message}") as caught:
        entry(lambda: 0).encode(value)
    assert caught.value.details.node == "nodes.it"
    assert caught.value.outcome == "executed"


def test_a_result_that_holds_itself() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(NodeError, match=r"it contains itself, or is nested too deeply$"):
        entry(lambda: 0).encode(ring)


def test_a_coroutine_that_nothing_awaited() -> None:
    async def forgotten() -> None: ...

    with pytest.raises(NodeError, match=r"is the node to be an async def\?"):
        entry(lambda: 0).encode(forgotten())


def test_a_value_that_raises_when_it_is_looked_at() -> None:
    class Odd(set[int]):
        def __iter__(self) -> Iterator[int]:
            raise SystemExit

        def __getattr__(self, name: str) -> Any:
            raise SystemExit

    with pytest.raises(NodeError) as caught:
        entry(lambda: 0).encode([1, {"a": Odd([1])}])
    assert caught.value.exception == "SystemExit"
    assert caught.value.message == "nodes.it returned a `list` that can't be encoded: SystemExit"


def test_the_path_is_of_the_encoding_asked_for() -> None:
    value = {"a": {(1, 2): 3}}
    encode_inline(value)
    with pytest.raises(TypeError) as caught:
        encode_json(value)
    error = result_error(caught.value, value=value, node="n", encode=encode_json)
    assert str(error).endswith("- at `$.a`")
