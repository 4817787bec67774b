"""The commands of ``pronghorn keys``, their arguments and options.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_keys_app.py.
"""

from typing import Annotated

import typer

NEW_EXAMPLES = """\
\b
Examples:
  pronghorn keys new ada
  pronghorn keys new shop-front --node 'shop.*' --node add --out shop-front.key
  pronghorn keys new ops --node '*' --reads --administers
"""

keys_app = typer.Typer(
    help="Make, list and revoke the keys of clients over tcp.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ClientName = Annotated[str, typer.Argument(metavar="CLIENT", help="What the client is called.")]
KeysOption = Annotated[
    str | None,
    typer.Option("--keys", metavar="DIR", help="Folder of the keys. [default: the broker's]"),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the broker. [default: default]"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]


@keys_app.command(epilog=NEW_EXAMPLES)
def new(
    client: ClientName,
    node: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Nodes it may call, by their full names, * for any characters; may be given "
            "several times. [default: all]",
        ),
    ] = None,
    reads: Annotated[
        bool, typer.Option("--reads", help="Let it read statistics and what tells of others.")
    ] = False,
    administers: Annotated[
        bool, typer.Option("--administers", help="Let it reload, scale, recycle and drain.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Where to write its key. [default: private/CLIENT.key beside them]"
        ),
    ] = None,
    public: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Its public key, where it has made its own pair."),
    ] = None,
    keys: KeysOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key for a client, which may connect at once; and the broker's, if it has none.

    The file that is written is for the client alone: whoever has it can do what the client may.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .keys import folder_of, make

        make(
            folder_of(keys, name),
            client,
            nodes=node or ("*",),
            reads=reads,
            administers=administers,
            out=out,
            public=public,
            as_json=as_json,
        )


@keys_app.command("list")
def list_(keys: KeysOption = None, name: NameOption = None, as_json: JsonOption = False) -> None:
    """List the clients that may connect, and what they may do."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .keys import folder_of, show

        show(folder_of(keys, name), as_json=as_json)


@keys_app.command()
def revoke(
    client: ClientName,
    keys: KeysOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a client connect no more; what it has connected is closed at once."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .keys import folder_of, revoke

        revoke(folder_of(keys, name), client, as_json=as_json)
