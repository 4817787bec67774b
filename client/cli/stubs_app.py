"""``pronghorn stubs`` as a command; what it does is in `stubbing`.

Mirror: tests/client/cli/test_stubbing.py.
"""

from enum import StrEnum
from typing import Annotated

import typer

from .options import Endpoint, Name

STUBS_EXAMPLES = """\
\b
Examples:
  pronghorn stubs > shop_client.py
  pronghorn stubs --lang typescript --name shop > shop.ts
  pronghorn stubs nodes.py
"""


class Language(StrEnum):
    """Languages of stubs."""

    PYTHON = "python"
    TYPESCRIPT = "typescript"


def stubs(
    modules: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODULE", help="Of these, instead of what a broker serves."),
    ] = None,
    language: Annotated[
        Language, typer.Option("--lang", help="What to write them in.")
    ] = Language.PYTHON,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON object that holds the source; errors as JSON.")
    ] = False,
) -> None:
    """Write typed clients of the nodes that are served.

    A type checker then finds an argument that is missing, unknown or of a wrong type, and what a
    result is not.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .stubbing import print_stubs

        print_stubs(language.value, modules or [], endpoint, name, as_json=as_json)
