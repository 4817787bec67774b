"""The direct getters give what Jinja2 gives, on every input: same value, or failing both."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pronghorn.worker.flow import expressions
from pronghorn.worker.flow.context import Context
from pronghorn.worker.flow.expressions import EvaluationError, compile_template
from pronghorn.worker.flow.scope import ABSENT, Scope

KEYS = [
    "a",
    "b",
    "keys",
    "items",
    "get",
    "values",
    "count",
    "index",
    "upper",
    "__class__",
    "_x",
    "",
]
names = st.sampled_from(["a", "b", "keys", "d", "_x", "index", "nothing"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([1 << 63, (1 << 64) - 1, 1.5, float("inf")])
    | st.sampled_from(["", "a", "{{ a }}", "0"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
steps = st.one_of(
    st.sampled_from([".a", ".b", ".keys", ".items", ".get", ".values", ".count", ".upper"]),
    st.sampled_from([".__class__", "._x", ".index"]),
    st.sampled_from(["['a']", "['keys']", "['__class__']", "['']", "[0]", "[-1]", "[2]", "[1.0]"]),
    st.sampled_from(["[true]", "[none]"]),
)
bases = st.one_of(
    names,
    names.map(lambda name: f"ctx('{name}')"),
    names.map(lambda name: f"ctx().{name}"),
    names.map(lambda name: f"ctx()['{name}']"),
    st.sampled_from(["result()", "item()", "item('a')", "item('keys')", "index"]),
)
paths = st.builds(lambda base, rest: base + "".join(rest), bases, st.lists(steps, max_size=3))
atoms = paths | st.sampled_from(["succeeded()", "failed()", "1", "'a'", "none", "true", "0.5"])
operators = ["==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or", "+", "-"]
texts = st.recursive(
    atoms,
    lambda inner: (
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from(operators), inner)
        | inner.map(lambda text: f"(not {text})")
        | inner.map(lambda text: f"({text})|length")
    ),
    max_leaves=4,
)


def outcome(evaluate: Any, scope: Scope) -> tuple[str, Any, Any]:
    try:
        value = evaluate(scope)
    except EvaluationError as error:
        return "failed", error.message, None
    return "value", repr(value), type(value)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    texts,
    st.dictionaries(names, values, max_size=5),
    st.sampled_from(["succeeded", "failed", "timeout", None]),
    values,
    values,
    st.booleans(),
)
def test_getter_agrees_with_jinja(
    text: str,
    variables: dict[str, Any],
    status: str | None,
    result: Any,
    item: Any,
    with_item: bool,
) -> None:
    expression = expressions._Expression(text)
    scope = Scope(
        Context.first(variables), status=status, result=ABSENT if status is None else result
    )
    if with_item:
        scope.item, scope.index = item, 3
    assert outcome(expression.evaluate, scope) == outcome(expression._by_jinja, scope)


@pytest.mark.parametrize(
    "text",
    [
        "n", "ctx('d').x", "ctx().d['x']", "d.l[0]", "result().code == 200", "item('x')", "index",
        "succeeded() and ctx().n < 2", "n + 1", "not failed()", "d.l|length", "n in d.l",
    ],
)  # fmt: skip
def test_plain_expression_never_reaches_jinja(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(self: Any, scope: Scope) -> Any:
        raise AssertionError(f"{text} was left to Jinja2")

    template = compile_template("{{ " + text + " }}")
    monkeypatch.setattr(expressions._Expression, "_by_jinja", slow)
    variables = {"n": 1, "d": {"x": 2, "l": [1, 2]}}
    scope = Scope(Context.first(variables), status="succeeded", result={"code": 200})
    scope.item, scope.index = {"x": 1}, 0
    template.evaluate(scope)
