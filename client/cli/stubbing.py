"""``pronghorn stubs`` and ``pronghorn nodes --schema``: what programs are made of. An IO shell.

Mirror: tests/client/cli/test_stubbing.py.
"""

from collections.abc import Sequence
from typing import Any

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.values import NodeDescription
from pronghorn.worker.dispatch import DispatchTable
from pronghorn.worker.loader import load

from ..sync import Client
from .connecting import CONNECT_TIMEOUT_S, check_listening, endpoint_of
from .output import write, write_object
from .pythonstubs import python_stubs
from .schematypes import api_of
from .typescriptstubs import typescript_stubs

_LANGUAGES = {"python": python_stubs, "typescript": typescript_stubs}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def print_stubs(
    language: str,
    modules: Sequence[str],
    endpoint: str | None,
    name: str | None,
    *,
    as_json: bool,
) -> None:
    """Print typed clients of what a broker serves, or of modules, without a broker.

    Raises:
        InvalidArgumentError: Both are given, or a module can't be loaded.
        BrokerLostError: There is no broker.
    """
    if modules and (endpoint or name):
        raise InvalidArgumentError("give modules, or a broker by --endpoint or --name, not both")
    nodes = nodes_of(modules) if modules else nodes_at(endpoint_of(endpoint, name))
    source = _LANGUAGES[language](api_of(nodes))
    if as_json:
        write_object({"language": language, "nodes": len(nodes), "source": source})
    else:
        write(source)


def print_schemas(endpoint: str) -> None:
    """Print one JSON object: the JSON Schemas of each node's params and result.

    Raises:
        BrokerLostError: There is no broker.
    """
    write_object({"$schema": _DIALECT, "nodes": schemas(nodes_at(endpoint))})


def schemas(nodes: Sequence[NodeDescription]) -> dict[str, Any]:
    """Make the object: full name -> what is known of the node; each schema stands by itself."""
    return {
        node.name: {
            "description": node.doc,
            "params": {"$schema": _DIALECT, **node.params},
            "result": {"$schema": _DIALECT, **node.result},
            "streams": node.streams,
        }
        for node in nodes
    }


def nodes_at(endpoint: str) -> Sequence[NodeDescription]:
    """Ask a broker for what it serves."""
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        return client.nodes()


def nodes_of(modules: Sequence[str]) -> Sequence[NodeDescription]:
    """Load modules and describe their nodes.

    Raises:
        InvalidArgumentError: One can't be loaded.
    """
    loaded = load(modules)
    if loaded.failures:
        first = loaded.failures[0]
        raise InvalidArgumentError(f"{first.subject} can't be loaded: {first.message}")
    return DispatchTable(loaded.entries).descriptions()
