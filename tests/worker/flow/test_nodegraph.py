"""Node graphs as definitions."""

from typing import Any

import pytest

from pronghorn.worker.flow.document import DefinitionError
from pronghorn.worker.flow.nodegraph import from_node_graph
from pronghorn.worker.flow.rehearsal import rehearse
from pronghorn.worker.flow.validation import validate


def edge(source: Any, target: Any, out: str | None = None, to: str | None = None) -> dict[str, Any]:
    return {"source": source, "target": target, "sourceHandle": out, "targetHandle": to}


DEEP: Any = {}
for _ in range(900):
    DEEP = {"a": DEEP}

GRAPH = {
    "name": "shop",
    "nodes": [
        {"id": "get-it", "type": "http.get", "data": {"url": "$base$/x", "label": "Get"}},
        {"id": "parse", "type": "tool", "data": {"action": "parse", "input": {"strict": True}}},
        {"id": "both", "type": "sum", "data": {}},
        {"id": "fail", "type": "log"},
    ],
    "edges": [
        edge("get-it", "parse", "body", "text"),
        edge("get-it", "both", None, "first"),
        edge("parse", "both", "success", "second"),
        edge("parse", "fail", "failure"),
    ],
}


def test_graph_runs() -> None:
    definition = from_node_graph(GRAPH)
    validate(definition)
    assert definition["input"] == ["base"]
    assert definition["tasks"]["both"]["join"] == "all"
    played = rehearse(
        {
            "workflow": definition,
            "inputs": {"base": "http://shop"},
            "mocks": [
                {"task": "get_it", "result": {"body": "text"}},
                {"task": "parse", "result": 7},
            ],
        }
    )
    assert played.status == "succeeded"
    assert [(each.task, each.input) for each in played.executions] == [
        ("get_it", {"url": "http://shop/x"}),
        ("parse", {"strict": True, "text": "text"}),
        ("both", {"first": {"body": "text"}, "second": 7}),
    ]


def test_handles_of_failure_and_truth() -> None:
    graph = {
        "nodes": [{"id": name, "type": name} for name in "abcde"],
        "edges": [
            edge("a", "b", "true"), edge("a", "c", "false"), edge("a", "d", "error"),
            edge("a", "e", "always"),
        ],
    }  # fmt: skip
    definition = from_node_graph(graph)

    def played(**mock: Any) -> set[str]:
        case = {"workflow": definition, "mocks": [{"task": "a", **mock}]}
        return {each.task for each in rehearse(case).executions}

    assert played(result=1) == {"a", "b", "e"}
    assert played(result=0) == {"a", "c", "e"}
    assert played(status="failed") == {"a", "d", "e"}


def test_cycle_is_no_join() -> None:
    graph = {
        "nodes": [{"id": name, "type": name} for name in "abc"],
        "edges": [edge("a", "b"), edge("b", "c"), edge("c", "b", "false")],
    }
    definition = from_node_graph(graph)
    validate(definition)
    assert "join" not in definition["tasks"]["b"]


def test_names_are_made_usable_and_kept_apart() -> None:
    nodes = [{"id": name, "type": "t"} for name in ("a-1", "a 1", "noop")]
    assert list(from_node_graph({"nodes": nodes, "edges": []})["tasks"]) == [
        "a_1", "a_1_", "noop_",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("graph", "paths"),
    [
        ({}, ["nodes"]),
        ({"nodes": [], "edges": 3}, ["edges"]),
        ({"nodes": [3], "edges": []}, ["nodes"]),
        ({"nodes": [{"type": "t"}], "edges": []}, ["nodes[0].id"]),
        (
            {"nodes": [{"id": {}, "type": "t"}], "edges": [edge({}, [])]},
            ["nodes[0].id", "edges[0].source", "edges[0].target"],
        ),
        ({"nodes": [{"id": "a", "type": "t", "data": DEEP}], "edges": []}, [""]),
        (
            {"nodes": [{"id": "a", "type": "t"}, {"id": "a", "type": "t"}], "edges": []},
            ["nodes[1].id"],
        ),
        (
            {
                "nodes": [{"id": "a"}, {"id": "b", "type": "t", "data": 3}],
                "edges": [edge("a", "x")],
            },
            ["nodes[0]", "nodes[1].data", "edges[0].target"],
        ),
        (
            {"nodes": [{"id": "a", "type": "t", "data": {"input": 3}}], "edges": []},
            ["nodes[0].data.input"],
        ),
        ({"nodes": [{"id": f"n{i}"} for i in range(5001)], "edges": []}, ["nodes"]),
    ],
)
def test_what_is_no_node_graph(graph: Any, paths: list[str]) -> None:
    with pytest.raises(DefinitionError) as caught:
        from_node_graph(graph)
    assert [each.path for each in caught.value.problems] == paths
