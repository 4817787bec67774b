"""All that can be wrong with a definition, with its place."""
# ruff: noqa: E501 (definitions are easier to read on one line)

from typing import Any

import pytest

from pronghorn.worker.flow.document import DefinitionError
from pronghorn.worker.flow.model import Items, Retry, Task, Transition, Workflow
from pronghorn.worker.flow.validation import validate


def problems(definition: Any, **options: Any) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        validate(definition, **options)
    return [str(each) for each in caught.value.problems]


def test_everything_that_can_be_said() -> None:
    workflow = validate("""
version: 1
name: deploy
description: Deploys.
input: [app, {regions: []}]
vars: [{done: []}]
timeout: 600
tasks:
  check:
    description: Looks.
    action: http.get
    input: {url: "{{ ctx().app.url }}"}
    timeout: 30
    retry: {count: 3, delay: 1, backoff: exponential, max_delay: 10, when: "{{ failed() }}"}
    next:
      - when: "{{ succeeded() and result().code == 200 }}"
        publish: [{info: "{{ result().body }}"}]
        do: [roll]
  roll:
    with: {items: "region in {{ ctx().regions }}", concurrency: 8, batch_size: 4, on_item_error: stop}
    action: cloud.deploy
    input: {region: "{{ item('region') }}", n: "{{ index }}"}
    place: pool
    next: [{publish: {done: "{{ result() }}"}}]
output: [{regions: "{{ ctx().done }}"}]
""")
    assert workflow == Workflow(
        name="deploy",
        description="Deploys.",
        input=(("app", None), ("regions", [])),
        vars=(("done", []),),
        output=(("regions", "{{ ctx().done }}"),),
        timeout=600.0,
        tasks={
            "check": Task(
                description="Looks.",
                action="http.get",
                input={"url": "{{ ctx().app.url }}"},
                timeout=30.0,
                retry=Retry(
                    count=3,
                    delay=1.0,
                    backoff="exponential",
                    max_delay=10.0,
                    when="{{ failed() }}",
                ),
                next=(
                    Transition(
                        when="{{ succeeded() and result().code == 200 }}",
                        publish=(("info", "{{ result().body }}"),),
                        do=("roll",),
                    ),
                ),
            ),
            "roll": Task(
                action="cloud.deploy",
                input={"region": "{{ item('region') }}", "n": "{{ index }}"},
                items=Items(
                    source="{{ ctx().regions }}",
                    names=("region",),
                    concurrency=8,
                    batch_size=4,
                    on_item_error="stop",
                ),
                place="pool",
                next=(Transition(publish=(("done", "{{ result() }}"),)),),
            ),
        },
    )


def test_text_and_what_it_stands_for_are_the_same() -> None:
    definition = {"tasks": {"a": {"action": "x", "next": [{"do": "b, noop"}]}, "b": None}}
    text = '{"tasks": {"a": {"action": "x", "next": [{"do": ["b", "noop"]}]}, "b": null}}'
    assert validate(definition) == validate(text) == validate(text.encode())


def test_all_problems_are_told_at_once_in_the_order_of_the_text() -> None:
    assert problems("""
version: 7
vars: [{a: "{{ ctx().b }}"}, {b: "{{ ctx().a }}"}]
tasks:
  t1:
    action: core.noop
    actoin: 3
    join: all
    input: {x: "{{ 1 + }}", y: "{% if %}"}
    next:
      - do: [t2, noop, nope]
        when: "{{ ctx().zz }}"
  t2:
    retry: {delay: x}
    action: a
    action: b
  fail: {with: 3}
""") == [
        "2:1: version: version 7 is not known, this is version 1",
        "3:8: vars[0]: nothing sets the variable 'b' before",
        "7:5: tasks.t1.actoin: there is no such field, maybe 'action'?",
        "8:5: tasks.t1.join: nothing leads to this task, so there is nothing to wait for",
        "9:13: tasks.t1.input.x: {{ 1 + }}: unexpected 'end of the expression'",
        "9:29: tasks.t1.input.y: {% … %} is not available, only {{ … }}; "
        "the text itself is {{ '{%' }}",
        "11:9: tasks.t1.next[0].do: there is no task named 'nope', maybe 'noop'?",
        "12:9: tasks.t1.next[0].when: nothing sets the variable 'zz' before",
        "14:5: tasks.t2.retry: how often? 'count' is missing",
        "14:13: tasks.t2.retry.delay: expected seconds from 0 to 2.592e+06, got 'x'",
        "16:5: tasks.t2.action: given twice, the first time in line 15",
        "17:3: tasks.fail: 'fail' is a command: give the task another name",
        "17:10: tasks.fail.with.items: expected a list, an expression such as "
        "'x in {{ ctx().xs }}', or a node",
        "17:10: tasks.fail.with: a task that has 'with' needs an action",
    ]


