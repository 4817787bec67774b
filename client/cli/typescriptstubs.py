"""Typed clients in TypeScript: a module with a class over any client of the protocol. Pure.

Mirror: tests/client/cli/test_typescriptstubs.py.
"""

import json
from collections.abc import Iterator, Sequence

from .schematypes import (
    Api,
    Choice,
    Field,
    Function,
    Listed,
    Mapped,
    Named,
    Plain,
    Record,
    Row,
    Type,
)

_PLAIN = {
    "any": "unknown",
    "none": "null",
    "bool": "boolean",
    "int": "number",
    "float": "number",
    "str": "string",
    "bytes": "Uint8Array",
    "moment": "Date",
}
_HEAD = """\
// Typed calls of nodes. Made by `pronghorn stubs --lang typescript`; changes will be lost.
//
//   const nodes = new Nodes(client);
//   await nodes.{example};

/** What makes the calls: params by name, options as the client has them. */
export interface Caller<Options> {{
  call(node: string, params: object, options?: Options): Promise<unknown>;
  stream(node: string, params: object, options?: Options): AsyncIterable<unknown>;
}}
"""


def typescript_stubs(api: Api) -> str:
    """Write the module."""
    example = next(
        (f"{_name(module)}.{one.name}({{ ... }})" for module, [one, *_] in api.modules.items()),
        "...",
    )
    parts = [_HEAD.format(example=example)]
    parts += [_record(record) for record in api.records]
    parts.append("\n".join(_nodes(api)) + "\n")
    return "\n".join(parts)


def _nodes(api: Api) -> Iterator[str]:
    yield "/** The nodes of all modules. */"
    yield "export class Nodes<Options = object> {"
    yield "  readonly #caller: Caller<Options>;"
    yield ""
    yield "  constructor(caller: Caller<Options>) {"
    yield "    this.#caller = caller;"
    yield "  }"
    for module, functions in api.modules.items():
        yield ""
        yield f"  readonly {_name(module)} = {{"
        for function in functions:
            yield from _function(function)
        yield "  };"
    yield "}"


def _function(function: Function) -> Iterator[str]:
    if function.doc:
        lines = function.doc.replace("*/", "* /").splitlines()
        yield f"    /** {lines[0]}" + (" */" if len(lines) == 1 else "")
        yield from (f"     * {line}".rstrip() for line in lines[1:])
        if len(lines) > 1:
            yield "     */"
    wrapper, call = ("AsyncIterable", "stream") if function.streams else ("Promise", "call")
    result = f"{wrapper}<{type_text(function.result)}>"
    optional = not any(one.required for one in function.parameters)
    params = f"params: {_fields(function.parameters)}" + (" = {}" if optional else "")
    yield f"    {_key(function.name)}: ({params}, options?: Options): {result} =>"
    yield f"      this.#caller.{call}({json.dumps(function.node)}, params, options) as {result},"


def _record(record: Record) -> str:
    if record.fields is None:
        assert record.same_as is not None
        return f"export type {record.name} = {type_text(record.same_as)};\n"
    lines = [f"  {_key(one.name)}{_mark(one)}: {type_text(one.type)};" for one in record.fields]
    return "\n".join([f"export interface {record.name} {{", *lines, "}"]) + "\n"


def _fields(fields: Sequence[Field]) -> str:
    if not fields:
        return "Record<string, never>"
    inner = "; ".join(f"{_key(one.name)}{_mark(one)}: {type_text(one.type)}" for one in fields)
    return f"{{ {inner} }}"


def _mark(field: Field) -> str:
    return "" if field.required else "?"


def type_text(found: Type) -> str:
    """Write a type."""
    match found:
        case Plain(name):
            return _PLAIN[name]
        case Named(name):
            return name
        case Choice(values):
            return " | ".join(json.dumps(value) for value in values)
        case Listed(item):
            return f"Array<{type_text(item)}>"
        case Row(items):
            return f"[{', '.join(type_text(one) for one in items)}]"
        case Mapped(value):
            return f"Record<string, {type_text(value)}>"
    return " | ".join(dict.fromkeys(type_text(one) for one in found.types))


def _name(module: str) -> str:
    return _key(module.replace(".", "_") or "nodes")


def _key(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else json.dumps(name)
