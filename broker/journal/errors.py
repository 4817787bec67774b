"""What goes wrong with a journal, by what can be done about it.

To callers all of these are a `JournalError`; the writer tells them apart.

Mirror: tests/broker/journal/test_errors.py.
"""

from ..wire.errors import JournalError


class HistoryError(JournalError):
    """A record does not follow from what is known of its run: a defect, or a gap in the log."""


class RefusedError(HistoryError):
    """A record can't be kept, while those before it can.

    Attributes:
        sequence: Its number.
    """

    def __init__(self, sequence: int, message: str) -> None:
        super().__init__(message)
        self.sequence = sequence


class DamageError(JournalError):
    """What was read is not what was written: a checksum is wrong, or something is missing."""


class NewerFormatError(DamageError):
    """What was read is whole, and of a format that this version does not know."""


class UnusableStoreError(JournalError):
    """A folder holds no store that can be used: foreign, newer, damaged, in use, not accessible."""


class NoSpaceError(JournalError):
    """There was no room for a commit: nothing of it was kept, all that was committed before is."""


class LostStoreError(JournalError):
    """The open store can't be relied on any more; open it anew, in a new process."""
