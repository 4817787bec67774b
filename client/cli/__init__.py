"""The command line ``pronghorn``: serve nodes, call them, look at a broker.

What a program needs to know of it is in `status` (exit codes), `arguments` (how values are written)
and `output` (what goes where). Each command's work is in a module of its own, imported when that
command runs: help needs typer and nothing of ours.
"""


def main() -> int:
    """Run the command that the program's arguments ask for; the entry point ``pronghorn``."""
    from .app import app  # here: who imports this package need not have typer

    app(prog_name="pronghorn")
    return 0
