"""``pronghorn call``: one call, its result on standard output. An IO shell.

Mirror: tests/client/cli/test_calling.py.
"""

from typing import Any

from pronghorn.broker.wire.errors import InvalidArgumentError

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
from .output import is_terminal, json_line, warn, write


def call(
    node: str, words: list[str], params_json: str | None, *, endpoint: str, timeout_s: float | None
) -> None:
    """Call a node with params from the command line and print its result.

    Text is printed as it is and bytes are written as they are, all else as one line of JSON; with
    `params_json` everything is.
    """
    params = _params(words, params_json)
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        if isinstance(params, list):
            result = client.call(node, *params, timeout_s=timeout_s)
        else:
            params = _with_files(client, node, params)
            result = client.call(node, params=params, timeout_s=timeout_s)
    _print(result, node, as_json=params_json is not None)


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


def _with_files(client: Client, node: str, params: dict[str, Any]) -> dict[str, Any]:
    """Read the values that are in files; only they need the parameters' types, so only then ask."""
    if not any(isinstance(value, FromFile) for value in params.values()):
        return params
    schemas: dict[str, Any] = {}
    for description in client.nodes():
        if node == description.name or node in description.aliases:
            schemas = description.params.get("properties", {})
    return {
        name: value_of_file(name, read_file(value.path), schemas.get(name, {}))
        if isinstance(value, FromFile)
        else value
        for name, value in params.items()
    }


def _print(result: Any, node: str, *, as_json: bool) -> None:
    if as_json or not isinstance(result, str | bytes):
        write(json_line(result, node))
    elif isinstance(result, str):
        write(result + "\n")
    elif is_terminal(1):
        warn(f"the result has {len(result)} bytes: send them to a file or a pipe, or use --json")
    else:
        write(result)
