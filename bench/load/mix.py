"""What is called: nodes and workflows with weights, and the parameter sets of their calls. Pure.

A workflow is called by the built-in node that runs one to its end; its input is a parameter set.

All parameter sets are made and encoded before the run. Those that a generator makes
(``{"$int": [1, 100]}``) are `GENERATED` sets drawn from the seed; a call costs the same either way.

Mirror: tests/bench/load/test_mix.py.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from random import Random
from typing import Any, NamedTuple

import msgspec

from pronghorn.broker.wire.codec import DECODE_ERRORS
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.flows import RUN
from pronghorn.broker.wire.values import encode_params

from .plan import Plan, choices

GENERATED = 1_000
SETS_MAX = 100_000
SETS_BYTES_MAX = 256 * 1024 * 1024

Params = Mapping[str, Any] | Sequence[Any]


class PlannedCall(NamedTuple):
    """When a call is to be sent, of which kind it is, and what it sends.

    `lane` is the number of its connection within the process; without one they take turns.
    """

    at_ns: int
    kind: int
    body: bytes
    lane: int | None = None
    is_chunk: bool = False


class Kind(msgspec.Struct, frozen=True):
    """Calls of one node, runs of one workflow, or frames to one plain service.

    Attributes:
        node: Name of the node or workflow; what the results call it.
        weight: Its share of the calls, in proportion to the other weights.
        bodies: Encoded parameter sets, or frames, in the order in which they are sent; of a trace
            some of them.
        trace: Digest of the trace that the calls are of, "" if they are not.
        workflow: Whether each call runs a workflow.
    """

    node: str
    weight: float
    bodies: tuple[bytes, ...]
    trace: str = ""
    workflow: bool = False

    @property
    def called(self) -> str:
        """Name of the node that is called."""
        return RUN if self.workflow else self.node

    def digest(self) -> str:
        """Return what tells whether two runs have sent the same."""
        digest = hashlib.sha256(self.trace.encode())
        for body in self.bodies:
            digest.update(len(body).to_bytes(8, "big") + body)
        return digest.hexdigest()[:16]


def make_kind(
    node: str,
    weight: float,
    given: Sequence[Params],
    seed: int,
    run: Mapping[str, Any] | None = None,
) -> Kind:
    """Make the calls of one node or workflow; parameter sets with generators in them are drawn.

    Args:
        node: Name of the node or workflow.
        weight: See `Kind`.
        given: Parameter sets; of a workflow its input, by name.
        seed: What is drawn follows from.
        run: Of a workflow what each of its runs is ordered with, but for the input.

    Raises:
        InvalidArgumentError: The weight is none, there is no set or too many, or one can't be
            sent.
    """
    if not 0 < weight < 1e9:
        raise InvalidArgumentError(f"{node}: weight {weight:g}: expected more than 0")
    if not given:
        raise InvalidArgumentError(f"{node}: there is no parameter set")
    random = Random(f"{seed} params {node}")
    bodies: list[bytes] = []
    size = 0
    for number, params in enumerate(given, start=1):
        for drawn in _drawn(params, random, GENERATED) if _generates(params) else (params,):
            body = _encoded(node, number, drawn if run is None else _order(node, drawn, run))
            bodies.append(body)
            size += len(body)
            if len(bodies) > SETS_MAX or size > SETS_BYTES_MAX:
                raise InvalidArgumentError(
                    f"{node}: more than {SETS_MAX:,} parameter sets or {SETS_BYTES_MAX:,} bytes"
                )
    return Kind(node, weight, tuple(bodies), workflow=run is not None)


def calls(plan: Plan, kinds: Sequence[Kind], process: int) -> Iterator[PlannedCall]:
    """Give one process's share of the calls; those of a closed loop have no time and no end."""
    cursors = [0] * len(kinds)
    times = repeat(0) if plan.closed is not None else plan.times_ns()
    drawn = choices(plan.seed, [kind.weight for kind in kinds])
    for number, (at_ns, kind) in enumerate(zip(times, drawn, strict=False)):
        cursor = cursors[kind]
        cursors[kind] = cursor + 1
        if number % plan.processes == process:
            bodies = kinds[kind].bodies
            yield PlannedCall(at_ns, kind, bodies[cursor % len(bodies)])


def _order(name: str, inputs: Params, run: Mapping[str, Any]) -> Params:
    if not isinstance(inputs, Mapping):
        raise InvalidArgumentError(f"{name}: give the input of a workflow by name, as an object")
    return {**run, "inputs": inputs}


def _encoded(node: str, number: int, params: Params) -> bytes:
    try:
        body, buffers = encode_params(params)
    except (TypeError, *DECODE_ERRORS) as error:
        raise InvalidArgumentError(f"{node}: parameter set {number}: {error}") from error
    assert not buffers  # what JSON and TOML can say is never lifted
    return body


def _generator(value: Any) -> tuple[str, Any] | None:
    """Return name and argument of a generator, if a value is one."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, argument),) = value.items()
        if isinstance(name, str) and name.startswith("$"):
            return name, argument
    return None


def _generates(value: Any) -> bool:
    if _generator(value) is not None:
        return True
    if isinstance(value, dict):
        return any(map(_generates, value.values()))
    return isinstance(value, list) and any(map(_generates, value))


def _drawn(params: Params, random: Random, count: int) -> list[Params]:
    return [_draw(params, random, number) for number in range(count)]


def _draw(value: Any, random: Random, number: int) -> Any:
    found = _generator(value)
    if found is not None:
        name, argument = found
        if name not in _GENERATORS:
            raise InvalidArgumentError(
                f"{name} is no generator: there are {', '.join(_GENERATORS)}"
            )
        try:
            return _GENERATORS[name](random, number, argument)
        except (TypeError, ValueError, IndexError) as error:
            raise InvalidArgumentError(f"{name} {argument!r}: {error}") from error
    if isinstance(value, dict):
        return {key: _draw(each, random, number) for key, each in value.items()}
    if isinstance(value, list):
        return [_draw(each, random, number) for each in value]
    return value


def _text(random: Random, _: int, length: int) -> str:
    if not 0 <= length <= 1_000_000:
        raise ValueError("expected 0 to 1,000,000 characters")
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=length))


_GENERATORS: dict[str, Callable[[Random, int, Any], Any]] = {
    "$int": lambda random, _, limits: random.randint(*limits),
    "$float": lambda random, _, limits: random.uniform(*limits),
    "$choice": lambda random, _, values: random.choice(values),
    "$count": lambda _, number, first: first + number,
    "$text": _text,
}
"""name -> what makes a value of the random numbers, the set's number, and the argument"""
