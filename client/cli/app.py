"""The commands, their arguments and options; what each does is in its own module.

Imports of ours are inside the functions: they would make help and usage errors wait.

Mirror: tests/client/cli/test_app.py.
"""

from enum import StrEnum
from typing import Annotated, Any, cast

import typer

from .journal_app import journal_app, runs_app

EPILOG = """\
\b
Exit codes:
  0    done
  1    the node failed; serve: can't start; validate, rehearse: something is wrong;
       load: a --fail-if holds
  2    wrong usage: an option, a parameter, the name of a node
  3    there is no broker, or it was lost
  4    timeout
  5    anything else: a worker died, a limit is reached, a defect
  130  Ctrl-C

Results go to standard output, errors to standard error; with --json an error is one line
{"error": {"code": …, "message": …, "outcome": …}}.

PRONGHORN_ENDPOINT names the broker where neither --endpoint nor --name does.
"""

SERVE_EXAMPLES = """\
\b
Examples:
  pronghorn serve nodes.py --workers 2
  pronghorn serve shop.nodes --name shop --bind tcp://127.0.0.1:5555
"""
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
LOAD_EXAMPLES = """\
\b
Examples:
  pronghorn load add --params '{"a": 1, "b": {"$int": [1, 100]}}' --rate 2000 --out run
  pronghorn load add --params '[1, 2]' --rate 500 --fail-if 'p99>5ms' --fail-if 'errors>0'
  pronghorn load add --params '[1, 2]' --find-knee 'p99<5ms' --duration 3
  pronghorn load --scenario shop.toml --rate 500 --profile poisson
  pronghorn load --endpoint tcp://127.0.0.1:5555 --frame hello --rate 100
  pronghorn load compare before/record.json after/record.json
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
app.add_typer(runs_app, name="runs")
app.add_typer(journal_app, name="journal")

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


class LoadProfile(StrEnum):
    """Shapes of a load's rate over time."""

    CONST = "const"
    STEP = "step"
    RAMP = "ramp"
    SPIKE = "spike"
    POISSON = "poisson"


class Envelope(StrEnum):
    """What comes before a bare frame."""

    REQ = "req"
    NONE = "none"


class LogLevel(StrEnum):
    """Levels of logging."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log lines are written."""

    HUMAN = "human"
    JSON = "json"


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


