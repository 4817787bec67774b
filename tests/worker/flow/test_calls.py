"""Calls of nodes for tasks: values of their own, types, failures."""

import asyncio
from time import monotonic
from typing import Any

import pytest
from flow_nodes import TABLE

from pronghorn.broker.wire.errors import CancelledError, DeadlineExceededError, OverloadedError
from pronghorn.worker.dispatch import Entry
from pronghorn.worker.flow.calls import (
    Called,
    call,
    call_async,
    call_items,
    context_of,
    failed,
    failed_by,
)
from pronghorn.worker.flow.events import ItemToRun


def run(name: str, given: dict[str, Any] | None = None) -> Called:
    entry = TABLE.lookup(name)
    return call(entry, given, context_of(entry, 7, None, None))


def test_results_are_of_the_types_of_the_wire() -> None:
    assert run("add", {"a": 1}) == Called("succeeded", 2)
    assert run("triple", {"n": 2}) == Called("succeeded", [2, 2, 2])
    assert run("identity", {"value": {"a": (1,)}}) == Called("succeeded", {"a": [1]})
    assert run("who") == Called("succeeded", "nodes.who")


def test_node_gets_values_of_its_own() -> None:
    shared = [1]
    assert run("spoil", {"value": shared}) == Called("succeeded", 2)
    assert shared == [1]


@pytest.mark.parametrize(
    ("name", "given", "code", "message"),
    [
        ("add", {"a": "x"}, "INVALID_ARGUMENT", "Expected `int`"),
        ("add", {"a": 1, "c": 1}, "INVALID_ARGUMENT", "`c`"),
        ("add", None, "INVALID_ARGUMENT", "`a`"),
        ("wrong", {}, "NODE_ERROR", "broken"),
        ("leave", {}, "NODE_ERROR", "3"),
        ("unencodable", {}, "NODE_ERROR", "object"),
        ("huge", {}, "NODE_ERROR", ""),
    ],
)
def test_failures(name: str, given: dict[str, Any] | None, code: str, message: str) -> None:
    called = run(name, given)
    assert (called.status, called.result["code"]) == ("failed", code)
    assert message in called.message
    assert "traceback" not in called.result


def test_ctrl_c_is_for_the_program() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    entry = TABLE.lookup("who")
    broken: Any = type(
        "Broken",
        (),
        {"decode": lambda *_: None, "invoke": lambda *_: interrupted(), "streams": False},
    )
    with pytest.raises(KeyboardInterrupt):
        call(broken(), None, None)
    assert failed(entry, ValueError("x")).message == "x"


def test_items_are_called_in_order_until_the_time_or_the_action_changes() -> None:
    items = [ItemToRun(index, "add", {"a": index}) for index in range(4)]
    items += [ItemToRun(4, "add", {"a": "x"}), ItemToRun(5, "other", None)]
    entry = TABLE.lookup("add")
    ended = call_items(entry, items, 1, monotonic() + 60)
    assert [(each.index, each.status, each.result) for each in ended[:3]] == [
        (1, "succeeded", 2),
        (2, "succeeded", 3),
        (3, "succeeded", 4),
    ]
    assert [(each.index, each.status) for each in ended[3:]] == [(4, "failed")]
    assert [each.index for each in call_items(entry, items, 2, 0.0)] == [2]


async def test_async_nodes() -> None:
    entry = TABLE.lookup("meet")
    assert (await call_async(entry, None, None)).status == "succeeded"
    task = asyncio.ensure_future(call_async(TABLE.lookup("never"), None, None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    refused = await call_async(entry, {"x": 1}, None)
    assert (refused.status, refused.result["code"]) == ("failed", "INVALID_ARGUMENT")


async def test_async_node_that_exits_has_failed() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    made = {"decode": lambda *_: None, "invoke": lambda *_: leave(), "streams": False}
    entry: Any = type("Leaving", (), made)()
    entry.node_error = TABLE.lookup("add").node_error
    assert (await call_async(entry, None, None)).status == "failed"


def test_status_follows_the_error() -> None:
    assert failed_by(DeadlineExceededError("late")).status == "timeout"
    assert failed_by(CancelledError("gone")).status == "canceled"
    assert failed_by(OverloadedError("full")).status == "failed"


def test_context_only_for_who_asks() -> None:
    assert context_of(TABLE.lookup("add"), 1, None, None) is None
    entry: Entry = TABLE.lookup("who")
    context = context_of(entry, 12, None, None)
    assert context is not None
    assert (context.request_id, context.node) == ("12", "nodes.who")
