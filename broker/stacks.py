"""What a crash has written into a worker's file of slots: the stacks of its threads. An IO shell.

Mirror: tests/broker/test_stacks.py.
"""

import os
from pathlib import Path

from .wire.limits import KIB

_BYTES_MAX = 16 * KIB

# Frames right below a node's, as faulthandler writes them: of a `def`, and of an `async def`.
_EXECUTION = Path(__file__).parents[1] / "worker" / "execution.py"
_BELOW_NODES = ('  File "<invoker of', f'  File "{_EXECUTION}"')


def read_stack(file: int, at: int) -> str:
    """Read what faulthandler has written for a worker, down to its node; "" if it has not crashed.

    Args:
        file: Descriptor of the file of its slots.
        at: Where it writes (`slots.stack_at`).
    """
    written = os.pread(file, _BYTES_MAX, at).decode(errors="replace")
    lines: list[str] = []
    ours = False  # whether the frames are those below the node
    for line in written.splitlines():
        if not line.startswith("  File "):
            ours = False
        elif line.startswith(_BELOW_NODES):
            ours = True
        if not ours:
            lines.append(line)
    return "\n".join(lines).partition("\nExtension modules:")[0].rstrip()
