"""The broker process: sockets, poll and time around the core. An IO shell; `main` is its entry.

One thread, one blocking epoll over the ROUTER's descriptor, the clients' streams, the links of the
workers and the supervisor's channel. Each turn takes in what is there, hands it to the core as
events and carries out its commands; replies for one client and requests for one worker leave
together.

A plain epoll and not an event loop, because one call's round trip is mostly wake-ups and every
layer between them shows (measured with ``scripts/bench links``).

Mirror: tests/broker/test_server.py.
"""

import gc
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from .core import BrokerCore, CoreConfig
from .dealings import event_of, message_of
from .egress import Egress
from .events import (
    AskJournal,
    Assign,
    Command,
    Event,
    HurryJournal,
    MemoryTight,
    PeerGone,
    Probed,
    Report,
    Send,
    Tick,
    WorkerGone,
    WorkerSent,
    WorkerStarting,
    WriteRecords,
)
from .folder import remove_files
from .frontend import Delivery, Frontend
from .ingress import Ingress
from .journal_end import JournalEnd
from .links import LinkError
from .memory import Memory, Pressure
from .peers import Peers
from .poller import Poller, nothing
from .processes import allow_all_descriptors, forbid_core_dumps
from .recording import Recording
from .reporting import Reporter
from .streams import Stream, Streams, Visitors
from .wire.channel import GONE, ControlChannel
from .wire.codec import encode_message
from .wire.control import (
    BrokerBound,
    BrokerConfig,
    BrokerFailed,
    CarryOut,
    ControlMessage,
    ExpectTable,
    HasDrained,
    JournalAttached,
    JournalLost,
    KillWorker,
    OpenJournal,
    RecordArrivals,
    ServeTable,
    Shutdown,
    WorkerExited,
    WorkerReady,
    WorkerServed,
    WorkerStarted,
)
from .wire.errors import InvalidArgumentError
from .wire.keyfiles import KeyFolder
from .wire.link import Buffer, Ready
from .wire.logs import set_up_logs
from .wire.places import is_tcp, stream_path
from .wire.version import SERVER_NAME
from .worker_links import LinkedWorker, NoLinkError, WorkerLinks

if TYPE_CHECKING:
    from .secure import SecureFrontend

_log = logging.getLogger("pronghorn.broker.server")  # as a program it would be __main__

_EVENTS_PER_TURN = 64  # Python's default makes room for 1,023 of them at each poll
_TURN_S = 0.000_2
"""How long the broker takes in news before it acts on them, if more are there."""

_TURNS_PER_LOOK = 16  # at the memory
_LOOKS_PER_MEASURE = 4
"""Of so many such turns one is measured: to look at the clock after each would cost a call 1 %."""
_SECURE = b"secure"  # stands in `_unfinished` for all clients with keys
_EXIT_MEMORY = 75  # sysexits.h: a temporary failure; another broker is started

_GC_ALLOCATIONS = 50_000  # surplus of new containers before the collector looks at them


