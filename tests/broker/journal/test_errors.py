"""Mirror of broker/journal/errors.py."""

import pytest

from pronghorn.broker.journal import errors
from pronghorn.broker.wire.errors import ERROR_CLASSES, JournalError


@pytest.mark.parametrize(
    "name",
    ["HistoryError", "DamageError", "UnusableStoreError", "NoSpaceError", "LostStoreError"],
)
def test_callers_are_told_of_a_journal_error(name: str) -> None:
    cls = getattr(errors, name)
    assert issubclass(cls, JournalError)
    assert ERROR_CLASSES[cls.code] is JournalError
