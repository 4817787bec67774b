"""A broker's core with a journal that commits and answers when it is told to."""

from typing import Any

import msgspec
from core_driver import PARAMS, PEER, VALUE, Driver
from kept_runs import KeptRuns, decode_entry

from pronghorn.broker.events import (
    AskJournal,
    Assign,
    Command,
    Event,
    JournalAnswered,
    JournalCommitted,
    JournalGone,
    JournalRefused,
    JournalWelcomed,
    Send,
    WriteRecords,
)
from pronghorn.broker.journal.errors import HistoryError
from pronghorn.broker.journal.messages import Void
from pronghorn.broker.journal.record import Record, sequence_of
from pronghorn.broker.wire.link import Done, RunContext
from pronghorn.broker.wire.messages import Call, Error, Options, Result, Run
from pronghorn.broker.wire.runs import RunEvents, RunInfo

CLOCK_NS = 10**18
KEYED = Options(durability="sync", key="order-17")


class DurableDriver(Driver):
    """Plays the journal: what is written is kept, and what is asked answered, by `keep`.

    Commands for it are taken out, and what workers are told of runs; all others are returned.
    """

    def __init__(self, kept: KeptRuns | None = None, generation: int = 1, **more: Any) -> None:
        self.kept = kept or KeptRuns()
        self.generation = generation
        self.written: list[tuple[Record | Void, tuple[bytes, ...]]] = []  # and not kept
        self.asked: list[Any] = []  # questions without an answer
        self.told: list[RunContext] = []  # what workers are told of the runs that they are given
        self.index = 0  # of the last record that is kept
        super().__init__(**more)

    def do(self, *events: Event) -> list[Command]:
        left: list[Command] = []
        for command in super().do(*events):
            if isinstance(command, WriteRecords):
                for frame, *buffers in command.records:
                    self.written.append((decode_entry(frame), tuple(buffers)))
            elif isinstance(command, AskJournal):
                self.asked.append(command.question)
            elif isinstance(command, Assign) and isinstance(command.message, RunContext):
                self.told.append(command.message)
            else:
                left.append(command)
        return left

    def open_journal(self) -> list[Command]:
        """Be a journal that is there, and answer what it is asked at once."""
        self.written.clear()  # it is written again
        self.asked.clear()  # and asked
        through = sequence_of(self.generation, self.index)
        return self.do(JournalWelcomed(through, "", b"seed%d" % self.generation, CLOCK_NS)) + (
            self.keep()
        )

    def lose_journal(self, why: str = "") -> list[Command]:
        """Have the journal end, and with it what it has not kept and not answered."""
        self.written.clear()
        self.asked.clear()
        return self.do(JournalGone(why))

    def commit(self, count: int | None = None) -> list[Command]:
        """Keep what was written, or so much of it; what can't be kept is refused."""
        count = len(self.written[:count])
        for _ in range(count):
            record, buffers = self.written[0]
            sequence = sequence_of(self.generation, self.index + 1)
            try:
                self.kept.keep(sequence, record, buffers)
            except HistoryError as error:
                return self.refuse(sequence, str(error))
            del self.written[0]
            self.index += 1
        if not count:
            return []
        return self.do(JournalCommitted(sequence_of(self.generation, self.index), CLOCK_NS))

    def refuse(self, sequence: int | None = None, why: str = "it can't be") -> list[Command]:
        """Refuse a record, by default the first that was written, and be said hello to again."""
        if sequence is None:
            sequence = sequence_of(self.generation, self.index + 1)
        return self.refused(sequence, why) + self.open_journal()

    def refused(self, sequence: int, why: str = "it can't be") -> list[Command]:
        """Refuse a record that was written; nothing behind it is kept."""
        record, _ = self.written[sequence - sequence_of(self.generation, self.index) - 1]
        assert not isinstance(record, Void)
        self.written.clear()
        self.asked.clear()
        return self.do(JournalRefused(sequence, record.run, why))

    def answer(self) -> list[Command]:
        """Answer what was asked."""
        asked, self.asked = self.asked, []
        return self.do(*(JournalAnswered(*self.kept.answer(question)) for question in asked))

    def keep(self) -> list[Command]:
        """Keep and answer until nothing is left to do."""
        commands: list[Command] = []
        while self.written or self.asked:
            commands += self.commit() + self.answer()
        return commands

    def start(self, id_: int = 1, node: str = "m.add", **options: Any) -> list[Command]:
        """Be a client that starts a run, and the journal."""
        return self.say(Run(id_, node, PARAMS, Options(**options))) + self.keep()

    def ask(self, id_: int, name: str, *params: Any) -> list[Command]:
        """Be a client that asks something of a run, and the journal."""
        raw = msgspec.Raw(msgspec.msgpack.encode(params))
        return self.say(Call(id_, f"pronghorn.run.{name}", raw)) + self.keep()

    def run(self, commands: list[Command], value: msgspec.Raw = VALUE) -> list[Command]:
        """Be a worker that runs what is given to it, and the journal."""
        token = self.begun(commands)
        return self.work(Done(token, value, 1000)) + self.keep()

    def begun(self, commands: list[Command]) -> int:
        """Be a worker that begins what is given to it."""
        (given,) = (one.message for one in commands if isinstance(one, Assign))
        run: Any = given
        assert self.begin(run)
        return int(run.token)


def started(
    kept: KeptRuns | None = None, generation: int = 1, workers: int = 1, **more: Any
) -> DurableDriver:
    """Give a broker with a journal, workers and a client."""
    driver = DurableDriver(kept, generation, **more)
    for worker_id in range(1, workers + 1):
        driver.start_worker(worker_id)
    driver.hello()
    driver.open_journal()
    return driver


def restarted(driver: DurableDriver) -> DurableDriver:
    """Give the next broker, with what the journal has kept."""
    return started(driver.kept, driver.generation + 1)


def replies(commands: list[Command], peer: bytes = PEER) -> dict[Any, Any]:
    """Return what a client is sent: id -> the value of a result, or the error."""
    told: dict[Any, Any] = {}
    for command in commands:
        if isinstance(command, Send) and command.peer == peer:
            message: Any = command.message
            assert message.id not in told
            told[message.id] = message
            if isinstance(message, Result):
                told[message.id] = msgspec.msgpack.decode(message.value)
    return told


def info(told: Any) -> RunInfo:
    """Return what is told of a run."""
    assert not isinstance(told, Error), told
    return msgspec.convert(told, RunInfo)


def events(told: Any) -> RunEvents:
    """Return what has happened to a run."""
    assert not isinstance(told, Error), told
    return msgspec.convert(told, RunEvents)


def error(told: Any) -> Error:
    """Return the error that is told."""
    assert isinstance(told, Error)
    return told


def of_run(run_id: str) -> msgspec.Raw:
    """Give the params of what is asked of a run."""
    return msgspec.Raw(msgspec.msgpack.encode([run_id]))
