"""Drawings in all forms."""

import xml.etree.ElementTree as ElementTree

import pytest

from pronghorn.worker.flow.drawing import (
    FORMS,
    Arrow,
    as_dot,
    as_json,
    as_mermaid,
    as_svg,
    as_text,
    drawing_of,
)
from pronghorn.worker.flow.validation import validate

WORKFLOW = validate("""
name: 'a "name" & <more>'
tasks:
  a: {action: x, retry: {count: 2}, next: [{when: '{{ result() == "q" }}', do: [b, c]}, {do: continue}]}
  b: {action: y, next: [{do: d}, {when: "{{ failed() }}", do: a2}]}
  c: {with: "{{ [1] }}", action: z, next: [{do: d}]}
  a2: {next: [{when: false, do: [a2, fail]}]}
  d: {join: all, action: end}
""")  # noqa: E501
DRAWING = drawing_of(WORKFLOW)


def test_layers_and_arrows() -> None:
    assert [(box.name, box.layer) for box in DRAWING.boxes] == [
        ("a", 0), ("b", 1), ("c", 1), ("a2", 2), ("d", 2),
    ]  # fmt: skip
    assert DRAWING.arrows[:3] == (
        Arrow("a", "b", 'result() == "q"'),
        Arrow("a", "c", 'result() == "q"'),
        Arrow("b", "d", ""),
    )
    assert DRAWING.boxes[0].details == ("x", "retry 2")
    assert as_json(DRAWING)["tasks"][4] == {"name": "d", "layer": 2, "details": ("end", "join all")}


def test_text() -> None:
    assert as_text(DRAWING).splitlines()[:4] == [
        "a  (x, retry 2)",
        '  └─► b  when result() == "q"',
        '  └─► c  when result() == "q"',
        "b  (y)",
    ]


def test_dot() -> None:
    lines = as_dot(DRAWING).splitlines()
    assert lines[0] == 'digraph "a \\"name\\" & <more>" {'
    assert '  "a" -> "b" [label="result() == \\"q\\""];' in lines
    assert '  "d" [label="d\\nend\\njoin all"];' in lines
    assert '  "fail" [shape=plaintext];' in lines


def test_mermaid() -> None:
    lines = as_mermaid(DRAWING).splitlines()
    assert lines[0] == "flowchart TD"
    assert '  n0 -->|"result() == #quot;q#quot;"| n1' in lines
    assert '  n5(["fail"])' in lines


def test_svg_is_xml_and_holds_everything() -> None:
    root = ElementTree.fromstring(as_svg(DRAWING))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"a", "b", "c", "d", "a2", "fail", 'result() == "q"'} <= set(texts)
    assert len(list(root.iter(f"{space}rect"))) == 5
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    for rect in root.iter(f"{space}rect"):
        x, y = int(rect.attrib["x"]), int(rect.attrib["y"])
        assert 0 <= x <= x + int(rect.attrib["width"]) <= width
        assert 0 <= y <= y + int(rect.attrib["height"]) <= height


@pytest.mark.parametrize("form", FORMS)
def test_cycle_and_long_condition_can_be_drawn(form: str) -> None:
    workflow = validate(
        "tasks: {a: {next: [{do: b}]}, b: {next: [{when: '{{ %s }}', do: b}]}}"
        % ("1 + " * 50 + "1")
    )
    drawn = FORMS[form](drawing_of(workflow))
    assert "1 + 1 +" in drawn
    assert "…" in drawn
