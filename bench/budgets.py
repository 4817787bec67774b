"""Every budget in one place: what a figure must reach, and what it should.

The scenarios' budgets are ratios of figures measured in one run, or absolute where that is the
promise made to users (start, idle). The guard's are set from what it shows (bench/README.md, "The
guard").

Mirror: tests/bench/test_budgets.py.
"""

from typing import Literal

import msgspec

from .figures import Spread

GUARD_MARGIN = 1.25
"""Between what noise does to the guard's medians and what has to be noticed."""

Verdict = Literal["aim", "must", "missed", "printed"]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure must reach.

    Attributes:
        figure: What is compared, for people.
        unit: ``x`` for a ratio.
        must: The figure fails beyond it; `None`: it is only printed.
        aim: What it should be.
        at_most: Whether less is better.
        every_round: The worst round is judged instead of the median: for what may never happen.
    """

    figure: str
    unit: str = "x"
    must: float | None = None
    aim: float | None = None
    at_most: bool = True
    every_round: bool = False

    def judge_rounds(self, value: Spread) -> Verdict:
        """Say how a figure of several rounds stands against this budget."""
        if self.every_round:
            return self.judge(value.high if self.at_most else value.low)
        return self.judge(value.median)

    def judge(self, value: float) -> Verdict:
        """Say how one value stands against this budget."""
        if self.must is None:
            return "printed"
        if self.aim is not None and self._reaches(value, self.aim):
            return "aim"
        return "must" if self._reaches(value, self.must) else "missed"

    def _reaches(self, value: float, bound: float) -> bool:
        return value <= bound if self.at_most else value >= bound


def _most(figure: str, must: float, aim: float, unit: str = "x") -> Budget:
    return Budget(figure=figure, must=must, aim=aim, unit=unit)


def _least(figure: str, must: float, aim: float, unit: str = "x") -> Budget:
    return Budget(figure=figure, must=must, aim=aim, unit=unit, at_most=False)


def _never(figure: str, must: float, unit: str = "") -> Budget:
    return Budget(figure=figure, must=must, aim=0, unit=unit, every_round=True)


def _printed(figure: str, unit: str = "x") -> Budget:
    return Budget(figure=figure, unit=unit)


def _guarded(figure: str, usual: float) -> Budget:
    """Make a budget of the guard from what it shows on a slow machine; less is better."""
    return Budget(figure=figure, must=usual * GUARD_MARGIN)


_BYTECODES = "bytecodes per call in client, broker and worker"
_BYTECODES_BATCHED = "the same of a call that is recorded, batched"
_BYTECODES_RUN = "the same of a run of 20 tasks, its host included"

BUDGETS: dict[str, Budget] = {
    "rtt.sync": _most("sync client p50 / C proxy", 1.5, 1.2),
    "rtt.async": _most("async client p50 / C proxy", 1.9, 1.5),
    "rtt.sync_pinned": _most("sync client p50 / C proxy, one core", 1.5, 1.2),
    "rtt.async_pinned": _most("async client p50 / C proxy, one core", 2.0, 1.2),
    "clients.node": _most("Node.js client p50 / C proxy", 1.6, 1.3),
    "clients.node_pinned": _printed("Node.js client p50 / C proxy, one core"),
    "rtt.executor_p50": _most("sync client p50 / ProcessPoolExecutor", 1.2, 0.8),
    "rtt.executor_p99": _most("sync client p99 / ProcessPoolExecutor", 1.2, 0.8),
    "rtt.apply": _printed("sync client p50 / Pool.apply"),
    "rtt.pyro": _printed("sync client p50 / Pyro5"),
    "rtt.direct": _printed("sync client p50 / DEALER-ROUTER direct"),
    "rtt.bytes_64k": _most("64 KiB echo p50 / C proxy", 1.6, 1.2),
    "rtt.bytes_64k_pinned": _printed("64 KiB echo p50 / C proxy, one core"),
    "throughput.executor": _least("10,000 calls/s / ProcessPoolExecutor", 5.0, 8.0),
    "throughput.apply_async": _least("10,000 calls/s / Pool.apply_async", 1.3, 2.0),
    "map.starmap": _least("map items/s / Pool.starmap", 0.5, 1.5),
    "start.first_call": _most("serve to first answered call", 0.6, 0.3, "s"),
    "start.waiting_client": _printed("the same, client waits since before", "s"),
    "start.help": _most("pronghorn --help", 0.3, 0.2, "s"),
    "streams.first": _most("first part, from yield to client, p50 / call", 1.0, 0.6),
    "streams.next": _most("next part, from yield to client, p50 / call", 1.0, 0.6),
    "streams.rate": _least("parts/s over one stream", 30_000, 100_000, "parts/s"),
    "streams.memory": _most("memory growth with a reader 100x slower", 8, 2, "MiB"),
    "idle.switches": _never("voluntary switches of the busiest thread, 10 s", 10),
    "scale.cpu": _least("CPU-bound 1 ms node, 2 workers / 1", 1.8, 1.95),
    "scale.machine": _printed("the same by Pool.map: what the machine gives"),
    "scale.sleep_4": _least("sleeping 2 ms node, 4 workers / linear", 0.9, 0.95),
    "scale.sleep_16": _least("sleeping 2 ms node, 16 workers / linear", 0.9, 0.95),
    "scale.sleep_32": Budget(
        figure="sleeping 2 ms node, 32 workers / linear", must=0.0, aim=0.9, at_most=False
    ),
    "scale.waited_paced": _never("quick calls over 50 ms, 800 calls/s planned", 0, "calls"),
    "scale.waited_full": _never("quick calls over 50 ms, 64 outstanding", 0, "calls"),
    "links.free": _printed("socket pair p50 / ZeroMQ"),
    "links.pinned": _printed("socket pair p50 / ZeroMQ, one core"),
    "links.calls": _printed("socket pair calls/s / ZeroMQ, 1,000 outstanding"),
    "links.calls_pinned": _printed("socket pair calls/s / ZeroMQ, one core"),
    "claims.both": _never("races in which claim and revoke both went on", 0),
    "faults.killed": _most("SIGKILL of a worker: its caller knows, p99", 30, 5, "ms"),
    "faults.whole": _most("SIGKILL of a worker: the pool is whole again, p99", 100, 30, "ms"),
    "faults.lost": _never("finished results lost with their worker", 0, "results"),
    "faults.blocked": _most("quick call p99 beside a blocked worker / idle pool", 1.5, 1.2),
    "faults.blocked_slow": Budget(figure="quick calls over 10 ms, beside it", unit="%", must=0.1),
    "faults.crowd": _most("quick call p50 beside 10,000 queued of 0.1 ms / alone", 10, 4),
    "faults.crowd_busy": _most("the same, queued calls that keep the cores busy", 10, 4),
    "faults.deadline": _most("50 ms deadline of a node that never yields, p99", 60, 52, "ms"),
    "faults.broker": _most("SIGKILL of the broker: first call answered", 1, 0.3, "s"),
    "faults.goodput": _least("goodput at 10x overload / capacity", 0.9, 0.98),
    "faults.refused": _most("rejections at 10x overload, p99", 5, 1, "ms"),
    "faults.memory": Budget(figure="broker's memory growth at 10x overload", unit="MiB", must=64),
    "changes.recycle": _most("p99 at half load, workers replaced once a second / steady", 3, 1.5),
    "changes.reload": _most("p99 at half load, reloaded once a second / steady", 3, 1.5),
    "changes.scale": _most("p99 at half load, scaled up and down once a second / steady", 3, 1.5),
    "changes.failed": _never("calls that failed for it", 0, "calls"),
    "workflow.run": _most("run of 20 trivial nodes with templates, p50", 1.5, 0.5, "ms"),
    "workflow.node": _most("the same for each node, its call included", 40, 15, "us"),
    "workflow.slow_way": _least("the slow way / the same run", 2, 5),
    "workflow.chain": _most("chain of 100 tasks", 20, 10, "ms"),
    "workflow.splits": _most("25 splits", 50, 25, "ms"),
    "workflow.check": _most("check of a chain of 30 tasks", 20, 10, "ms"),
    "workflow.naps": _most("10 parallel async nodes of 100 ms", 115, 105, "ms"),
    "workflow.item": _most("an item, 1,000 to 10,000 on 1 MB", 8, 3, "us"),
    "workflow.item_first": _most("an item, 10 to 100 / 1,000 to 10,000", 1.2, 1.0),
    "workflow.item_texts": _most("an item on 5 MB of text / on nothing", 1.1, 1.0),
    "workflow.item_lists": _most("an item on 5 MB of lists / on nothing", 1.1, 1.0),
    "items.engine": _most("an item of 10,000 on 1 MB, in the engine", 8, 3, "us"),
    "items.client": _most("the same, from the client", 8, 3, "us"),
    "items.engine_context": _printed("an item on 10 MB / on 10 KB, in the engine"),
    "items.client_context": _printed("the same, from the client"),
    "items.slow_way": _least("the slow way, an item on 1 MB / ours", 100, 1000),
    "workflow.condition": _most("a condition", 10, 1, "us"),
    "workflow.condition_wide": _most("a condition on 2,000 variables / on 10", 1.1, 1.0),
    "workflow.condition_long": _most("a condition beside 100 KB of text / 10 B", 1.1, 1.0),
    "workflow.keys": _most("1,000 keys in a text / 10, for each key", 1.2, 1.0),
    "workflow.client_run": _most("20 nodes in two branches, from the client", 1.5, 0.5, "ms"),
    "workflow.batched": _most("batched run of 20 nodes p50 / none", 1.5, 1.2),
    "workflow.sync": _printed("sync run of 20 nodes p50 / none"),
    "workflow.commits": _most("commits per batched run, 100 at once", 0.2, 0.05, ""),
    "workflow.batched_rate": _printed("batched runs/s, 100 at once / none"),
    "workflow.client_thousand": _most("1,000 items, whole run from the client", 50, 15, "ms"),
    "workflow.client_chain": _most("chain of 100 tasks, from the client", 20, 10, "ms"),
    "workflow.client_splits": _most("25 splits, from the client", 50, 25, "ms"),
    "workflow.client_naps": _most("10 async nodes of 100 ms, from the client", 115, 105, "ms"),
    "workflow.client_spins": _most("8 nodes of 50 ms of CPU on 2 workers", 240, 210, "ms"),
    "workflow.client_item_10": _most("an item on 1 MB from the client, 10 to 100", 8, 3, "us"),
    "workflow.client_item_100": _most("the same, 100 to 1,000", 8, 3, "us"),
    "workflow.client_item_1000": _most("the same, 1,000 to 10,000", 8, 3, "us"),
    "workflow.client_item_even": _most("the dearest of these three / the cheapest", 1.2, 1.0),
    "workflow.client_item_texts": _most("from the client, on 5 MB of text / nothing", 1.1, 1.0),
    "workflow.client_item_lists": _most("from the client, on 5 MB of lists / nothing", 1.1, 1.0),
    "workflow.client_pooled": _printed("an item in the workers", "us"),
    "workflow.client_pooled_texts": _least("items/s in workers, 5 MB of text / nothing", 0.9, 1.0),
    "workflow.wire": _printed("bytes sent for an item in the workers", "B"),
    "workflow.wire_texts": _most("the same on 5 MB of text / nothing", 1.05, 1.0),
    "workflow.wire_large": _most("bytes sent for an item with 1 MB in its input", 400, 200, "B"),
    "workflow.pool_text": _most("an item with 1 MB of text in workers", 60, 30, "us"),
    "workflow.pool_sequence": _most("the same as a Sequence", 60, 30, "us"),
    "workflow.pool_list": _printed("the same as a list, decoded each time", "us"),
    "workflow.inline_text": _most("an item with 1 MB of text inline", 20, 10, "us"),
    "workflow.inline_sequence": _most("the same as a Sequence, inline", 20, 10, "us"),
    "workflow.inline_list": _printed("the same as a list, decoded each time, inline", "us"),
    "workflow.client_memory": _most("memory for 5 MB of lists, in copies", 3, 2, ""),
    "workflow.client_pause": _most("pause, p99", 5, 2, "ms"),
    "workflow.client_resume": _most("resume, p99", 5, 2, "ms"),
    "workflow.client_cancel": _most("cancel to the terminal event, p99", 5, 2, "ms"),
    "journal.one": _printed("one record kept, p50 / bare LMDB commit"),
    "journal.offered_p50": _printed("10,000 records/s: offer to acknowledgement, p50", "ms"),
    "journal.offered_p99": _most("10,000 records/s: offer to acknowledgement, p99", 10, 4, "ms"),
    "journal.commits": _most("commits per run, 1,000 in flight", 0.1, 0.01, ""),
    "journal.together": Budget(
        figure="commits of 100 ends that come together", unit="", must=4, aim=1, every_round=True
    ),
    "journal.first": _printed("an end kept, 99 right behind it, p50 / one record alone"),
    "journal.bytes": _printed("bytes on disk per small run", "bytes"),
    "journal.start": _most("journal open, 100,000 ended and 10,000 open runs", 2, 0.5, "s"),
    "durable.batched": _most("batched call p50 / none", 1.3, 1.1),
    "durable.sync": _most("sync call p50 / none and a bare LMDB commit", 1.4, 1.1),
    "durable.keyed": _most("the same with a key / none and two commits", 1.4, 1.1),
    "durable.dbos": _most("sync run, started and waited for, p50 / DBOS on SQLite", 0.2, 0.1),
    "durable.rate": _least("batched calls/s, 1,000 in flight / none", 0.5, 0.8),
    "durable.shared": _least("sync calls/s, 64 in flight / one", 6, 12),
    "durable.beside": _most("none call p50 beside 1,000 batched / beside 1,000 none", 1.5, 1.1),
    "keys.rtt": _most("CURVE over tcp, sync client p50 / C proxy with CURVE", 1.5, 1.3),
    "keys.rtt_pinned": _most("the same, one core", 1.5, 1.3),
    "keys.plain": _printed("CURVE over tcp, sync client p50 / by a unix socket"),
    "keys.idle_memory": _most("broker's memory for each of 2,000 idle connections", 64, 40, "KiB"),
    "keys.idle_p50": _most("call p50 beside 2,000 idle connections / beside none", 1.3, 1.1),
    "load.p95": _most("200 ms stall per 2 s at 1,000/s: p95 off the computed 100 ms", 10, 2, "%"),
    "load.p97.5": _most("the same, p97.5 off 150 ms", 10, 2, "%"),
    "load.p99": _most("the same, p99 off 180 ms", 10, 2, "%"),
    "load.lag": _most("scheduling lag of the generator at 2,000/s, p99", 0.3, 0.1, "ms"),
    "load.rate": _least("highest valid rate of one generator on one core", 10_000, 20_000, "/s"),
    "load.invalid": Budget(
        figure="beyond it the run says that it is invalid", unit="", must=1, at_most=False
    ),
    # Of which 1 MiB is for the packed latencies of an hour's 240 intervals.
    "load.memory": _most("memory growth of the generator at 2,000/s, per hour", 2, 1, "MiB"),
    "recording.call": _most("a recorded call p50 / one that is not", 1.2, 1.05),
    "recording.rate": _least("10,000 recorded calls/s / not recorded", 0.8, 0.95),
    "recording.cpu": _most("CPU of all processes per recorded call / not recorded", 1.25, 1.05),
    "guard.bytecodes": Budget(figure=_BYTECODES, unit="", must=3_700),
    "guard.bytecodes_elsewhere": _printed(_BYTECODES, ""),
    # 4,380 where the journal's word comes with the next call, 350 more where it is its own turn
    "guard.bytecodes_batched": Budget(figure=_BYTECODES_BATCHED, unit="", must=5_050),
    "guard.bytecodes_batched_elsewhere": _printed(_BYTECODES_BATCHED, ""),
    "guard.bytecodes_run": Budget(figure=_BYTECODES_RUN, unit="", must=52_000),
    "guard.bytecodes_run_elsewhere": _printed(_BYTECODES_RUN, ""),
    "guard.sync": _guarded("sync client p50 / C proxy", 1.6),
    "guard.async": _guarded("async client p50 / C proxy", 1.75),
    "guard.calls": _guarded("CPU per call, many at once / Pool.apply_async", 1.0),
    "guard.batched": _guarded("CPU of a batched call / of a plain call", 1.6),
    "guard.run": _guarded("CPU of a run of 20 tasks / of a plain call", 10.8),
    "guard.instructions": _printed("instructions per call / C proxy and worker"),
}
