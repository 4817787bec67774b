"""``pronghorn runs cancel`` and ``retry``: what the broker does with a run. An IO shell.

Mirror: tests/client/cli/test_running.py.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from pronghorn.broker.wire.runs import RunInfo

from ..runs import RunHandle
from ..sync import Client
from .connecting import CONNECT_TIMEOUT_S, check_listening
from .output import write, write_object


def cancel(endpoint: str, run_id: str, *, as_json: bool) -> None:
    """Cancel a run, and tell how it has ended."""
    _do(endpoint, run_id, RunHandle.cancel, as_json=as_json)


def retry(endpoint: str, run_id: str, *, as_json: bool) -> None:
    """Have a run tried again, and tell."""
    _do(endpoint, run_id, RunHandle.retry, as_json=as_json)


def _do(
    endpoint: str, run_id: str, does: Callable[[RunHandle[Any]], RunInfo], *, as_json: bool
) -> None:
    check_listening(endpoint)
    with Client(endpoint, connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        told = does(client.attach(run_id))
    if as_json:
        write_object(msgspec.to_builtins(told))
    else:
        which = f", attempt {told.attempt}" if told.status == "open" else ""
        write(f"{told.node} {told.id}: {told.status}{which}\n")
