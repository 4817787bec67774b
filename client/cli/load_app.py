"""The command ``pronghorn load``, its arguments and options.

As in `app`, imports of ours are inside the functions.

Mirror: tests/client/cli/test_load_app.py.
"""

from enum import StrEnum
from typing import Annotated

import typer

from .options import DurabilityName, Endpoint, Name

LOAD_EXAMPLES = """\
\b
Examples:
  pronghorn load add --params '{"a": 1, "b": {"$int": [1, 100]}}' --rate 2000 --out run
  pronghorn load add --params '[1, 2]' --rate 500 --fail-if 'p99>5ms' --fail-if 'errors>0'
  pronghorn load add --params '[1, 2]' --find-knee 'p99<5ms' --duration 3
  pronghorn load --workflow deploy.yaml --params '{"version": 3}' --rate 20
  pronghorn load --scenario shop.toml --rate 500 --profile poisson
  pronghorn load --endpoint tcp://127.0.0.1:5555 --frame hello --rate 100
  pronghorn load --replay calls.trace --speed 2
  pronghorn load compare before/record.json after/record.json
"""


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
    workflow: Annotated[
        str | None,
        typer.Option(
            metavar="NAME | FILE",
            help="Run a workflow instead: one that is served, or the file of a definition. "
            "Parameters are its input.",
        ),
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
    durability: Annotated[
        DurabilityName | None,
        typer.Option(help="Have each call recorded by the broker's journal. [default: the node's]"),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Make the calls again that serve --record has kept; with --scenario the "
            "parameters are that one's.",
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(metavar="X", help="Replay so many times as fast. [default: 1]"),
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
    """Measure calls sent at planned times; compare two runs.

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
            workflow=workflow,
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
            durability=None if durability is None else durability.value,
            replay=replay,
            speed=speed,
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
