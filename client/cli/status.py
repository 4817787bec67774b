"""Exit codes: what a shell script can tell apart.

Mirror: tests/client/cli/test_status.py.
"""

from enum import IntEnum

from pronghorn.broker.wire.errors import PronghornError


class Status(IntEnum):
    """How a command ended."""

    OK = 0
    NODE_ERROR = 1
    """The node raised or returned what can't be encoded; `serve` could not start."""

    USAGE = 2
    """Something that the caller wrote is wrong: an option, a parameter, the name of a node."""

    NO_BROKER = 3
    """No broker answers, or it was lost meanwhile; `serve`: its processes ended by themselves."""

    TIMEOUT = 4
    FAILED = 5
    """Anything else: the worker died, a limit is reached, a defect."""

    INTERRUPTED = 130
    BROKEN_PIPE = 141
    """Whoever read the output has gone, as with ``| head``; the shell's code for SIGPIPE."""


_OF_CODES = {
    "NODE_ERROR": Status.NODE_ERROR,
    "POOL_START": Status.NODE_ERROR,
    "INVALID_ARGUMENT": Status.USAGE,
    "NOT_FOUND": Status.USAGE,
    "PERMISSION_DENIED": Status.USAGE,
    "BROKER_LOST": Status.NO_BROKER,
    "DEADLINE_EXCEEDED": Status.TIMEOUT,
}


def status_of(error: PronghornError) -> Status:
    """Return the exit code for an error that ends a command."""
    return _OF_CODES.get(error.code, Status.FAILED)
