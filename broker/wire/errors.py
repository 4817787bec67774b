"""All errors of Pronghorn, their codes on the wire, and what is known of a failed call's effect.

The tree, by who can act on it::

    PronghornError
    ├── ProtocolError            a peer broke the protocol          PROTOCOL_ERROR
    ├── InvalidArgumentError     the caller sent a wrong value      INVALID_ARGUMENT
    ├── NotFoundError            no such node, run or worker        NOT_FOUND
    ├── NodeError                the node raised                    NODE_ERROR
    ├── DeadlineExceededError    the time was up                    DEADLINE_EXCEEDED
    ├── CancelledError           the caller cancelled               CANCELLED
    ├── OverloadedError          a limit is reached, try later      RESOURCE_EXHAUSTED
    ├── WorkerLostError          the worker died in the call        WORKER_LOST
    ├── BrokerLostError          the broker is gone                 BROKER_LOST
    ├── PermissionDeniedError    not allowed                        PERMISSION_DENIED
    ├── UnimplementedError       this broker does not speak that    UNIMPLEMENTED
    ├── InternalError            a defect of Pronghorn itself       INTERNAL
    ├── JournalError             the journal refused or failed      JOURNAL_ERROR
    └── InterruptedRunError      a run ended without finishing      INTERRUPTED

Specified in PROTOCOL.md, section "Errors". Mirror: tests/broker/wire/test_errors.py.
"""

from typing import Any, ClassVar, Literal

import msgspec

from .waterfall import Waterfall

Outcome = Literal["not_started", "maybe_executed", "executed"]
"""What is known of the node's effects: it never began, may have begun, or ran to its end."""


