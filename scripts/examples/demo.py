"""What Pronghorn is for: tiny calls, then a census of source on all cores, also as a workflow.

The workflow is run twice, the second time recorded: what conducts it and then the broker are killed
in the middle, and it goes on. The warnings about that on standard error are meant to be there.

Run it with ``./scripts/demo [FOLDER]``. The times are of this machine at this moment; for figures
that mean something see ``./scripts/bench``.
"""

import argparse
import gc
import os
import signal
import statistics
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from census import Function, Measure, longest, measure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tiny import add, concat

from pronghorn.client import Client, Pool, PronghornError
from pronghorn.client.cli.progress import LiveTree
from pronghorn.client.cli.tree import RunTree

HERE = Path(__file__).resolve().parent
FILES = ("tiny.py", "census.py", "survey.py", "survey.yaml", "survey_folder.yaml")
NODES = tuple(str(HERE / name) for name in FILES)
NOT_SOURCE = frozenset({"site-packages", "dist-packages", "__pycache__"})
WARM_UP_CALLS = 300
TIMED_CALLS = 2_000
ROWS = 10
NOTES_SHOWN = 5
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> int:
    arguments = parse_arguments()
    folder: Path = arguments.folder
    if not folder.is_dir():
        errors.print(f"{folder} is no folder", markup=False)
        return EXIT_USAGE
    try:
        paths = find_source(folder)
        if not paths:
            errors.print(f"no .py files in {folder}", markup=False)
            return EXIT_USAGE
        return run(folder, paths)
    except PronghornError as error:
        errors.print(f"{type(error).__name__}: {error}", markup=False)
        return EXIT_FAILED
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        return EXIT_INTERRUPTED


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        default=Path(sysconfig.get_path("stdlib")),
        help="Python source to measure (default: the standard library of this Python)",
    )
    return parser.parse_args()


def find_source(folder: Path) -> list[str]:
    """List the Python files below a folder, installed packages and hidden folders left out."""
    paths: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in NOT_SOURCE and not name.startswith(".")
        )
        found = (os.path.join(parent, name) for name in sorted(files) if name.endswith(".py"))
        paths.extend(path for path in found if os.path.isfile(path))
    return paths


def run(folder: Path, paths: list[str]) -> int:
    with (
        tempfile.TemporaryDirectory(prefix="pronghorn-demo-") as data,
        Pool(*NODES, data=data) as pool,
        pool.client() as client,
    ):
        workers = pool.workers
        time_tiny_calls(client, workers)
        read_all(paths)
        console.print(f"Census of {folder}: {len(paths):,} files", markup=False)
        in_pool, pool_s = measure_all(
            f"{workers} workers",
            client.map(measure, [(path,) for path in paths], ordered=False),
            len(paths),
        )
        console.print("", "The same as a workflow: survey.yaml")
        totals = survey(client, folder)
        console.print("Once more, recorded, with kill -9 in the middle")
        again = survive(client, folder)
    lines = sum(each.lines for each in in_pool if each.problem is None)
    if (totals["lines"], again["lines"]) != (lines, lines):
        errors.print("The workflow has other sums: were files changed meanwhile?")
        return EXIT_FAILED
    gc.freeze()  # as workers start: what is there already is not looked through again and again
    alone, alone_s = measure_all("one process", map(measure, paths), len(paths))
    if sorted(in_pool, key=by_path) != sorted(alone, key=by_path):
        errors.print("The two runs disagree: were files changed meanwhile?")
        return EXIT_FAILED
    show_census(folder, alone)
    show_times(alone, {f"{workers} workers": pool_s, "one process": alone_s})
    return 0


def survey(client: Client, folder: Path) -> dict[str, Any]:
    """Run the census as a workflow and show its tasks as they go."""
    tree = RunTree("survey")
    with client.submit_run("survey", folder=str(folder)) as running:
        if console.is_terminal:
            with LiveTree(tree, console) as show:
                for event in running.events():
                    show(event)
        else:
            for event in running.events():
                tree.take(event, time.monotonic())
            for line in tree.lines(time.monotonic()):
                console.print(line.text, markup=False)
        output = running.result()
    assert output is not None
    console.print(output["report"], "", markup=False)
    totals: dict[str, Any] = output["totals"]
    return totals


def survive(client: Client, folder: Path) -> dict[str, Any]:
    """Run the census as a recorded workflow, and kill its host and then the broker meanwhile."""
    victims = [("the worker that conducts it", host_of), ("the broker", broker_of)]
    running = client.start("survey", folder=str(folder), durability="batched")
    for event in running.events():
        if event.event == "started":
            console.print(f"  goes on as attempt {event.attempt}")
        for task, status in event.tasks:
            console.print(f"  {task}: {status}", markup=False)
        if event.event == "part" and victims:  # something is done, and will not be done again
            who, find = victims.pop(0)
            os.kill(find(client), signal.SIGKILL)
            console.print(f"  killed: {who}")
    output = running.result()
    console.print(output["report"], "", markup=False)
    totals: dict[str, Any] = output["totals"]
    return totals


