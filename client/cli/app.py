"""The program's commands, put together; each is defined in a module of its own.

What a command does is in a further one. Imports of ours are inside the functions of all those
modules: they would make help and usage errors wait.

Mirror: tests/client/cli/test_app.py.
"""

import os
from typing import Annotated

import typer

from .broker_app import nodes, ping, reload_, stats
from .call_app import CALL_EXAMPLES, MAP_EXAMPLES, call, map_
from .conformance_app import CONFORMANCE_EXAMPLES, conformance
from .journal_app import journal_app, runs_app
from .keys_app import keys_app
from .load_app import LOAD_EXAMPLES, load
from .options import AsJson
from .serve_app import SERVE_EXAMPLES, serve
from .stubs_app import STUBS_EXAMPLES, stubs
from .workers_app import workers_app
from .workflow_app import (
    GRAPH_EXAMPLES,
    REHEARSE_EXAMPLES,
    RUN_EXAMPLES,
    VALIDATE_EXAMPLES,
    graph,
    rehearse,
    run,
    validate,
)

EPILOG = """\
\b
Exit codes:
  0    done
  1    the node failed; serve: can't start; validate, rehearse, conformance: something is
       wrong; load: a --fail-if holds
  2    wrong usage: an option, a parameter, the name of a node
  3    there is no broker, or it was lost
  4    timeout
  5    anything else: a worker died, a limit is reached, a defect
  130  Ctrl-C

Results go to standard output, errors to standard error; with --json an error is one line
{"error": {"code": …, "message": …, "outcome": …}}.

PRONGHORN_ENDPOINT names the broker where neither --endpoint nor --name does, PRONGHORN_KEY and
PRONGHORN_SERVER_KEY the keys for tcp endpoints where --key and --server-key do not.
"""

app = typer.Typer(
    help="Run small Python functions in about a tenth of a millisecond, on all cores.",
    epilog=EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich would double the time that help takes
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def keys_of_client(
    key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Key to show at a tcp endpoint, of `pronghorn keys new`."
        ),
    ] = None,
    server_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Public key of the broker. [default: the one in --key]"),
    ] = None,
) -> None:
    """Take the options that come before the command."""
    if key is not None:  # to where every client looks
        os.environ["PRONGHORN_KEY"] = key
    if server_key is not None:
        os.environ["PRONGHORN_SERVER_KEY"] = server_key


def version(as_json: AsJson = False) -> None:
    """Print the versions of Pronghorn and of what it stands on."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .versions import print_versions

        print_versions(as_json=as_json)


# In the order in which help lists them; groups come last.
app.command(epilog=SERVE_EXAMPLES)(serve)
app.command(epilog=CALL_EXAMPLES)(call)
app.command("map", epilog=MAP_EXAMPLES)(map_)
app.command(epilog=LOAD_EXAMPLES)(load)
app.command()(nodes)
app.command(epilog=STUBS_EXAMPLES)(stubs)
app.command()(ping)
app.command(epilog=CONFORMANCE_EXAMPLES)(conformance)
app.command("reload")(reload_)
app.command(epilog=RUN_EXAMPLES)(run)
app.command(epilog=REHEARSE_EXAMPLES)(rehearse)
app.command(epilog=VALIDATE_EXAMPLES)(validate)
app.command(epilog=GRAPH_EXAMPLES)(graph)
app.command()(stats)
app.command()(version)
app.add_typer(runs_app, name="runs")
app.add_typer(journal_app, name="journal")
app.add_typer(keys_app, name="keys")
app.add_typer(workers_app, name="workers")
