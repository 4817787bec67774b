"""Mirror of broker/wire/keys.py."""

import pytest
import zmq
from zmq.utils import z85 as zmq_z85

from pronghorn.broker.wire.errors import InvalidArgumentError
from pronghorn.broker.wire.keys import (
    Entry,
    PrivateKey,
    Rights,
    check_key,
    check_key_name,
    check_pattern,
    fingerprint,
    parse_entry,
    parse_private,
    written_entry,
    written_private,
    z85,
)

PUBLIC = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
SECRET = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"


def test_a_private_key_is_read_as_it_was_written() -> None:
    for key in (PrivateKey(PUBLIC, SECRET), PrivateKey(PUBLIC, SECRET, PUBLIC)):
        assert parse_private(written_private(key, "Key of ada"), "ada.key") == key


def test_an_entry_is_read_as_it_was_written() -> None:
    for rights in (Rights(), Rights(nodes=("shop.*", "add"), reads=True), Rights(nodes=())):
        entry = Entry("ada", PUBLIC, rights)
        assert parse_entry(written_entry(entry), "ada", "ada.toml") == entry


def test_a_secret_is_in_no_representation() -> None:
    key = PrivateKey(PUBLIC, SECRET)
    assert SECRET not in repr(key)
    assert SECRET not in str(key)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'secret = "{SECRET}', "no TOML"),
        ("public = " + "[" * 5_000, "no TOML"),
        (f'secret = "{SECRET}"', "required field `public`"),
        (f'public = "{PUBLIC}"\nsecret = "{SECRET}x"', "secret is no key"),
        (f'public = "{SECRET[:-1]}"\nsecret = "{SECRET}"', "public is no key"),
        (f'public = "{PUBLIC}"\nsecret = "{SECRET}"\nserver = "{SECRET}~"', "server is no key"),
        (f'public = "{PUBLIC}"\nsecret = ["{SECRET}"]', "Expected `str`, got `array`"),
        (f'public = "{PUBLIC}"\nsecret = "{SECRET}"\nother = 1', "unknown field `other`"),
    ],
)
def test_what_is_no_private_key_is_refused_without_showing_it(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason) as caught:
        parse_private(text, "ada.key")
    assert str(caught.value).startswith("ada.key")
    assert SECRET[:20] not in str(caught.value)
    assert caught.value.__cause__ is None, "a chained one might show the file"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nodes = []", "required field `public`"),
        (f'public = "{PUBLIC}"', "required field `nodes`"),
        (f'public = "{PUBLIC}"\nnodes = "*"', "Expected `array`"),
        (f'public = "{PUBLIC}"\nnodes = ["a b"]', "'a b' is no pattern"),
        (f'public = "{PUBLIC}"\nnodes = []\nadmin = true', "unknown field `admin`"),
        (f'public = "{PUBLIC}"\nnodes = []\nreads = 1', "Expected `bool`"),
    ],
)
def test_what_is_no_entry_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        parse_entry(text, "ada", "ada.toml")


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "a" * 65, "ä"])
def test_names_that_can_be_no_file_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is no name for a key"):
        check_key_name(name)


def test_names_and_patterns_stay_as_they_are() -> None:
    assert check_key_name("ada@shop-1.x") == "ada@shop-1.x"
    assert check_pattern("shop.*") == "shop.*"
    for wrong in ("", '"', "a\nb"):
        with pytest.raises(InvalidArgumentError, match="is no pattern"):
            check_pattern(wrong)


def test_keys_are_written_as_zeromq_writes_them() -> None:
    for _ in range(20):
        public, _ = zmq.curve_keypair()
        assert z85(zmq_z85.decode(public)) == public.decode() == check_key(public.decode(), "it")
    assert z85(b"short") == b"short".hex()
    assert fingerprint(PUBLIC) == "rq:rM>}U"
