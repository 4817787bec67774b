"""``pronghorn call``: one call, its result or parts on standard output. An IO shell.

Mirror: tests/client/cli/test_calling.py.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from pronghorn.broker.wire.errors import InvalidArgumentError, PronghornError
from pronghorn.broker.wire.messages import Durability
from pronghorn.broker.wire.values import NodeDescription

from ..inbox import Event, Progress
from ..sync import Client
from .arguments import (
    STANDARD_INPUT,
    FromFile,
    Params,
    parse_assignments,
    parse_params,
    read_file,
    value_of_file,
)
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .output import is_terminal, write_result
from .waterfall import show_waterfall

if TYPE_CHECKING:
    from .progress import CallProgress


def call(
    node: str,
    words: list[str],
    params_json: str | None,
    *,
    endpoint: str,
    timeout_s: float | None,
    priority: int | None = None,
    affinity: str | None = None,
    durability: str | None = None,
    key: str | None = None,
    trace: bool = False,
) -> None:
    """Call a node with params from the command line; print its result, or its parts as they come.

    Text is printed as it is and bytes are written as they are, all else as one line of JSON; with
    `params_json` everything is. Progress is shown on a terminal, unless parts are printed on it.
    With `trace` a chart of where the time went comes before the result, on standard error.
    """
    as_json = params_json is not None
    params = _params(words, params_json)
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S).within(
        priority=priority,
        affinity=affinity,
        durability=cast(Durability | None, durability),  # who takes it, checks it
        key=key,
    ) as client:
        description = _described(client, node)
        streams = description is not None and description.streams
        arguments: dict[str, Any] = {"timeout_s": timeout_s}
        by_position: list[Any] = []
        if isinstance(params, list):
            by_position = params
        else:
            arguments["params"] = _with_files(description, params)
        if trace:
            if streams:
                raise InvalidArgumentError(f"{node} yields parts: --trace is for other nodes")
            result = _traced(client, node, by_position, arguments, as_json=as_json)
            write_result(result, node, as_json=as_json)
            return
        with ExitStack() as stack:
            if is_terminal(2) and not (as_json or key or (streams and is_terminal(1))):
                arguments["on_event"] = stack.enter_context(_Bar()).on_event
            if not streams:
                write_result(client.call(node, *by_position, **arguments), node, as_json=as_json)
                return
            for part in stack.enter_context(client.stream(node, *by_position, **arguments)):
                write_result(part, node, as_json=as_json)


class _Bar:
    """A progress bar, from the first progress that the node tells."""

    def __init__(self) -> None:
        self._bar: CallProgress | None = None

    def on_event(self, told: Progress | Event) -> None:
        """Show how far the node is; its other events are for programs."""
        if not isinstance(told, Progress):
            return
        if self._bar is None:
            from .progress import CallProgress  # only here: see mapping.py

            self._bar = CallProgress()
        self._bar.show(told.done, told.total, told.message)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _traced(
    client: Client,
    node: str,
    by_position: list[Any],
    arguments: dict[str, Any],
    *,
    as_json: bool,
) -> Any:
    """Make a call on a warm connection and show where its time went, whether it fails or not."""
    client.ping()
    try:
        traced = client.trace(node, *by_position, **arguments)
    except PronghornError as error:
        if error.waterfall is not None:
            show_waterfall(error.waterfall, as_json=as_json)
        raise
    show_waterfall(traced.waterfall, as_json=as_json)
    return traced.result


def _params(words: list[str], params_json: str | None) -> Params:
    """Put the params together: as JSON, as words, or as JSON for some and words for others."""
    if STANDARD_INPUT in words:
        if params_json is not None:
            raise InvalidArgumentError("give params by --json or by -, not both")
        words = [word for word in words if word != STANDARD_INPUT]
        params_json = STANDARD_INPUT
    named = parse_assignments(words)
    if params_json is None:
        return named
    if params_json == STANDARD_INPUT:
        params = parse_params(read_file(STANDARD_INPUT), "standard input")
    else:
        params = parse_params(params_json, "--json")
    if not named:
        return params
    if isinstance(params, list):
        raise InvalidArgumentError("params by position and by name can't be mixed")
    twice = sorted(params.keys() & named)
    if twice:
        raise InvalidArgumentError(f"{twice[0]} is given twice")
    return params | named


def _described(client: Client, node: str) -> NodeDescription | None:
    """Find out what a node is; `None` if there is none of that name."""
    for description in client.nodes():
        if node == description.name or node in description.aliases:
            return description
    return None


def _with_files(description: NodeDescription | None, params: dict[str, Any]) -> dict[str, Any]:
    """Read the values that are in files, as the types of the parameters say."""
    schemas: dict[str, Any] = {}
    if description is not None:
        schemas = description.params.get("properties", {})
    return {
        name: value_of_file(name, read_file(value.path), schemas.get(name, {}))
        if isinstance(value, FromFile)
        else value
        for name, value in params.items()
    }
