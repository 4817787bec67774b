"""``pronghorn runs cancel`` and ``retry``, and keys, against a real broker with a journal."""

import json
from collections.abc import Iterator

import pytest
from commands import Commands

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(make_commands: "object") -> Iterator[Commands]:
    """Commands in a folder where nodes are served, with a journal."""
    commands: Commands = make_commands()  # type: ignore[operator]
    with commands.serving("nodes.py", "--workers", "1", "--data", "journal"):
        yield commands


def newest(shop: Commands) -> str:
    listed = json.loads(shop("runs", "list", "--data", "journal", "--json").output)
    return str(listed[0]["id"])


def test_a_key_is_run_once_and_its_run_is_left_as_it_has_ended(shop: Commands) -> None:
    call = ("call", "add", "a=1", "b=2", "--durability", "sync", "--key", "order-17")
    assert [shop(*call).output for _ in range(2)] == ["3\n"] * 2
    other = shop("call", "add", "a=1", "b=3", "--durability", "sync", "--key", "order-17")
    assert other.status != 0
    assert "the key 'order-17' has a run already" in other.errors
    run = newest(shop)
    shown = shop("runs", "cancel", run)
    assert (shown.status, shown.output) == (0, f"nodes.add {run}: done\n")
    told = json.loads(shop("runs", "cancel", run, "--json").output)
    assert (told["status"], told["key"]) == ("done", "order-17")
    refused = shop("runs", "retry", run)
    assert "is done: it is not tried again" in refused.errors


def test_a_run_that_has_failed_is_tried_again(shop: Commands) -> None:
    failed = shop("call", "add", "a=1", "b=x", "--durability", "sync", "--key", "wrong")
    assert failed.status != 0
    run = newest(shop)
    assert shop("runs", "retry", run).output == f"nodes.add {run}: open, attempt 2\n"


def test_a_run_that_there_is_not_is_told(shop: Commands) -> None:
    shown = shop("runs", "cancel", "0" * 48)
    assert shown.status != 0
    assert "there is no run 000" in shown.errors
