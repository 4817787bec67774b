"""From arguments to requests and from replies to values, without any connection."""

import functools
import sys
from collections.abc import Iterator
from datetime import timedelta, timezone
from math import inf, nan
from types import ModuleType
from typing import Any

import client_nodes
import msgspec
import pytest
from client_nodes import Colour, Point
from shown import shown

from pronghorn.broker.wire.errors import (
    DeadlineExceededError,
    ErrorDetails,
    InvalidArgumentError,
    NodeError,
    ProtocolError,
)
from pronghorn.broker.wire.limits import TIMEOUT_MS_MAX
from pronghorn.broker.wire.messages import Error, Pong, Result
from pronghorn.client.invocation import (
    Target,
    check_arguments,
    check_pong,
    encode_arguments,
    refused,
    result_of,
    take_on_event,
    take_options,
    take_recording,
    target_of,
    timeout_ms_of,
)
from pronghorn.client.stopwatch import Extras
from pronghorn.worker import node

BY_NAME = target_of("add")


def decoded(params: tuple[bytes, Any]) -> Any:
    assert not params[1]
    return msgspec.msgpack.decode(params[0])


def reply(value: Any) -> Result:
    return Result(1, msgspec.Raw(msgspec.msgpack.encode(value)))


# --- target_of ----------------------------------------------------------------------------------


def test_a_name_is_a_target_of_which_nothing_is_known() -> None:
    assert target_of("nodes.add") == Target("nodes.add", Any, None)


def test_a_function_is_known_by_module_and_name_and_signature() -> None:
    target = target_of(client_nodes.move)
    assert target.name == "client_nodes.move"
    assert target.result_type is Point
    assert target.signature is not None
    assert list(target.signature.parameters) == ["point", "by"]


def test_a_node_s_own_name_counts() -> None:
    @node(name="other")
    def one() -> None: ...

    assert target_of(one).name == f"{__name__}.other"


def test_an_injected_context_is_not_for_the_caller() -> None:
    target = target_of(client_nodes.in_context)
    assert target.signature is not None
    assert list(target.signature.parameters) == ["a", "b"]


def test_an_async_node_gives_what_it_returns() -> None:
    assert target_of(client_nodes.add_async).result_type is int


@pytest.mark.parametrize(
    "annotation", [object, Any, "Missing", functools.partial, dict[str, object], list[timezone], 7]
)
def test_a_result_that_can_not_be_checked_is_not(annotation: Any) -> None:
    def function(): ...  # type: ignore[no-untyped-def]

    function.__annotations__ = {"return": annotation}
    assert target_of(node(function)).result_type is Any


@pytest.mark.parametrize(
    "thing",
    [
        lambda a: a,
        len,
        functools.partial(client_nodes.add, 1),
        timedelta,
        7,
        None,
        ["add"],
        {"add": 1},
    ],
    ids=shown,
)
def test_anything_else_is_refused(thing: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="is not a node: mark it with @node"):
        target_of(thing)


@pytest.mark.parametrize("name", ["\udcff", "add\ud800"])
def test_a_name_that_is_no_text_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no node's name"):
        target_of(name)


def test_a_script_s_nodes_are_served_under_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def function() -> None: ...

    function.__module__ = "__main__"
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert target_of(node(function)).name == "__main__.function"  # a notebook has no file

    def another() -> None: ...

    another.__module__ = "__main__"
    main.__file__ = "/some/where/script.py"
    assert target_of(node(another)).name == "script.another"


# --- options ------------------------------------------------------------------------------------


def test_options_are_taken_out_of_the_arguments() -> None:
    named = {"a": 1, "timeout_s": 2.0, "params": {"b": 2}}
    assert take_options(BY_NAME, named, None) == (2.0, {"b": 2})
    assert named == {"a": 1}


def test_without_options_the_default_timeout_counts() -> None:
    assert take_options(BY_NAME, {}, 3.0) == (3.0, None)
    assert take_options(BY_NAME, {"a": 1}, 3.0) == (3.0, None)
    assert take_options(BY_NAME, {"timeout_s": None}, 3.0) == (None, None)


def test_a_function_s_own_parameters_are_no_options() -> None:
    named = {"timeout_s": 2.0, "params": 4}
    assert take_options(target_of(client_nodes.named_like_options), named, None) == (None, None)
    assert named == {"timeout_s": 2.0, "params": 4}
    named = {"a": 1, "timeout_s": 2.0}
    assert take_options(target_of(client_nodes.add), named, None) == (2.0, None)


def test_a_key_is_an_option_beside_a_durability_or_where_a_run_is_started() -> None:
    named: dict[str, Any] = {"key": "a", "value": 1}
    assert take_recording(BY_NAME, named, None) is None
    assert named == {"key": "a", "value": 1}
    assert take_recording(BY_NAME, named, None, starts=True) == Extras(key="a")
    assert named == {"value": 1}
    named = {"key": "a", "durability": "sync"}
    assert take_recording(BY_NAME, named, Extras(priority=0)) == Extras(
        priority=0, durability="sync", key="a"
    )
    assert named == {}


def test_what_the_function_has_a_parameter_for_is_for_that_alone() -> None:
    named: dict[str, Any] = {"key": "a", "durability": "thick"}
    target = target_of(client_nodes.keyed)
    assert take_recording(target, named, None, starts=True) is None
    assert named == {"key": "a", "durability": "thick"}


def test_timeouts_are_sent_as_milliseconds() -> None:
    assert timeout_ms_of(None) is None
    assert timeout_ms_of(1.5) == 1500.0
    assert timeout_ms_of(TIMEOUT_MS_MAX / 1000) == TIMEOUT_MS_MAX


