"""``pronghorn load``: what to send from options and scenario, a run or several, what came of it.

The work is in `pronghorn.bench.load`. An IO shell. Mirror: tests/client/cli/test_loading.py.
"""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from pronghorn.bench.load.artifacts import encode_record, keep
from pronghorn.bench.load.compare import compare
from pronghorn.bench.load.mix import Kind, Params, make_kind
from pronghorn.bench.load.orders import Protocol
from pronghorn.bench.load.pieces import pieces_of
from pronghorn.bench.load.plan import Plan, Profile
from pronghorn.bench.load.record import Record, read_record
from pronghorn.bench.load.replay import Trace, survey
from pronghorn.bench.load.scenario import CallEntry, Scenario, parse_scenario
from pronghorn.bench.load.search import Found, parse_knee, search
from pronghorn.bench.load.session import Job, Live, Watch, check, run
from pronghorn.bench.load.verdict import failures, parse_condition
from pronghorn.bench.load.wording import (
    Row,
    broker_rows,
    count_rows,
    difference_rows,
    duration,
    error_rows,
    event_lines,
    headline,
    kind_rows,
    knee_rows,
    percentile_rows,
)
from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.messages import Durability

from ..flows import run_params
from .arguments import FILE_MARK, check_node, parse_params, read_file
from .connecting import check_listening, endpoint_of
from .flows import find_workflow
from .output import aligned, is_terminal, warn, write
from .status import Status

