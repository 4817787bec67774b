"""Mirror of worker/dispatch.py."""

import datetime
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.msgpack import decode, encode
from shown import shown

from pronghorn.broker.wire.errors import InvalidArgumentError, NodeError, NotFoundError
from pronghorn.broker.wire.limits import BUFFER_BYTES_MIN
from pronghorn.broker.wire.table import NodeInfo
from pronghorn.broker.wire.values import NodeDescription, encode_params
from pronghorn.worker import Context, NodeDefinitionError, node
from pronghorn.worker.dispatch import DispatchTable, Entry


@node
def add(a: int, b: int = 1) -> int:
    """Sum of two integers."""
    return a + b


@node(thread=True)
def wait(seconds: float) -> None: ...


@node
async def ask(ctx: Context, question: str) -> str:
    return question


@node
def many(
    a: dict[str, Any] | None = None,
    b: datetime.datetime | None = None,
    c: np.ndarray | None = None,  # type: ignore[type-arg]
    d: memoryview | None = None,
    e: Any = None,
    f: set[int] = set(),  # noqa: B006
) -> None: ...


def table(**functions: Callable[..., Any]) -> DispatchTable:
    return DispatchTable.of({f"nodes.{name}": function for name, function in functions.items()})


def error_of(decode: Callable[[bytes], Any], raw: bytes) -> InvalidArgumentError | None:
    """Give the one error that may come out of decoding; any other fails the test."""
    try:
        decode(raw)
    except InvalidArgumentError as error:
        return error
    return None


ADD = table(add=add).lookup("add")
MANY = table(many=many).lookup("many")


# Entries


def test_an_entry() -> None:
    entry = Entry.of(7, "nodes.ask", ask)
    assert (entry.index, entry.name, entry.kind) == (7, "nodes.ask", "async")
    assert entry.function is ask
    assert entry.takes_context
    assert repr(entry) == "<Entry 7 nodes.ask (async)>"


@pytest.mark.parametrize("raw", [encode({"a": 1, "b": 2}), encode([1, 2])])
def test_from_bytes_to_bytes(raw: bytes) -> None:
    for form in (raw, Raw(raw), memoryview(raw)):
        assert ADD.encode(ADD.invoke(ADD.decode(form))) == (encode(3), ())
    assert ADD.invoke(ADD.decode_json(msgspec.json.encode(decode(raw)))) == 3
    assert ADD.encode_json(3) == b"3"


@pytest.mark.parametrize("raw", [b"", b"\xc0", b"\x80", b"\x90", Raw(b""), Raw(b"\xc0")], ids=shown)
def test_no_params(raw: Any) -> None:
    entry = table(none=node(name="none")(lambda x=5: x)).lookup("none")
    assert entry.invoke(entry.decode(raw)) == 5
    assert entry.invoke(entry.decode_with_buffers(raw, [])) == 5
    with pytest.raises(InvalidArgumentError, match=r"missing required parameter `a`|takes 1 to 2"):
        ADD.decode(raw)


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b"[]", Raw(b"")], ids=shown)
def test_no_json_params(raw: Any) -> None:
    entry = table(none=node(name="none")(lambda x=5: x)).lookup("none")
    assert entry.invoke(entry.decode_json(raw)) == 5
    with pytest.raises(InvalidArgumentError, match=r"missing required parameter `a`|takes 1 to 2"):
        ADD.decode_json(raw)


def test_nil_with_buffers() -> None:
    assert MANY.decode_with_buffers(b"\xc0", [b"x"]).p4 is None


def test_params_in_buffers() -> None:
    big = bytes(BUFFER_BYTES_MIN)
    body, buffers = encode_params({"d": big, "e": np.zeros(BUFFER_BYTES_MIN)})
    params = MANY.decode_with_buffers(body, buffers)
    assert params.p3 == big
    assert params.p4.nbytes == 8 * BUFFER_BYTES_MIN
    with pytest.raises(InvalidArgumentError, match=r"nodes\.many: there is no buffer 1: 1 came"):
        MANY.decode_with_buffers(body, buffers[:1])
    with pytest.raises(InvalidArgumentError, match=r"nodes\.many: .*ext"):
        MANY.decode(body)


def test_a_result_that_json_does_not_know() -> None:
    with pytest.raises(NodeError, match=r"^nodes\.add returned a `dict` that can't be encoded"):
        ADD.encode_json({(1, 2): 3})


def test_results_in_buffers() -> None:
    big = bytes(BUFFER_BYTES_MIN)
    body, buffers = ADD.encode(big)
    assert buffers == [big]
    assert len(body) < 10


@given(st.binary(max_size=100) | st.binary(max_size=20).map(lambda tail: b"\x82\xa1a" + tail))
def test_random_bytes_are_params_or_an_invalid_argument(raw: bytes) -> None:
    """No other error may come out, whatever goes in."""
    for entry in (ADD, MANY):
        for attempt in (
            entry.decode,
            entry.decode_json,
            entry.decode_items,
            entry.decode_items_singly,
            lambda raw, entry=entry: entry.decode_with_buffers(raw, [b"abc", raw]),
        ):
            error = error_of(attempt, raw)
            assert error is None or str(error).startswith(entry.name)
            encode([str(error), error and error.details])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(max_size=9) | st.datetimes(timezones=st.just(datetime.UTC))
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=30)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from("abcdefg"), values) | st.lists(values, max_size=7))
def test_random_params_are_decoded_or_an_invalid_argument(params: Any) -> None:
    raw = encode(params)
    for attempt in (MANY.decode, lambda raw: MANY.decode_with_buffers(raw, [b"abc"])):
        error = error_of(attempt, raw)
        assert error is None or error.details.node == "nodes.many"


