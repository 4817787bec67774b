"""Describes a node for people and for programs that generate calls; made when it is asked for.

Mirror: tests/worker/test_description.py.
"""

import inspect
from typing import Any

import msgspec

from pronghorn.broker.wire.values import NodeDescription, is_array_type

from .codec import ParamsCodec
from .node import innermost
from .signature import EMPTY, Signature


def describe(
    signature: Signature, codec: ParamsCodec, aliases: tuple[str, ...] = ()
) -> NodeDescription:
    """Describe a node; some 100 us."""
    doc = innermost(signature.function).__doc__
    return NodeDescription(
        name=signature.name,
        aliases=aliases,
        kind=signature.kind,
        signature=signature.text,
        doc=inspect.cleandoc(doc) if isinstance(doc, str) else "",
        params=_params_schema(signature, codec),
        result={} if signature.result is EMPTY else _schema(signature.result) or {},
        streams=signature.streams,
    )


def _params_schema(signature: Signature, codec: ParamsCodec) -> dict[str, Any]:
    schema = _schema(codec.by_name)
    if schema is not None:
        definitions = schema.pop("$defs")
        own = definitions.pop(schema.pop("$ref").removeprefix("#/$defs/"))
        own["additionalProperties"] = False
        return {**own, "$defs": definitions} if definitions else own
    # A default that JSON does not know: each parameter by itself, without the defaults.
    return {
        "title": signature.name.rpartition(".")[2],
        "type": "object",
        "properties": {each.name: _schema(each.annotation) or {} for each in signature.parameters},
        "required": list(signature.required_names),
        "additionalProperties": False,
    }


def _schema(annotation: Any) -> dict[str, Any] | None:
    try:
        return msgspec.json.schema(annotation, schema_hook=_schema_of_foreign)
    except Exception:  # a type or default that has no place in JSON
        return None


def _schema_of_foreign(annotation: Any) -> dict[str, Any]:
    assert is_array_type(annotation), "signatures have no other foreign types"
    return {"type": "array", "description": "numpy array"}
