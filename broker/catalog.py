"""Which nodes are served, and those of other generations whose workers are there too. Pure.

A generation is what the modules held when they were imported; it is numbered. Its workers get
requests while it is served, before that they are kept warm and after it they drain::

    coming ──serve──► served ──serve of the next──► over

A `Node` of the broker outlives a change that leaves it as it is. One that has changed in what the
broker knows of it, or is gone, is not `served` any more: what is queued for it is renewed by name.

Mirror: tests/broker/test_catalog.py.
"""

from math import inf

from .gates import Gate
from .requests import Node
from .wire.errors import NotFoundError
from .wire.flows import FLOW
from .wire.table import BUILTIN_PREFIX, HOST_LABEL, NodeInfo, NodeTable


class Catalog:
    """The nodes of the generation that is served, and the digests of all that may have workers.

    Args:
        offered: Labels that some workers have.
    """

    def __init__(self, offered: frozenset[str] = frozenset()) -> None:
        self._offered = offered
        self.served = 0  # number of the generation
        self.table = NodeTable((), "")
        self.nodes: list[Node] = []  # by index in the table
        self.by_name: dict[str, Node] = {}  # every name a caller may use -> node
        # number of a generation -> digest of its nodes, of the served one and those to come
        self._digests: dict[int, str] = {}

    def announce(self, generation: int, table: NodeTable) -> None:
        """Note nodes that will be served."""
        self._digests[generation] = table.digest

    def serve(self, generation: int, table: NodeTable) -> None:
        """Serve nodes from now on."""
        self._digests = {generation: table.digest}
        self.served = generation
        before = {node.name: node for node in self.nodes}
        infos = dict(zip(before, self.table.nodes, strict=True))
        self.nodes = []
        for index, info in enumerate(table.nodes):
            old = before.get(info.name)
            if old is not None and infos[info.name] == info:
                del before[info.name]
                old.index = index
                self.nodes.append(old)
            else:
                self.nodes.append(_make(index, info, old, self._offered))
        for node in before.values():
            node.served = False
        self.table = table
        self.by_name = {name: self.nodes[index] for name, index in table.names().items()}

    def has_digest(self, generation: int, digest: str) -> bool:
        """Whether a worker of a generation has the nodes that it should have.

        Of generations that are over nobody knows, and nobody needs to: they get nothing.
        """
        return generation < self.served or self._digests.get(generation) == digest

    def not_found(self, name: str) -> NotFoundError:
        """Make the error for a name that `by_name` does not have."""
        return self.table.not_found(name)


def _make(index: int, info: NodeInfo, before: Node | None, offered: frozenset[str]) -> Node:
    """Make a node; what was counted of one of that name goes on, for people look at it."""
    labels = frozenset(info.labels)
    if HOST_LABEL not in offered:
        labels -= {HOST_LABEL}
    node = Node(
        index,
        info.name,
        info.kind != "inline" or info.streams,
        marks_items=info.kind != "async",
        streams=info.streams,
        steps=info.kind == "inline" and info.streams,
        retry=info.retry,
        labels=labels,
        hosted=HOST_LABEL in labels,
        is_plain=not (labels or info.max_concurrency or info.rate),
        durability=info.durability,
        at_most_once=info.at_most_once,
        takes_context=info.takes_context,
    )
    is_workflow = HOST_LABEL in info.labels
    node.recordable = not info.name.startswith(BUILTIN_PREFIX) or info.name == FLOW
    node.conducted = is_workflow and node.recordable
    if info.max_concurrency or info.rate:
        node.gate = Gate(info.max_concurrency, info.rate)
    if before is not None:
        node.estimate_ns = before.estimate_ns
        node.counts = before.counts
        node.record = before.record
        if before.refused_until < inf:  # else it is for labels, which may be others now
            node.refused_until = before.refused_until
        if node.gate is not None and before.gate is not None:  # what is inside still counts
            node.gate = before.gate
            node.gate.set_limits(info.max_concurrency, info.rate)
    if not node.labels <= offered:
        node.refused_until = inf
    return node
