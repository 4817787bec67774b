"""Starting a supervisor process, which then waits for its config.

Imports little: ``pronghorn serve`` starts one before it reads its own command line, for that takes
as long as the start of an interpreter.

Mirror: tests/client/test_supervisor.py.
"""

import socket
import subprocess
import sys
from typing import NamedTuple


class StartedSupervisor(NamedTuple):
    """A supervisor that ends when the other end of its channel is closed."""

    process: "subprocess.Popen[bytes]"
    channel: socket.socket


def start_supervisor(*, output: int | None = None) -> StartedSupervisor:
    """Start a supervisor by exec, in a session of its own: a Ctrl-C is for its host to act on.

    Args:
        output: Descriptor for what the tree prints, nodes included; by default standard output.

    Raises:
        OSError: The system lacks what it takes.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        try:
            process = subprocess.Popen(
                # -P keeps the current folder off sys.path: a user's file must not stand in for our
                # imports.
                [sys.executable, "-P", "-m", "pronghorn.broker.supervisor", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
    return StartedSupervisor(process, ours)
