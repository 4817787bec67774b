"""Mirror of broker/catalog.py: what outlives a change of the nodes, and what does not."""

from math import inf

from pronghorn.broker.catalog import Catalog
from pronghorn.broker.wire.table import HOST_LABEL, NodeInfo, NodeTable, RetryPolicy

ADD, NAP = NodeInfo("m.add", "inline"), NodeInfo("m.nap", "async")


def serving(*nodes: NodeInfo, generation: int = 0) -> Catalog:
    catalog = Catalog()
    catalog.serve(generation, NodeTable(nodes, "d"))
    return catalog


def test_a_node_that_stays_as_it_is_stays_the_same_under_another_index() -> None:
    catalog = serving(ADD, NAP)
    add, nap = catalog.nodes
    add.counts.accepted = 7
    catalog.serve(1, NodeTable((NAP, NodeInfo("m.new", "thread"), ADD), "e"))
    assert [node.name for node in catalog.nodes] == ["m.nap", "m.new", "m.add"]
    assert catalog.nodes[2] is add
    assert catalog.nodes[0] is nap
    assert [node.index for node in catalog.nodes] == [0, 1, 2]
    assert add.served
    assert add.counts.accepted == 7
    assert catalog.by_name["add"] is add
    assert catalog.served == 1


def test_a_node_that_has_changed_is_another_one_whose_counts_go_on() -> None:
    catalog = serving(ADD)
    (old,) = catalog.nodes
    old.estimate_ns, old.refused_until = 10.0, 99.0
    catalog.serve(1, NodeTable((NodeInfo("m.add", "async", RetryPolicy(2, 1.0, 1.0)),), "e"))
    (new,) = catalog.nodes
    assert new is not old
    assert not old.served
    assert (new.estimate_ns, new.refused_until) == (10.0, 99.0)
    assert new.counts is old.counts
    assert new.record is old.record
    assert new.concurrent
    assert not new.marks_items


def test_how_runs_of_a_node_are_recorded_is_known() -> None:
    info = NodeInfo("m.add", "inline", durability="sync", at_most_once=True)
    (sell,) = serving(info).nodes
    assert (sell.durability, sell.at_most_once, sell.is_plain) == ("sync", True, True)


def test_a_node_that_needs_no_label_any_more_is_not_refused_for_one() -> None:
    catalog = serving(NodeInfo("m.add", "inline", labels=("gpu",)))
    assert catalog.nodes[0].refused_until == inf
    catalog.serve(1, NodeTable((ADD,), "e"))
    assert catalog.nodes[0].refused_until == 0


def test_what_is_inside_a_gate_counts_with_the_limits_that_come() -> None:
    catalog = serving(NodeInfo("m.add", "inline", max_concurrency=1))
    gate = catalog.nodes[0].gate
    assert gate is not None
    gate.enter(1)
    catalog.serve(1, NodeTable((NodeInfo("m.add", "async", max_concurrency=2),), "e"))
    assert catalog.nodes[0].gate is gate
    assert gate.wait_s(1.0) == 0
    gate.enter(1)
    assert gate.wait_s(1.0) == inf


def test_a_node_that_is_gone_is_served_no_more_and_not_found() -> None:
    catalog = serving(ADD, NAP)
    add, nap = catalog.nodes
    catalog.serve(1, NodeTable((NAP,), "e"))
    assert (add.served, nap.served) == (False, True)
    assert "m.add" not in catalog.by_name
    assert "no node named 'm.add'" in str(catalog.not_found("m.add"))


def test_digests_are_known_of_the_generation_that_serves_and_of_those_to_come() -> None:
    catalog = serving(ADD)
    catalog.announce(1, NodeTable((NAP,), "e"))
    assert catalog.has_digest(0, "d")
    assert not catalog.has_digest(0, "e")
    assert catalog.has_digest(1, "e")
    assert not catalog.has_digest(1, "d")
    assert not catalog.has_digest(2, "d")
    catalog.serve(1, NodeTable((NAP,), "e"))
    assert catalog.has_digest(1, "e")
    assert catalog.has_digest(0, "whatever"), "of what is over nobody needs to know"


def test_workflows_need_a_host_only_where_there_is_one() -> None:
    flow = NodeInfo("flow", "async", labels=(HOST_LABEL,))
    (node,) = serving(flow).nodes
    assert (node.labels, node.hosted, node.is_plain) == (frozenset(), False, True)
    catalog = Catalog(frozenset({HOST_LABEL}))
    catalog.serve(0, NodeTable((flow,), "d"))
    (node,) = catalog.nodes
    assert (node.labels, node.hosted, node.is_plain) == ({HOST_LABEL}, True, False)
