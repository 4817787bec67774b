"""Mirror of broker/key_filter.py."""

import pytest

from pronghorn.broker.journal.rows import key_hash
from pronghorn.broker.key_filter import KeyFilter


@pytest.fixture
def complete() -> KeyFilter:
    made = KeyFilter()
    made.is_complete = True
    return made


def test_nothing_is_new_until_all_are_known() -> None:
    keys = KeyFilter()
    assert not keys.is_new(key_hash("me", "a"))
    keys.is_complete = True
    assert keys.is_new(key_hash("me", "a"))


def test_what_was_added_is_never_new(complete: KeyFilter) -> None:
    for number in range(10_000):
        complete.add(key_hash("me", f"key-{number}"))
        complete.add(key_hash("you", f"other-{number}"))
    assert not any(complete.is_new(key_hash("me", f"key-{number}")) for number in range(10_000))
    assert not any(complete.is_new(key_hash("you", f"other-{number}")) for number in range(10_000))


def test_nearly_all_others_are(complete: KeyFilter) -> None:
    for number in range(100_000):
        complete.add(key_hash("me", f"key-{number}"))
    looked_up = sum(
        not complete.is_new(key_hash("you", f"key-{number}")) for number in range(10_000)
    )
    assert looked_up < 10
