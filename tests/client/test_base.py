"""Mirror of client/base.py: how options come together, without a broker."""

import pytest

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.client.base import BaseClient
from pronghorn.client.invocation import encode_arguments, target_of
from pronghorn.client.stopwatch import Extras


def test_what_is_not_given_stays_as_it_is() -> None:
    client = BaseClient()
    hurried = client.within(2.0, priority=0)
    both = hurried.within(affinity="a", durability="sync")
    assert (both._timeout_s, both._extras) == (
        2.0,
        Extras(priority=0, affinity="a", durability="sync"),
    )
    assert both.within(None, priority=None)._timeout_s is None
    assert (hurried._timeout_s, hurried._extras) == (2.0, Extras(priority=0))
    assert (client._timeout_s, client._extras) == (None, None)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="priority"):
        BaseClient().within(priority=4)


def test_a_call_is_prepared_with_its_own_time_or_else_the_client_s() -> None:
    client = BaseClient().within(2.0)
    heard: list[object] = []
    target, encoded, timeout_ms, on_event = client._prepare(
        "add", (), {"a": 1, "timeout_s": 0.5, "on_event": heard.append}
    )
    assert target.name == "add"
    assert encoded == encode_arguments(target, (), {"a": 1}, None)
    assert timeout_ms == 500.0
    assert on_event == heard.append
    assert client._prepare("add", (1,), {}).timeout_ms == 2000.0
    assert BaseClient()._prepare("add", (1,), {}).timeout_ms is None


def test_a_plan_has_the_client_s_time_unless_it_is_given_one() -> None:
    client = BaseClient().within(2.0)
    target = target_of("add")
    for given, expected in ((None, 2000.0), (0.5, 500.0)):
        plan, timeout_ms = client._plan(
            target, [{"a": 1}] * 3, ordered=True, chunk_size=2, timeout_s=given
        )
        assert plan.node == "add"
        assert timeout_ms == expected
        first = next(iter(plan.next_chunks()))
        assert first.items == [{"a": 1}] * 2
