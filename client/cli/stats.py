"""``pronghorn stats``: what a broker counts, once or every second. An IO shell.

The broker is asked when there is something to show, and by an ordinary call: a watch that is closed
costs it nothing.

Mirror: tests/client/cli/test_stats.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import sleep
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pronghorn.broker.wire.statistics import NodeStatistics, Statistics, WorkerStatistics

from ..sync import Client
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .output import aligned, is_terminal, write
from .quantities import age_text, bytes_text, count_text, duration_text, rate_text

if TYPE_CHECKING:
    from rich.console import RenderableType

_PERIOD_S = 1.0
_WIDE = 110  # columns from which on there is room for more than the most important

_OWN = "pronghorn."  # how names begin that are not users'


class _Table(NamedTuple):
    """Rows of text below headings; the first column is aligned to the left, others to the right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def show_stats(endpoint: str, *, watch: bool, as_json: bool) -> None:
    """Print the statistics, with `watch` until Ctrl-C.

    On a terminal they are tables that fit it; else the same as plain text, or lines of JSON.
    """
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        if not watch:
            _print(client.stats(), as_json=as_json)
            return
        with suppress(KeyboardInterrupt):
            if is_terminal(1) and not as_json:
                _watch(client)
            while True:
                _print(client.stats(), as_json=as_json)
                sleep(_PERIOD_S)


def _print(statistics: Statistics, *, as_json: bool) -> None:
    if as_json:
        write(msgspec.json.encode(statistics) + b"\n")
    elif is_terminal(1):
        from rich.console import Console  # only here: it takes as long to import as all else

        console = Console()
        console.print(_rendered(statistics, None, console.width))
    else:
        nodes = _of_nodes(statistics, None, wide=True)
        workers = _of_workers(statistics)
        parts = ["\n".join(_summary(statistics)) + "\n"]
        parts += [aligned([table.headings, *table.rows]) for table in (nodes, workers)]
        write("\n".join(parts))


def _watch(client: Client) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    before: Statistics | None = None
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            statistics = client.stats()
            live.update(_rendered(statistics, before, console.width), refresh=True)
            before = statistics
            sleep(_PERIOD_S)


def _rendered(statistics: Statistics, before: Statistics | None, width: int) -> "RenderableType":
    """Make what a terminal of that width shows."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(line) for line in _summary(statistics)]
    for shown in (_of_nodes(statistics, before, wide=width >= _WIDE), _of_workers(statistics)):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for index, heading in enumerate(shown.headings):
            table.add_column(
                heading,
                justify="right" if index else "left",
                no_wrap=index > 0,
                overflow="fold",
            )
        for cells in shown.rows:
            table.add_row(*map(Text, cells))
        parts.append(table)
    return Group(*parts)


def _summary(statistics: Statistics) -> list[str]:
    """Tell of the broker as a whole, in lines of less than 80 characters as a rule."""
    count = statistics.counters
    turns = statistics.turns
    lines = [
        f"broker      pid {statistics.pid}, up {age_text(statistics.at - statistics.started_at)}, "
        f"{bytes_text(statistics.memory_bytes)}, {_counted(statistics.sessions, 'client')}",
        f"requests    {_named(count, 'accepted', 'completed', 'failed', 'refused', 'retried')}",
        f"queue       {statistics.queued:,} waiting, {bytes_text(statistics.queued_bytes)}",
        f"loop turns  p50 {duration_text(turns.p50_ns)}, p99 {duration_text(turns.p99_ns)}",
    ]
    if statistics.refused:
        lines.append(f"refused     {_named(statistics.refused, *statistics.refused)}")
    rare = (
        *("workers_lost", "stuck", "quarantined", "banned", "malformed"),
        *("records_refused", "journal_broken"),
    )
    troubles = {name.replace("_", " "): count[name] for name in rare if count.get(name)}
    if troubles:
        lines.append(f"troubles    {_named(troubles, *troubles)}")
    if statistics.slow_peers:
        peers = ", ".join(
            f"pid {peer.pid} {bytes_text(peer.unread_bytes)}" for peer in statistics.slow_peers[:3]
        )
        lines.append(f"unread      {bytes_text(statistics.unread_bytes)}, most of it by {peers}")
    return lines


def _named(counts: Mapping[str, int], *names: str) -> str:
    return ", ".join(f"{counts.get(name, 0):,} {name}" for name in names)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _of_nodes(statistics: Statistics, before: Statistics | None, *, wide: bool) -> _Table:
    headings = ["Node", "Calls", "/s", "Failed", "Queued", "Run p50", "Run p99", "Wait p99"]
    if wide:
        headings += ["Wait p50", "Run mean", "Held", "Errors"]
    bare = Counter(_bare(node.name) for node in statistics.nodes)
    earlier = {} if before is None else {node.name: node for node in before.nodes}
    rows = []
    for node in statistics.nodes:
        if node.name.startswith(_OWN) and not node.accepted:
            continue
        recent = node.recent
        cells = [
            node.name if wide or bare[_bare(node.name)] > 1 else _bare(node.name),
            count_text(node.calls),
            rate_text(_rate(statistics, node, before, earlier.get(node.name))),
            count_text(node.failed),
            count_text(node.queued),
            duration_text(recent.run_p50_ns),
            duration_text(recent.run_p99_ns),
            duration_text(recent.queue_p99_ns),
        ]
        if wide:
            mean_ns = node.run.sum_ns / node.run.count if node.run.count else 0
            errors = ", ".join(f"{code} {count:,}" for code, count in node.errors.items())
            if node.quarantined:
                errors = f"in quarantine, {errors}"
            cells += [duration_text(recent.queue_p50_ns), duration_text(mean_ns)]
            cells += [count_text(node.held), errors]
        rows.append(cells)
    return _Table(headings, rows)


def _bare(name: str) -> str:
    return name.rpartition(".")[2]


def _rate(
    statistics: Statistics,
    node: NodeStatistics,
    before: Statistics | None,
    earlier: NodeStatistics | None,
) -> float:
    """Return calls a second: since the snapshot before, or of late where there is none."""
    if before is not None and earlier is not None and before.epoch == statistics.epoch:
        calls, seconds = node.calls - earlier.calls, statistics.at - before.at
    else:
        calls, seconds = node.recent.calls, statistics.at - node.recent.since
    return calls / seconds if seconds > 0 else 0.0


def _of_workers(statistics: Statistics) -> _Table:
    rows = [
        (
            str(worker.id),
            str(worker.pid or "-"),
            _state(worker),
            count_text(worker.held),
            count_text(worker.served),
            age_text(statistics.at - worker.started_at),
            bytes_text(worker.memory_bytes),
        )
        for worker in statistics.workers
    ]
    return _Table(("Worker", "Pid", "State", "Held", "Served", "Age", "Memory"), rows)


def _state(worker: WorkerStatistics) -> str:
    return "blocked" if worker.stalled else worker.state
