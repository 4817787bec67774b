"""What one program calls and what it is told, written down call by call."""

from itertools import count
from pathlib import Path

from pronghorn.broker.wire.errors import PronghornError

from .nodes import BULK_BYTES, answer
from .records import Event, Log, Outcome, Told

CALLS_PER_CALLER = 10**9

_OUTCOMES = {
    "not_started": Outcome.NOT_STARTED,
    "maybe_executed": Outcome.MAYBE_EXECUTED,
    "executed": Outcome.EXECUTED,
    None: Outcome.NO_OUTCOME,
}


class Ledger:
    """The calls of one program. For any thread."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self._log = Log(path)
        self._calls = count(number * CALLS_PER_CALLER + 1)  # `next` of it is atomic

    def open(self, timeout_s: float | None = None) -> int:
        """Note a new call; returns its number."""
        call = next(self._calls)
        self._log.write(call, Event.OPENED, round((timeout_s or 0.0) * 1e6))
        return call

    def tell(self, call: int, outcome: Outcome, code: str = "") -> None:
        """Note what a caller was told."""
        self._log.write(call, Event.TOLD, Told(outcome, code).as_value())

    def tell_value(self, call: int, value: object) -> None:
        """Note that it was told a result."""
        right = value == answer(call) or (type(value) is bytes and len(value) == BULK_BYTES)
        self.tell(call, Outcome.RESULT if right else Outcome.WRONG_RESULT)

    def tell_error(self, call: int, error: BaseException, *, own_close: bool = False) -> None:
        """Note that it was told an error."""
        if not isinstance(error, PronghornError):
            self.tell(call, Outcome.NO_OUTCOME, "other")
            return
        code = "own close" if own_close and error.code == "BROKER_LOST" else error.code
        self.tell(call, _OUTCOMES[error.outcome], code)

    def tell_wire(self, call: int, code: str, outcome: str | None) -> None:
        """Note that it was told an error, as it came over the wire."""
        self.tell(call, _OUTCOMES[outcome], code)

    def close(self) -> None:
        self._log.close()
