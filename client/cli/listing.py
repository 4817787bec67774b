"""``pronghorn nodes``: what a broker serves. An IO shell.

Mirror: tests/client/cli/test_listing.py.
"""

from collections.abc import Sequence

import msgspec

from pronghorn.broker.wire.values import NodeDescription

from ..sync import Client
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .output import aligned, is_terminal, write

_HEADINGS = ("Name", "Signature", "Description")


def list_nodes(endpoint: str, *, as_json: bool) -> None:
    """Print the nodes: as a table, or as a JSON array with signatures, docs and JSON Schemas."""
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        nodes = client.nodes()
    if as_json:
        encoded = msgspec.json.encode(nodes)
        write((msgspec.json.format(encoded) if is_terminal(1) else encoded) + b"\n")
    elif is_terminal(1):
        _print_table(nodes)
    else:
        write(aligned([_HEADINGS, *map(row, nodes)]))


def row(node: NodeDescription) -> tuple[str, str, str]:
    """Return the cells for a node: its name, its signature and the first line of its doc."""
    return node.name, node.signature, node.doc.partition("\n")[0]


def _print_table(nodes: Sequence[NodeDescription]) -> None:
    from rich import box  # only here: it takes as long to import as the rest of the command
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, overflow="fold", no_wrap=heading == "Name")  # to be copied
    for cells in map(row, nodes):
        table.add_row(*map(Text, cells))
    Console().print(table)
