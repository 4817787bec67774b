"""Inputs that go to the workers together, with references where large values stand. An IO shell.

Which values of a run are large, and where they are written, is known in `sharing`.

Mirror: tests/worker/flow/test_lending.py.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from ..shared import is_absent
from .sharing import LEAST_ALONE_BYTES, Given, Place, Sharing, referring


class Lending:
    """Inputs that go to the workers together; their large values are in use until `end`.

    Attributes:
        inputs: With references where large values stand.
        refers: Whether there are some.

    Args:
        sharing: Of the run.
        inputs: As the nodes are to get them.
    """

    def __init__(self, sharing: Sharing, inputs: Sequence[Given]) -> None:
        self._sharing = sharing
        self._whole = inputs
        self._places: list[Place] = []
        if len(inputs) > 1:
            self._places = sharing.common(inputs[0], inputs[-1], away=True)
        elif inputs:
            self._places = sharing.known(inputs[0], away=True)
        self.inputs: Sequence[Given] = inputs
        self._refer()

    @property
    def refers(self) -> bool:
        """Whether there are references."""
        return bool(self._places)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def look(self, size: int) -> bool:
        """Look closer at a lone input that has so many bytes; whether that has found something."""
        if len(self._whole) != 1 or size < LEAST_ALONE_BYTES:
            return False
        before, self._places = self._places, self._sharing.look(self._whole[0], away=True)
        self._sharing.release(before)
        self._refer()
        return self._places != before

    def was_lost_on(self, result: Any) -> bool:
        """Whether a request has failed because a worker could not follow a reference.

        Then no more go to the workers.
        """
        if not self._places or not is_absent(result):
            return False
        self._sharing.distrust()
        return True

    def withdraw(self, result: Any) -> bool:
        """Go without references, if it was for them that a request has failed."""
        if not self.was_lost_on(result):
            return False
        self._end()
        self.inputs = self._whole
        return True

    def _refer(self) -> None:
        if self._places:
            self.inputs = [referring(given, self._places) for given in self._whole]

    def _end(self) -> None:
        self._sharing.release(self._places)
        self._places = []
