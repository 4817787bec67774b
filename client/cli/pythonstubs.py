"""Typed clients in Python: a module with a class over `Client` and one over `AsyncClient`. Pure.

What a node takes is checked by a type checker, and so is what is made of its result; at run time
the stubs do nothing but call.

Mirror: tests/client/cli/test_pythonstubs.py.
"""

import keyword
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
    "any": "Any",
    "none": "None",
    "bool": "bool",
    "int": "int",
    "float": "float",
    "str": "str",
    "bytes": "bytes",
    "moment": "datetime",
}
_HEAD = '''\
"""Typed calls of nodes. Made by `pronghorn stubs --lang python`; changes will be lost.

    nodes = Nodes(Client())            # or AsyncNodes(AsyncClient())
    nodes.{example}

Options of calls are those of the client: `Nodes(client.within(timeout_s=1.0))`.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal, NotRequired, TypeAlias, TypedDict

from pronghorn.client import AsyncClient, Client
from pronghorn.client.streaming import AsyncStream, Stream

__all__ = ["AsyncNodes", "Nodes"]


class _Omitted(Enum):
    """Stands for an argument that is not given: the node has its own default."""

    OMITTED = "OMITTED"


_OMITTED: Final = _Omitted.OMITTED


def _given(**arguments: Any) -> dict[str, Any]:
    return {{name: value for name, value in arguments.items() if value is not _OMITTED}}
'''


def python_stubs(api: Api) -> str:
    """Write the module."""
    example = next(
        (f"{_attribute(module)}.{one.name}(...)" for module, [one, *_] in api.modules.items()),
        "...",
    )
    parts = [_HEAD.format(example=example)]
    parts += [_record(record) for record in api.records]
    for is_async in (False, True):
        for module, functions in api.modules.items():
            parts.append(_module(module, functions, is_async=is_async))
        parts.append(_nodes(api, is_async=is_async))
    return "\n\n".join(parts)


def _nodes(api: Api, *, is_async: bool) -> str:
    prefix = "Async" if is_async else ""
    lines = [
        f"class {prefix}Nodes:",
        f'    """The nodes of all modules, over {"an" if is_async else "a"} `{prefix}Client`."""',
        "",
        f"    def __init__(self, client: {prefix}Client) -> None:",
    ]
    lines += [
        f"        self.{_attribute(module)}: Final = {_class(module, is_async=is_async)}(client)"
        for module in api.modules
    ] or ["        self._client = client"]
    return "\n".join(lines) + "\n"


def _module(module: str, functions: Sequence[Function], *, is_async: bool) -> str:
    client = "AsyncClient" if is_async else "Client"
    lines = [
        f"class {_class(module, is_async=is_async)}:",
        f'    """Nodes of {module or "no module"}."""',
        "",
        f"    def __init__(self, client: {client}) -> None:",
        "        self._client = client",
    ]
    for function in functions:
        lines += ["", *_function(function, is_async=is_async)]
    return "\n".join(lines) + "\n"


def _function(function: Function, *, is_async: bool) -> Iterator[str]:
    if not _is_name(function.name):
        yield f"    # {function.node} has a name that Python does not allow."
        return
    result = type_text(function.result)
    returns = f"{'AsyncStream' if is_async else 'Stream'}[{result}]" if function.streams else result
    definition = "async def" if is_async and not function.streams else "def"
    parameters = "".join(f", {one}" for one in _parameters(function.parameters))
    yield f"    {definition} {function.name}(self, /{parameters}) -> {returns}:"
    if function.doc:
        first, *rest = _docstring(function.doc).splitlines()
        yield f'        """{first}' + ("" if rest else '"""')
        yield from (f"        {line}".rstrip() for line in rest)
        if rest:
            yield '        """'
    given = ", ".join(f"{one.name}={one.name}" for one in function.parameters)
    call = "stream" if function.streams else "call"
    awaited = "await " if is_async and not function.streams else ""
    made = f'{awaited}self._client.{call}("{function.node}", params=_given({given}))'
    if returns == "None":
        yield f"        {made}"
    elif returns == "Any":
        yield f"        return {made}"
    else:
        yield f"        _result: {returns} = {made}"
        yield "        return _result"


def _parameters(fields: Sequence[Field]) -> Iterator[str]:
    """Give the parameters; by name only, where an optional one comes before one that is not."""
    optional = [not field.required for field in fields]
    if optional != sorted(optional):
        yield "*"
    for field in fields:
        if field.required:
            yield f"{field.name}: {type_text(field.type)}"
        elif field.has_default and isinstance(field.default, bool | int | float | str | None):
            yield f"{field.name}: {type_text(field.type)} = {field.default!r}"
        else:
            yield f"{field.name}: {type_text(field.type)} | _Omitted = _OMITTED"


def _record(record: Record) -> str:
    if record.fields is None:
        assert record.same_as is not None
        return f"{record.name}: TypeAlias = {_quoted(type_text(record.same_as))}\n"
    if all(_is_name(field.name) for field in record.fields):
        lines = [f"class {record.name}(TypedDict):"]
        lines += [f"    {field.name}: {_field(field)}" for field in record.fields] or ["    pass"]
        return "\n".join(lines) + "\n"
    lines = [f"{record.name} = TypedDict(", f'    "{record.name}",', "    {"]
    lines += [f"        {field.name!r}: {_quoted(_field(field))}," for field in record.fields]
    return "\n".join([*lines, "    },", ")"]) + "\n"


def _field(field: Field) -> str:
    text = type_text(field.type)
    return text if field.required else f"NotRequired[{text}]"


def type_text(found: Type) -> str:
    """Write a type, as an annotation."""
    match found:
        case Plain(name):
            return _PLAIN[name]
        case Named(name):
            return name
        case Choice(values):
            return f"Literal[{', '.join(map(repr, values))}]"
        case Listed(item):
            return f"list[{type_text(item)}]"
        case Row(items):
            # Tuples are arrays on the wire, and come as lists: both can be indexed and unpacked.
            return f"list[{_union([type_text(one) for one in items]) or 'Any'}]"
        case Mapped(value):
            return f"dict[str, {type_text(value)}]"
    return _union([type_text(one) for one in found.types])


def _union(texts: Sequence[str]) -> str:
    return "Any" if "Any" in texts else " | ".join(dict.fromkeys(texts))


def _quoted(text: str) -> str:
    """Write a type where it would be evaluated, but names may stand for what comes later."""
    return repr(text)


def _attribute(module: str) -> str:
    name = module.replace(".", "_") or "nodes"
    return f"{name}_" if keyword.iskeyword(name) else name


def _class(module: str, *, is_async: bool) -> str:
    words = "".join(word[:1].upper() + word[1:] for word in module.replace(".", "_").split("_"))
    return f"{'_Async' if is_async else '_'}{words}"


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


def _docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
