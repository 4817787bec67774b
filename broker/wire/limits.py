"""Every limit of the wire, with its reason. PROTOCOL.md, "Limits", says what happens at each.

Mirror: tests/broker/wire/test_limits.py.
"""

import msgspec

PROTOCOL_VERSION = 1
KINDS_PER_VERSION = (
    32  # the first element of a frame is version * 32 + kind: one byte up to version 3
)

KIB = 1024
MIB = 1024 * KIB

BUFFER_BYTES_MIN = 64 * KIB
"""Values from this size on travel as frames of their own: below it a copy is cheaper than a frame
(a further frame costs about 1 us to receive, a copy of 64 KiB about 4 us)."""

COUNTED_PART_BYTES = MIB
"""Bytes of parts that are under way to a caller who leaves their counting to the broker: as many as
our own clients ask for."""

ENVELOPE_FRAMES_MAX = 8
"""REQ adds one or two frames, every ROUTER/DEALER hop in between one more."""

ID_BYTES_MAX = 128
NODE_NAME_BYTES_MAX = 255
BUFFERS_PER_REQUEST_MAX = 64
FRAMES_PER_MESSAGE_MAX = 4096 + ENVELOPE_FRAMES_MAX
EVENT_BYTES_MAX = 16 * KIB
"""Of an event's value, or a progress's message: their number is all that bounds them besides."""

COLLECTED_PARTS_MAX = 100_000
"""Parts that are collected for a caller who takes none: a list that a caller still gets in one go;
their bytes are bounded like those of any result."""

BATCH_REQUESTS_MAX = 1000  # of a JSON-RPC batch, whose replies are collected into one array
TIMEOUT_MS_MAX = 30 * 24 * 3600 * 1000.0
"""30 days: beyond it a deadline is a mistake of units."""

MEMORY_BYTES_MIN = 64 * MIB
"""Least bound on a broker's memory: of it an idle one has 15 MiB."""

PRIORITIES = 4
"""Bands of priority: 0 goes first."""

PRIORITY_DEFAULT = 1
"""So that there is one above for what a person waits for, and two below for what can wait."""

AFFINITY_CHARACTERS_MAX = 128

QUOTED_CHARACTERS_MAX = 512
"""What an error quotes of a peer's text, so that a reply is not as long as the mistake."""

LOG_LINE_BYTES_MAX = 4096
"""What a pipe takes in as one (PIPE_BUF), so that lines of several processes are never mixed up; a
pipe that can be written to at all has room for as much."""

LOG_LINES_PER_S = 50
LOG_LINES_BURST = 200
"""Lines of our own that one process writes: what a peer does, again and again, must not fill disks.
Those of users' code are theirs to limit."""

NAMES_COMPARED_MAX = 100
"""Names that an unknown one is compared with for "did you mean": 5 us each, in the broker."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits a broker tells its clients in `welcome`, all configurable.

    Attributes:
        request_bytes: Largest request: its frame and all its buffers together.
        result_bytes: Largest result, counted the same way.
        buffers: Most buffer frames of one request.
        frames: Most frames of one message.
        grant_requests: Most requests a client may have open: unanswered, or answered and not
            acknowledged.
        grant_bytes: Most bytes of unanswered requests that a client may have open.
        stranger_requests: The same as `grant_requests` for peers that sent no hello.
        grant_parts: Most parts and events that a client may let its open requests send ahead.
        grant_part_bytes: Most bytes of parts that it may.
    """

    request_bytes: int = 16 * MIB
    result_bytes: int = 16 * MIB
    buffers: int = BUFFERS_PER_REQUEST_MAX
    frames: int = FRAMES_PER_MESSAGE_MAX
    grant_requests: int = 4096
    grant_bytes: int = 64 * MIB
    stranger_requests: int = 256
    grant_parts: int = 16_384
    grant_part_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        if self.request_bytes < 4 * KIB or self.result_bytes < 4 * KIB:
            raise ValueError("request_bytes and result_bytes must be at least 4096")
        if self.grant_bytes < self.request_bytes:
            raise ValueError(
                "grant_bytes must be at least request_bytes, or no large request can be sent"
            )
        counts = (self.buffers, self.frames, self.grant_requests, self.stranger_requests)
        if min(*counts, self.grant_parts, self.grant_part_bytes) < 1:
            raise ValueError("every limit must be at least 1")
        if self.frames <= ENVELOPE_FRAMES_MAX + 1 + self.buffers:
            raise ValueError("frames must leave room for an envelope, a request and its buffers")

    @property
    def socket_message_bytes(self) -> int:
        """ZMQ_MAXMSGSIZE; above it libzmq closes the connection in silence, so it is far off."""
        return 4 * max(self.request_bytes, self.result_bytes)

    @property
    def socket_high_water_mark(self) -> int:
        """Above every grant, so that a full pipe means a peer that does not keep to its grant."""
        replies = 2 * max(self.grant_requests, self.stranger_requests)
        return replies + self.grant_parts + 64


DEFAULT_LIMITS = Limits()


class Bounds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a broker holds and waits for at most, whoever its clients are; all configurable.

    Attributes:
        queue_requests: Requests that wait for a worker, of all clients together. Beyond it they are
            refused.
        queue_bytes: Bytes of them.
        unread_bytes: Bytes of replies that one client has not read, beside those that its socket
            holds. A client may be busy with many large results, or see to other things for a while,
            but not at the cost of all others: beyond it the client is dropped.
        memory_bytes: Resident memory of the broker. Beyond it the client with the most unread
            replies is dropped and requests are refused; at one and a half times as much, which only
            a hostile peer or a defect can bring about, the broker ends and another one is started.
        kill_grace_s: Seconds that a `def` node may go on with what was cancelled or is late, before
            its worker is killed. By default so few that it is gone within a second of the deadline,
            its end included.
        connections: Connections of clients with keys, open at one time; what comes beyond them is
            closed at once. 10,000 idle ones take some 350 MB.
    """

    queue_requests: int = 100_000
    queue_bytes: int = 256 * MIB
    unread_bytes: int = 512 * MIB
    memory_bytes: int = 2048 * MIB
    kill_grace_s: float = 0.5
    connections: int = 8192

    def __post_init__(self) -> None:
        if min(self.queue_requests, self.queue_bytes, self.unread_bytes, self.connections) < 1:
            raise ValueError("every bound must be at least 1")
        if self.memory_bytes < MEMORY_BYTES_MIN:
            raise ValueError(f"memory_bytes must be at least {MEMORY_BYTES_MIN}")
        if not 0 <= self.kill_grace_s <= TIMEOUT_MS_MAX / 1000:
            raise ValueError(f"kill_grace_s must be 0 to {TIMEOUT_MS_MAX / 1000:.0f}")


DEFAULT_BOUNDS = Bounds()
