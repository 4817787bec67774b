"""Mirror of broker/wire/control.py."""

from contextlib import suppress
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from pronghorn.broker.wire.administration import (
    Drain,
    ListWorkers,
    OrderError,
    Recycle,
    Reload,
    Scale,
    SeenWorker,
)
from pronghorn.broker.wire.control import (
    DESCRIPTORS,
    AttachBroker,
    BeginDrain,
    BrokerBound,
    BrokerConfig,
    BrokerFailed,
    CarriedOut,
    CarryOut,
    Confinement,
    ControlMessage,
    DrainPool,
    ExpectTable,
    HasDrained,
    JournalAbsent,
    JournalAttached,
    JournalConfig,
    JournalFailed,
    JournalLost,
    JournalOpened,
    KillWorker,
    Loaded,
    ModuleFailure,
    OpenJournal,
    PoolConfig,
    PoolFailed,
    PoolReady,
    PoolReloaded,
    RecordArrivals,
    ReloadPool,
    RetireWorker,
    ServeTable,
    Shutdown,
    StartWorker,
    TemplateConfig,
    WorkerExited,
    WorkerForked,
    WorkerReady,
    WorkerServed,
    WorkerStarted,
    decode_control,
    encode_control,
)
from pronghorn.broker.wire.limits import DEFAULT_LIMITS, Limits
from pronghorn.broker.wire.table import NodeInfo, NodeTable

TABLE = NodeTable((NodeInfo("shop.add", "inline"), NodeInfo("shop.buy", "async")), "d")
FAILURE = ModuleFailure("broken", "Traceback …")

ORDERS_GIVEN = (Recycle((1, 2)), Scale(3), Drain(4), Reload())

MESSAGES: list[ControlMessage] = [
    PoolConfig(
        modules=("nodes.py", "shop"),
        sys_path=("/a", "/b"),
        workers=2,
        folder="/run/shop",
        endpoints=("tcp://127.0.0.1:5000",),
        insecure=True,
        keys="/keys",
        confinement=Confinement(memory_bytes=1, network=False),
        cpus=(0, 1),
        limits=Limits(grant_requests=7),
        host_pid=12,
        grace_s=1.5,
        log_level="DEBUG",
    ),
    PoolReady(("ipc:///run/shop/broker.sock",), "e1", TABLE, (FAILURE,), ("spawned",)),
    PoolFailed("nothing to serve", (FAILURE,)),
    BrokerConfig(
        endpoints=("ipc:///x",), epoch="e1", limits=DEFAULT_LIMITS, insecure=False, files=("/x",)
    ),
    BrokerBound(("ipc:///x",)),
    BrokerFailed("in use"),
    PoolReloaded(TABLE, (FAILURE,), ("spawned",), "it can't be imported"),
    ReloadPool(),
    DrainPool(),
    RecordArrivals(True),
    ServeTable(TABLE, 1),
    ExpectTable(TABLE, 2),
    WorkerStarted(3, 1, 500, 1.0),
    WorkerServed(3, 500),
    RetireWorker(3),
    *(CarryOut(7, order) for order in ORDERS_GIVEN),
    CarryOut(8, ListWorkers(), (SeenWorker(3, "ready", 1, 500),)),
    CarriedOut(7, Raw(b"\xc0"), OrderError("NOT_FOUND", "no worker 3")),
    CarriedOut(8, Raw(b"\x90")),
    BeginDrain(),
    HasDrained(),
    WorkerReady(3),
    WorkerExited(3, "signal 9 (SIGKILL)"),
    KillWorker(3, "it is stuck"),
    Shutdown(),
    TemplateConfig(modules=("nodes.py",), sys_path=("/a",), supervisor_pid=11, result_bytes=4096),
    Loaded(TABLE, (FAILURE,), ("a thread runs",)),
    StartWorker(4),
    WorkerForked(4, 1234),
    JournalConfig(folder="/state/shop", age_s=60.0, runs=5, floor_bytes=0, log_level="DEBUG"),
    JournalOpened(3, ("record 7 is damaged",)),
    JournalFailed("in use"),
    AttachBroker(),
    OpenJournal(),
    JournalAttached(3),
    JournalLost(3, "why"),
    JournalAbsent("no folder"),
]


def test_there_is_an_example_of_each() -> None:
    assert {type(message) for message in MESSAGES} == set(get_args(ControlMessage))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_survive_the_channel(message: ControlMessage) -> None:
    assert decode_control.decode(encode_control(message)) == message


def test_descriptors_travel_beside_those_that_hand_out_a_link_or_stream() -> None:
    assert dict(DESCRIPTORS) == {
        WorkerStarted: 2,
        StartWorker: 2,
        AttachBroker: 1,
        JournalAttached: 1,
        RecordArrivals: 1,
    }


def test_a_host_of_another_version_is_refused() -> None:
    config = msgspec.to_builtins(MESSAGES[0]) | {"invented_later": 1}
    with pytest.raises(msgspec.ValidationError, match="invented_later"):
        decode_control.decode(msgspec.msgpack.encode(config))


@given(st.data(), st.sampled_from(MESSAGES))
def test_damaged_messages_are_messages_or_decode_errors(
    data: st.DataObject, message: ControlMessage
) -> None:
    body = bytearray(msgspec.msgpack.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        assert isinstance(decode_control.decode(bytes(body)), get_args(ControlMessage))
