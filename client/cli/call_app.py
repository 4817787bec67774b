"""The commands ``pronghorn call`` and ``pronghorn map``, their arguments and options.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_call_app.py.
"""

from typing import Annotated

import typer

from .options import DurabilityName, Endpoint, Name, Node, Priority, Timeout

CALL_EXAMPLES = """\
\b
Examples:
  pronghorn call add a=1 b=2
  pronghorn call add --json '{"a": 1, "b": 2}'
  pronghorn call greet who=Ada excited=true
  pronghorn call resize image=@photo.png width=200 > small.png
"""
MAP_EXAMPLES = """\
\b
Examples:
  pronghorn map add < params.jsonl > sums.jsonl
  seq 9 | sed 's/.*/{"a": &, "b": 1}/' | pronghorn map add
  pronghorn map add params.jsonl --durability sync --key sums-may
"""


def call(
    node: Node,
    params: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE",
            help="Its parameters: VALUE is JSON or else text, @FILE what a file holds; "
            "- reads them all, as JSON, from standard input.",
        ),
    ] = None,
    params_json: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="PARAMS",
            help="Parameters as a JSON object (by name) or array (by position), - from standard "
            "input; then result and errors are JSON too.",
        ),
    ] = None,
    timeout: Timeout = None,
    priority: Priority = None,
    affinity: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Calls of the same key go to the same worker."),
    ] = None,
    durability: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="sync: print the result when the call's record is kept; batched: at once, the "
            "record follows. [default: what the node says, mostly none]",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Run it once for all calls of this key, with --durability; the others get its "
            "result.",
        ),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show where its time went, on standard error.")
    ] = False,
    endpoint: Endpoint = None,
    name: Name = None,
) -> None:
    """Call a node and print its result.

    Of a streaming node each part is printed as it comes. Text is printed as it is, bytes are
    written as they are, all else is one line of JSON. What a node tells of its progress is shown
    as a bar, if standard error is a terminal.
    """
    from .output import reporting

    with reporting(as_json=params_json is not None):
        from .arguments import check_node, check_timeout
        from .calling import call
        from .connecting import endpoint_of

        found = endpoint_of(endpoint, name)
        check_timeout(timeout)
        call(
            check_node(node),
            params or [],
            params_json,
            priority=priority,
            affinity=affinity,
            durability=durability,
            key=key,
            endpoint=found,
            timeout_s=timeout,
            trace=trace,
        )


def map_(
    node: Node,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Parameters of one run a line, JSON objects or arrays; - is standard input.",
        ),
    ] = "-",
    unordered: Annotated[
        bool, typer.Option("--unordered", help="Print results as they come.")
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going",
            "--return-exceptions",
            help='Print {"error": …} for an item that fails, go on, and end with 1.',
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Give up a chunk, or starting a recorded map, after so long. [default: never]",
        ),
    ] = None,
    priority: Priority = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Items per message. [default: as many as run for 4 ms]"
        ),
    ] = None,
    durability: Annotated[
        DurabilityName | None,
        typer.Option(
            help="Have the map recorded as one run, which survives whatever dies, and Ctrl-C, too: "
            "its input is read to the end first; sync: a result is printed when it is on disk; "
            "batched: its record follows. [default: none]"
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="All recorded maps with one key are one run: later ones print its results.",
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Begin a recorded map, print its id, and end: see pronghorn runs show, events, "
            "result, cancel and retry.",
        ),
    ] = False,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Errors as JSON, no progress bar; results always are.")
    ] = False,
) -> None:
    """Run a node for each line of input, on all workers.

    Results are lines of JSON, by default in the order of the items. The id of a recorded map is
    told on standard error.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .arguments import check_node, check_timeout
        from .connecting import endpoint_of
        from .mapping import MapOptions, map_lines

        check_timeout(timeout)
        is_recorded = durability not in (None, DurabilityName.NONE) or detach or key is not None
        options = MapOptions(
            ordered=not unordered,
            keep_going=keep_going,
            timeout_s=timeout,
            priority=priority,
            chunk_size=chunk_size,
            durability="none" if durability is DurabilityName.NONE else None,
        )
        found = endpoint_of(endpoint, name)
        if is_recorded:
            from .recorded_maps import Recording, map_recorded

            recording = Recording(
                durability=None if durability is None else durability.value, key=key, detach=detach
            )
            map_recorded(check_node(node), file, found, options, recording, as_json=as_json)
            return
        map_lines(check_node(node), file, found, options, quiet=as_json)