class ErrorDetails(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What an error says besides code and message; a map on the wire, absent keys are unknown.

    Attributes:
        outcome: What is known of the node's effects.
        retryable: Whether sending the same request again is safe and may help.
        retry_after_ms: Earliest useful time for that, milliseconds from now.
        node: Full name of the node concerned.
        exception: Type of the exception that the node raised, ``module.Class`` or a builtin's name.
        traceback: Its formatted traceback.
        field: JSONPath of the offending field, such as ``$.a``.
        limit: The limit that was passed, in the unit the message names.
        cause: How a worker ended, such as ``signal 9 (SIGKILL)``.
        item: Which item of a map it is about, counted from 0; for clients to fill in.
        running: All that a lost worker had begun and not finished, with the time it had taken, the
            longest first: ``shop.sell for 12.3 ms``.
        report: How a recorded run of a workflow has failed: `flows.RunReport` as a map. Values that
            are large are left out.
    """

    outcome: Outcome | None = None
    retryable: bool | None = None
    retry_after_ms: float | None = None
    node: str | None = None
    exception: str | None = None
    traceback: str | None = None
    field: str | None = None
    limit: int | None = None
    cause: str | None = None
    item: int | None = None
    running: tuple[str, ...] | None = None
    report: dict[str, Any] | None = None


NO_DETAILS = ErrorDetails()


class PronghornError(Exception):
    """Base of all errors of Pronghorn.

    Attributes:
        code: The stable code on the wire; one per class.
        message: What is wrong, where, and what to do.
        details: See `ErrorDetails`.
        waterfall: Where the time of the call went, if it was made by `trace` and the broker told.
    """

    waterfall: Waterfall | None = None
    code: ClassVar[str] = "INTERNAL"
    default_outcome: ClassVar[Outcome | None] = None

    def __init__(self, message: str, details: ErrorDetails = NO_DETAILS) -> None:
        super().__init__(message, details)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message

    @property
    def outcome(self) -> Outcome | None:
        """What is known of the node's effects, `None` where the question does not arise."""
        return self.details.outcome or self.default_outcome

    @property
    def retryable(self) -> bool:
        """Whether sending the same request again is safe and may help."""
        return bool(self.details.retryable)

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait before a retry, `None` when unknown."""
        milliseconds = self.details.retry_after_ms
        return None if milliseconds is None else milliseconds / 1000


class ProtocolError(PronghornError):
    """A peer sent what the protocol does not allow: an unreadable frame, a broken limit."""

    code = "PROTOCOL_ERROR"
    default_outcome = "not_started"


class InvalidArgumentError(PronghornError):
    """A parameter is missing, unknown or of the wrong type; the message names the field."""

    code = "INVALID_ARGUMENT"
    default_outcome = "not_started"


class NotFoundError(PronghornError):
    """There is no node, run or worker of that name."""

    code = "NOT_FOUND"
    default_outcome = "not_started"


class NodeError(PronghornError):
    """The node raised an exception, or returned what can't be encoded."""

    code = "NODE_ERROR"
    default_outcome = "executed"

    @property
    def exception(self) -> str:
        """Type of the remote exception, such as ``ZeroDivisionError`` or ``shop.OutOfStock``."""
        return self.details.exception or "Exception"

    @property
    def traceback(self) -> str:
        """The remote traceback as text, empty when there was none."""
        return self.details.traceback or ""

    def __str__(self) -> str:
        head = f"{self.exception}: {self.message}" if self.details.exception else self.message
        return f"{head}\n\nRemote traceback:\n{self.traceback}" if self.traceback else head


class DeadlineExceededError(PronghornError):
    """The time given for the call is up; `outcome` says whether it had begun."""

    code = "DEADLINE_EXCEEDED"


class CancelledError(PronghornError):
    """The call was cancelled by its caller or by the end of its session."""

    code = "CANCELLED"


class OverloadedError(PronghornError):
    """A queue, grant or memory limit is reached; `retry_after_s` says when to try again."""

    code = "RESOURCE_EXHAUSTED"
    default_outcome = "not_started"


class WorkerLostError(PronghornError):
    """The worker ended while it ran the call; `details.cause` says how."""

    code = "WORKER_LOST"
    default_outcome = "maybe_executed"

    @property
    def cause(self) -> str:
        """How the worker ended, such as ``signal 11 (SIGSEGV)`` or ``exit status 3``."""
        return self.details.cause or "unknown cause"


class BrokerLostError(PronghornError):
    """The broker can't be reached or was restarted; `outcome` says what is known of the call."""

    code = "BROKER_LOST"


class PermissionDeniedError(PronghornError):
    """The caller has no right to do that."""

    code = "PERMISSION_DENIED"
    default_outcome = "not_started"


class UnimplementedError(PronghornError):
    """The request is of a protocol version or kind that this broker does not serve."""

    code = "UNIMPLEMENTED"
    default_outcome = "not_started"


class InternalError(PronghornError):
    """A defect of Pronghorn itself; please report it."""

    code = "INTERNAL"


class JournalError(PronghornError):
    """The journal refused or failed to keep a record."""

    code = "JOURNAL_ERROR"


class InterruptedRunError(PronghornError):
    """A run was interrupted and its node may not be run a second time."""

    code = "INTERRUPTED"
    default_outcome = "maybe_executed"


_CLASSES: tuple[type[PronghornError], ...] = (
    ProtocolError,
    InvalidArgumentError,
    NotFoundError,
    NodeError,
    DeadlineExceededError,
    CancelledError,
    OverloadedError,
    WorkerLostError,
    BrokerLostError,
    PermissionDeniedError,
    UnimplementedError,
    InternalError,
    JournalError,
    InterruptedRunError,
)
ERROR_CLASSES: dict[str, type[PronghornError]] = {cls.code: cls for cls in _CLASSES}
assert len(ERROR_CLASSES) == len(_CLASSES), "every class has a code of its own"


def error_from_wire(code: str, message: str, details: ErrorDetails | None) -> PronghornError:
    """Make the error that `code` stands for; a code from a newer broker becomes `InternalError`."""
    cls = ERROR_CLASSES.get(code)
    if cls is None:
        return InternalError(f"{code}: {message}", details or NO_DETAILS)
    return cls(message, details or NO_DETAILS)
