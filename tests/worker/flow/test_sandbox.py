"""What expressions must not do: reach out, change what they are given, make too much."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pronghorn.worker.flow import sandbox
from pronghorn.worker.flow.context import Context
from pronghorn.worker.flow.expressions import (
    EvaluationError,
    ExpressionError,
    compile_template,
)
from pronghorn.worker.flow.measure import plain
from pronghorn.worker.flow.scope import Scope

VARIABLES = {
    "n": 7,
    "text": "abc",
    "xs": [3, 1, 2],
    "d": {"keys": "mine", "items": "too", "k": {"values": 1}},
    "lines": "a\nb\n" * 10,
    "big": "x" * 1_000_000,
    "many": list(range(100_000)),
}


def evaluate(text: str) -> Any:
    return compile_template(text).evaluate(Scope(Context.first(VARIABLES)))


@pytest.mark.parametrize(
    "text",
    [
        "{{ text.__class__ }}",
        "{{ text['__class__'] }}",
        "{{ text|attr('__class__') }}",
        "{{ xs.append(1) }}",
        "{{ xs.sort() }}",
        "{{ d.update({}) }}",
        "{{ d.pop('k') }}",
        "{{ text.format(1) }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ text.format_map(d) }}",
        "{{ text.encode() }}",
        "{{ text.center(99999999) }}",
        "{{ text.zfill(99999999) }}",
        "{{ n.to_bytes(99999999) }}",
        "{{ ctx.__self__ }}",
        "{{ result.__func__ }}",
        "{{ range.__call__ }}",
        "{{ self }}",
        "{{ cycler(1) }}",
        "{{ lipsum(99) }}",
        "{{ namespace() }}",
        "{{ joiner() }}",
        "{{ dict(a=1) }}",
        "{{ text|random }}",
        "{{ [[1], [2]]|sum(start=[]) }}",
        "{{ ['a']|sum(start='') }}",
        "{{ text|safe }}",
        "{{ text|format(1) }}",
        "{{ '%99999999d' % 1 }}",
        "{{ d|xmlattr }}",
    ],
)
def test_forbidden(text: str) -> None:
    with pytest.raises((EvaluationError, ExpressionError)):
        evaluate(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 99999999 }}",
        "{{ 99999999 * 'a' }}",
        "{{ [1] * 99999999 }}",
        "{{ 2 ** 999999 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ (2 ** 4000) * (2 ** 4000) }}",
        "{{ range(9999999) }}",
        "{{ big * 100 }}",
        "{{ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big ~ big"
        " ~ big ~ big }}",
        "{{ text|center(99999999) }}",
        "{{ big|replace('x', 'yyyyyyyyyyyyyyyyyyyy') }}",
        "{{ big.replace('x', big) }}",
        "{{ big.join(many|map('string')|list) }}",
        "{{ many|join(big) }}",
        "{{ lines|indent(99999999) }}",
        "{{ lines|indent(big) }}",
        "{{ big|wordwrap(1, wrapstring=big) }}",
        "{{ 1.5|round(99999999) }}",
        "{{ xs|batch(99999999) }}",
        "{{ xs|slice(99999999) }}",
        "{{ xs|tojson(99999999) }}",
        "{{ many|select('in', many)|list }}",
        "{{ ([many] * 1000)|select('eq', many)|list }}",
        "{{ ([many] * 1000)|map('sort')|list }}",
        "{{ (big ~ big ~ big)|wordwrap(1) }}",
        "{{ (big * 3).split() }}",
        "{{ (big * 3).split('x') }}",
        "{{ [many, many, many, many, many, many, many, many, many, many, many]|string }}",
        "{{ [" + "big, " * 17 + "] }}",
        "{{ big }}" * 17,
    ],
)
def test_too_much(text: str) -> None:
    with pytest.raises(
        EvaluationError, match=r"[Tt]oo (long|large|much|big)|take too long|limit is|64 bits"
    ):
        evaluate(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ 'ab' * 3 }}", "ababab"),
        ("{{ [1] * 3 }}", [1, 1, 1]),
        ("{{ 2 ** 10 }}", 1024),
        ("{{ 2 ** -1 }}", 0.5),
        ("{{ 7 % 4 }}", 3),
        ("{{ xs + [4] }}", [3, 1, 2, 4]),
        ("{{ text + 'd' }}", "abcd"),
        ("{{ text ~ n ~ xs }}", "abc7[3, 1, 2]"),
        ("{{ text|center(7) }}", "  abc  "),
        ("{{ text.replace('b', 'B') }}", "aBc"),
        ("{{ text|replace('b', 'B', 0) }}", "abc"),
        ("{{ '-'.join(['a', 'b']) }}", "a-b"),
        ("{{ [{'k': 1}, {'k': 2}]|join(', ', attribute='k') }}", "1, 2"),
        ("{{ xs|sort }}", [1, 2, 3]),
        ("{{ xs|map('string')|list }}", ["3", "1", "2"]),
        ("{{ xs|select('odd') }}", [3, 1]),
        ("{{ xs|batch(2) }}", [[3, 1], [2]]),
        ("{{ xs|sum }}", 6),
        ("{{ [{'k': 1}, {'k': 2}]|sum(attribute='k', start=3) }}", 6),
        ("{{ xs|select('in', [1, 2])|list }}", [1, 2]),
        ("{{ xs is iterable and n is odd and n is not even and text is string }}", True),
        ("{{ 'upper' is filter and 'odd' is test }}", True),
        ("{{ lines|wordcount }}", 20),
        ("{{ 'a<b>'|upper }}", "A<B>"),
        ("{{ d|tojson }}", '{"keys":"mine","items":"too","k":{"values":1}}'),
        ("{{ [1]|tojson(2) }}", "[\n  1\n]"),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ nothing|default('x') }}", "x"),
        ("{{ default(none, 'x') }}", "x"),
        ("{{ xs|length + length(text) }}", 6),
        ("{{ zip(xs, 'ab') }}", [[3, "a"], [1, "b"], [2, None]]),
    ],
)
def test_allowed(text: str, expected: Any) -> None:
    assert evaluate(text) == expected


def test_work_of_filters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WORK_MAX", 100)
    assert evaluate("{{ xs|sort|reverse|list|length }}") == 3
    with pytest.raises(EvaluationError, match="take too long"):
        evaluate("{{ xs" + "|sort" * 30 + " }}")


def test_key_goes_before_a_method_by_dot_and_by_bracket() -> None:
    assert evaluate("{{ d.keys ~ d['items'] ~ d.k.values }}") == "minetoo1"
    assert evaluate("{{ d.k.items() }}") == [["values", 1]]
    assert evaluate("{{ d.k.get('nothing', 3) }}") == 3


def test_values_are_not_changed() -> None:
    before = repr(VARIABLES["xs"]), repr(VARIABLES["d"])
    evaluate("{{ xs|sort ~ xs|reverse|list ~ (xs + [1]) ~ d|dictsort }}")
    assert (repr(VARIABLES["xs"]), repr(VARIABLES["d"])) == before


WORDS = st.sampled_from(
    [
        *(
            "n",
            "text",
            "xs",
            "d",
            "ctx()",
            "ctx",
            "result",
            "index",
            "zip",
            "range",
            "none",
            "true",
        ),
        *("1", "-1", "99999", "'a'", '"{{"', "'}}'", "1.5e308"),
        *(".x", ".keys", ".k", "[0]", "['k']", "[", "]", "(", ")", "{", "}", ":", ",", "()", "(1)"),
        *(
            "+",
            "-",
            "*",
            "**",
            "//",
            "/",
            "%",
            "~",
            "<",
            "==",
            "!=",
            " in ",
            " not ",
            " and ",
            " or ",
        ),
        *(
            " if ",
            " else ",
            " is ",
            " odd",
            " defined",
            "|",
            "|length",
            "|sort",
            "|join",
            "|tojson",
        ),
        *(
            "|map('upper')",
            "|default(1)",
            ".split()",
            ".replace('a', 'b')",
            ".upper()",
            "=",
            "|list",
        ),
    ]
)


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(WORDS, min_size=1, max_size=12).map("".join))
def test_any_text_is_refused_or_fails_or_gives_a_plain_value(text: str) -> None:
    try:
        value = evaluate("{{ " + text + " }}")
    except (ExpressionError, EvaluationError):
        return
    assert plain(value) is value
