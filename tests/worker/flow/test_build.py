"""Definitions made in Python are those that YAML makes."""

import pytest
from flow_nodes import add

from pronghorn.worker.flow.build import Flow, again, each, given_by
from pronghorn.worker.flow.document import DefinitionError
from pronghorn.worker.flow.model import content_hash
from pronghorn.worker.flow.validation import validate

DEPLOY = """
version: 1
name: deploy
description: Rolls it out.
input: [app, {regions: []}]
vars: [{done: []}]
timeout: 60
tasks:
  check:
    action: http.get
    input: {url: "{{ ctx().app.url }}"}
    timeout: 30
    retry: {count: 3, delay: 1, backoff: exponential, max_delay: 10, when: "{{ failed() }}"}
    next:
      - when: "{{ succeeded() }}"
        publish: [{info: "{{ result().body }}"}]
        do: [roll]
      - {when: "{{ failed() }}", do: [fail]}
  roll:
    with: {items: "region in {{ ctx().regions }}", concurrency: 8}
    action: cloud.deploy
    input: {region: "{{ item('region') }}", n: "{{ index }}"}
    next: [{publish: [{done: "{{ result() }}"}]}]
output: [{regions: "{{ ctx().done }}"}]
"""


def deploy() -> Flow:
    flow = Flow(
        "deploy",
        description="Rolls it out.",
        input=["app", {"regions": []}],
        vars={"done": []},
        timeout=60,
    )
    check = flow.task(
        "check",
        "http.get",
        {"url": "{{ ctx().app.url }}"},
        timeout=30,
        retry=again(3, delay=1, backoff="exponential", max_delay=10, when="{{ failed() }}"),
    )
    roll = flow.task(
        "roll",
        "cloud.deploy",
        {"region": "{{ item('region') }}", "n": "{{ index }}"},
        items=each("region", "{{ ctx().regions }}", concurrency=8),
    )
    check.on_success(roll, publish={"info": "{{ result().body }}"}).on_failure("fail")
    roll.then(publish={"done": "{{ result() }}"})
    return flow.output(regions="{{ ctx().done }}")


def test_it_is_the_same_workflow() -> None:
    assert content_hash(deploy().workflow()) == content_hash(validate(DEPLOY))


def test_a_node_is_named_by_its_function() -> None:
    flow = Flow("f")
    flow.task("t", add, items=each(None, [1, 2]), place="inline", join=None)
    assert flow.definition()["tasks"] == {
        "t": {"action": "flow_nodes.add", "with": {"items": [1, 2]}, "place": "inline"}
    }


def test_a_node_gives_items() -> None:
    flow = Flow("f")
    flow.task("t", "x", items=each("a, b", given_by(add, {"a": 1}), concurrency=2))
    flow.task("u", "x", items=each(None, given_by("rows")))
    assert flow.definition()["tasks"] == {
        "t": {
            "action": "x",
            "with": {
                "items": {"action": "flow_nodes.add", "input": {"a": 1}},
                "as": ["a", "b"],
                "concurrency": 2,
            },
        },
        "u": {"action": "x", "with": {"items": {"action": "rows"}}},
    }
    assert flow.workflow().tasks["t"].items is not None


def test_what_is_wrong_is_told() -> None:
    flow = Flow("f")
    flow.task("t")
    with pytest.raises(ValueError, match="task 't' already"):
        flow.task("t")
    with pytest.raises(ValueError, match="have names only"):
        each("x", [1])
    flow.task("u").then("nowhere")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="nowhere"):
        flow.workflow()
