"""Arguments and options that several commands have.

Mirror: tests/client/cli/test_options.py.
"""

from enum import StrEnum
from typing import Annotated

import typer


class DurabilityName(StrEnum):
    """Those of `wire.messages.Durability`, which is not imported to print help."""

    NONE = "none"
    BATCHED = "batched"
    SYNC = "sync"


class KeptDurabilityName(StrEnum):
    """Those with which something is recorded."""

    BATCHED = "batched"
    SYNC = "sync"


Node = Annotated[
    str, typer.Argument(metavar="NODE", help="Its name: module.function, or function where unique.")
]
Endpoint = Annotated[
    str | None,
    typer.Option(metavar="ENDPOINT", help="Where the broker is: ipc://PATH or tcp://HOST:PORT."),
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name of the broker, as given to serve.")
]
Timeout = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Give up after so long. [default: never]")
]
Priority = Annotated[
    int | None, typer.Option(metavar="0-3", help="Lower numbers go first. [default: 1]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
