"""A node that measures Python source: one call reads, parses and measures one file.

Try it on a file of yours::

    pronghorn serve scripts/examples/census.py
    pronghorn call measure path=/path/to/a/file.py
"""

import ast
import os
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from pronghorn.worker import node

LONGEST_KEPT = 10  # functions reported of a file: enough to find the ten longest of all files


@dataclass(frozen=True)
class Function:
    """A function and how many lines its definition has."""

    name: str
    first_line: int
    lines: int


@dataclass(frozen=True)
class Measure:
    """What one file holds.

    Attributes:
        path: As it was given.
        size: Bytes.
        lines: Number of lines.
        functions: Number of functions and methods, nested ones included.
        classes: Number of classes.
        longest: The longest functions, longest first, at most `LONGEST_KEPT`.
        imports: Top-level names of the modules it imports, relative imports left out.
        problem: Why the file could not be read or parsed, `None` when it could.
    """

    path: str
    size: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    longest: tuple[Function, ...] = ()
    imports: tuple[str, ...] = ()
    problem: str | None = None


@node
def measure(path: str) -> Measure:
    """Measure one Python file; a file that can't be parsed gives a note instead of an error."""
    size = 0
    try:
        size = os.stat(path).st_size
        with tokenize.open(path) as file:  # reads the encoding that the file declares
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the measured code, which is not ours to mend
            tree = ast.parse(source)
    # Damaged source ends in any of these: MemoryError and RecursionError stand for nesting that the
    # parser can't follow, ValueError for null bytes and undecodable text.
    except (OSError, SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return Measure(path, size, problem=_explain(error))
    functions: list[Function] = []
    imports: set[str] = set()
    classes = 0
    for statement in _statements(tree):
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions.append(_function(statement))
            case ast.ClassDef():
                classes += 1
            case ast.Import():
                imports.update(alias.name.partition(".")[0] for alias in statement.names)
            case ast.ImportFrom(module=str(module), level=0):
                imports.add(module.partition(".")[0])
    return Measure(
        path,
        size,
        lines=source.count("\n") + (not source.endswith("\n") and source != ""),
        functions=len(functions),
        classes=classes,
        longest=longest(functions),
        imports=tuple(sorted(imports)),
    )


def longest(functions: list[Function]) -> tuple[Function, ...]:
    """Give the longest functions, longest first, at most `LONGEST_KEPT`."""
    return tuple(sorted(functions, key=lambda each: each.lines, reverse=True)[:LONGEST_KEPT])


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Walk over all statements; only statements are followed, which is quicker than `ast.walk`."""
    pending: list[ast.AST] = [tree]
    while pending:
        parent = pending.pop()
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            for child in getattr(parent, field, ()):
                yield child
                pending.append(child)


def _function(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    last_line = definition.end_lineno or definition.lineno
    return Function(definition.name, definition.lineno, last_line - definition.lineno + 1)


def _explain(error: Exception) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f"line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {error}"
