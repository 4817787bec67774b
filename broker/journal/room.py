"""Whether there is room for new runs: on the disk, and within the store's own quota. An IO shell.

New runs are refused before there is no room for the end of those that are open. For these there is
a reserve besides, which is given back to the disk when a commit finds no room.

Mirror: tests/broker/journal/test_room.py.
"""

from .place import DataFolder
from .store import Store


class Room:
    """The room of one store."""

    def __init__(
        self,
        folder: DataFolder,
        *,
        quota_bytes: int,
        ballast_bytes: int | None,
        floor_bytes: int | None,
    ) -> None:
        """Take in the bounds.

        Args:
            folder: The folder of the store.
            quota_bytes: What the store may use.
            ballast_bytes: How much to reserve; by the size of the disk if `None`.
            floor_bytes: How much has to be free besides; likewise.
        """
        ballast, floor = folder.default_sizes()
        self._folder = folder
        self._quota_bytes = quota_bytes
        self._ballast_bytes = ballast if ballast_bytes is None else ballast_bytes
        self._floor_bytes = floor if floor_bytes is None else floor_bytes

    def lacks(self, store: Store) -> str:
        """Say why nothing new is to be accepted, "" if there is room; then there is a reserve too.

        Raises:
            DamageError: The store is damaged.
        """
        folder, reserve = self._folder, self._ballast_bytes
        with store.view() as view:
            used = view.used_bytes()
        if used >= self._quota_bytes:
            return (
                f"the journal in {folder.path} has {used} bytes, its quota is {self._quota_bytes}"
            )
        # What the reserve takes, or is going to take, is not free.
        free = folder.free_bytes + folder.ballast_bytes - reserve
        if free < self._floor_bytes or not folder.make_ballast(reserve):
            return (
                f"the disk of {folder.path} has {max(0, free)} bytes left besides a reserve of "
                f"{reserve}, it should be {self._floor_bytes}"
            )
        return ""

    def give_reserve(self) -> bool:
        """Give the reserve to what is open; `False` if there is none."""
        return self._folder.drop_ballast()
