"""Mirror of client/cli/schematypes.py."""

from typing import Any

import pytest

from pronghorn.broker.wire.values import NodeDescription
from pronghorn.client.cli.schematypes import (
    ANY,
    AnyOf,
    Api,
    Choice,
    Field,
    Listed,
    Mapped,
    Named,
    Plain,
    Record,
    Row,
    Type,
    api_of,
)

INT, STR = Plain("int"), Plain("str")


def node(name: str, params: Any = None, result: Any = None, streams: bool = False) -> Any:
    return NodeDescription(name, (), "inline", "", "", params or {}, result or {}, streams)


def result_type(schema: Any, **definitions: Any) -> Type:
    api = api_of([node("m.f", result={**schema, "$defs": definitions})])
    return api.modules["m"][0].result


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({}, ANY),
        ({"type": "invented"}, ANY),
        ({"type": "null"}, Plain("none")),
        ({"type": "boolean"}, Plain("bool")),
        ({"type": "integer"}, INT),
        ({"type": "number"}, Plain("float")),
        ({"type": "string"}, STR),
        ({"type": "string", "format": "uuid"}, STR),
        ({"type": "string", "format": "date-time"}, Plain("moment")),
        ({"type": "string", "contentEncoding": "base64"}, Plain("bytes")),
        ({"enum": ["a", 1, None]}, Choice(("a", 1, None))),
        ({"const": "a"}, Choice(("a",))),
        ({"type": "array", "items": {"type": "integer"}}, Listed(INT)),
        ({"type": "array", "description": "numpy array"}, ANY),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}, {}], "items": False},
            Row((INT, ANY)),
        ),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, Mapped(INT)),
        ({"type": "object"}, Mapped(ANY)),
        ({"type": "object", "additionalProperties": False}, Mapped(ANY)),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, AnyOf((INT, STR))),
        ({"$ref": "#/$defs/None"}, ANY),
    ],
)
def test_schemas(schema: Any, wanted: Type) -> None:
    assert result_type(schema) == wanted


def test_parameters_and_parts() -> None:
    params = {
        "properties": {"a": {"type": "integer"}, "b": {"type": "string", "default": "x"}},
        "required": ["a"],
    }
    api = api_of([node("m.f", params, {"type": "array", "items": {"type": "integer"}}, True)])
    [function] = api.modules["m"]
    assert function.parameters == (Field("a", INT, True), Field("b", STR, False, True, "x"))
    assert (function.result, function.streams) == (INT, True)


def record(*names: str) -> Any:
    return {"type": "object", "properties": {name: {"type": "integer"} for name in names}}


def test_records_of_one_name_that_differ_get_numbers() -> None:
    reference = {"$ref": "#/$defs/Point"}
    api = api_of(
        [
            node("m.f", result={**reference, "$defs": {"Point": record("x")}}),
            node("m.g", result={**reference, "$defs": {"Point": record("x")}}),
            node("n.f", result={**reference, "$defs": {"Point": record("y")}}),
        ]
    )
    assert [one.result for one in api.modules["m"]] == [Named("Point"), Named("Point")]
    assert api.modules["n"][0].result == Named("Point2")
    assert [(one.name, one.fields) for one in api.records] == [
        ("Point", (Field("x", INT, False),)),
        ("Point2", (Field("y", INT, False),)),
    ]


def test_records_may_be_recursive_and_oddly_named() -> None:
    tree = {
        "type": "object",
        "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Tree[int]"}}},
    }
    api = api_of([node("m.f", result={"$ref": "#/$defs/Tree[int]", "$defs": {"Tree[int]": tree}})])
    assert list(api.records) == [
        Record("Tree_int", (Field("kids", Listed(Named("Tree_int")), False),))
    ]


def test_what_is_no_object_is_another_name() -> None:
    api = api_of(
        [node("m.f", result={"$ref": "#/$defs/Colour", "$defs": {"Colour": {"enum": ["red"]}}})]
    )
    assert api == Api(api.modules, [Record("Colour", None, Choice(("red",)))])
