"""Draws a workflow: as text, for Graphviz, for Mermaid, as SVG. Pure.

Tasks lie in layers, each below all tasks that lead to it; ways back (of cycles) are drawn beside
them. Commands that end something (``fail``, ``noop``) are drawn where a transition names them.

Mirror: tests/worker/flow/test_drawing.py.
"""

from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Final, NamedTuple

from .graph import Graph
from .model import Task, Workflow

LABEL_MAX: Final = 40
"""Characters of a condition that are shown at an arrow."""


class Arrow(NamedTuple):
    """One way that is drawn.

    Attributes:
        target: A task or a command.
        label: Its condition; empty where there is none.
    """

    source: str
    target: str
    label: str


class Box(NamedTuple):
    """One task that is drawn.

    Attributes:
        layer: From 0, downwards.
        details: What is special about it: action, join, items, retry.
    """

    name: str
    layer: int
    details: tuple[str, ...]


class Drawing(NamedTuple):
    """What is to be drawn, in no form yet."""

    name: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def drawing_of(workflow: Workflow) -> Drawing:
    """Lay a workflow out."""
    layers = _layers(Graph(workflow))
    boxes = [Box(name, layers[name], _details(task)) for name, task in workflow.tasks.items()]
    arrows = [
        Arrow(name, target, _label(transition.when))
        for name, task in workflow.tasks.items()
        for transition in task.next
        for target in transition.do
        if target != "continue"
    ]
    boxes.sort(key=lambda box: box.layer)  # within a layer in the order of the definition
    return Drawing(workflow.name or "workflow", tuple(boxes), tuple(dict.fromkeys(arrows)))


def as_json(drawing: Drawing) -> dict[str, Any]:
    """Give the drawing as data."""
    return {
        "name": drawing.name,
        "tasks": [box._asdict() for box in drawing.boxes],
        "arrows": [arrow._asdict() for arrow in drawing.arrows],
    }


def as_text(drawing: Drawing) -> str:
    """Draw with letters, one task a paragraph, what follows it indented."""
    lines: list[str] = []
    for box in drawing.boxes:
        details = f"  ({', '.join(box.details)})" if box.details else ""
        lines.append(f"{box.name}{details}")
        for arrow in drawing.arrows:
            if arrow.source == box.name:
                condition = f"  when {arrow.label}" if arrow.label else ""
                lines.append(f"  └─► {arrow.target}{condition}")
    return "\n".join(lines) + "\n"


def as_dot(drawing: Drawing) -> str:
    """Draw for Graphviz: ``dot -Tpng``."""
    lines = [f"digraph {_quoted(drawing.name)} {{", "  node [shape=box, style=rounded];"]
    for box in drawing.boxes:
        label = "\\n".join(_in_dot(line) for line in (box.name, *box.details))
        lines.append(f'  {_quoted(box.name)} [label="{label}"];')
    for command in _commands(drawing):
        lines.append(f"  {_quoted(command)} [shape=plaintext];")
    for arrow in drawing.arrows:
        label = f" [label={_quoted(arrow.label)}]" if arrow.label else ""
        lines.append(f"  {_quoted(arrow.source)} -> {_quoted(arrow.target)}{label};")
    return "\n".join([*lines, "}", ""])


def as_mermaid(drawing: Drawing) -> str:
    """Draw for Mermaid, as in Markdown files of many forges."""
    names = [*(box.name for box in drawing.boxes), *_commands(drawing)]
    ids = {name: f"n{number}" for number, name in enumerate(names)}
    lines = ["flowchart TD"]
    for box in drawing.boxes:
        label = "<br/>".join(_in_mermaid(line) for line in (box.name, *box.details))
        lines.append(f'  {ids[box.name]}["{label}"]')
    for command in _commands(drawing):
        lines.append(f'  {ids[command]}(["{command}"])')
    for arrow in drawing.arrows:
        label = f'|"{_in_mermaid(arrow.label)}"|' if arrow.label else ""
        lines.append(f"  {ids[arrow.source]} -->{label} {ids[arrow.target]}")
    return "\n".join([*lines, ""])


def as_svg(drawing: Drawing) -> str:
    """Draw as an SVG document of its own: boxes in rows, arrows as curves."""
    return _Svg(drawing).document()


FORMS: Final[dict[str, Callable[[Drawing], str]]] = {
    "text": as_text,
    "dot": as_dot,
    "mermaid": as_mermaid,
    "svg": as_svg,
}


def _layers(graph: Graph) -> dict[str, int]:
    """Give each task the layer below all that lead to it; what leads back does not count."""
    layers: dict[str, int] = {}
    back = _ways_back(graph)
    waiting = {
        name: sum((edge.source, edge.target) not in back for edge in edges)
        for name, edges in graph.inbound.items()
    }
    pending = [name for name, count in waiting.items() if count == 0]
    layers.update(dict.fromkeys(pending, 0))
    for name in pending:  # grows meanwhile
        for edge in graph.outbound[name]:
            if (edge.source, edge.target) in back:
                continue
            layers[edge.target] = max(layers.get(edge.target, 0), layers[name] + 1)
            waiting[edge.target] -= 1
            if waiting[edge.target] == 0:
                pending.append(edge.target)
    return layers


