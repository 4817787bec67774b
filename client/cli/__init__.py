"""The command line ``pronghorn``: serve nodes, call them, look at a broker.

What a program needs to know of it is in `status` (exit codes), `arguments` (how values are written)
and `output` (what goes where). The commands' arguments and options are in the modules ``…_app``,
which `app` puts together. Each command's work is in a module of its own, imported when that command
runs: help needs typer and nothing of ours.
"""

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..supervisor import StartedSupervisor

_HELP = {"--help", "-h"}


def main() -> int:
    """Run the command that the program's arguments ask for; the entry point ``pronghorn``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Before a command's work has begun, and after it, Ctrl-C just ends the program.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    supervisor = _start_supervisor(sys.argv[1:]) if sys.platform == "linux" else None
    from .app import app  # after that, for importing typer takes as long as all else here

    app(prog_name="pronghorn", obj=supervisor)
    return 0


def _start_supervisor(arguments: list[str]) -> "StartedSupervisor | None":
    """Start a supervisor if it looks as if one will be needed.

    Its start is most of what a first call waits for. Should the arguments turn out to be wrong it
    ends with this process.
    """
    if arguments[:1] != ["serve"] or not _HELP.isdisjoint(arguments):
        return None
    if any(argument.startswith("--user") for argument in arguments):
        return None  # it is to be that user's
    from ..supervisor import start_supervisor

    # What nodes print is no event of those that --json prints.
    return start_supervisor(output=2 if "--json" in arguments else None)
