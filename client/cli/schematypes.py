"""The JSON Schemas of nodes as types that a stub can be written with. Pure.

Only what our own descriptions hold is understood, and `ANY` stands for all else.

Mirror: tests/client/cli/test_schematypes.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pronghorn.broker.wire.values import NodeDescription

_REFERENCE = "#/$defs/"


class Plain(NamedTuple):
    """A type without parts: `any`, `none`, `bool`, `int`, `float`, `str`, `bytes` or `moment`."""

    name: str


class Choice(NamedTuple):
    """One of some values: strings, integers, booleans, `None`."""

    values: tuple[Any, ...]


class Listed(NamedTuple):
    """An array of equal items."""

    item: "Type"


class Row(NamedTuple):
    """An array of so many items, each of its own type."""

    items: "tuple[Type, ...]"


class Mapped(NamedTuple):
    """An object with any names."""

    value: "Type"


class AnyOf(NamedTuple):
    """One of several types."""

    types: "tuple[Type, ...]"


class Named(NamedTuple):
    """A type of `Api.records`."""

    name: str


Type = Plain | Choice | Listed | Row | Mapped | AnyOf | Named

ANY = Plain("any")
_PLAIN = {
    "null": "none",
    "boolean": "bool",
    "integer": "int",
    "number": "float",
    "string": "str",
}


class Field(NamedTuple):
    """A field of a record, or a parameter of a node; `default` is a JSON value if `has_default`."""

    name: str
    type: Type
    required: bool
    has_default: bool = False
    default: Any = None


class Record(NamedTuple):
    """An object with known names; or, if it has no `fields`, another name for `same_as`."""

    name: str
    fields: tuple[Field, ...] | None
    same_as: Type | None = None


class Function(NamedTuple):
    """A node; `result` is that of each part if it `streams`."""

    node: str  # its full name
    name: str  # the last part of that
    doc: str
    parameters: tuple[Field, ...]
    result: Type
    streams: bool


class Api(NamedTuple):
    """All nodes by their modules, and the records that they take and return, in order of names."""

    modules: Mapping[str, Sequence[Function]]
    records: Sequence[Record]


def api_of(nodes: Sequence[NodeDescription]) -> Api:
    """Make the types of nodes."""
    reader = _Reader()
    modules: dict[str, list[Function]] = {}
    for node in sorted(nodes, key=lambda one: one.name):
        module, _, name = node.name.rpartition(".")
        modules.setdefault(module, []).append(reader.function(node, name))
    return Api(modules, sorted(reader.records.values(), key=lambda one: one.name))


class _Reader:
    """Reads schemas; records of one name that differ get numbers."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._schemas: dict[str, Any] = {}  # name of a record -> the schema that it was made of
        self._names: dict[str, str] = {}  # of the schema that is read: its name -> ours

    def function(self, node: NodeDescription, name: str) -> Function:
        self._define(node.params.get("$defs", {}))
        parameters = self._fields(node.params)
        self._define(node.result.get("$defs", {}))
        result = self.type(node.result)
        if node.streams:
            result = result.item if isinstance(result, Listed) else ANY
        return Function(node.name, name, node.doc, parameters, result, node.streams)

    def _define(self, definitions: Mapping[str, Any]) -> None:
        self._names = {name: self._name_for(name, schema) for name, schema in definitions.items()}
        for name, schema in definitions.items():
            ours = self._names[name]
            if ours in self.records:
                continue
            if schema.get("type") == "object" and "properties" in schema:
                self.records[ours] = Record(ours, self._fields(schema))
            else:
                self.records[ours] = Record(ours, None, self.type(schema))

    def _name_for(self, name: str, schema: Any) -> str:
        words = "".join(char if char.isalnum() else "_" for char in name).strip("_") or "Record"
        base = ours = words if words.isidentifier() else f"_{words}"
        number = 2
        while self._schemas.setdefault(ours, schema) != schema:
            ours = f"{base}{number}"
            number += 1
        return ours

    def _fields(self, schema: Mapping[str, Any]) -> tuple[Field, ...]:
        required = set(schema.get("required", ()))
        return tuple(
            Field(name, self.type(one), name in required, "default" in one, one.get("default"))
            for name, one in schema.get("properties", {}).items()
        )

    def type(self, schema: Any) -> Type:
        """Make the type that a schema describes."""
        if not isinstance(schema, Mapping):
            return ANY
        if "$ref" in schema:
            ours = self._names.get(schema["$ref"].removeprefix(_REFERENCE))
            return Named(ours) if ours is not None else ANY
        if "anyOf" in schema:
            return AnyOf(tuple(dict.fromkeys(self.type(one) for one in schema["anyOf"])))
        if "enum" in schema:
            return Choice(tuple(schema["enum"]))
        if "const" in schema:
            return Choice((schema["const"],))
        kind = schema.get("type")
        if kind == "array":
            return self._array(schema)
        if kind == "object":
            return Mapped(self.type(schema.get("additionalProperties", {})))
        if kind == "string" and schema.get("contentEncoding") == "base64":
            return Plain("bytes")
        if kind == "string" and schema.get("format") == "date-time":
            return Plain("moment")
        return Plain(_PLAIN[kind]) if kind in _PLAIN else ANY

    def _array(self, schema: Mapping[str, Any]) -> Type:
        if "prefixItems" in schema and not schema.get("items"):
            return Row(tuple(self.type(one) for one in schema["prefixItems"]))
        if "items" not in schema and "prefixItems" not in schema:
            return ANY  # of what, or whether an array at all (numpy's are not), is not said
        return Listed(self.type(schema.get("items", {})))
