"""The journal process: the only one that writes to a store. An IO shell.

``python -m pronghorn.broker.journal.writer CHANNEL``; the supervisor starts it, and hands it the
end of a stream for each broker. One thread and one loop: read what has come, commit all of it, say
how far that goes, answer questions; then sleep until something comes. A commit blocks, and what
comes meanwhile waits in the socket: that is the group commit. A thread instead would be starved by
a busy loop beside it, for seconds. Of the few records that somebody waits for only the write-ahead
log is written (wal.py), and the store takes them in when there are more, or soon.

It ends when its supervisor's end of the channel closes, after it has kept what was written to it;
and when the open store can't be relied on any more: then the next one starts from what is kept, and
the broker writes the rest again.

Where there is no room it keeps what it was given and tries again, each second, and tells the broker
to accept nothing new meanwhile. And what nobody waits for gathers a little (batch.py).

Mirror: tests/broker/journal/test_writer.py.
"""

import gc
import logging
import select
import sys
import time
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final

from ..wire.channel import GONE, ControlChannel
from ..wire.control import AttachBroker, JournalConfig, JournalFailed, JournalOpened
from ..wire.logs import set_up_logs
from .answers import answer
from .batch import CommitQueue
from .conversation import ANSWERS_A_TURN, Conversation
from .errors import DamageError, LostStoreError, NoSpaceError, RefusedError, UnusableStoreError
from .ledger import Retention, exceeds
from .messages import Committed, Entry, Question, Refused, Refusing, Void, Welcome, frames_of
from .opening import open_store
from .pending import Pending
from .place import DataFolder
from .room import Room
from .wal import WriteAheadLog, body_of, frame_of, seed_of

_log = logging.getLogger("pronghorn.broker.journal.writer")  # as a program it would be __main__

HOLD_S: Final = 0.5
"""How long another process may have the folder: who reads it may have to take in the log first."""

RETRY_S: Final = 1.0
_PRUNE_PAUSE_S: Final = 0.05  # between two slices while there are records to commit
_SPACE_PAUSE_S: Final = 1.0  # between two looks at the disk
_AGE_PAUSE_S: Final = 3600.0  # between two rounds of retention by age, if anything happens at all
_GC_ALLOCATIONS: Final = 50_000  # surplus of new containers before the collector looks at them
_STOP_S: Final = 10.0  # to keep what was written, at the end, when there is no room for it


