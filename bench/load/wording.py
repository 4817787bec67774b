"""What people read of a record, as lines and as rows of tables: on terminals and on the page. Pure.

Mirror: tests/bench/load/test_wording.py.
"""

from collections.abc import Sequence

from .compare import Difference
from .plan import SPIKE, STEPS, Plan
from .record import Record, called

Row = tuple[str, ...]

OPEN = "open loop: latency runs from the planned time of each call"
CLOSED = (
    "closed loop: a call is sent when another ends, so a slow server is asked less; it says "
    "nothing of latency under a given load"
)

RUNS = (
    "a call of a workflow is a run of it, from its order to its report; one that fails is an error"
)


def duration(ns: float | None) -> str:
    """Write a duration with three digits: ``12.3 us``; a dash for what is not known."""
    if ns is None:
        return "–"  # noqa: RUF001  # a dash, and meant
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if abs(ns) >= size * 0.9995:
            value = ns / size
            digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{ns:.0f} ns"


def rate(per_s: float | None) -> str:
    """Write calls a second."""
    if per_s is None:
        return "–"  # noqa: RUF001  # as above
    return f"{per_s:,.0f}/s" if per_s >= 100 else f"{per_s:.3g}/s"


def load_of(plan: Plan) -> str:
    """Say what was planned."""
    if plan.closed is not None:
        what = f"{plan.closed} outstanding"
    else:
        what = f"{rate(plan.rate)} {plan.profile}"
    if plan.profile == "replay":
        what += f" at speed {plan.speed:g}"
    if plan.durability is not None:
        what += f", durability {plan.durability},"
    connections = f"{plan.clients} connection{'s' if plan.clients > 1 else ''}"
    return f"{what} for {plan.duration_s:g} s over {connections}"


def shape_of(plan: Plan) -> str:
    """Say what the profile means."""
    return {
        "const": "evenly spaced",
        "poisson": "at random distances",
        "ramp": "in the end, rising from a tenth of it",
        "step": f"in the end, reached in {STEPS} steps",
        "replay": f"as recorded, at speed {plan.speed:g}",
        "spike": f"and {SPIKE:g} times that in the middle fifth",
    }[plan.profile]


def percentile_rows(record: Record) -> list[Row]:
    """Make rows of percentile, latency, service time, scheduling lag, calls beyond."""
    columns = {"Latency": record.latency}
    if record.is_open:  # else the three are one
        columns |= {"Service": record.service, "Lag": record.lag}
    rows: list[Row] = [("", *columns, "Beyond")]
    for shown in record.latency.percentiles:
        values = (duration(each.at(shown.percent)) for each in columns.values())
        rows.append((f"p{shown.percent:g}", *values, f"{shown.beyond:,}"))
    if record.latency.count:
        rows.append(("max", *(duration(each.max_ns) for each in columns.values()), ""))
    return rows


def count_rows(record: Record) -> list[Row]:
    """Make rows of what was counted."""
    counts = record.counts
    said = {
        "planned": "planned",
        "results": "results",
        "errors": "errors",
        "unsent": "not sent",
        "late": "sent more than 1 ms late",
        "held_back": "held back by the broker's grant",
        "drained": "answered after the end",
        "warmup": "warm-up, not counted",
    }
    if not record.is_open:
        said.pop("late")
    return [(text, f"{counts[name]:,}") for name, text in said.items()]


def error_rows(record: Record) -> list[Row]:
    """Make a row for each code of errors."""
    return [(code, f"{count:,}") for code, count in sorted(record.errors.items())]


def event_lines(record: Record) -> list[str]:
    """Say what has happened when, seconds from the end of the warm-up; the same but once."""
    times: dict[str, list[float]] = {}
    for at_s, what in record.events:
        times.setdefault(what, []).append(at_s)
    lines = []
    for what, at in times.items():
        when = f"at {at[0]:.1f} s"
        if f"{at[-1]:.1f}" != f"{at[0]:.1f}":
            when += f" to {at[-1]:.1f} s"
        lines.append(f"{when}: {what}" + (f", {len(at)} times" if len(at) > 1 else ""))
    return lines


def kind_rows(record: Record) -> list[Row]:
    """Make a row for each node that was called."""
    rows: list[Row] = [("Node", "Weight", "Answered in time", "p50", "p99", "Errors")]
    for kind in record.kinds:
        latency = kind.latency
        percentiles = (duration(latency.at(50)), duration(latency.at(99)))
        rows.append(
            (
                called(kind),
                f"{kind.weight:g}",
                f"{latency.count:,}",
                *percentiles,
                f"{sum(kind.errors.values()):,}",
            )
        )
    return rows


def broker_rows(record: Record) -> list[Row]:
    """Make a row for each node that the broker tells of."""
    rows: list[Row] = [("Node", "Calls", "Queue p50", "Queue p99", "Run p50", "Run p99")]
    for node in record.broker:
        times = (node.queue_p50_ns, node.queue_p99_ns, node.run_p50_ns, node.run_p99_ns)
        rows.append((node.node, f"{node.calls:,}", *map(duration, times)))
    return rows


def generator_rows(record: Record) -> list[Row]:
    """Make a row for each generator process."""
    rows: list[Row] = [("Generator", "CPU", "Memory")]
    for each in record.generators:
        rows.append((f"pid {each.pid}", f"{each.cpu:.0%}", f"{each.memory_bytes / 1e6:.0f} MB"))
    return rows


def knee_rows(record: Record) -> list[Row]:
    """Make a row for each rate that was tried."""
    rows: list[Row] = [("Rate", "Held", "p50", "p99", "")]
    for trial in () if record.knee is None else record.knee.trials:
        held = "yes" if trial.passed else "no"
        rows.append(
            (rate(trial.rate), held, duration(trial.p50_ns), duration(trial.p99_ns), trial.why)
        )
    return rows


def difference_rows(differences: Sequence[Difference]) -> list[Row]:
    """Make a row for each metric of a comparison."""
    rows: list[Row] = [("", "A", "B", "B - A, 95 %", "")]
    for each in differences:
        write = duration if each.unit == "ns" else rate
        spread = f"{write(each.low)} to {write(each.high)}"
        rows.append((each.metric, write(each.a), write(each.b), spread, each.verdict))
    return rows


def headline(record: Record) -> list[str]:
    """Say in some lines what was done and what came of it."""
    lines = [f"{load_of(record.plan)}, {record.target.partition(' ')[2]}"]
    lines.append(OPEN if record.is_open else CLOSED)
    if any(kind.workflow for kind in record.kinds):
        lines.append(RUNS)
    if record.is_open:
        lines.append(f"offered {rate(record.offered_per_s)}, {_achieved(record)}")
    else:
        lines.append(_achieved(record))
    if record.knee is not None:
        found = "none of the rates tried" if record.knee.rate is None else rate(record.knee.rate)
        lines.append(f"knee: {record.knee.condition} holds up to {found}")
    return lines


def _achieved(record: Record) -> str:
    cpu = max((each.cpu for each in record.generators), default=0.0)
    return f"achieved {rate(record.achieved_per_s)}; busiest generator {cpu:.0%} of a core"
