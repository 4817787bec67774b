"""The journal's process: its commits, its deaths, and what it has kept, without a disk."""

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from kept_runs import KeptRuns, decode_entry, uid_in

from pronghorn.broker.events import (
    AskJournal,
    JournalAnswered,
    JournalBroke,
    JournalCommitted,
    JournalGone,
    JournalRefused,
    JournalRefusing,
    JournalWelcomed,
    WriteRecords,
)
from pronghorn.broker.journal.messages import Question, Void
from pronghorn.broker.journal.record import (
    Accepted,
    Ended,
    EndStatus,
    Record,
    TaskDone,
    sequence_of,
)
from pronghorn.broker.wire.link import CODEC_JSON

from .dice import Dice

if TYPE_CHECKING:
    from .brokers import FakeBroker
    from .world import World

_OPENED_S = 0.01  # longest time from the broker's wish, or from a death, until records are taken
_LINGER_S = 0.05  # how long records may gather that nobody waits for
_COMMIT_S = 0.003
_ABSENT_S = 0.05  # longest time without a folder, or without room on the disk

NO_FOLDER = "there is no folder"
FULL = "the disk is full"


class FakeJournal:
    """One journal, which outlives brokers; each of those writes a generation of records."""

    def __init__(self, world: "World", dice: Dice) -> None:
        # uid of a call that has ended -> how that is kept, and which value
        self.kept: dict[int, tuple[EndStatus, Any]] = {}
        self._world = world
        self._dice = dice
        self._broker: FakeBroker | None = None  # whose records are taken
        self._generation = 0
        self._is_open = False
        self.is_absent = False  # whether the broker was told that it can't be had
        self._is_wanted = False  # whether the broker has asked for it, or it was opened before
        self._opening = 0  # the last attempt to open it; those before are given up
        self._written: list[tuple[Record | Void, tuple[bytes, ...]]] = []  # and not kept yet
        self._index = 0  # of the generation's last record that is kept
        self._commits = 0  # those begun; a death gives up the one that is under way
        self._is_committing = False
        self.runs = KeptRuns(apart_bytes=100)
        self._uids: dict[int, int] = {}  # number of a run -> uid of its call
        self._asked: deque[Question] = deque()  # and not answered

    def serve(self, broker: "FakeBroker") -> None:
        """Take the records of a broker that has just been started, when it wants that."""
        self._let_go(is_kept=self._dice.chance(2))  # what was written may still be read
        self._broker = broker
        self._generation += 1
        self._index = 0
        if self._is_wanted:  # once there is a journal it is opened at each start
            self._open_soon()

    def wanted(self) -> None:
        """Open it for the first time, or find that it can't be had."""
        if self._is_wanted:  # it is being opened, as at each start
            return
        self._is_wanted = True
        if self._dice.chance(4):
            self._gone(NO_FOLDER)
        else:
            self._open_soon()

    def write(self, command: WriteRecords) -> None:
        """Take in records."""
        if self._is_open:  # else it has just died, and the broker will write that again
            for frame, *buffers in command.records:
                self._written.append((decode_entry(frame), tuple(buffers)))
            self._world.agenda.after(self._dice.between(0.0, _LINGER_S), self._commit_soon)

    def hurry(self) -> None:
        """Let what was written gather no longer."""
        self._commit_soon()

    def ask(self, command: AskJournal) -> None:
        """Take in a question."""
        if self._is_open:  # else it has just died, and the broker will ask the next one
            self._asked.append(command.question)
            delay = self._dice.between(0.0, _COMMIT_S)
            self._world.agenda.after(delay, self._answer, self._broker, self._opening)

    def _answer(self, broker: "FakeBroker", opening: int) -> None:
        """Answer the first question that is open, from what is kept by now."""
        if broker is self._broker and opening == self._opening and self._is_open:
            broker.journal_says(JournalAnswered(*self.runs.answer(self._asked.popleft())))

    def suffer(self, dice: Dice) -> None:
        """Die, lose the folder, run out of room, refuse a record, or break off the stream."""
        if self._broker is None or not self._is_wanted:
            return
        kind = dice.below(5)
        if kind == 0 and self._is_open:
            self._broker.journal_says(JournalRefusing(FULL))
            delay = dice.between(0.0, _ABSENT_S)
            self._world.agenda.after(delay, self._has_room, self._broker, self._opening)
        elif kind == 1 and self._is_open:
            self._let_go(is_kept=dice.chance(2))
            self._gone("")
        elif kind == 2:
            self._let_go(is_kept=dice.chance(2))
            self._gone(NO_FOLDER)
        elif kind == 3 and self._written:
            self._refuse(dice.below(len(self._written)))
        elif kind == 4 and self._is_open:
            self._let_go(is_kept=dice.chance(2))
            self._broker.journal_says(JournalBroke("it can't be read"))
            self._gone("")

    def _refuse(self, position: int) -> None:
        """Refuse one of the records that were written, and have kept what was before it."""
        record = self._written[position][0]
        if isinstance(record, Void):
            return
        self._keep(position)
        uid = uid_in(_value(record)) if isinstance(record, Accepted) else self._uids[record.run]
        self._world.oracle.refuse(uid)
        self._let_go(is_kept=False)
        assert self._broker is not None
        sequence = sequence_of(self._generation, self._index + 1)
        self._broker.journal_says(JournalRefused(sequence, record.run, "it is wrong"))
        self._open_soon()

    def check_drained(self) -> None:
        """Check that all was kept that was written."""
        assert not self._written

    # --- opening --------------------------------------------------------------------------------

    def _gone(self, why: str) -> None:
        assert self._broker is not None
        self.is_absent = bool(why)
        self._broker.journal_says(JournalGone(why))
        self._open_soon(_ABSENT_S if why else _OPENED_S)

    def _open_soon(self, within_s: float = _OPENED_S) -> None:
        self._opening += 1
        delay = self._dice.between(0.0, within_s)
        self._world.agenda.after(delay, self._open, self._broker, self._opening)

    def _open(self, broker: "FakeBroker", opening: int) -> None:
        if broker is self._broker and opening == self._opening:
            through = sequence_of(self._generation, self._index)
            refusing = FULL if self._dice.chance(6) else ""
            self._is_open, self.is_absent = True, False
            broker.journal_says(JournalWelcomed(through, refusing, b"seed", 10**18))
            if refusing:
                delay = self._dice.between(0.0, _ABSENT_S)
                self._world.agenda.after(delay, self._has_room, broker, opening)

    def _has_room(self, broker: "FakeBroker", opening: int) -> None:
        if broker is self._broker and opening == self._opening:
            broker.journal_says(JournalRefusing(""))

    # --- commits --------------------------------------------------------------------------------

    def _commit_soon(self) -> None:
        if self._written and not self._is_committing:
            self._is_committing = True
            self._commits += 1
            delay = self._dice.between(0.0, _COMMIT_S)
            self._world.agenda.after(delay, self._commit, self._commits, len(self._written))

    def _commit(self, number: int, count: int) -> None:
        """End a commit of so many records, unless it was given up meanwhile."""
        if self._is_committing and number == self._commits:
            self._is_committing = False
            self._keep(count)
            if self._broker is not None:
                through = sequence_of(self._generation, self._index)
                self._broker.journal_says(JournalCommitted(through, 10**18))
            self._commit_soon()

    def _let_go(self, *, is_kept: bool) -> None:
        """Lose what was written, or keep it without a word."""
        self._keep(len(self._written) if is_kept else 0)
        self._written.clear()
        self._asked.clear()
        self._opening += 1  # answers on their way are lost
        self._is_committing = self._is_open = False

    def _keep(self, count: int) -> None:
        kept, self._written = self._written[:count], self._written[count:]
        for record, buffers in kept:
            self._index += 1
            sequence = sequence_of(self._generation, self._index)
            self.runs.keep(sequence, record, buffers)
            if isinstance(record, Void):
                continue
            if isinstance(record, Accepted):
                self._uids[record.run] = uid_in(_value(record))
            elif isinstance(record, TaskDone):
                self._world.oracle.keep_range(self._uids[record.run], record)
            elif isinstance(record, Ended):
                uid = self._uids[record.run]
                assert uid not in self.kept, f"call {uid} has two runs"
                self.kept[uid] = record.status, _value(record)
                self._world.oracle.keep_end(uid, record.status)
        self._world.log("kept", self._index)


def _value(record: Accepted | Ended) -> Any:
    value = msgspec.msgpack.decode(record.value)
    return msgspec.json.decode(value) if record.codec == CODEC_JSON else value
