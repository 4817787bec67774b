"""What a running node may know of its call.

A node that declares a parameter of type `Context` gets one made for each call; all others cost
nothing. Must not import anything heavy: users' programs import this module.

Mirror: tests/worker/test_context.py.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter


class Context:
    """The call that a node runs in; injected for a parameter annotated ``Context``.

    Attributes:
        request_id: Names the call in logs; unique within the worker.
        node: Full name of the node.
        worker_id: Number of the worker it runs in.
        deadline: `time.monotonic` at which the caller gives up, `None` when it waits for ever.
    """

    __slots__ = ("_cancelled", "_log", "deadline", "node", "request_id", "worker_id")

    def __init__(
        self, *, request_id: str, node: str, worker_id: int, deadline: float | None = None
    ) -> None:
        self.request_id = request_id
        self.node = node
        self.worker_id = worker_id
        self.deadline = deadline
        self._cancelled = False
        self._log: LoggerAdapter[Logger] | None = None  # made when first asked for

    def __repr__(self) -> str:
        return f"<Context of {self.node}, request {self.request_id}, worker {self.worker_id}>"

    def time_left(self) -> float | None:
        """Give the seconds until the deadline, never below zero; `None` when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the result any more; a long ``def`` looks here now and then."""
        return self._cancelled

    @property
    def log(self) -> LoggerAdapter[Logger]:
        """A logger named like the node; records carry `request_id`, `node` and `worker_id`."""
        if self._log is None:
            import logging  # 6 ms at import, needed by few nodes

            self._log = logging.LoggerAdapter(
                logging.getLogger(self.node),
                {"request_id": self.request_id, "node": self.node, "worker_id": self.worker_id},
            )
        return self._log

    def mark_cancelled(self) -> None:
        """Runtime: make `cancelled` true, for good."""
        self._cancelled = True
