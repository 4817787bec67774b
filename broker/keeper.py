"""The journal's writer as the supervisor has it: started when it is needed, told of each broker.

It is started where a store is there already, or when a broker has the first call that is to be
recorded; started again when it has ended or could not use its folder, which may heal; and given
one end of a stream whenever it, or the broker, is a new one, or the stream has ended though both
live. One whose streams end again and again is started anew. An IO shell.

Mirror: tests/broker/test_keeper.py.
"""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from .journal.errors import UnusableStoreError
from .journal.place import has_store
from .program import Program
from .restart import SETTLED_S, RestartPolicy
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


EXIT_S: Final = 0.05
"""How long the end of a stream may be that of the writer, of which is not heard yet."""

_TIMER: Final = "the journal's stream"


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
        self._stream = 0  # number of the last one that was given
        self._attached_at = 0.0  # when that was, monotonic seconds
        self._streams = RestartPolicy(Random())  # of those that have ended though both live
        self._watcher = watcher

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

    def stream_ended(self, stream: int, why: str) -> None:
        """Take in that the broker finds a stream ended: if the journal lives it gets another one.

        Soon, and later and later if they go on ending; from some number on the journal is started
        anew each time, for it may be that.
        """
        when = monotonic() + EXIT_S
        self._watcher.at(_TIMER, when, partial(self._replace_stream, stream, why))

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

    def _replace_stream(self, stream: int, why: str) -> None:
        """Give another stream, unless that was done, or will be when the journal is there again."""
        if not self._is_current(stream):
            return
        now = monotonic()
        is_settled = now - self._attached_at >= SETTLED_S
        wait_s = self._streams.died(now, ready_at=self._attached_at if is_settled else None)
        starts_anew = self._streams.exhausted(now)
        _log.error(
            "the stream between broker and journal has ended%s; %s in %.1f s",
            f": {why}" if why else "",
            "the journal is started anew" if starts_anew else "there is another one",
            wait_s,
        )
        act = self._end_writer if starts_anew else self._attach
        self._watcher.at(_TIMER, now + wait_s, partial(self._act_on, stream, act))

    def _act_on(self, stream: int, act: Callable[[], None]) -> None:
        if self._is_current(stream):
            act()

    def _end_writer(self) -> None:
        """End the writer: all that it has acknowledged is kept, and another one is started."""
        self._writer.kill()

    def _is_current(self, stream: int) -> bool:
        return self._is_open and self._has_broker and stream == self._stream

    def _attach(self) -> None:
        """Give journal and broker the ends of a stream, when both are there."""
        if not (self._is_open and self._has_broker):
            return
        try:
            ours, theirs = make_pair()
            with ours, theirs:
                self._writer.send(AttachBroker(), (ours.fileno(),))
                self._stream += 1
                self._attached_at = monotonic()
                self._tell(JournalAttached(self._stream), (theirs.fileno(),))
        except OSError as error:
            self._fail(f"the journal can't be reached: {explained(error)}")
            self.stream_ended(self._stream, self._failure)
        else:
            self._failure = ""
