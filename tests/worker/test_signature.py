"""Mirror of worker/signature.py."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from pronghorn.worker import Context, NodeDefinitionError, node
from pronghorn.worker.signature import EMPTY, Signature, read_signature

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]

THIS_FILE = __file__


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Cart(msgspec.Struct):
    items: list[Point]


class Options(TypedDict, total=False):
    depth: int


class Pair(NamedTuple):
    a: int
    b: str = ""


class Strange:
    pass


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


def read(function: Callable[..., Any], name: str = "nodes.it") -> Signature:
    return read_signature(name, node(name="it")(function))


def refusal(function: Callable[..., Any]) -> str:
    with pytest.raises(NodeDefinitionError) as caught:
        read(function)
    return str(caught.value)


def test_parameters_in_order() -> None:
    def it(a: int, /, b: str = "x", *, c: float | None = None, d: bool) -> list[int]: ...

    signature = read(it)
    assert [
        (each.name, each.field, each.annotation, each.default, each.by_position)
        for each in signature.parameters
    ] == [
        ("a", "p0", int, EMPTY, True),
        ("b", "p1", str, "x", True),
        ("c", "p2", float | None, None, False),
        ("d", "p3", bool, EMPTY, False),
    ]
    assert signature.required_names == ("a", "d")
    assert [each.name for each in signature.by_position] == ["a", "b"]
    assert signature.arguments == "p.p0, p.p1, c=p.p2, d=p.p3"
    assert signature.result == list[int]
    assert not signature.takes_context
    assert signature.text == (
        "it(a: int, /, b: str = 'x', *, c: float | None = None, d: bool) -> list[int]"
    )


def test_nothing_annotated() -> None:
    def it(a, b=1): ...  # type: ignore[no-untyped-def]

    signature = read(it)
    assert [each.annotation for each in signature.parameters] == [Any, Any]
    assert signature.result is EMPTY
    assert signature.text == "it(a, b=1)"


@pytest.mark.parametrize(
    "annotation",
    [
        int, float, str, bytes, bytearray, memoryview, bool, None, Any, object,
        list, list[int], dict, dict[str, int], dict[int, list[str]], tuple, tuple[int, str],
        tuple[int, ...], set[str], frozenset[int], Sequence[int], Mapping[str, Any],
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
        uuid.UUID, decimal.Decimal, Colour, Point, Cart, Options, Pair,
        int | None, int | str | list[int] | None, Literal["a", "b"], Literal[1, None],
        Annotated[int, msgspec.Meta(ge=0)], msgspec.Raw, msgspec.UnsetType | int,
        np.ndarray, npt.NDArray[np.float64], np.ndarray | None, list[np.ndarray],
    ],
    ids=str,
)  # fmt: skip
def test_types_that_travel(annotation: Any) -> None:
    def it(x):  # type: ignore[no-untyped-def]
        ...

    it.__annotations__ = {"x": annotation}
    wanted = {None: type(None), object: Any}.get(annotation, annotation)
    assert read(it).parameters[0].annotation == wanted


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Strange, "values of `.*test_signature.Strange` can't travel"),
        (list[Strange], "values of `.*test_signature.Strange` can't travel"),
        (dict[str, tuple[Strange, ...]], "values of `.*test_signature.Strange` can't travel"),
        (Strange | None, "values of `.*test_signature.Strange` can't travel"),
        (Strange | int, "may not contain any additional types"),
        (complex, "values of `complex` can't travel"),
        (Path, "values of `pathlib.Path` can't travel"),
        (Callable[[int], int], "values of `collections.abc.Callable` can't travel"),
        (np.float64, "values of `numpy.float64` can't travel"),
        (Point | Pair | dict[str, int], "may not contain more than one"),
        (Point | Cart, "may not contain more than one|must be tagged"),
        (str | bytes, "more than one str-like type"),
        (Literal[1.5], "Literal may only contain"),
        (5, "is not supported|must be a type|Forward"),
        (Context | None, "values of `pronghorn.worker.context.Context` can't travel"),
    ],
    ids=str,
)
def test_types_that_do_not(annotation: Any, reason: str) -> None:
    def it(x):  # type: ignore[no-untyped-def]
        ...

    it.__annotations__ = {"x": annotation}
    with pytest.raises(NodeDefinitionError, match=reason) as caught:
        read(it)
    line = it.__code__.co_firstlineno
    assert str(caught.value).startswith(f"node nodes.it ({THIS_FILE}:{line}): parameter `x`: its")


def test_a_strange_type_deep_in_a_users_type_is_found() -> None:
    @dataclasses.dataclass
    class Tree:
        leaf: Strange
        # A type that refers to itself must not keep the search going round.

    assert "Strange` can't travel" in refusal(_takes(Tree))
    assert read(_takes(Recursive)).parameters[0].annotation is Recursive


class Recursive(msgspec.Struct):
    next: Recursive | None = None


def _takes(annotation: Any) -> Callable[..., Any]:
    def it(x):  # type: ignore[no-untyped-def]
        ...

    it.__annotations__ = {"x": annotation}
    return it


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda *args: 0, "parameter `*args`: can't be served: take a list instead"),
        (lambda **kw: 0, "parameter `**kw`: can't be served: name the parameters, or take a dict"),
    ],
)
def test_variadic_parameters_are_refused(function: Callable[..., Any], reason: str) -> None:
    assert refusal(function).endswith(reason)


def test_names_that_exist_for_the_type_checker_only() -> None:
    def it(x: Missing) -> None: ...

    text = refusal(it)
    assert "parameter `x`: its annotation can't be resolved: name 'Missing' is not defined" in text
    assert "TYPE_CHECKING" in text


def test_a_result_that_can_not_be_typed_is_no_reason_to_refuse() -> None:
    def unknown() -> Missing: ...

    def strange() -> Strange: ...

    assert read(unknown).result is EMPTY
    assert read(unknown).text == "it() -> Missing"
    assert read(strange).result is EMPTY
    assert read(strange).text == "it() -> Strange"


def test_strings_inside_annotations() -> None:
    def it(x: list["Point"]) -> dict[str, "Cart"]: ...  # noqa: UP037

    signature = read(it)
    assert signature.parameters[0].annotation == list[Point]
    assert signature.result == dict[str, Cart]


def test_object_is_anything() -> None:
    def it(x: object) -> None: ...

    assert read(it).parameters[0].annotation is Any


def test_annotated_keeps_its_constraint() -> None:
    def it(x: Annotated[int, msgspec.Meta(gt=3)]) -> None: ...

    assert read(it).parameters[0].annotation == Annotated[int, msgspec.Meta(gt=3)]


# Kinds


def test_kinds() -> None:
    def plain() -> None: ...

    async def waits() -> None: ...

    @functools.wraps(waits)
    def wrapped() -> Any:
        return waits()

    assert read(plain).kind == "inline"
    assert read_signature("nodes.plain", node(thread=True)(plain)).kind == "thread"
    assert (read(waits).kind, read(waits).awaits_wrapped) == ("async", False)
    assert (read(wrapped).kind, read(wrapped).awaits_wrapped) == ("async", True)
    assert read(functools.lru_cache(plain)).kind == "inline"


def test_generators_stream() -> None:
    def stream() -> Generator[int]:
        yield 1

    async def async_stream() -> AsyncIterator[str]:
        yield "a"

    def untyped() -> Any:
        yield 1

    assert [(read(one).kind, read(one).streams) for one in (stream, async_stream, untyped)] == [
        ("inline", True),
        ("async", True),
        ("inline", True),
    ]
    assert read_signature("nodes.it", node(thread=True)(stream)).kind == "thread"
    assert [read(one).result for one in (stream, async_stream, untyped)] == [
        list[int],
        list[str],
        list[Any],
    ]
    assert read(stream).text == "it() -> collections.abc.Generator[int]"
    assert not read(async_stream).awaits_wrapped
    assert "remove it" in refusal(functools.lru_cache(stream))

    @functools.wraps(stream)
    def collected() -> list[int]:
        return list(stream())

    assert (read(collected).kind, read(collected).streams) == ("inline", False)
    assert read(collected).identity != read(stream).identity


def test_async_in_threads_and_caches_is_refused() -> None:
    async def waits() -> None: ...

    with pytest.raises(NodeDefinitionError, match="thread=True is for a def"):
        read_signature("nodes.waits", node(thread=True)(waits))
    assert "remove it" in refusal(functools.lru_cache(waits))


# Context


def test_a_context_is_no_parameter() -> None:
    def it(a: int, ctx: Context, b: int, *, c: int = 0) -> None: ...

    signature = read(it)
    assert signature.takes_context
    assert signature.arguments == "p.p0, ctx, p.p1, c=p.p2"
    assert signature.text == "it(a: int, b: int, *, c: int = 0) -> None"

    def keyword(a: int, *, log_to: Context) -> None: ...

    assert read(keyword).arguments == "p.p0, log_to=ctx"


def test_two_contexts_are_refused() -> None:
    def it(a: Context, b: Context) -> None: ...

    assert refusal(it).endswith("it has more than one parameter of type Context: keep one")


# Defaults


def test_mutable_defaults_are_copied_and_others_are_not() -> None:
    sentinel = object()
    shared: list[Any] = [1, [2]]

    def it(a: Any = shared, b: Any = sentinel, c: Any = (1, 2), d: Any = (1, [2])) -> None: ...

    a, b, c, d = read(it).parameters
    assert [each.copied for each in (a, b, c, d)] == [True, False, False, True]
    assert a.fresh_default() == shared
    assert a.fresh_default() is not shared
    assert a.fresh_default()[1] is not shared[1]
    assert b.fresh_default() is sentinel
    assert d.fresh_default()[1] is not d.default[1]


def test_a_default_that_can_not_be_copied_is_refused() -> None:
    class Stubborn:
        __hash__ = None  # type: ignore[assignment]

        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

    def it(a: Any = Stubborn()) -> None: ...  # noqa: B008

    assert "parameter `a`: its default can't be copied for each call (no copies)" in refusal(it)


def test_defaults_in_the_text_are_short_and_without_addresses() -> None:
    def it(a: Any = object(), b: str = "x" * 500, c: Any = Broken(), d: Any = len) -> None: ...  # noqa: B008

    text = read(it).text
    assert "a: Any = <object object>" in text
    assert "b: str = '" + "x" * 79 + "..." in text
    assert "c: Any = <" in text
    assert "Broken>, d: Any = <built-in function len>" in text
    assert "0x" not in text


# Names, places and identity


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(NodeDefinitionError, match="longer than 255 bytes"):
        read_signature("m." + "n" * 254, node(name="it")(lambda: 0))


def test_a_signature_that_can_not_be_read_is_refused() -> None:
    def it() -> None: ...

    it.__signature__ = 5  # type: ignore[attr-defined]
    assert "its signature can't be read" in refusal(it)


def test_odd_parameter_names() -> None:
    def it(
        self: int, p0: int, __struct_fields__: int, name: int, rename: int, größe: int
    ) -> None: ...

    signature = read(it)
    assert [each.name for each in signature.parameters] == [
        "self", "p0", "__struct_fields__", "name", "rename", "größe",
    ]  # fmt: skip
    assert signature.arguments == "p.p0, p.p1, p.p2, p.p3, p.p4, p.p5"


def test_identity_is_equal_for_equal_definitions_only() -> None:
    def make(default: Any) -> Callable[..., Any]:
        def it(a: int, b: Any = default) -> None: ...

        return it

    def other(a: int, b: Any) -> None: ...

    def typed(a: str, b: Any = 1) -> None: ...

    assert read(make(object())).identity == read(make({"x", "y"})).identity
    assert len({read(each).identity for each in (make(1), other, typed)}) == 3
    assert read(other, "nodes.a").identity != read(other, "nodes.b").identity
    with_address = Annotated[int, msgspec.Meta(extra={"of": object()})]
    assert "0x" not in read(_takes(with_address)).identity
