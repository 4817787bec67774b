"""The commands for workflows: run, rehearse, validate and graph.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_workflow_app.py.
"""

from enum import StrEnum
from typing import Annotated

import typer

from .options import Endpoint, KeptDurabilityName, Name, Timeout

RUN_EXAMPLES = """\
\b
Examples:
  pronghorn run deploy.yaml app=@app.json regions='["eu","us"]'
  pronghorn run deploy app=@app.json
  pronghorn run deploy.yaml --with nodes.py --json
  pronghorn run deploy.yaml --durability sync --detach
"""
REHEARSE_EXAMPLES = """\
\b
Examples:
  pronghorn rehearse cases/*.json
  pronghorn rehearse case.json --json
"""
VALIDATE_EXAMPLES = """\
\b
Examples:
  pronghorn validate deploy.yaml
  pronghorn validate flows/*.yaml --nodes nodes.py
"""
GRAPH_EXAMPLES = """\
\b
Examples:
  pronghorn graph deploy.yaml
  pronghorn graph deploy.yaml --format svg > deploy.svg
"""


class Order(StrEnum):
    """Orders in which tasks of a rehearsal end."""

    FIFO = "fifo"
    LIFO = "lifo"


class Form(StrEnum):
    """Forms of a drawing."""

    TEXT = "text"
    DOT = "dot"
    MERMAID = "mermaid"
    SVG = "svg"


def run(
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="WORKFLOW", help="The file of a definition, or the name of one that is served."
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE",
            help="Its input: VALUE is JSON or else text, @FILE what a file holds; - reads more of "
            "it, as a JSON object, from standard input.",
        ),
    ] = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="MODULE", help="Serve this for the time of the run; needs no broker."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Worker processes for --with. [default: all CPUs]"),
    ] = None,
    durability: Annotated[
        KeptDurabilityName | None,
        typer.Option(
            help="Have the run recorded, so that it survives whatever dies, and Ctrl-C, too; sync: "
            "its end is told when that is on disk."
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach",
            help="Begin a recorded run, print its id, and end: see pronghorn runs show, events, "
            "result, cancel and retry.",
        ),
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="All recorded runs with one key are one run."),
    ] = None,
    timeout: Timeout = None,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print a line of JSON for each event; the last has the output."
        ),
    ] = False,
) -> None:
    """Run a workflow, show its tasks, and print its output.

    The tasks are shown on standard error: on a terminal as a tree with the progress of items, else
    a line for each that ends. Ctrl-C cancels a run that is not recorded. Ends with 1 if it has
    failed.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .arguments import check_timeout
        from .connecting import endpoint_of
        from .flows import run_workflow

        check_timeout(timeout)
        if durability is not None or detach or key is not None:
            from .recorded_flows import run_recorded

            run_recorded(
                workflow,
                inputs or [],
                endpoint=endpoint_of(endpoint, name),
                modules=modules or [],
                durability="sync" if durability is None else durability.value,
                key=key,
                detach=detach,
                timeout_s=timeout,
                as_json=as_json,
            )
            return
        run_workflow(
            workflow,
            inputs or [],
            endpoint=endpoint_of(endpoint, name),
            modules=modules or [],
            workers=workers,
            timeout_s=timeout,
            as_json=as_json,
        )


def rehearse(
    files: Annotated[list[str], typer.Argument(metavar="CASE", help="Files with a case each.")],
    order: Annotated[
        Order, typer.Option(help="Tasks end in the order in which they began, or in the reverse.")
    ] = Order.FIFO,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each: what came of it.")
    ] = False,
) -> None:
    """Run workflows against results that are written down.

    Nothing is called. Ends with 1 if a case came to something else than it expects.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .rehearsing import rehearse_files

        rehearse_files(files, order.value, as_json=as_json)


def validate(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Workflows as YAML or JSON; - reads one.")
    ],
    nodes: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="Load it: actions have to be among its nodes."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print an array with all that is wrong.")
    ] = False,
) -> None:
    """Check workflows and print all that is wrong with them.

    Every problem is a line of its own, FILE:LINE:COLUMN: FIELD: what is wrong. Ends with 1 if there
    are any.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .definitions import validate_files

        validate_files(files, nodes or [], as_json=as_json)


def graph(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A workflow as YAML or JSON.")],
    form: Annotated[Form, typer.Option("--format", help="What to draw it as.")] = Form.TEXT,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print tasks and arrows as JSON instead.")
    ] = False,
) -> None:
    """Draw a workflow."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .definitions import draw_file

        draw_file(file, form.value, as_data=as_json)
