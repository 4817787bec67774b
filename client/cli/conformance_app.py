"""``pronghorn conformance`` as a command; what it does is in `conforming`.

Mirror: tests/client/cli/test_conforming.py.
"""

from typing import Annotated

import typer

from .options import AsJson, Name

CONFORMANCE_EXAMPLES = """\
\b
Examples:
  pronghorn conformance tcp://127.0.0.1:5555
  pronghorn --key checker.key conformance tcp://host:5555
  pronghorn conformance --serve -- node walk.mjs
  pronghorn conformance --nodes > nodes.py
"""


def conformance(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ENDPOINT | COMMAND...",
            help="The broker; or, with --serve, the client: it gets an endpoint as last argument.",
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Check a client, by a broker made for that.")
    ] = False,
    nodes: Annotated[
        bool,
        typer.Option("--nodes", help="Print the nodes that a broker should serve for all checks."),
    ] = False,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Check a broker or client against the protocol.

    Of a broker that does not serve the nodes that --nodes prints some checks are skipped. A client
    has to take the walk that scripts/examples/clients describes. Ends with 1 if a check fails.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .conforming import check_broker, check_client, print_nodes

        if nodes:
            print_nodes()
        elif serve:
            check_client(words or [], as_json=as_json)
        else:
            check_broker(words or [], name, as_json=as_json)
