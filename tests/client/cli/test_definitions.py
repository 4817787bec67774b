"""``pronghorn validate`` and ``pronghorn graph``."""

import json

import pytest
from commands import Commands

pytestmark = pytest.mark.slow

GOOD = """
tasks:
  a: {action: add, next: [{when: "{{ succeeded() }}", do: b}]}
  b: {action: nodes.greet}
"""
BAD = """
tasks:
  a: {action: gret, next: [{do: c}]}
  b: {retyr: 3}
"""


def test_definition_that_is_right(commands: Commands) -> None:
    (commands.folder / "good.yaml").write_text(GOOD)
    done = commands("validate", "good.yaml", "--nodes", "nodes.py")
    assert (done.status, done.output, done.errors) == (
        0, "good.yaml: 2 tasks, nothing is wrong\n", "",
    )  # fmt: skip


def test_all_that_is_wrong_with_line_and_column(commands: Commands) -> None:
    (commands.folder / "bad.yaml").write_text(BAD)
    (commands.folder / "good.yaml").write_text(GOOD)
    done = commands("validate", "bad.yaml", "good.yaml")
    assert (done.status, done.errors) == (1, "")
    assert done.output.splitlines() == [
        "bad.yaml:3:29: tasks.a.next[0].do: there is no task named 'c'",
        "bad.yaml:4:7: tasks.b.retyr: there is no such field, maybe 'retry'?",
        "good.yaml: 2 tasks, nothing is wrong",
    ]
    known = commands("validate", "bad.yaml", "--nodes", "nodes.py", "--json")
    assert known.status == 1
    first = json.loads(known.output)[0]
    assert first == {
        "file": "bad.yaml",
        "line": 3,
        "column": 7,
        "path": "tasks.a.action",
        "message": "there is no node named 'gret', maybe 'greet'?",
    }


def test_standard_input(commands: Commands) -> None:
    assert commands("validate", "-", stdin=GOOD).status == 0


def test_modules_that_can_not_be_loaded(commands: Commands) -> None:
    (commands.folder / "good.yaml").write_text(GOOD)
    done = commands("validate", "good.yaml", "--nodes", "missing.py")
    assert (done.status, done.output) == (2, "")
    assert "missing.py" in done.errors


@pytest.mark.parametrize(
    ("arguments", "begin"),
    [
        ([], "a  (add)\n  └─► b  when succeeded()\n"),
        (["--format", "dot"], 'digraph "workflow" {\n'),
        (["--format", "mermaid"], "flowchart TD\n"),
        (["--format", "svg"], "<svg "),
        (["--json"], '{"name":"workflow","tasks":['),
    ],
)
def test_drawings(commands: Commands, arguments: list[str], begin: str) -> None:
    (commands.folder / "good.yaml").write_text(GOOD)
    done = commands("graph", "good.yaml", *arguments)
    assert (done.status, done.errors) == (0, "")
    assert done.output.startswith(begin)


def test_drawing_of_what_is_no_workflow(commands: Commands) -> None:
    (commands.folder / "bad.yaml").write_text(BAD)
    done = commands("graph", "bad.yaml")
    assert (done.status, done.output) == (2, "")
    assert "4:7: tasks.b.retyr" in done.errors