# Chunks


def test_items() -> None:
    raw = encode([{"a": 1, "b": 2}, [3], {"a": 5}])
    results = [ADD.invoke(params) for params in ADD.decode_items(raw)]
    assert results == [3, 4, 6]
    assert ADD.encode_items(results) == (encode([3, 4, 6]), [])
    assert ADD.decode_items(b"\x90") == []


def test_a_bad_item_is_found_and_the_others_are_decoded() -> None:
    raw = encode([[1, 2], {"a": "x"}, None, 5, {"a": 3}])
    with pytest.raises(InvalidArgumentError):
        ADD.decode_items(raw)
    items = ADD.decode_items_singly(raw)
    assert [str(item) if isinstance(item, Exception) else ADD.invoke(item) for item in items] == [
        3,
        "nodes.add: Expected `int`, got `str` - at `$.a`",
        "nodes.add: missing required parameter `a`",
        "nodes.add: params must be a map (by name), an array (by position) or nil, got `int`",
        4,
    ]


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\x92\x90", b"\x91\xc1"])
def test_what_is_no_array_of_items_is_refused_as_a_whole(raw: bytes) -> None:
    for attempt in (ADD.decode_items, ADD.decode_items_singly):
        with pytest.raises(InvalidArgumentError, match=r"^nodes\.add: "):
            attempt(raw)


def test_results_that_can_not_be_encoded_are_nil_in_a_chunk() -> None:
    raw, failures = ADD.encode_items([1, object(), [2], 2**64])
    assert decode(raw) == [1, None, [2], None]
    assert [index for index, _ in failures] == [1, 3]
    assert all(isinstance(error, NodeError) for _, error in failures)
    assert "Encoding objects of type object is unsupported" in str(failures[0][1])


def test_what_strikes_from_outside_while_a_chunk_is_encoded_goes_on() -> None:
    class Once(set[int]):
        struck = False

        def __iter__(self) -> Iterator[int]:
            if not Once.struck:
                Once.struck = True
                raise KeyboardInterrupt
            return super().__iter__()

    with pytest.raises(KeyboardInterrupt):
        ADD.encode_items([1, Once([2])])
    assert ADD.encode_items([1, Once([2])]) == (encode([1, [2]]), [])


def test_nothing_is_lifted_in_a_chunk() -> None:
    big = bytes(BUFFER_BYTES_MIN)
    assert ADD.encode_items([big]) == (encode([big]), [])


# Tables


def test_lookup_by_full_and_by_unique_bare_name() -> None:
    served = DispatchTable.of({"a.add": add, "b.add": add, "b.wait": wait})
    assert [entry.name for entry in served.entries] == [
        "a.add",
        "b.add",
        "b.wait",
        "pronghorn.nodes",
    ]
    assert len(served) == 4
    assert served.lookup("b.add").index == 1
    assert served.lookup("wait") is served.lookup("b.wait")
    with pytest.raises(NotFoundError, match=r"ambiguous: a\.add, b\.add"):
        served.lookup("add")
    with pytest.raises(NotFoundError, match="no node named 'wiat'; did you mean 'wait'"):
        served.lookup("wiat")


def test_what_the_broker_is_told() -> None:
    served = table(add=add, wait=wait, ask=ask)
    assert served.node_table.digest == served.digest
    assert served.node_table.nodes == (
        NodeInfo("nodes.add", "inline", takes_context=False),
        NodeInfo("nodes.wait", "thread", takes_context=False),
        NodeInfo("nodes.ask", "async"),
        NodeInfo("pronghorn.nodes", "inline", takes_context=False),
    )


def test_the_digest_tells_tables_apart() -> None:
    def renamed(x: int, b: int = 1) -> int:
        return x + b

    digests = {
        table(add=add).digest,
        table(add=wait).digest,
        table(plus=add).digest,
        table(add=node(name="add")(renamed)).digest,
        table(add=add, wait=wait).digest,
        table(wait=wait, add=add).digest,
        table().digest,
    }
    assert len(digests) == 7
    assert table(add=add).digest == table(add=add).digest


def test_a_refused_definition() -> None:
    with pytest.raises(NodeDefinitionError, match=r"nodes\.bad .*\*args"):
        table(bad=node(name="bad")(lambda *args: 0))


def test_a_definition_that_only_msgspec_refuses() -> None:
    class Odd(msgspec.Struct):
        def __hash__(self) -> int:
            return 1

    def bad(a: Any = Odd()) -> None: ...  # noqa: B008

    with pytest.raises(NodeDefinitionError, match=r"nodes\.bad can't be compiled: "):
        table(bad=node(bad))


def test_our_own_names_can_not_be_taken() -> None:
    with pytest.raises(NodeDefinitionError, match="names that begin with pronghorn"):
        DispatchTable.of({"pronghorn.nodes": add})


def test_the_builtin_node_describes_the_users_nodes() -> None:
    served = DispatchTable.of({"a.add": add, "b.add": add, "b.wait": wait})
    builtin = served.lookup("pronghorn.nodes")
    assert builtin.kind == "inline"
    raw, buffers = builtin.encode(builtin.invoke(builtin.decode(b"\xc0")))
    assert not buffers
    descriptions = decode(raw, type=list[NodeDescription])
    assert [(each.name, each.aliases) for each in descriptions] == [
        ("a.add", ()),
        ("b.add", ()),
        ("b.wait", ("wait",)),
    ]
    assert descriptions[0].doc == "Sum of two integers."
    assert served.descriptions() is served.descriptions()
