"""Scenario files: a plan and what to call, as TOML. Pure.

    rate = 2000
    duration = 30
    profile = "poisson"
    fail_if = ["p99>5ms", "errors>0"]

    [[call]]
    node = "add"
    weight = 3
    params = { a = 1, b = { "$int" = [1, 100] } }

    [[call]]
    node = "lookup"
    params_file = "keys.jsonl"     # beside the scenario; one JSON object or array a line

    [[call]]
    workflow = "deploy.yaml"       # beside it too, or the name of one that is served
    params = { version = 3 }       # its input

Mirror: tests/bench/load/test_scenario.py.
"""

import tomllib
from typing import Any

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError

from .plan import Profile


class CallEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[call]]``: of a node or of a workflow."""

    node: str | None = None
    weight: float = 1.0
    params: dict[str, Any] | list[Any] | None = None
    params_file: str | None = None
    workflow: str | None = None


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a file says; what it leaves out is as on the command line, which goes before it."""

    rate: float | None = None
    duration: float | None = None
    warmup: float | None = None
    profile: Profile | None = None
    seed: int | None = None
    closed: int | None = None
    clients: int | None = None
    processes: int | None = None
    timeout: float | None = None
    fail_if: tuple[str, ...] = ()
    call: tuple[CallEntry, ...] = ()


def parse_scenario(text: str, origin: str) -> Scenario:
    """Parse a scenario file.

    Raises:
        InvalidArgumentError: It is none; the message says where.
    """
    try:
        scenario = msgspec.convert(tomllib.loads(text), Scenario, strict=True)
    except RecursionError as error:
        raise InvalidArgumentError(f"{origin}: it is nested too deeply") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidArgumentError(f"{origin}: {error}") from error
    if not scenario.call:
        raise InvalidArgumentError(f"{origin}: there is no [[call]]")
    for number, entry in enumerate(scenario.call, start=1):
        if (entry.node is None) == (entry.workflow is None):
            raise InvalidArgumentError(f"{origin}: call {number}: give a node or a workflow")
        if entry.params is not None and entry.params_file is not None:
            raise InvalidArgumentError(
                f"{origin}: call {number} has params and params_file: give one of them"
            )
    return scenario
