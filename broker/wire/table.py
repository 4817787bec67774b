"""What the broker knows of the nodes: names, kinds and which bare names are unique.

Made by the worker side from its dispatch table and handed to the broker at start.

Mirror: tests/broker/wire/test_table.py.
"""

import re
from difflib import get_close_matches
from itertools import islice
from typing import Literal

import msgspec

from .errors import ErrorDetails, NotFoundError
from .limits import NAMES_COMPARED_MAX, NODE_NAME_BYTES_MAX

BUILTIN_PREFIX = "pronghorn."
"""Names that begin so are answered by Pronghorn itself; no node of users may have one."""

HOST_LABEL = f"{BUILTIN_PREFIX}host"
"""The label of run hosts, which run nothing but what needs it: workflows. Where there is no host
any worker runs these."""

WORKFLOW_SUFFIXES = (".yaml", ".yml", ".json")
"""How the names of files end that are definitions of workflows."""

LABEL = re.compile(r"[\w.-]{1,64}")
"""What labels of workers look like; `worker.node` has the same, for it must import nothing."""

NodeKind = Literal["inline", "thread", "async"]
"""`def` on the worker's loop, `def` in the worker's threads, `async def` on the loop."""


class RetryPolicy(msgspec.Struct, frozen=True, array_like=True):
    """How a node is tried again that may safely run twice.

    Attributes:
        attempts: Runs in all, at least 2.
        backoff_s: Delay before the second run, seconds; it doubles with each.
        backoff_max_s: Longest delay.
    """

    attempts: int
    backoff_s: float
    backoff_max_s: float


class NodeInfo(msgspec.Struct, frozen=True, array_like=True):
    """One node; its index is its place in the table.

    Attributes:
        name: Full name.
        kind: How it runs.
        retry: How it is tried again, if it is.
        streams: Whether it is a generator.
        max_concurrency: Most of its requests that run at once.
        rate: Most of its requests that begin in a second, in the long run.
        labels: What a worker must have to run it, sorted.
        durability: That of requests which don't say one.
        at_most_once: Whether a recorded run of it is never begun twice.
        takes_context: Whether it is told of which run it is an attempt.
    """

    name: str
    kind: NodeKind
    retry: RetryPolicy | None = None
    streams: bool = False
    max_concurrency: int | None = None
    rate: float | None = None
    labels: tuple[str, ...] = ()
    durability: Literal["batched", "sync"] | None = None
    at_most_once: bool = False
    takes_context: bool = True


class NodeTable(msgspec.Struct, frozen=True):
    """All nodes that are served.

    Attributes:
        nodes: In the order of their indexes.
        digest: Equal for two processes that have the same nodes with the same signatures.
    """

    nodes: tuple[NodeInfo, ...]
    digest: str

    def names(self) -> dict[str, int]:
        """Map every name a caller may use to the node's index: full names and unique bare names."""
        indexes = {node.name: index for index, node in enumerate(self.nodes)}
        for bare, full in self._by_bare_name().items():
            if len(full) == 1:
                indexes.setdefault(bare, indexes[full[0]])
        return indexes

    def not_found(self, name: str) -> NotFoundError:
        """Make the error for a name that `names` does not have, with what may have been meant.

        The name is whatever a peer has sent, so what it costs is bounded.
        """
        limit = NODE_NAME_BYTES_MAX
        if len(name) > limit:
            message = f"no node has a name of {len(name)} characters, the limit is {limit} bytes"
            return NotFoundError(message, ErrorDetails(outcome="not_started", limit=limit))
        same = self._by_bare_name().get(name, [])
        if len(same) > 1:
            message = f"node name {name!r} is ambiguous: {', '.join(same)}"
        else:
            message = f"no node named {name!r}"
            close = get_close_matches(name, islice(self.names(), NAMES_COMPARED_MAX), n=3)
            if close:
                message += f"; did you mean {' or '.join(repr(other) for other in close)}?"
        return NotFoundError(message, ErrorDetails(outcome="not_started", node=name))

    def _by_bare_name(self) -> dict[str, list[str]]:
        by_bare: dict[str, list[str]] = {}
        for node in self.nodes:
            if node.name.startswith(BUILTIN_PREFIX):
                continue  # `nodes` is a name for users' own
            by_bare.setdefault(node.name.rpartition(".")[2], []).append(node.name)
        return by_bare
