"""The commands that ask a running broker: nodes, ping, reload and stats.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_broker_app.py.
"""

from typing import Annotated

import typer

from .options import AsJson, Endpoint, Name


def nodes(
    endpoint: Endpoint = None,
    name: Name = None,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="The JSON Schemas of their params and results, by name."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON array, with docs and JSON Schemas.")
    ] = False,
) -> None:
    """List the nodes that are served: name, signature, description."""
    from .output import reporting

    with reporting(as_json=as_json or schema):
        from .connecting import endpoint_of

        if schema:
            from .stubbing import print_schemas

            print_schemas(endpoint_of(endpoint, name))
        else:
            from .listing import list_nodes

            list_nodes(endpoint_of(endpoint, name), as_json=as_json)


def ping(
    count: Annotated[
        int, typer.Option("--count", "-c", min=1, metavar="N", help="Round trips.")
    ] = 10,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Give up a round trip after so long.")
    ] = 2.0,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Measure round trips to the broker itself."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .arguments import check_timeout
        from .connecting import endpoint_of
        from .pinging import ping

        check_timeout(timeout)
        ping(endpoint_of(endpoint, name), count=count, timeout_s=timeout, as_json=as_json)


def reload_(endpoint: Endpoint = None, name: Name = None, as_json: AsJson = False) -> None:
    """Import the served modules anew, and serve what they hold now.

    No call fails for it. What can't be imported is told, with exit code 1, and what was served
    before still is.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import reload
        from .connecting import endpoint_of

        reload(endpoint_of(endpoint, name), as_json=as_json)


def stats(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show them anew every second, until Ctrl-C.")
    ] = False,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON, with --watch one a second.")
    ] = False,
) -> None:
    """Show what the broker counts, of nodes and workers.

    Rates and percentiles are of the last minute or so; with --watch, rates of the last second.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .connecting import endpoint_of
        from .stats import show_stats

        show_stats(endpoint_of(endpoint, name), watch=watch, as_json=as_json)
