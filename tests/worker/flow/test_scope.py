"""What names stand for, and where they stand for nothing."""

from typing import Any

import pytest

from pronghorn.worker.flow.context import Context
from pronghorn.worker.flow.expressions import EvaluationError, compile_template
from pronghorn.worker.flow.scope import Scope

VARIABLES = {"a": 1, "result": "a variable", "index": "another"}


def scope(**given: Any) -> Scope:
    return Scope(Context.first(VARIABLES), **given)


def evaluate(text: str, where: Scope) -> Any:
    return compile_template("{{ " + text + " }}").evaluate(where)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("succeeded", [True, False, True, False]),
        ("failed", [False, True, True, False]),
        ("abandoned", [False, True, True, False]),
        ("timeout", [False, True, True, True]),
        ("canceled", [False, False, True, False]),
    ],
)
def test_status_of_the_task(status: str, expected: list[bool]) -> None:
    text = "[succeeded(), failed(), completed(), timed_out()]"
    assert evaluate(text, scope(status=status, result=None)) == expected


def test_functions_go_before_variables_of_the_same_name() -> None:
    ended = scope(status="succeeded", result=7)
    assert evaluate("result()", ended) == 7
    assert evaluate("ctx('result') ~ ctx().result", ended) == "a variablea variable"
    assert evaluate("index", ended) == "another", "outside of items it is a name like others"
    ended.index = 3
    assert evaluate("index", ended) == 3


def test_status_of_other_tasks() -> None:
    where = scope(status_of={"a": "failed"}.get)
    assert evaluate("task_status('a')", where) == "failed"
    assert evaluate("task_status('b')", where) is None


def test_items() -> None:
    where = scope()
    where.item = {"x": 1}
    assert evaluate("item()", where) == {"x": 1}
    assert evaluate("item('x') + item().x", where) == 2
    with pytest.raises(EvaluationError, match="nothing named 'y', it has x"):
        evaluate("item('y')", where)
    where.item = 3
    with pytest.raises(EvaluationError, match="the item is int, it has no names"):
        evaluate("item('x')", where)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zip([1, 2], ['a', 'b'])", [[1, "a"], [2, "b"]]),
        ("zip([1, 2], ['a'])", [[1, "a"], [2, None]]),
        ("zip([1], [], none, pad=0)", [[1, 0, 0]]),
        ("zip([1, 2])", [1, 2]),
        ("zip(none)", []),
        ("""json('{"a": [1]}').a""", [1]),
        ("json({'a': 1})", {"a": 1}),
    ],
)
def test_functions_of_values(text: str, expected: Any) -> None:
    assert evaluate(text, scope()) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("json(1)", "is for text, got int"),
        ("json('{')", "Input data was truncated"),
        ("json('[' ~ '0,' * 1000000 ~ '0]')", "1000001 elements is too long"),
        ("zip(range(99999), range(1), range(1), " + "[], " * 8 + ")", "too long"),
    ],
)
def test_functions_refuse(text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(text, scope())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("result()", "for what follows a task"),
        ("succeeded()", "for what follows a task"),
        ("item()", "of a task that has 'with'"),
        ("item('a')", "of a task that has 'with'"),
        ("task_status('a')", "not available here"),
    ],
)
def test_where_there_is_nothing(text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(text, scope())


def test_all_variables_are_a_mapping() -> None:
    where = scope()
    assert evaluate("ctx()|length", where) == 3
    assert evaluate("'a' in ctx() and 'b' not in ctx()", where) is True
    assert evaluate("ctx().get('b', 5)", where) == 5
    assert evaluate("ctx().keys()|sort", where) == ["a", "index", "result"]