@app.command(epilog=SERVE_EXAMPLES)
def serve(
    context: typer.Context,
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE",
            help="Files (nodes.py), packages or modules (shop.nodes), entry points.",
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Worker processes. [default: one for each CPU]"),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What clients call it by.")] = "default",
    bind: Annotated[
        list[str] | None,
        typer.Option(metavar="ENDPOINT", help="Listen here too: ipc://PATH or tcp://HOST:PORT."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Allow tcp endpoints and metrics that others can reach."),
    ] = False,
    cpus: Annotated[
        str | None, typer.Option(metavar="0,1,…", help="CPUs to run on. [default: all]")
    ] = None,
    recycle_requests: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Replace a worker after so many requests."),
    ] = None,
    recycle_age: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Replace a worker after so long.")
    ] = None,
    recycle_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Replace a worker that takes so much: 800M, 1.5G."),
    ] = None,
    drain_s: Annotated[
        float,
        typer.Option(
            "--drain-s", min=0, metavar="SECONDS", help="Wait so long for open calls at the end."
        ),
    ] = 10.0,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:COUNT", help="So many workers have that label, for nodes that need it."
        ),
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option(metavar="N", help="Refuse requests once so many wait. [default: 100000]"),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Most memory of the broker. [default: 2G]"),
    ] = None,
    kill_grace: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="What a node gets that goes on after its deadline. [default: 0.5]",
        ),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Reload the modules when one of their files changes.")
    ] = False,
    remote_admin: Annotated[
        bool, typer.Option("--remote-admin", help="Allow administration over tcp.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the journal, made when something is recorded. [default: "
            "pronghorn/NAME in the user's state folder]",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="IP:PORT", help="Serve metrics for Prometheus at this address."),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="What to log.")] = LogLevel.WARNING,
    log_format: Annotated[
        LogFormat, typer.Option(help="Log lines for people or, as JSON, for programs.")
    ] = LogFormat.HUMAN,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per event: ready, epoch, reload, drain, end."
        ),
    ] = False,
) -> None:
    """Serve the nodes of modules until Ctrl-C.

    A module that can't be imported is reported, the others are served. The exit code is 0 when it
    was told to end: by Ctrl-C, SIGTERM or the end of its terminal. It then waits for open calls; a
    second signal ends it at once. SIGHUP reloads the modules; if that fails, what was served before
    still is.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .arguments import make_bounds, parse_cpus, parse_labels, parse_size
        from .serving import ServeOptions, serve, usable_cpus

        chosen = parse_cpus(cpus) if cpus else ()
        address = None
        if metrics is not None:
            from .metrics import parse_address

            address = parse_address(metrics, insecure=insecure)
        options = ServeOptions(
            modules=modules,
            workers=workers or len(chosen or usable_cpus()),
            name=name,
            bind=bind or (),
            insecure=insecure,
            cpus=chosen,
            recycle_requests=recycle_requests,
            recycle_age_s=recycle_age,
            recycle_memory=parse_size(recycle_memory) if recycle_memory else None,
            drain_s=drain_s,
            bounds=make_bounds(queue=queue, memory=memory, kill_grace_s=kill_grace),
            labels=parse_labels(label or ()),
            reload=reload,
            remote_admin=remote_admin,
            data=data,
            log_level=cast(Any, log_level.name),  # one of those that `wire.logline` names
            log_format=log_format.value,
            metrics=address,
        )
        serve(options, context.obj, as_json=as_json)


@app.command(epilog=CALL_EXAMPLES)
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
            "record follows. [default: none]",
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
            endpoint=found,
            timeout_s=timeout,
            trace=trace,
        )


@app.command("map", epilog=MAP_EXAMPLES)
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
        typer.Option(metavar="SECONDS", help="Give up a chunk after so long. [default: never]"),
    ] = None,
    priority: Priority = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Items per message. [default: as many as run for 4 ms]"
        ),
    ] = None,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Errors as JSON, no progress bar; results always are.")
    ] = False,
) -> None:
    """Run a node for each line of input, on all workers.

    Results are lines of JSON, by default in the order of the items.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .arguments import check_node, check_timeout
        from .connecting import endpoint_of
        from .mapping import MapOptions, map_lines

        check_timeout(timeout)
        options = MapOptions(
            ordered=not unordered,
            keep_going=keep_going,
            timeout_s=timeout,
            priority=priority,
            chunk_size=chunk_size,
        )
        found = endpoint_of(endpoint, name)
        map_lines(check_node(node), file, found, options, quiet=as_json)