class Writer:
    """The running journal. Owns folder, store and streams."""

    def __init__(self, config: JournalConfig, channel: ControlChannel, folder: DataFolder) -> None:
        """Open the store.

        Raises:
            UnusableStoreError: It can't be used; the message says what to do.
        """
        self._channel = channel
        self._retention = Retention(age_s=config.age_s, runs=config.runs, bytes=config.bytes)
        self._room = Room(
            folder,
            quota_bytes=config.quota_bytes,
            ballast_bytes=config.ballast_bytes,
            floor_bytes=config.floor_bytes,
        )
        self._store, self._ledger, self.warnings = open_store(folder.path, self._room)
        self._wal = WriteAheadLog.open(folder.path)
        self._seed = 0  # of the checksums in it, by the broker's epoch
        self._pending = Pending()  # what is logged, and the store does not have
        self._queue: CommitQueue[Entry] = CommitQueue()
        self._refusing = ""  # why nothing new is to be accepted
        self._blocked_until = 0.0  # when to try again what there was no room for
        self._look_at_disk_at = 0.0  # not before that
        self._prune_at = 0.0  # from when on the next slice of retention may be done
        self._pruning = True  # whether there may be something to remove
        self._prune_ages_at = 0.0
        self._poll = select.poll()
        self._channel_fd = channel.fileno()
        self._poll.register(self._channel_fd, select.POLLIN)
        self._conversation = Conversation(self._queue, self._poll)

    @property
    def open_runs(self) -> int:
        """How many runs are open."""
        return len(self._ledger.open)

    def run(self) -> None:
        """Serve until the channel is closed.

        Raises:
            LostStoreError: The store can't be relied on any more.
            DamageError: It is damaged where it is to be written to.
        """
        try:
            self._look_at_disk(time.monotonic())
            while self._wait():
                self._conversation.read()
                self._keep()
                self._greet()
                self._answer()
                self._tend()
                self._conversation.change_streams()
            self._finish()
        finally:
            self._conversation.close()
            self._close_wal()
            self._store.close()

    # --- one turn -------------------------------------------------------------------------------

    def _wait(self) -> bool:
        """Sleep until there is something to do; `False` when the supervisor is gone."""
        self._conversation.watch()
        channel = self._channel_fd
        for fd, _ in self._poll.poll(self._sleep_ms()):
            if fd == channel:
                return self._read_channel()
        return True

    def _sleep_ms(self) -> float | None:
        """Say how long to sleep if nothing comes; `None`: for ever."""
        due = inf
        if len(self._queue):
            due = max(self._queue.due, self._blocked_until)
        elif self._conversation.hello is not None:
            due = self._blocked_until
        if self._conversation.questions and not self._conversation.is_slow():
            due = 0.0
        if self._pruning:
            due = min(due, self._prune_at)
        if self._refusing and not len(self._queue):  # else a commit looks
            due = min(due, self._look_at_disk_at)
        # One more, for a time that is not reached yet would be waited for in a spin.
        return max(0.0, (due - time.monotonic()) * 1000 + 1) if due < inf else None

    def _read_channel(self) -> bool:
        received = self._channel.receive()
        if received is None:
            return False
        for message, descriptors in received:
            assert isinstance(message, AttachBroker)
            if not descriptors:  # it could not be taken: the broker finds it closed
                _log.error("the stream of a broker could not be taken")
                continue
            self._conversation.attach(descriptors[0])
        return True

    def _keep(self) -> None:
        """Keep what has queued, in the log or in the store, and say how far that goes."""
        now = time.monotonic()
        if now < self._blocked_until:
            return
        stream = self._conversation.stream
        if stream is not None and not stream.alive:
            self._queue.hurry()
            self._commit(now)  # the next broker waits for it
        elif not self._log(now) and now >= self._queue.due:
            self._commit(now)

    def _log(self, now: float) -> bool:
        """Log what somebody waits for; `False` if there is nothing, or it is to be committed."""
        wal, entries = self._wal, self._queue.to_log(now)
        if wal is None or not entries:
            return False
        body = body_of(entries)
        if not wal.has_room(len(body)):
            return False
        ledger = self._ledger
        last = ledger.counts.last + self._queue.logged
        states = self._pending.follow(last + 1, entries, ledger.open, ledger.has_key)
        if states is None:  # only the store can tell whether they can be kept
            return False
        try:
            wal.append(frame_of(self._seed, last + 1, len(entries), body))
        except OSError as error:
            _log.error("nothing is logged any more, records go to the store at once: %s", error)
            self._close_wal()
            return False
        self._conversation.tell(Committed(last + len(entries)))  # first: somebody waits for that
        self._queue.add_logged(now)
        self._pending.add(states)
        return True

    def _close_wal(self) -> None:
        if self._wal is not None:
            self._wal.close()
            self._wal = None

    def _commit(self, now: float) -> bool:
        """Have the store take in what has queued; `False` if it can't."""
        queue = self._queue
        if not len(queue):
            return True
        logged, batch = queue.logged, queue.take()
        try:
            through = self._ledger.commit(batch)
        except NoSpaceError as error:
            queue.failed()
            self._on_no_space(str(error), now)
            return False
        except RefusedError as error:
            queue.failed()
            position = error.sequence - self._ledger.counts.last - 1
            if position < logged:  # it was acknowledged, so it can't be refused any more
                raise DamageError(f"what is logged can't be: {error}") from error
            record = batch[position][0]
            assert not isinstance(record, Void), "it is kept behind anything"
            self._refuse_record(error, position, record.run)
            return False
        queue.committed()
        if not queue.logged:
            self._pending.clear()
            conversation = self._conversation
            conversation.questions.extend(conversation.kept_back)
            conversation.kept_back.clear()
            if self._wal is not None:
                self._wal.begin_anew()
        if len(batch) > logged:
            self._conversation.tell(Committed(through))
        self._look_at_disk(now)
        return True

    def _greet(self) -> None:
        """Answer a broker's hello, when all of the one before is kept."""
        hello = self._conversation.hello
        if hello is None or len(self._queue) or time.monotonic() < self._blocked_until:
            return
        try:
            acknowledged = self._ledger.begin_epoch(hello.epoch, time.time_ns())
        except NoSpaceError as error:
            self._on_no_space(str(error), time.monotonic())
            return
        self._seed = seed_of(self._ledger.store_id, hello.epoch)
        self._conversation.welcome(Welcome(acknowledged, self._refusing))

    def _answer(self) -> None:
        conversation = self._conversation
        stream = conversation.stream
        for _ in range(ANSWERS_A_TURN):
            if stream is None or conversation.is_slow() or not conversation.questions:
                return
            # What is committed for it may be refused, and then the questions behind it are gone.
            question = conversation.questions.popleft()
            if self._has_all_about(question):
                found, buffers = answer(self._store, self._ledger, question)
                stream.put(frames_of(found, *buffers))
                stream.flush()
            else:
                conversation.kept_back.append(question)

    def _has_all_about(self, question: Question) -> bool:
        """Whether the store has all that a question is about, which it takes in first."""
        while self._pending.concerns(question):
            now = time.monotonic()
            if now < self._blocked_until:
                return False
            self._commit(now)  # without room: again, for then there is the reserve
        return True

    def _refuse_record(self, refused: RefusedError, position: int, run: int) -> None:
        """Forget a record that can't be kept, with what came behind it; the broker is told.

        What is queued before it is kept.
        """
        _log.error("record %d is refused: %s", refused.sequence, refused)
        self._queue.cut(position)
        self._conversation.refuse(Refused(refused.sequence, run, str(refused)))

    # --- room, and what is kept no longer -------------------------------------------------------

    def _on_no_space(self, why: str, now: float) -> None:
        """Give the reserved room to what is open; when that is used up too, wait for more."""
        self._blocked_until = now if self._room.give_reserve() else now + RETRY_S
        self._look_at_disk_at = now + RETRY_S
        self._refuse(why)

    def _refuse(self, why: str) -> None:
        """Have the broker accept nothing new, and why; "": it may."""
        if why == self._refusing:
            return
        if bool(why) != bool(self._refusing):
            if why:
                _log.error("no new durable runs are accepted: %s", why)
            else:
                _log.warning("durable runs are accepted again")
        self._refusing = why
        if self._conversation.welcomed:
            self._conversation.tell(Refusing(why))

    def _look_at_disk(self, now: float) -> None:
        """Refuse new runs before there is no room for the end of those that are open."""
        if now < self._look_at_disk_at:
            return
        self._look_at_disk_at = now + _SPACE_PAUSE_S
        self._store.clear_readers()
        self._refuse(self._room.lacks(self._store))

    def _tend(self) -> None:
        """Do what can wait: look for room again, and remove what is kept no longer."""
        now = time.monotonic()
        if self._refusing and not len(self._queue):
            self._look_at_disk(now)
        if now >= self._prune_ages_at or exceeds(self._ledger.counts, self._retention):
            self._pruning = True
        if self._pruning and now >= self._prune_at:
            self._prune(now)

    def _prune(self, now: float) -> None:
        if self._queue.logged and not self._commit(now):  # it may be of what would go
            self._prune_at = now + RETRY_S
            return
        try:
            removed = self._ledger.prune(self._retention, time.time_ns())
        except NoSpaceError as error:
            self._on_no_space(str(error), now)
            self._prune_at = now + RETRY_S
            return
        self._pruning = not removed.finished
        busy = len(self._queue) or self._conversation.questions
        self._prune_at = now + (_PRUNE_PAUSE_S if busy else 0.0)
        if removed.finished:
            self._prune_ages_at = now + _AGE_PAUSE_S
        if removed.damaged:
            _log.error("%d damaged runs can't be removed", removed.damaged)
            self._prune_at = now + _AGE_PAUSE_S  # or it would try that without end

    # --- the end --------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Keep all that was written before the supervisor went."""
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline:
            self._conversation.watch()
            read = self._conversation.read()
            self._commit(time.monotonic())
            if len(self._queue):
                time.sleep(max(0.0, min(self._blocked_until, deadline) - time.monotonic()))
            elif not read:
                return


def main() -> int:
    """Run the journal over the channel whose descriptor is the first argument."""
    channel = ControlChannel.inherited(int(sys.argv[1]))
    first = channel.receive()
    if first is None:
        return 1
    config = first[0][0]
    assert isinstance(config, JournalConfig)
    set_up_logs("journal", config.log_level, config.log_format)
    try:
        folder = DataFolder.hold(Path(config.folder), patience_s=HOLD_S)
        writer = Writer(config, channel, folder)
    except UnusableStoreError as error:
        with suppress(*GONE):
            channel.send(JournalFailed(str(error)))
        return 1
    for warning in writer.warnings:
        _log.error("damage that concerns no open run: %s", warning)
    # What a commit leaves behind holds no cycles, so looking for them often is wasted.
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS)
    try:
        channel.send(JournalOpened(writer.open_runs, writer.warnings))
        writer.run()
    except GONE:
        return 1
    except (LostStoreError, DamageError) as error:
        _log.error("the journal ends: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
