"""Mirror of broker/dealings.py."""

import pytest
from msgspec import Raw

from pronghorn.broker.dealings import Wish, event_of, message_of
from pronghorn.broker.events import (
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
from pronghorn.broker.wire.administration import ListWorkers, OrderError, SeenWorker
from pronghorn.broker.wire.control import (
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
    Shutdown,
    WorkerServed,
)
from pronghorn.broker.wire.table import NodeTable

TABLE, NIL = NodeTable((), "d"), Raw(b"\xc0")
ERROR = OrderError("NOT_FOUND", "no worker 3")
SEEN = (SeenWorker(1, "ready", 0, 7),)


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (ServeTable(TABLE, 1), TableKnown(TABLE, 1)),
        (ExpectTable(TABLE, 2), TableComing(TABLE, 2)),
        (RetireWorker(3), WorkerRetired(3)),
        (CarriedOut(4, NIL, ERROR), Administered(4, NIL, ERROR)),
        (BeginDrain(), DrainBegun()),
        (JournalAbsent("no folder"), JournalGone("no folder")),
        (Shutdown(), None),
    ],
)
def test_messages_of_the_supervisor_are_events(message: ControlMessage, event: Event) -> None:
    assert event_of(message) == event


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Kill(1, "it is stuck"), KillWorker(1, "it is stuck")),
        (Look(1, 7), WorkerServed(1, 7)),
        (Administer(4, ListWorkers(), SEEN), CarryOut(4, ListWorkers(), SEEN)),
        (Drained(), HasDrained()),
        (WantJournal(), OpenJournal()),
    ],
)
def test_wishes_of_the_core_are_messages(wish: Wish, message: ControlMessage) -> None:
    assert message_of(wish) == message
