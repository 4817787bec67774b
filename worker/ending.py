"""How the process of a worker ends: at once, and with what it has logged and printed written out.

Mirror: tests/worker/test_ending.py.
"""

import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Final, NoReturn

_log = logging.getLogger(__name__)

EXIT_FAILED: Final = 1
"""Exit status of a worker that could not go on; its log says why."""

_WRITE_S: Final = 1.0  # for the output to be read; a reader that takes none keeps nobody alive


def leave(status: int, *, why: str | None = None) -> NoReturn:
    """End this process.

    Exit handlers are not run and threads are not waited for: neither is known to end, and in a
    forked worker some of them are the template's. Who waits for this process is told by its end.

    Args:
        status: The exit status.
        why: To be logged, with the exception that is being handled.
    """
    _end_after(_WRITE_S)
    try:
        if why is not None:
            _log.critical(why, exc_info=True)
        logging.shutdown()
        flush_output()
    finally:
        os._exit(status)


def flush_output() -> None:
    """Write out what was printed, as far as that is possible."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # users' code may have closed it, or put anything in its place
            stream.flush()


def _end_after(seconds: float) -> None:
    """Have the kernel end this process by SIGALRM, whatever it does then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.setitimer(signal.ITIMER_REAL, seconds)