def _ways_back(graph: Graph) -> set[tuple[str, str]]:
    """Find the edges that close a cycle, seen from the starts."""
    back: set[tuple[str, str]] = set()
    seen: set[str] = set()
    on_way: set[str] = set()
    for start in (*graph.starts, *graph.outbound):
        if start in seen:
            continue
        seen.add(start)
        on_way.add(start)
        walk = [(start, iter(graph.outbound[start]))]
        while walk:
            name, edges = walk[-1]
            for edge in edges:
                if edge.target in on_way:
                    back.add((edge.source, edge.target))
                elif edge.target not in seen:
                    seen.add(edge.target)
                    on_way.add(edge.target)
                    walk.append((edge.target, iter(graph.outbound[edge.target])))
                    break
            else:
                on_way.discard(name)
                walk.pop()
    return back


def _details(task: Task) -> tuple[str, ...]:
    details = [] if task.action is None else [task.action]
    if task.join is not None:
        details.append(f"join {task.join}")
    if task.items is not None:
        details.append("with items")
    if task.retry is not None:
        details.append(f"retry {task.retry.count}")
    return tuple(details)


def _label(when: str | bool | None) -> str:
    if when is None or when is True:
        return ""
    text = str(when).strip()
    if text.startswith("{{") and text.endswith("}}"):
        text = text[2:-2].strip()
    text = " ".join(text.split())
    return text if len(text) <= LABEL_MAX else text[: LABEL_MAX - 1] + "…"


def _commands(drawing: Drawing) -> list[str]:
    tasks = {box.name for box in drawing.boxes}
    targets = dict.fromkeys(arrow.target for arrow in drawing.arrows)
    return [target for target in targets if target not in tasks]


def _quoted(text: str) -> str:
    return f'"{_in_dot(text)}"'


def _in_dot(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _in_mermaid(text: str) -> str:
    return escape(text, quote=False).replace('"', "#quot;").replace("|", "#124;")


class _Svg:
    """One SVG document."""

    _CHARACTER, _LINE, _PADDING, _GAP, _BETWEEN = 7, 16, 12, 30, 70  # in pixels

    def __init__(self, drawing: Drawing) -> None:
        last = max((box.layer for box in drawing.boxes), default=0) + 1
        commands = [Box(name, last, ()) for name in _commands(drawing)]
        self._commands = {box.name for box in commands}
        self._drawing = drawing
        self._boxes = [*drawing.boxes, *commands]
        self._places: dict[str, tuple[int, int, int, int]] = {}  # name -> x, y, width, height
        self._width = 0
        self._height = 0
        self._lay_out()

    def document(self) -> str:
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self._width}" '
            f'height="{self._height}" viewBox="0 0 {self._width} {self._height}" '
            'font-family="sans-serif" font-size="12">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
            f"<title>{escape(self._drawing.name)}</title>",
        ]
        for arrow in self._drawing.arrows:
            lines += self._arrow(arrow)
        for box in self._boxes:
            lines += self._box(box)
        return "\n".join([*lines, "</svg>", ""])

    def _lay_out(self) -> None:
        rows: dict[int, list[Box]] = {}
        for box in self._boxes:
            rows.setdefault(box.layer, []).append(box)
        sizes = {box.name: self._size(box) for box in self._boxes}
        widths = {
            layer: sum(sizes[box.name][0] + self._GAP for box in row) - self._GAP
            for layer, row in rows.items()
        }
        labels = [len(arrow.label) * self._CHARACTER for arrow in self._drawing.arrows]
        self._width = max([*widths.values(), *labels], default=0) + 2 * self._GAP
        y = self._GAP
        for layer, row in sorted(rows.items()):
            x = (self._width - widths[layer]) // 2
            for box in row:
                width, height = sizes[box.name]
                self._places[box.name] = (x, y, width, height)
                x += width + self._GAP
            y += max(sizes[box.name][1] for box in row) + self._BETWEEN
        self._height = y - self._BETWEEN + self._GAP

    def _size(self, box: Box) -> tuple[int, int]:
        lines = (box.name, *box.details)
        width = max(map(len, lines)) * self._CHARACTER + 2 * self._PADDING
        return width, len(lines) * self._LINE + self._PADDING

    def _box(self, box: Box) -> Iterator[str]:
        x, y, width, height = self._places[box.name]
        if box.name not in self._commands:
            yield (
                f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" '
                'fill="white" stroke="black"/>'
            )
        for number, line in enumerate((box.name, *box.details)):
            weight = ' font-weight="bold"' if number == 0 else ""
            yield (
                f'<text x="{x + width // 2}" y="{y + (number + 1) * self._LINE}" '
                f'text-anchor="middle"{weight}>{escape(line)}</text>'
            )

    def _arrow(self, arrow: Arrow) -> Iterator[str]:
        x, y, width, height = self._places[arrow.source]
        to_x, to_y, to_width, to_height = self._places[arrow.target]
        if to_y > y:  # downwards
            begin, end = (x + width // 2, y + height), (to_x + to_width // 2, to_y)
            bend = self._BETWEEN // 2
            path = f"C{begin[0]} {begin[1] + bend} {end[0]} {end[1] - bend} {end[0]} {end[1]}"
        else:  # back: around the right side
            begin, end = (x + width, y + height // 2), (to_x + to_width, to_y + to_height // 2)
            side = max(begin[0], end[0]) + self._GAP
            path = f"C{side} {begin[1]} {side} {end[1]} {end[0]} {end[1]}"
        yield (
            f'<path d="M{begin[0]} {begin[1]}{path}" fill="none" stroke="gray" '
            'marker-end="url(#tip)"/>'
        )
        if arrow.label:
            middle = (begin[0] + end[0]) // 2, (begin[1] + end[1]) // 2
            yield (
                f'<text x="{middle[0]}" y="{middle[1]}" text-anchor="middle" fill="dimgray" '
                f'font-size="10">{escape(arrow.label)}</text>'
            )
