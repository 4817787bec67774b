"""The command line ``pronghorn``: serve nodes, call them, look at a broker.

What a program needs to know of it is in `status` (exit codes), `arguments` (how values are written)
and `output` (what goes where). Each command's work is in a module of its own, imported when that
command runs: help needs typer and nothing of ours.
"""

import signal


def main() -> int:
    """Run the command that the program's arguments ask for; the entry point ``pronghorn``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Before a command's work has begun, and after it, Ctrl-C just ends the program.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .app import app  # only here, for importing typer takes most of the time until now

    app(prog_name="pronghorn")
    return 0