class BrokerServer:
    """The running broker. Owns all its descriptors."""

    def __init__(self, config: BrokerConfig, channel: ControlChannel) -> None:
        self._channel = channel
        self._poller = Poller()
        self._ingress = Ingress(config.limits)
        self._egress = Egress(config.limits)
        # Before the ipc endpoints, so that who finds one of those knows whether there is a stream.
        self._streams = Streams(
            filter(None, map(stream_path, config.endpoints)),
            limits=config.limits,
            unread_bytes=config.bounds.unread_bytes,
            ingress=self._ingress,
            poller=self._poller,
            accepted=self._welcome_stream,
            read=self._read_stream,
        )
        self._by_peer = self._streams.by_peer
        # Streams from which more was read than is taken in at once, by their peers; and the socket
        # of clients with keys, when something waits there.
        self._unfinished: dict[bytes, Stream | SecureFrontend] = {}
        self._visitors = Visitors()
        try:
            self._peers = Peers(self._poller, self._on_client_ended)
            self._frontend = Frontend(config.limits, self._peers)
            with_keys = [one for one in config.endpoints if config.keys and is_tcp(one)]
            others = [one for one in config.endpoints if one not in with_keys]
            self.endpoints = self._frontend.bind(others, insecure=config.insecure)
        except BaseException:
            self._streams.close()
            raise
        self._send_one, self._send_frames = self._frontend.send_one, self._frontend.send
        # Begins what the core knows clients with keys by; as of `Streams.prefix`.
        secure_prefix = secrets.token_bytes(8)
        self._core = BrokerCore(
            CoreConfig(
                epoch=config.epoch,
                server=SERVER_NAME,
                pid=os.getpid(),
                limits=config.limits,
                bounds=config.bounds,
                administrators=(*self._administrators(config), secure_prefix),
                keyed=secure_prefix if with_keys else b"",
                labels=frozenset(config.labels),
            )
        )
        # What takes clients' events in: the core itself, unless it is recorded what comes.
        self._take = self._core.handle
        self._recording: Recording | None = None
        self._epoch = config.epoch
        # When what else there is has something to do, and when all has, monotonic seconds.
        self._other_dues: list[Callable[[], float]] = []
        self._next_due = self._core.next_due
        self._secure: SecureFrontend | None = None  # for clients with keys, if there is one
        if with_keys:
            try:
                self._secure = self._make_secure(config, secure_prefix)
                self.endpoints += self._secure.bind(with_keys)
            except BaseException:
                self._streams.close()
                raise
        self._memory = Memory(config.bounds.memory_bytes)
        self._pressure = Pressure.NONE
        self.memory_is_over = False  # whether it ends because of that
        self._reporter = Reporter(self._core, self._streams)
        self._journal = JournalEnd(
            config.epoch, self._poller, self._on_journal, self._on_journal_lost
        )
        self._links = WorkerLinks(self._poller, self._read_worker)
        self._workers, self._dirty = self._links.by_id, self._links.dirty
        # number of a generation -> digest of its nodes, of the served one and those to come
        self._digests: dict[int, str] = {}
        self._looks = 0
        self._stopping = False
        self._now = 0.0  # monotonic seconds at this turn's begin
        self.orphaned = False  # whether the supervisor went without a word
        self._front_fd = self._frontend.fileno()
        self._poller.watch(channel.fileno(), self._read_supervisor)

    def _make_secure(self, config: BrokerConfig, prefix: bytes) -> "SecureFrontend":
        """Make the socket of clients with keys, and have what is for them sent by it."""
        from .rights import Gatekeeper
        from .secure import SecureFrontend  # takes time to import, and few brokers need it

        forbid_core_dumps()  # one would have the broker's secret
        secure = SecureFrontend(
            KeyFolder(Path(config.keys)),
            limits=config.limits,
            connections=config.bounds.connections,
            prefix=prefix,
            ingress=self._ingress,
            gatekeeper=Gatekeeper(self._core.full_name),
            poller=self._poller,
            gone=self._on_client_ended,
            readable=self._note_secure,
        )
        send_one, send_frames = self._send_one, self._send_frames

        def send_one_of_either(peer: bytes, frame: bytes) -> Delivery:
            is_secure = peer.startswith(prefix)
            return secure.send_one(peer, frame) if is_secure else send_one(peer, frame)

        def send_frames_of_either(peer: bytes, frames: Sequence[Buffer]) -> Delivery:
            is_secure = peer.startswith(prefix)
            return secure.send(peer, frames) if is_secure else send_frames(peer, frames)

        self._send_one, self._send_frames = send_one_of_either, send_frames_of_either
        self._heed(lambda: secure.look_due)
        return secure

    def _heed(self, due: Callable[[], float]) -> None:
        """Have turns when that says so, too."""
        self._other_dues.append(due)
        self._find_dues()

    def _find_dues(self) -> None:
        next_due, others = self._core.next_due, tuple(self._other_dues)
        self._next_due = (
            (lambda: min(next_due(), *(due() for due in others))) if others else next_due
        )

    def _tick(self, now: float) -> None:
        self._core.handle(Tick(), now)
        if self._secure is not None and self._secure.look_due <= now:
            self._secure.look(now)

    def _note_secure(self) -> None:
        """Have messages of clients with keys taken in with this turn's others."""
        if self._secure is not None:
            self._visitors.heard_others(self._now)
            self._unfinished[_SECURE] = self._secure

    def _administrators(self, config: BrokerConfig) -> tuple[bytes, ...]:
        """Tell how the routing ids of those begin who may give orders.

        Of a client on the ROUTER nobody knows by which endpoint it came.
        """
        on_tcp = any(map(is_tcp, self.endpoints))
        return (self._streams.prefix if on_tcp and not config.remote_admin else b"",)

    def run(self) -> None:
        """Serve until the supervisor says stop or is gone. Guarded by ``scripts/bench guard``."""
        self._tell_supervisor(BrokerBound(self.endpoints))
        _log.info("the broker is bound to %s", self.endpoints)
        core, frontend, poll = self._core, self._frontend, self._poller.poll
        handlers, front_fd = self._poller.handlers, self._front_fd
        timeout: float | None = None
        due = inf  # when the core wants a tick
        unread = False  # whether clients' messages may wait
        turns = 0  # since the last look around
        while not self._stopping:
            worked = False  # whether the core has news
            ready = poll(timeout, _EVENTS_PER_TURN)
            self._now = now = monotonic()
            for fd, _ in ready:
                if fd == front_fd:  # read last: results free workers
                    unread = True
                    continue
                handlers[fd]()
                worked = True
                if len(ready) > 1 and (passed := monotonic()) - now > _TURN_S:
                    self._now = now = passed
                    self._carry_out(core.settle(now))
            if self._unfinished:
                self._read_unfinished()
                worked = True
            if due <= now:
                self._tick(now)
                worked = True
            if worked:
                self._carry_out(core.settle(now))
            if unread or (frontend.touched and frontend.readable()):
                unread = self._read_clients()
            due = self._next_due()
            turns += 1
            if turns == _TURNS_PER_LOOK:
                turns = 0
                self._look_around(now)
            if unread or self._unfinished:
                timeout = 0.0
            elif due == inf:
                timeout = None
            else:
                timeout = due - now if due > now else 0.0

    def close(self) -> None:
        """Close everything; replies that were sent leave within the linger time."""
        self._links.close()  # first, for it tells the workers to end
        self._journal.write(self._core.unwritten())
        self._journal.close()
        self._end_recording()
        self._streams.close_all()
        self._frontend.close()
        if self._secure is not None:
            self._secure.close()
        self._memory.close()
        self._peers.close()
        self._streams.close()  # last: a client that finds only the other socket uses that one
        self._poller.close()
        self._channel.close()

    def _look_around(self, now: float) -> None:
        """Measure now and then, at the end of a turn."""
        self._looks += 1
        if self._looks % _LOOKS_PER_MEASURE == 0:
            self._reporter.end_turn(now)
        self._look_at_memory()

    def _look_at_memory(self) -> None:
        pressure = self._memory.look(self._now)
        if pressure is Pressure.NONE:
            if self._pressure is not Pressure.NONE:
                self._pressure = pressure
                self._core.handle(MemoryTight(False), self._now)
            return
        if self._pressure is Pressure.NONE:
            self._pressure = pressure
            _log.error("the broker's memory is beyond its bound: requests are refused")
            self._core.handle(MemoryTight(True), self._now)
        slowest = self._streams.slowest()
        if slowest is not None:
            _log.error("a client with %d bytes unread is dropped", slowest.pending_bytes)
            self._core.handle(self._drop(slowest), self._now)
            self._carry_out(self._core.settle(self._now))  # the poll may not return for long
            self._memory.expect_less()  # lest others are dropped for what is free already
        elif pressure is Pressure.OVER:
            _log.critical("the broker's memory is far beyond its bound: the broker ends")
            self.memory_is_over = self._stopping = True

    # --- what comes in --------------------------------------------------------------------------

    def _read_clients(self) -> bool:
        """Take in one burst of clients' messages; returns whether more may wait."""
        frontend = self._frontend
        frontend.touched = False
        self._visitors.heard_others(self._now)
        parse, handle, now = self._ingress.parse, self._take, self._now
        messages = frontend.receive_burst()
        for frames in messages:
            for event in parse(frames[0], frames[1:]):
                handle(event, now)
        self._carry_out(self._core.settle(now))
        return frontend.touched or len(messages) > 1  # a longer burst may have ended at its bound

    def _on_client_ended(self, peer: bytes) -> None:
        self._egress.forget(peer)
        self._core.handle(PeerGone(peer), self._now)

    def _welcome_stream(self, stream: Stream) -> None:
        self._core.handle(Probed(stream.peer), self._now)  # as a ZeroMQ client's probe does

    def _read_stream(self, stream: Stream) -> None:
        """Take in what one client on a stream has sent. Guarded by ``scripts/bench guard``."""
        if stream.rest:  # it has its turn in `_read_unfinished`
            return
        handle, now = self._take, self._now
        if stream is not self._visitors.last:
            self._visitors.heard(stream, now)
        for event in stream.receive():
            handle(event, now)
        if stream.rest:
            self._unfinished[stream.peer] = stream
        if not stream.alive:
            handle(self._drop(stream), now)

    def _read_unfinished(self) -> None:
        """Give each client that has sent much at once its turn."""
        handle, now = self._take, self._now
        events_max = self._visitors.events_max(now)
        unfinished, self._unfinished = self._unfinished, {}
        for peer, stream in unfinished.items():
            for event in stream.take(events_max):
                handle(event, now)
            if stream.rest:
                self._unfinished[peer] = stream

    def _drop(self, stream: Stream) -> PeerGone:
        """Close a stream; returns the event that tells the core."""
        self._streams.drop(stream)
        self._unfinished.pop(stream.peer, None)
        self._visitors.left(stream)
        self._egress.forget(stream.peer)
        return PeerGone(stream.peer)

    def _read_worker(self, worker: LinkedWorker) -> None:
        link = worker.link
        try:
            messages = link.receive()
        except LinkError as error:
            self._poller.unwatch(link.fileno())
            link.alive = False
            self._tell_supervisor(KillWorker(link.worker_id, str(error)))
            return
        if not link.alive:
            self._poller.unwatch(link.fileno())  # its end is reported by the supervisor
        handle, now, worker_id = self._core.handle, self._now, link.worker_id
        for message, buffers in messages:
            handle(WorkerSent(worker_id, message, buffers), now)
            # One with other nodes is about to be killed, one of an earlier generation to stop.
            if type(message) is Ready and (
                message.table_digest == self._digests.get(worker.generation)
            ):
                self._tell_supervisor(WorkerReady(link.worker_id))

    def _read_supervisor(self) -> None:
        received = self._channel.receive()
        if received is None:
            self._on_orphaned()
            return
        for message, descriptors in received:
            self._on_control(message, descriptors)

    def _on_orphaned(self) -> None:
        _log.error("the supervisor is gone; the broker ends")
        self.orphaned = self._stopping = True

    def _on_control(self, message: ControlMessage, descriptors: tuple[int, ...]) -> None:
        match message:
            case ServeTable(table, generation):
                if not self._digests:
                    self._poller.watch(self._front_fd, nothing)
                    self._streams.open()
                    if self._secure is not None:
                        self._secure.open()
                elif self._secure is not None:
                    self._secure.reload()  # where changes of its folder can't be seen
                self._digests = {generation: table.digest}
            case ExpectTable(table, generation):
                self._digests[generation] = table.digest
            case WorkerStarted():
                self._add_worker(message, descriptors)
            case WorkerExited(worker_id, cause, stack):
                self._remove_worker(worker_id, cause, stack)
            case JournalAttached(stream):
                self._journal.attach(stream, descriptors)
            case RecordArrivals(sizes_only):
                self._record(descriptors, sizes_only=sizes_only)
            case Shutdown():
                self._stopping = True
        event = event_of(message)
        if event is not None:
            self._core.handle(event, monotonic())

    def _record(self, descriptors: tuple[int, ...], *, sizes_only: bool) -> None:
        """Record from now on what comes from clients."""
        self._end_recording()
        if not descriptors:  # they did not arrive
            _log.error("calls can't be recorded: the broker has too many files open")
            return
        core = self._core
        self._recording = recording = Recording(
            socket.socket(fileno=descriptors[0]),
            self._epoch,
            sizes_only=sizes_only,
            full_name=core.full_name,
            handle=core.handle,
            ended=self._end_recording,
        )
        self._take = recording.take
        self._heed(recording.next_due)

    def _end_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            self._take = self._core.handle
            self._other_dues.remove(recording.next_due)
            self._find_dues()
            recording.close()

    def _on_journal(self, event: Event) -> None:
        self._core.handle(event, self._now)

    def _on_journal_lost(self, stream: int, why: str) -> None:
        self._tell_supervisor(JournalLost(stream, why))

    def _add_worker(self, started: WorkerStarted, descriptors: tuple[int, ...]) -> None:
        """Take in a worker; one that can't be had, for want of descriptors or memory, is killed."""
        worker_id = started.worker_id
        try:
            page = self._links.add(worker_id, started.generation, descriptors)
        except NoLinkError as error:
            self._tell_supervisor(KillWorker(worker_id, str(error)))
            return
        starting = WorkerStarting(
            worker_id,
            page,
            started.generation,
            started.look_requests,
            started.look_s,
            frozenset(started.labels),
        )
        self._core.handle(starting, monotonic())

    def _remove_worker(self, worker_id: int, cause: str, stack: str) -> None:
        """Let go of a reaped worker; what it wrote before its end is read first."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        now = monotonic()
        for message, buffers in worker.link.drain():
            self._core.handle(WorkerSent(worker_id, message, buffers), now)
        self._core.handle(WorkerGone(worker_id, cause, stack), now)
        self._links.remove(worker_id)

    # --- what goes out --------------------------------------------------------------------------

    def _carry_out(self, commands: list[Command]) -> None:
        """Carry out commands, and those that follow from peers found gone."""
        if len(commands) == 1:  # as when one call is made at a time: guarded as `run` is
            command = commands[0]
            if type(command) is Assign:
                worker = self._workers.get(command.worker_id)
                if worker is not None and not worker.waits_to_write:
                    if not worker.link.give(command.message, command.buffers):
                        self._links.flush_one(worker)
                    return
            elif type(command) is Send and command.origin is None and not command.buffers:
                frame = encode_message(command.message)
                stream = self._by_peer.get(command.peer)
                if stream is not None:
                    if self._streams.write(stream, frame):
                        return
                    self._core.handle(self._drop(stream), self._now)
                    commands = self._core.settle(self._now)
                elif self._send_one(command.peer, frame) is Delivery.SENT:
                    return
        elif len(commands) == 2:  # as of a lone call that is recorded
            first, second = commands
            if type(first) is WriteRecords and type(second) is HurryJournal:
                self._journal.write_at_once(first.records, waited_for=second.waited_for)
                return
        journal = self._journal
        while commands:
            sends: dict[bytes, list[Send]] = {}
            for command in commands:
                if isinstance(command, Send):
                    if command.peer in sends:
                        sends[command.peer].append(command)
                    else:
                        sends[command.peer] = [command]
                elif isinstance(command, Assign):
                    self._links.write(command)
                elif isinstance(command, WriteRecords):
                    journal.write(command.records)
                elif isinstance(command, HurryJournal):
                    journal.hurry(waited_for=command.waited_for)
                elif isinstance(command, AskJournal):
                    journal.ask(command.question)
                elif isinstance(command, Report):
                    report = self._reporter.answer(command)
                    sends.setdefault(report.peer, []).append(report)
                else:
                    self._tell_supervisor(message_of(command))
            if self._dirty:
                self._links.flush()
            if journal.has_unwritten:
                journal.flush()  # before the replies that promise it
            lost: list[Event] = []
            for peer, of_peer in sends.items():
                lost += self._deliver(peer, of_peer)
            if not lost:
                return
            now = monotonic()
            for event in lost:
                self._core.handle(event, now)
            commands = self._core.settle(now)

    def _deliver(self, peer: bytes, sends: list[Send]) -> list[Event]:
        """Send to one client what there is for it; returns the event of its loss, if any."""
        stream = self._by_peer.get(peer)
        if stream is not None:
            for frames in self._egress.messages(peer, sends):
                stream.put(frames)
            return [] if self._streams.flush(stream) else [self._drop(stream)]
        for frames in self._egress.messages(peer, sends):
            delivery = self._send_frames(peer, frames)
            if delivery is not Delivery.SENT:
                self._egress.forget(peer)
                self._peers.forget(peer)
                return [PeerGone(peer, banned=delivery is Delivery.FULL)]
        return []

    def _tell_supervisor(
        self,
        message: BrokerBound
        | KillWorker
        | WorkerReady
        | WorkerServed
        | CarryOut
        | HasDrained
        | OpenJournal
        | JournalLost,
    ) -> None:
        try:
            self._channel.send(message)
        except GONE:
            self._on_orphaned()


def main() -> int:
    """Run the broker over the channel whose descriptor is the first argument."""
    channel = ControlChannel.inherited(int(sys.argv[1]))
    first = channel.receive()
    if first is None:
        return 1
    config = first[0][0]
    assert isinstance(config, BrokerConfig)
    set_up_logs("broker", config.log_level, config.log_format)
    allow_all_descriptors()
    try:
        server = BrokerServer(config, channel)
    except InvalidArgumentError as error:
        with suppress(OSError):  # the supervisor is gone
            channel.send(BrokerFailed(str(error)))
        return 1
    # What a request leaves behind holds no cycles, so looking for them often is wasted.
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS)
    try:
        server.run()
    finally:
        server.close()
        if server.orphaned:
            remove_files(config.files)
    return _EXIT_MEMORY if server.memory_is_over else 0


if __name__ == "__main__":
    sys.exit(main())
