"""What only the graph tells: cycles, splits, joins that can't be, variables that are not there."""
# ruff: noqa: E501 (definitions are easier to read on one line)

from typing import Any

import pytest

from pronghorn.worker.flow.document import DefinitionError
from pronghorn.worker.flow.graph import Graph
from pronghorn.worker.flow.validation import validate


def tasks(**next_of: str) -> dict[str, Any]:
    """Make tasks by name with what they lead to; ``join_`` before a name makes a join of it."""
    made: dict[str, Any] = {}
    for name, targets in next_of.items():
        task: dict[str, Any] = {"next": [{"do": targets}] if targets else []}
        if name.startswith("join_"):
            task["join"] = "all"
        made[name] = task
    return {"tasks": made}


def problems(definition: Any) -> list[str]:
    try:
        validate(definition)
    except DefinitionError as error:
        return [str(each) for each in error.problems]
    return []


def test_graph_knows_starts_cycles_and_splits() -> None:
    graph = Graph(validate(tasks(a="c", b="c", c="d", d="e", e="d, f", f="", g="g2", g2="")))
    assert graph.starts == ["a", "b", "g"]
    assert graph.cyclic == {"d", "e"}
    assert graph.splits == {"c"}
    assert graph.sources("c") == ["a", "b"]
    assert [edge.target for edge in graph.outbound["e"]] == ["d", "f"]


def test_task_that_leads_to_itself_is_a_cycle() -> None:
    assert Graph(validate(tasks(a="b", b="b"))).cyclic == {"b"}


@pytest.mark.slow
def test_long_chain_needs_no_recursion() -> None:
    names = [f"t{i}" for i in range(5000)]
    chain = dict(zip(names, [*names[1:], ""], strict=True))
    assert Graph(validate(tasks(**chain))).cyclic == set()


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        (tasks(a="b", b="a"), ["tasks: no task can start: to each of them another leads"]),
        (
            tasks(a="", b="c", c="b"),
            [
                f"tasks.{name}: it never starts: no way leads here from a task that starts by itself"
                for name in "bc"
            ],
        ),
        (
            tasks(join_a=""),
            ["tasks.join_a.join: nothing leads to this task, so there is nothing to wait for"],
        ),
        (
            {"tasks": {"a": {"next": [{"do": "b"}]}, "b": {"join": 2}}},
            ["tasks.b.join: waits for 2 tasks, but only 1 lead here"],
        ),
    ],
)
def test_graph_that_can_not_run(definition: Any, expected: list[str]) -> None:
    assert problems(definition) == expected


def test_join_of_ways_with_different_splits_is_ambiguous() -> None:
    (problem,) = problems(tasks(a="s, join_j", b="s", s="x", x="join_j", join_j=""))
    assert problem.startswith(
        "tasks.join_j.join: can't tell what to wait for: s runs several times"
    )
    assert problems(tasks(a="s", b="s", s="x, y", x="join_j", y="join_j", join_j="")) == []


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("vars: [{a: '{{ a }}'}]\ntasks: {t: }", ["vars[0]: nothing sets the variable 'a' before"]),
        ("input: [a]\nvars: [{b: '{{ a }}'}]\ntasks: {t: {input: {x: '{{ b }}'}}}", []),
        (
            "tasks: {t: {input: {x: '{{ nam }}'}}}\nvars: [{name: 1}]",
            ["tasks.t.input: nothing sets the variable 'nam' before, maybe 'name'?"],
        ),
        ("tasks: {t: {next: [{publish: [{a: 1}], do: u}]}, u: {input: {x: '{{ a }}'}}}", []),
        (
            "tasks: {t: {next: [{publish: [{a: 1}]}, {do: u}]}, u: {input: {x: '{{ a }}'}}}",
            ["tasks.u.input: nothing sets the variable 'a' before"],
        ),
        ("tasks: {t: {next: [{publish: [{a: 1}]}]}}\noutput: [{x: '{{ a }}'}, {y: '{{ x }}'}]", []),
        ("tasks: {t: }\noutput: [{x: '{{ y }}'}]", ["output[0]: nothing sets the variable 'y' before"]),
        (
            "tasks: {t: {next: [{publish: [{a: 1}, {b: '{{ a + c }}'}]}]}}",
            ["tasks.t.next[0].publish[1]: nothing sets the variable 'c' before"],
        ),
        ("tasks: {t: {input: {x: \"{{ y | default(1) }} {{ z is defined }}\"}}}", []),
        ("tasks: {t: {input: {x: '{{ true or y }}'}}}", []),
        ("tasks: {a: {next: [{do: b}]}, b: {next: [{publish: [{n: 1}], do: b}], input: {n: '{{ n }}'}}}", []),
        (
            "tasks: {t: {action: a, with: '{{ xs }}', retry: {count: '{{ c }}', when: '{{ w }}'}, delay: '{{ d }}'}}",
            [
                f"tasks.t.{field}: nothing sets the variable '{name}' before"
                for field, name in (
                    ("with.items", "xs"), ("retry.count", "c"), ("retry.when", "w"), ("delay", "d"),
                )
            ],
        ),
    ],
)  # fmt: skip
def test_variables_that_no_way_sets(definition: str, expected: list[str]) -> None:
    assert [each.partition(": ")[2] for each in problems(definition)] == expected


def test_variables_that_the_caller_passes_are_there() -> None:
    validate({"tasks": {"t": {"input": {"x": "{{ who }}"}}}}, context=["who"])
