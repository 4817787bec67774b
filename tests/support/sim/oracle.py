"""What became of each call: what ran in the workers, against what callers were told.

It stands outside of all cores: a node that runs says so here, whatever the messages say.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from kept_runs import KeptRuns

from pronghorn.broker.journal.record import TaskDone
from pronghorn.broker.wire.errors import Outcome, PronghornError
from pronghorn.broker.wire.link import RunContext
from pronghorn.broker.wire.messages import Durability, Error, Pong, Result
from pronghorn.broker.wire.values import decode_value

from .nodes import FAILING, MISSED, RETRIED


class Record:
    """One call, or one item of a map."""

    __slots__ = (
        *("claimed", "due", "duration_s", "fails", "is_kept", "items", "known", "name"),
        *(
            "again",
            "asks",
            "durability",
            "is_refused",
            "retried",
            "run",
            "run_id",
            "runs",
            "told",
            "uid",
        ),
    )

    def __init__(self, uid: int, name: str, duration_s: float, known: bool) -> None:
        self.uid = uid
        self.name = name
        self.known = known  # whether there is a node of that name
        self.duration_s = duration_s
        self.due: float | None = None  # its caller's deadline
        self.durability: Durability | None = None
        self.fails = name in FAILING
        self.retried = name in RETRIED  # it may run again, and fails now and then
        self.claimed = False  # whether a worker has claimed it, alone or with others
        self.runs = 0  # how often its node began
        self.again = False  # whether it is a run that may be begun again
        self.run: Record | None = None  # that this call waits for, or asks something of
        self.run_id = ""  # of a run, once it was told
        self.asks = ""  # what is asked of its run
        self.items: list[Record] = []  # of a run that is a map
        self.is_refused = False  # whether the journal has refused a record of it
        self.is_kept = False  # whether it is an item of such a one, and what it came to is kept
        self.told: str | None = None  # what its caller was told; None as long as it was not

    @property
    def value(self) -> int:
        """What its node returns."""
        return self.uid + 1


class Oracle:
    """All calls of a run.

    Args:
        kept: What the journal has kept: uid of a call -> how it has ended, and its value.
        journal: All runs that it has kept.
    """

    def __init__(self, kept: Mapping[int, tuple[str, Any]], journal: KeptRuns) -> None:
        self._kept = kept
        self._journal = journal
        self.runs: list[Record] = []  # those that have a key
        self.started: list[Record] = []  # those that have none
        self._batched: list[Record] = []  # told of a result in this epoch, and to be kept in time
        self.records: list[Record] = []  # by uid
        self._fences: dict[str, dict[int, int]] = {}  # run -> attempt -> its fence
        self._untold: dict[int, Record] = {}  # uid -> record that somebody waits for

    def open(self, name: str, duration_s: float, *, known: bool = True) -> Record:
        """Note a new call."""
        record = Record(len(self.records), name, duration_s, known)
        self.records.append(record)
        self._untold[record.uid] = record
        return record

    def open_run(self, name: str, duration_s: float, durability: Durability) -> Record:
        """Note a new run, for which nobody waits by itself."""
        record = self.open(name, duration_s)
        record.durability = durability
        record.again = name != "once"
        self.abandon(record)
        self.runs.append(record)
        return record

    def open_map(self, name: str, durations_s: list[float], durability: Durability) -> Record:
        """Note a new map that is one run."""
        run = self.open_run(name, 0.0, durability)
        for duration_s in durations_s:
            item = self.open(name, duration_s)
            item.again = run.again
            self.abandon(item)
            run.items.append(item)
        return run

    def keep_range(self, uid: int, record: TaskDone) -> None:
        """Take in that the journal keeps what some items of a map have come to."""
        items = self.records[uid].items[record.first : record.first + record.count]
        values = msgspec.msgpack.decode(record.value)
        failed = {one.index: one.code for one in record.failures or ()}
        assert len(values) == len(items) == record.count
        for index, (item, value) in enumerate(zip(items, values, strict=True)):
            assert not item.is_kept, f"item {item.uid} is kept twice"
            item.is_kept = True
            self._check_item(item, value, failed.get(index))

    def refuse(self, uid: int) -> None:
        """Take in that the journal refuses a record of a call or run, and so all later ones."""
        record = self.records[uid]
        for one in (record, *record.items):
            one.is_refused = True
        self._batched = [one for one in self._batched if one is not record]

    def keep_end(self, uid: int, status: str) -> None:
        """Take in that the journal keeps the end of a run."""
        if status == "done":
            left = [item.uid for item in self.records[uid].items if not item.is_kept]
            assert not left, f"map {uid} is done without its items {left}"

    @property
    def all_runs(self) -> list[Record]:
        """All runs that somebody has asked for."""
        return self.runs + self.started

    def abandon(self, record: Record) -> None:
        """Nobody waits for it any more; it may run or not."""
        self._untold.pop(record.uid, None)

    def fenced(self, told: RunContext) -> None:
        """Check what a worker is told of a run: each attempt has one fence, later ones higher."""
        fences = self._fences.setdefault(told.run_id, {})
        assert fences.setdefault(told.attempt, told.fence) == told.fence
        in_order = [fence for _, fence in sorted(fences.items())]
        assert in_order == sorted(set(in_order)), "a fence keeps out earlier attempts"

    def ran(self, record: Record) -> None:
        """A worker begins to run a node."""
        record.runs += 1
        # Of one that was refused, what was given up may run on beside what is begun again.
        is_over = record.is_kept and not record.is_refused
        assert not is_over, f"item {record.uid} runs, and what it came to is kept"
        assert record.runs == 1 or record.retried or record.again, (
            f"call {record.uid} runs a second time"
        )
        assert record.told != "not_started", f"call {record.uid} runs, told it was not_started"

    def tell(self, record: Record, reply: Result | Error | Pong | PronghornError) -> None:
        """Judge what a caller is told about its call in the end."""
        if isinstance(reply, Pong):
            self._end(record, "pong")
        elif record.run is not None:
            self._tell_of_run(record, record.run, reply)
        elif isinstance(reply, Result):
            self.tell_value(record, decode_value(reply.value))
        elif isinstance(reply, Error):
            self.tell_error(record, reply.code, reply.details.outcome, reply.message)
        else:
            self.tell_error(record, reply.code, reply.outcome, reply.message)

    def tell_value(self, record: Record, value: Any) -> None:
        """Judge a result."""
        assert value == record.value, f"call {record.uid} got {value!r}, not {record.value}"
        once = record.runs == 1 or (record.runs and record.retried)
        assert once, f"call {record.uid} has a result and ran {record.runs} times"
        self._check_promise(record, "done")
        self._end(record, "result")

    def tell_error(self, record: Record, code: str, outcome: Outcome | None, message: str) -> None:
        """Judge an error."""
        what = f"{code}, {message}"
        assert outcome is not None, f"call {record.uid}: no outcome in {what}"
        if outcome == "not_started":
            assert record.runs == 0, f"call {record.uid} ran, told not_started by {what}"
        elif outcome == "executed":
            assert record.runs, f"call {record.uid} never ran, told executed by {what}"
        if code == "WORKER_LOST":
            assert record.claimed, f"call {record.uid} was not begun, told {what}"
        if code == "NODE_ERROR":
            self._check_promise(record, "failed")
            assert record.fails or record.retried, f"call {record.uid} does not fail, told {what}"
        if code == "NOT_FOUND":
            missed = record.name in MISSED
            assert missed or not record.known, f"call {record.uid} names a node, told {what}"
        assert code not in ("INTERNAL", "PROTOCOL_ERROR"), what
        self._end(record, outcome)

    def forget_batched(self) -> None:
        """The broker dies, and with it what was told and not kept yet: only `sync` is safe."""
        self._batched.clear()

    def check_kept(self) -> None:
        """Check that all that was told is kept by now."""
        for record in self._batched:
            assert record.uid in self._kept, f"call {record.uid} was told, and is not kept"
        self._batched.clear()

    def check_runs(self) -> None:
        """Check that all runs have come to an end, and have begun as often as they may."""
        states = self._journal.states.values()
        left = [state for state in states if state.status == "open"]
        assert not left, f"these runs never end: {left}"
        by_uid = {self._journal.uid_of(state.run): state for state in states}
        for record in self.all_runs:
            state = by_uid.get(record.uid)
            assert state is not None or not record.runs, f"run {record.uid} ran and is not kept"
            if state is not None:
                assert record.runs <= state.attempt, f"run {record.uid} ran {record.runs} times"
                is_done = state.status == "done" and not record.items
                assert not is_done or record.runs, f"run {record.uid} never ran"

    def _tell_of_run(
        self, record: Record, run: Record, reply: Result | Error | PronghornError
    ) -> None:
        """Judge what a caller is told that waits for a run or asks something of it."""
        if not isinstance(reply, Result):
            assert reply.code not in ("INTERNAL", "PROTOCOL_ERROR"), reply.message
            of_run = not run.items  # else it may be that of an item
            if of_run and (reply.code == "INTERRUPTED" or "workers died" in reply.message):
                status = "interrupted" if reply.code == "INTERRUPTED" else "poisoned"
                assert run.durability != "sync" or self._kept[run.uid] == (status, None)
            if reply.code == "NOT_FOUND":
                assert run.name in MISSED, f"run {run.uid}: {reply.message}"
            self._end(record, "error")
            return
        value = decode_value(reply.value)
        if record.asks in ("start", "status", "cancel"):
            number = int(value["id"][:16], 16)
            assert number in self._journal.states, "a run is told of that is not kept"
            assert run.run_id in ("", value["id"]), f"run {run.uid} is two"
            run.run_id = value["id"]
            if record.asks == "cancel":
                assert run.uid in self._kept, f"run {run.uid} is told to have ended, and has not"
        elif record.asks == "events":
            kinds = [event["event"] for event in value["events"]]
            assert kinds[0] == "accepted", kinds
            assert not value["ended"] or kinds[-1] == "ended", kinds
        elif record.asks == "items":
            self._tell_items(run, value)
        elif run.items:
            assert value == [item.value for item in run.items], f"map {run.uid} got {value!r}"
            self._check_promise(run, "done")
        else:
            assert value == run.value, f"run {run.uid} got {value!r}, not {run.value}"
            assert run.runs, f"run {run.uid} has a result and never ran"
            self._check_promise(run, "done")
        self._end(record, "result")

    def _tell_items(self, run: Record, told: Any) -> None:
        """Judge the results of items that a caller is told."""
        assert told["items"] == len(run.items)
        for part in told["parts"]:
            failed = {one[0]: one[1] for one in part["failures"] or ()}
            for index, value in enumerate(part["values"]):
                item = run.items[part["first"] + index]
                assert item.is_kept, f"item {item.uid} is told before it is kept"
                self._check_item(item, value, failed.get(index))

    @staticmethod
    def _check_item(item: Record, value: Any, code: str | None) -> None:
        if code is None:
            assert value == item.value, f"item {item.uid} got {value!r}, not {item.value}"
            assert item.runs, f"item {item.uid} has a result and never ran"
        elif code == "NODE_ERROR":
            assert item.fails, f"item {item.uid} does not fail"
        elif code in ("WORKER_LOST", "INTERRUPTED"):
            assert item.claimed, f"item {item.uid} was not begun, told {code}"

    def untold(self) -> list[int]:
        """Give the calls whose callers still wait."""
        return list(self._untold)

    def _check_promise(self, record: Record, status: str) -> None:
        """Check that what is told was kept before, or remember that it has to be."""
        if record.durability == "sync":
            assert record.uid in self._kept, f"call {record.uid} is told before it is kept"
            value = record.value if status == "done" and not record.items else None
            kept = self._kept[record.uid]
            assert kept == (status, value), f"call {record.uid} is told {status}, kept as {kept}"
        elif record.durability == "batched" and not record.is_refused:
            self._batched.append(record)

    def _end(self, record: Record, told: str) -> None:
        assert record.told is None, f"call {record.uid} ends twice: {record.told}, then {told}"
        record.told = told
        self._untold.pop(record.uid, None)
