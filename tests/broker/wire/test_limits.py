"""Mirror of broker/wire/limits.py."""

from typing import Any

import msgspec
import pytest

from pronghorn.broker.wire.limits import (
    DEFAULT_LIMITS,
    ENVELOPE_FRAMES_MAX,
    KIB,
    MIB,
    Limits,
)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"request_bytes": 4 * KIB - 1}, "request_bytes"),
        ({"result_bytes": 4 * KIB - 1}, "result_bytes"),
        ({"grant_bytes": 16 * MIB - 1}, "grant_bytes"),
        ({"buffers": 0}, "at least 1"),
        ({"grant_requests": 0}, "at least 1"),
        ({"stranger_requests": 0}, "at least 1"),
        ({"frames": ENVELOPE_FRAMES_MAX + 1 + 64}, "frames"),
    ],
)
def test_limits_that_make_no_sense_are_refused(changed: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Limits(**changed)


def test_the_least_limits_are_accepted() -> None:
    Limits(
        request_bytes=4 * KIB,
        result_bytes=4 * KIB,
        grant_bytes=4 * KIB,
        buffers=1,
        frames=ENVELOPE_FRAMES_MAX + 3,
        grant_requests=1,
        stranger_requests=1,
    )


def test_a_limit_that_does_not_exist_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="request_byte"):
        msgspec.convert({"request_byte": 4096}, Limits)


def test_limits_survive_the_wire() -> None:
    encoded = msgspec.msgpack.encode(DEFAULT_LIMITS)
    plain: dict[str, Any] = msgspec.msgpack.decode(encoded)
    assert plain == {
        "request_bytes": 16777216,
        "result_bytes": 16777216,
        "buffers": 64,
        "frames": 4104,
        "grant_requests": 4096,
        "grant_bytes": 67108864,
        "stranger_requests": 256,
        "grant_parts": 16384,
        "grant_part_bytes": 268435456,
    }
    assert msgspec.msgpack.decode(encoded, type=Limits) == DEFAULT_LIMITS


def test_the_sockets_limits_lie_beyond_our_own() -> None:
    limits = Limits(
        request_bytes=MIB,
        result_bytes=2 * MIB,
        grant_requests=10,
        stranger_requests=20,
        grant_parts=500,
    )
    assert limits.socket_message_bytes == 8 * MIB
    assert limits.socket_high_water_mark == 604
