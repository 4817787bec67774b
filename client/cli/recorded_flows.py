"""``pronghorn run --durability``: a run of a workflow that survives. An IO shell.

Mirror: tests/client/cli/test_recorded_flows.py.
"""

import sys
from collections.abc import Sequence
from typing import Literal

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.runs import RunEvent
from pronghorn.broker.wire.values import encode_json

from ..sync import Client
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .flows import find_workflow, print_output, read_inputs
from .output import write


def run_recorded(
    workflow: str,
    words: Sequence[str],
    *,
    endpoint: str,
    modules: Sequence[str],
    durability: Literal["batched", "sync"],
    key: str | None,
    detach: bool,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Start a recorded run; show on standard error what is recorded, and print its output.

    Args:
        workflow: The file of a definition, or the name of one that is served.
        words: Its input, ``name=value``, or ``-`` for JSON on standard input.
        endpoint: Of the broker.
        modules: None: a recorded run is one of a broker that stays.
        durability: What is promised of its end.
        key: Idempotency key.
        detach: Print the run's id instead, and end.
        timeout_s: Until this gives up waiting for its end, which does not end the run.
        as_json: Print one JSON object per event instead, on standard output; then the output.

    Raises:
        InvalidArgumentError: There are modules.
        RunFailedError: It has failed.
        CancelledError: It was cancelled.
    """
    if modules:
        why = "a recorded run needs a broker that stays: serve the modules, and leave out --with"
        raise InvalidArgumentError(why)
    found, name = find_workflow(workflow)
    inputs = read_inputs(words)
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        options = (
            {"durability": durability} if key is None else {"durability": durability, "key": key}
        )
        run = client.start(found, params=inputs, **options)
        if detach:
            write(encode_json({"id": run.id}) + b"\n" if as_json else f"{run.id}\n".encode())
            return
        if not as_json:
            _tell(f"run {run.id}")
        if timeout_s is None:
            for event in run.events():
                _show(event, as_json=as_json)
        output = run.result(timeout_s)
    if as_json:
        write(encode_json({"output": output}) + b"\n")
    else:
        print_output(output, name)


def _show(event: RunEvent, *, as_json: bool) -> None:
    if as_json:
        write(encode_json(event) + b"\n")
        return
    if event.event == "lost":
        _tell(f"its host was lost: {event.cause}")
    for task, status in event.tasks:
        _tell(f"{'✓' if status == 'succeeded' else '✗'} {task}")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
