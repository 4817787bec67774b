"""The commands for workflows that nobody runs: rehearse, validate and graph.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_workflow_app.py.
"""

from enum import StrEnum
from typing import Annotated

import typer

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
