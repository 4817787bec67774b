"""Layers, publishes and what comes of branches that meet."""

import copy
from random import Random
from typing import Any

import pytest

from pronghorn.worker.flow.context import LAYERS_MAX, Context, merge, merge_values

MISSING = object()


def test_publish_leaves_the_context_below_as_it_was() -> None:
    first = Context.first({"a": 1, "b": 2})
    second = first.publish(1, {"a": 3, "c": 4})
    assert (first.variables(), second.variables()) == (
        {"a": 1, "b": 2},
        {"a": 3, "b": 2, "c": 4},
    )
    assert first.get("c", MISSING) is MISSING
    assert second.publish(2, {}) is second


def test_values_are_shared_not_copied() -> None:
    large = list(range(1000))
    context = Context.first({"large": large})
    for number in range(3 * LAYERS_MAX):
        context = context.publish(number, {"n": number})
    assert context.get("large", None) is large
    assert merge([context, context.publish(99, {"x": 1})]).get("large", None) is large


def test_lookup_goes_through_few_layers_however_many_publishes() -> None:
    context = Context.first({"a": 0})
    for number in range(1000):
        context = context.publish(number, {f"v{number}": number})
    assert len(context._layers) <= LAYERS_MAX
    assert len(context.variables()) == 1001
    assert context.get("v500", None) == 500


def test_view_shows_what_is_added_to_it() -> None:
    below = Context.first({"a": 1})
    for number in range(LAYERS_MAX - 1):
        below = below.publish(number, {"a": number})
    variables: dict[str, Any] = {}
    view = Context.view(below, variables)
    variables["b"] = 2
    assert (view.get("b", None), view.get("a", None)) == (2, LAYERS_MAX - 2)


def test_branches_that_meet_bring_only_what_they_have_changed() -> None:
    first = Context.first({"a": 1, "b": 1})
    left = first.publish(1, {"a": 2})
    right = first.publish(2, {"b": 2})
    assert merge([left, right]).variables() == {"a": 2, "b": 2}
    assert merge([right, left]).variables() == {"a": 2, "b": 2}


def test_last_writer_wins_in_order_of_arrival() -> None:
    first = Context.first({"a": 0})
    one, two = first.publish(1, {"a": 1}), first.publish(2, {"a": 2})
    assert merge([one, two]).get("a", None) == 2
    assert merge([two, one]).get("a", None) == 1


def test_what_branches_have_in_common_goes_over_nothing() -> None:
    shared = Context.first({"a": 0}).publish(1, {"a": 1})
    changed = shared.publish(2, {"a": 2})
    assert merge([changed, shared]).get("a", None) == 2
    again = merge([changed, shared.publish(3, {"b": 1})])
    assert again.variables() == {"a": 2, "b": 1}


def test_dicts_that_both_have_changed_are_merged_in_all_depths() -> None:
    first = Context.first({"d": {"x": {"old": 0}, "k": 0}})
    left = first.publish(1, {"d": {"x": {"l": 1}, "k": 1}})
    right = first.publish(2, {"d": {"x": {"r": 2}, "k": 2}})
    assert merge([left, right]).get("d", None) == {"x": {"l": 1, "r": 2}, "k": 2}


def test_dict_that_one_branch_has_replaced_is_taken_as_it_is() -> None:
    first = Context.first({"d": {"old": 0}})
    right = first.publish(1, {"d": {"new": 1}})
    assert merge([first.publish(2, {"x": 1}), right]).get("d", None) == {"new": 1}


def test_branches_that_meet_again_apply_nothing_twice() -> None:
    first = Context.first({"n": []})
    a = first.publish(1, {"a": 1})
    b = first.publish(2, {"b": 1})
    once = merge([a, b])
    c = once.publish(3, {"a": 9})
    assert merge([c, b]) is c
    assert merge([c, merge([a, b.publish(4, {"b": 7})])]).variables() == {"n": [], "a": 9, "b": 7}


def test_merging_changes_no_value() -> None:
    first = Context.first({"d": {"x": {"a": 1}}})
    left, right = first.publish(1, {"d": {"x": {"b": 1}}}), first.publish(2, {"d": {"x": {"c": 1}}})
    before = copy.deepcopy((first.variables(), left.variables(), right.variables()))
    merge([left, right]).get("d", None)["x"]["d"] = 1
    assert (first.variables(), left.variables(), right.variables()) == before


@pytest.mark.parametrize("seed", range(30))
def test_merge_agrees_with_a_plain_model(seed: int) -> None:
    """Branches of one fork, with scalar values: whoever arrived last and has changed it wins."""
    random = Random(seed)
    base = Context.first({f"v{i}": -1 for i in range(5)})
    for number in range(random.randint(0, 12)):
        base = base.publish(1000 + number, {f"v{random.randint(0, 4)}": 1000 + number})
    expected = base.variables()
    branches = []
    for _ in range(random.randint(1, 5)):
        branch, changed = base, {}
        for _ in range(random.randint(0, 15)):
            number = random.randint(1, 10**9)
            variables = {f"v{random.randint(0, 6)}": number}
            branch = branch.publish(number, variables)
            changed.update(variables)
        branches.append(branch)
        expected.update(changed)
    assert merge(branches).variables() == expected


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": 1}}, {"a": 3}, {"a": 3}),
        ({"a": 1}, [1], [1]),
        (None, {"a": 1}, {"a": 1}),
        ({"a": 1}, None, None),
    ],
)
def test_merge_values(below: Any, above: Any, expected: Any) -> None:
    assert merge_values(below, above) == expected
