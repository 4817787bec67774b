"""What a client that has shown a key may do, held against each of its requests. Pure.

Clients of endpoints without keys never come here: their events go straight to the core. What a key
may not do becomes a `Denied` event, which the core answers and counts as it does any refusal.

A pattern stands for full names of nodes, whatever short name a caller uses. It says nothing of our
own calls (``pronghorn.stats`` and others), which `reads` and `administers` are for. A workflow that
is served is a node; one that a client sends may call any node, so that ``pronghorn.run`` and its
like are for those who have the pattern `ALL`. Which nodes
there are is told to all who may connect: a command line needs it to read parameters.

Mirror: tests/broker/test_rights.py.
"""

import re
from collections.abc import Callable

import msgspec
from msgspec import Raw

from .events import Denied, Event, Received, ReceivedJson
from .wire.administration import ORDERS, ListWorkers
from .wire.errors import ErrorDetails, InvalidArgumentError, PermissionDeniedError
from .wire.flows import CONTROL, FLOW, FOLLOW, RUN
from .wire.keys import Rights
from .wire.messages import Call, MapChunk, RequestId, Run
from .wire.runs import RUN_CALLS, START, RetryRun, decode_start
from .wire.statistics import STATS
from .wire.table import BUILTIN_PREFIX

_ANYBODY = frozenset(f"{BUILTIN_PREFIX}{name}" for name in ("nodes", "ping", "cancel"))
_RETRY = str(RetryRun.__struct_config__.tag)
_RUNS = frozenset({RUN, FOLLOW, FLOW, CONTROL})
_READING = frozenset({STATS, str(ListWorkers.__struct_config__.tag)})

ALL = "*"
"""The pattern of who may call every node."""

CHOSEN_ROUTING_ID = (
    "this client has chosen its ZeroMQ routing id, which clients with keys must not: another might "
    "have used it before"
)


class Permit:
    """The rights of one client, as they are asked for.

    Args:
        rights: What its key may do.
        why_not: Why it may do nothing at all, if so.
    """

    __slots__ = ("_allowed", "_pattern", "rights", "why_not")

    def __init__(self, rights: Rights, why_not: str = "") -> None:
        self.rights = rights
        self.why_not = why_not
        # `fnmatch` would read [ and ] too, which no name of a node has.
        self._pattern = re.compile("|".join(map(_expression, rights.nodes)) or "(?!)", re.DOTALL)
        self._allowed: dict[str, bool] = {}  # full names of nodes -> whether it may call them

    def may_call(self, node: str) -> bool:
        """Whether it may call a node, by its full name."""
        allowed = self._allowed.get(node)
        if allowed is None:
            allowed = self._allowed[node] = self._pattern.fullmatch(node) is not None
        return allowed

    def may_call_ours(self, name: str) -> bool:
        """Whether it may make one of our own calls; of one that is not known here nobody may."""
        if name in _READING:
            return self.rights.reads or self.rights.administers
        if name in ORDERS:
            return self.rights.administers
        if name == _RETRY:  # which runs a node that it might not be allowed any more
            return self.rights.administers
        if name in _RUNS:
            return ALL in self.rights.nodes
        return name in _ANYBODY or name in RUN_CALLS  # of its own runs: the core sees to that


class Gatekeeper:
    """Holds requests against permits.

    Args:
        full_name: Gives the full name of the node that a caller means; `None` if there is none.
    """

    def __init__(self, full_name: Callable[[str], str | None]) -> None:
        self._full_name = full_name

    def check(self, event: Event, permit: Permit) -> Denied | None:
        """Tell why a client's request is refused; `None` if it is not."""
        kind = type(event)
        if kind is Received:
            assert isinstance(event, Received)
            message = event.message
            if isinstance(message, Call | MapChunk | Run):
                name = message.node
                if name == START and isinstance(message, Call):
                    name = _node_to_start(message.params, as_json=False)
                if self._may(name, permit):
                    return None
                return _denied(event, name, message.id, permit)
        elif kind is ReceivedJson:
            assert isinstance(event, ReceivedJson)
            request = event.request
            name = request.method
            if name == START:
                name = _node_to_start(request.params, as_json=True)
            if not self._may(name, permit):
                id_ = None if request.id is msgspec.UNSET else request.id
                return _denied(event, name, id_, permit)
        return None

    def _may(self, name: str, permit: Permit) -> bool:
        if permit.why_not:
            return False
        if name.startswith(BUILTIN_PREFIX):
            return permit.may_call_ours(name)
        node = self._full_name(name)
        return node is None or permit.may_call(node)  # of none the core tells that it is none


def _node_to_start(params: Raw, *, as_json: bool) -> str:
    """Tell which node a call `START` is about; "" if that can't be read, which the core tells."""
    try:
        return decode_start(params, as_json=as_json).node
    except InvalidArgumentError:
        return ""


def _denied(event: Received | ReceivedJson, name: str, id_: RequestId, permit: Permit) -> Denied:
    reason = permit.why_not or f"this client's key has no right to call {name}"
    error = PermissionDeniedError(reason, ErrorDetails(node=name))
    return Denied(event.peer, id_, error, event.origin)


def _expression(pattern: str) -> str:
    return ".*".join(map(re.escape, pattern.split("*")))
