"""The nodes of the census as a workflow: what is where, and sums of what was measured.

Try it on a folder of yours::

    pronghorn run scripts/examples/survey.yaml folder=/usr/lib/python3 \\
        --with scripts/examples/survey.py --with scripts/examples/census.py \\
        --with scripts/examples/survey_folder.yaml
"""

import os
from typing import Any, TypedDict

from census import Measure

from pronghorn.worker import node

NOT_SOURCE = frozenset({"site-packages", "dist-packages", "__pycache__"})


class Place(TypedDict):
    """What is in a folder: its sub-folders with source, and its own files."""

    folders: list[str]
    files: list[str]


class Totals(TypedDict):
    """Sums over files; `longest` is the longest function."""

    files: int
    lines: int
    functions: int
    classes: int
    longest: dict[str, Any]


@node
def look(folder: str) -> Place:
    """List a folder."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    return {
        "folders": [each.path for each in entries if each.is_dir() and _is_source(each.name)],
        "files": [each.path for each in entries if each.is_file() and each.name.endswith(".py")],
    }


@node
def files_below(folder: str) -> list[str]:
    """List all Python files below a folder."""
    paths: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_source(name))
        found = (os.path.join(parent, name) for name in sorted(files) if name.endswith(".py"))
        paths.extend(path for path in found if os.path.isfile(path))
    return paths


@node
def sum_up(measures: list[Measure]) -> Totals:
    """Sum up what was measured."""
    readable = [each for each in measures if each.problem is None]
    functions = [
        {"lines": function.lines, "name": function.name, "path": each.path}
        for each in readable
        for function in each.longest[:1]
    ]
    return {
        "files": len(measures),
        "lines": sum(each.lines for each in readable),
        "functions": sum(each.functions for each in readable),
        "classes": sum(each.classes for each in readable),
        "longest": _longest(functions),
    }


@node
def merge(parts: list[Totals]) -> Totals:
    """Sum up sums."""
    return {
        "files": sum(each["files"] for each in parts),
        "lines": sum(each["lines"] for each in parts),
        "functions": sum(each["functions"] for each in parts),
        "classes": sum(each["classes"] for each in parts),
        "longest": _longest([each["longest"] for each in parts]),
    }


def _longest(functions: list[dict[str, Any]]) -> dict[str, Any]:
    return max(functions, key=lambda each: each.get("lines", 0), default={})


def _is_source(name: str) -> bool:
    return name not in NOT_SOURCE and not name.startswith(".")
