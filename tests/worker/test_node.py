"""Mirror of worker/node.py."""

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
from shown import shown

import pronghorn.worker
from pronghorn.worker import NodeDefinitionError, Retry, node
from pronghorn.worker.node import NodeSpec, innermost, spec_of


def add(a: int, b: int) -> int:
    return a + b


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_a_node_is_the_same_function() -> None:
    def double(x: int) -> int:
        return 2 * x

    assert node(double) is double
    assert spec_of(double) == NodeSpec(name="double", thread=False)
    assert double(2) == 4


def test_options() -> None:
    @node(name="sum-of", thread=True)
    def double(x: int) -> int:
        return 2 * x

    assert spec_of(double) == NodeSpec(name="sum-of", thread=True)


def test_async_functions_and_lambdas() -> None:
    @node
    async def wait() -> None: ...

    assert spec_of(wait) == NodeSpec("wait", thread=False)
    assert spec_of(node(name="half")(lambda x: x / 2)) == NodeSpec("half", thread=False)


def test_wrappers_on_either_side() -> None:
    @node
    @logged
    def under(x: int) -> int:
        return x

    @logged
    @node
    def over(x: int) -> int:
        return x

    @node
    @functools.lru_cache
    def cached(x: int) -> int:
        return x

    for function, name in ((under, "under"), (over, "over"), (cached, "cached")):
        assert spec_of(function) == NodeSpec(name, thread=False)


def test_how_runs_are_recorded_is_in_the_spec() -> None:
    spec = spec_of(node(durability="batched", at_most_once=True)(lambda_named()))
    assert spec is not None
    assert (spec.durability, spec.at_most_once) == ("batched", True)


def lambda_named() -> Any:
    def sell() -> None: ...

    return sell


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"durability": "none"}, 'durability is \'none\'; give "batched" or "sync"'),
        ({"at_most_once": 1}, "at_most_once is 1; give True or False"),
        ({"at_most_once": True, "retry": Retry()}, "give retry or at_most_once"),
    ],
)
def test_how_runs_can_not_be_recorded(options: Any, told: str) -> None:
    with pytest.raises(NodeDefinitionError, match=told):
        node(**options)(lambda_named())


@pytest.mark.parametrize(
    "thing",
    [int, len, functools.partial(add, 1), "add", 5, staticmethod(add), classmethod(add)],
    ids=shown,
)
def test_only_functions_are_nodes(thing: Any) -> None:
    with pytest.raises(NodeDefinitionError, match="@node marks functions"):
        node(thing)


@pytest.mark.parametrize("name", ["", "a.b", "1a", "a b", "-a", "pronghorn.x"])
def test_names_that_can_not_be_called(name: str) -> None:
    with pytest.raises(NodeDefinitionError, match="can't be a node's name"):
        node(name=name)(add)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(NodeDefinitionError, match="<lambda>"):
        node(lambda x: x)


@pytest.mark.parametrize("thing", [add, MagicMock(), None, int, 5])
def test_all_else_has_no_spec(thing: object) -> None:
    assert spec_of(thing) is None


def test_a_foreign_attribute_is_no_spec() -> None:
    def odd() -> None: ...

    odd.__pronghorn_node__ = "odd"  # type: ignore[attr-defined]
    assert spec_of(odd) is None


def test_wrappers_in_a_ring_end() -> None:
    def ring() -> None: ...

    ring.__wrapped__ = ring  # type: ignore[attr-defined]
    assert innermost(ring) is ring


def test_the_public_names() -> None:
    assert pronghorn.worker.__all__ == [
        "Context",
        "NodeDefinitionError",
        "Retry",
        "node",
        "on_start",
        "on_stop",
    ]


def test_importing_the_decorator_is_cheap() -> None:
    heavy = ("asyncio", "zmq", "uvloop", "msgspec", "logging", "inspect", "numpy")
    code = f"import sys, pronghorn.worker; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stdout.strip() == "[]"


def test_a_policy_of_retries_is_kept() -> None:
    policy = Retry(attempts=2, backoff_s=0.0, on=(ConnectionError, OSError))

    @node(retry=policy)
    def again() -> None: ...

    spec = spec_of(again)
    assert spec is not None
    assert spec.retry is policy


@pytest.mark.parametrize(
    "policy",
    [
        3,
        Retry(attempts=1),
        Retry(attempts=101),
        Retry(attempts=2.5),  # type: ignore[arg-type]
        Retry(backoff_s=-1.0),
        Retry(backoff_s=6.0),
        Retry(backoff_s="1"),  # type: ignore[arg-type]
        Retry(backoff_s=float("nan")),
        Retry(backoff_max_s=3601.0),
        Retry(on=ConnectionError),  # type: ignore[arg-type]
        Retry(on=[ConnectionError]),  # type: ignore[arg-type]
        Retry(on=("ConnectionError",)),  # type: ignore[arg-type]
        Retry(on=(KeyboardInterrupt,)),  # type: ignore[arg-type]
    ],
)
def test_senseless_policies_are_refused(policy: Any) -> None:
    def again() -> None: ...

    with pytest.raises(NodeDefinitionError, match=r"again: retry"):
        node(retry=policy)(again)
