"""What the removal of ended runs changes in the tables.

Mirror: tests/broker/journal/test_removal.py.
"""

from msgspec.structs import replace

from .errors import DamageError
from .fold import RunState
from .reading import read_backwards, read_uses
from .record import WithValue, key_of
from .rows import Counts, Pruned, Table, Uses, key_hash, sealed_row
from .store import Change, Delete, Put, View


class Removal:
    """The changes of one commit that removes runs."""

    def __init__(self, view: View, counts: Counts) -> None:
        self._view = view
        self.counts = counts  # as they will be
        self.runs = 0
        self.records = 0
        self._first_bytes = counts.bytes
        self._newest = 0
        self._changes: list[Change] = []
        self._uses: dict[bytes, Uses] = {}  # digest -> what is left of its uses

    def add(self, state: RunState) -> None:
        """Have an ended run removed, with all that is only its own.

        Raises:
            DamageError: It is damaged; nothing of it is removed.
        """
        assert state.status != "open"
        records = list(read_backwards(self._view, state))
        changes: list[Change] = [
            Delete(Table.DONE, key_of(state.run)),
            *(Delete(Table.LOG, key_of(sequence)) for sequence, _, _ in records),
        ]
        digests = [
            digest
            for _, record, _ in records
            if isinstance(record, WithValue)
            for digest in record.apart
        ]
        uses = self._uses_without(digests)
        has_key = state.key is not None
        if state.key is not None:
            changes.append(Delete(Table.KEYS, key_hash(state.owner, state.key)))
        gone = [digest for digest, left in uses.items() if not left.places]
        self._changes += changes
        self._uses |= uses
        self.runs += 1
        self.records += len(records)
        self._newest = max(self._newest, state.run)
        counts = self.counts
        self.counts = replace(
            counts,
            records=counts.records - len(records),
            done=counts.done - 1,
            keys=counts.keys - has_key,
            values=counts.values - len(gone),
            bytes=counts.bytes
            - sum(size for _, _, size in records)
            - sum(uses[digest].size for digest in gone),
        )

    def finish(self) -> list[Change]:
        """Return all changes."""
        changes = self._changes.copy()
        for digest, uses in self._uses.items():
            if uses.places:
                changes.append(Put(Table.USES, digest, sealed_row(Table.USES, digest, uses)))
            else:
                changes += (Delete(Table.USES, digest), Delete(Table.VALUES, digest))
        return changes

    def added_to(self, pruned: Pruned, now_ns: int) -> Pruned:
        """Return what has been removed so far, with this."""
        return Pruned(
            runs=pruned.runs + self.runs,
            records=pruned.records + self.records,
            bytes=pruned.bytes + self._first_bytes - self.counts.bytes,
            through=max(pruned.through, self._newest),
            at_ns=now_ns,
        )

    def _uses_without(self, digests: list[bytes]) -> dict[bytes, Uses]:
        """Return what is left of the uses of values after each of these is dropped."""
        left: dict[bytes, Uses] = {}
        for digest in digests:
            uses = left.get(digest) or self._uses.get(digest) or read_uses(self._view, digest)
            if uses is None or not uses.places:
                raise DamageError(f"the value {digest.hex()} is used and not there")
            left[digest] = replace(uses, places=uses.places - 1)
        return left
