"""``pronghorn rehearse``: for people, for programs, for who has written something wrong."""

import json

import pytest
from commands import Commands

pytestmark = pytest.mark.slow

CASE = {
    "workflow": {
        "input": ["n"],
        "tasks": {"a": {"action": "x", "input": {"n": "{{ n }}"}}},
        "output": [{"n": "{{ n + 1 }}"}],
    },
    "inputs": {"n": 1},
    "expected": [{"status": "succeeded", "output": {"n": 2}}],
}


def write(commands: Commands, name: str, case: object) -> str:
    (commands.folder / name).write_text(json.dumps(case))
    return name


def test_cases_that_go_as_expected(commands: Commands) -> None:
    files = [
        write(commands, "a.json", CASE),
        write(commands, "b.json", CASE | {"expected": []}),
    ]
    done = commands("rehearse", *files)
    assert (done.status, done.errors) == (0, "")
    assert done.output.splitlines() == [
        "a.json: succeeded, as expected",
        "b.json: succeeded, nothing is expected",
    ]


def test_json_is_what_came_of_it(commands: Commands) -> None:
    done = commands("rehearse", write(commands, "a.json", CASE), "--json", "--order", "lifo")
    assert (done.status, done.errors) == (0, "")
    assert json.loads(done.output) == {
        "status": "succeeded",
        "output": {"n": 2},
        "executions": [{"task": "a", "item": None, "input": {"n": 1}, "status": "succeeded"}],
        "errors": [],
    }


def test_difference_is_told_and_ends_with_1(commands: Commands) -> None:
    file = write(commands, "a.json", CASE | {"inputs": {"n": 4}})
    told = 'a.json: output: expected {"n":2}, got {"n":5}\n'
    done = commands("rehearse", file)
    assert (done.status, done.output, done.errors) == (1, told, "")
    done = commands("rehearse", file, "--json")
    assert (done.status, done.errors) == (1, told)
    assert json.loads(done.output)["output"] == {"n": 5}


def test_refused_definition(commands: Commands) -> None:
    wrong = CASE | {"workflow": {"tasks": {"a": {"next": [{"do": "b"}]}}}}
    done = commands("rehearse", write(commands, "a.json", wrong), "--json")
    assert done.status == 1
    assert list(json.loads(done.output)) == ["inspection_errors"]
    expected = wrong | {"expected": [{"inspection_errors": []}]}
    assert commands("rehearse", write(commands, "b.json", expected)).status == 0


def test_what_is_no_case(commands: Commands) -> None:
    (commands.folder / "a.json").write_text("{}")
    done = commands("rehearse", "a.json")
    assert (done.status, done.output) == (2, "")
    assert "a.json: not a case" in done.errors
    assert commands("rehearse", "missing.json").status == 2
