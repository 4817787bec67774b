"""The command line ``pronghorn``: serve nodes, call them, look at a broker.

What a program needs to know of it is in `status` (exit codes), `arguments` (how values are written)
and `output` (what goes where). Each command's work is in a module of its own, which is imported
when that command runs: help and a usage error import typer and nothing of ours.
"""

import sys


def main() -> int:
    """Run the command that the program's arguments ask for; the entry point ``pronghorn``."""
    from .app import app  # here, so that `python -c 'import pronghorn.client.cli'` stays light

    app(prog_name="pronghorn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
