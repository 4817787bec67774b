"""Mirror of client/bundling.py."""

from msgspec import Raw

from pronghorn.broker.wire.codec import encode_message
from pronghorn.broker.wire.messages import Call, bundle_requests
from pronghorn.client.bundling import BUNDLED_BYTES_MAX, bundled


def frame(id_: int, size: int = 0) -> bytes:
    """Make the frame of a call of `size` bytes, if that is more than it needs."""
    bare = len(encode_message(Call(id_, "add", Raw(b"\xc5\x00\x00"))))
    room = max(0, size - bare)
    params = b"\xc5" + room.to_bytes(2, "big") + bytes(room)
    return encode_message(Call(id_, "add", Raw(params)))


def test_of_one_frame_or_none_nothing_is_made() -> None:
    assert bundled([]) == []
    assert bundled([frame(1)]) == [frame(1)]


def test_frames_that_follow_each_other_are_made_one() -> None:
    together = [frame(1), frame(2), frame(3)]
    assert bundled(together) == [bundle_requests(together)]


def test_a_large_frame_stays_as_it_is_and_in_its_place() -> None:
    small, large = frame(3, BUNDLED_BYTES_MAX), frame(4, BUNDLED_BYTES_MAX + 1)
    assert (len(small), len(large)) == (BUNDLED_BYTES_MAX, BUNDLED_BYTES_MAX + 1)
    assert bundled([frame(1), small, large, frame(5), frame(6)]) == [
        bundle_requests([frame(1), small]),
        large,
        bundle_requests([frame(5), frame(6)]),
    ]


def test_buffers_stay_behind_their_frame() -> None:
    owner = [frame(2), b"first", b"second"]
    assert bundled([frame(1), owner, frame(3)]) == [frame(1), *owner, frame(3)]