@pytest.mark.parametrize(
    ("definition", "path"),
    [
        ([], ""),
        ({}, "tasks"),
        ({"tasks": []}, "tasks"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": {"a b": {}}}, "tasks.a b"),
        ({"tasks": {1: {}}}, "tasks[1]"),
        ({"tasks": {"a": []}}, "tasks.a"),
        ({"tasks": {"a": {"action": 1}}}, "tasks.a.action"),
        ({"tasks": {"a": {"action": ""}}}, "tasks.a.action"),
        ({"tasks": {"a": {"action": "x y=1"}}}, "tasks.a.action"),
        ({"tasks": {"a": {"input": "text"}}}, "tasks.a.input"),
        ({"tasks": {"a": {"input": [1]}}}, "tasks.a.input"),
        ({"tasks": {"a": {"delay": -1}}}, "tasks.a.delay"),
        ({"tasks": {"a": {"timeout": True}}}, "tasks.a.timeout"),
        ({"tasks": {"a": {"timeout": float("nan")}}}, "tasks.a.timeout"),
        ({"tasks": {"a": {"place": "moon"}}}, "tasks.a.place"),
        ({"tasks": {"a": {"retry": 3}}}, "tasks.a.retry"),
        ({"tasks": {"a": {"retry": {"count": -1}}}}, "tasks.a.retry.count"),
        ({"tasks": {"a": {"retry": {"count": "3"}}}}, "tasks.a.retry.count"),
        ({"tasks": {"a": {"retry": {"count": 1, "backoff": "x"}}}}, "tasks.a.retry.backoff"),
        ({"tasks": {"a": {"next": {}}}}, "tasks.a.next"),
        ({"tasks": {"a": {"next": ["b"]}}}, "tasks.a.next[0]"),
        ({"tasks": {"a": {"next": [{"do": 3}]}}}, "tasks.a.next[0].do"),
        ({"tasks": {"a": {"next": [{"do": "noop, noop"}]}}}, "tasks.a.next[0].do"),
        ({"tasks": {"a": {"next": [{"when": 3}]}}}, "tasks.a.next[0].when"),
        ({"tasks": {"a": {"next": [{"publish": ["x"]}]}}}, "tasks.a.next[0].publish[0]"),
        ({"tasks": {"a": {"next": [{"publish": "x=1"}]}}}, "tasks.a.next[0].publish"),
        ({"tasks": {"a": {"next": [{"publish": [{"a-b": 1}]}]}}}, "tasks.a.next[0].publish[0].a-b"),
        ({"tasks": {"a": {"action": "x", "with": "text"}}}, "tasks.a.with.items"),
        ({"tasks": {"a": {"action": "x", "with": "a, a in {{ [] }}"}}}, "tasks.a.with.items"),
        ({"tasks": {"a": {"action": "x", "with": {"items": [], "concurrency": 0}}}}, "tasks.a.with.concurrency"),
        ({"tasks": {"a": {"action": "x", "with": {"items": [], "on_item_error": 1}}}}, "tasks.a.with.on_item_error"),
        ({"tasks": {"a": {"action": "x", "with": {"items": [], "as": "x"}}}}, "tasks.a.with.as"),
        ({"tasks": {"a": {"action": "x", "with": {"items": {"action": "y"}, "as": "x y"}}}}, "tasks.a.with.as"),
        ({"tasks": {"a": {"action": "x", "with": {"items": {"action": "y"}, "as": ["x", "x"]}}}}, "tasks.a.with.as"),
        ({"tasks": {"a": {"action": "x", "with": {"items": {"input": {}}}}}}, "tasks.a.with.items"),
        ({"tasks": {"a": {"action": "x", "with": {"items": {"action": "y", "in": {}}}}}}, "tasks.a.with.items.in"),
        ({"tasks": {"a": {"action": "x", "with": {"items": {"action": "y", "input": {"v": "{{ z }}"}}}}}}, "tasks.a.with.items.input"),
        ({"tasks": {"a": {}}, "input": [3]}, "input[0]"),
        ({"tasks": {"a": {}}, "vars": ["x"]}, "vars[0]"),
        ({"tasks": {"a": {}}, "output": 3}, "output"),
        ({"tasks": {"a": {}}, "name": 3}, "name"),
        ({"tasks": {"a": {}}, "timeout": "{{ 3 }}"}, "timeout"),
    ],
)  # fmt: skip
def test_wrong_field(definition: Any, path: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        validate(definition)
    assert [each.path for each in caught.value.problems] == [path]


def test_unknown_action_is_refused_where_all_are_known() -> None:
    definition = {"tasks": {"a": {"action": "shop.sel"}, "b": {"action": "{{ 'x' }}"}, "c": None}}
    validate(definition)
    assert problems(definition, actions=["shop.sell"]) == [
        "tasks.a.action: there is no node named 'shop.sel', maybe 'shop.sell'?"
    ]


def test_too_many_tasks() -> None:
    (problem,) = problems({"tasks": {f"t{i}": None for i in range(5001)}})
    assert "5001 tasks are too many" in problem


def test_expressions_within_values_are_checked() -> None:
    definition = {"tasks": {"a": {"input": {"x": [{"y": "{{ ( }}"}]}}}, "vars": {"v": ["{{ ) }}"]}}
    with pytest.raises(DefinitionError) as caught:
        validate(definition)
    assert {each.path for each in caught.value.problems} == {"tasks.a.input.x[0].y", "vars.v[0]"}


def test_anchors_within_anchors_are_no_deeper_than_other_values() -> None:
    """Each is short and flat by itself; what they stand for would be 1,000 deep."""
    lines = ["input: [{x: &a0 [1]}]", "tasks: {a: {action: core.noop}}", "vars:"]
    opening, closing = "[" * 50, "]" * 50
    for number in range(1, 21):
        lines.append(f"  - v{number}: &a{number} {opening}*a{number - 1}{closing}")
    with pytest.raises(DefinitionError, match="nested more than 64 deep"):
        validate("\n".join(lines))


def test_definitions_in_python_are_as_deep_as_others() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(DefinitionError, match="nested more than 64 deep"):
        validate({"vars": [{"x": deep}], "tasks": {"a": {"action": "core.noop"}}})
