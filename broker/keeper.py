"""The journal's writer as the supervisor has it: started when it is needed, told of each broker.

It is started where a store is there already, or when a broker has the first call that is to be
recorded; started again when it has ended or could not use its folder, which may heal; and given
one end of a stream whenever it, or the broker, is a new one. An IO shell.

Mirror: tests/broker/test_keeper.py.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Final

from .journal.errors import UnusableStoreError
from .journal.place import has_store
from .program import Program
from .watcher import Watcher
from .wire.channel import make_pair
from .wire.control import (
    AttachBroker,
    ControlMessage,
    JournalAbsent,
    JournalAttached,
    JournalConfig,
    JournalFailed,
    JournalOpened,
)
from .wire.logline import LogFormat, LogLevel
from .wire.shortage import explained

_log = logging.getLogger("pronghorn.broker.supervisor")

NO_FOLDER: Final = "this pool has no journal: give it a folder, as in Pool(data=...)"
ENDS_WITHIN_S: Final = 11.0
"""What the writer gets at the end: it tries for 10 s to keep what there is no room for."""


class Keeper:
    """The journal's process, and whether the broker has it."""

    def __init__(
        self,
        folder: str,
        log_level: LogLevel,
        log_format: LogFormat,
        watcher: Watcher,
        tell_broker: Callable[[ControlMessage, tuple[int, ...]], None],
    ) -> None:
        """Set it up; nothing is started.

        Args:
            folder: Of the store; "": nothing can be recorded.
            log_level: Level of what the journal logs.
            log_format: How it writes it.
            watcher: The supervisor's loop.
            tell_broker: Sends the broker a message with its descriptors.
        """
        self._folder = folder
        self._log_level: LogLevel = log_level
        self._log_format: LogFormat = log_format
        self._tell = tell_broker
        self._writer = Program(
            "pronghorn.broker.journal.writer",
            watcher,
            configure=self._configure,
            on_message=self._on_message,
            on_exit=self._on_exit,
            on_failure=self._on_failure,
        )
        self._is_wanted = False  # whether it was started
        self._is_open = False  # whether it takes brokers
        self._failure = ""  # why it is not, "" while it is not known that it can't be
        self._has_broker = False  # whether a broker runs that may be told

    @property
    def pid(self) -> int:
        """Process id of the writer; 0 while it does not run."""
        return self._writer.pid

    def start_if_used(self) -> None:
        """Start the journal if something was recorded before: there may be runs to take up."""
        try:
            used = bool(self._folder) and has_store(Path(self._folder))
        except UnusableStoreError:  # which it will say itself
            used = True
        if used:
            self._start()

    def open(self) -> None:
        """Start the journal for a broker that has something to record, unless it was started."""
        if not self._folder:
            self._tell(JournalAbsent(NO_FOLDER), ())
        elif not self._is_wanted:
            self._start()
        elif self._failure:
            self._tell(JournalAbsent(self._failure), ())

    def broker_bound(self) -> None:
        """Take in that a broker runs; the one before was reaped."""
        self._has_broker = True
        self._attach()

    def broker_ended(self) -> None:
        """Take in that there is no broker."""
        self._has_broker = False

    def close(self) -> None:
        """Have the writer keep what was written to it, and end."""
        self._writer.close()

    def _start(self) -> None:
        self._is_wanted = True
        self._writer.start()

    def _configure(self) -> tuple[JournalConfig, tuple[int, ...]]:
        config = JournalConfig(
            folder=self._folder, log_level=self._log_level, log_format=self._log_format
        )
        return config, ()

    def _on_message(self, message: ControlMessage) -> None:
        match message:
            case JournalOpened():
                self._is_open, self._failure = True, ""
                self._writer.ready_at = monotonic()
                self._attach()
            case JournalFailed(reason):
                self._fail(reason)
            case _:
                raise AssertionError(f"not for the supervisor: {message!r}")

    def _on_exit(self, cause: str) -> None:
        if self._is_open:
            _log.error("the journal ended with %s; another one is started", cause)
        elif not self._failure:
            self._fail(f"the journal ended with {cause}")
        self._is_open = False
        self._writer.start_again()

    def _on_failure(self, reason: str) -> None:
        self._fail(f"the journal can't be started: {reason}")

    def _fail(self, reason: str) -> None:
        """Tell that there is no journal for now; it goes on being tried."""
        if reason != self._failure:
            _log.error("nothing can be recorded: %s", reason)
        self._failure = reason
        if self._has_broker:
            self._tell(JournalAbsent(reason), ())

    def _attach(self) -> None:
        """Give journal and broker the ends of a stream, when both are there."""
        if not (self._is_open and self._has_broker):
            return
        try:
            ours, theirs = make_pair()
        except OSError as error:
            self._fail(f"the journal can't be reached: {explained(error)}")
            return
        with ours, theirs:
            self._writer.send(AttachBroker(), (ours.fileno(),))
            self._tell(JournalAttached(), (theirs.fileno(),))
