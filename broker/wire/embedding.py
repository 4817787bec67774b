"""How a script that is its own module of nodes keeps from starting itself over and over.

``Pool(__file__)`` makes a worker import the very script that is running it, and that import comes
upon the same `Pool(...)` again. While a worker imports, a pool does not start: it raises
`StopImport`, and what the script has defined so far is served.

The mark is kept per context (so per thread): a program that loads nodes in one thread, as
`LocalPool` does, may start a pool in another meanwhile.

Mirror: tests/broker/wire/test_embedding.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_importing: Final[ContextVar[bool]] = ContextVar("pronghorn_importing_nodes", default=False)


class StopImport(BaseException):
    """Ends the import of a module of nodes at the place where it would start a pool.

    Not an `Exception`, so that no ``except Exception`` of the script's takes it for a failure.
    """


def importing_nodes() -> bool:
    """Tell whether this thread is importing a module for its nodes."""
    return _importing.get()


@contextmanager
def import_of_nodes() -> Iterator[None]:
    """Mark the time in which modules are imported for their nodes."""
    token = _importing.set(True)
    try:
        yield
    finally:
        _importing.reset(token)
