"""What supervisor and core tell each other through the broker's shell, translated. Pure.

Mirror: tests/broker/test_dealings.py.
"""

from .events import (
    Administer,
    Administered,
    DrainBegun,
    Drained,
    Event,
    JournalGone,
    Kill,
    Look,
    TableComing,
    TableKnown,
    WantJournal,
    WorkerRetired,
)
from .wire.control import (
    BeginDrain,
    CarriedOut,
    CarryOut,
    ControlMessage,
    ExpectTable,
    HasDrained,
    JournalAbsent,
    KillWorker,
    OpenJournal,
    RetireWorker,
    ServeTable,
    WorkerServed,
)

Wish = Kill | Look | Administer | Drained | WantJournal
"""A command of the core's that is the supervisor's to carry out."""


def event_of(message: ControlMessage) -> Event | None:
    """Make the core's event of the supervisor's message; `None` if the core has no use for it."""
    match message:
        case ServeTable(table, generation):
            return TableKnown(table, generation)
        case ExpectTable(table, generation):
            return TableComing(table, generation)
        case RetireWorker(worker_id):
            return WorkerRetired(worker_id)
        case CarriedOut(ticket, value, error):
            return Administered(ticket, value, error)
        case BeginDrain():
            return DrainBegun()
        case JournalAbsent(text):
            return JournalGone(text)
        case _:
            return None


def message_of(wish: Wish) -> KillWorker | WorkerServed | CarryOut | HasDrained | OpenJournal:
    """Make the message to the supervisor of the core's command."""
    match wish:
        case Kill(worker_id, reason):
            return KillWorker(worker_id, reason)
        case Look(worker_id, requests):
            return WorkerServed(worker_id, requests)
        case Administer(ticket, order, workers):
            return CarryOut(ticket, order, workers)
        case Drained():
            return HasDrained()
        case WantJournal():
            return OpenJournal()
