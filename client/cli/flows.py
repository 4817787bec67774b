"""``pronghorn run``: one run of a workflow, with the tree of its tasks. An IO shell.

Mirror: tests/client/cli/test_flows.py.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.flows import FlowEvent
from pronghorn.broker.wire.table import WORKFLOW_SUFFIXES
from pronghorn.broker.wire.values import encode_json

from ..flows import WorkflowLike, output_of
from ..pool import Pool
from ..sync import Client
from .arguments import (
    STANDARD_INPUT,
    FromFile,
    parse_assignments,
    parse_params,
    read_file,
    value_of_file,
)
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .output import is_terminal, json_line, write
from .tree import RunTree

Show = Callable[[FlowEvent], None]


def run_workflow(
    workflow: str,
    words: Sequence[str],
    *,
    endpoint: str,
    modules: Sequence[str],
    workers: int | None,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Run a workflow, show its tasks on standard error, and print its output.

    On a terminal the tree is redrawn as it changes; else each task that ends is a line. With
    `as_json` standard output has one JSON object per event instead, and nothing else is shown.

    Args:
        workflow: The file of a definition, or the name of one that is served.
        words: Its input, ``name=value``, or ``-`` for JSON on standard input.
        endpoint: Of the broker, where no `modules` are given.
        modules: Served by a pool of this run's own, which ends with it.
        workers: Of that pool.
        timeout_s: When the run is given up.
        as_json: See above.

    Raises:
        RunFailedError: It has failed.
        CancelledError: It was cancelled.
    """
    found, name = find_workflow(workflow)
    inputs = read_inputs(words)
    tree = RunTree(name)
    if not modules:
        check_listening(endpoint)
    with (
        _client(endpoint, modules, workers) as client,
        client.submit_run(found, inputs=inputs, timeout_s=timeout_s) as run,
        _shown(tree, as_json=as_json) as show,
    ):
        for event in run.events():
            show(event)
        report = run.report()
    if not as_json:
        print_output(report.output, name)
    output_of(report, name)


def find_workflow(text: str, folder: Path = Path()) -> tuple[WorkflowLike, str]:
    """Find out what is to be run, and what it is called.

    Args:
        text: The file of a definition, or the name of a workflow that is served.
        folder: What the path of a file is relative to.

    Raises:
        InvalidArgumentError: There is no such file.
    """
    if not text.endswith(WORKFLOW_SUFFIXES) and "/" not in text:
        return text, text
    path = folder / text
    if not path.is_file():
        raise InvalidArgumentError(f"there is no file {path}")
    return path, path.stem


def read_inputs(words: Sequence[str]) -> dict[str, Any]:
    """Read the input of a run as it stands on the command line."""
    given = [word for word in words if word != STANDARD_INPUT]
    inputs = {
        name: value_of_file(name, read_file(value.path), {})
        if isinstance(value, FromFile)
        else value
        for name, value in parse_assignments(given).items()
    }
    if len(given) < len(words):
        more = parse_params(read_file(STANDARD_INPUT), "standard input")
        if not isinstance(more, dict):
            raise InvalidArgumentError("standard input: give the input by name, as a JSON object")
        inputs = {**more, **inputs}
    return inputs


@contextmanager
def _client(endpoint: str, modules: Sequence[str], workers: int | None) -> Iterator[Client]:
    if not modules:
        with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
            yield client
        return
    with Pool(*modules, workers=workers, hosts=1) as pool:
        yield pool.client()


def _shown(tree: RunTree, *, as_json: bool) -> AbstractContextManager[Show]:
    if as_json:
        return nullcontext(_write_event)
    if is_terminal(2):
        from .progress import LiveTree  # only here: rich takes as long to import as the rest

        return LiveTree(tree)
    return nullcontext(_Lines(tree).show)


class _Lines:
    """A line for each task that ends."""

    def __init__(self, tree: RunTree) -> None:
        self._tree = tree

    def show(self, event: FlowEvent) -> None:
        now = monotonic()
        self._tree.take(event, now)
        line = self._tree.line_of(event, now)
        if event.kind == "ended":
            line = self._tree.lines(now)[0]
        if line is not None:
            sys.stderr.write(f"{line.text}\n")
            sys.stderr.flush()


def _write_event(event: FlowEvent) -> None:
    write(encode_json(event) + b"\n")


def print_output(output: dict[str, Any] | None, name: str) -> None:
    """Print what has come of a run."""
    if output is None:
        return
    line = json_line(output, name)
    write(msgspec.json.format(line) + b"\n" if is_terminal(1) else line)
