"""Mirror of worker/description.py."""

import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from shown import shown

from pronghorn.broker.wire.values import NodeDescription
from pronghorn.worker import Context, node
from pronghorn.worker.codec import ParamsCodec
from pronghorn.worker.description import describe
from pronghorn.worker.signature import read_signature


class Cart(msgspec.Struct):
    items: list[int]


def described(function: Callable[..., Any], *aliases: str) -> NodeDescription:
    signature = read_signature("nodes.it", node(name="it")(function))
    return describe(signature, ParamsCodec(signature), aliases)


def test_a_description() -> None:
    async def it(a: int, ctx: Context, b: str | None = None) -> dict[str, int]:
        """Do it.

        Twice.
        """
        return {}

    assert described(it, "it") == NodeDescription(
        name="nodes.it",
        aliases=("it",),
        kind="async",
        signature="it(a: int, b: str | None = None) -> dict[str, int]",
        doc="Do it.\n\nTwice.",
        params={
            "title": "it",
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
            "required": ["a"],
            "additionalProperties": False,
        },
        result={"type": "object", "additionalProperties": {"type": "integer"}},
    )


def test_nothing_known() -> None:
    def it(x): ...  # type: ignore[no-untyped-def]

    description = described(it)
    assert (description.doc, description.result) == ("", {})
    assert description.params["properties"] == {"x": {}}


def test_own_types_are_defined_beside() -> None:
    def it(cart: Annotated[Cart, msgspec.Meta(description="what to buy")]) -> Cart: ...

    description = described(it)
    assert description.params["$defs"]["Cart"]["properties"]["items"]["type"] == "array"
    assert description.params["required"] == ["cart"]
    assert "Cart" in description.result["$defs"]


def test_arrays() -> None:
    def it(x: np.ndarray) -> np.ndarray: ...  # type: ignore[type-arg]

    assert described(it).result == {"type": "array", "description": "numpy array"}


@pytest.mark.parametrize("default", [len, object(), {1: {2j}}], ids=shown)
def test_defaults_that_json_does_not_know(default: Any) -> None:
    def it(a: int, b: Any = default, *, c: list[int] = [1]) -> None: ...  # noqa: B006

    assert described(it).params == {
        "title": "it",
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {},
            "c": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["a"],
        "additionalProperties": False,
    } or isinstance(default, dict)  # a mutable default is left out by msgspec itself


def test_a_type_without_a_schema() -> None:
    def it(a: msgspec.Raw) -> msgspec.Raw: ...

    description = described(it)
    assert description.params["properties"]["a"] == {}
    assert description.result == {}


def test_the_doc_is_the_wrapped_functions() -> None:
    @functools.lru_cache
    def it() -> None:
        """Cached."""

    assert described(it).doc == "Cached."


def test_an_odd_docstring() -> None:
    def it() -> None: ...

    it.__doc__ = 5  # type: ignore[assignment]
    assert described(it).doc == ""


def test_a_description_travels() -> None:
    description = described(lambda a=1: a)
    raw = msgspec.msgpack.encode([description])
    assert msgspec.msgpack.decode(raw, type=list[NodeDescription]) == [description]


def test_a_streaming_node_is_described_by_the_list_of_its_parts() -> None:
    def it() -> Iterator[int]:
        yield 1

    description = described(it)
    assert (description.kind, description.streams) == ("inline", True)
    assert description.result == {"type": "array", "items": {"type": "integer"}}
    assert not described(lambda: 1).streams
