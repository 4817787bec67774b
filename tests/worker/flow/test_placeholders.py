"""Placeholders of other systems as expressions."""

from typing import Any

import pytest

from pronghorn.worker.flow.context import Context
from pronghorn.worker.flow.expressions import compile_template
from pronghorn.worker.flow.placeholders import find_keys, to_expressions
from pronghorn.worker.flow.scope import Scope


def evaluate(text: str, **variables: Any) -> Any:
    return compile_template(to_expressions(text)).evaluate(Scope(Context.first(variables)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$key$", "{{ ctx('key') }}"),
        ("~~key~~", "{{ ctx('key') }}"),
        ("$guid$/$processguid$", "{{ ctx('guid') }}/{{ ctx('processguid') }}"),
        ("$a.b.c$", "{{ ctx('a').b.c }}"),
        ("$a$b$c$", "{{ ctx('a') }}b{{ ctx('c') }}"),
        ("$5 and $6", "$5 and $6"),
        ("$a b$ ~~ x ~~ ~key~ $$", "$a b$ ~~ x ~~ ~key~ $$"),
        ("{{ x }} {% y %}", "{{ '{{' }} x }} {{ '{%' }} y %}"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert to_expressions(text) == expected


def test_values_keep_their_types_and_are_not_looked_at_again() -> None:
    assert evaluate("$n$", n=[1]) == [1]
    assert evaluate("<$n$>", n="$m$ ~~m~~ {{ m }}") == "<$m$ ~~m~~ {{ m }}>"
    assert evaluate("{{ not }} $n$", n=1) == "{{ not }} 1"


def test_structures() -> None:
    given = {"a": ["$x$", 1, None], "b": {"c": "~~y~~ $x.z$"}}
    assert to_expressions(given) == {
        "a": ["{{ ctx('x') }}", 1, None],
        "b": {"c": "{{ ctx('y') }} {{ ctx('x').z }}"},
    }
    assert find_keys(given) == ["x", "y"]


@pytest.mark.slow
def test_many_keys_take_one_pass() -> None:
    text = " ".join(f"$k{i}$" for i in range(1000))
    variables = {f"k{i}": i for i in range(1000)}
    assert evaluate(text, **variables) == " ".join(map(str, range(1000)))
