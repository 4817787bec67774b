"""Where users' code runs: the node decorator, the dispatch table and the worker process."""

if __name__ != "pronghorn.worker":  # a second copy under another name would have its own classes
    raise ImportError(
        "import pronghorn.worker, not worker: this folder is mapped into the pronghorn namespace"
    )

from .context import Context
from .node import NodeDefinitionError, node

__all__ = ["Context", "NodeDefinitionError", "node"]