@pytest.mark.parametrize("timeout_s", [0, -1, nan, inf, TIMEOUT_MS_MAX / 1000 + 1])
def test_timeouts_out_of_bounds_are_refused(timeout_s: float) -> None:
    with pytest.raises(InvalidArgumentError, match="must be above 0 and at most 2592000"):
        timeout_ms_of(timeout_s)


# --- arguments ----------------------------------------------------------------------------------


def test_arguments_by_position_by_name_or_as_a_mapping() -> None:
    assert decoded(encode_arguments(BY_NAME, (1, 2), {}, None)) == [1, 2]
    assert decoded(encode_arguments(BY_NAME, (), {"a": 1}, None)) == {"a": 1}
    assert decoded(encode_arguments(BY_NAME, (), {}, {"timeout_s": 1})) == {"timeout_s": 1}
    assert decoded(encode_arguments(BY_NAME, (), {}, {})) == {}
    assert decoded(encode_arguments(BY_NAME, (), {}, None)) == {}


def test_arguments_may_be_mixed_where_the_function_is_known() -> None:
    target = target_of(client_nodes.keyword_only)
    assert decoded(encode_arguments(target, (1,), {"b": 2}, None)) == {"a": 1, "b": 2}
    target = target_of(client_nodes.in_context)
    assert decoded(encode_arguments(target, (1,), {"b": 2}, None)) == {"a": 1, "b": 2}


def test_arguments_may_not_be_mixed_for_a_name() -> None:
    with pytest.raises(InvalidArgumentError, match="all arguments by position or all by name"):
        encode_arguments(BY_NAME, (1,), {"b": 2}, None)


def test_a_mapping_stands_alone() -> None:
    for arguments, named in ((1,), {}), ((), {"a": 1}):
        with pytest.raises(InvalidArgumentError, match="params=… or arguments, not both"):
            encode_arguments(BY_NAME, arguments, named, {"b": 2})


def test_mixed_arguments_have_to_fit_the_function() -> None:
    target = target_of(client_nodes.add)
    with pytest.raises(InvalidArgumentError, match="multiple values for argument 'a'"):
        encode_arguments(target, (1,), {"a": 1}, None)


@pytest.mark.parametrize("value", [object(), 2**70, {1: {2: len}}, "\ud800"], ids=shown)
def test_what_can_not_be_encoded_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="add: can't encode the arguments: "):
        encode_arguments(BY_NAME, (value,), {}, None)


def test_what_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidArgumentError, match="can't encode the arguments"):
        encode_arguments(BY_NAME, (endless,), {}, None)


def test_arguments_are_checked_against_the_function() -> None:
    check_arguments(BY_NAME, (1, 2, 3), {"anything": 1})
    check_arguments(target_of(client_nodes.add), (1,), {"b": 2})
    check_arguments(target_of(client_nodes.in_context), (1,), {})
    for arguments, named in ((), {}), ((1, 2, 3), {}), ((1, 2), {"c": 3}):
        with pytest.raises(TypeError):
            check_arguments(target_of(client_nodes.add), arguments, named)


# --- replies ------------------------------------------------------------------------------------


def test_results_are_of_the_annotated_type() -> None:
    assert result_of(BY_NAME, reply([1, 2]), ()) == [1, 2]
    assert result_of(target_of(client_nodes.evens), reply([2, 4]), ()) == {2, 4}
    assert result_of(target_of(client_nodes.paint), reply("red"), ()) is Colour.RED
    assert result_of(target_of(client_nodes.move), reply({"x": 1, "y": 2}), ()) == Point(1, 2)
    assert result_of(target_of(client_nodes.nothing), reply(None), ()) is None


def test_a_result_of_another_type_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="Expected `int`, got `str`") as caught:
        result_of(target_of(client_nodes.add), reply("three"), ())
    assert caught.value.outcome == "executed"


def test_errors_are_raised_with_all_they_say() -> None:
    details = ErrorDetails(
        outcome="executed", node="n.f", exception="ValueError", traceback="Trace"
    )
    with pytest.raises(NodeError) as caught:
        result_of(BY_NAME, Error(1, "NODE_ERROR", "no", details), ())
    assert caught.value.details == details
    assert str(caught.value) == "ValueError: no\n\nRemote traceback:\nTrace"


def test_other_replies_are_errors() -> None:
    with pytest.raises(ProtocolError, match="unexpected reply Pong"):
        result_of(BY_NAME, Pong(1, "epoch"), ())


def test_refusals_become_replies_and_errors_again() -> None:
    error = DeadlineExceededError("late", ErrorDetails(outcome="not_started"))
    with pytest.raises(DeadlineExceededError, match="late") as caught:
        check_pong(refused(error))
    assert caught.value.outcome == "not_started"
    check_pong(Pong(1, "epoch"))


def test_on_event_is_an_option_unless_the_function_has_it() -> None:
    target = target_of("nodes.it")
    named: dict[str, Any] = {"a": 1, "on_event": print}
    assert take_on_event(target, named) is print
    assert named == {"a": 1}
    assert take_on_event(target, named) is None

    @node
    def own(on_event: int) -> None: ...

    named = {"on_event": 5}
    assert take_on_event(target_of(own), named) is None
    assert named == {"on_event": 5}
    with pytest.raises(InvalidArgumentError, match="on_event is 5"):
        take_on_event(target, named)


def test_a_generator_has_a_type_of_its_parts() -> None:
    @node
    def rows() -> Iterator[int]:
        yield 1

    @node
    async def untyped():  # type: ignore[no-untyped-def]
        yield 1

    assert (target_of(rows).part_type, target_of(rows).result_type) == (int, list[int])
    assert target_of(untyped).part_type is Any