def host_of(client: Client) -> int:
    """Return the process that conducts workflows."""
    return next(worker.pid for worker in client.admin.workers() if worker.host)


def broker_of(client: Client) -> int:
    """Return the process of the broker."""
    pid: int = client.call("pronghorn.stats")["pid"]
    return pid


def time_tiny_calls(client: Client, workers: int) -> None:
    """Make one call after the other and print how long the caller waited for each."""
    calls: dict[str, Callable[[], str | int]] = {
        "add(1, 2)": lambda: client.call(add, 1, 2),
        "concat('prong', 'horn')": lambda: client.call(concat, "prong", "horn"),
    }
    table = Table(title=f"Tiny calls, one after the other, {workers} workers", title_justify="left")
    table.add_column("call")
    for heading in ("calls", "p50 us", "p99 us"):
        table.add_column(heading, justify="right")
    for name, call in calls.items():
        for _ in range(WARM_UP_CALLS):
            call()
        waits_us: list[float] = []
        for _ in range(TIMED_CALLS):
            begin = time.perf_counter_ns()
            call()
            waits_us.append((time.perf_counter_ns() - begin) / 1_000)
        percentiles = statistics.quantiles(waits_us, n=100)
        table.add_row(name, f"{TIMED_CALLS:,}", f"{percentiles[49]:.0f}", f"{percentiles[98]:.0f}")
    console.print(table, "")


def read_all(paths: list[str]) -> None:
    """Bring the files into memory: the first run shall not pay for the disk and the second not."""
    for path in paths:
        try:
            Path(path).read_bytes()
        except OSError:
            continue  # the census has a note for it


def measure_all(title: str, results: Iterable[Measure], count: int) -> tuple[list[Measure], float]:
    """Collect the results behind a progress bar, and the seconds that took."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    measures: list[Measure] = []
    begin = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=count)
        for result in results:
            measures.append(result)
            progress.advance(task)
        elapsed_s = time.perf_counter() - begin
    return measures, elapsed_s


def by_path(result: Measure) -> str:
    return result.path


def show_census(folder: Path, measures: list[Measure]) -> None:
    readable = [each for each in measures if each.problem is None]
    totals = Table(title="Totals", title_justify="left", show_header=False)
    totals.add_column()
    totals.add_column(justify="right")
    totals.add_row("files", f"{len(measures):,}")
    totals.add_row("megabytes", f"{megabytes(measures):,.1f}")
    totals.add_row("lines", f"{sum(each.lines for each in readable):,}")
    totals.add_row("functions", f"{sum(each.functions for each in readable):,}")
    totals.add_row("classes", f"{sum(each.classes for each in readable):,}")
    console.print("", totals, "")

    places = {id(function): each.path for each in readable for function in each.longest}
    functions: list[Function] = [function for each in readable for function in each.longest]
    table = Table(title="Longest functions", title_justify="left")
    table.add_column("lines", justify="right")
    table.add_column("function", overflow="fold")
    table.add_column("where", overflow="fold")
    for function in longest(functions)[:ROWS]:
        where = f"{os.path.relpath(places[id(function)], folder)}:{function.first_line}"
        table.add_row(f"{function.lines:,}", function.name, where)
    console.print(table, "")

    importers = Counter(module for each in readable for module in each.imports)
    table = Table(title="Most imported modules", title_justify="left")
    table.add_column("module")
    table.add_column("in files", justify="right")
    for module, count in importers.most_common(ROWS):
        table.add_row(module, f"{count:,}")
    console.print(table, "")

    unreadable = [each for each in measures if each.problem is not None]
    if unreadable:
        console.print(f"{len(unreadable)} files could not be parsed, for example:")
        for each in unreadable[:NOTES_SHOWN]:
            note = f"  {os.path.relpath(each.path, folder)}: {each.problem}"
            console.print(note, markup=False, soft_wrap=True)
        console.print()


def show_times(measures: list[Measure], seconds: dict[str, float]) -> None:
    """Print the rates; the last entry of `seconds` is what the others are compared with."""
    table = Table(title="Time", title_justify="left")
    table.add_column("where")
    for heading in ("seconds", "files/s", "MB/s", "speed-up"):
        table.add_column(heading, justify="right")
    base_s = list(seconds.values())[-1]
    for where, elapsed_s in seconds.items():
        table.add_row(
            where,
            f"{elapsed_s:.2f}",
            f"{len(measures) / elapsed_s:,.0f}",
            f"{megabytes(measures) / elapsed_s:.1f}",
            f"{base_s / elapsed_s:.2f}x",
        )
    console.print(table, "")


def megabytes(measures: list[Measure]) -> float:
    return sum(each.size for each in measures) / 1_000_000


if __name__ == "__main__":
    sys.exit(main())
