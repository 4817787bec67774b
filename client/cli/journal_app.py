"""The commands of ``pronghorn runs`` and ``pronghorn journal``, their arguments and options.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_journal_app.py.
"""

from typing import Annotated

import typer

runs_app = typer.Typer(
    help="Look at the runs in a journal; cancel them, try them again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
journal_app = typer.Typer(
    help="Look at a journal as a whole; copy it, and make it small.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Its id, or the first 16 digits of it.")]
WholeId = Annotated[str, typer.Argument(metavar="RUN", help="Its id.")]
Endpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where the broker is. [default: what the environment says]"),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR", help="The journal's folder. [default: the broker's]"),
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the broker. [default: default]"),
]
StatusOption = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="open, done, failed, cancelled, interrupted or poisoned; may be given twice.",
    ),
]
NodeOption = Annotated[
    str | None, typer.Option("--node", metavar="NODE", help="Runs of that node: its full name.")
]
OwnerOption = Annotated[
    str | None, typer.Option("--owner", metavar="OWNER", help="Runs of that owner.")
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Accepted since then: an age such as 2h, 7d, or a date."),
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Accepted before then, written the same way.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]


@runs_app.command("list")
def list_runs(
    status: StatusOption = None,
    node: NodeOption = None,
    owner: OwnerOption = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 100,
    data: DataOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, the newest first."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .runs import list_, parse_filter
        from .stored import folder_of

        path = folder_of(data, name)
        chosen = parse_filter(
            statuses=status or (), node=node, owner=owner, since=since, until=until
        )
        list_(path, chosen, limit=limit, as_json=as_json)


@runs_app.command("show")
def show_run(
    run: RunId, data: DataOption = None, name: NameOption = None, as_json: JsonOption = False
) -> None:
    """Show all that is known of a run."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .runs import show
        from .stored import folder_of

        show(folder_of(data, name), run, as_json=as_json)


@runs_app.command("result")
def print_result(
    run: RunId, data: DataOption = None, name: NameOption = None, as_json: JsonOption = False
) -> None:
    """Print the result of a run, or fail as the run did.

    It is printed as `pronghorn call` prints it.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .runs import result
        from .stored import folder_of

        result(folder_of(data, name), run, as_json=as_json)


@runs_app.command("events")
def list_events(
    run: RunId,
    start: Annotated[
        int, typer.Option("--from", min=0, metavar="N", help="From that sequence number on.")
    ] = 0,
    data: DataOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what has happened to a run; with --json one line each."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .runs import events
        from .stored import folder_of

        events(folder_of(data, name), run, start=start, as_json=as_json)


@runs_app.command("cancel")
def cancel_run(
    run: WholeId,
    endpoint: Endpoint = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a run, and tell how it has ended.

    One that has ended stays as it is. The broker does it, so that must serve.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .connecting import endpoint_of
        from .running import cancel

        cancel(endpoint_of(endpoint, name), run, as_json=as_json)


@runs_app.command("retry")
def retry_run(
    run: WholeId,
    endpoint: Endpoint = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a run tried again that has ended without a result.

    The broker does it, so that must serve.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .connecting import endpoint_of
        from .running import retry

        retry(endpoint_of(endpoint, name), run, as_json=as_json)


@runs_app.command("prune")
def prune_runs(
    status: StatusOption = None,
    node: NodeOption = None,
    owner: OwnerOption = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--all", help="All that have ended.")] = False,
    data: DataOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove runs that have ended.

    Only while no broker writes to the journal: one that does removes runs by itself, when they are
    old or too many.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from pronghorn.broker.wire.errors import InvalidArgumentError

        from .runs import parse_filter, prune
        from .stored import folder_of

        path = folder_of(data, name)
        if not everything and not any((status, node, owner, since, until)):
            raise InvalidArgumentError("say which runs, such as --until 7d, or --all")
        chosen = parse_filter(
            statuses=status or (), node=node, owner=owner, since=since, until=until
        )
        prune(path, chosen, as_json=as_json)


@journal_app.command("stat")
def print_statistics(
    data: DataOption = None, name: NameOption = None, as_json: JsonOption = False
) -> None:
    """Print what a journal holds and how large it is."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .journals import stat
        from .stored import folder_of

        stat(folder_of(data, name), as_json=as_json)


@journal_app.command("verify")
def verify_journal(
    data: DataOption = None, name: NameOption = None, as_json: JsonOption = False
) -> None:
    """Look at everything in a journal, for damage.

    Ends with 5 if there is some.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .journals import verify
        from .stored import folder_of

        verify(folder_of(data, name), as_json=as_json)


@journal_app.command("compact")
def compact_journal(
    data: DataOption = None, name: NameOption = None, as_json: JsonOption = False
) -> None:
    """Make the file as small as what is in it.

    Only while no broker writes to the journal.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .journals import make_small
        from .stored import folder_of

        make_small(folder_of(data, name), as_json=as_json)


@journal_app.command("backup")
def back_up_journal(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A new folder for the copy.")],
    data: DataOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a journal as it is now, in use or not."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .journals import back_up
        from .stored import folder_of

        back_up(folder_of(data, name), target, as_json=as_json)


@journal_app.command("export")
def export_journal(
    target: Annotated[
        str, typer.Argument(metavar="FILE", help="A new file; - is standard output.")
    ] = "-",
    data: DataOption = None,
    name: NameOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print errors as JSON.")] = False,
) -> None:
    """Write all runs as lines of JSON.

    The newest comes first; each has all that happened to it.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .journals import export
        from .stored import folder_of

        export(folder_of(data, name), target)
