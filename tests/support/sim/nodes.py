"""The nodes that are served, and how long each of their calls runs."""

from pronghorn.broker.wire.messages import Durability
from pronghorn.broker.wire.table import NodeInfo, NodeTable, RetryPolicy

from .dice import Dice

RETRY = RetryPolicy(3, 0.001, 0.004)
TABLE = NodeTable(
    (
        NodeInfo("m.quick", "inline"),
        NodeInfo("m.slow", "inline"),
        NodeInfo("m.fail", "inline"),
        NodeInfo("m.sleep", "async"),
        NodeInfo("m.thread", "thread"),
        NodeInfo("m.again", "inline", RETRY),
        NodeInfo("m.retry", "async", RETRY),
        NodeInfo("m.caller", "inline"),
        NodeInfo("m.acaller", "async"),
        NodeInfo("m.rows", "inline", streams=True),
        NodeInfo("m.arows", "async", RETRY, streams=True),
        NodeInfo("m.once", "inline", at_most_once=True),
    ),
    "digest",
)

TABLES = (
    TABLE,
    NodeTable((NodeInfo("m.new", "inline"), *TABLE.nodes[::-1]), "reversed"),
    NodeTable(
        tuple(node for node in TABLE.nodes if node.name not in ("m.thread", "m.again")), "fewer"
    ),
    NodeTable(
        tuple(
            NodeInfo(node.name, "thread", node.retry, streams=node.streams)
            if node.kind == "async"
            else node
            for node in TABLE.nodes
            if node.name != "m.acaller"
        ),
        "otherwise",
    ),
)
"""What the modules hold after a reload; callers go on to ask for all that there ever was."""

MISSED = ("thread", "again", "acaller")  # there are tables without them
DURABILITIES: tuple[Durability, ...] = ("batched", "sync")
FAILING = ("fail", "m.fail")
INLINE_NAMES = ("quick", "slow", "m.fail")
NAMES = (
    *("quick",) * 8,
    *("slow", "fail", "sleep", "sleep", "thread", "m.quick"),
    *("again", "retry", "caller", "acaller"),
)
RUN_NAMES = ("quick", "slow", "fail", "sleep", "thread", "once", "once")
"""Nodes of which runs are started."""

RETRIED = ("again", "retry", "arows")
STREAMING = ("rows", "arows")
CALLERS = ("caller", "acaller")
DEPTH_MAX = 4

_RANGES_S = {
    "quick": (0.000_005, 0.000_1),
    "slow": (0.000_3, 0.008),
    "fail": (0.000_005, 0.000_5),
    "sleep": (0.0, 0.02),
    "thread": (0.0, 0.01),
    "again": (0.0, 0.001),
    "retry": (0.0, 0.005),
    "caller": (0.0, 0.000_2),
    "acaller": (0.0, 0.002),
    "rows": (0.0, 0.005),
    "once": (0.0, 0.005),
    "arows": (0.0, 0.01),
}
_FOR_ONCE_S = (0.005, 0.05)  # any node, once in a while


def duration(name: str, dice: Dice) -> float:
    """Choose the run time of one call, seconds."""
    low, high = _FOR_ONCE_S if dice.chance(30) else _RANGES_S[name.rpartition(".")[2]]
    return dice.between(low, high)


def parts_of(uid: int) -> list[int]:
    """Give the parts that a streaming call yields in the end."""
    return [uid * 1000 + seq for seq in range(uid % 50)]
