"""The command ``pronghorn serve``, its arguments and options.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_serve_app.py.
"""

from enum import StrEnum
from typing import Annotated, Any, cast

import typer

SERVE_EXAMPLES = """\
\b
Examples:
  pronghorn serve nodes.py --workers 2
  pronghorn serve shop.nodes --name shop --bind tcp://127.0.0.1:5555
  pronghorn serve nodes.py --record calls.trace --record-bytes 100M
"""


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


def serve(
    context: typer.Context,
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE",
            help="Files (nodes.py), packages or modules (shop.nodes), entry points, workflows "
            "(deploy.yaml).",
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
        typer.Option("--insecure", help="Let whoever can connect use tcp endpoints and metrics."),
    ] = False,
    keys: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the keys for tcp endpoints, see `pronghorn keys`. [default: "
            "pronghorn/NAME/keys in the user's config folder]",
        ),
    ] = None,
    connections: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most connections of clients with keys. [default: 8192]"),
    ] = None,
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
    hosts: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Run hosts: processes beside the workers that conduct workflows. [default: one if "
            "a workflow is served]",
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
    user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Serve as that user, where the superuser starts it."),
    ] = None,
    worker_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Most memory of a worker's own: 500M, 2G."),
    ] = None,
    worker_cpu: Annotated[
        int | None,
        typer.Option(min=1, metavar="SECONDS", help="End a worker after so much CPU time."),
    ] = None,
    worker_files: Annotated[
        int | None, typer.Option(metavar="N", help="Most files that a worker may have open.")
    ] = None,
    worker_no_network: Annotated[
        bool, typer.Option("--worker-no-network", help="Leave workers without a network.")
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
    record: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Record what calls come, for load --replay."),
    ] = None,
    record_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Record until the file has so many. [default: 1G]"),
    ] = None,
    record_sizes: Annotated[
        bool,
        typer.Option("--record-sizes", help="Record how large parameters are, not what they are."),
    ] = False,
    log_level: Annotated[LogLevel, typer.Option(help="What to log.")] = LogLevel.WARNING,
    log_format: Annotated[
        LogFormat, typer.Option(help="Log lines for people or, as JSON, for programs.")
    ] = LogFormat.HUMAN,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object per event: ready, epoch, reload, drain, end, recorded.",
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
        from .privileges import become, make_confinement
        from .serving import ServeOptions, serve, usable_cpus

        if user is not None:
            become(user)  # before anything is looked for, or started
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
            keys=keys,
            cpus=chosen,
            recycle_requests=recycle_requests,
            recycle_age_s=recycle_age,
            recycle_memory=parse_size(recycle_memory) if recycle_memory else None,
            drain_s=drain_s,
            bounds=make_bounds(
                queue=queue,
                memory=memory,
                kill_grace_s=kill_grace,
                connections=connections,
            ),
            labels=parse_labels(label or ()),
            hosts=hosts,
            reload=reload,
            remote_admin=remote_admin,
            confinement=make_confinement(
                memory=worker_memory,
                cpu_s=worker_cpu,
                files=worker_files,
                network=not worker_no_network,
            ),
            data=data,
            log_level=cast(Any, log_level.name),  # one of those that `wire.logline` names
            log_format=log_format.value,
            metrics=address,
            record=record,
            record_bytes=parse_size(record_bytes) if record_bytes else None,
            record_sizes=record_sizes,
        )
        serve(options, context.obj, as_json=as_json)
