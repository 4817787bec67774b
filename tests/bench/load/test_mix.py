"""What is called, with which parameters."""

from itertools import islice

import msgspec
import pytest

from pronghorn.bench.load.mix import (
    GENERATED,
    calls,
    make_kind,
)
from pronghorn.bench.load.plan import Plan
from pronghorn.broker.wire.errors import InvalidArgumentError


def decoded(bodies: tuple[bytes, ...]) -> list[object]:
    return [msgspec.msgpack.decode(body) for body in bodies]


def test_parameter_sets_are_sent_in_turn() -> None:
    kind = make_kind("add", 1, [{"a": 1}, {"a": 2}], 1)
    plan = Plan(rate=5, duration_s=1, warmup_s=0)
    assert decoded(tuple(call.body for call in calls(plan, [kind], 0))) == [
        {"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}, {"a": 1},
    ]  # fmt: skip


def test_processes_share_the_calls_out_and_together_send_all() -> None:
    kinds = [make_kind("a", 2, [[1], [2], [3]], 1), make_kind("b", 1, [[4]], 1)]
    whole = list(calls(Plan(profile="poisson", rate=500, duration_s=1), kinds, 0))
    shared = Plan(profile="poisson", rate=500, duration_s=1, processes=3, clients=3)
    parts = [list(calls(shared, kinds, process)) for process in range(3)]
    assert sorted(call for part in parts for call in part) == sorted(whole)


def test_closed_loop_never_runs_out() -> None:
    kind = make_kind("a", 1, [[]], 1)
    assert len(list(islice(calls(Plan(closed=2), [kind], 0), 5000))) == 5000


def test_generators_draw_from_the_seed() -> None:
    params = {
        "i": {"$int": [5, 9]},
        "f": {"$float": [0, 1]},
        "c": [{"$choice": ["x", "y"]}],
        "n": {"$count": 100},
        "t": {"$text": 12},
    }
    kind = make_kind("node", 1, [params], 1)
    assert kind == make_kind("node", 1, [params], 1)
    assert kind.digest() != make_kind("node", 1, [params], 2).digest()
    sets = msgspec.convert(decoded(kind.bodies), list[dict[str, object]])
    assert len(sets) == GENERATED
    assert {each["i"] for each in sets} == {5, 6, 7, 8, 9}
    assert [each["n"] for each in sets[:2]] == [100, 101]
    assert all(isinstance(each["t"], str) and len(each["t"]) == 12 for each in sets)
    assert {each["c"][0] for each in sets} == {"x", "y"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("params", "what"),
    [
        ({"a": {"$dice": 6}}, "no generator"),
        ({"a": {"$int": [5]}}, "int"),
        ({"a": {"$int": [9, 5]}}, "int"),
        ({"a": {"$choice": []}}, "choice"),
        ({"a": {"$text": -1}}, "text"),
    ],
)
def test_senseless_generators_are_refused(params: dict[str, object], what: str) -> None:
    with pytest.raises(InvalidArgumentError, match=what):
        make_kind("node", 1, [params], 1)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_weight_must_be_above_0(weight: float) -> None:
    with pytest.raises(InvalidArgumentError, match="weight"):
        make_kind("a", weight, [[]], 1)


def test_no_parameter_set_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no parameter set"):
        make_kind("a", 1, [], 1)


def test_runs_of_a_workflow_are_calls_of_the_node_that_makes_them() -> None:
    order = {"workflow": "deploy", "level": "terminal", "inputs": {}}
    kind = make_kind("deploy", 1, [{"version": {"$count": 7}}], 1, order)
    assert (kind.node, kind.called, kind.workflow) == ("deploy", "pronghorn.run", True)
    assert decoded(kind.bodies[:2]) == [{**order, "inputs": {"version": 7 + n}} for n in range(2)]
    with pytest.raises(InvalidArgumentError, match="by name"):
        make_kind("deploy", 1, [[3]], 1, order)
