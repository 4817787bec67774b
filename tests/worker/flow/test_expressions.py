"""Templates: types, texts, structures, what is wrong as written and what fails."""

from typing import Any

import pytest

from pronghorn.worker.flow.context import Context
from pronghorn.worker.flow.expressions import (
    EvaluationError,
    ExpressionError,
    Reference,
    compile_template,
    is_true,
)
from pronghorn.worker.flow.scope import Scope

VARIABLES: dict[str, Any] = {
    "n": 1,
    "name": "Ada",
    "curly": "{{ n }}",
    "block": "{% raw %}",
    "d": {"x": {"y": [1, 2]}},
    "none": None,
}


def evaluate(value: Any) -> Any:
    return compile_template(value).evaluate(Scope(Context.first(VARIABLES)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ n }}", 1),
        (" {{ n }}\n", 1),
        ("{{ ctx().d.x }}", {"y": [1, 2]}),
        ("{{ ctx('d').x.y[-1] }}", 2),
        ("{{ ctx()['name'] }}", "Ada"),
        ("{{ none }}", None),
        ("{{ n == 1 }}", True),
        ("{{ {'a': {'b': n}} }}", {"a": {"b": 1}}),
        ("{{ {'a':{'b':{}}}}}", {"a": {"b": {}}}),
        ("{{ '}}' ~ \"{{\" }}", "}}{{"),
        ("{{ 'it\\'s' }}", "it's"),
        ("{{ (n,) }}", [1]),
        ("{{ ctx() }}", VARIABLES),
    ],
)
def test_text_that_is_one_expression_keeps_the_type(text: str, expected: Any) -> None:
    made = evaluate(text)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello {{ name }}!", "Hello Ada!"),
        ("{{ n }}{{ n }}", "11"),
        ("{{ none }} {{ n == 1 }}", "None True"),
        ("a {{- n -}} b", "a1b"),
        ("{{ d.x }}.", "{'y': [1, 2]}."),
        ("$%#&@#$!!!", "$%#&@#$!!!"),
        ("}} {#", "}} {#"),
        ("{ n }", "{ n }"),
    ],
)
def test_values_within_a_text_become_text(text: str, expected: str) -> None:
    assert evaluate(text) == expected


@pytest.mark.parametrize("name", ["curly", "block"])
def test_nothing_is_rendered_twice(name: str) -> None:
    assert evaluate(f"{{{{ {name} }}}}") == VARIABLES[name]
    assert evaluate(f"<{{{{ {name} }}}}>") == f"<{VARIABLES[name]}>"
    assert evaluate({"a": [f"{{{{ {name} }}}}"]}) == {"a": [VARIABLES[name]]}


def test_structures_keep_what_is_constant_and_share_it() -> None:
    constant = {"a": [1, "x"]}
    template = compile_template({"c": constant, "n": "{{ n }}"})
    made = template.evaluate(Scope(Context.first(VARIABLES)))
    assert made == {"c": constant, "n": 1}
    assert made["c"] is constant
    assert not template.constant
    assert compile_template(constant).constant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ 1 + }}", "unexpected"),
        ("{{ }}", "unexpected 'end of the expression'"),
        ("{{ a b }}", "unexpected 'b'"),
        ("{{ a", "without }}"),
        ("{{ 'a }}", "unexpected char"),
        ("{% if a %}", "only {{ … }}"),
        ("a {{ n }} {% b %}", "only {{ … }}"),
        ("{{ a|nofilter }}", "nofilter"),
        ("{{ a is notest }}", "notest"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "too deep"),
        ("{{ " + "[" * 150 + "]" * 150 + " }}", "too deep"),
        ("{{ " + "1+" * 6000 + "1 }}", "10,?000|limit"),
        ("{{ ~ }}", "unexpected"),
    ],
)
def test_what_is_wrong_as_written(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        compile_template(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ ctx('nothing') }}", "no variable 'nothing'"),
        ("{{ ctx().nothing }}", "has no attribute 'nothing'"),
        ("{{ d.x.z }}", "no attribute 'z'"),
        ("{{ d.x.y[5] }}", "no element 5"),
        ("{{ n.x.y }}", "no attribute 'x'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ n + name }}", "TypeError"),
        ("{{ name < n }}", "TypeError"),
        ("{{ ctx }}", "the function ctx itself: call it"),
        ("{{ n() }}", "not callable"),
        ("a {{ nothing }}", "'nothing' is undefined"),
        ("{{ nothing and n }}", "'nothing' is undefined"),
        ("{{ [nothing] }}", "'nothing' is undefined"),
    ],
)
def test_what_fails(text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(text)


def test_failure_within_a_structure_has_its_path() -> None:
    with pytest.raises(EvaluationError) as caught:
        evaluate({"a": [0, {"b": "{{ nothing }}"}]})
    assert caught.value.path == ("a", 1, "b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ x }}", {("x", True)}),
        ("{{ ctx().x.y }}", {("x", True)}),
        ("{{ ctx('x') + ctx()['y'] }}", {("x", True), ("y", True)}),
        ("{{ ctx().get('x') }}", set()),
        ("{{ x|default(1) }}", {("x", False)}),
        ("{{ x is defined and y }}", {("x", False), ("y", False)}),
        ("{{ succeeded() and x }}", {("x", False)}),
        ("{{ result().x ~ item('y') ~ index }}", set()),
        ("a {{ x }} {{ y }}", {("x", True), ("y", True)}),
    ],
)
def test_references_tell_the_variables(text: str, expected: set[tuple[str, bool]]) -> None:
    assert set(compile_template(text).references) == {Reference(*each) for each in expected}


def test_condition_is_true_or_false_or_fails() -> None:
    numpy = pytest.importorskip("numpy")
    scope = Scope(Context.first({"n": 0, "xs": [0], "array": numpy.array([1, 2])}))
    assert not is_true(compile_template("{{ n }}"), scope)
    assert is_true(compile_template("{{ xs }}"), scope)
    with pytest.raises(EvaluationError, match="neither true nor false"):
        is_true(compile_template("{{ array }}"), scope)


def test_cost_is_independent_of_the_number_of_variables() -> None:
    looked_up: list[str] = []

    class Counting(dict[str, Any]):
        def __contains__(self, name: object) -> bool:
            looked_up.append(str(name))
            return super().__contains__(name)

        def __iter__(self) -> Any:
            raise AssertionError("all variables are gone through")

    variables = Counting({f"v{i}": i for i in range(2000)})
    scope = Scope(Context.first(variables), status="succeeded")
    assert compile_template("{{ succeeded() and ctx().v7 < 9 }}").evaluate(scope) is True
    assert compile_template("{{ v1 + v2 * 3 }}").evaluate(scope) == 7
    assert looked_up == ["v7", "v1", "v2"]
