"""Reads a definition, YAML or JSON, into plain values that know their lines.

Values are composed here from PyYAML's events: its own composer follows anchors without a bound,
takes the last of two equal keys in silence, and recurses as deep as the text is nested. Scalars are
those of YAML 1.2: ``yes`` and ``on`` are text.

Mirror: tests/worker/flow/test_document.py.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)

from .limits import DEFINITION_BYTES_MAX, DEFINITION_DEPTH_MAX, DEFINITION_NODES_MAX, PROBLEMS_MAX

Path = tuple[str | int, ...]
"""Keys and indexes from the outermost value to one within."""


class Mark(NamedTuple):
    """A place in the text, both from 1."""

    line: int
    column: int


class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong with a definition.

    Attributes:
        message: What, and what to do.
        path: Where: ``tasks.check.retry.count``; empty for the whole.
        line: In the text, from 1; None where the definition was no text.
        column: The same.
    """

    message: str
    path: str = ""
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = f"{self.line}:{self.column}: " if self.line is not None else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class DefinitionError(ValueError):
    """A definition is refused.

    Attributes:
        problems: All that is wrong with it, in the order of the text, at most `PROBLEMS_MAX`.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        found = sorted(problems, key=lambda each: (each.line or 0, each.column or 0))
        self.problems = tuple(found[:PROBLEMS_MAX])
        left_out = len(found) - len(self.problems)
        more = [f"and {left_out} more"] if left_out else []
        super().__init__("\n".join([*map(str, self.problems), *more]))


class Document(msgspec.Struct, frozen=True):
    """A definition as it was written.

    Attributes:
        value: Its outermost value.
        marks: Where values begin; for the value under a key where the key begins.
        problems: What is wrong with the text itself, such as a key given twice.
    """

    value: Any
    marks: dict[Path, Mark]
    problems: tuple[Problem, ...] = ()

    def mark(self, path: Path) -> Mark | None:
        """Find where a value begins, or the innermost one around it."""
        while path not in self.marks:
            if not path:
                return None
            path = path[:-1]
        return self.marks[path]


def dotted(path: Path) -> str:
    """Write a path as people do: ``tasks.check.next[0].do``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def read_document(text: str | bytes) -> Document:
    """Read a definition from text.

    Raises:
        DefinitionError: It is too large, not UTF-8, or neither YAML nor JSON.
    """
    if len(text) > DEFINITION_BYTES_MAX:
        raise DefinitionError(
            [Problem(f"{len(text)} bytes are too many, the limit is {DEFINITION_BYTES_MAX}")]
        )
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return _Composer().compose(yaml.parse(decoded, Loader=_LOADER))
    except UnicodeDecodeError as error:
        raise DefinitionError([Problem(f"it is not UTF-8: {error}")]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        what = " ".join(filter(None, (error.context, error.problem)))
        raise DefinitionError([Problem(f"not YAML: {what}", "", *place)]) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise DefinitionError([Problem(f"not YAML: {error}")]) from error


def check_value(value: Any) -> None:
    """Check the size of a definition that did not come as text, or whose anchors lie within others.

    Raises:
        DefinitionError: It is nested too deeply, or has too many values.
    """
    level, nodes = [value], 1
    for _ in range(DEFINITION_DEPTH_MAX):
        below: list[Any] = []
        for each in level:
            if isinstance(each, Mapping):
                below += each.values()
            elif isinstance(each, list | tuple):
                below += each
            if nodes + len(below) > DEFINITION_NODES_MAX:
                raise DefinitionError([Problem(f"more than {DEFINITION_NODES_MAX} values")])
        level = below
        nodes += len(level)
    if any(isinstance(each, Mapping | list | tuple) for each in level):
        raise DefinitionError([Problem(f"values are nested more than {DEFINITION_DEPTH_MAX} deep")])


_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?")
_DIGITS_MAX: Final = 20  # of a number of 64 bits, or one less with a sign
_WORDS: Final = {
    word: value
    for words, value in (
        (("", "~", "null", "Null", "NULL"), None),
        (("true", "True", "TRUE"), True),
        (("false", "False", "FALSE"), False),
    )
    for word in words
}


class _Open:
    """A collection that has not ended yet."""

    __slots__ = ("anchor", "key", "key_mark", "nodes", "path", "value")

    def __init__(self, value: Any, path: Path, anchor: str | None) -> None:
        self.value = value
        self.path = path
        self.anchor = anchor
        self.key: str | None = None  # that waits for its value
        self.key_mark = Mark(1, 1)
        self.nodes = 1  # values in it, anchors followed


class _StopError(Exception):
    """The rest of the text would only cost time; the problem is noted."""


class _Composer:
    """One reading of a text."""

    def __init__(self) -> None:
        self._marks: dict[Path, Mark] = {}
        self._problems: list[Problem] = []
        self._open: list[_Open] = []  # outermost first
        self._anchors: dict[str, tuple[Any, int]] = {}  # name -> value, values in it
        self._documents = 0
        self._value: Any = None
        self._nodes = 0

    def compose(self, events: Iterable[Event]) -> Document:
        try:
            for event in events:
                self._take(event)
        except _StopError:
            pass
        return Document(self._value, self._marks, tuple(self._problems))

    def _take(self, event: Event) -> None:
        assert event.start_mark is not None, "only events that are made by hand have none"
        mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop("a second document begins here: one file holds one workflow", mark)
        elif isinstance(event, CollectionStartEvent):
            self._begin(event, mark)
        elif isinstance(event, CollectionEndEvent):
            ended = self._open.pop()
            self._place(ended.value, nodes=ended.nodes, anchor=ended.anchor)
        elif isinstance(event, ScalarEvent):
            self._scalar(event, mark)
        elif isinstance(event, AliasEvent):
            self._alias(event, mark)

    def _begin(self, event: CollectionStartEvent, mark: Mark) -> None:
        if len(self._open) >= DEFINITION_DEPTH_MAX:
            self._stop(f"values are nested more than {DEFINITION_DEPTH_MAX} deep", mark)
        self._check_tag(event.tag, mark)
        is_mapping = isinstance(event, MappingStartEvent)
        if self._awaits_key():
            self._stop("a list or mapping can't be a key", mark)
        path = self._enter(mark)
        self._open.append(_Open({} if is_mapping else [], path, event.anchor))

    def _scalar(self, event: ScalarEvent, mark: Mark) -> None:
        self._check_tag(event.tag, mark)
        if self._awaits_key():
            self._key(event.value, mark)
            return
        self._enter(mark)
        value = _plain_scalar(event.value) if event.implicit[0] else event.value
        self._place(value, nodes=1, anchor=event.anchor)

    def _alias(self, event: AliasEvent, mark: Mark) -> None:
        anchored = self._anchors.get(event.anchor or "")
        if anchored is None:
            self._stop(f"there is no anchor &{event.anchor}, or this is within it", mark)
        if self._awaits_key():
            self._stop("an alias can't be a key", mark)
        self._enter(mark)
        value, nodes = anchored
        self._place(value, nodes=nodes, anchor=None)

    def _key(self, key: str, mark: Mark) -> None:
        top = self._open[-1]
        if key in top.value:
            path = (*top.path, key)
            first = self._marks[path].line
            self._problem(f"given twice, the first time in line {first}", mark, path)
        top.key, top.key_mark = key, mark

    def _awaits_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].value, dict)
            and (self._open[-1].key is None)
        )

    def _enter(self, mark: Mark) -> Path:
        """Note where the value that begins is, and return its path."""
        path: Path = ()
        if self._open:
            top = self._open[-1]
            if top.key is not None:
                path, mark = (*top.path, top.key), top.key_mark
            else:
                path = (*top.path, len(top.value))
        self._marks.setdefault(path, mark)
        return path

    def _place(self, value: Any, *, nodes: int, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, nodes)
        if not self._open:
            self._value = value
            return
        top = self._open[-1]
        top.nodes += nodes
        self._nodes = max(self._nodes, top.nodes)
        if self._nodes > DEFINITION_NODES_MAX:
            self._stop(
                f"more than {DEFINITION_NODES_MAX} values, those of anchors counted as often as "
                "they are used",
                self._marks.get(top.path, Mark(1, 1)),
            )
        if top.key is None:
            top.value.append(value)
        else:
            top.value.setdefault(top.key, value)
            top.key = None

    def _check_tag(self, tag: str | None, mark: Mark) -> None:
        if tag is not None and tag not in _TAGS:
            self._problem(f"the tag {tag} is not allowed", mark, ())

    def _problem(self, message: str, mark: Mark, path: Path) -> None:
        self._problems.append(Problem(message, dotted(path), mark.line, mark.column))

    def _stop(self, message: str, mark: Mark) -> NoReturn:
        self._problem(message, mark, ())
        raise _StopError


_TAGS: Final = frozenset({"!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq"))})


def _plain_scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= _DIGITS_MAX:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
