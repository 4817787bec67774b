"""``pronghorn serve``: the process tree in the foreground, until a signal or its own end. An IO shell.

What happens is told as it happens: for people, or as one JSON object a line. There is nothing to do
between two events, so nothing is done: one `select` waits for the tree's channel and for signals.

Mirror: tests/client/cli/test_serving.py.
"""

import signal
from collections.abc import Sequence

import msgspec

from ..launch import ProcessTree

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve and how; see ``pronghorn serve --help``."""

    modules: Sequence[str]
    workers: int | None
    name: str
    bind: Sequence[str]
    insecure: bool
    cpus: Sequence[int]
    log_level: str


def serve(options: ServeOptions, *, as_json: bool) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP.

    Raises:
        PoolStartError: It could not be started.
        BrokerLostError: The process tree ended by itself.
    """
    voice = _JsonVoice() if as_json else _Voice()
    tree: ProcessTree | None = None
    try:
        with _signals() as wakeup:
            tree = _start(options)
            voice.ready(tree.ready, options)
            _watch(tree, wakeup, lambda ready: voice.ready(ready, options))
    except _EndedBySignal as ended:
        voice.end(ended.name)
    finally:
        if tree is not None:
            tree.close()
