"""One program that the supervisor keeps running: broker, template or journal. An IO shell.

It is started with a control channel, its config being the first message; when it ends, or can't be
started, it is started again after the wait that the policy says.

Mirror: tests/broker/test_program.py.
"""

import logging
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from random import Random
from time import monotonic

from .processes import kill, spawn_module
from .restart import RestartPolicy
from .watcher import Watcher
from .wire.channel import GONE, ControlChannel, make_pair
from .wire.control import BrokerConfig, ControlMessage, JournalConfig, TemplateConfig
from .wire.shortage import explained

_log = logging.getLogger("pronghorn.broker.supervisor")

Config = BrokerConfig | TemplateConfig | JournalConfig


class Program:
    """One program and its channel; whoever makes it says what happens with messages and exits."""

    def __init__(
        self,
        module: str,
        watcher: Watcher,
        *,
        configure: Callable[[], tuple[Config, tuple[int, ...]]],
        on_message: Callable[[ControlMessage], None],
        on_exit: Callable[[str], None],
        on_failure: Callable[[str], None],
        name: str | None = None,
    ) -> None:
        """Set it up; nothing is started.

        Args:
            module: Name of the module to run.
            watcher: The loop that it lives in.
            configure: Gives, for each start, the config and descriptors to inherit.
            on_message: Called with each message, the last ones before the exit included.
            on_exit: Called with how it ended; says `start_again`, or does not.
            on_failure: Called with the reason when it can't be started; it is tried again.
            name: Tells it from others of the same module.
        """
        self._module = module
        self._timer = name or module
        self._watcher = watcher
        self._configure = configure
        self._on_message = on_message
        self._on_exit = on_exit
        self._on_failure = on_failure
        self._policy = RestartPolicy(Random())
        self._channel: ControlChannel | None = None  # None while it does not run
        self._pid = 0
        self._lacking = False  # whether the last start failed, which is told once
        self.started_at = 0.0
        self.ready_at: float | None = None  # for its owner to say, once a start

    @property
    def exhausted(self) -> bool:
        """Whether it has ended, or could not be started, too often to go on hoping."""
        return self._policy.exhausted(monotonic())

    def start(self) -> None:
        """Start it; when that fails it is tried again after a while."""
        try:
            self._start()
        except OSError as error:
            reason = explained(error)
            if not self._lacking:
                self._lacking = True
                _log.error("%s can't be started, and is tried again: %s", self._module, reason)
            self.start_again()
            self._on_failure(reason)
        else:
            self._lacking = False

    def start_again(self) -> None:
        """Start it after the wait that its policy says."""
        now = monotonic()
        when = now + self._policy.died(now, ready_at=self.ready_at)
        self.ready_at = None
        self._watcher.at(self._timer, when, self.start)

    def send(self, message: ControlMessage, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message; nothing happens when it has ended, which its exit tells.

        Raises:
            OSError: The system lacks what it takes.
        """
        if self._channel is not None:
            with suppress(*GONE):
                self._channel.send(message, descriptors)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, by default to end it at once; nothing happens when it has ended."""
        if self._channel is not None:
            kill(self._pid, number)

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        return self._pid if self._channel is not None else 0

    def end(self) -> None:
        """Kill it and start it no more; its exit is not told."""
        self.kill()
        self.close()
        self._watcher.cancel(self._timer)

    def close(self) -> None:
        """Close the channel, by which the program ends; its exit is not told any more."""
        if self._channel is not None:
            self._watcher.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _start(self) -> None:
        config, descriptors = self._configure()
        ours, theirs = make_pair()
        channel = ControlChannel(ours)
        with theirs:
            try:
                self._watcher.watch(channel.fileno(), self._read)
                pid = spawn_module(
                    self._module, [str(theirs.fileno())], [theirs.fileno(), *descriptors]
                )
                self._watcher.watch_child(pid, self._ended)
            except OSError:
                self._watcher.unwatch(channel.fileno())
                channel.close()
                raise
        self._channel, self._pid, self.started_at = channel, pid, monotonic()
        self.send(config)

    def _read(self) -> bool:
        """Take in what it has to say; `False` when there is nothing more to come."""
        assert self._channel is not None
        received = self._channel.receive()
        if received is None:  # its exit is about to be reported
            self._watcher.unwatch(self._channel.fileno())
            return False
        for message, _ in received:
            self._on_message(message)
        return True

    def _ended(self, cause: str) -> None:
        if self._channel is None:
            return
        while _is_readable(self._channel) and self._read():
            pass  # what it wrote last
        self.close()
        self._on_exit(cause)


def _is_readable(channel: ControlChannel) -> bool:
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    return bool(poll.poll(0))
