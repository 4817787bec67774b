"""Where users' code runs: its decorators, the dispatch table and the worker process."""

if __name__ != "pronghorn.worker":  # a second copy under another name would have its own classes
    raise ImportError(
        "import pronghorn.worker, not worker: this folder is mapped into the pronghorn namespace"
    )

from .context import Context
from .hooks import on_start, on_stop
from .node import NodeDefinitionError, Retry, node

__all__ = ["Context", "NodeDefinitionError", "Retry", "node", "on_start", "on_stop"]
