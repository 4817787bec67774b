"""Mirror of broker/zap.py."""

import pytest
import zmq
from zmq.utils import z85

from pronghorn.broker.zap import DOMAIN, answer

PUBLIC = zmq.curve_keypair()[0].decode()


def asked(public: str = PUBLIC, **changed: bytes) -> list[bytes]:
    frames = {
        "version": b"1.0",
        "sequence": b"7",
        "domain": DOMAIN,
        "address": b"10.0.0.1",
        "identity": b"",
        "mechanism": b"CURVE",
        "key": z85.decode(public),
    }
    return list((frames | changed).values())


def test_a_key_that_is_allowed_names_the_client() -> None:
    found = answer(asked(), {PUBLIC}.__contains__)
    assert found.reply == (b"1.0", b"7", b"200", b"", PUBLIC.encode(), b"")
    assert (found.address, found.public, found.refused) == ("10.0.0.1", PUBLIC, "")


def test_another_key_is_refused() -> None:
    found = answer(asked(), set().__contains__)
    assert found.reply == (b"1.0", b"7", b"400", b"", b"", b"")
    assert found.public == PUBLIC
    assert "not, or no longer" in found.refused


@pytest.mark.parametrize(
    "changed",
    [
        {"domain": b"other"},
        {"mechanism": b"NULL"},
        {"mechanism": b"PLAIN"},
        {"version": b"2.0"},
        {"key": b"short"},
    ],
)
def test_all_else_is_refused(changed: dict[str, bytes]) -> None:
    found = answer(asked(**changed), {PUBLIC}.__contains__)
    assert found.reply[1:3] in ((b"7", b"400"), (b"7", b"500"))
    assert found.refused


@pytest.mark.parametrize("frames", [[], [b"1.0"], [b"1.0", b"7", DOMAIN], asked()[:-1]])
def test_what_is_cut_short_is_refused(frames: list[bytes]) -> None:
    found = answer(frames, lambda public: True)
    assert found.reply[2] != b"200"
    assert found.refused
