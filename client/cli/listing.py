"""``pronghorn nodes``: what a broker serves. An IO shell.

Mirror: tests/client/cli/test_listing.py.
"""

import msgspec

from pronghorn.broker.wire.values import NodeDescription

from ..sync import Client
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .output import is_terminal, write, write_table

_HEADINGS = ("Name", "Signature", "Description")


def list_nodes(endpoint: str, *, as_json: bool) -> None:
    """Print the nodes: as a table, or as a JSON array with signatures, docs and JSON Schemas."""
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        nodes = client.nodes()
    if as_json:
        encoded = msgspec.json.encode(nodes)
        write((msgspec.json.format(encoded) if is_terminal(1) else encoded) + b"\n")
    else:
        write_table(_HEADINGS, [row(node) for node in nodes])


def row(node: NodeDescription) -> tuple[str, str, str]:
    """Return the cells for a node: its name, its signature and the first line of its doc."""
    return node.name, node.signature, node.doc.partition("\n")[0]