_COMPARE = "compare"
_KNEE_RATE = 1000.0  # to begin with, if none is given
_SETS_LINES_MAX = 100_000


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; see ``pronghorn load --help``. `None` is not said."""

    params: str | None = None
    params_file: str | None = None
    workflow: str | None = None
    scenario: str | None = None
    rate: float | None = None
    duration_s: float | None = None
    warmup_s: float | None = None
    profile: Profile | None = None
    closed: int | None = None
    clients: int | None = None
    processes: int | None = None
    timeout_s: float | None = None
    durability: Durability | None = None
    seed: int | None = None
    replay: str | None = None
    speed: float | None = None
    find_knee: str | None = None
    fail_if: tuple[str, ...] = ()
    frame: str | None = None
    envelope: Literal["req", "none"] = "req"
    out: str | None = None
    endpoint: str | None = None
    name: str | None = None
    as_json: bool = False


def load(words: Sequence[str], options: LoadOptions) -> None:
    """Carry out the command.

    Raises:
        PronghornError: The options make no sense, a node refuses what it is to be called with, or
            nobody answers.
        SystemExit: A condition to fail upon holds, the broker was lost, somebody has interrupted
            it, figures are invalid, or files could not be kept.
    """
    if len(words) > 1 and words[0] == _COMPARE:
        _compare(words[1:], as_json=options.as_json)
        return
    if len(words) > 1:
        raise InvalidArgumentError("give one NODE; several are for --scenario FILE.toml")
    scenario = _scenario(options)
    conditions = [parse_condition(text) for text in (*scenario.fail_if, *options.fail_if)]
    knee = None if options.find_knee is None else parse_knee(options.find_knee)
    job = _job(words[0] if words else None, options, scenario, searching=knee is not None)
    folder = None if options.out is None else Path(options.out).expanduser()
    if folder is not None:
        _make(folder)  # what is wrong with it is found out now, not after the run
    if options.frame is None:
        check_listening(job.endpoint)
    for warning in check(job):
        warn(warning)
    quiet = options.as_json or not is_terminal(2)

    def measured(job: Job) -> Record:
        with _watching(job.plan, quiet=quiet) as watch:
            return run(job, watch)

    if knee is None:
        found = Found(measured(job))
    else:
        found = search(job, knee, measured, (lambda told: None) if quiet else warn)
    record = found.record
    failed = failures(conditions, record)
    _tell(record, as_json=options.as_json)
    is_kept = folder is None or _keep(record, failed, folder, as_json=options.as_json)
    _end(found, failed, is_kept=is_kept)


def _job(node: str | None, options: LoadOptions, scenario: Scenario, *, searching: bool) -> Job:
    """Make out what to run where."""
    if options.replay is None:
        if options.speed is not None:
            raise InvalidArgumentError("--speed is for --replay FILE")
        plan = _plan(options, scenario, searching=searching)
        kinds, trace, instead = _kinds(node, options, scenario, plan.seed), None, None
    else:
        if (node, options.workflow, options.frame) != (None, None, None) or searching:
            raise InvalidArgumentError("--replay has its calls and times from the trace alone")
        trace, instead = _place(options.replay), _instead(options, scenario)
        found = survey(pieces_of(trace), options.replay, instead)
        plan, kinds = _replay_plan(options, scenario, found), found.kinds
        for count, what in (
            (found.left_out, "are left out: their parameters were not recorded"),
            (found.lost, "are missing: they came too fast to be recorded"),
        ):
            if count:
                warn(f"{options.replay}: {count:,} of {found.calls + count:,} calls {what}")
    return Job(
        plan=plan,
        kinds=kinds,
        protocol=_protocol(options),
        endpoint=endpoint_of(options.endpoint, options.name),
        command=shlex.join(["pronghorn", *sys.argv[1:]]),
        trace=trace,
        instead=instead,
    )


def _place(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _instead(options: LoadOptions, scenario: Scenario) -> dict[str, tuple[bytes, ...]] | None:
    """Make what the calls of a trace send, if a scenario says so."""
    if options.params is not None or options.params_file is not None:
        raise InvalidArgumentError(
            "--replay sends what was recorded, or what the calls of a --scenario say"
        )
    if options.scenario is None:
        return None
    seed = next((each for each in (options.seed, scenario.seed) if each is not None), 1)
    folder = Path(options.scenario).expanduser().parent
    made = [_kind_of(entry, folder, seed) for entry in scenario.call]
    if any(kind.workflow for kind in made):
        raise InvalidArgumentError("--replay makes the calls of nodes: its scenario has a workflow")
    instead: dict[str, tuple[bytes, ...]] = {}
    for kind in made:  # of a node that is there twice all of them
        instead[kind.node] = instead.get(kind.node, ()) + kind.bodies
    return instead


def _replay_plan(options: LoadOptions, scenario: Scenario, trace: Trace) -> Plan:
    said = _said(options, scenario)
    for name in ("rate", "profile", "closed"):
        if name in said:
            raise InvalidArgumentError(f"--replay and a {name} exclude each other: say --speed")
    return trace.plan(1.0 if options.speed is None else options.speed, **said)


def _said(options: LoadOptions, scenario: Scenario) -> dict[str, Any]:
    """Give what options say of the plan, else the scenario."""
    said: dict[str, Any] = {}
    for name in Plan.__struct_fields__:
        given = getattr(options, name)
        if given is None:  # seconds are in its name but in a scenario
            given = getattr(scenario, name.removesuffix("_s"), None)
        if given is not None and name != "speed":
            said[name] = given
    return said


def _plan(options: LoadOptions, scenario: Scenario, *, searching: bool) -> Plan:
    """Make the plan: what options say, else the scenario, else by default."""
    said = _said(options, scenario)
    said.setdefault("clients", said.get("processes", 1))
    if "closed" not in said and "rate" not in said:
        if not searching:
            raise InvalidArgumentError("say how many calls a second: --rate 1000, or --closed 8")
        said["rate"] = _KNEE_RATE
    if searching and said.get("profile", "const") not in ("const", "poisson"):
        raise InvalidArgumentError("--find-knee wants --profile const or poisson")
    if searching and "closed" in said:
        raise InvalidArgumentError("--find-knee searches a rate, and --closed has none")
    return Plan(**said)


def _scenario(options: LoadOptions) -> Scenario:
    if options.scenario is None:
        return Scenario()
    content = read_file(options.scenario)
    try:
        return parse_scenario(content.decode(), options.scenario)
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{options.scenario} is not UTF-8: {error}") from error


def _protocol(options: LoadOptions) -> Protocol:
    if options.frame is None:
        return "pronghorn"
    return "req" if options.envelope == "req" else "dealer"


def _kinds(
    node: str | None, options: LoadOptions, scenario: Scenario, seed: int
) -> tuple[Kind, ...]:
    """Make what is to be called, of one of the ways to say it."""
    params_given = options.params is not None or options.params_file is not None
    ways = (node, options.workflow, options.scenario, options.frame)
    if len(ways) - ways.count(None) != 1:
        raise InvalidArgumentError(
            "give a NODE, or --workflow NAME or FILE, or --scenario FILE.toml, or --frame TEXT, or "
            "--replay FILE"
        )
    if params_given and node is None and options.workflow is None:
        raise InvalidArgumentError("--params and --params-file are for a NODE or a --workflow")
    if options.params is not None and options.params_file is not None:
        raise InvalidArgumentError("give --params or --params-file, not both")
    if options.frame is not None:
        if options.endpoint is None:
            raise InvalidArgumentError("--frame is for a plain service: say where, by --endpoint")
        return (Kind("frame", 1.0, (_frame(options.frame),)),)
    if options.scenario is not None:
        folder = Path(options.scenario).expanduser().parent
        return tuple(_kind_of(entry, folder, seed) for entry in scenario.call)
    if options.params_file is not None:
        sets = _lines(options.params_file)
    else:
        sets = [{} if options.params is None else parse_params(options.params, "--params")]
    if options.workflow is not None:
        return (_runs_of(options.workflow, Path(), 1.0, sets, seed),)
    assert node is not None
    return (make_kind(check_node(node), 1.0, sets, seed),)


def _kind_of(entry: CallEntry, folder: Path, seed: int) -> Kind:
    sets = _sets_of(entry, folder)
    if entry.workflow is not None:
        return _runs_of(entry.workflow, folder, entry.weight, sets, seed)
    assert entry.node is not None
    return make_kind(check_node(entry.node), entry.weight, sets, seed)


def _runs_of(text: str, folder: Path, weight: float, sets: Sequence[Params], seed: int) -> Kind:
    workflow, name = find_workflow(text, folder)
    return make_kind(name, weight, sets, seed, run_params(workflow, {}, {}, "terminal"))


def _frame(text: str) -> bytes:
    if text.startswith(FILE_MARK):
        return read_file(text.removeprefix(FILE_MARK))
    return text.encode(errors="surrogateescape")


def _sets_of(entry: CallEntry, folder: Path) -> Sequence[Params]:
    if entry.params_file is not None:
        return _lines(str(folder / entry.params_file))
    return [{} if entry.params is None else entry.params]


def _lines(path: str) -> list[Params]:
    lines = read_file(path).splitlines()
    if len(lines) > _SETS_LINES_MAX:
        raise InvalidArgumentError(f"{path} has more than {_SETS_LINES_MAX:,} lines")
    return [
        parse_params(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


@contextmanager
def _watching(plan: Plan, *, quiet: bool) -> Iterator[Watch]:
    if quiet:
        yield lambda live: None
        return
    from .progress import LoadProgress  # only here: it takes as long to import as all the rest

    bar = LoadProgress(plan.planned_s)
    try:
        yield _shower(bar.show)
    finally:
        bar.close()


def _shower(show: Callable[[float, str], None]) -> Watch:
    def watch(live: Live) -> None:
        per_s = live.answered / live.elapsed_s if live.elapsed_s else 0.0
        errors = f"  {live.errors:,} errors" if live.errors else ""
        p99 = duration(live.p99_ns) if live.p99_ns else ""
        show(live.elapsed_s, f"{live.sent:,} sent  {per_s:,.0f}/s  p99 {p99:<7}{errors}")

    return watch


def _tell(record: Record, *, as_json: bool) -> None:
    """Print a record: as JSON, or as some tables."""
    if as_json:
        write(encode_record(record))
        return
    parts = ["".join(f"{line}\n" for line in headline(record)), aligned(percentile_rows(record))]
    parts.append(aligned(_without_noughts(count_rows(record))))
    if record.errors:
        parts.append(aligned([("Errors", "Calls"), *error_rows(record)]))
    if len(record.kinds) > 1:
        parts.append(aligned(kind_rows(record)))
    if record.broker:
        parts.append("as the broker sees it, all clients together\n" + aligned(broker_rows(record)))
    if record.knee is not None:
        parts.append(aligned(knee_rows(record)))
    write("\n".join(parts))


def _without_noughts(rows: Sequence[Row]) -> list[Row]:
    kept = ("planned", "results", "errors")
    return [row for row in rows if row[0] in kept or row[1] != "0"]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgumentError(f"--out {folder}: {error.strerror}") from error


def _keep(record: Record, failed: Sequence[str], folder: Path, *, as_json: bool) -> bool:
    """Write the files of a run; returns whether all could be."""
    try:
        paths = keep(record, failed, folder)
    except OSError as error:  # the disk is full; what was measured has been told
        warn(f"not all could be kept in {folder}: {error}")
        return False
    if not as_json:
        write(f"\nkept {', '.join(map(str, paths))}\n")
    return True


def _end(found: Found, failed: Sequence[str], *, is_kept: bool) -> None:
    """Say what is wrong with a run, and end accordingly."""
    record = found.record
    for line in event_lines(record):
        warn(line)
    for problem in record.problems:
        warn(f"figures invalid: {problem}")
    for each in failed:
        if each not in record.problems:
            warn(each)
    if failed:
        raise SystemExit(Status.NODE_ERROR)
    if found.is_interrupted:
        raise SystemExit(Status.INTERRUPTED)
    if found.lost is not None:
        raise found.lost
    if any("was lost" in what for _, what in record.events):
        raise SystemExit(Status.NO_BROKER)
    if not (record.valid and is_kept):
        raise SystemExit(Status.FAILED)


def _compare(paths: Sequence[str], *, as_json: bool) -> None:
    if len(paths) != 2:
        raise InvalidArgumentError("compare two records: pronghorn load compare A.json B.json")
    a, b = (read_record(read_file(path), path) for path in paths)
    differences = compare(a, b)
    if as_json:
        told = [{**msgspec.to_builtins(each), "verdict": each.verdict} for each in differences]
        write(msgspec.json.encode(told) + b"\n")
        return
    write(aligned(difference_rows(differences)))
