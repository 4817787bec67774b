"""The router that both brokers of the links benchmark share."""

import msgspec

from pronghorn.bench.floors.requests import request
from pronghorn.bench.micro.link_router import WINDOW, Router
from pronghorn.broker.wire.link import Done, RunCall
from pronghorn.broker.wire.messages import Result


def done(frame: bytes) -> bytes:
    run = msgspec.msgpack.decode(frame, type=RunCall)
    return msgspec.msgpack.encode(Done(run.token, msgspec.Raw(msgspec.msgpack.encode(3)), 0))


def test_a_reply_goes_to_who_asked() -> None:
    router = Router(worker_count=1)
    router.admit(b"client", request())
    (frame,) = router.assign()[0]
    (reply,) = router.complete([done(frame)])[b"client"]
    assert msgspec.msgpack.decode(msgspec.msgpack.decode(reply, type=Result).value) == 3


def test_requests_are_shared_out_up_to_the_windows() -> None:
    router = Router(worker_count=2)
    for _ in range(2 * WINDOW + 5):
        router.admit(b"client", request())
    out = router.assign()
    assert [len(out[worker]) for worker in (0, 1)] == [WINDOW, WINDOW]
    assert router.assign() == {}
    router.complete([done(frame) for frame in out[1]])
    assert [len(frames) for frames in router.assign().values()] == [5]