@app.command(epilog=LOAD_EXAMPLES)
def load(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NODE | compare A.json B.json",
            help="The node to call; or two records of runs to compare.",
        ),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Parameters, an object or an array. In place of a value: $int [1, 9], "
            "$float [0, 1], $choice [...], $count FIRST, $text LENGTH, each as an object.",
        ),
    ] = None,
    params_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Lines of them, sent in turn; - is standard input."),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(metavar="FILE.toml", help="What to call and how; options here go before it."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="PER_S", help="Calls a second, all clients together.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long. [default: 10]")
    ] = None,
    warmup: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Calls before that, not counted. [default: 1]"),
    ] = None,
    profile: Annotated[
        LoadProfile | None, typer.Option(help="Shape of the rate. [default: const]")
    ] = None,
    closed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="A closed loop with N calls outstanding, instead of --rate."
        ),
    ] = None,
    clients: Annotated[
        int | None, typer.Option(metavar="N", help="Connections. [default: one a process]")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="Generator processes. [default: 1]")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Of each call. [default: 10]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of all that is random. [default: 1]")
    ] = None,
    find_knee: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Search the highest rate at which it holds: 'p99<5ms'; begins with --rate.",
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="End with 1 if it holds: 'p99>5ms', 'errors>0'. May be given several times.",
        ),
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT | @FILE",
            help="Send this frame to a plain ZeroMQ service at --endpoint instead of calls.",
        ),
    ] = None,
    envelope: Annotated[
        Envelope,
        typer.Option(help="Of a frame: as a REQ socket sends it, or none, for replies in order."),
    ] = Envelope.REQ,
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep record.json, latency.hlog, CSV and report.html."),
    ] = None,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON, no progress bar.")
    ] = False,
) -> None:
    """Measure calls that are sent at planned times; compare two runs.

    An open loop: calls leave at their times whether those before were answered or not, so what a
    slow server does to its callers is seen. Each parameter set is tried before. Ctrl-C ends a run
    early; what was measured is still told.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .loading import LoadOptions, load

        options = LoadOptions(
            params=params,
            params_file=params_file,
            scenario=scenario,
            rate=rate,
            duration_s=duration,
            warmup_s=warmup,
            profile=None if profile is None else profile.value,
            closed=closed,
            clients=clients,
            processes=processes,
            timeout_s=timeout,
            seed=seed,
            find_knee=find_knee,
            fail_if=tuple(fail_if or ()),
            frame=frame,
            envelope=envelope.value,
            out=out,
            endpoint=endpoint,
            name=name,
            as_json=as_json,
        )
        load(words or [], options)


@app.command()
def nodes(
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON array, with docs and JSON Schemas.")
    ] = False,
) -> None:
    """List the nodes that are served: name, signature, description."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .connecting import endpoint_of
        from .listing import list_nodes

        list_nodes(endpoint_of(endpoint, name), as_json=as_json)


@app.command()
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


@app.command("reload")
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


workers_app = typer.Typer(
    help="Look at the workers; replace, drain and scale them.", no_args_is_help=True
)
app.add_typer(workers_app, name="workers")


@workers_app.command("list")
def workers_list(endpoint: Endpoint = None, name: Name = None, as_json: AsJson = False) -> None:
    """List the workers: state, process, requests, age, memory.

    Restarts are workers that have ended unasked in the same place before.
    """
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import list_workers
        from .connecting import endpoint_of

        list_workers(endpoint_of(endpoint, name), as_json=as_json)


@workers_app.command("recycle")
def workers_recycle(
    worker_ids: Annotated[
        list[int] | None, typer.Argument(metavar="WORKER", help="Which. [default: all]")
    ] = None,
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Replace workers, one after the other, each by one that is ready before."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import recycle
        from .connecting import endpoint_of

        recycle(endpoint_of(endpoint, name), worker_ids or (), as_json=as_json)


@workers_app.command("scale", context_settings={"ignore_unknown_options": True})
def workers_scale(
    workers: Annotated[int, typer.Argument(metavar="N", help="1 to 1000.")],
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Have so many workers, and wait until they are ready."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import scale
        from .connecting import endpoint_of

        scale(endpoint_of(endpoint, name), workers, as_json=as_json)


@workers_app.command("drain")
def workers_drain(
    worker: Annotated[int, typer.Argument(metavar="WORKER", help="Its number.")],
    endpoint: Endpoint = None,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Take a worker out of service at once, and wait until it has ended what it had begun."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .administering import drain
        from .connecting import endpoint_of

        drain(endpoint_of(endpoint, name), worker, as_json=as_json)


@app.command(epilog=REHEARSE_EXAMPLES)
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


@app.command(epilog=VALIDATE_EXAMPLES)
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


@app.command(epilog=GRAPH_EXAMPLES)
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


@app.command()
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


@app.command()
def version(as_json: AsJson = False) -> None:
    """Print the versions of Pronghorn and of what it stands on."""
    from .output import reporting

    with reporting(as_json=as_json):
        from .versions import print_versions

        print_versions(as_json=as_json)
